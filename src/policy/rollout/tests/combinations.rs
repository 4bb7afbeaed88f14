//! Things that are harmless one by one. Each was found by the twin in `plan_model`.

use super::journey::{Journey, approve, pause, planned, quick, quiet_window, stage, stages};
use super::*;
use crate::policy::criteria::{Action, Criterion, Metric};
use crate::policy::plan::{OnTimeout, Retreat, Stage};

fn configured(terms: Terms) -> Event {
    Event::Configured(Box::new(terms))
}

fn silence() -> Event {
    Event::Observed(Box::new(Window {
        new: ArmCounts::default(),
        ..quiet_window()
    }))
}

#[test]
fn a_completed_plan_that_grows_goes_on_under_its_rules() {
    let mut journey = Journey::of(planned(stages(&[0, 10, 50])));
    journey.reach(50);
    journey.good_ticks(10);
    assert_eq!(journey.rollout.phase(), Phase::Completed);

    journey.tell(emergency(true));
    journey.tell(configured(planned(stages(&[0, 10, 50, 70]))));
    assert_eq!(journey.rollout.phase(), Phase::Progressing);
    assert_eq!(journey.rollout.wish(journey.now), None, "an emergency");
    journey.tell(emergency(false));
    journey.reach(70);
}

#[test]
fn an_approval_of_one_share_is_none_of_another_that_the_file_puts_in_its_place() {
    let asking = Stage {
        approval: true,
        ..stage(10)
    };
    let plan = |next| planned(vec![stage(0), asking.clone(), stage(next), stage(100)]);
    for restarts in [false, true] {
        let mut journey = Journey::of(plan(20));
        journey.reach(10);
        journey.tell(approve());
        if restarts {
            let record = journey.rollout.record();
            (journey.rollout, _) = Rollout::restore("shop", record, plan(80), journey.now);
        } else {
            journey.tell(configured(plan(80)));
        }
        journey.good_ticks(50);
        assert_eq!(journey.percent(), 10);
        assert_eq!(journey.waits(), ["Somebody has to approve 80%."]);
    }
}

#[test]
fn a_ramp_goes_on_while_a_breach_is_held() {
    let mut terms = planned(stages(&[0, 10, 100]));
    terms.rules.ramp = Duration::from_secs(2);
    let mut journey = Journey::of(terms);
    journey.reach(100);
    journey.tick(dead());
    let mut in_force = journey.rollout.standing();
    for _ in 0..30 {
        journey.now = journey.now.plus(Duration::from_millis(100));
        let effects = journey.rollout.handle(both_dead(), journey.now);
        for effect in effects.expect("not refused") {
            if let Effect::Publish(standing) = effect {
                in_force = standing;
            }
        }
        assert_eq!(
            in_force,
            journey.rollout.standing(),
            "told to the data plane"
        );
    }
    assert_eq!(in_force.share, Share::ZERO);
}

#[test]
fn one_stage_back_does_not_end_a_rollback_to_zero() {
    let mut terms = planned(stages(&[0, 10, 50, 100]));
    terms.rules.ramp = Duration::from_secs(60);
    let mut journey = Journey::of(terms);
    journey.reach(100);
    journey.tick(dead());
    assert_eq!(journey.percent(), 90, "on its way to 0");
    journey.tell(Event::Rollback {
        to: Some(Retreat::PreviousStage),
        by: alice(),
    });
    assert_eq!(journey.percent(), 0);
}

#[test]
fn requests_of_an_earlier_stage_are_none_of_this_one() {
    let content = Stage {
        criteria: Criteria {
            min_requests: 0,
            ..quick()
        },
        ..stage(20)
    };
    let hasty = Stage {
        timeout: Some(Duration::from_secs(1)),
        on_timeout: OnTimeout::Advance,
        ..stage(20)
    };
    for silent in [content, hasty] {
        let stages = vec![stage(0), stage(10), silent, stage(30)];
        let mut journey = Journey::of(planned(stages));
        journey.reach(20);
        for _ in 0..100 {
            journey.tick(silence());
        }
        assert_eq!(journey.percent(), 20, "silence never promotes");
        journey.reach(30);
    }
}

#[test]
fn an_emergency_does_not_ripen_the_first_stage() {
    let mut journey = Journey::of(planned(stages(&[0, 10])));
    journey.tell(emergency(true));
    journey.good_ticks(50);
    journey.tell(emergency(false));
    assert_eq!(journey.rollout.progress(), (0.0, 0));
}

#[test]
fn a_stage_that_is_only_held_still_ends_as_its_plan_says() {
    let mut held = Stage {
        timeout: Some(Duration::from_secs(2)),
        on_timeout: OnTimeout::Rollback,
        ..stage(10)
    };
    held.criteria.hard_fail = 0;
    held.criteria.rollback = vec![Criterion {
        action: Action::Hold,
        ..Criterion::beyond(Metric::ErrorRate, 0.05)
    }];
    let mut journey = Journey::of(planned(vec![stage(0), held, stage(50)]));
    journey.reach(10);
    for _ in 0..10 {
        journey.tick(dead());
    }
    assert_eq!(journey.last().action, "hold");
    for _ in 0..20 {
        journey.tick(dead());
    }
    assert_eq!(journey.last().action, "timeout");
    assert_eq!(journey.percent(), 0);
}

#[test]
fn a_step_that_comes_late_is_refused_if_it_is_no_longer_allowed() {
    let mut journey = Journey::of(planned(stages(&[0, 10])));
    let mut windows = 0;
    while journey.rollout.wish(journey.now).is_none() {
        windows += 1;
        journey.now = journey.now.plus(Duration::from_millis(100));
        journey.tell(good());
        assert!(windows < 100, "{:?}", journey.waits());
    }
    journey.tell(pause());
    let message = journey.refusal(Event::Advance(None));
    assert!(message.contains("paused"), "{message}");
    assert_eq!(journey.percent(), 0);
}

#[test]
fn a_plan_edited_during_a_stop_keeps_what_speaks_against_new() {
    let strict = |percent| {
        let mut stage = stage(percent);
        stage.criteria.rollback = vec![Criterion::beyond(Metric::ErrorRate, 0.02)];
        stage
    };
    let mut journey = Journey::of(planned(vec![stage(0), stage(10), strict(30), stage(50)]));
    journey.reach(30);
    journey.good_ticks(2);
    let gathered = |rollout: &Rollout| {
        let conditions = rollout.conditions();
        let strict = conditions
            .iter()
            .find(|it| it.criterion == "error_rate > 2%");
        strict.map(|condition| (condition.samples, condition.evidence.to_bits()))
    };
    let before = gathered(&journey.rollout);
    assert!(before.is_some());
    let edited = planned(vec![stage(0), strict(30), stage(50)]);
    let record = journey.rollout.record();
    let (restored, _) = Rollout::restore("shop", record, edited, journey.now);
    assert_eq!(gathered(&restored), before);
}

#[test]
fn a_resume_ends_a_hold_and_judges_afresh() {
    let mut holding = stage(10);
    holding.criteria.rollback = vec![Criterion {
        action: Action::Hold,
        ..Criterion::beyond(Metric::ErrorRate, 0.05)
    }];
    holding.criteria.hard_fail = 0;
    let mut journey = Journey::of(planned(vec![stage(0), holding, stage(20)]));
    journey.reach(10);
    let message = journey.refusal(resume());
    assert!(message.contains("nothing to resume"), "{message}");
    for _ in 0..10 {
        journey.tick(dead());
    }
    assert!(
        journey.waits()[0].contains("`resume`"),
        "{:?}",
        journey.waits()
    );
    journey.tell(resume());
    assert_eq!(journey.rollout.conditions()[0].samples, 0);
    journey.reach(20);
}

#[test]
fn a_resume_may_begin_below_the_interrupted_stage_and_never_above() {
    let mut journey = Journey::of(planned(stages(&[0, 10, 50, 100])));
    journey.reach(50);
    journey.tick(dead());
    let resume_at = |number| Event::Resume {
        stage: Some(number),
        by: alice(),
    };
    for number in [0, 4, 5] {
        journey.refusal(resume_at(number));
    }
    journey.tell(resume_at(2));
    assert_eq!(
        (journey.percent(), journey.rollout.phase()),
        (10, Phase::Progressing)
    );
    journey.reach(50);
}

#[test]
fn a_stage_that_is_left_without_proof_says_so() {
    let mut late = stage(10);
    late.criteria.min_requests = u64::MAX;
    late.timeout = Some(Duration::from_secs(2));
    late.on_timeout = OnTimeout::Advance;
    let mut journey = Journey::of(planned(vec![stage(0), late, stage(50)]));
    journey.reach(50);
    let decision = journey.last();
    assert_eq!(decision.reason, "on_timeout: advance");
    assert!(
        decision.sentence.contains("without proof"),
        "{}",
        decision.sentence
    );
}
