//! The answer's body on its way to the client, and the one report of how it ended.
//!
//! A request's outcome is known when its answer's last byte is handed on, or when that can no
//! longer happen. So the record travels with the body: ended, broken off, or dropped because the
//! client went away, exactly one of these is booked.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};

use crate::policy::class::Class;
use crate::snapshot::route_limits::Place;
use crate::telemetry::edge::EdgeRefusal;
use crate::upstream::deadline::Deadline;
use crate::upstream::endpoint::PendingGuard;
use crate::upstream::exchange::Exchange;
use crate::upstream::http1::decode::Decoder;
use crate::upstream::http1::exchange::{BodyPart, Truncated};
use crate::upstream::names::GRPC_STATUS;
use crate::upstream::pool::Pool;

use super::attempt::Answer;
use super::flights::{Slot, Subject};
use super::leash::Leash;
use super::tunnel::Tunnel;
use super::worker::Worker;

/// The outcome of one request, booked exactly once.
#[derive(Debug)]
pub struct Record {
    worker: Rc<Worker>,
    slot: Slot,
    started: Instant,
    /// What the head promised; the trailers may break the promise.
    class: Class,
    /// How old the request was then.
    first_byte: Duration,
}

impl Record {
    /// A request begins.
    pub fn begin(worker: &Rc<Worker>, subject: Subject, started: Instant) -> Self {
        Self {
            slot: worker.flights.add(subject, started),
            worker: Rc::clone(worker),
            started,
            class: Class::Cancelled,
            first_byte: Duration::ZERO,
        }
    }

    /// The arm has begun to answer.
    pub fn first_byte(&mut self, class: Class) {
        self.class = class;
        self.first_byte = self.started.elapsed();
        let age = self.first_byte;
        self.worker.flights.first_byte(self.slot, age, class);
    }

    /// The arm failed; whatever the client gets now comes from elsewhere.
    pub fn failed(self, class: Class) {
        let age = self.started.elapsed();
        self.worker.flights.failed(self.slot, age, class);
    }

    /// The arm has switched protocols: that was its answer, whole and in time, and what follows
    /// is none.
    pub fn switched(self) {
        self.cut_short();
    }

    /// The arm was not tried: this request says nothing about it.
    pub fn dismiss(self) {
        self.worker.flights.dismiss(self.slot);
    }

    /// All of the answer came with its head, which is not long ago: asking for the time again would
    /// cost 40 ns.
    fn finished_at_once(self) {
        let flights = &self.worker.flights;
        flights.finished(self.slot, self.first_byte, self.class);
    }

    fn finished(self, trailers: Option<&HeaderMap>) {
        let status = trailers.and_then(|trailers| trailers.get(&GRPC_STATUS));
        let class = grpc_class(status.map(HeaderValue::as_bytes)).unwrap_or(self.class);
        let age = self.started.elapsed();
        self.worker.flights.finished(self.slot, age, class);
    }

    fn truncated(self) {
        let age = self.started.elapsed();
        self.worker.flights.truncated(self.slot, age);
    }

    fn cut_short(self) {
        let age = self.started.elapsed();
        self.worker.flights.cut_short(self.slot, age);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.worker.flights.remove(self.slot);
    }
}

/// The class of a gRPC answer, from the value of the field that carries its status, if there is one.
pub fn grpc_class(status: Option<&[u8]>) -> Option<Class> {
    grpc_code(status).map(Class::of_grpc)
}

/// The gRPC status code that such a field's value is; one that is no number is UNKNOWN.
pub fn grpc_code(status: Option<&[u8]>) -> Option<u32> {
    let code = std::str::from_utf8(status?).ok();
    let code = code.and_then(|text| text.parse().ok());
    Some(code.unwrap_or(2))
}

/// Why the rest of an answer does not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CutOff {
    /// Its upstream broke off, or a decision ended it.
    #[error("the answer broke off")]
    Truncated,
    /// Its client broke off the request that it answers, or does not go on with it.
    #[error("the client did not deliver all of its request")]
    ClientGone,
}

/// The body of an answer to a client.
#[derive(Debug)]
pub struct ResponseBody {
    source: Source,
    /// The request's place on its route, where the route counts them.
    place: Option<Place>,
}

#[derive(Debug)]
enum Source {
    /// All of it is here.
    Whole {
        content: Bytes,
        record: Option<Record>,
    },
    /// It is read from the upstream as the client takes it.
    Streaming(Box<Streaming>),
    /// There is none: another protocol follows the head.
    Switched(Box<Tunnel>),
    /// Nothing is left.
    Ended,
}

#[derive(Debug)]
struct Streaming {
    exchange: Exchange,
    decoder: Decoder,
    is_persistent: bool,
    pool: Rc<Pool>,
    _pending: PendingGuard,
    deadline: Deadline,
    idle: Duration,
    /// Where the upstream was found to have nothing more at present: how much of the request it had
    /// been sent by then.
    waiting: Option<u64>,
    record: Option<Record>,
    /// Of an answer of `new` that obeys the share.
    leash: Option<Leash>,
    /// Counts a request's body that is too long, where that has a limit.
    limited_by: Option<Rc<Worker>>,
}

impl From<Source> for ResponseBody {
    fn from(source: Source) -> Self {
        Self {
            source,
            place: None,
        }
    }
}

impl ResponseBody {
    /// A body of the proxy's own.
    pub fn own(content: impl Into<Bytes>) -> Self {
        Self::from(Source::Whole {
            content: content.into(),
            record: None,
        })
    }

    /// What stands in for a body where the connection switches protocols.
    pub fn switched(tunnel: Tunnel) -> Self {
        Self::from(Source::Switched(Box::new(tunnel)))
    }

    /// What the connection is to become after the head, if it switches protocols.
    pub fn take_tunnel(&mut self) -> Option<Box<Tunnel>> {
        match std::mem::replace(&mut self.source, Source::Ended) {
            Source::Switched(tunnel) => Some(tunnel),
            other => {
                self.source = other;
                None
            }
        }
    }

    /// Holds a request's place until the answer has ended.
    pub fn hold(&mut self, place: Option<Place>) {
        self.place = place;
    }

    /// The body of an upstream's answer.
    pub fn of_answer(
        answer: Answer,
        worker: &Rc<Worker>,
        deadline: &Deadline,
        record: Option<Record>,
        leash: Option<Leash>,
    ) -> Self {
        let Answer {
            head,
            mut exchange,
            pool,
            pending,
            idle,
        } = answer;
        let mut decoder = head.body;
        let Some(content) = exchange.take_whole_body(&mut decoder) else {
            let deadline = deadline.renewed();
            let is_limited = exchange.body_mut().is_limited();
            return Self::from(Source::Streaming(Box::new(Streaming {
                limited_by: is_limited.then(|| Rc::clone(worker)),
                exchange,
                decoder,
                is_persistent: head.persistent,
                pool,
                _pending: pending,
                deadline,
                idle,
                waiting: None,
                record,
                leash,
            })));
        };
        // The connection is free before the client has read a byte.
        give_back(&pool, exchange, head.persistent, deadline);
        if content.is_empty() {
            // Nobody polls an empty body.
            if let Some(record) = record {
                record.finished_at_once();
            }
            return Self::from(Source::Ended);
        }
        Self::from(Source::Whole { content, record })
    }

    /// Leaves out a body that is all here, as an answer to HEAD must; its length, if there is one.
    pub fn leave_out(&mut self) -> Option<usize> {
        let Source::Whole { content, .. } = &self.source else {
            return None;
        };
        let length = content.len();
        self.source = Source::Ended;
        Some(length)
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        match std::mem::replace(&mut self.source, Source::Ended) {
            Source::Switched(_) | Source::Ended => Poll::Ready(None),
            Source::Whole { content, record } => {
                if let Some(record) = record {
                    record.finished_at_once();
                }
                Poll::Ready((!content.is_empty()).then(|| Ok(Frame::data(content))))
            }
            Source::Streaming(mut streaming) => {
                let Poll::Ready(part) = streaming.poll(cx) else {
                    self.source = Source::Streaming(streaming);
                    return Poll::Pending;
                };
                match part {
                    Ok(BodyPart::Data(data)) if streaming.decoder.is_ended() => {
                        streaming.finish(None);
                        Poll::Ready(Some(Ok(Frame::data(data))))
                    }
                    Ok(BodyPart::Data(data)) => {
                        self.source = Source::Streaming(streaming);
                        Poll::Ready(Some(Ok(Frame::data(data))))
                    }
                    Ok(BodyPart::Trailers(trailers)) => {
                        streaming.finish(Some(&trailers));
                        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
                    }
                    Ok(BodyPart::End) => {
                        streaming.finish(None);
                        Poll::Ready(None)
                    }
                    Err(cut_off) => {
                        streaming.broke_off(cut_off);
                        Poll::Ready(Some(Err(cut_off)))
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Switched(_) | Source::Ended => true,
            Source::Whole { content, .. } => content.is_empty(),
            Source::Streaming(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Switched(_) | Source::Ended => SizeHint::with_exact(0),
            Source::Whole { content, .. } => SizeHint::with_exact(content.len() as u64),
            Source::Streaming(streaming) => match streaming.decoder {
                Decoder::Length(length) => SizeHint::with_exact(length),
                _ => SizeHint::default(),
            },
        }
    }
}

impl Streaming {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyPart, CutOff>> {
        if self.leash.as_ref().is_some_and(Leash::is_over) {
            // It ends because of a decision.
            if let Some(record) = self.record.take() {
                record.cut_short();
            }
            return Poll::Ready(Err(CutOff::Truncated));
        }
        match self.exchange.poll_body(cx, &mut self.decoder) {
            Poll::Ready(part) => {
                self.waiting = None;
                Poll::Ready(part.map_err(
                    |Truncated| match self.exchange.body_mut().has_broken_off() {
                        true => CutOff::ClientGone,
                        false => CutOff::Truncated,
                    },
                ))
            }
            Poll::Pending => {
                // The time runs from when the upstream was found wanting. While the client does
                // not read, nobody asks, and the upstream is not to blame. While the request still
                // moves, the upstream may well be waiting for its end.
                let waiting = Some(self.exchange.progress());
                if std::mem::replace(&mut self.waiting, waiting) != waiting {
                    self.deadline.set(self.idle);
                }
                self.deadline.poll_passed(cx).map(|()| {
                    self.exchange.stalled();
                    // Nobody can tell who keeps whom waiting, so the upstream is not blamed.
                    Err(match self.exchange.awaits_client() {
                        true => CutOff::ClientGone,
                        false => CutOff::Truncated,
                    })
                })
            }
        }
    }

    fn broke_off(mut self, cut_off: CutOff) {
        match cut_off {
            CutOff::Truncated => {
                if let Some(record) = self.record {
                    record.truncated();
                }
            }
            // Dropping the record books that it has left.
            CutOff::ClientGone => {
                if self.exchange.body_mut().has_exceeded()
                    && let Some(worker) = &self.limited_by
                {
                    worker.edge.refused(EdgeRefusal::BodyTooLarge);
                }
            }
        }
    }

    fn finish(self, trailers: Option<&HeaderMap>) {
        if let Some(record) = self.record {
            record.finished(trailers);
        }
        give_back(
            &self.pool,
            self.exchange,
            self.is_persistent,
            &self.deadline,
        );
    }
}

/// Returns the connection to its pool if it can carry another request.
fn give_back(pool: &Pool, exchange: Exchange, is_persistent: bool, deadline: &Deadline) {
    if is_persistent && let Some(connection) = exchange.into_reusable() {
        pool.put(connection, deadline.now());
    }
}
