//! What is about to leave over an HTTP/1 connection, in either direction.
//!
//! A request to an upstream and an answer to a client are written alike: a head, framing and small
//! pieces in one write, a large piece behind them without being copied. Where one of the two did it
//! differently, the other's mistakes would be made again.

use std::fmt::Write;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::HeaderMap;
use tokio::io::AsyncWrite;

use super::request::write_trailers;

/// Pieces up to this size are copied behind what waits, to leave in one write with it; larger ones are
/// gathered, because copying 64 KiB costs more than a second slice of a vectored write. A head and
/// 4 KiB fit.
const COPY_LIMIT: usize = 6 * 1024;
/// With fewer bytes than this in a large piece, the next one may leave in the same write: an answer of
/// 64 KiB that comes in two reads costs one system call less.
const SMALL_WRITE: usize = 16 * 1024;

/// What is about to leave over a connection.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// Head, framing and small pieces, to be written next.
    text: BytesMut,
    /// A large piece, to be written behind them.
    piece: Bytes,
    /// Another one behind that.
    next: Bytes,
    /// Whether a CRLF is owed to the end of the present chunk.
    owes_chunk_end: bool,
    /// Whether TLS may hold back some of what was written: it takes more than the socket does, and
    /// nothing but a flush moves the rest.
    is_flush_due: bool,
    /// Bytes that the connection has taken so far.
    written: u64,
}

impl From<BytesMut> for Outgoing {
    /// A head, and nothing behind it yet.
    fn from(head: BytesMut) -> Self {
        Self {
            text: head,
            ..Self::default()
        }
    }
}

impl Outgoing {
    /// Where a head is written.
    pub const fn text_mut(&mut self) -> &mut BytesMut {
        &mut self.text
    }

    /// Bytes that wait to be written.
    pub fn waiting(&self) -> usize {
        self.text.len() + self.piece.len() + self.next.len()
    }

    /// Whether everything has left, and nothing is held back.
    pub fn is_gone(&self) -> bool {
        self.waiting() == 0 && !self.is_flush_due
    }

    /// Bytes that the connection has taken so far; grows while there is progress.
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Whether more would leave in the same write.
    pub fn has_room(&self) -> bool {
        self.piece.is_empty() && self.text.len() < COPY_LIMIT
    }

    /// Whether more of a body that is not framed would leave in the same write.
    pub fn has_room_for_body(&self) -> bool {
        self.has_room() || (self.next.is_empty() && self.piece.len() < SMALL_WRITE)
    }

    /// Whether a large piece waits, behind which no framing can be put.
    pub const fn holds_piece(&self) -> bool {
        !self.piece.is_empty()
    }

    /// Adds a piece of a body; only where there is room.
    pub fn add(&mut self, piece: Bytes) {
        if !self.piece.is_empty() {
            debug_assert!(self.next.is_empty());
            self.next = piece;
        } else if self.text.len() + piece.len() <= COPY_LIMIT {
            self.text.extend_from_slice(&piece);
        } else {
            self.piece = piece;
        }
    }

    /// Adds a piece as a chunk; only where there is room.
    pub fn add_chunk(&mut self, piece: Bytes) {
        self.end_chunk();
        // Writing to memory cannot fail.
        let _ = write!(self.text, "{:x}\r\n", piece.len());
        self.owes_chunk_end = true;
        self.add(piece);
        if self.piece.is_empty() {
            self.end_chunk();
        }
    }

    /// Ends the present chunk, whose piece has left or lies before.
    pub fn end_chunk(&mut self) {
        if std::mem::take(&mut self.owes_chunk_end) {
            self.text.put_slice(b"\r\n");
        }
    }

    /// Ends a chunked body; only where there is room.
    pub fn end_chunks(&mut self, trailers: Option<&HeaderMap>) {
        self.end_chunk();
        self.text.put_slice(b"0\r\n");
        write_trailers(&mut self.text, trailers);
    }

    /// Writes all that waits.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        while self.waiting() > 0 {
            let mut stream = Pin::new(&mut *stream);
            let written = match (&self.text[..], &self.piece[..], &self.next[..]) {
                (one, [], []) | ([], one, []) => stream.as_mut().poll_write(cx, one),
                (text, piece, next) => {
                    let slices = [text, piece, next].map(IoSlice::new);
                    stream.as_mut().poll_write_vectored(cx, &slices)
                }
            };
            let count = ready!(written)?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count as u64;
            self.is_flush_due = true;
            let from_text = count.min(self.text.len());
            self.text.advance(from_text);
            let from_piece = (count - from_text).min(self.piece.len());
            self.piece.advance(from_piece);
            self.next.advance(count - from_text - from_piece);
            if self.piece.is_empty() {
                self.piece = std::mem::take(&mut self.next);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Has what was written leave.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        if self.is_flush_due {
            ready!(Pin::new(stream).poll_flush(cx))?;
            self.is_flush_due = false;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use proptest::prelude::*;

    use super::*;

    /// Writes all that waits behind what was written before.
    fn write(outgoing: &mut Outgoing, wire: &mut Vec<u8>) {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(
            outgoing.poll_write(&mut cx, wire),
            Poll::Ready(Ok(()))
        ));
    }

    #[test]
    fn chunks_are_framed_whatever_their_size() {
        static LARGE: [u8; 7000] = [b'a'; 7000];
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "1".parse().expect("a value"));
        let mut outgoing = Outgoing::from(BytesMut::from("HEAD\r\n\r\n"));
        let mut wire = Vec::new();
        outgoing.add_chunk(Bytes::from_static(b"one"));
        assert!(outgoing.has_room(), "its end goes along");
        outgoing.add_chunk(Bytes::from_static(&LARGE));
        assert!(outgoing.holds_piece() && !outgoing.has_room());
        write(&mut outgoing, &mut wire);
        outgoing.add_chunk(Bytes::from_static(b"x"));
        outgoing.end_chunks(Some(&trailers));
        write(&mut outgoing, &mut wire);
        let large = String::from_utf8_lossy(&LARGE);
        let expected =
            format!("HEAD\r\n\r\n3\r\none\r\n1b58\r\n{large}\r\n1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n");
        assert_eq!(String::from_utf8_lossy(&wire), expected);
        assert_eq!(outgoing.written(), wire.len() as u64);
        assert!(!outgoing.is_gone(), "it is still to be flushed");
    }

    /// Takes at most so many bytes at each turn, and then a pause.
    struct Narrow {
        taken: Vec<u8>,
        turns: Vec<usize>,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let Some(most @ 1..) = self.turns.pop() else {
                return Poll::Pending;
            };
            let count = most.min(bytes.len());
            self.taken.extend_from_slice(&bytes[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    proptest! {
        #[test]
        fn pieces_leave_in_their_order_however_little_is_taken_at_once(
            sizes in prop::collection::vec(1..20_000_usize, 1..8),
            turns in prop::collection::vec(0..9_000_usize, 0..40),
        ) {
            let mut cx = Context::from_waker(Waker::noop());
            let mut narrow = Narrow { taken: Vec::new(), turns };
            let mut outgoing = Outgoing::from(BytesMut::from("head"));
            let mut expected = b"head".to_vec();
            for (number, size) in sizes.into_iter().enumerate() {
                let piece = vec![b'a' + number as u8; size];
                while !outgoing.has_room_for_body() {
                    if outgoing.poll_write(&mut cx, &mut narrow).is_pending() {
                        narrow.turns.push(9_000);
                    }
                }
                expected.extend_from_slice(&piece);
                outgoing.add(piece.into());
            }
            while outgoing.poll_write(&mut cx, &mut narrow).is_pending() {
                narrow.turns.push(9_000);
            }
            prop_assert_eq!(narrow.taken, expected);
        }
    }
}
