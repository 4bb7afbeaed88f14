//! When whoever waits for a rollout should stop waiting.

use super::journey::{Journey, approve, go_to, pause, planned, stage, stages};
use super::*;
use crate::policy::calendar::{Calendar, WeeklyWindow};

/// At 10 % of a plan of 0, 10 and 100 %, proven as far as time and requests go.
fn ripe(change: impl FnOnce(&mut Terms)) -> Journey {
    let mut terms = planned(stages(&[0, 10, 100]));
    change(&mut terms);
    let mut journey = Journey::of(terms);
    journey.reach(10);
    journey.good_ticks(10);
    journey
}

fn rest(journey: &Journey) -> Option<Rest> {
    journey.rollout.rest(journey.now)
}

/// A plan whose stage of 10 % is only left within this window.
fn on(window: &str) -> Terms {
    let window: WeeklyWindow = window.parse().expect("a window");
    let mut held = stage(10);
    held.calendar = Some(Calendar::new(jiff::tz::TimeZone::UTC, vec![window]));
    planned(vec![stage(0), held, stage(100)])
}

#[test]
fn what_time_and_traffic_bring_is_worth_waiting_for() {
    let mut journey = Journey::of(planned(stages(&[0, 10, 100])));
    assert_eq!(rest(&journey), None, "nothing was measured yet");
    journey.reach(10);
    assert_eq!(rest(&journey), None, "the stage has just begun");
    let cooling = ripe(|terms| terms.rules.cool_down = Duration::from_secs(60));
    assert_eq!(cooling.percent(), 10);
    assert_eq!(rest(&cooling), None, "it cools down");
}

#[test]
fn a_completed_plan_is_no_rollout_that_stands_still() {
    let mut journey = Journey::of(planned(stages(&[10, 100])));
    journey.reach(100);
    journey.good_ticks(10);
    assert_eq!(journey.rollout.phase(), Phase::Completed);
    assert_eq!(rest(&journey), None);
}

#[test]
fn without_a_plan_only_a_person_moves_a_share() {
    assert_eq!(at_ten_percent().rest(at(100)), Some(Rest::Person));
}

#[test]
fn what_a_person_stopped_only_a_person_moves_on_however_much_is_still_unproven() {
    for stop in [pause(), set(5), emergency(true)] {
        let mut journey = Journey::of(planned(stages(&[0, 10, 100])));
        journey.reach(10);
        journey.tell(stop.clone());
        assert_eq!(rest(&journey), Some(Rest::Person), "{stop:?}");
    }
    let mut journey = Journey::of(planned(stages(&[0, 10, 100])));
    journey.reach(10);
    for _ in 0..10 {
        journey.tick(dead());
    }
    assert_eq!(journey.rollout.phase(), Phase::RolledBack);
    assert_eq!(rest(&journey), Some(Rest::Person));
    journey.tell(resume());
    assert_eq!(rest(&journey), None, "it goes on by itself");
}

#[test]
fn an_approval_is_rested_for_only_once_everything_else_is_proven() {
    let ask = |terms: &mut Terms| {
        let mut asked = stages(&[0, 10, 100]);
        asked[1].approval = true;
        *terms = planned(asked);
    };
    let mut journey = ripe(ask);
    assert_eq!(rest(&journey), Some(Rest::Person));
    journey.tell(go_to(2));
    assert_eq!(rest(&journey), None, "the stage begins afresh");
    journey.good_ticks(10);
    assert_eq!(rest(&journey), Some(Rest::Person));
    journey.tell(approve());
    assert_eq!(rest(&journey), None, "it is about to advance");
}

#[test]
fn too_many_changes_and_mere_advice_leave_it_to_a_person() {
    let flapping = ripe(|terms| terms.rules.max_changes_per_day = 1);
    assert_eq!(flapping.percent(), 10);
    assert_eq!(rest(&flapping), Some(Rest::Person));
    let mut advised = planned(stages(&[0, 10, 100]));
    advised.rules.advise = true;
    let mut journey = Journey::of(advised);
    journey.good_ticks(10);
    assert_eq!(journey.percent(), 0);
    assert_eq!(rest(&journey), Some(Rest::Person));
}

/// The tests' time begins on Thursday, 1 January 1970, at midnight.
#[test]
fn a_closed_calendar_is_rested_for_with_the_seconds_until_it_opens() {
    let journey = ripe(|terms| *terms = on("Thu 02:00-03:00"));
    let until = at(2 * 3_600_000);
    let seconds = until.since(journey.now).as_secs_f64().ceil();
    assert_eq!(
        rest(&journey),
        Some(Rest::Calendar {
            seconds: seconds as u64
        })
    );
    let within = journey.rollout.rest(until);
    assert_eq!(within, None, "the step may be taken");
}

#[test]
fn behind_a_closed_calendar_a_missing_approval_comes_first() {
    let mut journey = ripe(|terms| {
        let window = "Thu 02:00-03:00".parse().expect("a window");
        let mut held = stage(10);
        held.calendar = Some(Calendar::new(jiff::tz::TimeZone::UTC, vec![window]));
        held.approval = true;
        *terms = planned(vec![stage(0), held, stage(100)]);
    });
    assert_eq!(rest(&journey), Some(Rest::Person));
    journey.tell(approve());
    assert!(matches!(rest(&journey), Some(Rest::Calendar { .. })));
}
