//! One connection to an upstream, busy or idle.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::AsyncReadExt;

use crate::policy::time::Elapsed;
use crate::upstream::connect::Stream;
use crate::upstream::endpoint::ConnectionPermit;

/// Bytes asked of the socket at first; doubled while reads fill it, so that a large body needs few
/// system calls and a small one little memory.
const FIRST_READ: usize = 8 * 1024;
/// Bytes asked of the socket at most.
const LARGEST_READ: usize = 64 * 1024;

/// An open connection and what was read from it ahead of need.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    buffer: BytesMut,
    next_read: usize,
    /// Empty room for the head of the next request.
    room: BytesMut,
    opened: Elapsed,
    /// Whether it has waited for a request: only then may a failure mean "it was stale".
    has_rested: bool,
    /// Held for as long as the connection is open: counts against the endpoint's limit.
    _permit: ConnectionPermit,
}

impl Connection {
    /// Takes over a freshly opened stream.
    pub fn new(stream: Stream, permit: ConnectionPermit, now: Elapsed) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            next_read: FIRST_READ,
            room: BytesMut::new(),
            opened: now,
            has_rested: false,
            _permit: permit,
        }
    }

    /// When it was opened.
    pub const fn opened(&self) -> Elapsed {
        self.opened
    }

    /// Whether it has waited for a request, so that the peer may have closed it meanwhile.
    pub const fn has_rested(&self) -> bool {
        self.has_rested
    }

    /// Whether the peer has neither closed it nor sent anything unasked: fit for a request.
    pub fn is_quiet(&mut self) -> bool {
        self.buffer.is_empty() && self.stream.is_quiet()
    }

    /// Makes it ready to wait for its next request. Its buffer is kept for the case that this one
    /// comes soon.
    pub fn rest(&mut self) {
        self.has_rested = true;
        if self.next_read > FIRST_READ {
            // What is left of it may hold a large one.
            self.buffer = BytesMut::new();
        }
        self.next_read = FIRST_READ;
    }

    /// Gives back the memory that it does not need while it waits.
    pub fn shrink(&mut self) {
        self.room = BytesMut::new();
        self.buffer = BytesMut::new();
    }

    /// Keeps the room that a head was written into for the next one.
    pub fn keep_room(&mut self, mut room: BytesMut) {
        room.clear();
        self.room = room;
    }

    /// Empty room for the head of a request.
    pub fn take_room(&mut self) -> BytesMut {
        std::mem::take(&mut self.room)
    }

    /// The stream, for writing.
    pub const fn stream_mut(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// What has been read and not yet taken.
    pub const fn buffer_mut(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// So many bytes are known to come: those that are there already are to be read at once. An answer
    /// of 64 KiB costs 6 system calls so, and 10 where each read only doubles the one before.
    pub fn expect(&mut self, bytes: u64) {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.next_read = bytes.clamp(self.next_read, LARGEST_READ);
    }

    /// Reads more into the buffer; 0 is the peer's end.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        self.buffer.reserve(self.next_read);
        let mut stream = Pin::new(&mut self.stream);
        // The future of `read_buf` keeps no state between polls, so making it anew is free.
        let read = pin!(stream.read_buf(&mut self.buffer));
        let result = Future::poll(read, cx);
        if let Poll::Ready(Ok(count)) = &result
            && *count >= self.next_read
        {
            self.next_read = (self.next_read * 2).min(LARGEST_READ);
        }
        result
    }
}
