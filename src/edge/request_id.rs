//! Gives each request an id, the same for the upstream, the client and the log.
//!
//! Only a trusted proxy's `X-Request-Id` is kept: an id chosen by a stranger could repeat another
//! request's, or carry something that a log viewer takes for its own.

use crate::message::name::X_REQUEST_ID;
use crate::policy::time::Timestamp;
use crate::telemetry::WorkerId;
use crate::telemetry::edge::EdgeRefusal;

use super::{Arrival, Rule};

/// A longer id is not kept, not even a trusted proxy's: it would be copied into every log.
const LONGEST_KEPT: usize = 128;
/// Characters of an id: 128 bits in hexadecimal.
pub(super) const LENGTH: usize = 32;

/// Gives each request an id.
#[derive(Clone, Copy, Debug)]
pub struct RequestId;

impl Rule for RequestId {
    fn admit<B>(&self, arrival: &mut Arrival<B>) -> Result<(), EdgeRefusal> {
        let id = if let Some(id) = kept(arrival) {
            Id::Kept(id.into())
        } else {
            let id = arrival.local.request_ids.borrow_mut().draw();
            arrival.request.head.fields.insert(&X_REQUEST_ID, &id);
            Id::Drawn(id)
        };
        arrival.id = Some(id);
        Ok(())
    }
}

/// The name of a request.
#[derive(Debug)]
pub(super) enum Id {
    /// Ours.
    Drawn([u8; LENGTH]),
    /// One that a trusted proxy gave it.
    Kept(Box<[u8]>),
}

impl Id {
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Id::Drawn(id) => id,
            Id::Kept(id) => id,
        }
    }
}

/// The id that the request came with, if its sender is believed.
fn kept<B>(arrival: &Arrival<B>) -> Option<&[u8]> {
    if !arrival.caller.is_peer_trusted() {
        return None;
    }
    let mut ids = arrival.request.head.fields.get_all(&X_REQUEST_ID);
    let id = ids.next().filter(|id| {
        let is_text = id.iter().all(u8::is_ascii_graphic);
        is_text && !id.is_empty() && id.len() <= LONGEST_KEPT
    });
    id.filter(|_| ids.next().is_none())
}

/// Draws ids that no other worker and no other run draws.
#[derive(Debug)]
pub(super) struct RequestIds {
    high: u64,
    low: u64,
}

impl RequestIds {
    /// Starts at a random point.
    pub(super) fn new(now: Timestamp, worker: WorkerId) -> Self {
        let mut seed = [0; 16];
        // An id is no secret: should the system have no randomness, time and place will do.
        if getrandom::fill(&mut seed).is_err() {
            seed[..8].copy_from_slice(&now.milliseconds().to_le_bytes());
            seed[8..].copy_from_slice(&(worker.0 as u64).to_le_bytes());
        }
        let seed = u128::from_le_bytes(seed);
        Self {
            high: (seed >> 64) as u64,
            low: seed as u64,
        }
    }

    pub(super) fn draw(&mut self) -> [u8; LENGTH] {
        let mut id = [0; LENGTH];
        let halves = [&mut self.high, &mut self.low];
        for (half, digits) in halves.into_iter().zip(id.chunks_exact_mut(LENGTH / 2)) {
            // Two walks through all 64-bit numbers, each scattered (SplitMix64): an id comes back
            // only after all 2^64 steps, and two walkers meet only if they began in the same pair.
            *half = half.wrapping_add(0x9e37_79b9_7f4a_7c15);
            for (pair, byte) in digits.chunks_exact_mut(2).zip(scatter(*half).to_be_bytes()) {
                pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
                pair[1] = b"0123456789abcdef"[usize::from(byte & 15)];
            }
        }
        id
    }
}

fn scatter(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
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
            assert!(id.iter().all(|digit| b"0123456789abcdef".contains(digit)));
            assert!(seen.insert(id), "{} came twice", id.escape_ascii());
        }
    }
}
