//! HTTP/1 towards clients.
//!
//! A connection is one task that reads a head, has it answered, writes the answer, and begins anew.
//! It is ours because it is what each request pays for: a general server allocates a channel for a
//! body that is read by the same task, arms a timer for each head, keeps its buffers while nothing is
//! said, and cannot say 408, nor that a body has broken off to a client of HTTP/1.0.
//!
//! Nothing of a request is kept while a connection rests: [`Connection::converse`] is boxed, and
//! given up with all its buffers when nobody has asked for [`BRIEFLY`]. What is left of a resting
//! connection are its socket and a few words.

mod answer;
mod body;
mod head;
mod presence;
mod sending;
mod wire;

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use http::{StatusCode, Version};
use tokio::io::{AsyncRead, AsyncWrite};
use tower::Service;

use crate::edge::Entrance;
use crate::edge::overload::CountedBody;
use crate::message::{Request, Response};
use crate::proxy::body::ResponseBody;
use crate::proxy::connections::Open;
use crate::proxy::peer::Peer;
use crate::proxy::respond;
use crate::proxy::worker::Worker;
use crate::telemetry::edge::{Closure, EdgeRefusal};
use crate::upstream::deadline::Deadline;
use crate::upstream::inflow::Arriving;

use self::answer::Asked;
use self::body::Shared;
use self::head::{Head, Limits};
use self::presence::Presence;
use self::sending::Sending;
use self::wire::Leave;
use super::last_call::LastCall;
use super::stream::ToClient;

/// How long a connection keeps what a request needs, in case another one follows. To have it made anew
/// costs a microsecond; kept for a second, it makes holes between what rests that stay with us.
const BRIEFLY: Duration = Duration::from_millis(100);
/// Bytes that are read ahead of their turn, while a client is watched.
const READ_AHEAD: usize = 8 * 1024;
/// Bytes of a client thrown away after its last answer: more than is on its way at any moment.
const MOST_DISCARDED: usize = 16 * 1024 * 1024;
/// Time for a client to notice its last answer.
const FAREWELL: Duration = Duration::from_secs(5);

/// What a connection is bound to, as the newest configuration has it.
#[derive(Clone, Copy, Debug)]
struct Terms {
    /// For a head, and for the beginning of one.
    patience: Duration,
    limits: Limits,
    half_close_grace: Duration,
    most_requests: u64,
}

impl Terms {
    /// Kept in place of the view, which would keep a whole snapshot.
    fn of(worker: &Worker) -> Self {
        let view = worker.view();
        let edge = &view.snapshot.routing.edge;
        Self {
            patience: edge.header_timeout,
            limits: Limits {
                bytes: edge.max_head,
                fields: edge.max_fields,
            },
            half_close_grace: edge.half_close_grace,
            most_requests: edge.max_requests_per_connection.unwrap_or(u64::MAX),
        }
    }
}

/// A client's connection, and what answers its requests.
struct Connection<S, V> {
    worker: Rc<Worker>,
    service: V,
    shared: Rc<Shared<S>>,
    terms: Terms,
    worker_ends: WorkerEnds,
    /// Of whatever is waited for at present.
    deadline: Deadline,
    /// Set when the client may have said everything.
    presence: Option<Box<Presence>>,
    answered: u64,
}

/// The end of a connection's worker, and the last call before it.
struct WorkerEnds {
    open: Open,
    /// Begins when the worker drains, and anew behind each answer.
    last_call: LastCall,
}

impl WorkerEnds {
    /// Ready once nothing more is waited for.
    fn poll(&mut self, worker: &Worker, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.open.poll_draining(cx));
        self.last_call.poll_over(&worker.deadlines, cx)
    }
}

/// What became of a while of waiting for a request.
enum Rested {
    /// One begins.
    Asked,
    /// None came yet.
    Silent,
    /// None will come.
    Over,
}

/// How a conversation ended.
enum Conversed {
    /// Nobody has asked for a while.
    Silent,
    /// The connection is to be closed.
    Over,
    /// It becomes another protocol's.
    Switched(Box<CountedBody>),
}

/// Serves a connection until it ends; `read` was read from it already.
///
/// # Errors
/// Those of its socket.
pub(super) fn serve<S>(
    worker: &Rc<Worker>,
    entrance: &Entrance,
    peer: Peer,
    stream: S,
    read: BytesMut,
) -> impl Future<Output = io::Result<()>> + use<S>
where
    S: AsyncRead + AsyncWrite + ToClient + Unpin + std::fmt::Debug + 'static,
{
    let mut connection = Connection {
        service: entrance.service(peer),
        shared: Shared::new(stream, read),
        terms: Terms::of(worker),
        worker_ends: WorkerEnds {
            open: worker.connections.add(),
            last_call: LastCall::default(),
        },
        deadline: worker.deadlines.add(),
        presence: None,
        answered: 0,
        worker: Rc::clone(worker),
    };
    async move {
        loop {
            let patience = match connection.answered {
                0 => connection.terms.patience,
                _ => connection.terms.patience.saturating_sub(BRIEFLY),
            };
            match connection.rest(patience, Room::Borrowed).await? {
                Rested::Asked => {}
                Rested::Silent => {
                    if connection.answered == 0 {
                        connection.worker.edge.closed(Closure::NoRequest);
                    }
                    break;
                }
                Rested::Over => break,
            }
            match Box::pin(connection.converse()).await? {
                Conversed::Silent => connection.shrink(),
                Conversed::Over => break,
                Conversed::Switched(body) => {
                    return Box::pin(pass_through(connection.shared, body)).await;
                }
            }
        }
        Box::pin(connection.part()).await
    }
}

/// Serves a client whose connection has switched protocols; `body` is what came with the 101.
async fn pass_through<S>(shared: Rc<Shared<S>>, mut body: Box<CountedBody>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + ToClient + Unpin,
{
    if let Some(tunnel) = body.take_tunnel()
        && let Some(shared) = Rc::into_inner(shared)
    {
        let mut wire = shared.0.into_inner();
        // What is said there, and when, is no matter of ours.
        wire.stream.stop_watching();
        tunnel.run(wire.stream, wire.input.freeze()).await;
    }
    Ok(())
}

/// Where the first bytes of a request are read into.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    /// The stack's.
    Borrowed,
    /// The connection's.
    Kept,
}

impl<S, V> Connection<S, V>
where
    S: AsyncRead + AsyncWrite + ToClient + Unpin + std::fmt::Debug + 'static,
    V: Service<Request<Arriving>, Response = Response<CountedBody>, Error = Infallible>,
{
    /// Waits for a request to begin.
    async fn rest(&mut self, patience: Duration, room: Room) -> io::Result<Rested> {
        self.deadline.set(patience);
        poll_fn(|cx| {
            let mut wire = self.shared.0.borrow_mut();
            wire.expect_little();
            loop {
                wire.skip_empty_lines();
                if !wire.input.is_empty() {
                    return Poll::Ready(Ok(Rested::Asked));
                }
                let polled = match room {
                    Room::Borrowed => wire.poll_first(cx),
                    Room::Kept => wire.poll_fill(cx),
                };
                match polled {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Ok(Rested::Over)),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => break,
                }
            }
            if self.worker_ends.poll(&self.worker, cx).is_ready() {
                return Poll::Ready(Ok(Rested::Over));
            }
            self.deadline.poll_passed(cx).map(|()| Ok(Rested::Silent))
        })
        .await
    }

    /// Answers one request after the other, as long as they come.
    async fn converse(&mut self) -> io::Result<Conversed> {
        loop {
            self.terms = Terms::of(&self.worker);
            self.presence = None;
            let head = match self.read_head().await? {
                Ok(head) => head,
                Err(Unheard::Gone) => return Ok(Conversed::Over),
                Err(Unheard::Refused(refusal)) => {
                    self.worker.edge.refused(refusal);
                    self.turn_away(respond::refused(refusal)).await?;
                    return Ok(Conversed::Over);
                }
                Err(Unheard::Late) => {
                    self.worker.edge.closed(Closure::NoRequest);
                    self.turn_away(respond::late_head()).await?;
                    return Ok(Conversed::Over);
                }
            };
            let asked = Asked::in_request(&head);
            let request = self.request(head);
            let Some(response) = self.answer_to(request).await else {
                return Ok(Conversed::Over);
            };
            self.answered += 1;
            self.worker_ends.last_call = LastCall::default();
            if response.status == StatusCode::SWITCHING_PROTOCOLS {
                return self.switch(response, asked).await;
            }
            if !self.send(response, asked).await? {
                return Ok(Conversed::Over);
            }
            let patience = self.terms.patience.min(BRIEFLY);
            match self.rest(patience, Room::Kept).await? {
                Rested::Asked => {}
                Rested::Silent => return Ok(Conversed::Silent),
                Rested::Over => return Ok(Conversed::Over),
            }
        }
    }

    /// Reads a head, within its time.
    async fn read_head(&mut self) -> io::Result<Result<Head, Unheard>> {
        let mut is_timed = false;
        poll_fn(|cx| {
            let wire = &mut *self.shared.0.borrow_mut();
            loop {
                match head::parse(&mut wire.input, self.terms.limits) {
                    Ok(Some(head)) => return Poll::Ready(Ok(Ok(head))),
                    Ok(None) => {}
                    Err(refusal) => return Poll::Ready(Ok(Err(Unheard::Refused(refusal)))),
                }
                // The usual head comes whole, and needs no time.
                if !std::mem::replace(&mut is_timed, true) {
                    self.deadline.set(self.terms.patience);
                }
                loop {
                    match wire.poll_fill(cx) {
                        Poll::Ready(Ok(0)) => return Poll::Ready(Ok(Err(Unheard::Gone))),
                        Poll::Ready(Ok(count)) => {
                            // A head ends with a line's end; without a new one there is nothing to
                            // parse, which keeps a client that trickles bytes from costing quadratic
                            // time.
                            let news = &wire.input[wire.input.len() - count..];
                            if news.contains(&b'\n') || wire.input.len() > self.terms.limits.bytes {
                                break;
                            }
                        }
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending if self.worker_ends.poll(&self.worker, cx).is_ready() => {
                            return Poll::Ready(Ok(Err(Unheard::Gone)));
                        }
                        Poll::Pending => {
                            let late = self.deadline.poll_passed(cx);
                            return late.map(|()| Ok(Err(Unheard::Late)));
                        }
                    }
                }
            }
        })
        .await
    }

    fn request(&self, head: Head) -> Request<Arriving> {
        let mut wire = self.shared.0.borrow_mut();
        wire.takes_foreword = head.request.version >= Version::HTTP_11;
        wire.decoder = head.body;
        wire.leave = match head.awaits_leave {
            true => Leave::Awaited,
            false => Leave::Given,
        };
        Request {
            head: head.request,
            body: Arriving::Http1(Rc::clone(&self.shared) as Rc<_>),
        }
    }

    /// Has a request answered; nothing if the client does not wait for that.
    async fn answer_to(&mut self, request: Request<Arriving>) -> Option<Response<CountedBody>> {
        let mut answer = pin!(self.service.call(request));
        poll_fn(|cx| {
            if let Poll::Ready(Ok(response)) = answer.as_mut().poll(cx) {
                return Poll::Ready(Some(response));
            }
            self.poll_gone(cx).map(|()| None)
        })
        .await
    }

    /// Ready once the client has left that waits for its answer.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let wire = &mut *self.shared.0.borrow_mut();
        if wire.has_failed {
            return Poll::Ready(());
        }
        while !wire.is_ended {
            // Whoever reads the body may notice, but not while its upstream takes nothing of it; and
            // whoever has asked for much ahead is read no further.
            if !wire.is_body_read() || wire.input.len() >= READ_AHEAD {
                break;
            }
            wire.expect_little();
            match wire.poll_fill(cx) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        let presence = self.presence.get_or_insert_with(|| {
            wire.has_moved = false;
            let has_said_all = wire.is_ended || wire.stream.has_said_all();
            let grace = self.terms.half_close_grace;
            Box::new(Presence::new(&self.worker.deadlines, grace, has_said_all))
        });
        presence.poll_gone(cx, &wire.stream, wire.is_ended, &mut wire.has_moved)
    }

    /// Sends an answer. Whether the connection goes on behind it.
    async fn send(&mut self, response: Response<CountedBody>, asked: Asked) -> io::Result<bool> {
        let asked = self.and_may_go_on(asked);
        let mut sending = Sending::begin(&self.worker, &self.shared, response, asked);
        let sent = poll_fn(|cx| {
            let polled = sending.poll(cx, &self.shared);
            if polled.is_ready() || !sending.awaits_upstream() {
                return polled;
            }
            let gone = self.poll_gone(cx);
            gone.map(|()| Err(io::ErrorKind::ConnectionAborted.into()))
        })
        .await;
        if let Err(error) = sent {
            if sending.ends_with_connection() {
                // An end would pass for the answer's.
                self.shared.0.borrow().stream.reset_when_closed();
            }
            return Err(error);
        }
        let is_last = sending.is_last();
        drop(sending);
        // Where it was not read to its end, its answer has said that it is the last.
        Ok(!is_last && self.shared.0.borrow().is_body_read())
    }

    /// Whether a client that wants to go on may.
    fn and_may_go_on(&self, asked: Asked) -> Asked {
        let is_last =
            self.worker.connections.is_leaving() || self.answered >= self.terms.most_requests;
        Asked {
            is_persistent: asked.is_persistent && !is_last,
            ..asked
        }
    }

    /// Hands the connection on behind a 101.
    async fn switch(
        &mut self,
        mut response: Response<CountedBody>,
        asked: Asked,
    ) -> io::Result<Conversed> {
        let body = response.body.take();
        let mut sending = Sending::begin(&self.worker, &self.shared, response, asked);
        poll_fn(|cx| sending.poll(cx, &self.shared)).await?;
        Ok(Conversed::Switched(Box::new(body)))
    }

    /// Turns away what is no request.
    async fn turn_away(&mut self, response: Response<ResponseBody>) -> io::Result<()> {
        let response = response.map(CountedBody::uncounted);
        let asked = Asked::in_vain();
        // Nobody knows where what follows belongs to.
        self.shared.0.borrow_mut().is_lost = true;
        self.send(response, asked).await?;
        Ok(())
    }

    /// Says that nothing more will come, and reads what the client still sends.
    ///
    /// A connection that is closed with unread bytes on it is reset, and a reset can overtake the
    /// answer before it. So what still comes is thrown away, within bounds: a client that reads will
    /// have stopped by then, and one that never stops is not waited for.
    async fn part(&mut self) -> io::Result<()> {
        self.deadline.set(FAREWELL);
        let mut left = MOST_DISCARDED;
        let mut is_shut = false;
        let mut is_more_due = {
            let wire = self.shared.0.borrow();
            let is_more_due = !wire.is_body_read() || !wire.input.is_empty();
            if !is_more_due && wire.stream.may_be_dropped() {
                return Ok(());
            }
            is_more_due
        };
        poll_fn(|cx| {
            let wire = &mut *self.shared.0.borrow_mut();
            if !is_shut {
                match Pin::new(&mut wire.stream).poll_shutdown(cx) {
                    Poll::Ready(Ok(())) => is_shut = true,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return self.deadline.poll_passed(cx).map(Ok),
                }
            }
            wire.expect_little();
            loop {
                is_more_due |= !wire.input.is_empty();
                let Some(rest) = left.checked_sub(wire.input.len()) else {
                    return Poll::Ready(Ok(()));
                };
                left = rest;
                wire.input.clear();
                match wire.poll_fill(cx) {
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Ok(())),
                    // Whoever has sent nothing behind its request is not waited for.
                    Poll::Pending if !is_more_due => return Poll::Ready(Ok(())),
                    Poll::Pending => return self.deadline.poll_passed(cx).map(Ok),
                }
            }
        })
        .await
    }

    fn shrink(&mut self) {
        self.shared.0.borrow_mut().shrink();
    }
}

/// Why there is no head.
enum Unheard {
    /// The client has left.
    Gone,
    /// What came is none.
    Refused(EdgeRefusal),
    /// It came too slowly.
    Late,
}
