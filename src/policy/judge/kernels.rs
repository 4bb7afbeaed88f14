//! What one window says about a hypothesis, as log e-factors.
//!
//! A failure rate compared with a limit is either slow (wait for enough requests) or wrong (three
//! bad ones out of four are 75 %). A likelihood ratio is neither: each request multiplies the
//! evidence by what it is worth, and the factor's expectation is at most 1 while nothing is wrong,
//! however often one looks. How bad "bad" is cannot be known beforehand, so every kernel returns
//! one factor per alternative of a fixed grid.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::window::Pair;

/// Alternatives of harm, as odds ratios to the limit: from half as bad again to almost every
/// request.
pub(super) const HARM: [f64; ALTERNATIVES] = [1.5, 2.25, 4.0, 8.0, 20.0, 60.0, 300.0];

/// How many degrees of harm are entertained at once.
pub(super) const ALTERNATIVES: usize = 7;

/// Alternatives of health, as odds ratios to the limit.
pub(super) const HEALTH: [f64; DEGREES_OF_HEALTH] = [0.02, 0.3, 0.7];

/// How many degrees of health are entertained at once.
pub(super) const DEGREES_OF_HEALTH: usize = 3;

/// The kernel of an absolute limit, for one grid of alternatives.
///
/// With [`HARM`] it speaks against "each request's risk is at most theta": the factor's expectation
/// rises with the risk and is 1 at theta, so the risk may vary from request to request as it likes
/// below theta. With [`HEALTH`] it speaks against "at least theta", likewise. The logarithms are
/// taken once, when the limit is configured; a window costs multiplications only.
///
/// Stored as theta alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LimitKernel<const K: usize> {
    theta: f64,
    /// What one event adds to each alternative.
    event: [f64; K],
    /// What one request without the event adds.
    quiet: [f64; K],
}

/// Evidence that a limit is broken.
pub(super) type BreachKernel = LimitKernel<ALTERNATIVES>;

/// Evidence that a limit is kept.
pub(super) type GoodKernel = LimitKernel<DEGREES_OF_HEALTH>;

impl BreachKernel {
    /// Against "at most a share `theta` of the requests are events".
    pub(super) fn harm(theta: f64) -> Self {
        Self::new(theta, HARM)
    }
}

impl GoodKernel {
    /// Against "at least a share `theta` of the requests are events".
    pub(super) fn health(theta: f64) -> Self {
        Self::new(theta, HEALTH)
    }
}

impl<const K: usize> LimitKernel<K> {
    /// Shares of exactly none or all have no odds, so they are moved inwards by a trifle.
    fn new(theta: f64, grid: [f64; K]) -> Self {
        let theta = theta.clamp(1e-9, 1.0 - 1e-9);
        let alternatives = grid.map(|ratio| odds(theta, ratio));
        Self {
            theta,
            event: alternatives.map(|risk| (risk / theta).ln()),
            quiet: alternatives.map(|risk| ((1.0 - risk) / (1.0 - theta)).ln()),
        }
    }

    /// The share of requests that the limit allows.
    pub(super) const fn theta(&self) -> f64 {
        self.theta
    }

    /// The log factors of one window.
    pub(super) fn log_factors(&self, counts: Pair) -> [f64; K] {
        let events = counts.e as f64;
        let quiet = counts.n.saturating_sub(counts.e) as f64;
        std::array::from_fn(|k| events * self.event[k] + quiet * self.quiet[k])
    }
}

impl<const K: usize> Serialize for LimitKernel<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.theta.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for BreachKernel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        f64::deserialize(deserializer).map(Self::harm)
    }
}

impl<'de> Deserialize<'de> for GoodKernel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        f64::deserialize(deserializer).map(Self::health)
    }
}

/// Both arms' counts over the same time. To be compared, each arm needs at least one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Contrast {
    pub(super) new: Pair,
    pub(super) legacy: Pair,
}

impl Contrast {
    /// The part of the requests that `new` had.
    fn share_of_new(self) -> f64 {
        let (new, legacy) = (self.new.n as f64, self.legacy.n as f64);
        new / (new + legacy)
    }
}

/// Against "the risk of `new` is at most `rho` times legacy's in this block, whatever it is".
///
/// For each alternative the closest point of the hypothesis in weighted Kullback-Leibler divergence
/// is found; a likelihood ratio against the closest point of a convex hypothesis is an e-value
/// against all of it. So a shared outage and the time of day cancel, and `guess`, what legacy's
/// rate is thought to be from *earlier* blocks, costs power if it is wrong and never validity.
pub(super) fn worse(rho: f64, guess: f64, counts: Contrast) -> [f64; ALTERNATIVES] {
    let share = counts.share_of_new();
    let tolerated = rho * guess;
    let from = tolerated.min(0.999);
    std::array::from_fn(|k| {
        let risk = odds(from, HARM[k]);
        if risk <= tolerated {
            return 0.0;
        }
        let both = share * risk + (1.0 - share) * guess;
        let neither = share * rho * (1.0 - risk) + (1.0 - share) * (1.0 - guess);
        let linear = both * (1.0 + rho) + neither;
        let root = (linear * linear - 4.0 * rho * both).sqrt();
        let closest = 2.0 * both / (linear + root);
        log_ratio(counts.new, risk, rho * closest) + log_ratio(counts.legacy, guess, closest)
    })
}

/// Against "the risk of `new` exceeds legacy's by `margin` or more in this block".
///
/// The closest point of the hypothesis has no closed form here; it is found by halving.
pub(super) fn not_worse(margin: f64, guess: f64, counts: Contrast) -> [f64; DEGREES_OF_HEALTH] {
    let share = counts.share_of_new();
    let risks = [guess, guess / 2.0, guess + margin / 3.0];
    risks.map(|risk| {
        let (mut low, mut high) = (0.0, 1.0 - margin);
        for _ in 0..HALVINGS {
            let legacy = (low + high) / 2.0;
            let new = legacy + margin;
            let slope = share * ((1.0 - risk) / (1.0 - new) - risk / new)
                + (1.0 - share) * ((1.0 - guess) / (1.0 - legacy) - guess / legacy);
            // Between neighbouring numbers there is nothing left to halve.
            if legacy <= low || legacy >= high {
                break;
            }
            if slope < 0.0 {
                low = legacy;
            } else {
                high = legacy;
            }
        }
        let closest = (low + high) / 2.0;
        log_ratio(counts.new, risk, closest + margin) + log_ratio(counts.legacy, guess, closest)
    })
}

const HALVINGS: usize = 80;

/// The risk whose odds are `ratio` times those of `risk`.
fn odds(risk: f64, ratio: f64) -> f64 {
    ratio * risk / (1.0 - risk + ratio * risk)
}

/// The log likelihood ratio of the risks `one` and `other`. What never happened says nothing,
/// whatever its odds.
fn log_ratio(counts: Pair, one: f64, other: f64) -> f64 {
    let events = counts.e as f64;
    let quiet = counts.n.saturating_sub(counts.e) as f64;
    let of_events = if counts.e == 0 {
        0.0
    } else {
        events * (one / other).ln()
    };
    let of_quiet = if counts.n <= counts.e {
        0.0
    } else {
        quiet * ((1.0 - one) / (1.0 - other)).ln()
    };
    of_events + of_quiet
}
