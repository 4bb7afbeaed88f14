//! A client's body as it arrives, over whichever protocol.

use std::fmt::Debug;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::message::Response;

/// What an HTTP/1 connection delivers of its present request's body.
pub trait Inflow: Debug {
    /// The next part of it; none behind its end.
    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, InflowError>>>;

    /// Whether all of it was read.
    fn is_ended(&self) -> bool;

    /// What is still to come of it.
    fn size_hint(&self) -> SizeHint;

    /// Tells the client what precedes the answer to its request; whether that is on its way.
    fn inform(&self, cx: &mut Context<'_>, answer: &Response<()>) -> bool;
}

/// The client did not deliver its whole body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client's body broke off")]
pub struct InflowError;

/// A client's body.
#[derive(Debug)]
pub enum Arriving {
    /// Over a connection of its own.
    Http1(Rc<dyn Inflow>),
    /// Over a stream of a shared connection.
    Http2(Incoming),
}

impl Arriving {
    /// The connection that it comes over, if it is the request's own: only such a one can tell its
    /// client what precedes an answer.
    pub fn connection(&self) -> Option<Rc<dyn Inflow>> {
        match self {
            Arriving::Http1(inflow) => Some(Rc::clone(inflow)),
            Arriving::Http2(_) => None,
        }
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = InflowError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, InflowError>>> {
        match &mut *self {
            Arriving::Http1(inflow) => inflow.poll_frame(cx),
            Arriving::Http2(incoming) => Pin::new(incoming)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|_| InflowError))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Arriving::Http1(inflow) => inflow.is_ended(),
            Arriving::Http2(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Arriving::Http1(inflow) => inflow.size_hint(),
            Arriving::Http2(incoming) => incoming.size_hint(),
        }
    }
}
