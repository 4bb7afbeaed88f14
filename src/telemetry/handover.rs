//! Counts how replacements of the process went.

use std::sync::atomic::{AtomicU64, Ordering};

/// What became of handovers, as this process saw them.
#[derive(Debug, Default)]
pub struct HandoverTally {
    taken_over: AtomicU64,
    failed: AtomicU64,
}

impl HandoverTally {
    /// This process has taken over from another.
    pub fn took_over(&self) {
        self.taken_over.fetch_add(1, Ordering::Relaxed);
    }

    /// A successor did not come to serve, and this process went on.
    pub fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts by result.
    pub fn reading(&self) -> [(&'static str, u64); 2] {
        [
            ("taken_over", self.taken_over.load(Ordering::Relaxed)),
            ("failed", self.failed.load(Ordering::Relaxed)),
        ]
    }
}
