use proptest::prelude::*;

use super::*;
use crate::policy::time::Timestamp;

const NOW: Timestamp = Timestamp::from_milliseconds(1_795_000_000_000);

fn terms(name: &str, absent: Absence) -> SignalTerms {
    SignalTerms {
        name: name.to_owned(),
        fresh_for: Duration::from_secs(60),
        absent,
        has_legacy: true,
        source: "its source".to_owned(),
    }
}

fn board(absent: Absence, criteria: &[&str], requirements: &[&str]) -> Board {
    let criteria: Vec<_> = criteria
        .iter()
        .map(|text| text.parse().expect(text))
        .collect();
    let requirements: Vec<_> = requirements
        .iter()
        .map(|text| text.parse().expect(text))
        .collect();
    let signals = ["memory", "lag"].map(|name| terms(name, absent));
    let mut board = Board::default();
    board.reconfigure(&signals, &criteria, &requirements);
    board
}

fn breaches(board: &Board) -> Vec<String> {
    board.breached().map(|breach| breach.to_string()).collect()
}

fn lacks(board: &Board) -> Vec<String> {
    board.lacking().iter().map(SignalLack::to_string).collect()
}

fn told(value: f64) -> Reading {
    Reading::of(value, None)
}

fn failed(error: &str) -> Reading {
    Reading {
        new: Err(error.to_owned()),
        legacy: None,
    }
}

#[test]
fn a_criterion_on_a_signal_reads_like_a_sentence() {
    let quantity = |text: &str| text.parse::<Quantity>().expect(text);
    for (text, signal, harm, seconds, action) in [
        (
            "memory > 2000000000",
            "memory",
            SignalHarm::Above(quantity("2000000000")),
            0,
            Action::Rollback,
        ),
        (
            "lag>5 for 1m then hold",
            "lag",
            SignalHarm::Above(quantity("5")),
            60,
            Action::Hold,
        ),
        (
            "throughput < 100",
            "throughput",
            SignalHarm::Below(quantity("100")),
            0,
            Action::Rollback,
        ),
        (
            "memory worse than legacy by 20% then notify",
            "memory",
            SignalHarm::WorseThanLegacy(quantity("20%")),
            0,
            Action::Notify,
        ),
    ] {
        let criterion = SignalCriterion {
            signal: signal.to_owned(),
            harm,
            sustained: Duration::from_secs(seconds),
            action,
        };
        assert_eq!(text.parse(), Ok(criterion), "{text}");
    }
    assert_eq!(
        "memory not worse than legacy by 10%".parse(),
        Ok(SignalRequirement {
            signal: "memory".to_owned(),
            proof: SignalProof::NotWorseThanLegacy(quantity("10%")),
        })
    );
}

#[test]
fn what_is_printed_is_read_back_as_the_same() {
    for text in [
        "memory > 2GiB",
        "lag > 5 for 1m then hold",
        "throughput < 100.5",
        "cpu > 80% for 500ms then notify",
        "memory worse than legacy by 20%",
    ] {
        let criterion: SignalCriterion = text.parse().expect(text);
        assert_eq!(criterion.to_string(), text);
        let stored = serde_json::to_string(&criterion).expect("serializable");
        let restored: SignalCriterion = serde_json::from_str(&stored).expect("its own");
        assert_eq!(restored, criterion);
    }
    for text in [
        "lag < 5",
        "throughput > 1e20",
        "memory not worse than legacy by 10%",
    ] {
        let requirement: SignalRequirement = text.parse().expect(text);
        assert_eq!(requirement.to_string(), text);
    }
}

#[test]
fn what_is_no_sentence_on_a_signal_is_refused() {
    for text in [
        "",
        "lag",
        "lag 5",
        "lag >",
        "lag > five",
        "lag > NaN",
        "lag > 5 for 0s",
        "lag > 5 for ever",
        "lag > 5 then dance",
        "lag >= 5",
        "Lag > 5",
        "2lag > 5",
        "data lag > 5",
        "error_rate > 5",
        "p95 > 5",
        "memory worse than legacy by 20",
        "memory worse than legacy by 0%",
        "memory worse than legacy by -5%",
        "memory worse than legacy by 9901%",
        "memory not worse than legacy by 10%",
    ] {
        assert_eq!(
            text.parse::<SignalCriterion>(),
            Err(InvalidSignalCriterion),
            "{text}"
        );
    }
    for text in [
        "lag < 5 then hold",
        "memory worse than legacy by 10%",
        "availability > 5",
    ] {
        assert_eq!(
            text.parse::<SignalRequirement>(),
            Err(InvalidSignalRequirement),
            "{text}"
        );
    }
}

#[test]
fn a_signal_has_no_name_that_a_metric_has() {
    for name in ["memory", "lag", "_x", "cpu_2", "p95_lag", "point"] {
        assert!(is_signal_name(name), "{name}");
    }
    let too_long = "a".repeat(65);
    for name in [
        "",
        "2x",
        "Memory",
        "data-lag",
        "a b",
        "é",
        "error_rate",
        "client_error_rate",
        "availability",
        "fallback_rate",
        "latency",
        "p50",
        "p85",
        "total_p99",
        "inconsistency",
        "shadow_failure_rate",
        &too_long,
    ] {
        assert!(!is_signal_name(name), "{name}");
    }
}

#[test]
fn a_breach_acts_once_it_has_lasted_and_says_what_it_has_seen() {
    let mut board = board(
        Absence::Inconclusive,
        &["lag > 5 for 1m then hold", "memory > 2GiB"],
        &[],
    );
    board.take("lag", told(7.25), NOW);
    board.take("memory", told(1e9), NOW);
    board.pass(20.0);
    assert_eq!(breaches(&board), Vec::<String>::new());
    assert_eq!(
        lacks(&board),
        ["lag > 5 for 1m then hold: it is 7.25, for 20s of 1m."]
    );
    board.pass(40.0);
    assert_eq!(
        breaches(&board),
        ["lag > 5 for 1m then hold: it is 7.25, for 1m."]
    );
    assert_eq!(lacks(&board), Vec::<String>::new());
    board.take("memory", told(2_480_343_613.0), NOW);
    assert_eq!(breaches(&board)[1], "memory > 2GiB: it is 2.31GiB.");
    board.take("lag", told(5.0), NOW);
    assert_eq!(breaches(&board).len(), 1, "the limit itself is kept");
}

#[test]
fn a_comparison_needs_both_values_of_the_same_time() {
    let mut board = board(
        Absence::Inconclusive,
        &["memory worse than legacy by 20%"],
        &["lag not worse than legacy by 10%"],
    );
    board.take("memory", told(1.5e9), NOW);
    board.take("lag", Reading::of(12.0, Some(10.0)), NOW);
    assert_eq!(
        lacks(&board),
        [
            "memory: no reading of legacy yet, fresh for 1m is needed.",
            "lag not worse than legacy by 10% is not met: it is 12, legacy's is 10, the limit 11.",
        ]
    );
    board.take("memory", Reading::of(1.25e9, Some(1e9)), NOW);
    assert_eq!(
        breaches(&board),
        [
            "memory worse than legacy by 20%: it is 1250000000, legacy's is 1000000000, the limit \
             1200000000."
        ]
    );
    board.pass(61.0);
    board.take("memory", told(1.25e9), NOW);
    assert_eq!(
        breaches(&board),
        Vec::<String>::new(),
        "legacy's value is stale"
    );
}

#[test]
fn a_silent_source_is_inconclusive_and_says_why() {
    let mut board = board(
        Absence::Inconclusive,
        &["memory > 2"],
        &["memory < 1", "lag < 5"],
    );
    board.take("memory", told(0.5), NOW);
    board.take("lag", told(7.0), NOW);
    assert_eq!(lacks(&board), ["lag < 5 is not met: it is 7."]);
    board.pass(60.0);
    board.take("memory", failed("connection refused"), NOW);
    assert_eq!(
        lacks(&board).len(),
        1,
        "a failed look does not spoil a fresh value"
    );
    board.pass(60.0);
    board.take(
        "lag",
        failed(&format!("line\nbreak {}", "x".repeat(10_000))),
        NOW,
    );
    let lacks = lacks(&board);
    assert_eq!(
        lacks[0],
        "memory: no reading for 2m, fresh for 1m is needed (connection refused)."
    );
    assert!(lacks[1].starts_with("lag: no reading for 2m, fresh for 1m is needed (line break xx"));
    assert!(lacks[1].len() < 300, "what a source says is bounded");
    assert_eq!(lacks.len(), 2, "one silence is one lack");
    let states = board.states();
    assert!(!states[0].fresh);
    assert_eq!(
        states[0].value,
        Some(0.5),
        "the last value is shown, however old"
    );
    assert_eq!(states[0].age_seconds, Some(120.0));
    assert_eq!(states[0].error.as_deref(), Some("connection refused"));
    assert_eq!(states[0].at.as_deref(), Some("2026-11-18T11:06:40.000Z"));
    let verdicts: Vec<_> = states[0]
        .conditions
        .iter()
        .map(|condition| &*condition.verdict)
        .collect();
    assert_eq!(verdicts, ["inconclusive", "inconclusive"]);
}

#[test]
fn what_is_no_number_is_no_value() {
    let mut board = board(Absence::Inconclusive, &["lag > 5", "lag < 1"], &[]);
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        board.take("lag", told(value), NOW);
        assert_eq!(breaches(&board), Vec::<String>::new(), "{value}");
        let lacks = lacks(&board);
        assert_eq!(
            lacks,
            [format!(
                "lag: no reading yet, fresh for 1m is needed ({value} is no value)."
            )]
        );
    }
    board.take("lag", told(3.0), NOW);
    assert_eq!(lacks(&board), Vec::<String>::new());
    assert_eq!(board.states()[1].error, None);
}

#[test]
fn absence_may_count_as_health() {
    let board = board(Absence::Healthy, &["lag > 5"], &["lag < 5"]);
    assert_eq!(lacks(&board), Vec::<String>::new());
    assert_eq!(breaches(&board), Vec::<String>::new());
}

#[test]
fn absence_may_count_as_harm_once_there_was_time_to_answer() {
    let mut board = board(Absence::Harm, &["lag > 5 for 30s"], &["memory < 1"]);
    board.pass(60.0);
    assert_eq!(
        breaches(&board),
        Vec::<String>::new(),
        "nobody had the time to answer yet"
    );
    assert_eq!(lacks(&board).len(), 2);
    board.take("lag", failed("404 Not Found"), NOW);
    board.pass(1.0);
    assert_eq!(
        breaches(&board),
        Vec::<String>::new(),
        "it has not lasted yet"
    );
    board.pass(30.0);
    assert_eq!(
        breaches(&board),
        ["lag > 5 for 30s: no reading yet, which counts as harm (404 Not Found), for 30s."]
    );
    assert_eq!(
        lacks(&board),
        ["memory: no reading yet, fresh for 1m is needed."]
    );
}

#[test]
fn what_only_notifies_stands_in_nobodys_way() {
    let mut board = board(Absence::Inconclusive, &["lag > 5 for 1m then notify"], &[]);
    assert_eq!(lacks(&board), Vec::<String>::new());
    board.take("lag", told(7.0), NOW);
    assert_eq!(lacks(&board), Vec::<String>::new());
}

#[test]
fn an_edit_keeps_what_is_known_of_what_it_keeps() {
    let mut board = board(Absence::Inconclusive, &["lag > 5 for 1m"], &[]);
    board.take("lag", Reading::of(7.0, Some(1.0)), NOW);
    board.take("gone", told(7.0), NOW);
    board.pass(50.0);
    let kept: SignalCriterion = "lag > 5 for 1m".parse().expect("valid");
    let added: SignalCriterion = "lag > 6 for 1m".parse().expect("valid");
    let alone = SignalTerms {
        has_legacy: false,
        ..terms("lag", Absence::Inconclusive)
    };
    board.reconfigure(&[alone], &[added, kept.clone()], &[]);
    board.pass(10.0);
    let breached: Vec<_> = board.breached().map(|breach| breach.criterion).collect();
    assert_eq!(breached, [kept]);
    assert_eq!(
        board.states()[0].legacy,
        None,
        "nobody asks about legacy any more"
    );
}

#[test]
fn what_another_source_has_said_is_forgotten() {
    let mut board = board(Absence::Inconclusive, &["memory > 2000 for 1m"], &[]);
    board.take("memory", told(2e9), NOW);
    board.pass(50.0);
    let in_megabytes = SignalTerms {
        source: "another source".to_owned(),
        ..terms("memory", Absence::Inconclusive)
    };
    let criterion = "memory > 2000 for 1m".parse().expect("valid");
    board.reconfigure(&[in_megabytes], &[criterion], &[]);
    board.pass(10.0);
    assert_eq!(breaches(&board), Vec::<String>::new());
    assert_eq!(board.states()[0].value, None);
    assert_eq!(
        lacks(&board),
        ["memory: no reading yet, fresh for 1m is needed."]
    );
}

#[test]
fn judged_afresh_only_what_is_read_afterwards_counts() {
    let mut board = board(Absence::Inconclusive, &["lag > 5 for 1m"], &["memory < 1"]);
    board.take("lag", told(7.0), NOW);
    board.take("memory", told(0.5), NOW);
    board.pass(60.0);
    assert_eq!(breaches(&board).len(), 1);
    board.refresh();
    board.pass(0.1);
    assert_eq!(breaches(&board), Vec::<String>::new());
    assert!(!board.is_calm());
    assert_eq!(
        lacks(&board),
        [
            "lag: no reading since it is judged afresh, fresh for 1m is needed.",
            "memory: no reading since it is judged afresh, fresh for 1m is needed.",
        ]
    );
    let shown = &board.states()[1];
    assert_eq!((shown.value, shown.fresh), (Some(7.0), false));
    board.take("lag", told(7.0), NOW);
    board.take("memory", told(0.5), NOW);
    assert_eq!(breaches(&board), Vec::<String>::new(), "it begins anew");
    board.pass(60.0);
    assert_eq!(breaches(&board).len(), 1);
}

#[test]
fn judged_afresh_silence_is_harm_only_after_the_time_to_answer() {
    let mut board = board(Absence::Harm, &["lag > 5"], &[]);
    board.pass(61.0);
    assert_eq!(breaches(&board).len(), 1);
    board.take("lag", told(7.0), NOW);
    board.refresh();
    board.pass(60.0);
    assert_eq!(breaches(&board), Vec::<String>::new());
    board.pass(1.0);
    assert_eq!(
        breaches(&board),
        ["lag > 5: no reading since it is judged afresh, which counts as harm."]
    );
}

#[test]
fn a_restart_changes_nothing_but_the_ages() {
    let mut board = board(Absence::Inconclusive, &["lag > 5 for 1m"], &["memory < 1"]);
    board.take("lag", told(7.000000001), NOW);
    board.take("memory", failed("nonsense"), NOW);
    board.pass(0.1 + 0.2);
    let stored = serde_json::to_string(&board).expect("serializable");
    let mut restored: Board = serde_json::from_str(&stored).expect("its own");
    assert_eq!(restored, board);
    restored.sleep(3_600.0);
    assert_eq!(
        lacks(&restored)[0],
        "lag: no reading for 1h, fresh for 1m is needed."
    );
}

#[derive(Clone, Debug)]
enum Step {
    Told(f64),
    Failed,
    Pass(u32),
    Restart,
    Afresh,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..10_u8).prop_map(|value| Step::Told(f64::from(value))),
        1 => Just(Step::Failed),
        1 => Just(Step::Told(f64::NAN)),
        6 => (1..40_u32).prop_map(Step::Pass),
        1 => Just(Step::Restart),
        1 => Just(Step::Afresh),
    ]
}

fn any_absence() -> impl Strategy<Value = Absence> {
    prop_oneof![
        Just(Absence::Inconclusive),
        Just(Absence::Healthy),
        Just(Absence::Harm)
    ]
}

proptest! {
    // The board holds ages and durations that are carried along. Its twin holds the history: when
    // which value came, and at which looks the criterion was breached.
    #[test]
    fn the_board_agrees_with_the_history(
        absent in any_absence(),
        steps in prop::collection::vec(any_step(), 1..60),
    ) {
        let mut board = board(absent, &["lag > 5 for 1m"], &["lag < 3"]);
        let mut seconds = 0;
        let mut last: Option<(u32, f64)> = None;
        let mut looks: Vec<(u32, bool)> = Vec::new();
        let mut afresh = 0;
        for step in steps {
            match step {
                Step::Told(value) => {
                    board.take("lag", told(value), NOW);
                    if value.is_finite() {
                        last = Some((seconds, value));
                    }
                }
                Step::Failed => board.take("lag", failed("down"), NOW),
                Step::Pass(span) => {
                    seconds += span;
                    board.pass(f64::from(span));
                }
                Step::Afresh => {
                    board.refresh();
                    (afresh, last) = (seconds, None);
                    looks.clear();
                }
                Step::Restart => {
                    let stored = serde_json::to_string(&board).expect("serializable");
                    board = serde_json::from_str(&stored).expect("its own");
                }
            }
            let fresh = last.filter(|(at, _)| seconds - at <= 60).map(|(_, value)| value);
            let is_silent = seconds > last.map_or(afresh, |(at, _)| at) + 60;
            let breached = match fresh {
                Some(value) => value > 5.0,
                None => absent == Absence::Harm && is_silent,
            };
            looks.push((seconds, breached));
            let unbroken = looks.iter().rev().take_while(|(_, breached)| *breached);
            let since = unbroken.last().map(|(at, _)| *at);
            let acts = since.is_some_and(|since| seconds - since >= 60);
            prop_assert_eq!(board.breached().count() == 1, acts);
            let is_met = match fresh {
                Some(value) => value < 3.0,
                None => absent == Absence::Healthy,
            };
            let is_unknown = fresh.is_none() && absent == Absence::Inconclusive;
            let holds = !is_met || is_unknown || (breached && !acts);
            prop_assert_eq!(!board.lacking().is_empty(), holds);
        }
    }
}
