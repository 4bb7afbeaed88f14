//! A client's stream: its first bytes read ahead, and a limit to its patience with our answers.
//!
//! A client that asks for much and takes nothing would hold an upstream's connection, a permit and
//! the kernel's buffers for ever, and nobody would notice: while the socket takes no more, the
//! answer's body is not polled, so its own deadline has nobody to strike. So the time is kept
//! where the waiting is, in the writes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::upstream::deadline::Deadline;

/// A client's stream.
#[derive(Debug)]
pub struct ClientStream<S> {
    /// Read already, to find out what is spoken.
    ahead: Vec<u8>,
    stream: S,
    /// How long a write may wait for the client to take something.
    patience: Duration,
    deadline: Deadline,
    is_stuck: bool,
}

impl<S> ClientStream<S> {
    /// A stream of which `ahead` has been read, whose client must take something of an answer
    /// within `patience`.
    pub const fn new(ahead: Vec<u8>, stream: S, patience: Duration, deadline: Deadline) -> Self {
        Self {
            ahead,
            stream,
            patience,
            deadline,
            is_stuck: false,
        }
    }

    /// What a write has come to, unless it has been waiting for too long.
    fn in_time<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.is_stuck = false;
            return written;
        }
        if !std::mem::replace(&mut self.is_stuck, true) {
            self.deadline.set(self.patience);
        }
        let passed = self.deadline.poll_passed(cx);
        passed.map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let count = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.ahead[..count]);
        self.ahead.drain(..count);
        if self.ahead.is_empty() {
            // The connection may live for hours; its first bytes need not.
            self.ahead = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.in_time(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.in_time(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.in_time(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.in_time(cx, shut)
    }
}
