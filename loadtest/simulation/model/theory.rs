//! What no method can beat.
//!
//! To accept a chance of alpha of a false alarm, any sequential test needs on average
//! ln(1/alpha) / I requests to notice a change, where I is the information that one request carries
//! about it. Detection delays are measured in this unit, so that they mean the same at every rate.

use super::{ALPHA, LIMIT, MARGIN};

/// Below so many requests luck rules, not information.
const LEAST_REQUESTS: f64 = 8.0;

/// The information limit in requests of `new`, for the better of the two error conditions.
pub(crate) fn information_limit(new: f64, legacy: f64, share: f64) -> f64 {
    let nats = (2.0 / ALPHA).ln();
    let absolute = if new > LIMIT {
        nats / divergence(new, LIMIT)
    } else {
        f64::INFINITY
    };
    let compared = nats / compared_information(new, legacy, share);
    absolute.min(compared).max(LEAST_REQUESTS)
}

/// Requests of `new` that any method needs on average to prove that its rate is below `limit`.
pub(crate) fn gate_limit(rate: f64, limit: f64, alpha: f64) -> f64 {
    (1.0 / alpha).ln() / divergence(rate, limit)
}

/// Nats per request of `new` against "at most 1.25 times legacy's rate".
fn compared_information(new: f64, legacy: f64, share: f64) -> f64 {
    let rho = 1.0 + MARGIN;
    if new <= rho * legacy {
        return 0.0;
    }
    let both = share * new + (1.0 - share) * legacy;
    let neither = share * rho * (1.0 - new) + (1.0 - share) * (1.0 - legacy);
    let linear = both * (1.0 + rho) + neither;
    let closest = 2.0 * both / (linear + (linear * linear - 4.0 * rho * both).sqrt());
    let of_new = share * divergence(new, rho * closest);
    let of_legacy = (1.0 - share) * divergence(legacy, closest);
    (of_new + of_legacy) / share
}

/// Of Kullback and Leibler, between two rates.
pub(crate) fn divergence(one: f64, other: f64) -> f64 {
    let part = |one: f64, other: f64| {
        if one <= 0.0 {
            0.0
        } else {
            one * (one / other).ln()
        }
    };
    part(one, other) + part(1.0 - one, 1.0 - other)
}
