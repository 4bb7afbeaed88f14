//! The state machine by example; against its naive twin in `model`.

use std::time::Duration;

use super::*;
use crate::policy::arm::PerArm;
use crate::policy::criteria::Criteria;
use crate::policy::judge::window::{ArmCounts, Clustered, Pair, StreakReading, Window};
use crate::policy::plan::{Course, Rules};

mod combinations;
mod journey;
mod model;
mod outlook;
mod plan_model;
mod plans;
mod rest;
mod signals;
mod told;

fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_milliseconds(milliseconds)
}

fn share(percent: u16) -> Share {
    Share::from_basis_points(percent * 100).expect("a share")
}

fn by_hand(share: Option<Share>, criteria: Criteria) -> Course {
    Course::ByHand {
        share,
        criteria: Box::new(criteria),
    }
}

fn terms(share: Option<Share>) -> Terms {
    Terms {
        course: by_hand(share, Criteria::default()),
        rules: Rules::default(),
        rollout_id: "r1".to_owned(),
        signals: Vec::new(),
        backends: PerArm::from_fn(|arm| arm.to_string()),
    }
}

fn alice() -> By {
    By {
        actor: "alice".to_owned(),
        reason: String::new(),
    }
}

/// Counts of 64 requests, one of each session group, all failed or none.
fn requests(fail: bool) -> ArmCounts {
    let one = Pair {
        n: 1,
        e: u64::from(fail),
    };
    let all = Pair {
        n: 64,
        e: 64 * u64::from(fail),
    };
    let errors = Clustered {
        total: all,
        clusters: vec![one; 64],
    };
    // Failures are not fast answers: they have no latency.
    let latency = if fail {
        Clustered::default()
    } else {
        errors.clone()
    };
    ArmCounts {
        errors,
        latency: vec![latency; 2],
        ..ArmCounts::default()
    }
}

fn window(new_fails: bool, legacy_fails: bool) -> Event {
    Event::Observed(Box::new(Window {
        seconds: 0.1,
        new: requests(new_fails),
        legacy: requests(legacy_fails),
        slower: None,
        streak: StreakReading::default(),
        legacy_available: true,
        new_available: true,
    }))
}

fn good() -> Event {
    window(false, false)
}

fn dead() -> Event {
    window(true, false)
}

fn both_dead() -> Event {
    window(true, true)
}

fn set(percent: u16) -> Event {
    Event::Set {
        share: share(percent),
        override_file: false,
        by: alice(),
    }
}

fn resume() -> Event {
    Event::Resume {
        stage: None,
        by: alice(),
    }
}

fn emergency(active: bool) -> Event {
    Event::Emergency {
        active,
        by: alice(),
    }
}

/// A rollout at 10 %, fixed in the file.
fn at_ten_percent() -> Rollout {
    Rollout::new("shop", terms(Some(share(10))), at(0))
}

/// Handles an event that is not refused; its announcements.
fn announced(rollout: &mut Rollout, event: Event, now: i64) -> Vec<Decision> {
    let effects = rollout.handle(event, at(now)).expect("not refused");
    let decisions = effects.into_iter().filter_map(|effect| match effect {
        Effect::Announce(decision) => Some(*decision),
        Effect::Publish(_) | Effect::Persist => None,
    });
    decisions.collect()
}

#[test]
fn a_dead_arm_is_rolled_back_latched_and_told_in_one_sentence() {
    let mut rollout = at_ten_percent();
    announced(&mut rollout, good(), 100);
    let effects = rollout.handle(dead(), at(200)).expect("not refused");

    let zero = Standing {
        share: Share::ZERO,
        emergency: false,
    };
    let [
        Effect::Publish(standing),
        Effect::Persist,
        Effect::Announce(decision),
    ] = &effects[..]
    else {
        panic!("{effects:?}");
    };
    assert_eq!((*standing, rollout.standing()), (zero, zero));
    assert_eq!(rollout.phase(), Phase::RolledBack);
    assert_eq!((decision.from, decision.to), (share(10), Share::ZERO));
    assert_eq!(
        (&*decision.actor, &*decision.action),
        ("engine", "rollback")
    );
    assert_eq!(decision.reason, "error_rate > 5%");
    let story = "Rolled back new of shop at 00:00:00: errors 100% (64 of 64 requests, 64 session \
                 groups) since 00:00:00, legacy 0% (0 of 64).";
    assert!(
        decision.sentence.starts_with(story),
        "{}",
        decision.sentence
    );
    assert_eq!(decision.conditions[0].verdict, "fail");
    assert_eq!(rollout.last_decision(), Some(&**decision));
}

#[test]
fn after_a_rollback_nothing_is_judged_until_a_resume() {
    let mut rollout = at_ten_percent();
    announced(&mut rollout, dead(), 100);
    for now in 2..50 {
        assert_eq!(announced(&mut rollout, dead(), now * 100), []);
    }
    assert!(rollout.handle(set(5), at(5_000)).is_err());

    let decisions = announced(&mut rollout, resume(), 6_000);
    assert_eq!(
        (decisions[0].from, decisions[0].to),
        (Share::ZERO, share(10))
    );
    assert_eq!(rollout.conditions()[0].samples, 0, "fresh evidence");
    assert_eq!(announced(&mut rollout, good(), 6_100), []);
    assert_eq!(rollout.standing().share, share(10));
    announced(&mut rollout, dead(), 6_200);
    assert_eq!(rollout.standing().share, Share::ZERO, "judged again");
}

#[test]
fn only_a_new_rollout_id_clears_a_latch_from_the_file() {
    let mut rollout = at_ten_percent();
    announced(&mut rollout, dead(), 100);

    let edited = Terms {
        course: by_hand(
            Some(share(50)),
            Criteria {
                rollback: Vec::new(),
                ..Criteria::default()
            },
        ),
        ..terms(None)
    };
    let rolled_back = rollout.last_decision().cloned();
    let told = announced(
        &mut rollout,
        Event::Configured(Box::new(edited.clone())),
        200,
    );
    assert_eq!(
        told[0].sentence,
        "The file changed share and criteria of shop at 00:00:00; new stays at 0%."
    );
    assert_eq!(rollout.standing().share, Share::ZERO);
    let last = rollout.last_decision().cloned();
    assert_eq!(last, rolled_back, "why it is at 0 is not hidden");

    let renamed = Terms {
        rollout_id: "r2".to_owned(),
        ..edited
    };
    let decisions = announced(&mut rollout, Event::Configured(Box::new(renamed)), 300);
    assert_eq!((&*decisions[0].actor, decisions[0].to), ("file", share(50)));
    assert_eq!(rollout.phase(), Phase::Progressing);
}

#[test]
fn another_backend_is_not_judged_by_what_its_predecessor_did() {
    let judged_requests = |rollout: &Rollout| {
        let conditions = rollout.conditions().into_iter();
        conditions.map(|condition| condition.samples).sum::<u64>()
    };
    let other = Terms {
        backends: PerArm {
            legacy: "legacy".to_owned(),
            new: "newer".to_owned(),
        },
        ..terms(Some(share(10)))
    };
    let mut rollout = at_ten_percent();
    announced(&mut rollout, good(), 100);
    assert_ne!(judged_requests(&rollout), 0);
    let restored = Rollout::restore("shop", rollout.record(), other.clone(), at(200));
    let told = announced(
        &mut rollout,
        Event::Configured(Box::new(other.clone())),
        200,
    );
    assert_eq!(
        told[0].sentence,
        "The file changed backends of shop at 00:00:00; new stays at 10%."
    );
    assert_eq!(judged_requests(&rollout), 0);
    assert_eq!(judged_requests(&restored.0), 0, "also over a restart");

    announced(&mut rollout, dead(), 300);
    announced(
        &mut rollout,
        Event::Configured(Box::new(terms(Some(share(10))))),
        400,
    );
    assert_eq!(rollout.phase(), Phase::RolledBack, "the latch stays");
}

#[test]
fn another_legacy_is_learnt_from_scratch() {
    let mut rollout = at_ten_percent();
    announced(&mut rollout, good(), 100);
    let other = Terms {
        backends: PerArm {
            legacy: "older".to_owned(),
            new: "new".to_owned(),
        },
        ..terms(Some(share(10)))
    };
    let (restored, _) = Rollout::restore("shop", rollout.record(), other.clone(), at(200));
    let before = rollout.record().evidence;
    announced(
        &mut rollout,
        Event::Configured(Box::new(other.clone())),
        200,
    );
    let fresh = Rollout::new("shop", other, at(200)).record().evidence;
    assert_ne!(before, fresh);
    assert_eq!(rollout.record().evidence, fresh);
    assert_eq!(restored.record().evidence, fresh, "also over a restart");
}

#[test]
fn a_share_fixed_in_the_file_needs_an_override_which_ends_when_the_file_changes() {
    let mut rollout = at_ten_percent();
    let refusal = rollout.handle(set(20), at(100)).expect_err("refused");
    assert!(refusal.message.contains("--override"), "{refusal}");

    let overriding = Event::Set {
        share: share(20),
        override_file: true,
        by: alice(),
    };
    announced(&mut rollout, overriding, 200);
    assert_eq!(rollout.standing().share, share(20));
    assert_eq!(rollout.override_share(), Some(share(20)));

    let criteria_only = Terms {
        course: by_hand(
            Some(share(10)),
            Criteria {
                alpha: 0.02,
                ..Criteria::default()
            },
        ),
        ..terms(None)
    };
    announced(
        &mut rollout,
        Event::Configured(Box::new(criteria_only)),
        300,
    );
    assert_eq!(rollout.standing().share, share(20), "another edit is none");
    announced(
        &mut rollout,
        Event::Configured(Box::new(terms(Some(share(30))))),
        400,
    );
    assert_eq!(rollout.standing().share, share(30));
    assert_eq!(rollout.override_share(), None);
}

#[test]
fn without_a_share_in_the_file_the_operator_decides_from_zero() {
    let mut rollout = Rollout::new("shop", terms(None), at(0));
    assert_eq!(rollout.standing().share, Share::ZERO);
    announced(&mut rollout, set(25), 100);
    assert_eq!(rollout.standing().share, share(25));
}

#[test]
fn an_emergency_outlives_everything_but_its_end() {
    let mut rollout = Rollout::new("shop", terms(None), at(0));
    announced(&mut rollout, set(25), 100);
    announced(&mut rollout, emergency(true), 200);
    let silenced = Standing {
        share: Share::ZERO,
        emergency: true,
    };
    let decisions = announced(&mut rollout, set(50), 300);
    assert!(
        decisions[0]
            .sentence
            .contains("an emergency keeps it at 0%")
    );
    assert_eq!(announced(&mut rollout, dead(), 400), []);
    let renamed = Terms {
        rollout_id: "r2".to_owned(),
        ..terms(None)
    };
    announced(&mut rollout, Event::Configured(Box::new(renamed)), 500);
    assert_eq!(rollout.standing(), silenced);

    announced(&mut rollout, emergency(false), 600);
    assert_eq!(rollout.standing().share, share(50));
}

#[test]
fn a_hold_is_announced_once_per_episode() {
    let mut rollout = at_ten_percent();
    let decisions = announced(&mut rollout, both_dead(), 100);
    assert_eq!(decisions[0].action, "hold");
    assert_eq!(rollout.standing().share, share(10));
    for tick in 2..2_000 {
        assert_eq!(announced(&mut rollout, both_dead(), tick * 100), []);
    }
    for tick in 2_000..2_700 {
        assert_eq!(announced(&mut rollout, good(), tick * 100), []);
    }
    let mut again = Vec::new();
    for tick in 2_700..2_800 {
        again.extend(announced(&mut rollout, both_dead(), tick * 100));
    }
    let actions: Vec<&str> = again.iter().map(|it| it.action.as_str()).collect();
    assert_eq!(actions, ["hold"]);
}

#[test]
fn a_hold_becomes_a_rollback_when_legacy_recovers() {
    let mut rollout = at_ten_percent();
    announced(&mut rollout, both_dead(), 100);
    for tick in 2..200 {
        announced(&mut rollout, dead(), tick * 100);
    }
    assert_eq!(rollout.phase(), Phase::RolledBack);
}

#[test]
fn what_the_file_changed_while_the_process_was_down_is_reported_by_the_restart() {
    let mut rollout = at_ten_percent();
    announced(&mut rollout, good(), 100);
    let other = terms(Some(share(40)));
    let (restored, effects) = Rollout::restore("shop", rollout.record(), other, at(9_000));
    assert_eq!(restored.standing().share, share(40));
    assert!(
        matches!(
            &effects[..],
            [Effect::Persist, Effect::Publish(_), Effect::Announce(_)]
        ),
        "{effects:?}"
    );
}
