//! Sending a request while remembering enough of it to send it again.
//!
//! The body streams through; what has passed is kept, up to a limit, as references to the same
//! bytes, so that a failed attempt can be repeated elsewhere. Above the limit nothing is kept and
//! nothing can be repeated: memory stays bounded, and the caller counts it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Version};
use http_body::Body;

use crate::message::RequestHead;
use crate::message::name::CONTENT_LENGTH;
use crate::upstream::connect::Stream;
use crate::upstream::watch::Watch;

use super::excess::ClientBody;
use super::outgoing::Outgoing;
use super::reserved::may_trail;

/// What TLS can put into one record at most (RFC 8446 §5.1).
const LARGEST_RECORD: usize = 16 * 1024;
/// Pieces below this size are collected before they are kept.
const SMALL_PIECE: usize = 512;
/// Bytes of them that are kept as one.
const COLLECTED: usize = 4096;

/// A request's body: what of it was already read from the client, and the rest.
///
/// Most requests have none, and a body is handed from one to the next on its way; so it lies apart.
#[derive(Debug, Default)]
pub struct RequestBody(Option<Box<Delivery>>);

/// A body that there is.
#[derive(Debug)]
struct Delivery {
    source: Option<ClientBody>,
    framing: Framing,
    due: Due,
    /// Whether it comes over HTTP/2.
    is_stream: bool,
    /// The client broke off; whatever comes after is not the end of its body.
    is_broken: bool,
    kept: Vec<Bytes>,
    /// Small pieces, collected: kept one by one, each would cost more than it holds.
    tail: BytesMut,
    kept_bytes: usize,
    /// Bytes that may be kept.
    limit: usize,
    /// How many of the kept pieces the present attempt has sent.
    position: usize,
    /// Whether all that was read so far is kept.
    is_whole: bool,
    /// What followed a chunked body, once it was read. Few requests have any.
    trailers: Option<Box<HeaderMap>>,
    /// Where the client must deliver at some rate, until there is an answer.
    watch: Option<Watch>,
}

/// What the client may still deliver of its body.
#[derive(Clone, Copy, Debug)]
enum Due {
    /// So many bytes, as it has announced.
    Announced(u64),
    /// It has not said how many: at most so many.
    AtMost(u64),
    /// Nothing more: it was more than is allowed.
    Exceeded,
}

/// How the end of a request's body is told to the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// The client's `Content-Length` goes along.
    Length,
    /// The client did not say how long it is.
    Chunked,
}

impl RequestBody {
    /// A request without a body.
    pub const fn empty() -> Self {
        Self(None)
    }

    /// The body of a client's request, of which up to `limit` bytes are kept for a replay. One whose
    /// length is not announced breaks off after `most` bytes; what is announced has been judged.
    pub fn incoming(source: ClientBody, request: &RequestHead, limit: usize, most: u64) -> Self {
        if source.is_end_stream() {
            return Self::empty();
        }
        let framing = if request.fields.contains(&CONTENT_LENGTH) {
            Framing::Length
        } else {
            Framing::Chunked
        };
        Self(Some(Box::new(Delivery {
            due: source
                .size_hint()
                .exact()
                .map_or(Due::AtMost(most), Due::Announced),
            is_stream: request.version == Version::HTTP_2,
            source: Some(source),
            framing,
            limit,
            is_broken: false,
            kept: Vec::new(),
            tail: BytesMut::new(),
            kept_bytes: 0,
            position: 0,
            is_whole: true,
            trailers: None,
            watch: None,
        })))
    }

    /// The client must deliver it as fast as `watch` says.
    pub fn watched(&mut self, watch: impl FnOnce() -> Watch) {
        if let Some(delivery) = &mut self.0 {
            delivery.watch = Some(watch());
        }
    }

    /// How the end of the body is told to the upstream.
    pub fn framing(&self) -> Framing {
        let delivery = self.0.as_ref();
        delivery.map_or(Framing::None, |delivery| delivery.framing)
    }

    /// Whether it breaks off beyond some length.
    pub fn is_limited(&self) -> bool {
        let due = self.0.as_ref().map(|delivery| delivery.due);
        matches!(due, Some(Due::AtMost(most)) if most < u64::MAX)
    }

    /// Whether it has broken off because it is longer than is allowed.
    pub fn has_exceeded(&self) -> bool {
        let due = self.0.as_ref().map(|delivery| delivery.due);
        matches!(due, Some(Due::Exceeded))
    }

    /// Whether another attempt could send the body from its start.
    pub fn is_replayable(&self) -> bool {
        self.0.as_ref().is_none_or(|delivery| delivery.is_whole)
    }

    /// Makes the next attempt start from the beginning.
    ///
    /// Only meaningful while [`RequestBody::is_replayable`] holds.
    pub fn rewind(&mut self) {
        if let Some(delivery) = &mut self.0 {
            delivery.close_tail();
            delivery.position = 0;
        }
    }

    /// Its answer has begun: no further attempt will be made, so what was kept is forgotten; and the
    /// client may take its time, for it may be waiting for something in the answer.
    pub fn is_answered(&mut self) {
        let Some(delivery) = &mut self.0 else { return };
        delivery.watch = None;
        delivery.limit = 0;
        let has_kept = !delivery.kept.is_empty() || !delivery.tail.is_empty();
        if delivery.position == delivery.kept.len() && has_kept {
            delivery.forget();
        }
    }

    /// Whether the client has not delivered it as it must, so that its end will never come.
    pub fn has_broken_off(&self) -> bool {
        self.0.as_ref().is_some_and(|delivery| delivery.is_broken)
    }

    /// Whether the client has been heard to its end. Else its HTTP/1 connection cannot carry another
    /// request.
    pub fn is_read(&self) -> bool {
        self.0.as_ref().is_none_or(|delivery| delivery.is_read())
    }

    /// What the client said after its body; known once the body has ended.
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.0.as_ref()?.trailers.as_deref()
    }

    /// Whether the last piece has been taken, and no trailers follow it.
    pub fn is_ended(&self) -> bool {
        self.0.as_ref().is_none_or(|delivery| {
            !delivery.is_broken
                && delivery.is_read()
                && delivery.position == delivery.kept.len()
                && delivery.trailers.is_none()
        })
    }

    /// The next piece: one that was kept, or the client's next.
    ///
    /// # Errors
    /// [`BrokenOff`] where the client did not deliver its whole body.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        match &mut self.0 {
            Some(delivery) => delivery.poll_piece(cx),
            None => Poll::Ready(None),
        }
    }

    /// Whether it comes over HTTP/2.
    fn is_stream(&self) -> bool {
        self.0.as_ref().is_some_and(|delivery| delivery.is_stream)
    }
}

impl Delivery {
    fn is_read(&self) -> bool {
        self.source.as_ref().is_none_or(Body::is_end_stream)
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        if let Some(piece) = self.kept.get(self.position) {
            self.position += 1;
            return Poll::Ready(Some(Ok(piece.clone())));
        }
        if self.is_broken {
            return Poll::Ready(Some(Err(match self.due {
                Due::Exceeded => BrokenOff::TooLong,
                Due::Announced(_) | Due::AtMost(_) => BrokenOff::Early,
            })));
        }
        let Some(source) = &mut self.source else {
            return Poll::Ready(None);
        };
        loop {
            let polled = Pin::new(&mut *source).poll_frame(cx);
            if let Some(watch) = &mut self.watch
                && polled.is_pending()
                && watch.poll_too_slow(cx).is_ready()
            {
                self.is_broken = true;
                return Poll::Ready(Some(Err(BrokenOff::TooSlow)));
            }
            match ready!(polled) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) => {
                        if let Some(watch) = &mut self.watch {
                            watch.moved(piece.len());
                        }
                        let length = piece.len() as u64;
                        self.due = match self.due {
                            Due::Announced(due) => Due::Announced(due.saturating_sub(length)),
                            Due::AtMost(u64::MAX) => Due::AtMost(u64::MAX),
                            Due::AtMost(most) if length <= most => Due::AtMost(most - length),
                            Due::AtMost(_) | Due::Exceeded => {
                                return Poll::Ready(Some(Err(self.exceed())));
                            }
                        };
                        self.keep(&piece);
                        return Poll::Ready(Some(Ok(piece)));
                    }
                    Err(frame) => self.trailers = frame.into_trailers().ok().map(permitted),
                },
                // After an error, or a client's cancellation, the source reports an end. It is not
                // the body's.
                None if !matches!(self.due, Due::Announced(1..))
                    && (!self.is_stream || source.is_end_stream()) =>
                {
                    self.source = None;
                    return Poll::Ready(None);
                }
                Some(Err(_)) | None => {
                    self.is_broken = true;
                    return Poll::Ready(Some(Err(BrokenOff::Early)));
                }
            }
        }
    }

    fn exceed(&mut self) -> BrokenOff {
        self.is_broken = true;
        self.due = Due::Exceeded;
        // No part of it may be sent again as if it were the whole.
        self.forget();
        if let Some(source) = self.source.take() {
            source.discard();
        }
        BrokenOff::TooLong
    }

    fn keep(&mut self, piece: &Bytes) {
        if !self.is_whole {
            return;
        }
        if self.kept_bytes + piece.len() > self.limit {
            self.forget();
            return;
        }
        self.kept_bytes += piece.len();
        if piece.len() < SMALL_PIECE {
            self.tail.extend_from_slice(piece);
            if self.tail.len() >= COLLECTED {
                self.close_tail();
            }
        } else {
            self.close_tail();
            self.kept.push(piece.clone());
        }
        self.position = self.kept.len();
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.kept.push(self.tail.split().freeze());
        }
    }

    fn forget(&mut self) {
        self.is_whole = false;
        self.kept = Vec::new();
        self.tail = BytesMut::new();
        self.position = 0;
    }
}

/// Trailers without the fields that must stand in a head.
fn permitted(trailers: HeaderMap) -> Box<HeaderMap> {
    let mut permitted = HeaderMap::with_capacity(trailers.len());
    for (name, value) in &trailers {
        if may_trail(name) {
            permitted.append(name, value.clone());
        }
    }
    Box::new(permitted)
}

/// A body that ends before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokenOff {
    /// The client did not deliver all of it.
    #[error("the client's body broke off")]
    Early,
    /// It is longer than is allowed.
    #[error("the client's body is too long")]
    TooLong,
    /// The client delivered it more slowly than it must.
    #[error("the client's body came too slowly")]
    TooSlow,
}

/// A request on its way to one upstream.
#[derive(Debug)]
pub struct Upload {
    body: RequestBody,
    outgoing: Outgoing,
    /// Whether the head waits for the first piece of a body that comes over HTTP/2, to leave in one
    /// write with it.
    awaits_body: bool,
    is_body_ended: bool,
    /// A failed write may have sent a part of what it was given.
    has_failed_midway: bool,
}

/// Why a request could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The upstream's connection failed.
    #[error("writing to the upstream failed")]
    Upstream(#[source] std::io::Error),
    /// The client did not deliver its body.
    #[error(transparent)]
    Client(#[from] BrokenOff),
}

impl Upload {
    /// Prepares to send `head` and then `body`.
    pub fn new(head: BytesMut, body: RequestBody) -> Self {
        let is_body_ended = body.framing() == Framing::None;
        Self {
            awaits_body: !is_body_ended && body.is_stream(),
            body,
            outgoing: Outgoing::from(head),
            is_body_ended,
            has_failed_midway: false,
        }
    }

    /// Whether anything that the upstream can understand may have left this process.
    pub const fn is_sent(&self) -> bool {
        self.outgoing.written() > 0 || self.has_failed_midway
    }

    /// Bytes that the connection has taken so far; grows while there is progress.
    pub const fn written(&self) -> u64 {
        self.outgoing.written()
    }

    /// Whether everything has been written, and nothing of it is held back.
    pub fn is_finished(&self) -> bool {
        self.is_body_ended && self.outgoing.is_gone()
    }

    /// Whether everything that the client has delivered has been written, and there is more to
    /// come.
    pub fn awaits_client(&self) -> bool {
        !self.is_body_ended && (self.outgoing.is_gone() || self.awaits_body)
    }

    /// Gives the body back, for another attempt.
    pub fn into_body(self) -> RequestBody {
        self.body
    }

    /// Takes the room that its head was written into.
    pub fn take_room(&mut self) -> BytesMut {
        std::mem::take(self.outgoing.text_mut())
    }

    /// The body that is being sent.
    pub const fn body_mut(&mut self) -> &mut RequestBody {
        &mut self.body
    }

    /// Moves as much as the client has delivered and the upstream accepts.
    ///
    /// # Errors
    /// [`UploadError`] says which side failed.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
    ) -> Poll<Result<(), UploadError>> {
        loop {
            let is_starved = self.gather(cx)?;
            if self.outgoing.waiting() == 0 {
                ready!(self.outgoing.poll_flush(cx, stream)).map_err(UploadError::Upstream)?;
                return if self.is_body_ended {
                    Poll::Ready(Ok(()))
                } else {
                    Poll::Pending
                };
            }
            if is_starved && self.awaits_body {
                // Over HTTP/2 the first piece usually came in the same packet as the head, but hyper
                // hands it over only when it is polled again. One turn is waited for it, no more:
                // an upstream may have something to say before the body comes.
                self.awaits_body = false;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            ready!(self.poll_write(cx, stream)).map_err(UploadError::Upstream)?;
            if is_starved {
                // What was gathered has left, but for what is held back; and the client need not be
                // asked twice for more.
                ready!(self.outgoing.poll_flush(cx, stream)).map_err(UploadError::Upstream)?;
                return Poll::Pending;
            }
        }
    }

    /// Takes pieces from the client while they fit into one write. Returns whether the client has
    /// nothing more at present.
    fn gather(&mut self, cx: &mut Context<'_>) -> Result<bool, UploadError> {
        while !self.is_body_ended && self.has_room() {
            match self.body.poll_piece(cx) {
                Poll::Pending => {
                    self.outgoing.end_chunk();
                    return Ok(true);
                }
                Poll::Ready(None) => self.end_body(),
                Poll::Ready(Some(Err(error))) => return Err(UploadError::Client(error)),
                Poll::Ready(Some(Ok(piece))) => {
                    self.add_piece(piece);
                    if self.body.framing() == Framing::Length && self.body.is_ended() {
                        self.end_body();
                    }
                }
            }
            self.awaits_body = false;
        }
        Ok(false)
    }

    fn has_room(&self) -> bool {
        match self.body.framing() {
            Framing::Chunked => self.outgoing.has_room(),
            Framing::None | Framing::Length => self.outgoing.has_room_for_body(),
        }
    }

    fn add_piece(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        match self.body.framing() {
            Framing::Chunked => self.outgoing.add_chunk(piece),
            Framing::None | Framing::Length => self.outgoing.add(piece),
        }
    }

    fn end_body(&mut self) {
        if self.body.framing() == Framing::Chunked {
            self.outgoing.end_chunks(self.body.trailers());
        }
        self.is_body_ended = true;
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
    ) -> Poll<std::io::Result<()>> {
        let polled = self.outgoing.poll_write(cx, stream);
        if let Poll::Ready(Err(_)) = polled {
            // A record that broke off is nothing to the upstream. One that is whole may have been sent
            // before the next one failed, and nobody says so.
            let is_tls = matches!(stream, Stream::Tls(_));
            self.has_failed_midway = is_tls && self.outgoing.waiting() > LARGEST_RECORD;
        }
        polled
    }
}

#[cfg(test)]
mod tests;
