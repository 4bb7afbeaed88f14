//! What signals do to a rollout.

use super::journey::{Journey, go_to, planned, stage};
use super::*;
use crate::policy::plan::Retreat;
use crate::policy::signal::{Absence, Reading, SignalTerms};

/// A plan of 0, 10 and 50 % that rolls back, holds and notifies by signals and needs one of them.
fn with_signals() -> Terms {
    let stage = |percent| {
        let mut stage = stage(percent);
        stage.criteria.signal_rollback = [
            "memory > 2GiB for 1s",
            "lag > 5 then hold",
            "complaints > 3 then notify",
        ]
        .into_iter()
        .map(|text| text.parse().expect("a criterion"))
        .collect();
        stage.criteria.signal_advance = vec!["memory < 1GiB".parse().expect("a requirement")];
        stage
    };
    let signal = |name: &str, absent| SignalTerms {
        name: name.to_owned(),
        fresh_for: Duration::from_secs(2),
        absent,
        has_legacy: false,
        source: "its source".to_owned(),
    };
    Terms {
        signals: vec![
            signal("memory", Absence::Inconclusive),
            signal("lag", Absence::Healthy),
            signal("complaints", Absence::Healthy),
        ],
        ..planned(vec![stage(0), stage(10), stage(50)])
    }
}

fn tell(journey: &mut Journey, name: &str, value: f64) {
    journey.tell(Event::Signal {
        name: name.to_owned(),
        reading: Reading::of(value, None),
    });
}

/// Ten good windows, with this memory all the while.
fn with_memory(journey: &mut Journey, bytes: f64, ticks: usize) {
    for _ in 0..ticks {
        tell(journey, "memory", bytes);
        journey.tick(good());
    }
}

const LITTLE: f64 = 5e8;
const MUCH: f64 = 3e9;

#[test]
fn a_silent_signal_that_is_needed_holds_the_plan_and_is_named() {
    let mut journey = Journey::of(with_signals());
    journey.good_ticks(50);
    assert_eq!(journey.percent(), 0);
    assert!(
        journey.waits()[0].contains("memory"),
        "{:?}",
        journey.waits()
    );
    with_memory(&mut journey, LITTLE, 4);
    assert_eq!(journey.percent(), 0, "in silence nothing ripens");
    with_memory(&mut journey, LITTLE, 1);
    assert_eq!(journey.percent(), 10);

    journey.tell(Event::Pause { by: alice() });
    journey.good_ticks(30);
    journey.tell(resume());
    journey.good_ticks(20);
    assert_eq!(journey.percent(), 10, "stale by now");
    let error = Event::Signal {
        name: "memory".to_owned(),
        reading: Reading {
            new: Err("connection refused".to_owned()),
            legacy: None,
        },
    };
    journey.tell(error);
    assert!(
        journey.waits()[0].contains("connection refused"),
        "{:?}",
        journey.waits()
    );
}

#[test]
fn a_signal_rolls_back_once_its_limit_was_passed_for_long_enough() {
    let mut journey = Journey::of(with_signals());
    with_memory(&mut journey, LITTLE, 6);
    assert_eq!(journey.percent(), 10);
    with_memory(&mut journey, MUCH, 10);
    assert_eq!(journey.percent(), 10);
    with_memory(&mut journey, MUCH, 1);
    assert_eq!(
        (journey.percent(), journey.rollout.phase()),
        (0, Phase::RolledBack)
    );
    assert_eq!(journey.last().reason, "memory > 2GiB for 1s");
    let sentence = &journey.last().sentence;
    assert!(
        sentence.starts_with("Rolled back new of shop at 00:00:01: memory > 2GiB for 1s: "),
        "{sentence}"
    );
}

#[test]
fn a_signal_may_hold_or_be_told_of() {
    let mut journey = Journey::of(with_signals());
    with_memory(&mut journey, LITTLE, 6);
    tell(&mut journey, "complaints", 4.0);
    tell(&mut journey, "lag", 6.0);
    with_memory(&mut journey, LITTLE, 15);
    assert_eq!(
        (journey.percent(), journey.rollout.phase()),
        (10, Phase::Progressing)
    );
    let last_two = &journey.decisions[journey.decisions.len() - 2..];
    assert_eq!(
        [&*last_two[0].action, &*last_two[1].action],
        ["hold", "notify"]
    );

    tell(&mut journey, "lag", 1.0);
    with_memory(&mut journey, LITTLE, 6);
    let actions: Vec<_> = journey.decisions.iter().map(|it| &*it.action).collect();
    assert_eq!(actions, ["advance", "hold", "notify", "advance"]);
}

#[test]
fn values_outlive_a_restart_and_age_meanwhile() {
    let mut journey = Journey::of(with_signals());
    with_memory(&mut journey, LITTLE, 3);
    let terms = journey.rollout.terms().clone();
    let record = journey.rollout.record();
    let soon = journey.now.plus(Duration::from_secs(1));
    let late = journey.now.plus(Duration::from_secs(60));
    let (soon, _) = Rollout::restore("shop", record.clone(), terms.clone(), soon);
    let (late, _) = Rollout::restore("shop", record, terms, late);
    assert!(soon.signals()[0].fresh);
    assert!(!late.signals()[0].fresh);
}

/// At 50 %, with more memory than is allowed until it was rolled back.
fn rolled_back_from_fifty(change: impl Fn(&mut Terms)) -> Journey {
    let mut terms = with_signals();
    for signal in &mut terms.signals {
        signal.fresh_for = Duration::from_secs(60);
    }
    change(&mut terms);
    let mut journey = Journey::of(terms);
    journey.tell(go_to(3));
    with_memory(&mut journey, MUCH, 11);
    assert_eq!(journey.rollout.phase(), Phase::RolledBack);
    journey
}

#[test]
fn one_reading_rolls_back_once() {
    let mut journey = rolled_back_from_fifty(|terms| {
        terms.rules.retreat = Retreat::PreviousStage;
    });
    assert_eq!(journey.percent(), 10);
    journey.good_ticks(50);
    assert_eq!(journey.percent(), 10, "nothing was read since");
    with_memory(&mut journey, MUCH, 10);
    assert_eq!(journey.percent(), 10);
    with_memory(&mut journey, MUCH, 1);
    assert_eq!(journey.percent(), 0, "a new reading counts");

    let mut journey = rolled_back_from_fifty(|terms| {
        terms.rules.ramp = Duration::from_secs(10);
    });
    assert_eq!(journey.percent(), 45);
    journey.good_ticks(15);
    assert_eq!(journey.percent(), 40, "step by step");
}

#[test]
fn after_a_resume_an_old_reading_neither_harms_nor_helps() {
    let renamed = |terms: &Terms| Terms {
        rollout_id: "r2".to_owned(),
        ..terms.clone()
    };
    for by_file in [false, true] {
        let mut journey = rolled_back_from_fifty(|_| {});
        if by_file {
            let terms = renamed(journey.rollout.terms());
            journey.tell(Event::Configured(Box::new(terms)));
            journey.tell(go_to(3));
        } else {
            journey.tell(resume());
        }
        journey.good_ticks(50);
        assert_eq!(journey.percent(), 50, "by file: {by_file}");
        let waits = journey.waits();
        assert!(
            waits[0].starts_with("memory: no reading since it is judged afresh"),
            "{waits:?}"
        );
        let shown = &journey.rollout.signals()[0];
        assert_eq!((shown.value, shown.fresh), (Some(MUCH), false));
        with_memory(&mut journey, MUCH, 11);
        assert_eq!(journey.percent(), 0, "by file: {by_file}");
    }
}

#[test]
fn nobody_is_rolled_back_for_what_a_signal_told_of_another_backend() {
    let mut journey = Journey::of(with_signals());
    with_memory(&mut journey, LITTLE, 6);
    with_memory(&mut journey, MUCH, 10);
    let mut other = journey.rollout.terms().clone();
    other.backends.new = "newer".to_owned();
    journey.tell(Event::Configured(Box::new(other)));
    journey.good_ticks(10);
    assert_eq!(journey.percent(), 10);
}

#[test]
fn a_signal_that_speaks_against_new_does_not_let_the_stage_ripen() {
    for percent in [0, 10] {
        let mut journey = Journey::of(with_signals());
        tell(&mut journey, "memory", LITTLE);
        if percent > 0 {
            journey.reach(percent);
        }
        for _ in 0..50 {
            with_memory(&mut journey, LITTLE, 1);
            tell(&mut journey, "lag", 6.0);
        }
        tell(&mut journey, "lag", 1.0);
        with_memory(&mut journey, LITTLE, 3);
        assert_eq!(journey.percent(), percent, "{:?}", journey.waits());
        with_memory(&mut journey, LITTLE, 2);
        assert_ne!(journey.percent(), percent);
    }
}
