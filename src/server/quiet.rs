//! Ends HTTP/2 connections on which nobody asks for anything.
//!
//! hyper limits the time for an HTTP/1 head and has nothing like it for HTTP/2. A client that
//! finishes its TLS handshake and says nothing more, or answers pings for ever, would keep a
//! connection and its place below `max_connections` at no cost. Here a connection is quiet while no
//! request is being answered on it, and may be so as long as an HTTP/1 connection may.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};

use crate::upstream::deadline::{Deadline, Deadlines};

/// Whether anything is being answered on a connection, and when to stop waiting for more.
#[derive(Debug)]
pub(super) struct Quiet {
    answering: Cell<usize>,
    was_asked: Cell<bool>,
    /// Set while nothing is being answered.
    deadline: Deadline,
    patience: Duration,
}

impl Quiet {
    /// A connection begins, quietly.
    pub(super) fn new(deadlines: &Rc<Deadlines>, patience: Duration) -> Rc<Self> {
        let deadline = deadlines.add();
        deadline.set(patience);
        Rc::new(Self {
            answering: Cell::new(0),
            was_asked: Cell::new(false),
            deadline,
            patience,
        })
    }

    /// A request came; it is answered when the guard is dropped.
    pub(super) fn begin(self: &Rc<Self>) -> Answering {
        self.answering.set(self.answering.get() + 1);
        self.was_asked.set(true);
        self.deadline.limit(None);
        Answering(Rc::clone(self))
    }

    /// Ready once it has been quiet for too long.
    pub(super) fn poll_passed(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.deadline.poll_passed(cx)
    }

    /// Gives it this much longer.
    pub(super) fn wait(&self, span: Duration) {
        self.deadline.set(span);
    }

    /// Whether a request ever came.
    pub(super) fn was_asked(&self) -> bool {
        self.was_asked.get()
    }
}

/// A request is being answered, until this is dropped.
#[derive(Debug)]
pub(super) struct Answering(Rc<Quiet>);

impl Drop for Answering {
    fn drop(&mut self) {
        let answering = self.0.answering.get() - 1;
        self.0.answering.set(answering);
        if answering == 0 {
            self.0.deadline.set(self.0.patience);
        }
    }
}

/// An answer's body, which keeps its connection from being quiet.
#[derive(Debug)]
pub(super) struct Answer<B> {
    pub(super) body: B,
    pub(super) _answering: Answering,
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
