//! Turns away what is too much at once: 503, so that the rest is answered in time.
//!
//! A request counts from its head to the end of its answer's body, on whichever worker. The permit
//! travels with the body, so it comes back when the answer has ended, was broken off, or was never
//! wanted, and there is no path on which it could be lost. Nobody waits for a permit: a queue here
//! would only make late what is too much.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::proxy::body::ResponseBody;
use crate::telemetry::edge::EdgeRefusal;
use crate::upstream::http1::exchange::Truncated;

use super::reply::Reply;
use super::{Arrival, Local};

/// How many requests are being answered on all workers.
///
/// Every request writes to it from every core, so it shares its cache line with nothing.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct InFlight(AtomicUsize);

impl InFlight {
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn try_enter(&self, limit: usize) -> bool {
        // One addition instead of a loop of comparisons; who is too much takes it back.
        let is_admitted = self.0.fetch_add(1, Ordering::Relaxed) < limit;
        if !is_admitted {
            self.leave();
        }
        is_admitted
    }

    fn leave(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The right to be in flight.
#[derive(Debug)]
struct Permit(Rc<Local>);

impl Permit {
    fn take(local: &Rc<Local>, limit: usize) -> Option<Self> {
        let is_admitted = local.shared.in_flight.try_enter(limit);
        is_admitted.then(|| Self(Rc::clone(local)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.shared.in_flight.leave();
    }
}

/// The body of an answer; its request is in flight until this is dropped.
#[derive(Debug)]
pub struct CountedBody {
    body: ResponseBody,
    /// Absent where the answer is a refusal.
    _permit: Option<Permit>,
}

impl From<ResponseBody> for CountedBody {
    /// The body of an answer that takes nobody's place.
    fn from(body: ResponseBody) -> Self {
        Self {
            body,
            _permit: None,
        }
    }
}

impl Body for CountedBody {
    type Data = Bytes;
    type Error = Truncated;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Truncated>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Makes [`Overload`] services.
#[derive(Clone, Debug)]
pub struct OverloadLayer {
    local: Rc<Local>,
}

/// Turns away what is too much at once.
#[derive(Clone, Debug)]
pub struct Overload<S> {
    local: Rc<Local>,
    inner: S,
}

impl OverloadLayer {
    pub(super) fn new(local: &Rc<Local>) -> Self {
        let local = Rc::clone(local);
        Self { local }
    }
}

impl<S> Layer<S> for OverloadLayer {
    type Service = Overload<S>;

    fn layer(&self, inner: S) -> Overload<S> {
        let local = Rc::clone(&self.local);
        Overload { local, inner }
    }
}

impl<B, S> Service<Arrival<B>> for Overload<S>
where
    S: Service<Arrival<B>, Response = Response<ResponseBody>, Error = Infallible>,
{
    type Response = Response<CountedBody>;
    type Error = Infallible;
    type Future = Counted<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, arrival: Arrival<B>) -> Self::Future {
        let limit = arrival.view.snapshot.routing.edge.max_requests;
        let permit = Permit::take(&self.local, limit);
        let reply = if permit.is_some() {
            Reply::Passed {
                answer: self.inner.call(arrival),
            }
        } else {
            Reply::refuse(&self.local.worker, EdgeRefusal::Overloaded)
        };
        Counted { reply, permit }
    }
}

pin_project! {
    /// The future of [`Overload`].
    pub struct Counted<F> {
        #[pin]
        reply: Reply<F, ResponseBody>,
        permit: Option<Permit>,
    }
}

impl<F> Future for Counted<F>
where
    F: Future<Output = Result<Response<ResponseBody>, Infallible>>,
{
    type Output = Result<Response<CountedBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.reply.poll(cx))?;
        Poll::Ready(Ok(response.map(|body| CountedBody {
            body,
            _permit: this.permit.take(),
        })))
    }
}
