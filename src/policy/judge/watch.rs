//! One criterion under observation: the evidence of harm, and whether it would be just to act.

use serde::{Deserialize, Serialize};

use super::comparison::{Baseline, Comparison};
use super::detector::{self, Detector, Prior, Step};
use super::guards::{self, Guard};
use super::kernels::{self, ALTERNATIVES, BreachKernel};
use super::latencies::Yardstick;
use super::learnt::Learnt;
use super::slower::SlowerTest;
use super::source::{self, Counts, Event, Slow};
use super::trail::{Tally, Trail};
use super::window::{Pair, Window};
use crate::policy::criteria::{
    self, Action, Criteria, Criterion, Harm, LatencyLimits, Metric, WhenLegacyToo,
};
use crate::policy::time::Timestamp;

/// Evidence against legacy, over the seconds in which `new` is bad, that counts as "legacy too".
/// Modest, since a hold is the milder mistake and ends as soon as legacy's counts improve.
const LEGACY_ODDS: f64 = 20.0;

/// One criterion under observation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Watch {
    criterion: Criterion,
    test: Test,
    /// For how long the evidence has sufficed without a break.
    sufficed_seconds: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Test {
    /// An absolute limit.
    Limit {
        kernel: BreachKernel,
        new: Trail,
        /// Legacy, judged for the same limit over the same seconds.
        legacy: Detector,
    },
    /// A rate, against `rho` times legacy's.
    Worse {
        rho: f64,
        trail: Trail,
        comparison: Comparison,
    },
    /// Latency, against legacy's.
    Slower(Box<SlowerTest>),
}

/// What was learnt of legacy that a fresh criterion can go on with.
#[derive(Clone, Debug, Default)]
pub(super) struct Legacy {
    pub(super) baseline: Option<Baseline>,
    pub(super) yardstick: Option<Yardstick>,
}

/// Where a criterion stands, in rising order of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// Nothing was sent to `new`, or there was nothing to compare it with.
    Untested,
    /// The evidence is below the threshold.
    Quiet,
    /// The evidence suffices; too little stands behind it to act.
    Doubted(Guard),
    /// The limit is breached; acting would help nobody.
    Held(Guard),
    /// The limit is breached.
    Breached,
}

impl Finding {
    /// Larger for more trouble; the guard makes no difference.
    pub(super) const fn rank(self) -> u8 {
        match self {
            Finding::Untested => 0,
            Finding::Quiet => 1,
            Finding::Doubted(_) => 2,
            Finding::Held(_) => 3,
            Finding::Breached => 4,
        }
    }
}

/// What all criteria of a split have in common at one moment.
#[derive(Clone, Copy)]
pub(super) struct Bench<'a> {
    pub(super) criteria: &'a Criteria,
    pub(super) learnt: &'a Learnt,
    pub(super) clusters_seen: u32,
    pub(super) legacy_available: bool,
}

impl Bench<'_> {
    /// The evidence at which each criterion acts: the budget, shared out evenly among those that
    /// roll back.
    pub(super) fn threshold(&self) -> f64 {
        threshold(self.criteria)
    }
}

fn threshold(criteria: &Criteria) -> f64 {
    criteria.spenders().max(1) as f64 / criteria.alpha
}

/// What all criteria of a split are given of one window.
#[derive(Clone, Copy)]
pub(super) struct Sheet<'a> {
    pub(super) window: &'a Window,
    /// When the window began.
    pub(super) begin: Timestamp,
    pub(super) criteria: &'a Criteria,
    pub(super) limits: &'a LatencyLimits,
    pub(super) learnt: &'a Learnt,
}

impl Watch {
    /// A criterion with fresh evidence, and what is known of legacy.
    pub(super) fn new(
        criterion: Criterion,
        criteria: &Criteria,
        legacy: Legacy,
        now: Timestamp,
    ) -> Self {
        let prior = Prior::of_harm(&criteria.expert);
        let test = match criterion.harm {
            Harm::Beyond(limit) => Test::Limit {
                kernel: BreachKernel::harm(criterion.metric.allowed_share(limit)),
                new: Trail::new(prior, now),
                legacy: Detector::new(ALTERNATIVES, prior, now),
            },
            Harm::WorseThanLegacy(margin) if criterion.metric.is_latency() => {
                let quantiles = criteria.compared_quantiles(criterion.metric);
                let tails = quantiles.into_iter().map(criteria::tail);
                let yardstick = legacy.yardstick.unwrap_or_default();
                let test = SlowerTest::new(tails, 1.0 + margin, yardstick, prior, now);
                Test::Slower(Box::new(test))
            }
            Harm::WorseThanLegacy(margin) => Test::Worse {
                rho: 1.0 + margin,
                trail: Trail::new(prior, now),
                comparison: Comparison::with_baseline(legacy.baseline.unwrap_or_default()),
            },
        };
        Self {
            criterion,
            test,
            sufficed_seconds: 0.0,
        }
    }

    pub(super) const fn criterion(&self) -> Criterion {
        self.criterion
    }

    /// Whether this is the watch of `criterion` under the settings of `criteria`.
    pub(super) fn is_of(&self, criterion: Criterion, criteria: &Criteria) -> bool {
        let tails = criteria.compared_quantiles(criterion.metric);
        let tails = tails.into_iter().map(criteria::tail);
        self.criterion == criterion
            && match &self.test {
                Test::Slower(slower) => slower.tails().eq(tails),
                Test::Limit { .. } | Test::Worse { .. } => true,
            }
    }

    pub(super) fn event(&self) -> Event {
        Event::of_harm(self.criterion.metric, self.criterion.harm)
    }

    /// The same criterion with fresh evidence; what was learnt of legacy stays.
    pub(super) fn refresh(&mut self, criteria: &Criteria, now: Timestamp) {
        match &mut self.test {
            Test::Worse { comparison, .. } => comparison.abandon(),
            Test::Slower(slower) => slower.abandon(),
            Test::Limit { .. } => {}
        }
        let legacy = Legacy {
            baseline: self.baseline_of(self.criterion.metric),
            yardstick: self.yardstick_of(self.criterion.metric),
        };
        *self = Self::new(self.criterion, criteria, legacy, now);
    }

    /// Legacy's rate as learnt here, if it is that of `metric`.
    pub(super) fn baseline_of(&self, metric: Metric) -> Option<Baseline> {
        match &self.test {
            Test::Worse { comparison, .. } if self.criterion.metric == metric => {
                Some(comparison.baseline())
            }
            _ => None,
        }
    }

    /// Legacy's durations as learnt here, if they are those that `metric` is about.
    pub(super) fn yardstick_of(&self, metric: Metric) -> Option<Yardstick> {
        let is_total = |metric| matches!(metric, Metric::TotalLatency(_));
        match &self.test {
            Test::Slower(slower)
                if metric.is_latency() && is_total(metric) == is_total(self.criterion.metric) =>
            {
                Some(slower.yardstick().clone())
            }
            _ => None,
        }
    }

    /// How many quantiles this criterion compares with legacy's.
    pub(super) fn lanes(&self) -> usize {
        match &self.test {
            Test::Slower(slower) => slower.lanes(),
            Test::Limit { .. } | Test::Worse { .. } => 0,
        }
    }

    /// What is slower than legacy in a window, for each quantile that this criterion compares.
    pub(super) fn count_slower(&self, window: &Window, counted: &mut Vec<Slow>) {
        if let Test::Slower(slower) = &self.test {
            let latencies = source::latencies(window, self.criterion.metric);
            counted.extend(slower.count(latencies));
        }
    }

    /// Judges one window. `slow` is what it has for the quantiles that this criterion compares.
    pub(super) fn observe(&mut self, sheet: Sheet<'_>, slow: &[Slow]) {
        let threshold = threshold(sheet.criteria);
        let step = Step {
            prior: Prior::of_harm(&sheet.criteria.expert),
            phi: sheet.learnt.phi(self.event(), sheet.criteria),
            clip: detector::clip(sheet.criteria, ALTERNATIVES, threshold),
            seconds: sheet.window.seconds,
            begin: sheet.begin,
        };
        let counts = Counts::of(sheet.window, self.event(), sheet.limits);
        match &mut self.test {
            Test::Limit {
                kernel,
                new,
                legacy,
            } => {
                let Some(counts) = counts else { return };
                let factors = kernel.log_factors(counts.new.total);
                new.step(&factors, step, counts.batch());
                legacy.step(&kernel.log_factors(counts.legacy.total), step);
            }
            Test::Worse {
                rho,
                trail,
                comparison,
            } => {
                let Some(counts) = counts else { return };
                comparison.observe(counts.batch(), step, |block, guess, step| {
                    let factors = kernels::worse(*rho, guess, block.counts);
                    trail.step(&factors, step, block.batch());
                });
            }
            Test::Slower(slower) => {
                let durations = source::latencies(sheet.window, self.criterion.metric).legacy;
                let requests = &sheet.window.new.errors.clusters;
                slower.observe(slow, durations, requests, step);
            }
        }
        if self.evidence() >= threshold {
            self.sufficed_seconds += sheet.window.seconds.max(0.0);
        } else {
            self.sufficed_seconds = 0.0;
        }
    }

    /// Takes in legacy's counts of a window in which nothing is judged.
    pub(super) fn learn(&mut self, window: &Window, limits: &LatencyLimits) {
        let counts = Counts::of(window, self.event(), limits);
        match &mut self.test {
            Test::Limit { .. } => {}
            Test::Worse { comparison, .. } => {
                if let Some(counts) = counts {
                    comparison.learn(counts.legacy.total, window.seconds);
                }
            }
            Test::Slower(slower) => {
                let durations = source::latencies(window, self.criterion.metric).legacy;
                slower.learn(durations, window.seconds);
            }
        }
    }

    pub(super) fn finding(&self, bench: Bench<'_>) -> Finding {
        let trail = self.trail();
        if self.evidence() < bench.threshold() {
            return match trail.requests() {
                0 => Finding::Untested,
                _ => Finding::Quiet,
            };
        }
        let criteria = bench.criteria;
        if self.sufficed_seconds < self.criterion.sustained.as_secs_f64() {
            return Finding::Doubted(Guard::Sustained);
        }
        if self.criterion.metric.is_latency() && trail.requests() < criteria.min_latency_samples {
            return Finding::Doubted(Guard::MinLatencySamples);
        }
        let tally = trail.leading();
        let events = tally.counts.new.e;
        let doubt = guards::too_few_callers(events, &tally.clusters, bench.clusters_seen, criteria);
        if let Some(guard) = doubt {
            return Finding::Doubted(guard);
        }
        if self.difference_is_small(tally, criteria) {
            return Finding::Doubted(Guard::MinEffect);
        }
        // Only a rollback moves people, and so asks whether legacy is fit for them.
        match self.criterion.action {
            Action::Rollback if !bench.legacy_available => Finding::Held(Guard::LegacyUnavailable),
            Action::Rollback if self.legacy_too(bench) => Finding::Held(Guard::WhenLegacyToo),
            Action::Rollback | Action::Hold | Action::Notify => Finding::Breached,
        }
    }

    /// Whether legacy breaches the limit as well, and that is a reason to hold. A comparison has
    /// taken legacy into account already.
    ///
    /// Two questions, as either arm may be the first to suffer: has legacy's own detector fired,
    /// and what do legacy's counts say since the moment at which `new` is thought to have turned
    /// bad? That moment was found without looking at legacy, so the search for it need not be paid
    /// for again; without this, luck alone would decide which of two equally sick arms fires a
    /// tick earlier.
    pub(super) fn legacy_too(&self, bench: Bench<'_>) -> bool {
        let Test::Limit {
            kernel,
            new,
            legacy,
        } = &self.test
        else {
            return false;
        };
        if bench.criteria.when_legacy_too == WhenLegacyToo::Rollback {
            return false;
        }
        let factors = kernel.log_factors(new.leading().counts.legacy);
        let phi = self.phi(bench);
        let odds: f64 = factors.iter().map(|factor| (factor / phi).exp()).sum();
        odds / ALTERNATIVES as f64 >= LEGACY_ODDS || legacy.evidence() >= bench.threshold()
    }

    pub(super) fn evidence(&self) -> f64 {
        match &self.test {
            Test::Limit { new: trail, .. } | Test::Worse { trail, .. } => trail.evidence(),
            Test::Slower(slower) => slower.evidence(),
        }
    }

    /// Seconds until a window without requests ends the second of a detector here; none where such
    /// windows do not reach one.
    pub(super) fn second_left(&self) -> Option<f64> {
        match &self.test {
            Test::Limit { new, legacy, .. } => Some(new.second_left().min(legacy.second_left())),
            Test::Worse { .. } | Test::Slower(_) => None,
        }
    }

    /// When the trouble is thought to have begun, and what was counted since. Where nothing points
    /// to trouble: everything since the evidence was fresh.
    pub(super) fn suspicion(&self) -> (Option<Timestamp>, &Tally) {
        self.trail().suspicion()
    }

    /// The share of events that is allowed, as far as it is known: where legacy is the limit, it is
    /// as good as legacy's counts in `tally`.
    pub(super) fn allowed_share(&self, tally: &Tally) -> Option<f64> {
        match &self.test {
            Test::Limit { kernel, .. } => Some(kernel.theta()),
            Test::Worse { rho, .. } => tally.counts.legacy.ratio().map(|ratio| rho * ratio),
            Test::Slower(_) => tally.counts.legacy.ratio(),
        }
    }

    pub(super) fn phi(&self, bench: Bench<'_>) -> f64 {
        bench.learnt.phi(self.event(), bench.criteria)
    }

    fn trail(&self) -> &Trail {
        match &self.test {
            Test::Limit { new: trail, .. } | Test::Worse { trail, .. } => trail,
            Test::Slower(slower) => slower.leading(),
        }
    }

    /// A difference that nobody would act on, however certain it is.
    fn difference_is_small(&self, tally: &Tally, criteria: &Criteria) -> bool {
        let least = match (&self.test, self.criterion.metric) {
            (Test::Worse { .. }, Metric::ClientErrorRate) => criteria.client_error_min_effect,
            (Test::Worse { .. }, _) => criteria.error_min_effect,
            (Test::Limit { .. } | Test::Slower(_), _) => return false,
        };
        let rate = |counts: Pair| counts.ratio().unwrap_or(0.0);
        rate(tally.counts.new) - rate(tally.counts.legacy) < least
    }
}
