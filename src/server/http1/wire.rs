//! A client's connection: what was read and not yet understood, and what is to be written.
//!
//! Both sides of a request need it at the same time, the body that is read by whoever uploads it and
//! the answer that is written, so it is shared between them and borrowed for the moment of a call.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use crate::upstream::http1::decode::Decoder;
use crate::upstream::http1::outgoing::Outgoing;

/// Bytes asked of the socket at first; doubled while reads fill it, so that a large body needs few
/// system calls and a small request little memory.
const FIRST_READ: usize = 8 * 1024;
/// Bytes asked of the socket at most.
const LARGEST_READ: usize = 64 * 1024;
/// With less room than this behind what was read, a buffer is made anew.
const LEAST_READ: usize = 2 * 1024;
/// Whether a client may send the body that it has announced (RFC 9110 §10.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// It may, or has not asked.
    Given,
    /// It waits, until somebody reads its body.
    Awaited,
    /// It waits, and is answered before somebody reads: it will not be told to go on.
    Withheld,
}

/// A client's connection.
#[derive(Debug)]
pub(super) struct Wire<S> {
    pub(super) stream: S,
    /// Read, and not yet taken.
    pub(super) input: BytesMut,
    /// To be written before the next answer; else empty room for one.
    pub(super) outgoing: Outgoing,
    /// Where the present request's body ends.
    pub(super) decoder: Decoder,
    pub(super) leave: Leave,
    /// Whether the client understands what precedes an answer: HTTP/1.0 knew nothing of the kind.
    pub(super) takes_foreword: bool,
    /// Whether nobody can tell any more where the present request ends.
    pub(super) is_lost: bool,
    /// Whether the client was found to have left by somebody who could not say so.
    pub(super) has_failed: bool,
    /// Whether the client has said everything that it will ever say.
    pub(super) is_ended: bool,
    /// Whether something was read or written, or waits to be written, since somebody last looked.
    pub(super) has_moved: bool,
    next_read: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// A connection of which `input` was read.
    pub(super) fn new(stream: S, input: BytesMut) -> Self {
        Self {
            stream,
            input,
            outgoing: Outgoing::default(),
            decoder: Decoder::Ended,
            leave: Leave::Given,
            takes_foreword: false,
            is_lost: false,
            has_failed: false,
            is_ended: false,
            has_moved: false,
            next_read: FIRST_READ,
        }
    }

    /// Reads more; 0 is the client's end.
    ///
    /// # Errors
    /// Those of the socket.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.is_ended {
            return Poll::Ready(Ok(0));
        }
        if self.input.capacity() - self.input.len() < LEAST_READ.max(self.next_read / 4) {
            self.input.reserve(self.next_read);
        }
        let room = self.input.capacity() - self.input.len();
        // The future of `read_buf` keeps no state between polls, so making it anew is free.
        let read = pin!(self.stream.read_buf(&mut self.input));
        let count = ready!(Future::poll(read, cx))?;
        if count == room {
            self.next_read = (self.next_read * 2).min(LARGEST_READ);
        }
        self.is_ended = count == 0;
        self.has_moved |= count > 0;
        Poll::Ready(Ok(count))
    }

    /// Reads a little, for which no buffer has to be kept while nothing comes.
    ///
    /// # Errors
    /// Those of the socket.
    pub(super) fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut first = [0; 512];
        let mut buffer = tokio::io::ReadBuf::new(&mut first);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        let read = buffer.filled();
        self.is_ended = read.is_empty();
        self.input.extend_from_slice(read);
        Poll::Ready(Ok(read.len()))
    }

    /// Has all that waits leave.
    ///
    /// # Errors
    /// Those of the socket.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        outgoing: &mut Outgoing,
    ) -> Poll<io::Result<()>> {
        self.has_moved |= outgoing.waiting() > 0;
        ready!(outgoing.poll_write(cx, &mut self.stream))?;
        outgoing.poll_flush(cx, &mut self.stream)
    }

    /// Whether the present request's body was read to its end.
    pub(super) fn is_body_read(&self) -> bool {
        !self.is_lost && self.decoder.is_ended()
    }

    /// What is read next is no body, and hence not much.
    pub(super) const fn expect_little(&mut self) {
        self.next_read = FIRST_READ;
    }

    /// Takes away the empty lines that some send behind a request, or before one.
    pub(super) fn skip_empty_lines(&mut self) {
        while let [b'\n', ..] | [b'\r', b'\n', ..] = &self.input[..] {
            let line = if self.input[0] == b'\n' { 1 } else { 2 };
            self.input.advance(line);
        }
    }

    /// Gives back the memory that an idle connection does not need.
    pub(super) fn shrink(&mut self) {
        self.next_read = FIRST_READ;
        self.outgoing = Outgoing::default();
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
    }
}
