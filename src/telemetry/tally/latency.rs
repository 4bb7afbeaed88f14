//! Exact pairs for each latency limit: requests that are decided, and those that were too slow.
//!
//! A quantile read from a histogram is off by a bucket, and knows a slow request only once it has
//! ended. So each limit has counters of its own, which the age of a request in flight can move.

use std::time::Duration;

use crate::policy::criteria::Criteria;
use crate::policy::judge::window::{Clustered, Pair};
use crate::policy::key::Cluster;
use crate::telemetry::counter::Counter;

/// What about an answer comes late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Its first byte.
    FirstByte,
    /// Its end.
    Total,
}

impl Measure {
    /// Both.
    pub const ALL: [Measure; 2] = [Measure::FirstByte, Measure::Total];

    /// Its place in [`Measure::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// The latency limits that a tally counts, each with its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Thresholds {
    /// On the time to the first byte.
    pub first_byte: Vec<Duration>,
    /// On the time to the answer's end.
    pub total: Vec<Duration>,
}

impl Thresholds {
    /// Those of the criteria, in their order.
    pub fn of(criteria: &Criteria) -> Thresholds {
        Thresholds {
            first_byte: criteria.latency_thresholds(),
            total: criteria.total_thresholds(),
        }
    }

    /// Those on one measure.
    pub fn on(&self, measure: Measure) -> &[Duration] {
        match measure {
            Measure::FirstByte => &self.first_byte,
            Measure::Total => &self.total,
        }
    }
}

/// One worker's pairs for the limits on one measure: by threshold, then by cluster.
#[derive(Debug)]
pub(super) struct Latency(Box<[Limit]>);

/// The pairs for one limit. In memory of its own, so it is aligned as a shard is, lest another
/// worker write to its cache lines.
#[derive(Debug)]
#[repr(align(128))]
struct Limit([Sides; Cluster::COUNT]);

/// Requests of one cluster on either side of one threshold.
#[derive(Debug, Default)]
struct Sides {
    within: Counter,
    exceeded: Counter,
}

impl Latency {
    /// Pairs for so many limits.
    pub(super) fn new(limits: usize) -> Self {
        let limit = |_| Limit(std::array::from_fn(|_| Sides::default()));
        Self((0..limits).map(limit).collect())
    }

    pub(super) fn count(&self, threshold: usize, exceeded: bool, cluster: Cluster) {
        let sides = &self.0[threshold].0[cluster.index()];
        let counter = if exceeded {
            &sides.exceeded
        } else {
            &sides.within
        };
        counter.increment();
    }

    /// Adds the pairs to `sums`, which has as many thresholds.
    pub(super) fn add_to(&self, sums: &mut [Clustered]) {
        for (sum, limit) in sums.iter_mut().zip(&self.0) {
            for (cluster, sides) in limit.0.iter().enumerate() {
                let exceeded = sides.exceeded.value();
                let decided = Pair {
                    n: sides.within.value() + exceeded,
                    e: exceeded,
                };
                sum.count(cluster, decided);
            }
        }
    }
}
