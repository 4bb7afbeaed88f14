//! Plans that contradict themselves are refused, and those that may not be meant are warned of.

use super::*;
use crate::policy::criteria::Metric;

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
