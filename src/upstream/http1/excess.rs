//! What a client goes on sending after it has been answered.
//!
//! A connection that is closed with unread bytes on it is reset, and a reset can overtake the answer
//! that says why. So what still comes is read and thrown away, within bounds: a client that reads
//! will have stopped by then, and one that never stops is not waited for.
//!
//! There are many ways out of a request, and each of them drops its body. So that none can forget
//! it, the body itself sees to this.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::task::spawn_local;
use tokio::time::timeout;

use crate::upstream::inflow::Arriving;

/// Bytes thrown away: more than is on its way at any moment.
const MOST: usize = 16 * 1024 * 1024;
/// Time for a client to notice its answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A client's body, of which the rest is thrown away when nobody reads it.
#[derive(Debug)]
pub struct ClientBody<B: Body<Data = Bytes> + Unpin + 'static = Arriving> {
    /// None if it is empty.
    body: Option<B>,
    rest: Rest,
}

/// What becomes of the bytes that are left when a body is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// Nothing: an HTTP/1 connection sees to them itself, and an HTTP/2 stream is reset.
    Stays,
    Discarded,
}

impl<B: Body<Data = Bytes> + Unpin + 'static> ClientBody<B> {
    /// The body of a request with this version and these fields.
    pub fn new(body: B) -> Self {
        let is_empty = body.is_end_stream();
        Self {
            body: (!is_empty).then_some(body),
            rest: Rest::Stays,
        }
    }
}

impl ClientBody {
    /// Throws away the rest although it is an HTTP/2 stream's: for a client that would not look at
    /// its answer before all is sent. An HTTP/1 connection is read by nobody but its own task.
    pub fn discard(mut self) {
        if matches!(self.body, Some(Arriving::Http2(_))) {
            self.rest = Rest::Discarded;
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin + 'static> Drop for ClientBody<B> {
    fn drop(&mut self) {
        if self.rest == Rest::Discarded
            && let Some(body) = self.body.take()
            && !body.is_end_stream()
        {
            spawn_local(async {
                // However it ends, there is nothing left to do.
                let _ = timeout(PATIENCE, read_some(body)).await;
            });
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin + 'static> Body for ClientBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.rest = Rest::Stays;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.body.as_ref().map(Body::size_hint);
        hint.unwrap_or_else(|| SizeHint::with_exact(0))
    }
}

async fn read_some<B: Body<Data = Bytes> + Unpin>(mut body: B) {
    let mut left = MOST;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}
