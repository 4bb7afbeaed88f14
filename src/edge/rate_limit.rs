//! Turns away what is too much from one client address: 429.
//!
//! An IPv6 client has a whole /64 to itself, so that is what counts as its address. How many are
//! remembered, and what the others get, is [`Limiter`](crate::snapshot::limiter::Limiter)'s matter.
//! The limits of single routes are another: they are asked once the route is known.

use std::task::{Context, Poll};

use tower::Service;

use crate::telemetry::edge::EdgeRefusal;

use super::Arrival;

/// Turns away what is too much from one client address.
#[derive(Clone, Debug)]
pub struct RateLimit<S>(pub S);

impl<B, S: Service<Arrival<B>>> Service<Arrival<B>> for RateLimit<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut arrival: Arrival<B>) -> S::Future {
        if let Some(limit) = &arrival.view.snapshot.routing.edge.rate_limit
            && !arrival.is_refused()
        {
            let now = arrival.local.worker.clock.uptime();
            let limiter = &arrival.local.shared.rate_limiter;
            // No rate is below one a second, so a second is what every refusal may say.
            if limiter.admit(arrival.client().into(), limit, now).is_err() {
                arrival.refuse(EdgeRefusal::RateLimited);
            }
        }
        self.0.call(arrival)
    }
}
