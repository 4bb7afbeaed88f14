//! Failures of `new` in a row, over all workers.
//!
//! "Ten in a row" is a fact about the whole process: ten workers with one failure each are a dead
//! arm, and a success on any of them ends the streak. So this is the one counter that workers
//! share. It costs a success one relaxed load while all is well; only the end of a streak and the
//! failures themselves write.
//!
//! The mistake to avoid is a reset that races with a failure and leaves a length that its clusters
//! do not explain. Streaks are therefore numbered, length and clusters each carry the number, and
//! ending a streak is one exchange that makes every older entry worthless.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::policy::judge::window::StreakReading;
use crate::policy::key::Cluster;

/// The current streak of one split.
#[derive(Debug)]
pub struct Streak {
    /// The streak's number in the high half, its length in the low one.
    length: AtomicU64,
    /// Per cluster: the number of the streak it was last part of, and its failures in that one.
    clusters: [AtomicU64; Cluster::COUNT],
    /// How often any of it was written, counted after the fact.
    changes: AtomicU64,
}

impl Streak {
    /// No failure yet.
    pub fn new() -> Self {
        Self {
            length: AtomicU64::new(0),
            clusters: std::array::from_fn(|_| AtomicU64::new(0)),
            changes: AtomicU64::new(0),
        }
    }

    /// A request of `cluster` failed on `new` (transport, 5xx) or was diverted.
    pub fn failure(&self, cluster: Cluster) {
        let mut number = 0;
        update(&self.length, |entry| {
            number = entry.number;
            Some(entry.longer())
        });
        update(&self.clusters[cluster.index()], |entry| {
            if entry.number == number {
                Some(entry.longer())
            } else if entry.is_older_than(number) {
                Some(Entry { number, length: 1 })
            } else {
                // Another worker's success has ended this streak and a later failure has begun the
                // next one in the same cluster; this failure belongs to the past.
                None
            }
        });
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// `new` answered a request well, which ends the streak.
    pub fn success(&self) {
        if Entry::from_bits(self.length.load(Ordering::Relaxed)).length == 0 {
            return;
        }
        update(&self.length, |entry| {
            (entry.length > 0).then_some(Entry {
                number: entry.number.wrapping_add(1),
                length: 0,
            })
        });
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Differs from what it was whenever a [reading](Self::reading) would, if it is asked for before
    /// the reading.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// The streak as it stands.
    pub fn reading(&self) -> StreakReading {
        let streak = Entry::from_bits(self.length.load(Ordering::Acquire));
        let clusters = self.clusters.iter().map(|cluster| {
            let entry = Entry::from_bits(cluster.load(Ordering::Acquire));
            let counts = entry.number == streak.number && streak.length > 0;
            u64::from(if counts { entry.length } else { 0 })
        });
        StreakReading {
            length: u64::from(streak.length),
            clusters: clusters.collect(),
        }
    }
}

impl Default for Streak {
    fn default() -> Self {
        Self::new()
    }
}

/// A streak's number and a length within it, in one word so that they change together.
#[derive(Clone, Copy)]
struct Entry {
    number: u32,
    length: u32,
}

impl Entry {
    const fn from_bits(bits: u64) -> Self {
        Self {
            number: (bits >> 32) as u32,
            length: bits as u32,
        }
    }

    const fn to_bits(self) -> u64 {
        (self.number as u64) << 32 | self.length as u64
    }

    const fn longer(self) -> Self {
        Self {
            number: self.number,
            // Saturating, so that a streak of weeks cannot spill into the number.
            length: self.length.saturating_add(1),
        }
    }

    /// Numbers wrap around, so "older" means "by less than half the circle".
    const fn is_older_than(self, number: u32) -> bool {
        (self.number.wrapping_sub(number) as i32) < 0
    }
}

/// Applies `change` until it goes through unhindered; `None` leaves the entry alone.
fn update(entry: &AtomicU64, mut change: impl FnMut(Entry) -> Option<Entry>) {
    // The result only says whether `change` declined.
    let _ = entry.fetch_update(Ordering::AcqRel, Ordering::Acquire, |bits| {
        change(Entry::from_bits(bits)).map(Entry::to_bits)
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::fixture::cluster;

    #[test]
    fn failures_add_up_in_total_and_per_cluster() {
        let streak = Streak::new();
        for index in [5, 5, 63] {
            streak.failure(cluster(index));
        }
        let reading = streak.reading();
        assert_eq!(reading.length, 3);
        assert_eq!((reading.clusters[5], reading.clusters[63]), (2, 1));
    }

    #[test]
    fn one_success_ends_it_and_the_next_failure_begins_at_one() {
        let streak = Streak::new();
        streak.failure(cluster(5));
        streak.success();
        assert_eq!(streak.reading(), StreakReading::default());

        streak.failure(cluster(5));
        let reading = streak.reading();
        assert_eq!((reading.length, reading.clusters[5]), (1, 1));
    }

    #[test]
    fn the_number_may_wrap_around() {
        let streak = Streak::new();
        let last = Entry {
            number: u32::MAX,
            length: 1,
        };
        streak.length.store(last.to_bits(), Ordering::Relaxed);
        streak.clusters[5].store(last.to_bits(), Ordering::Relaxed);
        streak.success();
        streak.failure(cluster(5));

        let reading = streak.reading();
        assert_eq!((reading.length, reading.clusters[5]), (1, 1));
    }

    #[test]
    fn racing_workers_never_leave_clusters_that_do_not_explain_the_length() {
        let streak = Streak::new();
        let clusters: Vec<Cluster> = (0..4).map(cluster).collect();
        std::thread::scope(|scope| {
            for &cluster in &clusters {
                let streak = &streak;
                scope.spawn(move || {
                    for round in 0..10_000 {
                        streak.failure(cluster);
                        if round % 7 == 0 {
                            streak.success();
                        }
                    }
                });
            }
        });
        let reading = streak.reading();
        assert_eq!(reading.length, reading.clusters.iter().sum::<u64>());
    }
}
