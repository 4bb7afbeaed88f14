//! One attempt at one backend: an endpoint, a connection, a request, the head of an answer.
//!
//! Within the backend a request gets another chance on another endpoint or connection, but only
//! where that cannot execute it twice: nothing of it was sent, or it is safe and went down a
//! kept-alive connection that the upstream had already closed. Each of the two is forgiven once, and
//! neither uses up the other: a server that is gone must not make the stale connection to its
//! neighbour visible. Where all pools are full it waits for a moment, as the bursts of clients are
//! shorter than their patience. The outcome is that of the last try that took place. What exactly
//! may be tried is said in `chance.rs`.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::StatusCode;

use crate::config::model::{BackendId, Protocol};
use crate::message::name::GRPC_STATUS;
use crate::message::{RequestHead, Response};
use crate::policy::class::{Diversion, Failure};
use crate::policy::fallback::Repetition;
use crate::snapshot::BackendPlan;
use crate::upstream::connect::{Stream, connect};
use crate::upstream::deadline::Deadline;
use crate::upstream::endpoint::PendingGuard;
use crate::upstream::exchange::Exchange;
use crate::upstream::http1::connection::Connection;
use crate::upstream::http1::exchange::{self as http1, ExchangeFailed, HeadOutcome};
use crate::upstream::http1::response::ResponseHead;
use crate::upstream::http1::upload::{Framing, RequestBody};
use crate::upstream::inflow::Inflow;
use crate::upstream::pool::{Freed, Pool};

use super::body::grpc_code;
use super::chance::Chance;
use super::course::Course;
use super::headers::{self, Forwarding};
use super::peer::Caller;
use super::tunnel;
use super::worker::{View, Worker};

/// A request on its way through the proxy.
#[derive(Debug)]
pub struct Call<'request> {
    /// The thread that carries it.
    pub worker: Rc<Worker>,
    /// The one snapshot that it sees.
    pub view: Rc<View>,
    /// Who sends it.
    pub caller: Caller,
    /// Its head.
    pub head: &'request RequestHead,
    /// The one host that it is for.
    pub authority: &'request str,
    /// Whether it may be executed twice.
    pub repetition: Repetition,
    /// Who can be told what precedes an answer.
    pub client: Option<Rc<dyn Inflow>>,
    /// Its one deadline, set for each phase in turn.
    pub deadline: Deadline,
    /// For whoever wants to know what became of it.
    pub course: Option<Rc<Course>>,
}

/// How to try a backend.
#[derive(Clone, Copy, Debug)]
pub struct Try {
    /// Which one.
    pub backend: BackendId,
    /// From the request sent to the first byte of the answer.
    pub first_byte: Duration,
    /// Whether `new` failed on this request before.
    pub is_replay: bool,
    /// Whether somebody else may answer the request again: then an answer that turns out broken in
    /// what is here of it is none.
    pub is_repeatable: bool,
    /// Whether to try an endpoint that is thought unavailable, when all are: there is nowhere else
    /// to go.
    pub is_last_resort: bool,
}

/// An answer whose body is still on its way.
#[derive(Debug)]
pub struct Answer {
    /// The head.
    pub head: ResponseHead,
    /// The connection that the body comes from.
    pub exchange: Exchange,
    /// Where the connection belongs afterwards.
    pub pool: Rc<Pool>,
    /// Counts as a request in flight until dropped.
    pub pending: PendingGuard,
    /// Between two pieces of the body, or of what follows a switch of protocols.
    pub idle: Duration,
}

/// There is no answer.
#[derive(Debug)]
pub enum Unanswered {
    /// The upstream failed.
    Failed {
        /// Why.
        failure: Failure,
        /// Whether any byte of the request may have reached it.
        sent: bool,
        /// For another attempt.
        body: RequestBody,
    },
    /// No endpoint was tried.
    Diverted {
        /// Why not.
        diversion: Diversion,
        /// For another attempt.
        body: RequestBody,
    },
    /// The client stopped delivering its body.
    Client(ClientFault),
}

/// What the client did wrong while its request was being sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientFault {
    /// It broke off.
    Gone,
    /// It took too long.
    Stalled,
    /// The host that it names cannot be asked for over HTTP/2.
    Host,
    /// It sent more than is allowed.
    TooLarge,
}

impl Answer {
    /// Throws the answer away for the sake of another attempt.
    pub fn discard(self, deadline: &Deadline) -> RequestBody {
        let mut decoder = self.head.body;
        let (body, connection) = self.exchange.abandon(&mut decoder);
        if let Some(connection) = connection.filter(|_| self.head.persistent) {
            self.pool.put(connection, deadline.now());
        }
        body
    }
}

impl Call<'_> {
    /// Tries a backend, and a second endpoint or connection of it where that is harmless.
    pub async fn attempt(&self, how: Try, mut body: RequestBody) -> Result<Answer, Unanswered> {
        let _watch = self.course.as_ref().map(Course::watch);
        let plan = self.view.snapshot.routing.backend(how.backend);
        let total = plan.backend.settings.timeouts.total;
        self.deadline.limit(total);
        let chance = Chance::default();
        let Some(index) = self.pick(plan, how, chance) else {
            let diversion = Diversion::NoEndpoint;
            return Err(Unanswered::Diverted { diversion, body });
        };
        let mut next = (index, chance);
        loop {
            let (index, chance) = next;
            let tried = self.try_endpoint(plan, how, index, chance, body).await;
            let (failed, reporter) = match tried {
                Ok(answer) => {
                    self.report_answer(plan, index, &answer);
                    return Ok(answer);
                }
                Err(Unsuccessful::Client(fault)) => return Err(Unanswered::Client(fault)),
                Err(Unsuccessful::NotTried(diversion, unsent)) => {
                    let Some(onward) = self.after_diversion(plan, how, next, diversion) else {
                        return Err(chance.diverted(diversion, unsent));
                    };
                    (next, body) = (onward, unsent);
                    continue;
                }
                Err(Unsuccessful::Failed(failed)) => (failed, Reporter::Us),
                Err(Unsuccessful::Heard(failed)) => (failed, Reporter::Opener),
            };
            let onward = self.after_failure(plan, how, next, &failed);
            self.report_failure(plan, index, &failed, onward.is_some(), reporter);
            let ExchangeFailed { failure, sent, .. } = failed;
            body = failed.body;
            let Some(onward) = onward else {
                return Err(Unanswered::Failed {
                    failure,
                    sent,
                    body,
                });
            };
            next = onward;
            body.rewind();
        }
    }

    async fn try_endpoint(
        &self,
        plan: &BackendPlan,
        how: Try,
        index: usize,
        chance: Chance,
        body: RequestBody,
    ) -> Result<Answer, Unsuccessful> {
        let pool = &self.view.pools(how.backend)[index];
        let timeouts = &plan.backend.settings.timeouts;
        let pending = pool.endpoint().begin();
        let mut exchange = match plan.backend.settings.protocol {
            Protocol::Http1 => {
                let connection = match self.connect(plan, pool, chance).await {
                    Ok(connection) => connection,
                    Err(not_opened) => return Err(not_opened.with(body)),
                };
                Exchange::Http1(self.begin(how, connection, body))
            }
            // Few upstreams speak it, so its future must not weigh on every request's.
            Protocol::Http2 => {
                let beginning = self.begin_stream(plan, pool, how, chance, body);
                Exchange::Http2(Box::pin(beginning).await?)
            }
        };
        let clock = HeadClock {
            first_byte: how.first_byte,
            body_idle: timeouts.body_idle,
            looks_ahead: how.is_repeatable,
        };
        match self.await_head(&mut exchange, clock).await {
            HeadOutcome::Head(head) => Ok(Answer {
                idle: match head.status {
                    StatusCode::SWITCHING_PROTOCOLS => timeouts.upgrade_idle,
                    _ => timeouts.body_idle,
                },
                head,
                exchange,
                pool: Rc::clone(pool),
                pending,
            }),
            HeadOutcome::Failed(failure) => Err(Unsuccessful::Failed(exchange.fail(failure))),
            HeadOutcome::ClientGone => Err(Unsuccessful::Client(ClientFault::Gone)),
            HeadOutcome::ClientStalled => Err(Unsuccessful::Client(ClientFault::Stalled)),
            HeadOutcome::ClientExceeded => Err(Unsuccessful::Client(ClientFault::TooLarge)),
        }
    }

    /// The request on a connection of its own, ready to be sent.
    fn begin(&self, how: Try, mut connection: Connection, body: RequestBody) -> http1::Exchange {
        // Before it may switch, an upstream would have to read a body to its end (RFC 9110 §7.8),
        // which not all do; so there is none, or the offer stays here.
        let upgrade = match body.framing() {
            Framing::None => tunnel::offered(self.head),
            Framing::Length | Framing::Chunked => None,
        };
        let forwarding = Forwarding {
            upgrade: upgrade.as_deref(),
            ..self.forwarding(how, body.framing())
        };
        let head = headers::write_request(connection.take_room(), self.head, forwarding);
        let method = self.head.method.clone();
        http1::Exchange::new(connection, method, upgrade, head, body)
    }

    /// What the upstream is told. Large, so it is made where it is written, and not kept while a
    /// connection is being opened.
    pub(super) fn forwarding(&self, how: Try, framing: Framing) -> Forwarding<'_> {
        let edge = &self.view.snapshot.routing.edge;
        Forwarding {
            caller: &self.caller,
            authority: self.authority,
            framing,
            via: edge.via.as_ref(),
            is_replay: how.is_replay,
            upgrade: None,
        }
    }

    /// A connection that rested, or a new one.
    async fn connect(
        &self,
        plan: &BackendPlan,
        pool: &Pool,
        chance: Chance,
    ) -> Result<Connection, NotOpened> {
        let kept = match chance.stale {
            Some(_) => None,
            None => pool.take(self.worker.deadlines.now()),
        };
        if let Some(connection) = kept {
            plan.attempts.connection_reused(self.worker.id);
            return Ok(connection);
        }
        // Opening is rare and its future large (a handshake); kept elsewhere, it does not weigh on
        // every request's.
        let opening = Box::pin(async {
            let permit = match self.right_to_connect(pool, chance).await? {
                Freed::Right(permit) => permit,
                Freed::Connection(connection) => {
                    plan.attempts.connection_reused(self.worker.id);
                    return Ok(connection);
                }
            };
            let stream = self.open(plan, pool).await?;
            pool.endpoint().set_reachable(true);
            plan.attempts.connection_opened(self.worker.id);
            let now = self.worker.deadlines.now();
            Ok(Connection::new(stream, permit, now))
        });
        opening.await
    }

    /// Opens a connection, within the time that the backend allows for it; the time before its right
    /// came is not the endpoint's fault. Whether one that opens makes the endpoint reachable depends on
    /// what is to be spoken on it, so the caller says that.
    pub(super) async fn open(&self, plan: &BackendPlan, pool: &Pool) -> Result<Stream, NotOpened> {
        let endpoint = pool.endpoint();
        self.deadline.set(plan.backend.settings.timeouts.connect);
        let opening = connect(endpoint, plan.backend.tls.as_ref());
        let opened = within(&self.deadline, opening).await;
        let failure = match opened {
            Some(Ok(stream)) => return Ok(stream),
            Some(Err(failure)) => failure.failure(),
            None => Some(Failure::ConnectTimeout),
        };
        let Some(failure) = failure else {
            return Err(NotOpened::NotTried(Diversion::NoSocket));
        };
        endpoint.set_reachable(false);
        Err(NotOpened::Failed(failure))
    }

    /// Sends the request and waits for the head, each phase with its own time.
    async fn await_head(&self, exchange: &mut Exchange, clock: HeadClock) -> HeadOutcome {
        let mut progress = None;
        poll_fn(|cx| {
            let head = exchange.poll_head(cx, |cx, answer| self.inform(cx, answer));
            if let Poll::Ready(outcome) = head {
                return Poll::Ready(match outcome {
                    HeadOutcome::Head(head) if clock.looks_ahead => {
                        unless_broken(cx, exchange, head)
                    }
                    outcome => outcome,
                });
            }
            let state = (exchange.is_sent_completely(), exchange.progress());
            if progress.replace(state) != Some(state) {
                self.deadline.set(match state {
                    (true, _) => clock.first_byte,
                    (false, _) => clock.body_idle,
                });
            }
            self.deadline.poll_passed(cx).map(|()| {
                if exchange.awaits_client() {
                    HeadOutcome::ClientStalled
                } else {
                    HeadOutcome::Failed(Failure::FirstByteTimeout)
                }
            })
        })
        .await
    }

    /// Passes on what precedes an answer. Whether to go on with its body is between the client and
    /// us, so that one stays; and a switch of protocols is none.
    fn inform(&self, cx: &mut Context<'_>, answer: &Response<()>) {
        if let StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS = answer.status {
            return;
        }
        let is_told = match &self.client {
            Some(client) => client.inform(cx, answer),
            None => false,
        };
        if !is_told {
            self.worker.edge.untold();
        }
    }

    fn report_failure(
        &self,
        plan: &BackendPlan,
        index: usize,
        failed: &ExchangeFailed,
        is_repeated: bool,
        reporter: Reporter,
    ) {
        // A connection that the upstream had closed as idle says nothing about the endpoint.
        if !(failed.stale && is_repeated) {
            plan.attempts.attempt(self.worker.id, Err(failed.failure));
            if reporter == Reporter::Us {
                let now = self.worker.deadlines.now();
                plan.backend.report(index, false, now);
            }
        }
        if is_repeated {
            plan.attempts.retried(self.worker.id);
        }
    }

    fn report_answer(&self, plan: &BackendPlan, index: usize, answer: &Answer) {
        let status = answer.head.status.as_u16();
        let of_grpc = grpc_code(answer.head.fields.get(&GRPC_STATUS)).map(Failure::Grpc);
        let of_grpc = of_grpc.filter(|failure| failure.class().is_error());
        let result = match (of_grpc, status) {
            (Some(failure), _) => Err(failure),
            (None, 500..) => Err(Failure::Status(status)),
            (None, _) => Ok(()),
        };
        plan.attempts.attempt(self.worker.id, result);
        let now = self.worker.deadlines.now();
        plan.backend.report(index, result.is_ok(), now);
    }
}

/// How long the phases before the answer's head may take.
#[derive(Clone, Copy, Debug)]
struct HeadClock {
    first_byte: Duration,
    body_idle: Duration,
    /// Whether a head is taken together with what is here of the body.
    looks_ahead: bool,
}

/// The head of an answer, unless the answer breaks off in what is here of it already. Once the head
/// is handed on, nobody can take it back.
fn unless_broken(cx: &mut Context<'_>, exchange: &mut Exchange, head: ResponseHead) -> HeadOutcome {
    if !exchange.body_mut().is_replayable() {
        return HeadOutcome::Head(head);
    }
    match exchange.look_ahead(cx, &head.body) {
        Ok(()) => HeadOutcome::Head(head),
        Err(failure) => HeadOutcome::Failed(failure),
    }
}

/// How a try ended that brought no answer.
pub(super) enum Unsuccessful {
    Failed(ExchangeFailed),
    /// The connection that somebody else was opening failed, who reports it on the endpoint.
    Heard(ExchangeFailed),
    NotTried(Diversion, RequestBody),
    Client(ClientFault),
}

/// Who reports a failure on the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reporter {
    Us,
    /// Whoever was opening the connection that others waited for.
    Opener,
}

/// Why there is no connection. Nothing was sent.
pub(super) enum NotOpened {
    /// The endpoint was not even asked.
    NotTried(Diversion),
    Failed(Failure),
    /// Somebody else failed to open it.
    Heard(Failure),
}

impl NotOpened {
    pub(super) fn with(self, body: RequestBody) -> Unsuccessful {
        match self {
            NotOpened::NotTried(diversion) => Unsuccessful::NotTried(diversion, body),
            NotOpened::Failed(failure) => Unsuccessful::Failed(unsent(failure, body)),
            NotOpened::Heard(failure) => Unsuccessful::Heard(unsent(failure, body)),
        }
    }
}

const fn unsent(failure: Failure, body: RequestBody) -> ExchangeFailed {
    ExchangeFailed {
        failure,
        sent: false,
        stale: false,
        body,
    }
}

/// What `future` returns, unless the deadline passes first.
pub(super) async fn within<F: Future>(deadline: &Deadline, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => deadline.poll_passed(cx).map(|()| None),
    })
    .await
}
