//! The judge and its guards under simulated traffic with fixed seeds.

use super::*;

/// A small generator of its own, since the sequences must never change with a library.
struct Draws(u64);

impl Draws {
    fn uniform(&mut self) -> f64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Traffic of many sessions, a window of 100 ms at a time.
struct Traffic {
    draws: Draws,
    now: Timestamp,
    streak: StreakReading,
    /// How many session groups there are.
    clusters: usize,
    requests_per_window: u64,
    new_errors: f64,
    legacy_errors: f64,
    new_slow: f64,
    legacy_available: bool,
}

impl Traffic {
    fn healthy(seed: u64) -> Self {
        Self {
            draws: Draws(seed),
            now: at(1_000_000),
            streak: StreakReading::default(),
            clusters: 64,
            requests_per_window: 10,
            new_errors: 0.001,
            legacy_errors: 0.001,
            new_slow: 0.01,
            legacy_available: true,
        }
    }

    fn window(&mut self) -> Window {
        let (new_errors, legacy_errors) = (self.new_errors, self.legacy_errors);
        let mut window = Window {
            seconds: 0.1,
            new: ArmCounts {
                errors: self.draw(new_errors, true),
                latency: vec![self.draw(self.new_slow, false)],
                ..ArmCounts::default()
            },
            legacy: ArmCounts {
                errors: self.draw(legacy_errors, false),
                latency: vec![self.draw(0.01, false)],
                ..ArmCounts::default()
            },
            slower: None,
            streak: StreakReading::default(),
            legacy_available: self.legacy_available,
            new_available: true,
        };
        window.streak.clone_from(&self.streak);
        self.now = self.now.plus(Duration::from_millis(100));
        window
    }

    fn draw(&mut self, risk: f64, counts_for_the_streak: bool) -> Clustered {
        let mut counts = Clustered::default();
        for _ in 0..self.requests_per_window {
            let cluster = (self.draws.uniform() * self.clusters as f64) as usize;
            let failed = self.draws.uniform() < risk;
            let outcome = pair(1, u64::from(failed));
            counts.total.add(outcome);
            counts.clusters[cluster].add(outcome);
            if counts_for_the_streak && failed {
                self.streak.length += 1;
                self.streak.clusters[cluster] += 1;
            } else if counts_for_the_streak {
                self.streak = StreakReading::default();
            }
        }
        counts
    }

    /// Feeds `windows` windows to `judge`: the first verdict that matches, and after how many.
    fn until(
        &mut self,
        judge: &mut Judge,
        windows: usize,
        matches: impl Fn(&Verdict) -> bool,
    ) -> Option<(usize, Verdict)> {
        (1..=windows).find_map(|index| {
            let window = self.window();
            let verdict = judge.observe(&window, self.now);
            matches(&verdict).then_some((index, verdict))
        })
    }
}

fn fails(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Fail(_))
}

fn acts(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Fail(_) | Verdict::Hold(..))
}

#[test]
fn a_good_arm_is_not_rolled_back_by_being_looked_at_ten_times_a_second() {
    for seed in 0..10 {
        let mut traffic = Traffic::healthy(seed);
        let mut judge = Judge::new(Criteria::default(), traffic.now);
        let acted = traffic.until(&mut judge, 3_000, acts);
        assert_eq!(acted, None, "seed {seed}");
    }
}

#[test]
fn a_dead_arm_at_a_hundred_requests_a_second_is_rolled_back_within_300_ms() {
    for seed in 0..20 {
        let mut traffic = Traffic::healthy(seed);
        let mut judge = Judge::new(Criteria::default(), traffic.now);
        traffic.new_errors = 1.0;
        let (windows, _) = traffic.until(&mut judge, 3, fails).expect("in time");
        assert!(windows <= 3, "seed {seed}");
    }
}

/// What a plain running product of the same factors makes of it, per alternative: after hours of
/// good traffic it would need thousands of failures to come back to even.
#[test]
fn hours_of_good_traffic_do_not_mask_a_change() {
    let mut traffic = Traffic::healthy(7);
    let mut judge = Judge::new(Criteria::default(), traffic.now);
    let kernel = BreachKernel::harm(0.05);
    let mut product = 0.0;
    // One-minute windows would do as well; an hour of ticks is the honest input.
    for _ in 0..36_000 {
        let window = traffic.window();
        product += kernel.log_factors(window.new.errors.total)[2];
        assert!(!acts(&judge.observe(&window, traffic.now)));
    }
    assert!(product < -10_000.0, "the naive sum is hopeless: {product}");

    let changed = traffic.now;
    traffic.new_errors = 0.5;
    let (windows, verdict) = traffic.until(&mut judge, 20, fails).expect("within 2 s");
    assert!(windows <= 10, "{windows}");
    let Verdict::Fail(Breach::Limit(breach)) = verdict else {
        panic!("{verdict:?}");
    };
    let since = breach.since.expect("a suspected start");
    assert!(since >= changed, "the good hours are not in the figures");
    assert!(breach.new.e * 3 > breach.new.n, "{breach:?}");
}

#[test]
fn what_hurts_both_arms_alike_is_held_and_not_rolled_back() {
    for seed in 0..20 {
        let mut traffic = Traffic::healthy(seed);
        let mut judge = Judge::new(Criteria::default(), traffic.now);
        traffic.until(&mut judge, 600, acts);
        (traffic.new_errors, traffic.legacy_errors) = (0.5, 0.5);
        let (_, verdict) = traffic.until(&mut judge, 100, acts).expect("noticed");
        assert!(
            matches!(verdict, Verdict::Hold(_, Some(Guard::WhenLegacyToo))),
            "seed {seed}: {verdict:?}"
        );
        traffic.legacy_errors = 0.0;
        let recovered = traffic.until(&mut judge, 100, fails);
        assert!(recovered.is_some(), "held for good after legacy recovered");
    }
}

#[test]
fn a_split_may_ask_for_a_rollback_even_if_legacy_is_as_bad() {
    let mut traffic = Traffic::healthy(3);
    let criteria = Criteria {
        when_legacy_too: WhenLegacyToo::Rollback,
        ..Criteria::default()
    };
    let mut judge = Judge::new(criteria, traffic.now);
    (traffic.new_errors, traffic.legacy_errors) = (0.5, 0.5);
    let (_, verdict) = traffic.until(&mut judge, 100, acts).expect("noticed");
    assert!(fails(&verdict), "{verdict:?}");
}

#[test]
fn nobody_is_sent_to_a_legacy_without_endpoints() {
    let mut traffic = Traffic::healthy(4);
    let mut judge = Judge::new(Criteria::default(), traffic.now);
    traffic.new_errors = 1.0;
    traffic.legacy_available = false;
    let acted = traffic.until(&mut judge, 50, fails);
    assert_eq!(acted, None);
    let (_, verdict) = traffic.until(&mut judge, 1, acts).expect("held");
    assert!(matches!(
        verdict,
        Verdict::Hold(_, Some(Guard::LegacyUnavailable))
    ));
    traffic.legacy_available = true;
    assert!(traffic.until(&mut judge, 1, fails).is_some());
}

#[test]
fn one_client_in_a_retry_loop_never_rolls_back_a_release() {
    let mut traffic = Traffic::healthy(5);
    let mut judge = Judge::new(Criteria::default(), traffic.now);
    traffic.until(&mut judge, 100, acts);
    for _ in 0..600 {
        let mut window = traffic.window();
        window.new.errors.total.add(pair(20, 20));
        window.new.errors.clusters[9].add(pair(20, 20));
        let verdict = judge.observe(&window, traffic.now);
        assert!(!acts(&verdict), "{verdict:?}");
    }
    let condition = &judge.conditions()[0];
    assert!(condition.evidence >= condition.threshold);
    assert_eq!(condition.verdict, "inconclusive");
    let guards = ["min_bad_clusters", "max_cluster_share"].map(str::to_owned);
    assert!(condition.withheld_by.iter().all(|by| guards.contains(by)));
}

#[test]
fn a_slow_arm_is_rolled_back_once_it_has_the_samples() {
    let mut traffic = Traffic::healthy(6);
    traffic.requests_per_window = 1;
    traffic.new_slow = 1.0;
    let mut judge = Judge::new(Criteria::default(), traffic.now);
    let doubted = |verdict: &Verdict| {
        *verdict == Verdict::Inconclusive(Lack::Support(Guard::MinLatencySamples))
    };
    assert!(traffic.until(&mut judge, 19, doubted).is_some());
    let (windows, verdict) = traffic.until(&mut judge, 20, fails).expect("rolled back");
    assert!(windows <= 20);
    let Verdict::Fail(Breach::Limit(breach)) = verdict else {
        panic!("{verdict:?}");
    };
    assert_eq!(breach.criterion.metric, Metric::Latency(95));
    assert!(breach.new.n >= 20);
}

/// Nothing was booked on `new`: the breaker diverts everything.
fn diverted(traffic: &mut Traffic, streak: StreakReading) -> Window {
    traffic.requests_per_window = 0;
    Window {
        streak,
        ..traffic.window()
    }
}

fn streak_of(clusters: &[(usize, u64)]) -> StreakReading {
    let mut streak = StreakReading::default();
    for (cluster, failures) in clusters {
        streak.clusters[*cluster] = *failures;
        streak.length += failures;
    }
    streak
}

#[test]
fn ten_diverted_requests_in_a_row_trip_without_any_error_being_counted() {
    let mut traffic = Traffic::healthy(8);
    let mut judge = Judge::new(Criteria::default(), traffic.now);
    traffic.until(&mut judge, 100, acts);

    let nine = diverted(&mut traffic, streak_of(&[(1, 3), (2, 3), (3, 3)]));
    assert!(!acts(&judge.observe(&nine, traffic.now)));
    let ten = diverted(&mut traffic, streak_of(&[(1, 3), (2, 3), (3, 4)]));
    let expected = Breach::Streak {
        length: 10,
        clusters: 3,
    };
    assert_eq!(judge.observe(&ten, traffic.now), Verdict::Fail(expected));
}

#[test]
fn a_streak_of_one_client_among_many_trips_nothing() {
    let mut traffic = Traffic::healthy(8);
    let mut judge = Judge::new(Criteria::default(), traffic.now);
    traffic.until(&mut judge, 100, acts);
    let storm = diverted(&mut traffic, streak_of(&[(1, 500)]));
    assert!(!acts(&judge.observe(&storm, traffic.now)));
}

#[test]
fn a_split_without_criteria_is_never_judged() {
    let mut traffic = Traffic::healthy(9);
    let criteria = Criteria {
        rollback: Vec::new(),
        ..Criteria::default()
    };
    let mut judge = Judge::new(criteria, traffic.now);
    traffic.new_errors = 1.0;
    assert_eq!(traffic.until(&mut judge, 100, acts), None);
}

#[test]
fn failures_from_before_a_resume_are_not_held_against_the_arm() {
    let mut traffic = Traffic::healthy(10);
    let mut judge = Judge::new(Criteria::default(), traffic.now);
    traffic.new_errors = 1.0;
    traffic.until(&mut judge, 10, fails).expect("rolled back");

    judge.learn(&traffic.window());
    judge.refresh(traffic.now);
    traffic.requests_per_window = 0;
    assert_eq!(traffic.until(&mut judge, 20, acts), None);
}

#[test]
fn a_judge_restored_from_its_evidence_goes_on_bit_for_bit() {
    let mut traffic = Traffic::healthy(11);
    traffic.new_errors = 0.05;
    let mut judge = Judge::new(Criteria::default(), traffic.now);
    traffic.until(&mut judge, 500, |_| false);

    let stored = serde_json::to_string(judge.evidence()).expect("serialisable");
    let evidence: Evidence = serde_json::from_str(&stored).expect("readable");
    assert_eq!(&evidence, judge.evidence());
    let mut restored = Judge::restore(Criteria::default(), evidence, traffic.now);
    for _ in 0..500 {
        let window = traffic.window();
        judge.observe(&window, traffic.now);
        restored.observe(&window, traffic.now);
        assert_eq!(judge.evidence(), restored.evidence());
    }
}

#[test]
fn criteria_that_stay_keep_their_evidence_and_all_keep_what_was_learnt_about_bunching() {
    let mut traffic = Traffic::healthy(12);
    traffic.legacy_errors = 0.02;
    let mut judge = Judge::new(Criteria::default(), traffic.now);
    traffic.until(&mut judge, 300, |_| false);
    let before = judge.conditions();
    assert_ne!(before[0].overdispersion, 1.5);

    let mut criteria = Criteria::default();
    criteria.rollback[0].harm = Harm::Beyond(0.10);
    judge.reconfigure(criteria, traffic.now);
    let after = judge.conditions();
    assert_eq!(after[0].samples, 0, "another limit begins afresh");
    assert_eq!(after[0].overdispersion, before[0].overdispersion);
    assert_eq!(after[1], before[1], "the latency criterion is the same");
}

#[test]
fn without_traffic_the_verdict_says_so() {
    let mut traffic = Traffic::healthy(13);
    traffic.requests_per_window = 0;
    let mut judge = Judge::new(Criteria::default(), traffic.now);
    let verdict = judge.observe(&traffic.window(), traffic.now);
    assert_eq!(verdict, Verdict::Inconclusive(Lack::Traffic));
    assert_eq!(judge.conditions()[0].verdict, "inconclusive");
    assert_eq!(judge.conditions()[0].value, None);
}
