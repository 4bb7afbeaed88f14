//! A counter with one writer and any number of readers.
//!
//! An atomic addition locks a cache line for some twenty cycles even when nobody else wants it. A
//! worker is the only thread that writes to its shard, so a plain load and a plain store do the
//! same work for next to nothing. The mistake to avoid is a second writer: additions would be lost
//! without a sound. That is why every counter is reached through a [`WorkerId`].

use std::sync::atomic::{AtomicU64, Ordering};

/// A worker's number, from 0; it names the shard that only this worker writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WorkerId(pub usize);

/// A count that only grows, written by one thread and read by all.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    /// Adds one. Only the shard's own worker may call it.
    pub(super) fn increment(&self) {
        self.add(1);
    }

    /// Adds `amount`. Only the shard's own worker may call it.
    pub(super) fn add(&self, amount: u64) {
        let value = self.value().wrapping_add(amount);
        self.0.store(value, Ordering::Relaxed);
    }

    /// Sets a bit of a counter that is used as a set of them. Only the shard's own worker may call
    /// it; nearly always the bit is set already.
    pub(super) fn mark(&self, bit: usize) {
        let marks = self.value();
        if marks & 1 << bit == 0 {
            self.0.store(marks | 1 << bit, Ordering::Relaxed);
        }
    }

    /// Adds one, after everything that was counted before it: whoever [sees](Self::seen) this one
    /// sees that too. Only the shard's own worker may call it.
    pub(super) fn announce(&self) {
        self.0
            .store(self.value().wrapping_add(1), Ordering::Release);
    }

    /// What was announced so far.
    pub(super) fn seen(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// What was counted so far.
    pub(super) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Adds each counter of `shard` to its sum.
pub(super) fn add_all<const N: usize>(sums: &mut [u64; N], shard: &[Counter; N]) {
    for (sum, counter) in sums.iter_mut().zip(shard) {
        *sum += counter.value();
    }
}
