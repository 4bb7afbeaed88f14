//! One split after the other: its stage, its arms side by side, and what speaks for and against.
//!
//! Nothing here is wider than 80 columns, unless a name in the configuration is: a table that wraps
//! on the terminal of a rescue shell is no table. So criteria, which may be long, stand last in
//! their rows and are broken there.

use std::time::Duration;

use crate::control::protocol::SplitStatus;
use crate::policy::arm::Arm;
use crate::policy::duration;
use crate::policy::plan::OnTimeout;
use crate::policy::rollout::{Condition, Need, Phase, StageProgress};
use crate::policy::wording::span;

use super::super::output::{
    Align, Cell, Ink, Table, Tone, count, meter, odds, percent, seconds, wrapped,
};
use super::signals::signals;

/// What a terminal is never narrower than.
pub(super) const COLUMNS: usize = 80;
/// Cells of the bar that shows how near evidence is.
const BAR: usize = 6;
/// What is left for a criterion, after all figures.
const CRITERION: usize = 20;

/// One line for each split.
pub(super) fn overview(splits: &[SplitStatus], ink: Ink) -> String {
    if splits.is_empty() {
        return "The configuration has no splits.\n".to_owned();
    }
    let mut table = Table::new([
        ("SPLIT", Align::Left),
        ("PHASE", Align::Left),
        ("SHARE", Align::Right),
        ("STAGE", Align::Left),
        ("NEXT", Align::Left),
        ("CHANGED", Align::Left),
        ("BREAKER", Align::Left),
    ]);
    for split in splits {
        table.row([
            split.name.as_str().into(),
            phase(split),
            split.share.as_str().into(),
            stage(split).into(),
            next(split).into(),
            changed(split).into(),
            breaker(&split.breaker),
        ]);
    }
    let mut text = table.render(ink);
    for split in splits {
        if let Some(set) = &split.override_share {
            let file = match &split.file_share {
                Some(file) => format!("the file says {file}"),
                None if !split.outlook.stages.is_empty() => "the file has a plan".to_owned(),
                None => "the file says nothing".to_owned(),
            };
            let drift = format!("{}: set to {set} by hand, {file}", split.name);
            text.push_str(&format!("{}\n", ink.paint(Tone::Warning, &drift)));
        }
    }
    text
}

/// All that is known of one split.
pub(super) fn details(split: &SplitStatus, ink: Ink) -> String {
    let mut sections = vec![
        heading(split, ink) + &waits(split, ink),
        arms(split, ink),
        conditions(&split.conditions, ink),
        needs(&split.outlook.needs, ink),
        signals(&split.signals, ink),
    ];
    if let Some(decision) = &split.last_decision {
        sections.push(wrapped(&decision.sentence, COLUMNS, ""));
    }
    sections.retain(|section| !section.is_empty());
    sections.join("\n")
}

/// The name, and what the stage has had of what it needs.
fn heading(split: &SplitStatus, ink: Ink) -> String {
    let name = ink.paint(Tone::Heading, &split.name);
    match &split.outlook.stage {
        None => format!("{name}\n"),
        Some(stage) => {
            let (number, of, share) = (stage.number, stage.of, stage.share);
            let progress = wrapped(&progress(stage), COLUMNS, "");
            format!("{name}: stage {number} of {of} at {share}\n{progress}")
        }
    }
}

fn phase(split: &SplitStatus) -> Cell {
    match split.phase {
        _ if split.emergency => Cell::toned(Tone::Bad, "emergency"),
        Phase::RolledBack => Cell::toned(Tone::Bad, "rolled back"),
        _ if split.outlook.held => Cell::toned(Tone::Bad, "holding"),
        Phase::Paused => Cell::toned(Tone::Warning, "paused"),
        Phase::Pending => "pending".into(),
        Phase::Progressing | Phase::Completed => Cell::toned(Tone::Good, split.phase.as_str()),
    }
}

fn stage(split: &SplitStatus) -> String {
    match (&split.outlook.stage, split.outlook.stages.len()) {
        (_, 0) => "by hand".to_owned(),
        (Some(stage), of) => format!("{} of {of}", stage.number),
        (None, of) => format!("0 of {of}"),
    }
}

fn next(split: &SplitStatus) -> String {
    let outlook = &split.outlook;
    if let Some(timeout) = outlook.timeout {
        let then = match (timeout.then, outlook.next_share) {
            (OnTimeout::Hold, _) => "pause".to_owned(),
            (OnTimeout::Rollback, _) => "rollback".to_owned(),
            (OnTimeout::Advance, Some(next)) => next.to_string(),
            (OnTimeout::Advance, None) => return "-".to_owned(),
        };
        return format!("{then} in {}", span(timeout.seconds));
    }
    match (outlook.next_share, outlook.seconds_to_come) {
        (None, _) => "-".to_owned(),
        (Some(next), Some(seconds)) if seconds > 0.0 => format!("{next} in {}", span(seconds)),
        (Some(next), _) => next.to_string(),
    }
}

fn changed(split: &SplitStatus) -> String {
    let since = split.outlook.seconds_since_change;
    since.map_or_else(|| "-".to_owned(), |since| format!("{} ago", span(since)))
}

fn breaker(state: &str) -> Cell {
    match state {
        "open" => Cell::toned(Tone::Bad, state),
        "half_open" => Cell::toned(Tone::Warning, "half open"),
        _ => state.into(),
    }
}

/// `In good health for 34s of 1m; 67 of 100 requests.`
fn progress(stage: &StageProgress) -> String {
    let whole = |seconds: f64| {
        let whole = Duration::try_from_secs_f64(seconds.floor());
        duration::print(whole.unwrap_or_default())
    };
    let (healthy, needed) = (whole(stage.healthy_seconds), whole(stage.observe_seconds));
    let mut text = format!("In good health for {healthy} of {needed}");
    if stage.min_requests > 0 {
        let (had, needed) = (count(stage.requests), count(stage.min_requests));
        text.push_str(&format!("; {had} of {needed} requests"));
    }
    if let Some(by) = &stage.approved_by {
        text.push_str(&format!("; approved by {by}"));
    }
    text + "."
}

/// What the next step waits for, a sentence each.
fn waits(split: &SplitStatus, ink: Ink) -> String {
    let outlook = &split.outlook;
    if outlook.lacking.is_empty() {
        return String::new();
    }
    let step = match outlook.next_share {
        Some(next) => format!("The step to {next} waits:"),
        None => "Its completion waits:".to_owned(),
    };
    let mut text = format!("{}\n", ink.paint(Tone::Warning, &step));
    for sentence in &outlook.lacking {
        let lines = wrapped(sentence, COLUMNS - 2, "  ");
        text.push_str(&format!("- {}", lines.trim_start()));
    }
    if let Some(timeout) = outlook.timeout {
        let then = match timeout.then {
            OnTimeout::Hold => "it is paused",
            OnTimeout::Rollback => "it is rolled back",
            OnTimeout::Advance => "it goes on if nothing speaks against new",
        };
        let sentence = format!("Timeout in {}, then {then}.", span(timeout.seconds));
        text.push_str(&format!("{}\n", ink.paint(Tone::Warning, &sentence)));
    }
    text
}

fn arms(split: &SplitStatus, ink: Ink) -> String {
    let mut table = Table::new([
        ("ARM", Align::Left),
        ("BACKEND", Align::Left),
        ("REQUESTS", Align::Right),
        ("ERRORS", Align::Right),
        ("P50", Align::Right),
        ("P95", Align::Right),
        ("RESCUED", Align::Right),
        ("DIVERTED", Align::Right),
    ]);
    for arm in Arm::ALL {
        // The refuge has no refuge.
        let of_new = |number| match arm {
            Arm::New => count(number),
            Arm::Legacy => String::new(),
        };
        let measured = &split.arms[arm];
        table.row([
            arm.as_str().into(),
            split.backends[arm].as_str().into(),
            count(measured.requests).into(),
            error_rate(measured.errors, measured.requests),
            quantile(measured.p50_seconds),
            quantile(measured.p95_seconds),
            of_new(split.rescued).into(),
            of_new(split.diverted).into(),
        ]);
    }
    table.render(ink)
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

fn conditions(conditions: &[Condition], ink: Ink) -> String {
    if conditions.is_empty() {
        return String::new();
    }
    let mut table = figures("ACTS IF");
    let mut withheld = String::new();
    for condition in conditions {
        let near = match condition.verdict.as_str() {
            "fail" => Tone::Bad,
            _ if condition.meter > 0.5 => Tone::Warning,
            _ => Tone::Normal,
        };
        row(
            &mut table,
            &condition.criterion,
            [
                verdict(&condition.verdict),
                evidence(
                    near,
                    condition.meter,
                    condition.evidence,
                    condition.threshold,
                ),
                ratio(condition.value),
                ratio(condition.limit),
                count(condition.samples).into(),
            ],
        );
        if let Some(guard) = &condition.withheld_by {
            let sentence = format!("{}: withheld, {guard}", condition.criterion);
            withheld.push_str(&ink.paint(Tone::Warning, &sentence));
            withheld.push('\n');
        }
    }
    table.render(ink) + &withheld
}

fn needs(needs: &[Need], ink: Ink) -> String {
    if needs.is_empty() {
        return String::new();
    }
    let mut table = figures("GOES ON IF");
    for need in needs {
        let tone = match need.verdict.as_str() {
            "pass" => Tone::Good,
            _ => Tone::Normal,
        };
        row(
            &mut table,
            &need.requirement,
            [
                verdict(&need.verdict),
                evidence(tone, need.meter, need.evidence, need.threshold),
                ratio(need.value),
                ratio(need.limit),
                count(need.samples).into(),
            ],
        );
    }
    table.render(ink)
}

fn figures(subject: &str) -> Table {
    Table::new([
        ("VERDICT", Align::Left),
        ("EVIDENCE", Align::Left),
        ("VALUE", Align::Right),
        ("LIMIT", Align::Right),
        ("SAMPLES", Align::Right),
        (subject, Align::Left),
    ])
}

/// A row, and as many below it as the criterion needs.
fn row(table: &mut Table, criterion: &str, [verdict, evidence, value, limit, samples]: [Cell; 5]) {
    let lines = wrapped(criterion, CRITERION, "");
    let mut lines = lines.lines();
    let first = lines.next().unwrap_or_default();
    table.row([verdict, evidence, value, limit, samples, first.into()]);
    let empty = || Cell::from("");
    for line in lines {
        table.row([empty(), empty(), empty(), empty(), empty(), line.into()]);
    }
}

pub(super) fn verdict(verdict: &str) -> Cell {
    let tone = match verdict {
        "pass" => Tone::Good,
        "fail" => Tone::Bad,
        _ => Tone::Warning,
    };
    Cell::toned(tone, verdict)
}

/// `███░░░ 6.2 of 20`.
fn evidence(tone: Tone, full: f64, evidence: f64, threshold: f64) -> Cell {
    let (evidence, threshold) = (odds(evidence), odds(threshold));
    Cell::toned(
        tone,
        format!("{} {evidence} of {threshold}", meter(full, BAR)),
    )
}

fn ratio(ratio: Option<f64>) -> Cell {
    ratio.map_or_else(|| "-".to_owned(), percent).into()
}
