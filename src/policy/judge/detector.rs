//! When did it start? Evidence that hours of good traffic cannot drown.
//!
//! A plain running product of e-factors is dragged towards zero by every good hour, and a late
//! failure would first have to climb out of that hole. This recursion (Shiryaev and Roberts, with
//! prior weights) is the mixture over every possible start instead: part of the weight lies on the
//! first second, where most bad releases show, and the rest is spread over a horizon, a little with
//! each second. So no sum ever falls below the weight of "it starts now".
//!
//! Nothing here depends on how long a window is: weight is granted by the second, and so is the
//! most that a clipped detector takes in.

use serde::{Deserialize, Serialize};

use crate::policy::criteria::{Criteria, Expert};
use crate::policy::time::Timestamp;

/// Seconds that are over but for rounding: ten ticks of 0.1 s are one second.
const ROUNDING: f64 = 1e-6;

/// What is believed before anything was seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Prior {
    /// The weight of "from the start".
    start_weight: f64,
    /// The weight granted to each later second.
    per_second: f64,
    /// Bounds the memory of the past. Lowering evidence is always valid.
    cap: f64,
}

impl Prior {
    /// Of harm: when did it begin?
    pub(super) fn of_harm(expert: &Expert) -> Self {
        Self::new(
            expert.start_weight,
            expert.alpha_horizon.as_secs_f64(),
            expert.evidence_cap,
        )
    }

    /// Of health: since when has the stage been good?
    pub(super) fn of_health(expert: &Expert) -> Self {
        Self::new(
            expert.gate_start_weight,
            expert.advance_horizon.as_secs_f64(),
            expert.evidence_cap,
        )
    }

    fn new(start_weight: f64, horizon_seconds: f64, cap: f64) -> Self {
        Self::given(start_weight, (1.0 - start_weight) / horizon_seconds, cap)
    }

    /// With the weight granted to each later second.
    pub(super) const fn given(start_weight: f64, per_second: f64, cap: f64) -> Self {
        Self {
            start_weight,
            per_second,
            cap,
        }
    }
}

/// How one window is taken in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) prior: Prior,
    /// The log factors are divided by this dispersion.
    pub(super) phi: f64,
    /// The most that one second supplies to an alternative, in nats.
    pub(super) clip: f64,
    pub(super) seconds: f64,
    /// When the window began.
    pub(super) begin: Timestamp,
}

/// The most that one second may supply where a breach must last `min_breach_windows` seconds.
pub(super) fn clip(criteria: &Criteria, alternatives: usize, threshold: f64) -> f64 {
    match criteria.min_breach_windows {
        0 | 1 => f64::INFINITY,
        windows => {
            let needed = alternatives as f64 * threshold / criteria.expert.start_weight;
            needed.ln() / f64::from(windows)
        }
    }
}

/// The evidence against one hypothesis, per alternative.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Detector {
    alternatives: Vec<Alternative>,
    /// How much of the current second is over.
    second: f64,
    /// Whether anything was taken in: before that there is no evidence, not even the prior's.
    has_begun: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Alternative {
    /// Weighted evidence (R of the specification), in linear scale: underflow to zero and overflow
    /// to the cap are both right.
    evidence: f64,
    /// Log evidence since the suspected start (C); for reports and guards, never for the decision.
    climb: f64,
    /// The suspected start.
    start: Timestamp,
    /// What the current second has supplied, in nats.
    supplied: f64,
}

impl Detector {
    /// A detector of `alternatives` alternatives that knows nothing yet.
    pub(super) fn new(alternatives: usize, prior: Prior, now: Timestamp) -> Self {
        let alternative = Alternative {
            evidence: prior.start_weight,
            climb: 0.0,
            start: now,
            supplied: 0.0,
        };
        Self {
            alternatives: vec![alternative; alternatives],
            second: 0.0,
            has_begun: false,
        }
    }

    /// Takes in one window's log factors. Tells for which alternatives the suspected start moved to
    /// this window.
    pub(super) fn step(&mut self, log_factors: &[f64], step: Step) -> Restarts {
        let seconds = step.seconds.max(0.0);
        let grant = step.prior.per_second * seconds;
        let most = step.clip * seconds.max(1.0);
        let mut restarts = Restarts(0);
        for (k, (alternative, log_factor)) in
            self.alternatives.iter_mut().zip(log_factors).enumerate()
        {
            let log_factor = (log_factor / step.phi).min(most - alternative.supplied);
            alternative.supplied += log_factor;
            let weight = alternative.evidence + grant;
            // Nothing times an overflow would not be a number; nothing stays nothing.
            alternative.evidence = if weight > 0.0 {
                (weight * log_factor.exp()).min(step.prior.cap)
            } else {
                0.0
            };
            if alternative.climb <= 0.0 {
                alternative.climb = 0.0;
                alternative.start = step.begin;
                restarts.0 |= 1 << k;
            }
            alternative.climb += log_factor;
        }
        self.has_begun = true;
        self.second += seconds;
        if self.second >= 1.0 - ROUNDING {
            self.second = 0.0;
            for alternative in &mut self.alternatives {
                alternative.supplied = 0.0;
            }
        }
        restarts
    }

    /// The evidence, as odds: with the prior of harm, expectation at most ½ plus ½ per day while
    /// nothing is wrong.
    pub(super) fn evidence(&self) -> f64 {
        if !self.has_begun {
            return 0.0;
        }
        let sum: f64 = self.alternatives.iter().map(|one| one.evidence).sum();
        sum / self.alternatives.len() as f64
    }

    /// How much of the current second is left.
    pub(super) fn second_left(&self) -> f64 {
        1.0 - self.second
    }

    /// The evidence for alternative `k` alone.
    pub(super) fn evidence_of(&self, k: usize) -> f64 {
        self.alternatives[k].evidence
    }

    /// The alternative that explains the evidence best.
    pub(super) fn leading(&self) -> usize {
        let mut leading = 0;
        for (k, alternative) in self.alternatives.iter().enumerate() {
            if alternative.evidence > self.alternatives[leading].evidence {
                leading = k;
            }
        }
        leading
    }

    /// When it began according to alternative `k`; none while nothing points to it.
    pub(super) fn suspected_start(&self, k: usize) -> Option<Timestamp> {
        let alternative = &self.alternatives[k];
        (alternative.climb > 0.0).then_some(alternative.start)
    }
}

/// A set of alternatives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Restarts(u8);

impl Restarts {
    pub(super) const fn contains(self, k: usize) -> bool {
        self.0 & (1 << k) != 0
    }
}
