//! An answer on its way to a client.
//!
//! The head waits for the first piece of its body, to leave in one write with it, unless that is not
//! there yet. A piece is written before the next one is asked for, so a client that takes nothing
//! makes nobody keep more than one.

use std::fmt::Write;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Response};
use http_body::{Body, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::edge::overload::CountedBody;
use crate::proxy::worker::Worker;
use crate::upstream::http1::request::write_trailers;

use super::answer::{self, Asked, Framing};
use super::body::Shared;
use super::wire::COPY_LIMIT;

/// An answer on its way to a client.
#[derive(Debug)]
pub(super) struct Sending {
    body: CountedBody,
    framing: Framing,
    is_last: bool,
    takes_trailers: bool,
    /// The head, framing and small pieces, to be written next.
    out: BytesMut,
    /// A large piece, to be written behind them.
    piece: Bytes,
    /// Whether a CRLF is owed to the end of the present chunk.
    owes_chunk_end: bool,
    body_is: BodyIs,
}

/// How far a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyIs {
    /// There may be more at once.
    Ready,
    /// There is no more at present.
    Awaited,
    /// All of it was taken.
    Ended,
    /// It has broken off: what waits is the last that is sent.
    Broken,
}

impl Sending {
    /// Writes the head, and prepares to send the body.
    pub(super) fn begin<S>(
        worker: &Worker,
        shared: &Shared<S>,
        response: Response<CountedBody>,
        asked: Asked,
    ) -> Self {
        let (parts, body) = response.into_parts();
        let hint = match body.is_end_stream() {
            true => SizeHint::with_exact(0),
            false => body.size_hint(),
        };
        let mut out = shared.begin_answer();
        let (framing, is_last) = answer::write_head(&mut out, &parts, &hint, asked, &worker.date());
        let mut sending = Self {
            body,
            framing,
            is_last,
            takes_trailers: asked.takes_trailers,
            out,
            piece: Bytes::new(),
            owes_chunk_end: false,
            body_is: BodyIs::Ready,
        };
        if sending.body.is_end_stream() || framing == Framing::Nothing {
            // Nobody polls an empty body.
            sending.end_body(None);
        }
        sending
    }

    /// Whether the connection ends behind it.
    pub(super) const fn is_last(&self) -> bool {
        self.is_last
    }

    /// Whether only the connection's end tells where the answer ends.
    pub(super) fn ends_with_connection(&self) -> bool {
        self.framing == Framing::UntilClose
    }

    /// Whether everything has been written that there is at present.
    pub(super) fn awaits_upstream(&self) -> bool {
        self.body_is == BodyIs::Awaited && self.out.is_empty() && self.piece.is_empty()
    }

    /// Moves as much as there is and the client takes.
    ///
    /// # Errors
    /// Those of the socket, and that the body broke off.
    pub(super) fn poll<S>(
        &mut self,
        cx: &mut Context<'_>,
        shared: &Shared<S>,
    ) -> Poll<io::Result<()>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            // Whoever hands over pieces may read the request's body meanwhile.
            self.gather(cx);
            let mut wire = shared.0.borrow_mut();
            ready!(wire.poll_send(cx, &mut self.out, &mut self.piece))?;
            match self.body_is {
                BodyIs::Ready => {}
                BodyIs::Awaited => return Poll::Pending,
                BodyIs::Ended => {
                    wire.output = std::mem::take(&mut self.out);
                    return Poll::Ready(Ok(()));
                }
                BodyIs::Broken => return Poll::Ready(Err(broken_off())),
            }
        }
    }

    /// Takes pieces while they fit into one write.
    fn gather(&mut self, cx: &mut Context<'_>) {
        if self.body_is == BodyIs::Awaited {
            self.body_is = BodyIs::Ready;
        }
        while self.body_is == BodyIs::Ready && self.piece.is_empty() && self.out.len() < COPY_LIMIT
        {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => {
                    self.end_chunk();
                    self.body_is = BodyIs::Awaited;
                }
                Poll::Ready(None) => self.end_body(None),
                Poll::Ready(Some(Err(_))) => self.body_is = BodyIs::Broken,
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(piece) => {
                        self.add_piece(piece);
                        // What ends chunks must not go before a piece that waits.
                        let may_end = self.piece.is_empty() || self.framing != Framing::Chunked;
                        if may_end && self.body_is == BodyIs::Ready && self.body.is_end_stream() {
                            self.end_body(None);
                        }
                    }
                    Err(frame) => self.end_body(frame.into_trailers().ok().as_ref()),
                },
            }
        }
    }

    fn add_piece(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        match &mut self.framing {
            Framing::Nothing => return,
            Framing::Length(left) => match left.checked_sub(piece.len() as u64) {
                Some(rest) => *left = rest,
                // More than was announced would be taken for the next answer.
                None => return self.body_is = BodyIs::Broken,
            },
            Framing::Chunked => {
                self.end_chunk();
                // A number of at most 16 digits always fits.
                let _ = write!(self.out, "{:x}\r\n", piece.len());
                self.owes_chunk_end = true;
            }
            Framing::UntilClose => {}
        }
        if self.out.len() + piece.len() <= COPY_LIMIT {
            self.out.extend_from_slice(&piece);
            self.end_chunk();
        } else {
            self.piece = piece;
        }
    }

    fn end_body(&mut self, trailers: Option<&HeaderMap>) {
        self.body_is = match self.framing {
            // Less than was announced.
            Framing::Length(1..) => BodyIs::Broken,
            _ => BodyIs::Ended,
        };
        if self.framing == Framing::Chunked {
            self.end_chunk();
            self.out.put_slice(b"0\r\n");
            write_trailers(&mut self.out, trailers.filter(|_| self.takes_trailers));
        }
    }

    fn end_chunk(&mut self) {
        if std::mem::take(&mut self.owes_chunk_end) {
            self.out.put_slice(b"\r\n");
        }
    }
}

/// What an answer ends with that has broken off.
fn broken_off() -> io::Error {
    io::Error::other("the answer broke off")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::body::ResponseBody;

    /// What is written of a body that is handed over in these pieces.
    fn written(
        framing: Framing,
        pieces: &[&'static [u8]],
        trailers: Option<HeaderMap>,
    ) -> (Vec<u8>, BodyIs) {
        let mut sending = Sending {
            body: CountedBody::uncounted(ResponseBody::own(Bytes::new())),
            framing,
            is_last: false,
            takes_trailers: true,
            out: BytesMut::new(),
            piece: Bytes::new(),
            owes_chunk_end: false,
            body_is: BodyIs::Ready,
        };
        let mut wire = Vec::new();
        for piece in pieces {
            sending.add_piece(Bytes::from_static(piece));
            // Whatever is large is written before the next piece is asked for.
            if !sending.piece.is_empty() {
                wire.extend_from_slice(&sending.out.split());
                wire.extend_from_slice(&std::mem::take(&mut sending.piece));
            }
        }
        if sending.body_is == BodyIs::Ready {
            sending.end_body(trailers.as_ref());
        }
        wire.extend_from_slice(&sending.out);
        (wire, sending.body_is)
    }

    #[test]
    fn chunks_are_framed_whatever_their_size() {
        static LARGE: [u8; 5000] = [b'a'; 5000];
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "1".parse().expect("a value"));
        let (wire, end) = written(
            Framing::Chunked,
            &[b"one", b"", &LARGE, b"x"],
            Some(trailers),
        );
        let large = String::from_utf8_lossy(&LARGE);
        let expected = format!("3\r\none\r\n1388\r\n{large}\r\n1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n");
        assert_eq!(String::from_utf8_lossy(&wire), expected);
        assert_eq!(end, BodyIs::Ended);
    }

    #[test]
    fn neither_less_nor_more_than_was_announced_is_an_end() {
        for (pieces, expected) in [
            (&[&b"ab"[..], b"c"][..], BodyIs::Ended),
            (&[b"ab"], BodyIs::Broken),
            (&[b"ab", b"cd"], BodyIs::Broken),
        ] {
            let (wire, end) = written(Framing::Length(3), pieces, None);
            assert_eq!(end, expected);
            assert!(wire.len() <= 3);
        }
    }
}
