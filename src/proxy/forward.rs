//! The straight line from a request to its answer.
//!
//! Find the route, find the session's arm, try it, and if `new` fails before a byte of its answer has
//! gone to the client, let legacy answer. What is booked where follows one rule: a failure belongs to
//! the arm that was assigned, even when the client never notices it.

use std::rc::Rc;
use std::time::Instant;

use http::{Method, StatusCode, Version};
use http_body::Body;

use crate::config::model::{BackendId, FIRST_BYTE, Protocol, SplitId, Target};
use crate::identity::identify::RequestFacts;
use crate::message::name::{CUTOVER_ARM, GRPC_STATUS, IDEMPOTENCY_KEY, VIA};
use crate::message::{Request, RequestHead, Response};
use crate::policy::arm::Arm;
use crate::policy::class::{Class, Diversion};
use crate::policy::fallback::{Permission, Repetition};
use crate::snapshot::route_limits::{Known, Place, TurnedAway};
use crate::snapshot::{RoutePlan, SplitPlan};
use crate::telemetry::edge::EdgeRefusal;
use crate::upstream::exchange::Exchange;
use crate::upstream::http1::excess::ClientBody;
use crate::upstream::http1::upload::RequestBody;
use crate::upstream::inflow::Arriving;
use crate::upstream::watch::{self, Watch};

use super::attempt::{Answer, Call, ClientFault, Try, Unanswered};
use super::body::{Record, ResponseBody, grpc_class};
use super::course::Course;
use super::flights::Subject;
use super::headers;
use super::issue::issue;
use super::leash::Leash;
use super::peer::Caller;
use super::respond;
use super::strict;
use super::trial::Trial;
use super::tunnel::Tunnel;
use super::worker::{View, Worker};

/// Bytes kept of a request's body where no other backend could answer it.
const KEPT_FOR_ANOTHER_CONNECTION: usize = 64 * 1024;

/// Answers one request, which sees `view` and nothing else, and notes in `course` what became of it.
pub async fn handle(
    worker: Rc<Worker>,
    view: Rc<View>,
    caller: Caller,
    request: Request<Arriving>,
    course: Option<Rc<Course>>,
) -> Response<ResponseBody> {
    let started = Instant::now();
    let Request { head, body } = request;
    let client = body.connection();
    let incoming = ClientBody::new(body);
    let (authority, route) = match find_route(&view, &head, &incoming) {
        Ok(found) => found,
        Err(unfit) => return turn_away(unfit, &worker, &head, incoming),
    };
    let place = match find_place(&worker, &view, &caller, &head, route) {
        Ok(place) => place,
        Err(because) => {
            return turn_away(Unfit::TurnedAway(because), &worker, &head, incoming);
        }
    };
    // Whatever a safe request carries, it may be repeated.
    let has_key = !head.method.is_safe() && head.fields.contains(&IDEMPOTENCY_KEY);
    let call = Call {
        repetition: Repetition::of(&head.method, has_key),
        deadline: worker.deadlines.add(),
        view: Rc::clone(&view),
        worker,
        caller,
        client,
        head: &head,
        authority,
        course,
    };
    let mut response = match route.target {
        Target::Backend(backend) => call.ask_backend(backend, route, incoming).await,
        Target::Split(split) => call.ask_split(split, route, incoming, started).await,
    };
    response.body.hold(place);
    response
}

/// Why a request is turned away before anybody is asked.
enum Unfit {
    /// It can be misunderstood. Whatever follows it was meant for somebody who understood it.
    Misleading(EdgeRefusal),
    /// No route matches it.
    NoRoute,
    /// It announces a body that is larger than its route takes.
    TooLarge,
    /// Its route has enough to do.
    TurnedAway(TurnedAway),
}

/// The host that a request is for, and the route that takes it.
fn find_route<'request>(
    view: &'request View,
    head: &'request RequestHead,
    incoming: &ClientBody,
) -> Result<(&'request str, &'request RoutePlan), Unfit> {
    if head.method == Method::CONNECT {
        return Err(Unfit::Misleading(EdgeRefusal::Connect));
    }
    let length = incoming.size_hint();
    if !strict::is_plain_target(head) || !strict::is_plain_length(head) {
        return Err(Unfit::Misleading(EdgeRefusal::Malformed));
    }
    let authority = headers::authority(head);
    let authority = authority.map_err(|_| Unfit::Misleading(EdgeRefusal::InvalidHost))?;
    let routing = &view.snapshot.routing;
    let path = head.uri.path();
    let found = routing
        .router
        .find(Some(authority), path, &head.method, &head.fields);
    let route = &routing.routes[found.ok_or(Unfit::NoRoute)?.0];
    if length.lower() > route.max_body {
        return Err(Unfit::TooLarge);
    }
    Ok((authority, route))
}

/// A place on a route, where its places are counted.
fn find_place(
    worker: &Worker,
    view: &View,
    caller: &Caller,
    head: &RequestHead,
    route: &RoutePlan,
) -> Result<Option<Place>, TurnedAway> {
    let Some(limits) = &route.limits else {
        return Ok(None);
    };
    let request = Known {
        fields: &head.fields,
        uri: &head.uri,
    };
    let trusted = &view.snapshot.routing.edge.trusted_proxies;
    let client = || caller.client(&head.fields, trusted);
    limits.admit(request, client, worker.clock.uptime())
}

/// Answers a request that nobody is asked about.
fn turn_away(
    unfit: Unfit,
    worker: &Worker,
    head: &RequestHead,
    incoming: ClientBody,
) -> Response<ResponseBody> {
    let is_unread = !incoming.is_end_stream();
    let ours = |refusal| (refusal, respond::refused(refusal));
    let ((refusal, mut response), is_last) = match unfit {
        Unfit::Misleading(refusal) => (ours(refusal), true),
        Unfit::NoRoute => (ours(EdgeRefusal::NoRoute), is_unread),
        Unfit::TooLarge => {
            incoming.discard();
            (ours(EdgeRefusal::BodyTooLarge), true)
        }
        Unfit::TurnedAway(because) => (respond::turned_away(because), is_unread),
    };
    worker.edge.refused(refusal);
    if is_last {
        respond::end_connection(&mut response, head.version);
    }
    response
}

impl Call<'_> {
    async fn ask_backend(
        &self,
        backend: BackendId,
        route: &RoutePlan,
        incoming: ClientBody,
    ) -> Response<ResponseBody> {
        let plan = self.view.snapshot.routing.backend(backend);
        // An upstream that says goodbye over HTTP/2 refuses requests, and those are to be sent again.
        let limit = match plan.backend.settings.protocol {
            Protocol::Http1 => 0,
            Protocol::Http2 => KEPT_FOR_ANOTHER_CONNECTION,
        };
        let body = self.body(incoming, limit, route.max_body);
        match self.attempt(self.try_without_fallback(backend), body).await {
            Ok(answer) => self.pass(answer, None, None),
            Err(unanswered) => self.give_up(&unanswered),
        }
    }

    async fn ask_split(
        &self,
        id: SplitId,
        route: &RoutePlan,
        incoming: ClientBody,
        started: Instant,
    ) -> Response<ResponseBody> {
        let snapshot = &self.view.snapshot;
        let split = snapshot.routing.split(id);
        let standing = snapshot.standing(id);
        let trusted = &snapshot.routing.edge.trusted_proxies;
        let now = self.worker.clock.at(self.worker.deadlines.now());
        let identified = split.identifier.identify(RequestFacts {
            fields: &self.head.fields,
            uri: &self.head.uri,
            client: self.caller.client(&self.head.fields, trusted),
            secure: self.caller.is_secure(&self.head.fields),
            share: standing.share,
            emergency: standing.emergency,
            now_seconds: now.seconds(),
        });
        if identified.unverifiable_token {
            split.tally.unverifiable_token(self.worker.id);
        }
        let assignment = identified.assignment;
        if let Some(course) = &self.course {
            course.assign(id, assignment.arm);
        }
        let cluster = assignment.cluster.filter(|_| assignment.is_evidence());
        let subject = Subject {
            view: Rc::clone(&self.view),
            worker: self.worker.id,
            split: id,
            arm: assignment.arm,
            cluster,
        };
        let record = Record::begin(&self.worker, subject, started);
        let kept = split.fallback.body_limit;
        let body = self.body(incoming, kept, route.max_body);
        let mut response = match assignment.arm {
            Arm::Legacy => self.ask_legacy(split, body, record).await,
            Arm::New => {
                let trial = Trial {
                    permission: Permission {
                        enabled: split.fallback.enabled && route.fallback,
                        repetition: self.repetition,
                        shared_state: split.shared_state,
                    },
                    id,
                    split,
                    cluster,
                    call: self,
                };
                trial.run(body, record).await
            }
        };
        if let Some(cookie) = identified.issued_cookie {
            issue(&mut response.fields, &cookie);
        }
        response
    }

    /// The request's body, of which up to `limit` bytes are kept for another attempt, and which
    /// breaks off after `most` if it does not say how long it is.
    fn body(&self, incoming: ClientBody, limit: usize, most: u64) -> RequestBody {
        let mut body = RequestBody::incoming(incoming, self.head, limit, most);
        if let Some(rate) = self.view.snapshot.routing.edge.min_rate {
            body.watched(|| Watch::new(rate, watch::SPAN, self.worker.deadlines.add()));
        }
        body
    }

    async fn ask_legacy(
        &self,
        split: &SplitPlan,
        body: RequestBody,
        mut record: Record,
    ) -> Response<ResponseBody> {
        let how = self.try_without_fallback(split.arms.legacy);
        let mut response = match self.attempt(how, body).await {
            Ok(answer) => {
                record.first_byte(class_of(&answer));
                self.pass(answer, Some(record), None)
            }
            Err(unanswered) => {
                book(&unanswered, record);
                self.give_up(&unanswered)
            }
        };
        if split.response_headers {
            name_arm(&mut response, Arm::Legacy);
        }
        response
    }

    /// How to try a backend that nobody can stand in for.
    pub fn try_without_fallback(&self, backend: BackendId) -> Try {
        let plan = self.view.snapshot.routing.backend(backend);
        let timeouts = &plan.backend.settings.timeouts;
        Try {
            backend,
            first_byte: timeouts.first_byte.unwrap_or(FIRST_BYTE),
            is_replay: false,
            is_repeatable: false,
            is_last_resort: true,
        }
    }

    /// Hands an upstream's answer on.
    pub fn pass(
        &self,
        mut answer: Answer,
        record: Option<Record>,
        leash: Option<Leash>,
    ) -> Response<ResponseBody> {
        if answer.head.status == StatusCode::SWITCHING_PROTOCOLS {
            return self.switch(answer, record, leash);
        }
        // This answer stands; what is still being uploaded need not be kept.
        answer.exchange.body_mut().is_answered();
        let is_read = answer.exchange.body_mut().is_read();
        let mut fields = std::mem::take(&mut answer.head.fields);
        let status = answer.head.status;
        let came_in = match answer.exchange {
            Exchange::Http1(_) => Version::HTTP_11,
            Exchange::Http2(_) => Version::HTTP_2,
        };
        if let Some(via) = &self.view.snapshot.routing.edge.via {
            fields.append(&VIA, via.of(came_in).as_bytes());
        }
        let body = ResponseBody::of_answer(answer, &self.worker, &self.deadline, record, leash);
        let mut response = Response {
            status,
            fields,
            body,
        };
        if !is_read {
            respond::end_connection(&mut response, self.head.version);
        }
        response
    }

    /// Hands on that the upstream switches protocols, and leaves its connection where the client's
    /// will be found.
    fn switch(
        &self,
        mut answer: Answer,
        record: Option<Record>,
        leash: Option<Leash>,
    ) -> Response<ResponseBody> {
        if let Some(record) = record {
            record.switched();
        }
        let fields = std::mem::take(&mut answer.head.fields);
        let tunnel = Tunnel::new(answer, &self.worker, leash);
        Response {
            status: StatusCode::SWITCHING_PROTOCOLS,
            fields,
            body: ResponseBody::switched(tunnel),
        }
    }

    /// Answers for an upstream that did not.
    pub fn give_up(&self, unanswered: &Unanswered) -> Response<ResponseBody> {
        // No arm is to blame for these, so nobody else counts them.
        let refusal = match unanswered {
            Unanswered::Client(ClientFault::Stalled) => Some(EdgeRefusal::ClientTimeout),
            Unanswered::Client(ClientFault::Host) => Some(EdgeRefusal::InvalidHost),
            Unanswered::Client(ClientFault::TooLarge) => Some(EdgeRefusal::BodyTooLarge),
            Unanswered::Diverted { diversion, .. } => match diversion {
                Diversion::PoolFull => Some(EdgeRefusal::PoolFull),
                Diversion::NoSocket => Some(EdgeRefusal::NoSocket),
                Diversion::NoEndpoint | Diversion::Breaker => None,
            },
            _ => None,
        };
        if let Some(refusal) = refusal {
            self.worker.edge.refused(refusal);
        }
        let mut response = respond::unanswered(unanswered);
        let is_read = match unanswered {
            Unanswered::Failed { body, .. } | Unanswered::Diverted { body, .. } => body.is_read(),
            Unanswered::Client(_) => false,
        };
        if !is_read {
            respond::end_connection(&mut response, self.head.version);
        }
        response
    }
}

/// Books what became of a request that nobody answered.
pub fn book(unanswered: &Unanswered, record: Record) {
    match unanswered {
        Unanswered::Failed { failure, .. } => record.failed(failure.class()),
        // The proxy had nowhere to send it: no arm's outcome.
        Unanswered::Diverted { .. } => record.dismiss(),
        // Dropping the record books the client's departure.
        Unanswered::Client(_) => {}
    }
}

/// What the head of an answer promises.
pub fn class_of(answer: &Answer) -> Class {
    grpc_class(answer.head.fields.get(&GRPC_STATUS))
        .unwrap_or_else(|| Class::of_status(answer.head.status.as_u16()))
}

/// Says which arm has answered.
pub fn name_arm(response: &mut Response<ResponseBody>, arm: Arm) {
    response
        .fields
        .insert(&CUTOVER_ARM, arm.as_str().as_bytes());
}
