//! An answer on its way to a client.
//!
//! The head waits for the first piece of its body, to leave in one write with it, unless that is not
//! there yet. A piece is written before the next one is asked for, so a client that takes nothing
//! makes nobody keep more than one.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::edge::overload::CountedBody;
use crate::message::Response;
use crate::proxy::worker::Worker;
use crate::upstream::http1::outgoing::Outgoing;

use super::answer::{self, Asked, Framing};
use super::body::Shared;

/// An answer on its way to a client.
#[derive(Debug)]
pub(super) struct Sending {
    body: CountedBody,
    framing: Framing,
    is_last: bool,
    takes_trailers: bool,
    outgoing: Outgoing,
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
        let Response {
            status,
            fields,
            body,
        } = response;
        let hint = match body.is_end_stream() {
            true => SizeHint::with_exact(0),
            false => body.size_hint(),
        };
        let mut outgoing = shared.begin_answer();
        let date = worker.date();
        let (framing, is_last) =
            answer::write_head(outgoing.text_mut(), status, &fields, &hint, asked, &date);
        let mut sending = Self {
            body,
            framing,
            is_last,
            takes_trailers: asked.takes_trailers,
            outgoing,
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
        self.body_is == BodyIs::Awaited && self.outgoing.is_gone()
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
            ready!(wire.poll_send(cx, &mut self.outgoing))?;
            match self.body_is {
                BodyIs::Ready => {}
                BodyIs::Awaited => return Poll::Pending,
                BodyIs::Ended => {
                    wire.outgoing = std::mem::take(&mut self.outgoing);
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
        while self.body_is == BodyIs::Ready && self.has_room() {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => {
                    self.outgoing.end_chunk();
                    self.body_is = BodyIs::Awaited;
                }
                Poll::Ready(None) => self.end_body(None),
                Poll::Ready(Some(Err(_))) => self.body_is = BodyIs::Broken,
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(piece) => {
                        self.add_piece(piece);
                        // What ends chunks must not go before a piece that waits.
                        let may_end =
                            !self.outgoing.holds_piece() || self.framing != Framing::Chunked;
                        if may_end && self.body_is == BodyIs::Ready && self.body.is_end_stream() {
                            self.end_body(None);
                        }
                    }
                    Err(frame) => self.end_body(frame.into_trailers().ok().as_ref()),
                },
            }
        }
    }

    fn has_room(&self) -> bool {
        match self.framing {
            Framing::Chunked => self.outgoing.has_room(),
            Framing::Nothing | Framing::Length(_) | Framing::UntilClose => {
                self.outgoing.has_room_for_body()
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
            Framing::Chunked => return self.outgoing.add_chunk(piece),
            Framing::UntilClose => {}
        }
        self.outgoing.add(piece);
    }

    fn end_body(&mut self, trailers: Option<&HeaderMap>) {
        self.body_is = match self.framing {
            // Less than was announced.
            Framing::Length(1..) => BodyIs::Broken,
            _ => BodyIs::Ended,
        };
        if self.framing == Framing::Chunked {
            let trailers = trailers.filter(|_| self.takes_trailers);
            self.outgoing.end_chunks(trailers);
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

    #[test]
    fn neither_less_nor_more_than_was_announced_is_an_end() {
        for (pieces, expected) in [
            (&[&b"ab"[..], b"c"][..], BodyIs::Ended),
            (&[b"ab"], BodyIs::Broken),
            (&[b"ab", b"cd"], BodyIs::Broken),
        ] {
            let mut sending = Sending {
                body: CountedBody::uncounted(ResponseBody::own(Bytes::new())),
                framing: Framing::Length(3),
                is_last: false,
                takes_trailers: true,
                outgoing: Outgoing::default(),
                body_is: BodyIs::Ready,
            };
            for piece in pieces {
                sending.add_piece(Bytes::from_static(piece));
            }
            if sending.body_is == BodyIs::Ready {
                sending.end_body(None);
            }
            assert_eq!(sending.body_is, expected);
            assert!(sending.outgoing.waiting() <= 3);
        }
    }
}
