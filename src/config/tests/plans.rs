//! Plans as written: stages, and what leaves them.

mod contradictions;

use super::*;
use crate::policy::criteria::Requirement;
use crate::policy::plan::{Course, OnTimeout, Plan, Retreat, Rules};
use crate::policy::time::Timestamp;

/// The quickstart's split with these lines instead of its share.
fn with(lines: &str) -> String {
    let lines = lines.replace('\n', "\n    ");
    QUICKSTART.replace("    share: 10%\n", &format!("    {lines}\n"))
}

fn split(lines: &str) -> Split {
    let config = load_text(&with(lines), Path::new("."), &environment);
    let mut config = config.unwrap_or_else(|all| panic!("{all}"));
    config.splits.remove(0)
}

fn plan(lines: &str) -> Plan {
    match split(lines).course {
        Course::Planned(plan) => plan,
        Course::ByHand { .. } => panic!("no plan: {lines}"),
    }
}

fn sentences<T: ToString>(criteria: &[T]) -> Vec<String> {
    criteria.iter().map(T::to_string).collect()
}

#[test]
fn a_plan_may_be_as_short_as_its_shares() {
    let split = split("stages: [0%, 10%, 30%, 50%, 80%, 100%]");
    assert_eq!(split.rules, Rules::default());
    assert_eq!(split.course.file_share(), None);
    let plan = split.course.plan().expect("a plan");
    let shares: Vec<String> = plan.shares().map(|share| share.to_string()).collect();
    assert_eq!(shares, ["0%", "10%", "30%", "50%", "80%", "100%"]);
    for stage in plan.stages() {
        let criteria = Criteria {
            counted: stage.criteria.counted.clone(),
            ..Criteria::default()
        };
        assert_eq!(stage.criteria, criteria);
        assert!(!stage.approval && stage.calendar.is_none());
        assert_eq!((stage.timeout, stage.on_timeout), (None, OnTimeout::Hold));
    }
}

#[test]
fn a_stage_has_what_the_plan_has_unless_it_says_otherwise() {
    let plan = plan(
        "stages:
  - 0%
  - share: 10%
    observe: 10m
    min_requests: 500
    approval: true
    advance: [p95 < 150ms]
    rollback: [error_rate > 2%, p99 > 3s]
    windows: {open: [Sat]}
    timeout: 6h
    on_timeout: rollback
  - 100%
advance: [error_rate < 0.5%]
rollback: [error_rate > 4%, error_rate worse than legacy by 50%]
rollout:
  observe: 2m
  min_requests: 200
  windows: {time_zone: Europe/Berlin, open: [Mon-Fri 09:00-17:00]}
  timeout: 1d
  on_timeout: advance",
    );
    let [_, own, last] = plan.stages() else {
        panic!("three stages")
    };
    assert_eq!(
        sentences(&last.criteria.rollback),
        [
            "error_rate > 4%",
            "error_rate worse than legacy by 50%",
            "p95 > 500ms",
            "client_error_rate worse than legacy by 25%",
        ]
    );
    assert_eq!(
        sentences(&last.criteria.advance),
        [
            "error_rate < 0.5%",
            "p95 < 200ms",
            "error_rate not worse than legacy by 0.5pp",
            "client_error_rate not worse than legacy by 0.5pp",
        ]
    );
    assert_eq!(
        sentences(&own.criteria.rollback),
        [
            "error_rate > 2%",
            "p99 > 3s",
            "error_rate worse than legacy by 50%",
            "p95 > 500ms",
            "client_error_rate worse than legacy by 25%",
        ]
    );
    assert_eq!(
        sentences(&own.criteria.advance)[..2],
        ["p95 < 150ms", "error_rate < 0.5%"]
    );
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    assert_eq!(own.criteria.observe, minutes(10));
    assert_eq!(last.criteria.observe, minutes(2));
    assert_eq!(own.criteria.min_requests, 500);
    assert_eq!(last.criteria.min_requests, 200);
    assert!(own.approval && !last.approval);
    assert_eq!(own.timeout, Some(minutes(360)));
    assert_eq!(own.on_timeout, OnTimeout::Rollback);
    assert_eq!(last.timeout, Some(minutes(1440)));
    assert_eq!(last.on_timeout, OnTimeout::Advance);
    // Saturday, 21 November 2026, 23:30 in Berlin: the stage's windows, in the plan's time zone.
    let saturday: jiff::Timestamp = "2026-11-21T22:30:00Z".parse().expect("a point in time");
    let saturday = Timestamp::from_milliseconds(saturday.as_millisecond());
    let open = |stage: &crate::policy::plan::Stage| {
        let calendar = stage.calendar.as_ref().expect("windows");
        calendar.is_open(saturday)
    };
    assert!(open(own) && !open(last));
    let later = saturday.plus(minutes(30));
    assert!(!own.calendar.as_ref().expect("windows").is_open(later));
}

/// One tally counts for all stages, so each must know the place of every counter.
#[test]
fn every_stage_knows_the_latency_limits_of_all_stages() {
    let plan = plan(
        "stages: [0%, {share: 10%, rollback: [p99 > 2s]}, {share: 100%, advance: [p95 < 100ms]}]",
    );
    let milliseconds = |stage: &crate::policy::plan::Stage| -> Vec<u128> {
        let limits = stage.criteria.latency_thresholds();
        limits.iter().map(Duration::as_millis).collect()
    };
    for stage in plan.stages() {
        assert_eq!(milliseconds(stage), [500, 200, 2000, 100]);
    }
}

#[test]
fn every_option_of_a_rollout_lands_in_its_place() {
    let split = split(
        "stages: [0%, 100%]
rollout:
  id: second
  approval: true
  cool_down: 5m
  max_changes_per_day: 3
  rollback_to: previous_stage
  rollback_ramp: 30s
  advise: true",
    );
    assert_eq!(split.rollout_id, "second");
    assert_eq!(
        split.rules,
        Rules {
            retreat: Retreat::PreviousStage,
            ramp: Duration::from_secs(30),
            cool_down: Duration::from_secs(300),
            max_changes_per_day: 3,
            advise: true,
        }
    );
    let stages = split.course.plan().expect("a plan").stages();
    assert!(stages.iter().all(|stage| stage.approval));
}

#[test]
fn every_option_of_the_analysis_lands_in_its_place() {
    let split = split(
        "analysis:
  alpha: 0.02
  alpha_advance: 0.1
  alpha_promote: 0.03
  error_min_effect: 0.001
  client_error_min_effect: 0.01
  latency_quantiles: [50, 99]
  min_breach_windows: 3
  latency_warmup: 30s
  overdispersion: 2.5",
    );
    let overdispersion = Overdispersion::Fixed(2.5);
    let expected = Criteria {
        alpha: 0.02,
        alpha_advance: 0.1,
        alpha_promote: 0.03,
        error_min_effect: 0.001,
        client_error_min_effect: 0.01,
        latency_quantiles: vec![50, 99],
        min_breach_windows: 3,
        latency_warmup: Duration::from_secs(30),
        overdispersion,
        latency_overdispersion: overdispersion,
        // Nothing advances without stages.
        advance: Vec::new(),
        ..Criteria::default()
    };
    assert_eq!(*split.course.criteria(None), expected);
}

#[test]
fn a_written_comparison_replaces_the_default_one_and_a_written_limit_the_default_limit() {
    let rollback = |written: &str| {
        let split = split(&format!("rollback: [{written}]"));
        sentences(&split.course.criteria(None).rollback)
    };
    assert_eq!(
        rollback("error_rate worse than legacy by 100% for 30s then hold"),
        [
            "error_rate worse than legacy by 100% for 30s then hold",
            "error_rate > 5%",
            "p95 > 500ms",
            "client_error_rate worse than legacy by 25%",
        ]
    );
    assert_eq!(
        rollback("error_rate > 3% then notify, error_rate > 8%"),
        [
            "error_rate > 3% then notify",
            "error_rate > 8%",
            "p95 > 500ms",
            "error_rate worse than legacy by 25%",
            "client_error_rate worse than legacy by 25%",
        ]
    );
}

#[test]
fn two_windows_are_two_where_a_space_says_so() {
    for open in [
        "[Mon, Wed 22:00-02:00]",
        "[\"Mon,Wed 22:00-02:00\"]",
        "[Sat,Sun]",
    ] {
        let plan = plan(&format!(
            "stages: [5%]\nrollout: {{windows: {{open: {open}}}}}"
        ));
        assert!(plan.stages()[0].calendar.is_some(), "{open}");
    }
}

#[test]
fn off_leaves_nothing() {
    let split = split("stages: [0%, {share: 100%, rollback: off}]\nadvance: off");
    let stages = split.course.plan().expect("a plan").stages();
    assert_eq!(stages[0].criteria.advance, [] as [Requirement; 0]);
    assert_eq!(stages[0].criteria.rollback, Criteria::default().rollback);
    assert_eq!(stages[1].criteria.rollback, []);
}

#[test]
fn a_limit_may_be_on_the_whole_answer() {
    let rollback = "rollback: ['total_p95 > 2s', 'total_p99 > 10s then hold']";
    assert_eq!(split_problems(rollback), Vec::new());
    for wrong in ["rollback: [total_p42 > 2s]", "rollback: [total > 2s]"] {
        assert!(!split_problems(wrong).is_empty(), "{wrong}");
    }
}
