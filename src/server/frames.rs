//! Counts the frames of an HTTP/2 connection by which a client makes us work for nothing.
//!
//! A PING takes its sender seventeen bytes, and us a read, an answer and a write; settings are
//! acknowledged, priorities and unknown frames are read and forgotten. The library bounds what
//! they make us remember, not how often they come. An honest client sends few of them, or sends them
//! beside something: one that measures its bandwidth pings as often as data reaches it, a browser
//! orders its requests. So they are held against the requests and the data of both directions.
//!
//! What is to have its measure by itself is counted too, for nobody holds a client to it: a window
//! can be opened by one byte two thousand million times, a stream that is gone reset again, a body
//! sent in pieces of nothing. Of the first an honest client sends several for each piece that it
//! takes, so it weighs less.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::policy::time::Elapsed;
use crate::proxy::worker::Worker;
use crate::telemetry::edge::Closure;

/// Time over which is counted.
const SPAN: Duration = Duration::from_secs(10);
/// Frames that a client may send in that time without asking for anything.
const MOST: u32 = 1000;
/// Frames that it may send for each one with a head or data.
const EACH: u32 = 4;
/// Updates of windows that count as one frame.
const UPDATES: u32 = 4;
/// What a client says first (RFC 9113 §3.4).
const PREFACE_LENGTH: usize = 24;
/// The head of a frame.
const HEAD_LENGTH: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const WINDOW_UPDATE: u8 = 8;
/// What follows a head is bounded with it.
const CONTINUATION: u8 = 9;

/// Follows the frames of one direction through reads or writes that end anywhere.
#[derive(Debug)]
struct Walk {
    /// Bytes that are no head, still to come.
    rest: usize,
    head: [u8; HEAD_LENGTH],
    /// Bytes of the head that are known.
    known: usize,
}

impl Walk {
    /// `ahead` bytes come before the first frame.
    const fn behind(ahead: usize) -> Self {
        Self {
            rest: ahead,
            head: [0; HEAD_LENGTH],
            known: 0,
        }
    }

    /// Tells `seen` the type and the length of each frame whose head these bytes complete.
    fn follow(&mut self, mut bytes: &[u8], mut seen: impl FnMut(u8, usize)) {
        loop {
            let skipped = self.rest.min(bytes.len());
            self.rest -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return;
            }
            let taken = (HEAD_LENGTH - self.known).min(bytes.len());
            let (of_head, behind) = bytes.split_at(taken);
            self.head[self.known..self.known + taken].copy_from_slice(of_head);
            self.known += taken;
            bytes = behind;
            if self.known == HEAD_LENGTH {
                let [a, b, c, kind, ..] = self.head;
                self.known = 0;
                self.rest = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                seen(kind, self.rest);
            }
        }
    }
}

/// What both sides have sent within one span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    /// Frames with the head of a request or answer, or data.
    useful: u32,
    /// Frames of the client about nothing but the connection, in parts of which [`UPDATES`] make one.
    idle: u32,
}

impl Counts {
    fn received(&mut self, kind: u8, length: usize) {
        match kind {
            DATA if length > 0 => self.useful = self.useful.saturating_add(1),
            HEADERS => self.useful = self.useful.saturating_add(1),
            CONTINUATION => {}
            WINDOW_UPDATE => self.idle = self.idle.saturating_add(1),
            _ => self.idle = self.idle.saturating_add(UPDATES),
        }
    }

    fn sent(&mut self, kind: u8) {
        if matches!(kind, DATA | HEADERS) {
            self.useful = self.useful.saturating_add(1);
        }
    }

    fn is_flood(self) -> bool {
        self.idle / UPDATES > MOST.saturating_add(self.useful.saturating_mul(EACH))
    }
}

/// The stream of an HTTP/2 client, which fails when that sends a flood.
#[derive(Debug)]
pub(super) struct Counted<S> {
    stream: S,
    worker: Rc<Worker>,
    received: Walk,
    sent: Walk,
    counts: Counts,
    until: Elapsed,
}

impl<S> Counted<S> {
    /// Nothing has been read from `stream` but what it gives once more.
    pub(super) fn new(stream: S, worker: &Rc<Worker>) -> Self {
        Self {
            stream,
            worker: Rc::clone(worker),
            received: Walk::behind(PREFACE_LENGTH),
            sent: Walk::behind(0),
            counts: Counts::default(),
            until: worker.deadlines.now().plus(SPAN),
        }
    }

    fn has_written(&mut self, bytes: &[u8]) {
        let counts = &mut self.counts;
        self.sent.follow(bytes, |kind, _| counts.sent(kind));
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        let now = this.worker.deadlines.now();
        if now >= this.until {
            this.until = now.plus(SPAN);
            this.counts = Counts::default();
        }
        let (received, counts) = (&mut this.received, &mut this.counts);
        received.follow(&buffer.filled()[before..], |kind, length| {
            counts.received(kind, length);
        });
        if counts.is_flood() {
            this.worker.edge.closed(Closure::ControlFrames);
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.has_written(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        let mut left = count;
        for slice in slices {
            let written = left.min(slice.len());
            self.has_written(&slice[..written]);
            left -= written;
        }
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn counted(idle: u32, useful: u32) -> Counts {
        Counts {
            useful,
            idle: idle.saturating_mul(UPDATES),
        }
    }

    #[test]
    fn a_flood_is_many_frames_for_nothing_and_no_flood_is_many_beside_others() {
        assert!(!counted(MOST, 0).is_flood());
        assert!(counted(MOST + 1, 0).is_flood());
        assert!(!counted(MOST + EACH, 1).is_flood());
        assert!(!counted(u32::MAX, u32::MAX).is_flood());
    }

    #[test]
    fn heads_and_data_are_useful_and_all_else_counts_an_opened_window_a_little() {
        let mut counts = Counts::default();
        for (kind, length) in [(HEADERS, 0), (DATA, 1), (CONTINUATION, 9)] {
            counts.received(kind, length);
        }
        assert_eq!(counts, counted(0, 2));
        // PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, one that nobody knows.
        for kind in [DATA, 2, 3, 4, 5, 6, 7, 0x10] {
            counts.received(kind, 0);
        }
        assert_eq!(counts, counted(8, 2));
        for _ in 0..UPDATES {
            counts.received(WINDOW_UPDATE, 4);
        }
        assert_eq!(counts, counted(9, 2));
    }

    proptest! {
        #[test]
        fn wherever_reads_end_the_same_frames_are_seen(
            frames in vec((any::<u8>(), vec(any::<u8>(), 0..300)), 0..20),
            sizes in vec(1..40_usize, 1..20),
        ) {
            let mut bytes = vec![0xff; PREFACE_LENGTH];
            for (kind, payload) in &frames {
                let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
                bytes.extend_from_slice(&length[1..]);
                bytes.extend_from_slice(&[*kind, 0xff, 0xff, 0xff, 0xff, 0xff]);
                bytes.extend_from_slice(payload);
            }
            let mut walk = Walk::behind(PREFACE_LENGTH);
            let mut seen = Vec::new();
            let mut rest = &bytes[..];
            for size in sizes.iter().cycle() {
                let (read, behind) = rest.split_at((*size).min(rest.len()));
                walk.follow(read, |kind, length| seen.push((kind, length)));
                rest = behind;
                if rest.is_empty() {
                    break;
                }
            }
            let sent = frames.iter().map(|(kind, payload)| (*kind, payload.len()));
            prop_assert_eq!(seen, sent.collect::<Vec<_>>());
        }
    }
}
