//! The promises of the judge, held against simulated traffic with fixed seeds.
//!
//! Each test says what is promised and shows that the obvious way of doing it breaks the promise.
//! The whole table takes minutes: `cargo run --release --example simulation`.

#[path = "../../loadtest/simulation/model/mod.rs"]
mod model;

use std::time::Duration;

use cutover::policy::criteria::{
    Criteria, Criterion, Metric, Overdispersion, Requirement, WhenLegacyToo,
};
use cutover::policy::judge::window::Pair;

use self::model::theory::{gate_limit, information_limit};
use self::model::traffic::Traffic;
use self::model::{LIMIT, MARGIN, Trial, When, quantile, requests, seconds, two_error_conditions};

const HOUR: f64 = 3_600.0;
const DAY: f64 = 24.0 * HOUR;
/// A tenth of the requests goes to `new`.
const SHARE: f64 = 0.1;

fn comparison_only() -> Criteria {
    Criteria {
        rollback: vec![Criterion::worse_than_legacy(Metric::ErrorRate, MARGIN)],
        ..two_error_conditions()
    }
}

fn count(runs: impl Iterator<Item = bool>) -> usize {
    runs.filter(|happened| *happened).count()
}

/// Claim: a new arm that is as good as legacy is rolled back within a day with a chance of at most
/// one in a hundred, although it is looked at all the time.
///
/// The obvious way is to compare the two rates with the test of the textbooks, at the one-percent
/// level, whenever there are new figures. That level is one of a single look. Over a day of looks
/// the same arm is found guilty in a good part of the runs.
#[test]
fn a_good_arm_is_not_rolled_back_however_often_it_is_looked_at() {
    const RUNS: u64 = 30;
    const LOOK: f64 = 20.0;
    let judged = count((0..RUNS).map(|seed| {
        let traffic = Traffic::independent(seed, 1.0, SHARE, 0.01);
        let mut trial = Trial::new(two_error_conditions(), traffic);
        trial.rollback(DAY, LOOK).is_some()
    }));
    assert_eq!(judged, 0, "of {RUNS} good arms");

    let naive = count((0..RUNS).map(|seed| {
        let mut traffic = Traffic::independent(seed, 1.0, SHARE, 0.01);
        let (mut new, mut legacy) = (Pair::default(), Pair::default());
        (0..(DAY / LOOK) as u64).any(|_| {
            let window = traffic.window(LOOK);
            new.add(window.new.errors.total);
            legacy.add(window.legacy.errors.total);
            standard_errors_apart(new, legacy) > 2.33
        })
    }));
    assert!(naive >= 6, "the naive test found only {naive} guilty");
}

/// By how many standard errors the rate of `new` exceeds legacy's.
fn standard_errors_apart(new: Pair, legacy: Pair) -> f64 {
    let (Some(of_new), Some(of_legacy)) = (new.ratio(), legacy.ratio()) else {
        return 0.0;
    };
    let pooled = (new.e + legacy.e) as f64 / (new.n + legacy.n) as f64;
    let variance = pooled * (1.0 - pooled) * (1.0 / new.n as f64 + 1.0 / legacy.n as f64);
    if new.n < 20 || variance <= 0.0 {
        return 0.0;
    }
    (of_new - of_legacy) / variance.sqrt()
}

/// Claim: the same holds if sessions are lucky or unlucky as a whole.
///
/// The obvious way is to count requests. But twenty failures of one user are not twenty witnesses:
/// without the discount that legacy's own bunching teaches, a good part of the good arms is rolled
/// back within the day.
#[test]
fn a_good_arm_is_not_rolled_back_for_the_bad_luck_of_a_few_sessions() {
    const RUNS: u64 = 30;
    let rolled_back = |overdispersion| {
        count((0..RUNS).map(|seed| {
            let criteria = Criteria {
                overdispersion,
                ..two_error_conditions()
            };
            let mut traffic = Traffic::bunched(seed, 5.0, SHARE, 0.02);
            // Just as bad as it may be.
            traffic.new.errors = 0.02 * (1.0 + MARGIN);
            Trial::new(criteria, traffic).rollback(DAY, 30.0).is_some()
        }))
    };
    assert_eq!(rolled_back(Overdispersion::Auto), 0, "of {RUNS} good arms");
    let naive = rolled_back(Overdispersion::Fixed(1.0));
    assert!(naive >= 3, "without the discount only {naive}");
}

/// Claim: harm that is there from the start is noticed after at most 1.6 times the requests that
/// any method needs (median), and nearly always after four times.
///
/// The obvious way is a sample of fixed size, large enough for the smallest harm one wants to see.
/// It takes as long for a dead arm as for a subtle one; with the smallest harm of these it is at
/// once too small for the subtle arm and more than a hundred times too large for the dead one.
#[test]
fn harm_from_the_start_is_noticed_near_the_limit_of_what_is_possible() {
    const RUNS: u64 = 60;
    let mut limits = Vec::new();
    for (legacy, new, rate) in [
        (0.001, 0.02, 10.0),
        (0.001, 0.05, 100.0),
        (0.001, 0.2, 1.0),
        (0.01, 0.5, 10.0),
    ] {
        let limit = information_limit(new, legacy, SHARE);
        let delays: Vec<Option<When>> = (0..RUNS)
            .map(|seed| {
                let mut traffic = Traffic::independent(seed, rate, SHARE, legacy);
                traffic.new.errors = new;
                let patience = 20.0 + (20.0 * limit / rate).ceil();
                Trial::new(two_error_conditions(), traffic).rollback(patience, 1.0)
            })
            .collect();
        let median = quantile(seconds(&delays), 0.5);
        let late = quantile(seconds(&delays), 0.95);
        let name = format!("{legacy} to {new} at {rate}/s, limit {limit:.0} requests");
        assert!(
            median <= (1.6 * limit / rate).ceil() + 1.0,
            "{name}: median {median} s"
        );
        assert!(
            late <= (4.0 * limit / rate).ceil() + 1.0,
            "{name}: 95th percentile {late} s"
        );
        limits.push(limit);
    }
    let (smallest, largest) = (limits[3], limits[0]);
    assert!(largest / smallest > 20.0, "one size cannot fit: {limits:?}");
}

/// Claim: a new arm that fails half of its requests is cut within two seconds, or fifteen requests
/// where there are few.
#[test]
fn an_arm_that_fails_half_of_its_requests_is_cut_within_seconds() {
    const RUNS: u64 = 60;
    for rate in [0.5, 2.0, 10.0, 100.0] {
        let delays: Vec<Option<When>> = (0..RUNS)
            .map(|seed| {
                let mut traffic = Traffic::independent(seed, rate, SHARE, 0.001);
                traffic.new.errors = 0.5;
                Trial::new(two_error_conditions(), traffic).rollback(120.0, 0.1)
            })
            .collect();
        if rate >= 10.0 {
            let median = quantile(seconds(&delays), 0.5);
            assert!(median <= 2.0, "{rate}/s: {median} s");
        } else {
            let median = quantile(requests(&delays), 0.5);
            assert!(median <= 15.0, "{rate}/s: {median} requests");
        }
    }
}

/// Claim: six good hours do not hide what comes after them; the delay grows by little.
///
/// The obvious way is to add evidence up. Each good request takes a little away, and after six
/// hours the sum stands so low that hours of failures would not bring it back to even, although it
/// is told beforehand how bad the arm will be.
#[test]
fn good_hours_do_not_hide_later_harm() {
    const RUNS: u64 = 15;
    let (legacy, bad, rate) = (0.001, 0.05, 10.0);
    let limit = information_limit(bad, legacy, SHARE);
    let goal = (3.25 * limit / rate).ceil() + 3.0;
    let mut naive_sums = Vec::new();
    let delays: Vec<Option<When>> = (0..RUNS)
        .map(|seed| {
            let traffic = Traffic::independent(seed, rate, SHARE, legacy);
            let mut trial = Trial::new(two_error_conditions(), traffic.clone());
            assert_eq!(trial.rollback(6.0 * HOUR, 30.0), None, "seed {seed}");
            trial.traffic.new.errors = bad;
            let delay = trial.rollback(10.0 * goal, 1.0);

            let mut naive = NaiveSum::new(traffic, bad, legacy * (1.0 + MARGIN));
            naive.watch(6.0 * HOUR, 30.0);
            naive.traffic.new.errors = bad;
            naive.watch(goal, 1.0);
            naive_sums.push(naive.nats);
            delay
        })
        .collect();
    let median = quantile(seconds(&delays), 0.5);
    assert!(median <= goal, "{median} s, goal {goal} s");
    let best = quantile(naive_sums, 1.0);
    assert!(best < -1_000.0, "the sum is within reach: {best} nats");
}

/// The plain sum of log likelihood ratios.
struct NaiveSum {
    traffic: Traffic,
    bad: f64,
    tolerated: f64,
    nats: f64,
}

impl NaiveSum {
    fn new(traffic: Traffic, bad: f64, tolerated: f64) -> Self {
        Self {
            traffic,
            bad,
            tolerated,
            nats: 0.0,
        }
    }

    fn watch(&mut self, seconds: f64, step: f64) {
        for _ in 0..(seconds / step) as u64 {
            let Pair { n, e } = self.traffic.window(step).new.errors.total;
            self.nats += e as f64 * (self.bad / self.tolerated).ln();
            self.nats += (n - e) as f64 * ((1.0 - self.bad) / (1.0 - self.tolerated)).ln();
        }
    }
}

fn gate(limit: f64) -> Criteria {
    Criteria {
        rollback: Vec::new(),
        advance: vec![Requirement::within(Metric::ErrorRate, limit)],
        observe: Duration::ZERO,
        min_requests: 0,
        overdispersion: Overdispersion::Fixed(1.0),
        ..Criteria::default()
    }
}

/// Claim: what is good is soon proven good, after at most 1.3 times the requests that any method
/// needs (median), and a second's.
#[test]
fn gates_open_near_the_limit_of_what_is_possible() {
    const RUNS: u64 = 60;
    for (errors, limit, rate) in [
        (0.0, 0.01, 10.0),
        (0.001, 0.01, 100.0),
        (0.005, 0.01, 100.0),
        (0.01, 0.05, 10.0),
    ] {
        let opened: Vec<Option<When>> = (0..RUNS)
            .map(|seed| {
                let traffic = Traffic::independent(seed, rate, SHARE, errors);
                Trial::new(gate(limit), traffic).advance(HOUR, 1.0)
            })
            .collect();
        let median = quantile(requests(&opened), 0.5);
        let goal = 1.3 * gate_limit(errors, limit, 0.05) + rate;
        assert!(
            median <= goal,
            "{errors} below {limit}: {median} requests, goal {goal:.0}"
        );
    }
}

/// Claim: an arm that just violates its limit is let through within an hour with a chance of at
/// most one in twenty.
///
/// The obvious way is to wait for a hundred requests and look whether the rate is below the limit.
/// Of arms that violate it, sooner or later nearly all look good for a moment.
#[test]
fn gates_do_not_open_at_the_limit() {
    const RUNS: u64 = 200;
    const LOOK: f64 = 10.0;
    let traffic = |seed| Traffic::independent(seed, 10.0, SHARE, 0.01);
    let opened = count((0..RUNS).map(|seed| {
        let mut trial = Trial::new(gate(0.01), traffic(seed));
        trial.advance(HOUR, LOOK).is_some()
    }));
    assert!(opened <= 10, "{opened} of {RUNS}");

    let naive = count((0..RUNS).map(|seed| {
        let mut traffic = traffic(seed);
        let mut new = Pair::default();
        (0..(HOUR / LOOK) as u64).any(|_| {
            new.add(traffic.window(LOOK).new.errors.total);
            new.n >= 100 && new.ratio() < Some(0.01)
        })
    }));
    assert!(naive > 150, "only {naive} of {RUNS} looked good");
}

/// Claim: where both arms suffer alike, the comparison stays quiet, whatever the shape of the
/// trouble.
///
/// The obvious way is a limit on the rate of `new`: it takes every outage of the database for the
/// release's fault, and moves everyone to an arm that is just as sick.
#[test]
fn an_outage_of_both_arms_is_not_blamed_on_the_new_one() {
    const RUNS: u64 = 10;
    let outages = [(0.06, 600.0), (0.5, 20.0), (0.5, 300.0), (1.0, 60.0)];
    let blamed = |criteria: &Criteria| {
        let runs = outages.iter().flat_map(|(errors, length)| {
            (0..RUNS).map(move |seed| {
                let traffic = Traffic::independent(seed, 20.0, SHARE, 0.001);
                let mut trial = Trial::new(criteria.clone(), traffic);
                let before = trial.rollback(120.0, 1.0);
                (trial.traffic.new.errors, trial.traffic.legacy.errors) = (*errors, *errors);
                let during = trial.rollback(*length, 1.0);
                (trial.traffic.new.errors, trial.traffic.legacy.errors) = (0.001, 0.001);
                let after = trial.rollback(120.0, 1.0);
                before.or(during).or(after).is_some()
            })
        });
        count(runs)
    };
    assert_eq!(blamed(&comparison_only()), 0);
    let limit_only = Criteria {
        rollback: vec![Criterion::beyond(Metric::ErrorRate, LIMIT)],
        when_legacy_too: WhenLegacyToo::Rollback,
        ..two_error_conditions()
    };
    let naive = blamed(&limit_only);
    assert!(naive > 30, "only {naive} of 40 outages were blamed on new");
}
