//! Turns away what is too much from one client address: 429.
//!
//! An IPv6 client has a whole /64 to itself, so that is what counts as its address. How many are
//! remembered, and what the others get, is [`Limiter`](crate::snapshot::limiter::Limiter)'s matter.
//! The limits of single routes are another: they are asked once the route is known.

use crate::telemetry::edge::EdgeRefusal;

use super::{Arrival, Rule};

/// Turns away what is too much from one client address.
#[derive(Clone, Copy, Debug)]
pub struct RateLimit;

impl Rule for RateLimit {
    fn admit<B>(&self, arrival: &mut Arrival<B>) -> Result<(), EdgeRefusal> {
        if let Some(limit) = &arrival.view.snapshot.routing.edge.rate_limit
            && !arrival.is_refused()
        {
            let now = arrival.local.worker.clock.uptime();
            let limiter = &arrival.local.shared.rate_limiter;
            // No rate is below one a second, so a second is what every refusal may say.
            let admitted = limiter.admit(arrival.client().into(), limit, now);
            return admitted.map_err(|_| EdgeRefusal::RateLimited);
        }
        Ok(())
    }
}
