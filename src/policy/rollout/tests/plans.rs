//! Plans by example.

use super::journey::{
    Journey, approve, go_to, pause, planned, promote, quick, quiet_window, stage, stages,
};
use super::*;
use crate::policy::calendar::{Calendar, WeeklyWindow};
use crate::policy::criteria::{Action, Criterion, Metric};
use crate::policy::plan::{OnTimeout, Retreat, Stage};

#[test]
fn a_good_arm_is_taken_through_every_stage_and_still_watched_afterwards() {
    let mut journey = Journey::of(planned(stages(&[0, 10, 50, 100])));
    assert_eq!(journey.rollout.phase(), Phase::Progressing);
    for percent in [10, 50, 100] {
        journey.reach(percent);
        assert_eq!(journey.last().action, "advance");
    }
    journey.good_ticks(10);
    assert_eq!(journey.last().action, "complete");
    assert_eq!(journey.rollout.phase(), Phase::Completed);
    let shares: Vec<_> = journey
        .decisions
        .iter()
        .map(|it| (it.from, it.to))
        .collect();
    let percent = |from, to| (share(from), share(to));
    assert_eq!(
        shares,
        [
            percent(0, 10),
            percent(10, 50),
            percent(50, 100),
            percent(100, 100)
        ]
    );
    let sentence = &journey.decisions[1].sentence;
    assert!(
        sentence.starts_with("Advanced new of shop from 10% to 50% (stage 3 of 4) at 00:00:"),
        "{sentence}"
    );

    journey.tick(dead());
    assert_eq!(journey.percent(), 0);
    assert_eq!(journey.rollout.phase(), Phase::RolledBack);
}

#[test]
fn a_stage_is_not_left_before_it_was_healthy_for_long_enough() {
    let mut journey = Journey::of(planned(stages(&[0, 10, 100])));
    journey.reach(10);
    journey.good_ticks(4);
    assert_eq!(journey.percent(), 10);
    assert_eq!(
        journey.waits(),
        ["Observed in good health for 0s of 500ms."]
    );
    journey.good_ticks(1);
    assert_eq!(journey.percent(), 100);
}

#[test]
fn neither_a_restart_nor_a_moved_clock_ripens_a_stage() {
    let mut journey = Journey::of(planned(stages(&[0, 10, 100])));
    journey.reach(10);
    journey.good_ticks(3);
    let terms = journey.rollout.terms().clone();
    journey.now = journey.now.plus(Duration::from_secs(86_400));
    let (restored, effects) =
        Rollout::restore("shop", journey.rollout.record(), terms, journey.now);
    assert_eq!(effects, []);
    journey.rollout = restored;
    assert_eq!(
        journey.rollout.wish(journey.now),
        None,
        "nothing was seen yet"
    );
    journey.now = at(100);
    journey.good_ticks(1);
    assert_eq!(journey.percent(), 10);
    journey.good_ticks(1);
    assert_eq!(journey.percent(), 100);
}

#[test]
fn silence_never_promotes() {
    let mut journey = Journey::of(planned(stages(&[0, 10, 100])));
    journey.reach(10);
    let silence = Event::Observed(Box::new(Window {
        new: ArmCounts::default(),
        ..quiet_window()
    }));
    for _ in 0..1_000 {
        journey.tick(silence.clone());
    }
    assert_eq!(journey.percent(), 10);
    assert_eq!(journey.waits()[0], "No request was sent to new yet.");
}

#[test]
fn at_share_zero_new_must_be_able_to_take_requests() {
    let mut journey = Journey::of(planned(stages(&[0, 10])));
    let unavailable = Event::Observed(Box::new(Window {
        new_available: false,
        ..quiet_window()
    }));
    for _ in 0..100 {
        journey.tick(unavailable.clone());
    }
    assert_eq!(journey.percent(), 0);
    assert_eq!(
        journey.waits()[0],
        "No endpoint of new could take requests."
    );
    journey.reach(10);
}

#[test]
fn a_plan_that_begins_above_zero_is_pending_until_new_is_available() {
    let mut journey = Journey::of(planned(stages(&[5, 50])));
    assert_eq!(journey.rollout.phase(), Phase::Pending);
    assert_eq!(
        journey.waits(),
        ["Nothing was measured yet since the start."]
    );
    journey.tick(good());
    assert_eq!(
        (journey.percent(), journey.rollout.position()),
        (5, Some(0))
    );
}

#[test]
fn a_first_step_of_more_than_ten_percent_needs_a_person() {
    let mut journey = Journey::of(planned(stages(&[0, 100])));
    journey.good_ticks(50);
    assert_eq!(journey.percent(), 0);
    assert_eq!(journey.waits(), ["Somebody has to approve 100%."]);
    journey.tell(approve());
    assert_eq!(journey.percent(), 0, "approval alone moves nobody");
    journey.tick(good());
    assert_eq!(journey.percent(), 100);
}

#[test]
fn an_approval_may_come_first_and_counts_for_one_stage() {
    let asking = |percent| Stage {
        approval: true,
        ..stage(percent)
    };
    let mut journey = Journey::of(planned(vec![stage(0), asking(10), asking(20), stage(30)]));
    journey.reach(10);
    journey.tell(approve());
    assert_eq!(journey.rollout.approved_by(), Some("alice"));
    journey.reach(20);
    journey.good_ticks(50);
    assert_eq!(journey.percent(), 20);
    assert_eq!(journey.waits(), ["Somebody has to approve 30%."]);

    journey.tell(approve());
    journey.reach(30);
    let message = journey.refusal(approve());
    assert!(message.contains("nothing to approve"), "{message}");
}

#[test]
fn the_calendar_keeps_a_stage_until_it_opens() {
    // The epoch was a Thursday.
    let friday = Calendar::new(
        jiff::tz::TimeZone::UTC,
        vec![WeeklyWindow {
            days: vec![jiff::civil::Weekday::Friday],
            from: jiff::civil::time(9, 0, 0, 0),
            to: Some(jiff::civil::time(12, 0, 0, 0)),
        }],
    );
    let kept = Stage {
        calendar: Some(friday),
        ..stage(10)
    };
    let mut journey = Journey::of(planned(vec![stage(0), kept, stage(50)]));
    journey.reach(10);
    journey.good_ticks(50);
    assert_eq!(journey.percent(), 10);
    assert_eq!(
        journey.waits(),
        ["The calendar is closed until 1970-01-02 09:00 UTC."]
    );
    journey.now = at(33 * 3_600_000);
    journey.tick(good());
    assert_eq!(journey.percent(), 50);
}

#[test]
fn a_paused_plan_waits_but_is_still_rolled_back() {
    let mut journey = Journey::of(planned(stages(&[0, 10, 50, 100])));
    journey.reach(10);
    journey.tell(pause());
    journey.good_ticks(50);
    assert_eq!(
        (journey.percent(), journey.rollout.phase()),
        (10, Phase::Paused)
    );
    assert_eq!(journey.waits(), ["It is paused; resume it to go on."]);

    journey.tell(resume());
    let waits = journey.waits();
    let is_afresh = waits.iter().any(|wait| wait.starts_with("Observed"));
    assert!(is_afresh, "{waits:?}");
    journey.reach(50);
    journey.tell(pause());
    journey.tick(dead());
    assert_eq!(
        (journey.percent(), journey.rollout.phase()),
        (0, Phase::RolledBack)
    );
    let message = journey.refusal(pause());
    assert!(message.contains("rolled back"), "{message}");
}

#[test]
fn a_resume_after_a_rollback_restarts_the_interrupted_stage_with_fresh_evidence() {
    let mut journey = Journey::of(planned(stages(&[0, 10, 50, 100])));
    journey.reach(50);
    journey.tick(dead());
    assert_eq!(journey.percent(), 0);
    for forbidden in [promote(), go_to(2), approve(), set(5)] {
        journey.refusal(forbidden);
    }
    journey.good_ticks(50);
    assert_eq!(journey.percent(), 0, "a latch does not ripen");

    journey.tell(resume());
    assert_eq!(
        (journey.percent(), journey.rollout.position()),
        (50, Some(2))
    );
    assert_eq!(journey.rollout.conditions()[0].samples, 0);
    journey.reach(100);
}

#[test]
fn operators_take_a_plan_to_any_stage() {
    let mut journey = Journey::of(planned(stages(&[0, 10, 50, 100])));
    journey.tell(promote());
    assert_eq!(journey.percent(), 10);
    journey.tell(go_to(4));
    assert_eq!(journey.percent(), 100);
    journey.tell(go_to(2));
    assert_eq!(journey.percent(), 10);
    assert_eq!(
        journey.last().sentence,
        "Took new of shop to 10% (stage 2 of 4) at 00:00:00 by alice; it was at 100%."
    );
    for number in [0, 5] {
        let message = journey.refusal(go_to(number));
        assert_eq!(message, "shop has the stages 1 to 4");
    }
    journey.tell(go_to(4));
    let message = journey.refusal(promote());
    assert!(message.contains("last stage"), "{message}");
}

#[test]
fn an_operators_share_suspends_the_plan_until_a_resume() {
    let mut journey = Journey::of(planned(stages(&[0, 10, 50, 100])));
    journey.reach(10);
    journey.tell(set(25));
    journey.good_ticks(50);
    assert_eq!(
        (journey.percent(), journey.rollout.phase()),
        (25, Phase::Paused)
    );
    assert_eq!(
        journey.waits(),
        ["An operator's share of 25% stands; resume to go on."]
    );
    journey.tell(resume());
    assert_eq!(
        (journey.percent(), journey.rollout.phase()),
        (10, Phase::Progressing)
    );
}

#[test]
fn a_rollback_may_go_one_stage_back_and_for_the_second_time_to_zero() {
    let mut terms = planned(stages(&[0, 10, 50, 100]));
    terms.rules.retreat = Retreat::PreviousStage;
    let mut journey = Journey::of(terms);
    journey.reach(50);
    journey.tick(dead());
    assert_eq!(
        (journey.percent(), journey.rollout.phase()),
        (10, Phase::RolledBack)
    );
    assert!(
        journey
            .last()
            .sentence
            .starts_with("Rolled back new of shop to 10% at")
    );
    journey.good_ticks(50);
    assert_eq!(journey.percent(), 10, "latched against raising");
    journey.refusal(set(50));
    journey.tick(dead());
    assert_eq!(journey.percent(), 0);
}

#[test]
fn a_ramp_comes_down_in_steps_and_harm_that_goes_on_ends_it() {
    let mut terms = planned(stages(&[0, 10, 100]));
    terms.rules.ramp = Duration::from_secs(2);
    let mut journey = Journey::of(terms.clone());
    journey.reach(100);
    journey.tick(dead());
    let mut shares = vec![journey.percent()];
    for _ in 0..30 {
        journey.tick(good());
        shares.push(journey.percent());
    }
    shares.dedup();
    assert_eq!(shares, [90, 80, 70, 60, 50, 40, 30, 20, 10, 0]);

    let mut journey = Journey::of(terms);
    journey.reach(100);
    journey.tick(dead());
    assert_eq!(journey.percent(), 90);
    journey.tick(dead());
    assert_eq!(journey.percent(), 0);
}

#[test]
fn an_undecided_stage_ends_as_its_plan_says() {
    let never_proven = |on_timeout| Stage {
        criteria: Criteria {
            min_requests: u64::MAX,
            ..quick()
        },
        timeout: Some(Duration::from_secs(2)),
        on_timeout,
        ..stage(10)
    };
    for (on_timeout, percent, phase, action) in [
        (OnTimeout::Hold, 10, Phase::Paused, "timeout"),
        (OnTimeout::Rollback, 0, Phase::RolledBack, "timeout"),
        (OnTimeout::Advance, 50, Phase::Progressing, "advance"),
    ] {
        let stages = vec![stage(0), never_proven(on_timeout), stage(50)];
        let mut journey = Journey::of(planned(stages));
        journey.reach(10);
        journey.good_ticks(19);
        assert_eq!(journey.percent(), 10, "{on_timeout:?}");
        journey.good_ticks(2);
        assert_eq!(
            (
                journey.percent(),
                journey.rollout.phase(),
                &*journey.last().action
            ),
            (percent, phase, action)
        );
    }
}

#[test]
fn a_timeout_never_advances_on_silence() {
    let hasty = Stage {
        timeout: Some(Duration::from_secs(1)),
        on_timeout: OnTimeout::Advance,
        ..stage(10)
    };
    let mut journey = Journey::of(planned(vec![stage(0), hasty, stage(50)]));
    journey.reach(10);
    let silence = Event::Observed(Box::new(Window {
        new: ArmCounts::default(),
        ..quiet_window()
    }));
    for _ in 0..100 {
        journey.tick(silence.clone());
    }
    assert_eq!(journey.percent(), 10);
}

#[test]
fn the_engine_cools_down_after_a_change() {
    let mut terms = planned(stages(&[0, 10, 50]));
    terms.rules.cool_down = Duration::from_secs(3);
    let mut journey = Journey::of(terms);
    journey.reach(10);
    journey.good_ticks(10);
    assert_eq!(journey.waits(), ["Cooling down for 3s more."]);
    journey.good_ticks(18);
    assert_eq!(journey.percent(), 10);
    journey.good_ticks(3);
    assert_eq!(journey.percent(), 50);
}

#[test]
fn too_many_changes_in_a_day_hold_the_engine_and_are_told_once() {
    let mut terms = planned(stages(&[0, 10, 50, 100]));
    terms.rules.max_changes_per_day = 2;
    let mut journey = Journey::of(terms);
    journey.reach(50);
    let told = journey.decisions.len();
    journey.good_ticks(200);
    assert_eq!(journey.percent(), 50);
    let actions: Vec<_> = journey.decisions[told..]
        .iter()
        .map(|it| &*it.action)
        .collect();
    assert_eq!(actions, ["hold"]);
    journey.tick(dead());
    assert_eq!(journey.percent(), 0, "a rollback is never withheld");
}

#[test]
fn an_advising_engine_moves_nobody_and_says_what_it_would_do() {
    let mut terms = planned(stages(&[0, 10, 50]));
    terms.rules.advise = true;
    let mut journey = Journey::of(terms);
    journey.good_ticks(50);
    assert_eq!(journey.percent(), 0);
    journey.tell(go_to(2));
    journey.good_ticks(50);
    for _ in 0..50 {
        journey.tick(dead());
    }
    assert_eq!(journey.percent(), 10);
    let mut told: Vec<_> = journey
        .decisions
        .iter()
        .map(|it| it.sentence.split(" at ").next().unwrap_or_default())
        .collect();
    told.dedup();
    assert_eq!(
        told,
        [
            "Would advance new of shop to 10%",
            "Took new of shop to 10% (stage 2 of 3)",
            "Would advance new of shop to 50%",
            "Would roll back new of shop",
        ]
    );
}

#[test]
fn a_criterion_may_ask_to_be_told_and_no_more() {
    let mut telling = stage(10);
    telling.criteria.rollback = vec![Criterion {
        action: Action::Notify,
        ..Criterion::beyond(Metric::ErrorRate, 0.05)
    }];
    // Three failures in a row of each caller are the hard trip's business, not this criterion's.
    telling.criteria.hard_fail = 0;
    let mut journey = Journey::of(planned(vec![stage(0), telling, stage(20)]));
    journey.reach(10);
    journey.tell(pause());
    let told = journey.decisions.len();
    for _ in 0..100 {
        journey.tick(dead());
    }
    assert_eq!(journey.percent(), 10);
    let actions: Vec<_> = journey.decisions[told..]
        .iter()
        .map(|it| &*it.action)
        .collect();
    assert_eq!(actions, ["notify"]);
}

#[test]
fn an_edited_plan_goes_on_at_its_highest_stage_that_raises_nobody() {
    let mut journey = Journey::of(planned(stages(&[0, 10, 30, 100])));
    journey.reach(30);
    journey.good_ticks(3);
    let edited = |percentages: &[u16]| Event::Configured(Box::new(planned(stages(percentages))));

    journey.tell(edited(&[0, 5, 30, 60, 100]));
    assert_eq!(
        (journey.percent(), journey.rollout.position()),
        (30, Some(2))
    );
    journey.tell(edited(&[0, 20, 40]));
    assert_eq!(
        (journey.percent(), journey.rollout.position()),
        (20, Some(1))
    );
    journey.tell(edited(&[50, 100]));
    assert_eq!(
        (journey.percent(), journey.rollout.phase()),
        (0, Phase::Pending)
    );
}

#[test]
fn an_edit_further_along_keeps_what_is_proven() {
    let mut journey = Journey::of(planned(stages(&[0, 10, 50, 100])));
    journey.reach(10);
    journey.good_ticks(4);
    let edited = planned(stages(&[0, 10, 60, 100]));
    journey.tell(Event::Configured(Box::new(edited)));
    journey.good_ticks(1);
    assert_eq!(journey.percent(), 60);
}

#[test]
fn a_new_rollout_id_begins_the_plan_anew() {
    let mut journey = Journey::of(planned(stages(&[0, 10, 50])));
    journey.reach(50);
    let renamed = Terms {
        rollout_id: "r2".to_owned(),
        ..planned(stages(&[0, 10, 50]))
    };
    journey.tell(Event::Configured(Box::new(renamed)));
    assert_eq!(
        (journey.percent(), journey.rollout.position()),
        (0, Some(0))
    );
    journey.reach(50);
}

#[test]
fn a_share_fixed_by_hand_becomes_a_plan_without_raising_anybody() {
    let mut journey = Journey::of(terms(Some(share(25))));
    journey.tell(Event::Configured(Box::new(planned(stages(&[0, 10, 50])))));
    assert_eq!(
        (journey.percent(), journey.rollout.position()),
        (10, Some(1))
    );
    assert_eq!(journey.last().actor, "file");
}

#[test]
fn a_command_that_changes_nothing_does_not_hide_why_the_share_is_what_it_is() {
    let mut journey = Journey::of(planned(stages(&[0, 10, 50])));
    journey.reach(10);
    journey.tick(dead());
    let cause = journey.rollout.last_decision().cloned();
    journey.tell(Event::Rollback {
        to: None,
        by: alice(),
    });
    assert_eq!(journey.last().actor, "alice", "it is announced");
    assert_eq!(journey.rollout.last_decision().cloned(), cause);
}

#[test]
fn without_a_plan_there_is_nothing_to_promote_pause_or_approve() {
    let mut journey = Journey::of(terms(Some(share(25))));
    for event in [promote(), pause(), approve(), go_to(1)] {
        let message = journey.refusal(event);
        assert!(message.contains("has no plan"), "{message}");
    }
}
