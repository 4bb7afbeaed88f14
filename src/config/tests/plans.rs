//! Plans as written: stages, what leaves them, and what contradicts.

use super::*;
use crate::policy::criteria::{Metric, Requirement};
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

/// Each mistake in a plan: what was written, the place and key of the problem, a part of what is
/// said, and a part of the remedy.
#[test]
fn a_plan_that_cannot_be_meant_is_refused_with_its_place_and_a_remedy() {
    for (lines, (line, column), key, message, remedy) in [
        ("stages: []", (14, 13), "stages", "empty", "at least one"),
        (
            "stages: [0%, 30%, 10%]",
            (14, 23),
            "stages[2]",
            "stage 3 (10%) falls below stage 2 (30%)",
            "larger share",
        ),
        (
            "stages: [0%, {share: 30%}, 30%]",
            (14, 32),
            "stages[2]",
            "stage 3 (30%) repeats stage 2 (30%)",
            "larger share",
        ),
        (
            "stages: [0%, 110%]",
            (14, 18),
            "stages[1]",
            "`110%` is no percentage",
            "0% to 100%",
        ),
        (
            "stages: [0%, {observe: 5m}]",
            (14, 18),
            "stages[1].share",
            "missing",
            "add `share`",
        ),
        (
            "share: 5%\nstages: [0%, 10%]",
            (14, 12),
            "share",
            "there are `stages` too",
            "keep `share`",
        ),
        (
            "stages: [0%, 10%]\nadvance: [error_rate < 6%]",
            (15, 15),
            "advance[0]",
            "`error_rate < 6%` of `advance` contradicts the default `error_rate > 5%`",
            "stricter",
        ),
        (
            "stages: [0%, 10%]\nadvance: [error_rate < 2%]\nrollback: [error_rate > 2%]",
            (15, 15),
            "advance[0]",
            "contradicts `error_rate > 2%`",
            "stricter",
        ),
        (
            "stages: [0%, 10%]\nrollback: [p95 > 150ms]",
            (15, 16),
            "rollback[0]",
            "the default `p95 < 200ms` of `advance` contradicts `p95 > 150ms`",
            "make `advance` stricter",
        ),
        (
            "stages: [0%, {share: 10%, rollback: [error_rate > 0.5%]}]",
            (14, 42),
            "stages[1].rollback[0]",
            "the default `error_rate < 1%`",
            "make `advance` stricter",
        ),
        (
            "stages: [0%, 10%]\nadvance: [availability > 98%]\nrollback: [availability < 99%]",
            (15, 15),
            "advance[0]",
            "contradicts `availability < 99%`",
            "stricter",
        ),
        (
            "stages: [0%, 10%]\nadvance: [p95 < 1s]",
            (15, 15),
            "advance[0]",
            "contradicts the default `p95 > 500ms`",
            "stricter",
        ),
        (
            "stages: [0%, {share: 100%, approval: true}]",
            (14, 42),
            "stages[1].approval",
            "this would do nothing",
            "the stage before",
        ),
        (
            "stages: [0%, {share: 50%, windows: {open: [Sat]}}]",
            (14, 31),
            "stages[1].windows",
            "no larger share comes after the last stage",
            "the stage before",
        ),
        (
            "rollback: [error_rate worse than legacy by 0%]",
            (14, 16),
            "rollback[0]",
            "is no criterion of a rollback",
            "above 0",
        ),
        (
            "stages: [0%, 10%]\nadvance: [error_rate not worse than legacy by 0pp]",
            (15, 15),
            "advance[0]",
            "is no criterion of an advance",
            "above 0",
        ),
        (
            "rollback: [p95 > 1s, p95 > 2s for 1m]",
            (14, 26),
            "rollback[1]",
            "`p95 > 1s` limits the same already",
            "stricter",
        ),
        (
            "analysis: {alpha_advance: 0.5}",
            (14, 31),
            "analysis.alpha_advance",
            "`0.5`",
            "below 0.5",
        ),
        (
            "analysis: {alpha_promote: 0}",
            (14, 31),
            "analysis.alpha_promote",
            "`0`",
            "above 0",
        ),
        (
            "stages: [0%, 10%]\nrollout: {windows: {time_zone: Europe/Berln, open: [Sat]}}",
            (15, 36),
            "rollout.windows.time_zone",
            "there is no time zone `Europe/Berln`",
            "did you mean `Europe/Berlin`?",
        ),
        (
            "stages: [0%, 10%]\nrollout: {windows: {open: []}}",
            (15, 31),
            "rollout.windows.open",
            "empty",
            "at least one",
        ),
        (
            "stages: [0%, 10%]\nrollout: {windows: {open: [Mon 09:00-09:00]}}",
            (15, 32),
            "rollout.windows.open[0]",
            "`Mon 09:00-09:00` is no weekly window",
            "never opens",
        ),
        (
            "stages: [0%, 10%]\nrollout: {windows: {open: [Mon,Wed 22:00-02:00]}}",
            (15, 32),
            "rollout.windows.open[0]",
            "YAML reads two windows here, all of `Mon` and `Wed 22:00-02:00`",
            "quotes",
        ),
        (
            "stages: [0%, 10%]\nrollout: {on_timeout: rollback}",
            (15, 27),
            "rollout.on_timeout",
            "there is no `timeout`",
            "add a `timeout`",
        ),
        (
            "stages: [0%, {share: 10%, on_timeout: hold}]",
            (14, 43),
            "stages[1].on_timeout",
            "there is no `timeout`",
            "add a `timeout`",
        ),
        (
            "stages: [0%, 10%]\nrollout: {timeout: 30s}",
            (15, 24),
            "rollout.timeout",
            "stage 1 would time out after 30s, before it was observed for 1m",
            "longer than `observe`",
        ),
        (
            "stages: [0%, {share: 10%, observe: 2h}]\nrollout: {timeout: 1h}",
            (14, 40),
            "stages[1].observe",
            "stage 2 would time out after 1h",
            "longer than `observe`",
        ),
        (
            "rollout: {rollback_to: previous_stage}",
            (14, 28),
            "rollout.rollback_to",
            "the split has no `stages`",
            "add `stages`",
        ),
        (
            "rollout: {windows: {open: [Sat]}}",
            (14, 15),
            "rollout.windows",
            "the split has no `stages`",
            "add `stages`",
        ),
        (
            "stages: [0%, {share: 10%, rollback: [p99 > 1s, p90 > 2s]}, {share: 100%, rollback: \
             [p50 > 3s, p99 > 4s, p90 > 4100ms]}]",
            (14, 5),
            "stages",
            "7 latency limits over all stages",
            "at most 6",
        ),
    ] {
        let all = problems(&with(lines));
        let [problem] = all.as_slice() else {
            panic!("{lines}: {all:#?}")
        };
        assert_eq!(problem.key, format!("splits.api.{key}"), "{lines}");
        let place = (problem.line, problem.column);
        assert_eq!(place, (line, column), "{lines}: {problem}");
        assert!(problem.message.contains(message), "{lines}: {problem}");
        assert!(problem.remedy.contains(remedy), "{lines}: {problem}");
    }
}

#[test]
fn without_stages_every_option_of_a_plan_is_refused() {
    let lines = "advance: [p95 < 100ms]\nrollout: {approval: true, timeout: 1h, on_timeout: hold, cool_down: 1s, \
                 max_changes_per_day: 2, rollback_to: zero, rollback_ramp: 1s, advise: true, \
                 observe: 2m, min_requests: 5}";
    let keys: Vec<String> = problems(&with(lines))
        .into_iter()
        .map(|one| one.key.replace("splits.api.", "").replace("rollout.", ""))
        .collect();
    assert_eq!(
        keys,
        [
            "advance",
            "approval",
            "timeout",
            "on_timeout",
            "cool_down",
            "max_changes_per_day",
            "rollback_to",
            "rollback_ramp",
            "observe",
            "min_requests",
        ]
    );
}

#[test]
fn a_first_step_that_nothing_speaks_for_is_warned_of() {
    let warnings = |stages: &str| -> Vec<String> {
        let text = with(&format!("stages: {stages}"));
        let config = load_text(&text, Path::new("."), &environment).expect("valid");
        config.warnings.into_iter().map(|one| one.key).collect()
    };
    assert_eq!(warnings("[0%, 100%]"), ["splits.api.stages[1]"]);
    assert_eq!(warnings("[50%, 100%]"), ["splits.api.stages[0]"]);
    for fine in [
        "[0%, 10%, 100%]",
        "[10%, 100%]",
        "[{share: 0%, approval: true}, 100%]",
    ] {
        assert_eq!(warnings(fine), [""; 0], "{fine}");
    }
}

#[test]
fn a_plan_that_ends_or_stops_on_the_way_is_warned_of() {
    for (lines, key) in [
        ("stages: [0%, 10%]", "splits.api.stages[1]"),
        (
            "stages: [0%, 10%, 100%]\nrollout: {timeout: 2m, cool_down: 5m}",
            "splits.api.rollout.cool_down",
        ),
        (
            "stages: [0%, 10%, 100%]\nrollout: {max_changes_per_day: 1}",
            "splits.api.rollout.max_changes_per_day",
        ),
    ] {
        let config = load_text(&with(lines), Path::new("."), &environment).expect("valid");
        let keys: Vec<&str> = config.warnings.iter().map(|one| one.key.as_str()).collect();
        assert_eq!(keys, [key], "{lines}");
    }
}

#[test]
fn a_default_that_no_longer_rolls_back_is_warned_of_with_the_line_that_keeps_it() {
    let warnings = |lines: &str| -> Vec<String> {
        let config = load_text(&with(lines), Path::new("."), &environment).expect("valid");
        config.warnings.iter().map(ToString::to_string).collect()
    };
    let told_early = "rollback: ['error_rate > 2% then notify']";
    let [warning] = &warnings(told_early)[..] else {
        panic!("one warning: {:?}", warnings(told_early))
    };
    for part in [
        "splits.api.rollback[0]",
        "nothing but `error_rate worse than legacy by 25%` rolls back on error_rate any more: this \
         replaces the default `error_rate > 5%`",
        "add `error_rate > 5%`",
    ] {
        assert!(warning.contains(part), "{part}: {warning}");
    }
    let slow = warnings("rollback: ['p95 > 300ms then hold']");
    assert!(
        slow[0].contains("nothing rolls back on p95 any more"),
        "{slow:?}"
    );
    let of_a_stage = "stages: [0%, {share: 10%, rollback: ['p95 > 300ms then notify']}, 100%]";
    let of_a_stage = warnings(of_a_stage);
    assert_eq!(of_a_stage.len(), 1, "{of_a_stage:?}");
    assert!(of_a_stage[0].contains("splits.api.stages[1].rollback[0]"));
    for fine in [
        "rollback: ['error_rate > 2% then notify', 'error_rate > 5%']",
        "rollback: ['error_rate > 2%']",
        "rollback: ['p99 > 2s then notify']",
        "rollback: off",
    ] {
        assert_eq!(warnings(fine), [""; 0], "{fine}");
    }
}

#[test]
fn what_is_proven_must_not_be_harm() {
    for (needed, harm, contradicts) in [
        ("error_rate < 5%", "error_rate > 5%", true),
        ("error_rate < 4.99%", "error_rate > 5%", false),
        ("availability > 99%", "availability < 99%", true),
        ("availability > 99.9%", "availability < 99%", false),
        ("p95 < 1s", "p95 > 999ms", true),
        ("p95 < 1s", "p99 > 999ms", false),
        ("p95 < 1s", "p95 worse than legacy by 1%", false),
    ] {
        let needed: Requirement = needed.parse().expect("a requirement");
        let harm: Criterion = harm.parse().expect("a criterion");
        assert_eq!(needed.contradicts(harm), contradicts, "{needed}, {harm}");
    }
    let of_errors = Requirement::within(Metric::ErrorRate, 0.5);
    assert!(!of_errors.contradicts(Criterion::beyond(Metric::ClientErrorRate, 0.1)));
}

#[test]
fn a_limit_may_be_on_the_whole_answer() {
    let rollback = "rollback: ['total_p95 > 2s', 'total_p99 > 10s then hold']";
    assert_eq!(split_problems(rollback), Vec::new());
    for wrong in ["rollback: [total_p42 > 2s]", "rollback: [total > 2s]"] {
        assert!(!split_problems(wrong).is_empty(), "{wrong}");
    }
}
