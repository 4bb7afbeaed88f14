//! What is told, and how often: nothing that is withheld or edited stays unsaid.

use super::journey::{Journey, go_to, planned, stage, stages};
use super::*;
use crate::policy::criteria::{Action, Criterion, Metric};
use crate::policy::plan::{OnTimeout, Plan};

/// A stage of 10 % that has two seconds and is never proven in them.
fn hasty(on_timeout: OnTimeout) -> Terms {
    let mut hasty = stage(10);
    hasty.criteria.min_requests = u64::MAX;
    hasty.timeout = Some(Duration::from_secs(2));
    hasty.on_timeout = on_timeout;
    planned(vec![stage(0), hasty, stage(50)])
}

fn legacy_gone(new: Event) -> Event {
    let Event::Observed(window) = new else {
        unreachable!("a window")
    };
    Event::Observed(Box::new(Window {
        legacy_available: false,
        ..*window
    }))
}

#[test]
fn a_timeout_rolls_nobody_back_to_a_legacy_that_is_gone() {
    let mut journey = Journey::of(hasty(OnTimeout::Rollback));
    journey.reach(10);
    let told = journey.decisions.len();
    for _ in 0..100 {
        journey.tick(legacy_gone(good()));
    }
    assert_eq!(
        (journey.percent(), journey.rollout.phase()),
        (10, Phase::Progressing)
    );
    assert_eq!(journey.decisions.len(), told + 1, "told once");
    assert_eq!(journey.last().action, "hold");
    let sentence = &journey.last().sentence;
    assert!(
        sentence.contains("legacy has no healthy endpoint"),
        "{sentence}"
    );
    journey.tick(good());
    assert_eq!((journey.percent(), &*journey.last().action), (0, "timeout"));
}

#[test]
fn an_advising_engine_tells_of_a_timeout_once() {
    for on_timeout in [OnTimeout::Hold, OnTimeout::Rollback] {
        let mut terms = hasty(on_timeout);
        terms.rules.advise = true;
        let mut journey = Journey::of(terms);
        journey.tell(go_to(2));
        journey.good_ticks(100);
        assert_eq!(
            (journey.percent(), journey.rollout.phase()),
            (10, Phase::Progressing)
        );
        let actions: Vec<_> = journey.decisions.iter().map(|it| &*it.action).collect();
        assert_eq!(actions, ["stage", "advise"], "{on_timeout:?}");
        let sentence = &journey.last().sentence;
        assert!(sentence.contains("would be"), "{sentence}");
    }
}

#[test]
fn each_breach_that_is_held_is_told() {
    let mut held = stage(10);
    held.criteria.hard_fail = 0;
    held.criteria.rollback = vec![
        Criterion {
            action: Action::Hold,
            ..Criterion::beyond(Metric::ErrorRate, 0.02)
        },
        Criterion::beyond(Metric::ErrorRate, 0.05),
        Criterion {
            action: Action::Notify,
            ..Criterion::beyond(Metric::ErrorRate, 0.1)
        },
    ];
    let mut journey = Journey::of(planned(vec![stage(0), held, stage(50)]));
    journey.reach(10);
    let told = journey.decisions.len();
    for _ in 0..50 {
        journey.tick(legacy_gone(dead()));
    }
    let mut told: Vec<_> = journey.decisions[told..]
        .iter()
        .map(|it| (&*it.action, &*it.reason))
        .collect();
    told.sort_unstable();
    assert_eq!(
        told,
        [
            ("hold", "error_rate > 2% then hold"),
            ("hold", "error_rate > 5%"),
            ("notify", "error_rate > 10% then notify"),
        ]
    );
}

#[test]
fn every_edit_is_a_decision_also_where_nobody_is_moved() {
    let mut journey = Journey::of(planned(stages(&[0, 10, 50])));
    journey.reach(10);
    let longer = planned(stages(&[0, 10, 50, 100]));
    let mut looser = longer.clone();
    if let Course::Planned(plan) = &mut looser.course {
        let mut stages = plan.stages().to_vec();
        stages[1].criteria.rollback.clear();
        *plan = Plan::new(stages).expect("a plan");
    }
    looser.rules.advise = true;
    for (terms, changed) in [(longer, "plan"), (looser.clone(), "criteria and rules")] {
        let revision = journey.rollout.revision();
        journey.tell(Event::Configured(Box::new(terms)));
        assert_eq!(journey.rollout.revision(), revision + 1);
        let last = journey.last();
        assert_eq!((&*last.actor, &*last.action), ("file", "configured"));
        let start = format!("The file changed {changed} of shop at ");
        assert!(last.sentence.starts_with(&start), "{}", last.sentence);
        assert!(last.sentence.ends_with("; new stays at 10%."));
    }
    let told = journey.decisions.len();
    journey.tell(Event::Configured(Box::new(looser)));
    assert_eq!(journey.decisions.len(), told, "the same file is no edit");
}
