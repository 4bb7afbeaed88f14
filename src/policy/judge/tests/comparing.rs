//! Comparisons, requirements and settings, in windows made by hand.

use super::*;
use crate::policy::criteria::Requirement;

/// A judge of `criteria` without tempering, and the time.
struct Bench {
    judge: Judge,
    now: Timestamp,
}

impl Bench {
    fn new(rollback: &[&str], advance: &[&str], settings: Criteria) -> Self {
        let criteria = Criteria {
            rollback: rollback.iter().map(|text| criterion(text)).collect(),
            advance: advance.iter().map(|text| requirement(text)).collect(),
            overdispersion: Overdispersion::Fixed(1.0),
            latency_overdispersion: Overdispersion::Fixed(1.0),
            ..settings
        };
        Self {
            judge: Judge::new(criteria, at(0)),
            now: at(0),
        }
    }

    fn observe(&mut self, window: &Window) -> Verdict {
        let seconds = Duration::from_secs_f64(window.seconds);
        self.now = self.now.plus(seconds);
        self.judge.observe(window, self.now)
    }

    /// The number of the first window, from 1, whose verdict matches.
    fn until(
        &mut self,
        windows: usize,
        window: &Window,
        matches: impl Fn(&Verdict) -> bool,
    ) -> Option<usize> {
        (1..=windows).find(|_| matches(&self.observe(window)))
    }

    fn evidence(&self) -> f64 {
        self.judge.evidence_of_harm().next().expect("a criterion")
    }

    fn proof(&self) -> f64 {
        self.judge
            .evidence_of_health()
            .next()
            .expect("a requirement")
    }
}

fn criterion(text: &str) -> Criterion {
    text.parse().expect("a criterion")
}

fn requirement(text: &str) -> Requirement {
    text.parse().expect("a requirement")
}

/// `n` requests over all groups, `e` events over as many groups as there are events.
fn spread(n: u64, e: u64) -> Clustered {
    let mut counts = Clustered::default();
    for request in 0..n {
        let is_event = u64::from(request < e);
        counts.count(request as usize % 64, pair(1, is_event));
    }
    counts
}

/// A second in which the arms had so many errors.
fn errors(new: (u64, u64), legacy: (u64, u64)) -> Window {
    let arm = |(n, e)| ArmCounts {
        errors: spread(n, e),
        client_errors: spread(n, 0),
        latency: vec![spread(n, 0); 2],
        ..ArmCounts::default()
    };
    Window {
        seconds: 1.0,
        new: arm(new),
        legacy: arm(legacy),
        slower: None,
        streak: StreakReading::default(),
        legacy_available: true,
        new_available: true,
    }
}

/// A second in which the arms answered as late as these buckets say.
fn durations(new: &[(usize, u64)], legacy: &[(usize, u64)]) -> Window {
    let all = |buckets: &[(usize, u64)]| buckets.iter().map(|bucket| bucket.1).sum();
    let mut window = errors((all(new), 0), (all(legacy), 0));
    for (arm, buckets) in [(&mut window.new, new), (&mut window.legacy, legacy)] {
        for (bucket, count) in buckets {
            arm.first_byte.record(*bucket, *count);
        }
    }
    window
}

const COMPARED: &str = "error_rate worse than legacy by 25%";

#[test]
fn only_the_comparison_sees_harm_below_the_absolute_limit() {
    let mut compared = Bench::new(&[COMPARED], &[], Criteria::default());
    let mut limited = Bench::new(&["error_rate > 5%"], &[], Criteria::default());
    let window = errors((100, 3), (900, 1));
    assert!(compared.until(30, &window, fails).is_some());
    assert_eq!(limited.until(30, &window, fails), None);
}

fn fails(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Fail(_))
}

/// Without merging, windows in which one arm has no request would be thrown away, and at a small
/// share that is nearly all of them.
#[test]
fn windows_without_a_counterpart_are_merged_and_not_lost() {
    let mut split = Bench::new(&[COMPARED], &[], Criteria::default());
    let mut whole = Bench::new(&[COMPARED], &[], Criteria::default());
    for _ in 0..5 {
        for _ in 0..9 {
            split.observe(&errors((0, 0), (10, 0)));
        }
        let evidence = split.evidence();
        split.observe(&errors((1, 1), (0, 0)));
        assert!(split.evidence() > evidence);
        whole.observe(&Window {
            seconds: 10.0,
            ..errors((1, 1), (90, 0))
        });
        assert_close(split.evidence(), whole.evidence(), 1e-12);
    }
}

#[test]
fn a_small_difference_never_acts_however_certain_it_is() {
    let mut bench = Bench::new(&[COMPARED], &[], Criteria::default());
    // 0.04 percentage points, and four times as many.
    let window = errors((10_000, 5), (10_000, 1));
    let withheld =
        |verdict: &Verdict| *verdict == Verdict::Inconclusive(Lack::Support(Guard::MinEffect));
    assert!(bench.until(60, &window, withheld).is_some());
    assert_eq!(bench.until(60, &window, fails), None);
}

#[test]
fn client_errors_have_a_comparison_and_a_proof_of_their_own() {
    let mut bench = Bench::new(
        &["client_error_rate worse than legacy by 25%"],
        &["client_error_rate not worse than legacy by 0.5pp"],
        Criteria::default(),
    );
    let mut window = errors((50, 0), (450, 0));
    window.new.client_errors = spread(50, 1);
    window.legacy.client_errors = spread(450, 9);
    assert_eq!(bench.until(300, &window, fails), None);
    assert!(bench.proof() > 20.0, "{}", bench.proof());
    // A new arm that answers 404 fast.
    window.new.client_errors = spread(50, 25);
    assert!(bench.until(5, &window, fails).is_some());
}

#[test]
fn availability_counts_what_was_diverted_and_errors_do_not() {
    let mut bench = Bench::new(
        &["error_rate > 5%", "availability < 95%"],
        &[],
        Criteria::default(),
    );
    let mut window = errors((20, 0), (180, 0));
    window.new.availability = spread(40, 20);
    window.legacy.availability = spread(180, 0);
    let Some((_, breach)) = (1..10).find_map(|index| match bench.observe(&window) {
        Verdict::Fail(Breach::Limit(breach)) => Some((index, breach)),
        _ => None,
    }) else {
        panic!("not rolled back");
    };
    assert_eq!(breach.criterion, criterion("availability < 95%"));
}

/// Legacy's requests lie evenly in the buckets 100 to 119; those of `new` some edges later.
fn shifted(by: usize) -> Window {
    let evenly = |from: usize| -> Vec<(usize, u64)> { (from..from + 20).map(|b| (b, 1)).collect() };
    let legacy: Vec<_> = (100..120).map(|b| (b, 9)).collect();
    durations(&evenly(100 + by), &legacy)
}

#[test]
fn an_arm_that_is_slower_than_the_margin_is_rolled_back_and_one_within_it_is_not() {
    let compared = ["latency worse than legacy by 10%"];
    // An edge is 2.2 % later than the one before.
    for (edges, rolled_back) in [(0, false), (4, false), (9, true), (20, true)] {
        let mut bench = Bench::new(&compared, &[], Criteria::default());
        let found = bench.until(600, &shifted(edges), fails);
        assert_eq!(found.is_some(), rolled_back, "{edges} edges: {found:?}");
    }
}

#[test]
fn what_slows_both_arms_is_not_blamed_on_the_new_one() {
    let mut bench = Bench::new(&["p95 worse than legacy by 10%"], &[], Criteria::default());
    assert_eq!(bench.until(120, &shifted(0), fails), None);
    let mut slow = shifted(0);
    for arm in [&mut slow.new, &mut slow.legacy] {
        let requests = arm.first_byte.count();
        arm.first_byte = window::Latencies::default();
        arm.first_byte.record(300, requests);
    }
    assert_eq!(bench.until(600, &slow, fails), None);
    assert!(bench.evidence() < 1.0, "{}", bench.evidence());
}

#[test]
fn latency_has_no_yardstick_until_legacy_has_requests() {
    let mut bench = Bench::new(&["p50 worse than legacy by 10%"], &[], Criteria::default());
    let mut window = shifted(100);
    window.legacy.first_byte = window::Latencies::default();
    window.legacy.first_byte.record(100, 9);
    for _ in 0..11 {
        bench.observe(&window);
        assert_eq!(bench.evidence(), 0.0);
    }
    // A hundred requests of legacy are known by now.
    bench.observe(&window);
    bench.observe(&window);
    assert!(bench.evidence() > 1.0);
}

#[test]
fn a_criterion_may_hold_or_only_tell() {
    let window = errors((20, 10), (180, 0));
    let mut holding = Bench::new(&["error_rate > 5% then hold"], &[], Criteria::default());
    let holds = |verdict: &Verdict| matches!(verdict, Verdict::Hold(_, None));
    assert!(holding.until(3, &window, holds).is_some());

    let mut telling = Bench::new(&["error_rate > 5% then notify"], &[], Criteria::default());
    let acts = |verdict: &Verdict| matches!(verdict, Verdict::Fail(_) | Verdict::Hold(..));
    assert_eq!(telling.until(30, &window, acts), None);
    assert_eq!(telling.judge.breaches().count(), 1);
}

#[test]
fn criteria_that_do_not_roll_back_take_nothing_of_the_budget() {
    let bench = Bench::new(
        &[
            "error_rate > 5%",
            "p95 > 1s then hold",
            "p99 > 2s then notify",
        ],
        &[],
        Criteria::default(),
    );
    let thresholds: Vec<f64> = bench
        .judge
        .conditions()
        .iter()
        .map(|c| c.threshold)
        .collect();
    assert_eq!(thresholds, [100.0; 3]);
}

#[test]
fn a_sustained_criterion_rides_out_what_passes() {
    let sustained = ["error_rate > 5% for 10s"];
    let bad = errors((20, 10), (180, 0));
    let mut bench = Bench::new(&sustained, &[], Criteria::default());
    assert_eq!(bench.until(3, &bad, fails), None);
    assert_eq!(bench.until(60, &errors((200, 0), (180, 0)), fails), None);
    let windows = bench.until(20, &bad, fails).expect("rolled back");
    assert!((10..=12).contains(&windows), "{windows}");
}

/// One second of failures, however many, supplies a third of the evidence at most, in ticks as in
/// whole seconds.
#[test]
fn three_breach_windows_ride_out_a_blip_of_one_second() {
    let settings = Criteria {
        min_breach_windows: 3,
        ..Criteria::default()
    };
    let bad = errors((1_000, 900), (9_000, 0));
    let mut bench = Bench::new(&["error_rate > 5%"], &[], settings.clone());
    assert_eq!(bench.until(10, &bad, fails), Some(3));

    let mut ticking = Bench::new(&["error_rate > 5%"], &[], settings);
    let tick = Window {
        seconds: 0.1,
        ..bad
    };
    let ticks = ticking.until(100, &tick, fails).expect("rolled back");
    assert!((21..=30).contains(&ticks), "{ticks}");
}

#[test]
fn latency_is_not_judged_while_the_arm_warms_up() {
    let settings = Criteria {
        latency_warmup: Duration::from_secs(30),
        ..Criteria::default()
    };
    let mut bench = Bench::new(&["p95 > 500ms"], &[], settings);
    let idle = errors((0, 0), (180, 0));
    assert_eq!(bench.until(60, &idle, fails), None);
    let mut slow = errors((20, 0), (180, 0));
    slow.new.latency[0] = spread(20, 20);
    let windows = bench.until(60, &slow, fails).expect("rolled back");
    assert!(windows > 30, "{windows}");
}

#[test]
fn an_advance_needs_time_requests_and_proof() {
    let mut bench = Bench::new(
        &["error_rate > 5%"],
        &["error_rate < 1%"],
        Criteria::default(),
    );
    let silent = bench.observe(&errors((0, 0), (90, 0)));
    assert_eq!(silent, Verdict::Inconclusive(Lack::Traffic));
    let window = errors((10, 0), (90, 0));
    let early = bench.observe(&window);
    assert!(matches!(early, Verdict::Inconclusive(Lack::Time { .. })));
    assert_eq!(bench.judge.lacking().count(), 3, "time, requests, proof");
    let passes = |verdict: &Verdict| *verdict == Verdict::Pass;
    // 392 requests and a second or two prove it; the minute is over by then.
    assert_eq!(bench.until(200, &window, passes), Some(58));
}

/// With no errors a gate needs 392 requests (no method could do with fewer than 300), and says so
/// long before.
#[test]
fn the_estimate_says_how_many_requests_are_lacking() {
    let settings = Criteria {
        observe: Duration::ZERO,
        ..Criteria::default()
    };
    let mut bench = Bench::new(&[], &["error_rate < 1%"], settings);
    let window = errors((10, 0), (90, 0));
    for _ in 0..20 {
        bench.observe(&window);
    }
    let need = &bench.judge.needs()[0];
    let to_come = need.requests_to_come.expect("on its way");
    assert!((180.0..250.0).contains(&to_come), "{to_come}");
    let seconds = need.seconds_to_come.expect("on its way");
    assert!((seconds - to_come / 10.0).abs() < 1e-6, "{seconds}");
    let sentence = need.lacking.as_deref().expect("lacking");
    assert!(
        sentence.starts_with("error_rate < 1% not proven yet: evidence "),
        "{sentence}"
    );
    let passes = |verdict: &Verdict| *verdict == Verdict::Pass;
    assert_eq!(bench.until(100, &window, passes), Some(20), "400 requests");
}

#[test]
fn evidence_of_harm_keeps_a_stage_from_ending_before_it_suffices_to_roll_back() {
    let settings = Criteria {
        observe: Duration::ZERO,
        min_requests: 0,
        // So small a budget that a failure comes between calm and rollback.
        alpha: 0.001,
        ..Criteria::default()
    };
    let mut bench = Bench::new(&["error_rate > 5%"], &[], settings);
    assert_eq!(bench.observe(&errors((1, 0), (9, 0))), Verdict::Pass);
    let verdict = (0..6)
        .map(|_| bench.observe(&errors((1, 1), (9, 0))))
        .find(|verdict| *verdict != Verdict::Pass);
    let Some(Verdict::Inconclusive(Lack::Calm {
        evidence, limit, ..
    })) = verdict
    else {
        panic!("{verdict:?}");
    };
    assert!(evidence >= limit && limit == 100.0, "{evidence} {limit}");
}

#[test]
fn a_stage_asks_anew_what_is_proven_and_forgets_no_harm() {
    let mut bench = Bench::new(
        &["error_rate > 5%"],
        &["error_rate < 1%"],
        Criteria::default(),
    );
    for _ in 0..60 {
        bench.observe(&errors((10, 0), (90, 0)));
    }
    bench.observe(&errors((10, 2), (90, 0)));
    let (harm, proof) = (bench.evidence(), bench.proof());
    assert!(proof > 1.0);
    bench.judge.begin_stage(Aim::Raise, bench.now);
    assert_eq!(bench.evidence(), harm);
    assert_eq!(bench.proof(), 0.0);
    assert_eq!(bench.judge.needs()[0].samples, 0);
    assert_eq!(bench.judge.conditions()[0].criterion, "error_rate > 5%");
}

#[test]
fn the_last_step_needs_more_and_with_everybody_on_new_nothing_is_compared() {
    let advance = [
        "error_rate < 1%",
        "error_rate not worse than legacy by 0.5pp",
    ];
    let mut bench = Bench::new(&["error_rate > 5%"], &advance, Criteria::default());
    let threshold = |bench: &Bench| bench.judge.needs()[0].threshold;
    assert_eq!(threshold(&bench), 20.0);
    bench.judge.begin_stage(Aim::Promote, bench.now);
    assert_eq!(threshold(&bench), 100.0);
    assert_eq!(bench.judge.needs().len(), 2);
    bench.judge.begin_stage(Aim::Complete, bench.now);
    assert_eq!(bench.judge.needs().len(), 1);
    let passes = |verdict: &Verdict| *verdict == Verdict::Pass;
    let without_legacy = errors((100, 0), (0, 0));
    assert!(bench.until(100, &without_legacy, passes).is_some());
}

/// Beyond counters, which are integers per group of sessions or bucket.
#[test]
fn a_judge_remembers_less_than_four_kibibytes() {
    let mut bench = Bench::new(&[], &[], Criteria::default());
    bench.judge = Judge::new(Criteria::default(), at(0));
    bench.observe(&errors((100, 3), (900, 1)));
    let state = serde_json::to_value(bench.judge.evidence()).expect("serialisable");
    let numbers = numbers_beyond_counters(&state);
    assert!(numbers * 8 < 4_096, "{numbers} numbers");
}

fn numbers_beyond_counters(value: &serde_json::Value) -> usize {
    use serde_json::Value;
    match value {
        Value::Array(values) if values.len() >= 64 => 0,
        Value::Array(values) => values.iter().map(numbers_beyond_counters).sum(),
        // Requests and events, by group of sessions or not.
        Value::Object(fields) if fields.contains_key("n") || fields.contains_key("total") => 0,
        Value::Object(fields) => fields.values().map(numbers_beyond_counters).sum(),
        Value::Number(_) => 1,
        _ => 0,
    }
}
