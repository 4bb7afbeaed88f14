//! `cutover status`: the state of everything, for someone who was just woken up.
//!
//! What is wrong comes first, then each split with its arms side by side, then the evidence, then
//! the endpoints. Every number shown is the control plane's own; nothing is computed here but the
//! quotient of two counts.

use clap::Args;

use crate::control::protocol::{BackendStatus, ConfigStatus, SplitStatus, Status};
use crate::policy::arm::Arm;
use crate::policy::rollout::{Condition, Phase};

use super::client::{Connection, for_people};
use super::exit::Failure;
use super::output::{
    Align, Answer, Cell, Format, Ink, Output, Table, Tone, count, odds, percent, seconds,
};

/// `cutover status`
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

impl Arguments {
    pub(super) fn run(self, ink: Ink) -> Result<Answer, Failure> {
        let answer = self.connection.get("/api/v1/status")?;
        match self.output.format {
            Format::Json => Ok(Answer::json(&answer)),
            Format::Table => Ok(Answer::success(render(&for_people(answer)?, ink))),
        }
    }
}

/// The whole status as text.
pub(super) fn render(status: &Status, ink: Ink) -> String {
    let sections = [
        summary(status, ink),
        splits(&status.splits, ink),
        conditions(&status.splits, ink),
        decisions(&status.splits, ink),
        backends(&status.backends, ink),
    ];
    let shown: Vec<String> = sections
        .into_iter()
        .filter(|text| !text.is_empty())
        .collect();
    shown.join("\n")
}

fn summary(status: &Status, ink: Ink) -> String {
    let mut text = format!(
        "cutover {}, started {}, generation {}\n",
        status.version, status.started_at, status.generation
    );
    if status.emergency {
        let warning = "EMERGENCY: every split is on legacy until `cutover emergency --clear`";
        text.push_str(&ink.paint(Tone::Bad, warning));
        text.push('\n');
    }
    if !status.store_healthy {
        let warning = "STATE STORE FAILING: decisions hold in memory and are lost by a restart";
        text.push_str(&ink.paint(Tone::Bad, warning));
        text.push('\n');
    }
    text.push_str(&config(&status.config, ink));
    text
}

fn config(config: &ConfigStatus, ink: Ink) -> String {
    let in_force = format!("{}, loaded {}\n", config.path, config.loaded_at);
    if config.last_reload_successful {
        return in_force;
    }
    let warning = "CONFIG REFUSED: the file has problems, what was loaded before stays in force";
    let mut text = format!("{in_force}{}\n", ink.paint(Tone::Bad, warning));
    for problem in &config.problems {
        // A problem may quote the lines of the file it speaks of.
        text.push_str(&format!("  {}\n", problem.trim_end().replace('\n', "\n  ")));
    }
    text
}

fn splits(splits: &[SplitStatus], ink: Ink) -> String {
    if splits.is_empty() {
        return "The configuration has no splits.\n".to_owned();
    }
    let mut table = Table::new([
        ("SPLIT", Align::Left),
        ("PHASE", Align::Left),
        ("SHARE", Align::Right),
        ("ARM", Align::Left),
        ("BACKEND", Align::Left),
        ("REQUESTS", Align::Right),
        ("ERRORS", Align::Right),
        ("P50", Align::Right),
        ("P95", Align::Right),
        ("RESCUED", Align::Right),
        ("DIVERTED", Align::Right),
        ("BREAKER", Align::Left),
    ]);
    for split in splits {
        for arm in Arm::ALL {
            // What belongs to the split as a whole is said once, and the refuge has no refuge.
            let once = |cell: Cell| if arm == Arm::Legacy { cell } else { "".into() };
            let of_new = |cell: Cell| if arm == Arm::New { cell } else { "".into() };
            let measured = &split.arms[arm];
            table.row([
                once(split.name.as_str().into()),
                once(phase(split)),
                once(split.share.as_str().into()),
                arm.as_str().into(),
                split.backends[arm].as_str().into(),
                count(measured.requests).into(),
                error_rate(measured.errors, measured.requests),
                quantile(measured.p50_seconds),
                quantile(measured.p95_seconds),
                of_new(count(split.rescued).into()),
                of_new(count(split.diverted).into()),
                of_new(breaker(&split.breaker)),
            ]);
        }
    }
    let mut text = table.render(ink);
    for split in splits {
        if let Some(set) = &split.override_share {
            let file = match &split.file_share {
                Some(file) => format!("the file says {file}"),
                None => "the file says nothing".to_owned(),
            };
            let drift = format!("{}: set to {set} by hand, {file}", split.name);
            text.push_str(&format!("{}\n", ink.paint(Tone::Warning, &drift)));
        }
    }
    text
}

fn phase(split: &SplitStatus) -> Cell {
    match split.phase {
        _ if split.emergency => Cell::toned(Tone::Bad, "emergency"),
        Phase::RolledBack => Cell::toned(Tone::Bad, "rolled back"),
        Phase::Paused => Cell::toned(Tone::Warning, "paused"),
        Phase::Pending => "pending".into(),
        Phase::Progressing | Phase::Completed => Cell::toned(Tone::Good, split.phase.as_str()),
    }
}

fn error_rate(errors: u64, requests: u64) -> Cell {
    if requests == 0 {
        return "-".into();
    }
    percent(errors as f64 / requests as f64).into()
}

fn quantile(time: Option<f64>) -> Cell {
    time.map_or_else(|| "-".to_owned(), seconds).into()
}

fn breaker(state: &str) -> Cell {
    match state {
        "open" => Cell::toned(Tone::Bad, state),
        "half_open" => Cell::toned(Tone::Warning, "half open"),
        _ => state.into(),
    }
}

fn conditions(splits: &[SplitStatus], ink: Ink) -> String {
    let mut table = Table::new([
        ("ROLLS BACK IF", Align::Left),
        ("SPLIT", Align::Left),
        ("VALUE", Align::Right),
        ("LIMIT", Align::Right),
        ("SAMPLES", Align::Right),
        ("EVIDENCE", Align::Right),
        ("FIRES AT", Align::Right),
        ("VERDICT", Align::Left),
    ]);
    let mut any = false;
    for split in splits {
        for condition in &split.conditions {
            any = true;
            let value = condition.value.map_or_else(|| "-".to_owned(), percent);
            table.row([
                condition.criterion.as_str().into(),
                split.name.as_str().into(),
                value.into(),
                condition
                    .limit
                    .map_or_else(|| "-".to_owned(), percent)
                    .into(),
                count(condition.samples).into(),
                odds(condition.evidence).into(),
                odds(condition.threshold).into(),
                verdict(condition),
            ]);
        }
    }
    if any {
        table.render(ink)
    } else {
        String::new()
    }
}

fn verdict(condition: &Condition) -> Cell {
    let tone = match condition.verdict.as_str() {
        "pass" => Tone::Good,
        "fail" => Tone::Bad,
        _ => Tone::Warning,
    };
    match &condition.withheld_by {
        Some(guard) => Cell::toned(
            Tone::Warning,
            format!("{}, withheld: {guard}", condition.verdict),
        ),
        None => Cell::toned(tone, condition.verdict.as_str()),
    }
}

fn decisions(splits: &[SplitStatus], ink: Ink) -> String {
    let mut text = String::new();
    for split in splits {
        if let Some(decision) = &split.last_decision {
            let heading = ink.paint(Tone::Heading, &format!("{}:", split.name));
            text.push_str(&format!("{heading} {}\n", decision.sentence));
        }
    }
    text
}

fn backends(backends: &[BackendStatus], ink: Ink) -> String {
    if backends.is_empty() {
        return String::new();
    }
    let mut table = Table::new([
        ("BACKEND", Align::Left),
        ("ENDPOINT", Align::Left),
        ("HEALTH", Align::Left),
        ("PENDING", Align::Right),
        ("CONNECTIONS", Align::Right),
    ]);
    for backend in backends {
        for (position, endpoint) in backend.endpoints.iter().enumerate() {
            let name = if position == 0 {
                backend.name.as_str()
            } else {
                ""
            };
            let tone = if endpoint.health == "healthy" {
                Tone::Good
            } else {
                Tone::Bad
            };
            table.row([
                name.into(),
                endpoint.address.as_str().into(),
                Cell::toned(tone, endpoint.health.as_str()),
                count(endpoint.pending).into(),
                count(endpoint.connections).into(),
            ]);
        }
    }
    table.render(ink)
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::control::protocol::{ArmStatus, EndpointStatus};
    use crate::policy::arm::PerArm;
    use crate::policy::criteria::Action;
    use crate::policy::rollout::{Decision, Observed, Outlook};
    use crate::policy::share::Share;

    fn calm() -> Status {
        let arm = |requests, errors, p95| ArmStatus {
            requests,
            errors,
            p50_seconds: Some(0.0031),
            p95_seconds: Some(p95),
            p99_seconds: Some(1.5),
            ..ArmStatus::default()
        };
        Status {
            version: "0.1.0".into(),
            generation: 7,
            started_at: "2026-11-20T03:00:00Z".into(),
            config: ConfigStatus {
                path: "/etc/cutover.yaml".into(),
                loaded_at: "2026-11-20T03:00:01Z".into(),
                last_reload_successful: true,
                problems: Vec::new(),
            },
            emergency: false,
            store_healthy: true,
            splits: vec![SplitStatus {
                name: "checkout".into(),
                phase: Phase::Progressing,
                share: "10%".into(),
                file_share: Some("10%".into()),
                override_share: None,
                emergency: false,
                rollout_id: "1".into(),
                backends: PerArm {
                    legacy: "old".into(),
                    new: "shiny".into(),
                },
                conditions: vec![condition("pass", None)],
                outlook: Outlook::default(),
                signals: Vec::new(),
                arms: PerArm {
                    legacy: arm(12_345, 3, 0.0125),
                    new: arm(1_234, 12, 0.02),
                },
                rescued: 12,
                diverted: 0,
                breaker: "closed".into(),
                last_decision: None,
                recording: None,
            }],
            backends: vec![BackendStatus {
                name: "shiny".into(),
                endpoints: vec![
                    endpoint("10.0.0.1:80", "healthy"),
                    endpoint("10.0.0.2:80", "ejected"),
                ],
            }],
        }
    }

    fn condition(verdict: &str, withheld_by: Option<&str>) -> Condition {
        Condition {
            criterion: "error_rate > 5%".into(),
            action: Action::Rollback,
            value: Some(0.0097),
            limit: Some(0.05),
            samples: 1_234,
            events: 12,
            interval: None,
            legacy: Observed::default(),
            evidence: 1.1,
            threshold: 2_000.0,
            meter: 0.01,
            since: None,
            overdispersion: 1.0,
            verdict: verdict.into(),
            withheld_by: withheld_by.map(str::to_owned),
        }
    }

    fn endpoint(address: &str, health: &str) -> EndpointStatus {
        EndpointStatus {
            address: address.into(),
            health: health.into(),
            pending: 2,
            connections: 8,
        }
    }

    #[test]
    fn a_calm_instance_fits_on_a_screen() {
        let expected = "\
cutover 0.1.0, started 2026-11-20T03:00:00Z, generation 7
/etc/cutover.yaml, loaded 2026-11-20T03:00:01Z

SPLIT     PHASE        SHARE  ARM     BACKEND  REQUESTS  ERRORS     P50      P95  RESCUED  DIVERTED  BREAKER
checkout  progressing    10%  legacy  old        12,345  0.024%  3.1 ms  12.5 ms
                              new     shiny       1,234   0.97%  3.1 ms  20.0 ms       12         0  closed

ROLLS BACK IF    SPLIT     VALUE  LIMIT  SAMPLES  EVIDENCE  FIRES AT  VERDICT
error_rate > 5%  checkout  0.97%  5.00%    1,234       1.1      2000  pass

BACKEND  ENDPOINT     HEALTH   PENDING  CONNECTIONS
shiny    10.0.0.1:80  healthy        2            8
         10.0.0.2:80  ejected        2            8
";
        assert_eq!(render(&calm(), Ink::Plain), expected);
    }

    #[test]
    fn trouble_is_said_in_words_and_before_everything_else() {
        let mut status = calm();
        status.emergency = true;
        status.store_healthy = false;
        status.config.last_reload_successful = false;
        status.config.problems = vec!["line 3: no such key\n3 | sahre: 5%".into()];
        let split = &mut status.splits[0];
        split.phase = Phase::RolledBack;
        split.override_share = Some("20%".into());
        split.breaker = "half_open".into();
        split.conditions = vec![condition("fail", Some("legacy breaches it too"))];
        split.last_decision = Some(Decision {
            at: "2026-11-20T03:10:00Z".into(),
            split: "checkout".into(),
            actor: "engine".into(),
            action: "rollback".into(),
            reason: "error_rate > 5%".into(),
            from: Share::ALL,
            to: Share::ZERO,
            revision: 7,
            phase: Some(Phase::RolledBack),
            stage: None,
            conditions: Vec::new(),
            needs: Vec::new(),
            sentence: "At 03:10:00 checkout went from 100% to 0%.".into(),
        });
        let text = render(&status, Ink::Plain);
        for expected in [
            "EMERGENCY: every split is on legacy",
            "STATE STORE FAILING",
            "CONFIG REFUSED",
            "  line 3: no such key\n  3 | sahre: 5%\n",
            "checkout: set to 20% by hand, the file says 10%",
            "rolled back",
            "half open",
            "fail, withheld: legacy breaches it too",
            "checkout: At 03:10:00 checkout went from 100% to 0%.",
        ] {
            assert!(text.contains(expected), "no `{expected}` in:\n{text}");
        }
        assert!(text.find("EMERGENCY") < text.find("SPLIT"));
    }

    #[test]
    fn an_instance_without_traffic_or_splits_shows_no_invented_figures() {
        let mut status = calm();
        status.splits[0].arms = PerArm::default();
        status.splits[0].conditions[0].value = None;
        let text = render(&status, Ink::Plain);
        assert!(!text.contains("NaN") && !text.contains("0.0 ms"), "{text}");
        status.splits.clear();
        status.backends.clear();
        assert!(render(&status, Ink::Plain).ends_with("The configuration has no splits.\n"));
    }
}
