//! Turns away clients whose address may not come here: 403.
//!
//! The rules are [`AddressRules`](crate::policy::addresses::AddressRules), flattened whenever a list
//! changes: what the file allows and denies, and what somebody has denied since. They are asked for
//! each request, so a change meets the connections that are open already and closes none. Where
//! nothing is listed, the client's address is not even looked up.

use std::task::{Context, Poll};

use tower::Service;

use crate::telemetry::edge::EdgeRefusal;

use super::Arrival;

/// Turns away clients whose address may not come here.
#[derive(Clone, Debug)]
pub struct Access<S>(pub S);

impl<B, S: Service<Arrival<B>>> Service<Arrival<B>> for Access<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut arrival: Arrival<B>) -> S::Future {
        let rules = &arrival.view.snapshot.access;
        if !rules.admit_everybody() && !rules.admits(arrival.client()) {
            arrival.refuse(EdgeRefusal::Denied);
        }
        self.0.call(arrival)
    }
}
