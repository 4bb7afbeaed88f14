//! Turns away what is too much at once: 503, so that the rest is answered in time.
//!
//! A request counts from its head to the end of its answer's body, on whichever worker. The permit
//! travels with the body, so it comes back when the answer has ended, was broken off, or was never
//! wanted, and there is no path on which it could be lost. Nobody waits for a permit: a queue here
//! would only make late what is too much.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::proxy::body::{CutOff, ResponseBody};
use crate::proxy::tunnel::Tunnel;
use crate::telemetry::access_log::line::End;
use crate::telemetry::edge::EdgeRefusal;

use super::entry::Entry;
use super::{Arrival, Local, Rule};

/// Turns away what is too much at once.
#[derive(Clone, Copy, Debug)]
pub struct Overload;

impl Rule for Overload {
    fn admit<B>(&self, arrival: &mut Arrival<B>) -> Result<(), EdgeRefusal> {
        if !arrival.is_refused() {
            let limit = arrival.view.snapshot.routing.edge.max_requests;
            let permit = Permit::take(&arrival.local, limit);
            arrival.permit = Some(permit.ok_or(EdgeRefusal::Overloaded)?);
        }
        Ok(())
    }
}

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
pub(super) struct Permit(Rc<Local>);

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
    /// Absent where nothing is written down.
    entry: Option<Box<Entry>>,
}

impl CountedBody {
    pub(super) fn new(
        body: ResponseBody,
        permit: Option<Permit>,
        mut entry: Option<Box<Entry>>,
    ) -> Self {
        if let Some(entry) = entry.as_mut().filter(|_| body.is_end_stream()) {
            // Nobody polls an empty body.
            entry.ended(End::Complete);
        }
        Self {
            body,
            _permit: permit,
            entry,
        }
    }

    /// The body of an answer to what is no request.
    pub fn uncounted(body: ResponseBody) -> Self {
        Self::new(body, None, None)
    }

    /// Leaves an empty body in its place.
    pub fn take(&mut self) -> Self {
        let nothing = Self::uncounted(ResponseBody::own(Bytes::new()));
        std::mem::replace(self, nothing)
    }

    /// What the connection is to become after the head, if it switches protocols. The request stays
    /// in flight until this body is dropped.
    pub fn take_tunnel(&mut self) -> Option<Box<Tunnel>> {
        self.body.take_tunnel()
    }
}

impl Body for CountedBody {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let Self { body, entry, .. } = &mut *self;
        if let (Poll::Ready(frame), Some(entry)) = (&polled, entry) {
            match frame {
                Some(Ok(frame)) => entry.sent(frame.data_ref().map_or(0, Bytes::len)),
                Some(Err(CutOff::Truncated)) => entry.ended(End::Truncated),
                Some(Err(CutOff::ClientGone)) => entry.ended(End::ClientGone),
                None => {}
            }
            if !matches!(frame, Some(Err(_))) && body.is_end_stream() {
                entry.ended(End::Complete);
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
