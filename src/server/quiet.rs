//! Ends HTTP/2 connections on which nobody asks for anything, or nobody wants the answers.
//!
//! An HTTP/1 connection has a time for each head, and hyper has nothing like it for HTTP/2. A
//! client that finishes its TLS handshake and says nothing more, or answers pings for ever, would
//! keep a connection and its place below `max_connections` at no cost. Here a connection is quiet
//! while no request is being answered on it, and may be so as long as an HTTP/1 connection may.
//!
//! Withdrawing a request costs a client nine bytes, and us a connection to an upstream. The
//! library counts only what is withdrawn before we have seen it; here is counted what was begun
//! for nothing. Clients do withdraw requests (a page is left, a search goes on being typed), but
//! not hundreds, and not most of them; and with gRPC they all do when an upstream is slow, for a
//! deadline that expires is a request withdrawn. So it counts only if it was soon: whoever waits
//! longer holds one of few streams meanwhile, and costs no more than one who waits for the answer.
//!
//! A client that is told to leave may stay until it has taken what was sent to it. hyper leaves the
//! last piece of an answer to the connection, where no window opens by itself. So the time goes on
//! when a request has been answered, told or not, and when it is over so is the connection.
//!
//! Whoever counts the requests also knows when they were as many as `max_requests_per_connection`.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};

use crate::message::Response;
use crate::policy::time::Elapsed;
use crate::upstream::deadline::{Deadline, Deadlines};

use super::http2::spare_memory;
use super::reader::Reader;

/// Requests withdrawn for which a connection is not given up, however many they are of all.
const MAX_ABANDONED: u64 = 200;

/// A request that lasted longer was not begun for nothing. Deadlines of clients are rarely so short.
const SOON: Duration = Duration::from_millis(100);

/// Whether anything is being answered on a connection, and when to stop waiting for more.
#[derive(Debug)]
pub(super) struct Quiet {
    answering: Cell<usize>,
    /// Requests so far.
    asked: Cell<u64>,
    /// Requests that were withdrawn soon, before they had an answer.
    abandoned: Cell<u64>,
    /// Requests after which the client is to connect anew.
    most: u64,
    /// Set while nothing is being answered.
    deadline: Deadline,
    patience: Duration,
}

impl Quiet {
    /// A connection for `most` requests begins, quietly.
    pub(super) fn new(deadlines: &Rc<Deadlines>, patience: Duration, most: u64) -> Rc<Self> {
        let deadline = deadlines.add();
        deadline.set(patience);
        Rc::new(Self {
            answering: Cell::new(0),
            asked: Cell::new(0),
            abandoned: Cell::new(0),
            most,
            deadline,
            patience,
        })
    }

    /// A request came; it is answered when the guard is dropped.
    pub(super) fn begin(self: &Rc<Self>) -> Answering {
        self.answering.set(self.answering.get() + 1);
        self.asked.set(self.asked.get() + 1);
        if !self.is_abused() {
            self.deadline.limit(None);
        }
        Answering {
            quiet: Rc::clone(self),
            begun: self.deadline.now(),
            is_answered: false,
        }
    }

    /// Ready once it has been quiet for too long.
    pub(super) fn poll_passed(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.deadline.poll_passed(cx)
    }

    /// Gives it this much longer.
    pub(super) fn wait(&self, span: Duration) {
        self.deadline.set(span);
    }

    /// The client is told to leave. What was sent to it last may lie in the connection still, where
    /// nobody sees it: so it gets the time for another request, but only `farewell` without any.
    pub(super) fn tell(&self, farewell: Duration) {
        if !self.was_asked() {
            self.wait(farewell);
        } else if self.answering.get() == 0 && !self.is_abused() {
            self.wait(self.patience);
        }
    }

    /// Whether a request ever came.
    pub(super) fn was_asked(&self) -> bool {
        self.asked.get() > 0
    }

    /// Whether as many requests have come as may.
    pub(super) fn is_spent(&self) -> bool {
        self.asked.get() >= self.most
    }

    /// Whether most of many requests were withdrawn soon: no more is waited for.
    pub(super) fn is_abused(&self) -> bool {
        let abandoned = self.abandoned.get();
        abandoned > MAX_ABANDONED && abandoned > self.asked.get() / 2
    }

    fn ended(&self, begun: Elapsed, is_answered: bool) {
        let answering = self.answering.get() - 1;
        self.answering.set(answering);
        let was_abused = self.is_abused();
        if !is_answered && self.deadline.now().since(begun) <= SOON {
            self.abandoned.set(self.abandoned.get() + 1);
        }
        if !self.is_abused() {
            if answering == 0 {
                self.deadline.set(self.patience);
            }
        } else if !was_abused {
            // Once: set again and again, it would never pass.
            self.deadline.set(Duration::ZERO);
        }
    }
}

/// A request is being answered, until this is dropped.
#[derive(Debug)]
pub(super) struct Answering {
    quiet: Rc<Quiet>,
    /// In the worker's coarse time.
    begun: Elapsed,
    is_answered: bool,
}

impl Answering {
    /// It was waited for until there was an answer.
    pub(super) fn is_answered(&mut self) {
        self.is_answered = true;
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.quiet.ended(self.begun, self.is_answered);
    }
}

/// An answer that is waited for, and whose body is an [`Answer`].
///
/// hyper moves this future twice and spawns it. What is large of it lies behind a pointer, for else
/// each await in which it would be wrapped doubled it: to more than 16 KiB, and moving them was 5 % of
/// what a request cost.
#[derive(Debug)]
pub(super) struct Awaited<A> {
    answer: Pin<Box<A>>,
    /// Until it has come.
    guards: Option<(Answering, Rc<Reader>)>,
}

impl<A> Awaited<A> {
    /// `answer` is what `reader` will read.
    pub(super) fn new(answer: A, answering: Answering, reader: Rc<Reader>) -> Self {
        Self {
            answer: Box::pin(answer),
            guards: Some((answering, reader)),
        }
    }
}

impl<A, B, E> Future for Awaited<A>
where
    A: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<http::Response<Answer<B>>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = ready!(self.answer.as_mut().poll(cx))?;
        let (mut answering, reader) = self.guards.take().expect("an answer comes once");
        answering.is_answered();
        let response = response.map(|body| Answer {
            body,
            _answering: answering,
            reader,
        });
        let mut response = response.into();
        spare_memory(&mut response);
        Poll::Ready(Ok(response))
    }
}

/// An answer's body, which keeps its connection from being quiet, and its reader from resting.
#[derive(Debug)]
pub(super) struct Answer<B> {
    body: B,
    _answering: Answering,
    reader: Rc<Reader>,
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.reader.asks_for_more();
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(Some(_))) {
            self.reader.is_given();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
