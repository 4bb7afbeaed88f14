//! The body of a client's request, read from its connection by whoever sends it on.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::message::Response;
use crate::upstream::http1::decode::{Decoder, Piece};
use crate::upstream::http1::outgoing::Outgoing;
use crate::upstream::inflow::{Inflow, InflowError};

use super::answer;
use super::wire::{Leave, Wire};

/// Gives a client leave to send its body (RFC 9110 §10.1.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Bytes that precede an answer and may wait for a client that takes none of them.
const MOST_FOREWORDS: usize = 64 * 1024;

/// A connection as the two that use it at the same time see it.
#[derive(Debug)]
pub(super) struct Shared<S>(pub(super) RefCell<Wire<S>>);

impl<S> Shared<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    pub(super) fn new(stream: S, read: BytesMut) -> Rc<Self> {
        Rc::new(Self(RefCell::new(Wire::new(stream, read))))
    }
}

impl<S> Shared<S> {
    /// An answer is going to be written: the room for it, with what has to go before it.
    pub(super) fn begin_answer(&self) -> Outgoing {
        let mut wire = self.0.borrow_mut();
        if wire.leave == Leave::Awaited {
            wire.leave = Leave::Withheld;
        }
        std::mem::take(&mut wire.outgoing)
    }
}

impl<S> Inflow for Shared<S>
where
    S: AsyncRead + AsyncWrite + Unpin + std::fmt::Debug,
{
    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, InflowError>>> {
        let wire = &mut *self.0.borrow_mut();
        match wire.leave {
            Leave::Given => {}
            Leave::Awaited => {
                wire.leave = Leave::Given;
                if wire.input.is_empty() {
                    wire.outgoing.text_mut().extend_from_slice(CONTINUE);
                }
            }
            Leave::Withheld => return Poll::Pending,
        }
        if wire.is_lost {
            return Poll::Ready(Some(Err(InflowError)));
        }
        if !wire.outgoing.is_gone() {
            let mut outgoing = std::mem::take(&mut wire.outgoing);
            let sent = wire.poll_send(cx, &mut outgoing);
            // What the socket does not take now goes with the answer at the latest.
            wire.outgoing = outgoing;
            if let Poll::Ready(Err(_)) = sent {
                return Poll::Ready(Some(Err(wire.break_off())));
            }
        }
        loop {
            match wire.decoder.decode(&mut wire.input) {
                Ok(Piece::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Piece::Trailers(trailers)) => {
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Ok(Piece::End) => return Poll::Ready(None),
                Ok(Piece::Incomplete) => {}
                Err(_) => return Poll::Ready(Some(Err(wire.break_off()))),
            }
            match ready!(wire.poll_fill(cx)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(Some(Err(wire.break_off()))),
            }
        }
    }

    fn is_ended(&self) -> bool {
        self.0.borrow().is_body_read()
    }

    fn inform(&self, cx: &mut Context<'_>, answer: &Response<()>) -> bool {
        let wire = &mut *self.0.borrow_mut();
        if !wire.takes_foreword || wire.outgoing.waiting() > MOST_FOREWORDS {
            return false;
        }
        answer::write_foreword(wire.outgoing.text_mut(), answer);
        let mut outgoing = std::mem::take(&mut wire.outgoing);
        // What the socket does not take now goes with the answer at the latest.
        let sent = wire.poll_send(cx, &mut outgoing);
        wire.outgoing = outgoing;
        wire.has_failed = matches!(sent, Poll::Ready(Err(_)));
        !wire.has_failed
    }

    fn size_hint(&self) -> SizeHint {
        match self.0.borrow().decoder {
            Decoder::Ended => SizeHint::with_exact(0),
            Decoder::Length(length) => SizeHint::with_exact(length),
            Decoder::Chunked(_) | Decoder::UntilClose => SizeHint::default(),
        }
    }
}

impl<S> Wire<S> {
    /// Nobody can tell any more where this request ends.
    fn break_off(&mut self) -> InflowError {
        self.is_lost = true;
        InflowError
    }
}
