//! What one window says about a hypothesis, as log e-factors.
//!
//! A failure rate compared with a limit is either slow (wait for enough requests) or wrong (three
//! bad ones out of four are 75 %). A likelihood ratio is neither: each request multiplies the
//! evidence by what it is worth, and the factor's expectation is at most 1 while nothing is wrong,
//! however often one looks. How bad "bad" is cannot be known beforehand, so every kernel returns
//! one factor per alternative of a fixed grid.

use serde::{Deserialize, Serialize};

use super::window::Pair;

/// Alternatives, as odds ratios to the limit: from half as bad again to almost every request.
pub(super) const ODDS: [f64; ALTERNATIVES] = [1.5, 2.25, 4.0, 8.0, 20.0, 60.0, 300.0];

/// How many alternatives are entertained at once.
pub(super) const ALTERNATIVES: usize = 7;

/// The kernel of an absolute limit: against "each request's risk is at most theta".
///
/// The factor's expectation rises with the risk and is 1 at theta, so the risk may vary from
/// request to request as it likes below theta. The logarithms are taken once, when the limit is
/// configured; a window costs multiplications only.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "f64", into = "f64")]
pub(super) struct BreachKernel {
    theta: f64,
    /// What one event adds to each alternative.
    event: [f64; ALTERNATIVES],
    /// What one request without the event adds, always negative.
    quiet: [f64; ALTERNATIVES],
}

impl BreachKernel {
    /// The kernel of the limit `theta`, a share of requests. Shares of exactly none or all have no
    /// odds, so they are moved inwards by a trifle.
    pub(super) fn new(theta: f64) -> Self {
        let theta = theta.clamp(1e-9, 1.0 - 1e-9);
        let alternatives = ODDS.map(|ratio| odds(theta, ratio));
        Self {
            theta,
            event: alternatives.map(|risk| (risk / theta).ln()),
            quiet: alternatives.map(|risk| ((1.0 - risk) / (1.0 - theta)).ln()),
        }
    }

    /// The share of requests that is allowed.
    pub(super) const fn theta(&self) -> f64 {
        self.theta
    }

    /// The log factors of one window.
    pub(super) fn log_factors(&self, counts: Pair) -> [f64; ALTERNATIVES] {
        let events = counts.e as f64;
        let quiet = counts.n.saturating_sub(counts.e) as f64;
        std::array::from_fn(|k| events * self.event[k] + quiet * self.quiet[k])
    }
}

impl From<f64> for BreachKernel {
    fn from(theta: f64) -> Self {
        Self::new(theta)
    }
}

impl From<BreachKernel> for f64 {
    fn from(kernel: BreachKernel) -> Self {
        kernel.theta
    }
}

/// The risk whose odds are `ratio` times those of `risk`.
fn odds(risk: f64, ratio: f64) -> f64 {
    ratio * risk / (1.0 - risk + ratio * risk)
}
