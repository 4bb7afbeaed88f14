//! The request's edge: who is let in, and under which name.
//!
//! A few tower layers around the one service that answers. Outermost first: [`request_id`] gives
//! each request its name, [`trace_context`] looks whose trace it may belong to, [`access`] turns
//! away denied addresses, [`overload`] what is too much at once, [`rate_limit`] what is too much
//! from one address. Whoever is turned away gets a short answer, is counted by reason, and is no
//! evidence about any arm.
//!
//! The mistakes avoided here: a layer that looks for its settings by itself could see another
//! configuration than the next, so the snapshot is looked up once and travels with the request, as
//! an [`Arrival`]. And a layer with a future of its own would wrap the one behind it, which holds
//! thousands of bytes, and move it on every call. So all layers decide on the way in, leave what
//! they decided in the arrival, and hand on the inner future as it is; what is due on the way out
//! is done in one place, [`answer`]. A refused arrival passes the remaining layers, which let it be.
//!
//! Settings are the snapshot's and change with the next request; what counts ([`Shared`]) outlives
//! every reload and belongs to all workers.

pub mod access;
mod entry;
pub mod overload;
pub mod places;
pub mod rate_limit;
pub mod request_id;
pub mod trace_context;

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Version};
use http_body::Body;
use tower::layer::layer_fn;
use tower::{Service, ServiceBuilder, service_fn};

use crate::config::model::Edge;
use crate::message::name::X_REQUEST_ID;
use crate::message::{Request, Response};
use crate::proxy::body::ResponseBody;
use crate::proxy::course::Course;
use crate::proxy::forward;
use crate::proxy::peer::{Caller, Peer};
use crate::proxy::respond;
use crate::proxy::worker::{View, Worker};
use crate::snapshot::limiter::Limiter;
use crate::telemetry::access_log::{AccessLog, Scribe};
use crate::telemetry::edge::EdgeRefusal;
use crate::upstream::http1::excess::ClientBody;
use crate::upstream::inflow::Arriving;

use self::access::Access;
use self::entry::Entry;
use self::overload::{CountedBody, InFlight, Overload, Permit};
use self::places::Places;
use self::rate_limit::RateLimit;
use self::request_id::{Id, RequestId, RequestIds};
use self::trace_context::TraceContext;

/// What the edges of all workers share, and no reload forgets.
#[derive(Debug, Default)]
pub struct Shared {
    in_flight: InFlight,
    places: Places,
    rate_limiter: Limiter,
    access_log: Option<AccessLog>,
}

impl Shared {
    /// With a log that each worker may write to.
    pub fn with_log(access_log: AccessLog) -> Self {
        Self {
            access_log: Some(access_log),
            ..Self::default()
        }
    }

    /// The log, if there is one.
    pub const fn access_log(&self) -> Option<&AccessLog> {
        self.access_log.as_ref()
    }

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
    scribe: Option<Scribe>,
}

/// A request at the edge, with what is known and decided about it.
#[derive(Debug)]
pub struct Arrival<B> {
    request: Request<B>,
    /// The one view of the world that this request sees.
    view: Rc<View>,
    /// Who sends it.
    caller: Caller,
    local: Rc<Local>,
    /// The request's id, once it has one.
    id: Option<Id>,
    /// Why it is turned away, if it is.
    refusal: Option<EdgeRefusal>,
    /// Its place among the requests in flight, once it has one.
    permit: Option<Permit>,
}

impl<B> Arrival<B> {
    /// The client's address.
    fn client(&self) -> IpAddr {
        let trusted = &self.view.snapshot.routing.edge.trusted_proxies;
        self.caller.client(&self.request.head.fields, trusted)
    }

    fn is_refused(&self) -> bool {
        self.refusal.is_some()
    }
}

impl Entrance {
    /// The edge of `worker`.
    pub fn new(worker: Rc<Worker>, shared: Arc<Shared>) -> Self {
        let request_ids = RefCell::new(RequestIds::new(worker.clock.now(), worker.id));
        Self(Rc::new(Local {
            worker,
            scribe: shared.access_log.as_ref().map(AccessLog::scribe),
            shared,
            request_ids,
        }))
    }

    /// Hands on what was written down. To be called every tick.
    pub fn hand_on_log(&self) {
        if let Some(scribe) = &self.0.scribe {
            scribe.hand_on();
        }
    }

    /// The proxy as one connection's service: the edge, and behind it what answers.
    pub fn service(
        &self,
        peer: Peer,
    ) -> impl Service<
        Request<Arriving>,
        Response = Response<CountedBody>,
        Error = Infallible,
        Future = impl Future<Output = Result<Response<CountedBody>, Infallible>> + use<>,
    > + Clone
    + use<> {
        let worker = Rc::clone(&self.0.worker);
        self.around(peer, move |view, caller, request, course| {
            forward::handle(Rc::clone(&worker), view, caller, request, course)
        })
    }

    /// The edge of a connection with `peer` around anything that answers.
    pub fn around<B, H, A>(
        &self,
        peer: Peer,
        handle: H,
    ) -> impl Service<
        Request<B>,
        Response = Response<CountedBody>,
        Error = Infallible,
        Future = impl Future<Output = Result<Response<CountedBody>, Infallible>> + use<B, H, A>,
    > + Clone
    + use<B, H, A>
    where
        B: Body<Data = Bytes> + Unpin + 'static,
        H: Fn(Rc<View>, Caller, Request<B>, Option<Rc<Course>>) -> A + Clone,
        A: Future<Output = Response<ResponseBody>>,
    {
        let layered = ServiceBuilder::new()
            .layer(layer_fn(|next| Gate(RequestId, next)))
            .layer(layer_fn(|next| Gate(TraceContext, next)))
            .layer(layer_fn(|next| Gate(Access, next)))
            .layer(layer_fn(|next| Gate(Overload, next)))
            .layer(layer_fn(|next| Gate(RateLimit, next)))
            .service(service_fn(move |arrival| answer(handle.clone(), arrival)));
        Door {
            local: Rc::clone(&self.0),
            peer,
            layered,
        }
    }
}

/// What is decided about every arrival on its way in.
trait Rule {
    /// Looks at an arrival, and leaves in it what was found and decided.
    ///
    /// # Errors
    /// Why it is turned away. Rules are asked about those, too, that were turned away before.
    fn admit<B>(&self, arrival: &mut Arrival<B>) -> Result<(), EdgeRefusal>;
}

/// A rule, and the service that lies behind it.
#[derive(Clone, Debug)]
struct Gate<R, S>(R, S);

impl<B, R: Rule, S: Service<Arrival<B>>> Service<Arrival<B>> for Gate<R, S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.1.poll_ready(cx)
    }

    fn call(&mut self, mut arrival: Arrival<B>) -> S::Future {
        if let Err(refusal) = self.0.admit(&mut arrival) {
            arrival.refusal = Some(refusal);
        }
        self.1.call(arrival)
    }
}

/// Answers an arrival, and does what the layers left for the way out.
async fn answer<B, H, A>(
    handle: H,
    arrival: Arrival<B>,
) -> Result<Response<CountedBody>, Infallible>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    H: Fn(Rc<View>, Caller, Request<B>, Option<Rc<Course>>) -> A,
    A: Future<Output = Response<ResponseBody>>,
{
    let mut entry = Entry::begin(&arrival);
    let Arrival {
        request,
        view,
        caller,
        local,
        id,
        refusal,
        permit,
        ..
    } = arrival;
    let head = &request.head;
    let wants_no_body = head.method == Method::HEAD && head.version == Version::HTTP_2;
    let mut response = match refusal {
        Some(refusal) => {
            local.worker.edge.refused(refusal);
            let mut response = respond::refused(refusal);
            let unread = ClientBody::new(request.body);
            if !unread.is_end_stream() {
                respond::end_connection(&mut response, request.head.version);
            }
            response
        }
        None => {
            let course = entry.as_ref().map(|entry| entry.course());
            handle(view, caller, request, course).await
        }
    };
    if let Some(entry) = &mut entry {
        entry.answered(&mut response);
    }
    if let Some(id) = id {
        response.fields.insert(&X_REQUEST_ID, id.as_bytes());
    }
    if wants_no_body {
        respond::without_body(&mut response);
    }
    Ok(response.map(|body| CountedBody::new(body, permit, entry)))
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
        let view = self.local.worker.view();
        let edge = &view.snapshot.routing.edge;
        let refusal = excess(&request, edge);
        let caller = Caller::new(self.peer, &edge.trusted_proxies);
        self.layered.call(Arrival {
            request,
            view,
            caller,
            local: Rc::clone(&self.local),
            id: None,
            refusal,
            permit: None,
        })
    }
}

/// Whether a head is larger than it may be. What HTTP/1 and HTTP/2 refuse while they read comes not
/// so far; neither has a limit on the target alone, nor HTTP/2 one on the number of fields.
fn excess<B>(request: &Request<B>, edge: &Edge) -> Option<EdgeRefusal> {
    let target = request.head.uri.path_and_query();
    if target.is_some_and(|target| target.as_str().len() > edge.max_target) {
        return Some(EdgeRefusal::TargetTooLong);
    }
    (request.head.fields.len() > edge.max_fields).then_some(EdgeRefusal::HeadTooLarge)
}

#[cfg(test)]
mod tests;
