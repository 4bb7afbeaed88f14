//! Sending a request's body over a stream, as fast as the upstream's windows allow.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};

use crate::upstream::http1::upload::{BrokenOff, RequestBody};

/// A request's body on its way.
#[derive(Debug)]
pub(super) struct Upload {
    body: RequestBody,
    stream: SendStream<Bytes>,
    /// Taken from the body and not yet handed over.
    piece: Bytes,
    is_ended: bool,
    /// The upstream takes no more of it; its answer is what counts.
    is_broken: bool,
    /// Bytes handed over so far.
    written: u64,
}

impl Upload {
    /// Prepares to send `body` over `stream`, unless its head was all of it.
    pub(super) const fn new(body: RequestBody, stream: SendStream<Bytes>, is_ended: bool) -> Self {
        Self {
            body,
            stream,
            piece: Bytes::new(),
            is_ended,
            is_broken: false,
            written: 0,
        }
    }

    /// Whether everything was handed over.
    pub(super) const fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Bytes handed over so far; grows while there is progress.
    pub(super) const fn written(&self) -> u64 {
        self.written
    }

    /// Whether all that the client has delivered was handed over, and there is more to come.
    pub(super) const fn awaits_client(&self) -> bool {
        !self.is_ended && !self.is_broken && self.piece.is_empty()
    }

    /// The body.
    pub(super) const fn body_mut(&mut self) -> &mut RequestBody {
        &mut self.body
    }

    /// Gives the body back, for another attempt. What is not sent completely is cancelled.
    pub(super) fn into_body(self) -> RequestBody {
        self.body
    }

    /// Moves as much as the client has delivered and the upstream accepts.
    ///
    /// # Errors
    /// [`BrokenOff`] where the client did not deliver it all.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BrokenOff>> {
        while !self.is_ended && !self.is_broken {
            if self.piece.is_empty() {
                match ready!(self.body.poll_piece(cx)) {
                    Some(Ok(piece)) => self.piece = piece,
                    Some(Err(broken)) => {
                        // The upstream must not take what it has for the whole.
                        self.stream.send_reset(Reason::CANCEL);
                        self.is_broken = true;
                        return Poll::Ready(Err(broken));
                    }
                    None => self.end(),
                }
            } else {
                ready!(self.poll_send(cx));
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.reserve_capacity(self.piece.len());
        let capacity = self.stream.capacity();
        if capacity == 0 {
            match ready!(self.stream.poll_capacity(cx)) {
                // More of it is asked for in the next turn.
                Some(Ok(_)) => {}
                Some(Err(_)) | None => self.is_broken = true,
            }
            return Poll::Ready(());
        }
        let part = self.piece.split_to(capacity.min(self.piece.len()));
        self.written += part.len() as u64;
        let is_last = self.piece.is_empty() && self.body.is_ended();
        match self.stream.send_data(part, is_last) {
            Ok(()) => self.is_ended = is_last,
            Err(_) => self.is_broken = true,
        }
        Poll::Ready(())
    }

    fn end(&mut self) {
        let sent = match self.body.trailers() {
            Some(trailers) => self.stream.send_trailers(trailers.clone()),
            None => self.stream.send_data(Bytes::new(), true),
        };
        match sent {
            Ok(()) => self.is_ended = true,
            Err(_) => self.is_broken = true,
        }
    }
}
