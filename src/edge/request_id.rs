//! Gives each request an id, the same for the upstream, the client and the log.
//!
//! Only a trusted proxy's `X-Request-Id` is kept: an id chosen by a stranger could repeat another
//! request's, or carry something that a log viewer takes for its own. The W3C trace context
//! (`traceparent`, `tracestate`) belongs to the ends of the line and passes untouched.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, BytesMut};
use http::{HeaderName, HeaderValue, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::policy::time::Timestamp;
use crate::telemetry::WorkerId;

use super::{Arrival, Local};

/// The field that carries a request's id.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A longer id is not kept, not even a trusted proxy's: it would be copied into every log.
const LONGEST_KEPT: usize = 128;
/// Characters of an id: 128 bits in hexadecimal.
const LENGTH: usize = 32;
/// Ids share an allocation, because one each would cost more than the rest. It is freed with the
/// last of them, so it must be small: a single long request may hold it.
const IDS_PER_BLOCK: usize = 32;

/// Draws ids that no other worker and no other run draws.
#[derive(Debug)]
pub(super) struct RequestIds {
    high: u64,
    low: u64,
    block: BytesMut,
}

impl RequestIds {
    /// Starts at a random point.
    pub(super) fn new(now: Timestamp, worker: WorkerId) -> Self {
        let mut seed = [0; 16];
        // An id is no secret: should the system have no randomness, time and place will do.
        if getrandom::fill(&mut seed).is_err() {
            seed[..8].copy_from_slice(&now.milliseconds().to_le_bytes());
            seed[8..].copy_from_slice(&worker.0.to_le_bytes());
        }
        let seed = u128::from_le_bytes(seed);
        Self {
            high: (seed >> 64) as u64,
            low: seed as u64,
            block: BytesMut::new(),
        }
    }

    fn draw(&mut self) -> HeaderValue {
        if self.block.capacity() < LENGTH {
            self.block = BytesMut::with_capacity(LENGTH * IDS_PER_BLOCK);
        }
        for half in [&mut self.high, &mut self.low] {
            // Two walks through all 64-bit numbers, each scattered (SplitMix64): an id comes back
            // only after all 2^64 steps, and two walkers meet only if they began in the same pair.
            *half = half.wrapping_add(0x9e37_79b9_7f4a_7c15);
            self.block.put_slice(&hexadecimal(scatter(*half)));
        }
        let id = self.block.split().freeze();
        HeaderValue::from_maybe_shared(id).expect("hexadecimal digits are a valid value")
    }
}

fn scatter(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

fn hexadecimal(number: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(number.to_be_bytes()) {
        pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
        pair[1] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
    digits
}

/// Makes [`RequestId`] services.
#[derive(Clone, Debug)]
pub struct RequestIdLayer {
    local: Rc<Local>,
}

/// Gives each request an id.
#[derive(Clone, Debug)]
pub struct RequestId<S> {
    local: Rc<Local>,
    inner: S,
}

impl RequestIdLayer {
    pub(super) fn new(local: &Rc<Local>) -> Self {
        let local = Rc::clone(local);
        Self { local }
    }
}

impl<S> Layer<S> for RequestIdLayer {
    type Service = RequestId<S>;

    fn layer(&self, inner: S) -> RequestId<S> {
        let local = Rc::clone(&self.local);
        RequestId { local, inner }
    }
}

impl<B, R, S> Service<Arrival<B>> for RequestId<S>
where
    S: Service<Arrival<B>, Response = Response<R>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Named<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut arrival: Arrival<B>) -> Self::Future {
        let id = match kept(&arrival) {
            Some(id) => id.clone(),
            None => {
                let id = self.local.request_ids.borrow_mut().draw();
                let headers = arrival.request.headers_mut();
                headers.insert(X_REQUEST_ID, id.clone());
                id
            }
        };
        Named {
            answer: self.inner.call(arrival),
            id: Some(id),
        }
    }
}

/// The id that the request came with, if its sender is believed.
fn kept<B>(arrival: &Arrival<B>) -> Option<&HeaderValue> {
    let trusted = &arrival.view.snapshot.routing.edge.trusted_proxies;
    if trusted.is_empty() || !arrival.peer.is_trusted(trusted) {
        return None;
    }
    let mut ids = arrival.request.headers().get_all(&X_REQUEST_ID).iter();
    let id = ids.next().filter(|id| {
        let is_text = id.as_bytes().iter().all(u8::is_ascii_graphic);
        is_text && !id.is_empty() && id.len() <= LONGEST_KEPT
    });
    id.filter(|_| ids.next().is_none())
}

pin_project! {
    /// The future of [`RequestId`].
    pub struct Named<F> {
        #[pin]
        answer: F,
        id: Option<HeaderValue>,
    }
}

impl<F, R, E> Future for Named<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut response = ready!(this.answer.poll(cx))?;
        if let Some(id) = this.id.take() {
            response.headers_mut().insert(X_REQUEST_ID, id);
        }
        Poll::Ready(Ok(response))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn ids() -> RequestIds {
        RequestIds::new(Timestamp::from_milliseconds(0), WorkerId(0))
    }

    #[test]
    fn ids_are_128_bits_in_hexadecimal_and_never_the_same() {
        let mut workers = [ids(), ids()];
        let mut seen = HashSet::new();
        for index in 0..10_000 {
            let id = workers[index % 2].draw();
            let digits = id.to_str().unwrap();
            assert_eq!(digits.len(), 32);
            assert!(
                digits
                    .bytes()
                    .all(|digit| b"0123456789abcdef".contains(&digit))
            );
            assert!(seen.insert(id.clone()), "{digits} came twice");
        }
    }

    #[test]
    fn a_number_is_written_in_full() {
        assert_eq!(&hexadecimal(0xab), b"00000000000000ab");
        assert_eq!(&hexadecimal(u64::MAX - 1), b"fffffffffffffffe");
    }
}
