//! A client that has said everything: it may be waiting for its answer, or it may have left.
//!
//! TCP says the same in both cases until something is written: a closed socket answers with a reset,
//! one that is closed on one side only takes it. A proxy that believes the worse at once (nginx,
//! Envoy) denies scripts their answers; one that believes the better (HAProxy, as it comes) works on
//! for clients that are gone. Here the end is kept from hyper for a while, as long as a request is
//! being answered: whoever has taken something since is there and may go on, whoever is silent
//! together with the answer for `grace` is taken to have left. A reset always ends the connection
//! at once.
//!
//! Only for HTTP/1: in HTTP/2 a request ends without its connection, and a client that closes that
//! has left.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::upstream::deadline::{Deadline, Deadlines};

use super::last_call::Phase;
use super::patience::{Awaited, Patience};
use super::stream::ToClient;

/// Between two looks at a client that has said everything: how soon its reset is noticed while
/// nothing is written.
const LOOK: Duration = Duration::from_millis(250);

/// How far a connection is with its requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Answering(Rc<Progress>);

#[derive(Debug, Default)]
struct Progress {
    phase: Cell<Phase>,
    /// While nothing is being answered.
    awaited: Cell<Awaited>,
}

impl Answering {
    /// A request came.
    pub(super) fn begin(&self) {
        self.0.phase.set(Phase::Asked);
        self.0.awaited.set(Awaited::Nothing);
    }

    /// The body of its answer; when this is dropped, the request is answered. `is_last` if the
    /// client is told that it is the last one.
    pub(super) fn until_end_of<B>(&self, body: B, is_last: bool) -> Answer<B> {
        if !is_last {
            self.0.phase.set(Phase::Untold);
        }
        Answer {
            body,
            answering: self.clone(),
        }
    }

    /// How far it is.
    pub(super) fn phase(&self) -> Phase {
        self.0.phase.get()
    }

    /// Bytes came: of a head, unless a request is being answered.
    fn hears(&self) {
        if !self.is_answering() {
            let awaited = &self.0.awaited;
            awaited.set(awaited.get().after_bytes());
        }
    }

    /// Whether the client was waited for in vain.
    pub(super) fn is_late(&self) -> bool {
        self.0.awaited.get() == Awaited::NoMore
    }

    /// Whether a request is being answered.
    fn is_answering(&self) -> bool {
        matches!(self.phase(), Phase::Asked | Phase::Untold)
    }
}

/// The body of an answer, with which a request ends.
#[derive(Debug)]
pub(super) struct Answer<B> {
    body: B,
    answering: Answering,
}

impl<B> Drop for Answer<B> {
    fn drop(&mut self) {
        self.answering.0.phase.set(Phase::Rest);
    }
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

/// The stream of a client that is not thought gone at once when it has said everything, nor waited
/// for any longer when it says nothing.
#[derive(Debug)]
pub(super) struct HalfClosing<S> {
    stream: S,
    answering: Answering,
    patience: Patience,
    /// Whether something written may not have left yet.
    is_writing: bool,
    deadlines: Rc<Deadlines>,
    grace: Duration,
    /// Since the client has said everything; boxed, for few do that before they are answered.
    end: Option<Box<End>>,
}

#[derive(Debug)]
struct End {
    next_look: Deadline,
    /// From the last look to the next.
    span: Duration,
    /// Whether the client has taken something since the last look, or is about to.
    has_taken: bool,
    silent_for: Duration,
}

impl End {
    fn new(next_look: Deadline, grace: Duration) -> Self {
        let mut end = Self {
            next_look,
            span: Duration::ZERO,
            has_taken: false,
            silent_for: Duration::ZERO,
        };
        end.wait(grace);
        end
    }

    /// Until the next look, or until the grace is over.
    fn wait(&mut self, grace: Duration) {
        self.span = LOOK.min(grace.saturating_sub(self.silent_for));
        self.next_look.set(self.span);
    }
}

impl<S> HalfClosing<S> {
    /// A client that, having said everything, is waited for while less than `grace` passes in silence
    /// and a request is `answering`; while none is, with `patience`.
    pub(super) fn new(
        stream: S,
        answering: Answering,
        patience: Patience,
        deadlines: &Rc<Deadlines>,
        grace: Duration,
    ) -> Self {
        Self {
            stream,
            answering,
            patience,
            is_writing: false,
            deadlines: Rc::clone(deadlines),
            grace,
            end: None,
        }
    }

    /// The stream, for another protocol than HTTP.
    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    /// Ready once the client, of whom nothing more has come, has been waited for long enough. As long
    /// as it takes an answer it is not: what it is told then would stand in the midst of that.
    fn poll_late(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_writing || self.answering.is_answering() {
            return Poll::Pending;
        }
        ready!(self.patience.poll_over(&self.answering.0.awaited, cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn note(&mut self, written: &Poll<io::Result<usize>>) {
        self.is_writing = true;
        // A socket that takes no more at present belongs to somebody slow: one that is closed
        // would have answered what it was sent with a reset.
        if let (Some(end), Poll::Pending | Poll::Ready(Ok(1..))) = (&mut self.end, written) {
            end.has_taken = true;
        }
    }
}

impl<S: ToClient> HalfClosing<S> {
    /// Ready once the client that has said everything is to be believed gone.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (deadlines, grace) = (&self.deadlines, self.grace);
        let end = self
            .end
            .get_or_insert_with(|| Box::new(End::new(deadlines.add(), grace)));
        loop {
            if !self.answering.is_answering() {
                return Poll::Ready(Ok(()));
            }
            ready!(end.next_look.poll_passed(cx));
            end.silent_for += end.span;
            if std::mem::take(&mut end.has_taken) {
                end.silent_for = Duration::ZERO;
            }
            if end.silent_for >= grace {
                return Poll::Ready(Ok(()));
            }
            // A write of nothing would not do: TLS would not pass it on, and where it is passed on, it
            // would look like something that the client has taken.
            self.stream.check()?;
            end.wait(grace);
        }
    }
}

impl<S: AsyncRead + ToClient + Unpin> AsyncRead for HalfClosing<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.end.is_none() {
            let before = buffer.filled().len();
            if Pin::new(&mut self.stream)
                .poll_read(cx, buffer)?
                .is_pending()
            {
                return self.poll_late(cx);
            }
            let is_end = buffer.filled().len() == before;
            if !is_end {
                self.answering.hears();
                return Poll::Ready(Ok(()));
            }
            if self.grace.is_zero() {
                return Poll::Ready(Ok(()));
            }
        }
        self.poll_gone(cx)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HalfClosing<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if std::mem::replace(&mut self.is_writing, flushed.is_pending()) {
            // hyper need not read again before something wakes it, and this begins what does.
            let _ = self.poll_late(cx);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
