//! One request and its answer, whatever the protocol.
//!
//! HTTP/1 is the usual case and stands here in full; HTTP/2 is boxed, so that what few use does not
//! weigh on every request's future.

use std::task::{Context, Poll};

use bytes::Bytes;

use crate::message::Response;
use crate::policy::class::Failure;

use super::http1::connection::Connection;
use super::http1::decode::Decoder;
use super::http1::exchange::{self as http1, BodyPart, ExchangeFailed, HeadOutcome, Truncated};
use super::http1::upload::RequestBody;
use super::http2::exchange as http2;

/// A request under way.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "HTTP/1 is what most requests use, and must cost no allocation"
)]
pub enum Exchange {
    /// On a connection of its own.
    Http1(http1::Exchange),
    /// On a stream of a shared connection.
    Http2(Box<http2::Exchange>),
}

impl Exchange {
    /// Bytes moved so far; grows while there is progress.
    pub fn progress(&self) -> u64 {
        match self {
            Exchange::Http1(exchange) => exchange.progress(),
            Exchange::Http2(exchange) => exchange.progress(),
        }
    }

    /// Whether the request has been sent completely.
    pub fn is_sent_completely(&self) -> bool {
        match self {
            Exchange::Http1(exchange) => exchange.is_sent_completely(),
            Exchange::Http2(exchange) => exchange.is_sent_completely(),
        }
    }

    /// Whether nothing can move until the client delivers more of its body.
    pub fn awaits_client(&self) -> bool {
        match self {
            Exchange::Http1(exchange) => exchange.awaits_client(),
            Exchange::Http2(exchange) => exchange.awaits_client(),
        }
    }

    /// The request's body.
    pub fn body_mut(&mut self) -> &mut RequestBody {
        match self {
            Exchange::Http1(exchange) => exchange.body_mut(),
            Exchange::Http2(exchange) => exchange.body_mut(),
        }
    }

    /// Sends the request and waits for the answer's head; what precedes it is given to `inform`.
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        inform: impl FnMut(&mut Context<'_>, &Response<()>),
    ) -> Poll<HeadOutcome> {
        match self {
            Exchange::Http1(exchange) => exchange.poll_head(cx, inform),
            Exchange::Http2(exchange) => exchange.poll_head(cx, inform),
        }
    }

    /// Ends the exchange without an answer.
    pub fn fail(self, failure: Failure) -> ExchangeFailed {
        match self {
            Exchange::Http1(exchange) => exchange.fail(failure),
            Exchange::Http2(exchange) => exchange.fail(failure),
        }
    }

    /// Reads the next part of the answer's body, and keeps sending the request meanwhile.
    ///
    /// # Errors
    /// [`Truncated`] when the answer broke off.
    pub fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        decoder: &mut Decoder,
    ) -> Poll<Result<BodyPart, Truncated>> {
        match self {
            Exchange::Http1(exchange) => exchange.poll_body(cx, decoder),
            Exchange::Http2(exchange) => exchange.poll_body(cx),
        }
    }

    /// Whether the answer's body is sound, as far as it is here: nothing is waited for.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn look_ahead(&mut self, cx: &mut Context<'_>, decoder: &Decoder) -> Result<(), Failure> {
        match self {
            Exchange::Http1(exchange) => exchange.look_ahead(cx, decoder),
            Exchange::Http2(exchange) => exchange.look_ahead(cx),
        }
    }

    /// Nothing of the answer's body came in time.
    pub fn stalled(&self) {
        if let Exchange::Http2(exchange) = self {
            exchange.stalled();
        }
    }

    /// Takes a body that has already arrived completely with the head.
    pub fn take_whole_body(&mut self, decoder: &mut Decoder) -> Option<Bytes> {
        match self {
            Exchange::Http1(exchange) => exchange.take_whole_body(decoder),
            Exchange::Http2(_) => matches!(decoder, Decoder::Ended).then(Bytes::new),
        }
    }

    /// Ends the exchange for the sake of another attempt: the body, and the connection if it may
    /// carry another request alone.
    pub fn abandon(self, decoder: &mut Decoder) -> (RequestBody, Option<Connection>) {
        match self {
            Exchange::Http1(exchange) => exchange.abandon(decoder),
            Exchange::Http2(exchange) => (exchange.abandon(), None),
        }
    }

    /// The connection, if it is this exchange's own.
    pub fn into_connection(self) -> Option<Connection> {
        match self {
            Exchange::Http1(exchange) => Some(exchange.into_connection()),
            Exchange::Http2(_) => None,
        }
    }

    /// The connection, if it may carry another request alone.
    pub fn into_reusable(self) -> Option<Connection> {
        match self {
            Exchange::Http1(exchange) => exchange.into_reusable(),
            Exchange::Http2(_) => None,
        }
    }
}
