//! When did it start? Evidence that hours of good traffic cannot drown.
//!
//! A plain running product of e-factors is dragged towards zero by every good hour, and a late
//! failure would first have to climb out of that hole. This recursion (Shiryaev and Roberts, with
//! prior weights) is the mixture over every possible start instead: half of the weight lies on the
//! first second, where most bad releases show, and half is spread over the following 24 h, a
//! little with each second. So no sum ever falls below the weight of "it starts now".
//!
//! Nothing here depends on how long a window is: weight is granted by the second.

use serde::{Deserialize, Serialize};

use super::kernels::ALTERNATIVES;
use crate::policy::time::Timestamp;

/// The prior weight of "it was bad from the start".
const START_WEIGHT: f64 = 0.5;
/// The prior weight granted to each later second.
const WEIGHT_PER_SECOND: f64 = 0.5 / 86_400.0;
/// Bounds the memory of past trouble. Lowering evidence is always valid.
pub(super) const CAP: f64 = 1e6;

/// The evidence against one hypothesis, per alternative.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Detector {
    /// Weighted evidence (R of the specification), in linear scale: underflow to zero and overflow
    /// to the cap are both right.
    evidence: [f64; ALTERNATIVES],
    /// Log evidence since the suspected start (C); for reports and guards, never for the decision.
    climb: [f64; ALTERNATIVES],
    /// The suspected start.
    start: [Timestamp; ALTERNATIVES],
}

impl Detector {
    /// A detector that knows nothing yet.
    pub(super) const fn new(now: Timestamp) -> Self {
        Self {
            evidence: [START_WEIGHT; ALTERNATIVES],
            climb: [0.0; ALTERNATIVES],
            start: [now; ALTERNATIVES],
        }
    }

    /// Takes in one window that began at `begin`: its log factors, divided by the dispersion
    /// `phi`. Tells for which alternatives the suspected start moved to this window.
    pub(super) fn step(
        &mut self,
        log_factors: [f64; ALTERNATIVES],
        phi: f64,
        seconds: f64,
        begin: Timestamp,
    ) -> [bool; ALTERNATIVES] {
        let grant = WEIGHT_PER_SECOND * seconds.max(0.0);
        std::array::from_fn(|k| {
            let log_factor = log_factors[k] / phi;
            let weight = self.evidence[k] + grant;
            // Nothing times an overflow would not be a number; nothing stays nothing.
            self.evidence[k] = if weight > 0.0 {
                (weight * log_factor.exp()).min(CAP)
            } else {
                0.0
            };
            let restarts = self.climb[k] <= 0.0;
            if restarts {
                self.climb[k] = 0.0;
                self.start[k] = begin;
            }
            self.climb[k] += log_factor;
            restarts
        })
    }

    /// The evidence, as odds: expectation at most ½ plus ½ per day while nothing is wrong.
    pub(super) fn evidence(&self) -> f64 {
        self.evidence.iter().sum::<f64>() / ALTERNATIVES as f64
    }

    /// The alternative that explains the evidence best.
    pub(super) fn leading(&self) -> usize {
        let mut leading = 0;
        for k in 1..ALTERNATIVES {
            if self.evidence[k] > self.evidence[leading] {
                leading = k;
            }
        }
        leading
    }

    /// When the trouble began according to alternative `k`; none while nothing points to trouble.
    pub(super) fn suspected_start(&self, k: usize) -> Option<Timestamp> {
        (self.climb[k] > 0.0).then_some(self.start[k])
    }
}
