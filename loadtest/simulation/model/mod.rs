//! Simulated traffic, judged by the real judge.
//!
//! Shared by the tests, which take seconds, and by the long run, which writes the whole table.

pub(crate) mod theory;
pub(crate) mod traffic;

use std::time::Duration;

use cutover::policy::criteria::{Criteria, Criterion, Metric, Overdispersion};
use cutover::policy::judge::{Judge, Verdict};
use cutover::policy::time::Timestamp;

use self::traffic::Traffic;

/// The two conditions on errors, at the same false-rollback budget that each of four would have.
pub(crate) fn two_error_conditions() -> Criteria {
    Criteria {
        rollback: vec![
            Criterion::beyond(Metric::ErrorRate, LIMIT),
            Criterion::worse_than_legacy(Metric::ErrorRate, MARGIN),
        ],
        advance: Vec::new(),
        alpha: ALPHA,
        overdispersion: Overdispersion::Fixed(1.0),
        ..Criteria::default()
    }
}

/// The absolute limit on the error rate.
pub(crate) const LIMIT: f64 = 0.05;
/// How much worse than legacy's the error rate may be, as a part of legacy's.
pub(crate) const MARGIN: f64 = 0.25;
/// The budget of two conditions, of which each gets half.
pub(crate) const ALPHA: f64 = 0.005;

/// A judge in front of simulated traffic.
pub(crate) struct Trial {
    pub(crate) traffic: Traffic,
    pub(crate) judge: Judge,
    now: Timestamp,
}

/// When something happened, from the moment at which it was looked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct When {
    pub(crate) seconds: f64,
    /// Requests of `new` until then.
    pub(crate) requests: u64,
}

impl Trial {
    pub(crate) fn new(criteria: Criteria, traffic: Traffic) -> Self {
        let now = Timestamp::from_milliseconds(1_000_000);
        Self {
            traffic,
            judge: Judge::new(criteria, now),
            now,
        }
    }

    /// Judges windows of `step` seconds for `seconds`, or until `is_over` says so of a verdict.
    pub(crate) fn until(
        &mut self,
        seconds: f64,
        step: f64,
        is_over: impl Fn(&Verdict) -> bool,
    ) -> Option<When> {
        let mut when = When {
            seconds: 0.0,
            requests: 0,
        };
        while when.seconds < seconds - step / 2.0 {
            let window = self.traffic.window(step);
            self.now = self.now.plus(Duration::from_secs_f64(step));
            when.seconds += step;
            when.requests += window.new.errors.total.n;
            if is_over(&self.judge.observe(&window, self.now)) {
                return Some(when);
            }
        }
        None
    }

    /// Whether and when the split is rolled back within `seconds`.
    pub(crate) fn rollback(&mut self, seconds: f64, step: f64) -> Option<When> {
        self.until(seconds, step, |verdict| matches!(verdict, Verdict::Fail(_)))
    }

    /// Whether and when the split may advance.
    pub(crate) fn advance(&mut self, seconds: f64, step: f64) -> Option<When> {
        self.until(seconds, step, |verdict| *verdict == Verdict::Pass)
    }
}

/// The value below which the part `quantile` of the values lie; infinite where that many runs never
/// came to an end.
pub(crate) fn quantile(mut values: Vec<f64>, quantile: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (quantile * values.len() as f64).ceil() as usize;
    values[rank.clamp(1, values.len()) - 1]
}

/// The seconds of each run, infinite for those that never came to an end.
pub(crate) fn seconds(runs: &[Option<When>]) -> Vec<f64> {
    let seconds = |when: &When| when.seconds;
    let runs = runs.iter();
    runs.map(|when| when.as_ref().map_or(f64::INFINITY, seconds))
        .collect()
}

/// The requests of each run, infinite for those that never came to an end.
pub(crate) fn requests(runs: &[Option<When>]) -> Vec<f64> {
    let requests = |when: &When| when.requests as f64;
    let runs = runs.iter();
    runs.map(|when| when.as_ref().map_or(f64::INFINITY, requests))
        .collect()
}
