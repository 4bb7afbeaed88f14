//! One requirement of an advance: the evidence of health in the present stage.
//!
//! "No breach" is no proof: with three requests everything looks fine. A requirement is a
//! hypothesis of its own, that the limit is *violated*, and an advance needs evidence against it.
//! Each stage asks anew, since a heavier load is a new question.

use serde::{Deserialize, Serialize};

use super::comparison::{Baseline, Comparison};
use super::detector::{Detector, Prior, Step};
use super::kernels::{self, Contrast, DEGREES_OF_HEALTH, GoodKernel};
use super::pace::{Estimate, Pace};
use super::source::{Counts, Event};
use super::watch::Sheet;
use super::window::Window;
use crate::policy::criteria::{Criteria, LatencyLimits, Metric, Proof, Requirement};
use crate::policy::time::Timestamp;

/// One requirement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Gate {
    requirement: Requirement,
    test: Test,
    detector: Detector,
    /// Counted in this stage.
    counts: Contrast,
    pace: Pace,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Test {
    /// Within an absolute limit.
    Within { kernel: GoodKernel },
    /// A rate not above legacy's by `margin`.
    NotWorse { margin: f64, comparison: Comparison },
}

impl Gate {
    /// A requirement without any evidence, and what is known of legacy.
    pub(super) fn new(
        requirement: Requirement,
        criteria: &Criteria,
        baseline: Option<Baseline>,
        now: Timestamp,
    ) -> Self {
        let test = match requirement.proof {
            Proof::Within(limit) => Test::Within {
                kernel: GoodKernel::health(requirement.metric.allowed_share(limit)),
            },
            Proof::NotWorseThanLegacy(margin) => Test::NotWorse {
                margin,
                comparison: Comparison::with_baseline(baseline.unwrap_or_default()),
            },
        };
        let prior = Prior::of_health(&criteria.expert);
        Self {
            requirement,
            test,
            detector: Detector::new(DEGREES_OF_HEALTH, prior, now),
            counts: Contrast::default(),
            pace: Pace::default(),
        }
    }

    pub(super) const fn requirement(&self) -> Requirement {
        self.requirement
    }

    pub(super) fn event(&self) -> Event {
        Event::of_proof(self.requirement.metric, self.requirement.proof)
    }

    /// Whether legacy's traffic is needed.
    pub(super) const fn compares(&self) -> bool {
        matches!(self.test, Test::NotWorse { .. })
    }

    /// The same requirement in another stage; what was learnt of legacy stays.
    pub(super) fn refresh(&mut self, criteria: &Criteria, now: Timestamp) {
        if let Test::NotWorse { comparison, .. } = &mut self.test {
            comparison.abandon();
        }
        let baseline = self.baseline_of(self.requirement.metric);
        *self = Self::new(self.requirement, criteria, baseline, now);
    }

    /// Legacy's rate as learnt here, if it is that of `metric`.
    pub(super) fn baseline_of(&self, metric: Metric) -> Option<Baseline> {
        match &self.test {
            Test::NotWorse { comparison, .. } if self.requirement.metric == metric => {
                Some(comparison.baseline())
            }
            _ => None,
        }
    }

    /// Judges one window.
    pub(super) fn observe(&mut self, sheet: Sheet<'_>) {
        let Some(counts) = Counts::of(sheet.window, self.event(), sheet.limits) else {
            return;
        };
        let step = Step {
            prior: Prior::of_health(&sheet.criteria.expert),
            phi: sheet.learnt.phi(self.event(), sheet.criteria),
            clip: f64::INFINITY,
            seconds: sheet.window.seconds,
            begin: sheet.begin,
        };
        let batch = counts.batch();
        self.counts.new.add(batch.counts.new);
        self.counts.legacy.add(batch.counts.legacy);
        let (detector, pace) = (&mut self.detector, &mut self.pace);
        let mut take_in = |factors: [f64; DEGREES_OF_HEALTH], requests, step: Step| {
            detector.step(&factors, step);
            let nats = factors.into_iter().map(|factor| factor / step.phi);
            pace.observe(nats, requests, step.seconds);
        };
        match &mut self.test {
            Test::Within { kernel } => {
                let new = batch.counts.new;
                take_in(kernel.log_factors(new), new.n, step);
            }
            Test::NotWorse { margin, comparison } => {
                comparison.observe(batch, step, |block, guess, step| {
                    let factors = kernels::not_worse(*margin, guess, block.counts);
                    take_in(factors, block.counts.new.n, step);
                });
            }
        }
    }

    /// Takes in legacy's counts of a window in which nothing is judged.
    pub(super) fn learn(&mut self, window: &Window, limits: &LatencyLimits) {
        let counts = Counts::of(window, self.event(), limits);
        if let (Test::NotWorse { comparison, .. }, Some(counts)) = (&mut self.test, counts) {
            comparison.learn(counts.legacy.total, window.seconds);
        }
    }

    pub(super) fn evidence(&self) -> f64 {
        self.detector.evidence()
    }

    /// Counted in this stage.
    pub(super) const fn counts(&self) -> Contrast {
        self.counts
    }

    /// The share of events that must be undercut, as far as it is known.
    pub(super) fn allowed_share(&self) -> Option<f64> {
        match &self.test {
            Test::Within { kernel } => Some(kernel.theta()),
            Test::NotWorse { margin, .. } => {
                let legacy = self.counts.legacy.ratio();
                legacy.map(|ratio| ratio + margin)
            }
        }
    }

    /// What is still to come until the evidence reaches `threshold`.
    pub(super) fn estimate(&self, threshold: f64) -> Option<Estimate> {
        // One alternative can reach the threshold alone, as the mean is over all of them.
        let needed = threshold * DEGREES_OF_HEALTH as f64;
        let lacking = (0..DEGREES_OF_HEALTH).map(|k| (needed / self.detector.evidence_of(k)).ln());
        self.pace.estimate(lacking)
    }
}
