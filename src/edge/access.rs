//! Turns away clients whose address may not come here: 403.
//!
//! The rule is [`AddressRules`](crate::policy::addresses::AddressRules), flattened at reload; where
//! nothing is listed, the client's address is not even looked up.

use std::convert::Infallible;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::Response;
use tower::{Layer, Service};

use crate::proxy::body::ResponseBody;
use crate::telemetry::edge::EdgeRefusal;

use super::reply::Reply;
use super::{Arrival, Local};

/// Makes [`Access`] services.
#[derive(Clone, Debug)]
pub struct AccessLayer {
    local: Rc<Local>,
}

/// Turns away clients whose address may not come here.
#[derive(Clone, Debug)]
pub struct Access<S> {
    local: Rc<Local>,
    inner: S,
}

impl AccessLayer {
    pub(super) fn new(local: &Rc<Local>) -> Self {
        let local = Rc::clone(local);
        Self { local }
    }
}

impl<S> Layer<S> for AccessLayer {
    type Service = Access<S>;

    fn layer(&self, inner: S) -> Access<S> {
        let local = Rc::clone(&self.local);
        Access { local, inner }
    }
}

impl<B, R, S> Service<Arrival<B>> for Access<S>
where
    S: Service<Arrival<B>, Response = Response<R>, Error = Infallible>,
    R: From<ResponseBody>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Reply<S::Future, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, arrival: Arrival<B>) -> Self::Future {
        let rules = &arrival.view.snapshot.routing.access;
        if !rules.admit_everybody() && !rules.admits(arrival.client()) {
            return Reply::refuse(&self.local.worker, EdgeRefusal::Denied);
        }
        Reply::Passed {
            answer: self.inner.call(arrival),
        }
    }
}
