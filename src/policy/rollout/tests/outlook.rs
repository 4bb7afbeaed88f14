//! What status and metrics show of a plan.

use super::journey::{Journey, planned, stages};
use super::*;
use crate::policy::plan::OnTimeout;

fn outlook(journey: &Journey) -> Outlook {
    journey.rollout.outlook(journey.now)
}

#[test]
fn a_stage_is_shown_with_what_it_has_had_and_what_it_needs() {
    let mut journey = Journey::of(planned(stages(&[0, 10, 100])));
    journey.reach(10);
    journey.good_ticks(4);
    let shown = outlook(&journey);
    let stage = shown.stage.expect("the second stage");
    assert_eq!((stage.number, stage.of), (2, 3));
    assert_eq!((stage.share, stage.requests), (share(10), 256));
    assert_eq!((stage.observe_seconds, stage.min_requests), (0.5, 64));
    assert!((stage.healthy_seconds - 0.4).abs() < 1e-9);
    assert!((stage.watched_seconds - 0.4).abs() < 1e-9);
    assert_eq!(shown.next_share, Some(Share::ALL));
    assert_eq!(shown.lacking, journey.waits());
    let to_come = shown.seconds_to_come.expect("nothing but time is lacking");
    assert!((to_come - 0.1).abs() < 1e-9, "{to_come}");
    let since = shown.seconds_since_change.expect("it has just changed");
    assert!((since - 0.4).abs() < 1e-9, "{since}");
    let shares: Vec<_> = shown.stages.iter().map(|it| it.share).collect();
    assert_eq!(shares, [Share::ZERO, share(10), Share::ALL]);
    assert_eq!(shown.stages[0].min_requests, 0, "nobody is sent there");
}

#[test]
fn nobody_is_told_a_time_for_what_a_person_must_do() {
    let mut terms = stages(&[0, 10, 100]);
    terms[1].approval = true;
    let mut journey = Journey::of(planned(terms));
    journey.reach(10);
    journey.good_ticks(20);
    let shown = outlook(&journey);
    assert_eq!(shown.lacking, ["Somebody has to approve 100%."]);
    assert!(shown.approval_needed);
    assert_eq!(shown.seconds_to_come, None);
}

#[test]
fn a_stage_that_times_out_first_is_told_no_time_for_its_next_step() {
    for (timeout, ahead) in [(60, false), (2, true)] {
        let mut course = stages(&[0, 10, 100]);
        course[1].criteria.min_requests = 640_000;
        course[1].timeout = Some(Duration::from_secs(timeout));
        if !ahead {
            course[1].criteria.min_requests = 640;
        }
        let mut journey = Journey::of(planned(course));
        journey.reach(10);
        journey.good_ticks(6);
        let shown = outlook(&journey);
        assert_eq!(shown.timeout.is_some(), ahead, "{shown:?}");
        assert_eq!(shown.seconds_to_come.is_none(), ahead, "{shown:?}");
        if let Some(timeout) = shown.timeout {
            assert!((timeout.seconds - 1.4).abs() < 1e-9, "{timeout:?}");
            assert_eq!(timeout.then, OnTimeout::Hold);
        }
    }
}

#[test]
fn requests_that_are_lacking_come_at_the_pace_of_the_stage() {
    let mut course = stages(&[0, 10, 100]);
    course[1].criteria.min_requests = 640;
    let mut journey = Journey::of(planned(course));
    journey.reach(10);
    journey.good_ticks(6);
    let shown = outlook(&journey);
    assert_eq!(shown.lacking, ["384 of 640 requests."]);
    let to_come = shown.seconds_to_come.expect("requests come");
    assert!((to_come - 0.4).abs() < 1e-9, "{to_come}");
}

#[test]
fn a_completed_plan_and_a_share_by_hand_wait_for_nothing() {
    let mut journey = Journey::of(planned(stages(&[10, 100])));
    journey.reach(100);
    journey.good_ticks(10);
    assert_eq!(journey.rollout.phase(), Phase::Completed);
    let shown = outlook(&journey);
    assert_eq!((shown.lacking.len(), shown.next_share), (0, None));
    assert_eq!(shown.seconds_to_come, None);
    assert_eq!(at_ten_percent().outlook(at(100)), Outlook::default());
}

#[test]
fn programs_read_what_is_shown_back_as_it_was() {
    let mut journey = Journey::of(planned(stages(&[0, 10, 100])));
    journey.reach(10);
    let shown = outlook(&journey);
    let written = serde_json::to_string(&shown).expect("an outlook is written");
    let read: Outlook = serde_json::from_str(&written).expect("and read");
    assert_eq!(read, shown);
}
