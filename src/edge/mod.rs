//! The request's edge: who is let in, and under which name.
//!
//! A few tower layers around the one service that answers. Outermost first: [`request_id`] gives
//! each request its name, [`access`] turns away denied addresses, [`overload`] what is too much at
//! once, [`rate_limit`] what is too much from one address. Whoever is turned away gets a short
//! answer, is counted by reason, and is no evidence about any arm.
//!
//! The mistakes avoided here: a layer that looks for its settings by itself could see another
//! configuration than the next, so the snapshot is looked up once and travels with the request, as
//! an [`Arrival`]; and boxed services would cost an allocation per layer, so every layer's future
//! is a concrete type. Settings are the snapshot's and change with the next request; what counts
//! ([`Shared`]) outlives every reload and belongs to all workers.

pub mod access;
pub mod overload;
pub mod rate_limit;
pub mod request_id;

mod reply;

use std::cell::{OnceCell, RefCell};
use std::convert::Infallible;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use tower::{Service, ServiceBuilder};

use crate::proxy::body::ResponseBody;
use crate::proxy::forward;
use crate::proxy::peer::Peer;
use crate::proxy::worker::{View, Worker};

use self::access::AccessLayer;
use self::overload::{CountedBody, InFlight, OverloadLayer};
use self::rate_limit::{RateLimitLayer, RateLimiter};
use self::request_id::{RequestIdLayer, RequestIds};

/// What the edges of all workers share, and no reload forgets.
#[derive(Debug, Default)]
pub struct Shared {
    in_flight: InFlight,
    rate_limiter: RateLimiter,
}

impl Shared {
    /// Requests being answered on all workers.
    pub fn requests_in_flight(&self) -> usize {
        self.in_flight.count()
    }

    /// Client addresses that the rate limit remembers.
    pub fn remembered_addresses(&self) -> usize {
        self.rate_limiter.remembered()
    }

    /// Requests so far whose address could not be remembered, because too many others were.
    pub fn requests_on_common_allowance(&self) -> u64 {
        self.rate_limiter.on_common_allowance()
    }

    /// Forgets addresses that have their whole allowance again. To be called every second or so
    /// with the same clock that the workers have: [`Clock::uptime`](crate::clock::Clock::uptime).
    pub fn sweep(&self, now: Duration) {
        self.rate_limiter.sweep(now);
    }
}

/// The edge of one worker.
#[derive(Clone, Debug)]
pub struct Entrance(Rc<Local>);

#[derive(Debug)]
struct Local {
    worker: Rc<Worker>,
    shared: Arc<Shared>,
    request_ids: RefCell<RequestIds>,
}

/// A request at the edge, with what is known about it.
#[derive(Debug)]
pub struct Arrival<B> {
    /// The request as the client sent it, but for its id.
    pub request: Request<B>,
    /// The one view of the world that this request sees.
    pub view: Rc<View>,
    /// The other end of the connection.
    pub peer: Peer,
    client: OnceCell<IpAddr>,
}

impl<B> Arrival<B> {
    /// The client's address, found when somebody asks for the first time.
    pub fn client(&self) -> IpAddr {
        *self.client.get_or_init(|| {
            let trusted = &self.view.snapshot.routing.edge.trusted_proxies;
            self.peer.client(self.request.headers(), trusted)
        })
    }
}

impl Entrance {
    /// The edge of `worker`.
    pub fn new(worker: Rc<Worker>, shared: Arc<Shared>) -> Self {
        let request_ids = RefCell::new(RequestIds::new(worker.clock.now(), worker.id));
        Self(Rc::new(Local {
            worker,
            shared,
            request_ids,
        }))
    }

    /// The proxy as one connection's service: the edge, and behind it what answers.
    pub fn service(
        &self,
        peer: Peer,
    ) -> impl Service<
        Request<Incoming>,
        Response = Response<CountedBody>,
        Error = Infallible,
        Future = impl Future<Output = Result<Response<CountedBody>, Infallible>> + use<>,
    > + Clone
    + use<> {
        let worker = Rc::clone(&self.0.worker);
        self.around(
            peer,
            tower::service_fn(move |arrival: Arrival<Incoming>| {
                let worker = Rc::clone(&worker);
                async move {
                    let Arrival { request, view, .. } = arrival;
                    Ok(forward::handle(worker, view, peer, request).await)
                }
            }),
        )
    }

    /// The edge of a connection with `peer` around any service.
    pub fn around<B, S>(
        &self,
        peer: Peer,
        service: S,
    ) -> impl Service<
        Request<B>,
        Response = Response<CountedBody>,
        Error = Infallible,
        Future = impl Future<Output = Result<Response<CountedBody>, Infallible>> + use<B, S>,
    > + Clone
    + use<B, S>
    where
        S: Service<Arrival<B>, Response = Response<ResponseBody>, Error = Infallible> + Clone,
    {
        let local = &self.0;
        let layered = ServiceBuilder::new()
            .layer(RequestIdLayer::new(local))
            .layer(AccessLayer::new(local))
            .layer(OverloadLayer::new(local))
            .layer(RateLimitLayer::new(local))
            .service(service);
        Door {
            local: Rc::clone(local),
            peer,
            layered,
        }
    }
}

/// Turns a request into an arrival.
#[derive(Clone, Debug)]
struct Door<S> {
    local: Rc<Local>,
    peer: Peer,
    layered: S,
}

impl<B, S: Service<Arrival<B>>> Service<Request<B>> for Door<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.layered.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> S::Future {
        self.layered.call(Arrival {
            request,
            view: self.local.worker.view(),
            peer: self.peer,
            client: OnceCell::new(),
        })
    }
}

#[cfg(test)]
mod tests;
