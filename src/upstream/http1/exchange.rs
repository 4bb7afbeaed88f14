//! One request and its answer on one connection.
//!
//! Both directions are driven from whichever future currently waits: first the one that awaits the
//! head, then the answer's body while the client reads it. So an upstream that answers before it
//! has read the whole upload is no special case.

use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method};

use crate::message::Response;
use crate::policy::class::Failure;

use super::connection::Connection;
use super::decode::{Decoder, Malformed, Piece};
use super::response::{self, Heard, ResponseHead};
use super::upload::{BrokenOff, RequestBody, Upload, UploadError};

/// A request under way on a connection.
#[derive(Debug)]
pub struct Exchange {
    connection: Connection,
    upload: Upload,
    /// The write side failed; an answer sent before that may still be readable.
    is_upload_broken: bool,
    has_received: bool,
    /// Informational answers so far.
    informed: u32,
    method: Method,
    /// The protocols that the client has offered to switch to; boxed, for it is rare.
    upgrade: Option<Box<HeaderValue>>,
}

/// What a failed exchange leaves behind: the reason, and the body for another attempt.
#[derive(Debug)]
pub struct ExchangeFailed {
    /// Why.
    pub failure: Failure,
    /// Whether any byte of the request may have reached the upstream.
    pub sent: bool,
    /// A connection that had rested broke before any byte came back: most likely the upstream had
    /// closed it as idle.
    pub stale: bool,
    /// What was read of the client's body, as far as it is kept.
    pub body: RequestBody,
}

/// How waiting for the head ended.
#[derive(Debug)]
pub enum HeadOutcome {
    /// An answer has begun.
    Head(ResponseHead),
    /// The upstream failed.
    Failed(Failure),
    /// The client broke off its body.
    ClientGone,
    /// The client did not deliver its body in time.
    ClientStalled,
    /// The client's body is longer than is allowed.
    ClientExceeded,
}

impl From<BrokenOff> for HeadOutcome {
    fn from(broken_off: BrokenOff) -> Self {
        match broken_off {
            BrokenOff::Early => HeadOutcome::ClientGone,
            BrokenOff::TooSlow => HeadOutcome::ClientStalled,
            BrokenOff::TooLong => HeadOutcome::ClientExceeded,
        }
    }
}

/// The answer's body broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the upstream's answer broke off")]
pub struct Truncated;

/// A part of the answer's body.
#[derive(Debug)]
pub enum BodyPart {
    /// Content.
    Data(Bytes),
    /// Trailer fields, which end the body.
    Trailers(HeaderMap),
    /// The end.
    End,
}

impl Exchange {
    /// Prepares to send `head` and `body` on `connection`. Only where `head` offers an `upgrade` may
    /// the upstream switch protocols.
    pub fn new(
        connection: Connection,
        method: Method,
        upgrade: Option<Box<HeaderValue>>,
        head: BytesMut,
        body: RequestBody,
    ) -> Self {
        Self {
            connection,
            upload: Upload::new(head, body),
            is_upload_broken: false,
            has_received: false,
            informed: 0,
            method,
            upgrade,
        }
    }

    /// Bytes moved in either direction so far; grows while there is progress.
    pub const fn progress(&self) -> u64 {
        self.upload.written()
    }

    /// Whether the request has been sent completely.
    pub fn is_sent_completely(&self) -> bool {
        self.upload.is_finished()
    }

    /// Whether nothing can move until the client delivers more of its body.
    pub fn awaits_client(&self) -> bool {
        !self.is_upload_broken && self.upload.awaits_client()
    }

    /// The request's body.
    pub const fn body_mut(&mut self) -> &mut RequestBody {
        self.upload.body_mut()
    }

    /// Sends the request and waits for the answer's head; what precedes it is given to `inform`.
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        mut inform: impl FnMut(&mut Context<'_>, &Response<()>),
    ) -> Poll<HeadOutcome> {
        if let Poll::Ready(Err(UploadError::Client(broken_off))) = self.poll_upload(cx) {
            return Poll::Ready(broken_off.into());
        }
        // Nothing can have come back before anything was sent, except on a connection that is
        // being closed under us; the first write will tell.
        if !self.upload.is_sent() && !self.is_upload_broken {
            return Poll::Pending;
        }
        loop {
            match ready!(self.connection.poll_read(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(HeadOutcome::Failed(Failure::Reset)),
                Ok(count) => {
                    self.has_received = true;
                    let buffer = self.connection.buffer_mut();
                    // A head ends with a line end; without a new one there is nothing to parse,
                    // which keeps an upstream that trickles bytes from costing quadratic time.
                    let news = &buffer[buffer.len() - count..];
                    if !news.contains(&b'\n') && buffer.len() < response::MAX_HEAD {
                        continue;
                    }
                }
            }
            if let Some(outcome) = self.take_head(cx, &mut inform) {
                return Poll::Ready(outcome);
            }
        }
    }

    fn take_head(
        &mut self,
        cx: &mut Context<'_>,
        inform: &mut impl FnMut(&mut Context<'_>, &Response<()>),
    ) -> Option<HeadOutcome> {
        let buffer = self.connection.buffer_mut();
        loop {
            match response::parse(buffer, &self.method, self.upgrade.as_deref()) {
                Ok(Some(Heard::Final(head))) => return Some(HeadOutcome::Head(head)),
                Ok(Some(Heard::Informational(answer))) => {
                    self.informed += 1;
                    if self.informed > response::MOST_INFORMATIONAL {
                        return Some(HeadOutcome::Failed(Failure::InvalidResponse));
                    }
                    inform(cx, &answer);
                }
                Ok(None) => return None,
                Err(_) => return Some(HeadOutcome::Failed(Failure::InvalidResponse)),
            }
        }
    }

    /// Ends the exchange without an answer and closes the connection.
    pub fn fail(self, failure: Failure) -> ExchangeFailed {
        let sent = self.upload.is_sent();
        ExchangeFailed {
            failure,
            sent,
            stale: failure == Failure::Reset && self.connection.has_rested() && !self.has_received,
            body: self.upload.into_body(),
        }
    }

    /// Reads the next part of the answer's body, and keeps sending the request meanwhile.
    ///
    /// # Errors
    /// [`Truncated`] when the answer broke off or its framing is broken.
    pub fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        decoder: &mut Decoder,
    ) -> Poll<Result<BodyPart, Truncated>> {
        // An upload that the upstream does not take no longer matters once there is an answer. But
        // where the client broke it off, the upstream would wait for the rest, or answer on and on
        // to a body that is too long.
        let _ = self.poll_upload(cx);
        if self.body_mut().has_broken_off() {
            return Poll::Ready(Err(Truncated));
        }
        loop {
            match decoder.decode(self.connection.buffer_mut()) {
                Ok(Piece::Data(data)) => return Poll::Ready(Ok(BodyPart::Data(data))),
                Ok(Piece::Trailers(trailers)) => {
                    return Poll::Ready(Ok(BodyPart::Trailers(trailers)));
                }
                Ok(Piece::End) => return Poll::Ready(Ok(BodyPart::End)),
                Ok(Piece::Incomplete) => {}
                Err(Malformed) => return Poll::Ready(Err(Truncated)),
            }
            if let Decoder::Length(remaining) = decoder {
                self.connection.expect(*remaining);
            }
            match ready!(self.connection.poll_read(cx)) {
                Ok(0) if decoder.close_is_end() => {
                    *decoder = Decoder::Ended;
                    return Poll::Ready(Ok(BodyPart::End));
                }
                Ok(0) | Err(_) => return Poll::Ready(Err(Truncated)),
                Ok(_) => {}
            }
        }
    }

    /// Whether the answer's body is sound, as far as it is here: nothing is waited for or taken.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn look_ahead(&mut self, cx: &mut Context<'_>, decoder: &Decoder) -> Result<(), Failure> {
        let invalid = |_: Malformed| Failure::InvalidResponse;
        let buffer = self.connection.buffer_mut();
        if decoder.ends_within(buffer).map_err(invalid)? {
            return Ok(());
        }
        match self.connection.poll_read(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(Ok(0)) if decoder.close_is_end() => Ok(()),
            Poll::Ready(Ok(0) | Err(_)) => Err(Failure::Truncated),
            Poll::Ready(Ok(_)) => {
                let buffer = self.connection.buffer_mut();
                decoder.ends_within(buffer).map_err(invalid).map(drop)
            }
        }
    }

    /// Takes a body that has already arrived completely with the head, so that the connection can
    /// be reused before the client has read it.
    pub fn take_whole_body(&mut self, decoder: &mut Decoder) -> Option<Bytes> {
        match decoder {
            Decoder::Ended | Decoder::Length(0) => Some(Bytes::new()),
            Decoder::Length(length) => {
                let buffer = self.connection.buffer_mut();
                let length = usize::try_from(*length).ok()?;
                if buffer.len() < length {
                    return None;
                }
                *decoder = Decoder::Ended;
                Some(buffer.split_to(length).freeze())
            }
            Decoder::Chunked(_) | Decoder::UntilClose => None,
        }
    }

    /// Ends the exchange for the sake of another attempt: the body, and the connection if the
    /// answer's `decoder` says that it may carry another request.
    pub fn abandon(mut self, decoder: &mut Decoder) -> (RequestBody, Option<Connection>) {
        let is_whole = self.take_whole_body(decoder).is_some();
        let reusable = is_whole && self.is_reusable();
        self.rest();
        let body = self.upload.into_body();
        (body, reusable.then_some(self.connection))
    }

    /// The connection, with what was read of it and not taken, for another protocol than HTTP.
    pub fn into_connection(self) -> Connection {
        self.connection
    }

    /// Gives the connection back if it may carry another request: the whole request was sent, and
    /// not one byte stands behind the answer's end.
    pub fn into_reusable(mut self) -> Option<Connection> {
        self.is_reusable().then(|| {
            self.rest();
            self.connection
        })
    }

    fn rest(&mut self) {
        self.connection.keep_room(self.upload.take_room());
        self.connection.rest();
    }

    fn is_reusable(&mut self) -> bool {
        self.upload.is_finished()
            && !self.is_upload_broken
            && self.connection.buffer_mut().is_empty()
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UploadError>> {
        if self.is_upload_broken || self.upload.is_finished() {
            return Poll::Ready(Ok(()));
        }
        match self.upload.poll(cx, self.connection.stream_mut()) {
            Poll::Ready(Err(error)) => {
                // From here on the request is not whole and never will be, so this connection
                // carries no other after it.
                self.is_upload_broken = true;
                match error {
                    // The upstream may have answered, say 413, and closed. Its answer is what
                    // counts.
                    UploadError::Upstream(_) => Poll::Ready(Ok(())),
                    error @ UploadError::Client(_) => Poll::Ready(Err(error)),
                }
            }
            other => other,
        }
    }
}
