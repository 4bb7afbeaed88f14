use super::*;
use crate::control::protocol::{ArmStatus, EndpointStatus, SplitStatus};
use crate::policy::arm::PerArm;
use crate::policy::criteria::Action;
use crate::policy::plan::OnTimeout;
use crate::policy::rollout::{
    Condition, Decision, Need, Observed, Outlook, Phase, PlannedStage, Rest, StageProgress,
    TimeoutAhead,
};
use crate::policy::share::Share;
use crate::policy::signal::{SignalCondition, SignalState};

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
        process: 7,
        generation: 7,
        revision: 9,
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
            revision: 9,
            rest: Some(Rest::Person),
            name: "checkout".into(),
            phase: Phase::Progressing,
            share: "30%".into(),
            file_share: None,
            override_share: None,
            emergency: false,
            rollout_id: "1".into(),
            backends: PerArm {
                legacy: "old".into(),
                new: "shiny".into(),
            },
            conditions: vec![condition("pass", None)],
            outlook: third_of_six(),
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

fn third_of_six() -> Outlook {
    let percent = |percent: u16| Share::from_basis_points(percent * 100).expect("a share");
    Outlook {
        stage: Some(StageProgress {
            number: 3,
            of: 6,
            share: percent(30),
            healthy_seconds: 34.9,
            observe_seconds: 60.0,
            requests: 1_234,
            min_requests: 100,
            ..StageProgress::default()
        }),
        stages: vec![PlannedStage::default(); 6],
        next_share: Some(percent(50)),
        needs: vec![need()],
        lacking: vec![
            "Observed in good health for 34s of 1m.".into(),
            "p95 < 200ms not proven yet: evidence 6 : 1 of 20 : 1, about 90 more requests (≈ 40 s \
             at the present rate)."
                .into(),
        ],
        seconds_to_come: Some(39.6),
        seconds_since_change: Some(720.0),
        ..Outlook::default()
    }
}

fn need() -> Need {
    Need {
        requirement: "p95 < 200ms".into(),
        value: Some(0.012),
        limit: Some(0.05),
        samples: 1_230,
        events: 15,
        interval: None,
        legacy: Observed::default(),
        evidence: 6.2,
        threshold: 20.0,
        meter: 0.61,
        overdispersion: 1.0,
        verdict: "inconclusive".into(),
        requests_to_come: Some(89.3),
        seconds_to_come: Some(39.6),
        lacking: None,
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

SPLIT     PHASE        SHARE  STAGE   NEXT         CHANGED         BREAKER
checkout  progressing    30%  3 of 6  50% in 40 s  12 minutes ago  closed

checkout: stage 3 of 6 at 30%
In good health for 34s of 1m; 1,234 of 100 requests.
The step to 50% waits:
- Observed in good health for 34s of 1m.
- p95 < 200ms not proven yet: evidence 6 : 1 of 20 : 1, about 90 more requests
  (≈ 40 s at the present rate).

ARM     BACKEND  REQUESTS  ERRORS     P50      P95  RESCUED  DIVERTED
legacy  old        12,345  0.024%  3.1 ms  12.5 ms
new     shiny       1,234   0.97%  3.1 ms  20.0 ms       12         0

VERDICT  EVIDENCE            VALUE  LIMIT  SAMPLES  ACTS IF
pass     ░░░░░░ 1.1 of 2000  0.97%  5.00%    1,234  error_rate > 5%

VERDICT       EVIDENCE          VALUE  LIMIT  SAMPLES  GOES ON IF
inconclusive  ███░░░ 6.2 of 20  1.20%  5.00%    1,230  p95 < 200ms

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
        "checkout: set to 20% by hand, the file has a plan",
        "rolled back",
        "half open",
        "error_rate > 5%: withheld, legacy breaches it too",
        "At 03:10:00 checkout went from 100% to 0%.",
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

#[test]
fn nothing_is_wider_than_a_narrow_terminal() {
    let mut status = calm();
    let split = &mut status.splits[0];
    let long = "client_error_rate worse than legacy by 25% for 30s then notify";
    split.conditions.push(Condition {
        criterion: long.into(),
        value: Some(1.0),
        limit: Some(1.0),
        samples: 123_456,
        evidence: 1e6,
        threshold: 20_000.0,
        verdict: "inconclusive".into(),
        ..condition("pass", None)
    });
    let text = render(&status, Ink::Plain);
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "too wide: {line}\n{text}");
    }
    let words: Vec<&str> = long.split(' ').collect();
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
}

#[test]
fn a_signal_that_is_silent_says_so_beside_what_is_asked_of_it() {
    let mut status = calm();
    let memory = SignalState {
        name: "memory".into(),
        value: Some(2_480_343_613.0),
        legacy: None,
        at: None,
        age_seconds: Some(90.0),
        fresh_for_seconds: 60.0,
        fresh: false,
        absent: "inconclusive".into(),
        error: Some("connection refused".into()),
        conditions: vec![SignalCondition {
            sentence: "memory > 2GiB for 30s".into(),
            action: Some(Action::Rollback),
            limit: None,
            breached_seconds: None,
            verdict: "inconclusive".into(),
        }],
    };
    let never_told = SignalState {
        name: "mood".into(),
        value: None,
        age_seconds: None,
        error: None,
        conditions: Vec::new(),
        ..memory.clone()
    };
    status.splits[0].signals = vec![memory, never_told];
    let text = render(&status, Ink::Plain);
    let expected = "
VERDICT       STATE      AGE    VALUE  LIMIT  SIGNAL
inconclusive  stale     90 s  2.31GiB      -  memory > 2GiB for 30s
-             no value     -        -      -  mood
memory: connection refused
";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn one_split_alone_is_its_line_and_all_that_is_known_of_it() {
    let status = calm();
    let text = render_split(&status.splits[0], Ink::Plain);
    assert!(text.starts_with("SPLIT "), "{text}");
    assert!(text.contains("checkout: stage 3 of 6 at 30%"), "{text}");
    assert!(!text.contains("ENDPOINT"), "{text}");
}

#[test]
fn a_timeout_that_comes_first_stands_where_the_next_share_would() {
    let mut status = calm();
    status.splits[0].outlook.seconds_to_come = None;
    for (then, next, sentence) in [
        (
            OnTimeout::Hold,
            " pause in 9 s ",
            "Timeout in 9 s, then it is paused.",
        ),
        (
            OnTimeout::Rollback,
            " rollback in 9 s ",
            "then it is rolled back.",
        ),
        (
            OnTimeout::Advance,
            " 50% in 9 s ",
            "then it goes on if nothing speaks against new.",
        ),
    ] {
        status.splits[0].outlook.timeout = Some(TimeoutAhead { seconds: 9.0, then });
        let text = render(&status, Ink::Plain);
        assert!(text.contains(next) && text.contains(sentence), "{text}");
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
    }
}
