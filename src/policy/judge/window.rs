//! What the judge is given: counts of one tick, integers only.
//!
//! Everything here only grows and can be subtracted and added, so a window is the difference of
//! two readings and a fleet is the sum of its members; nothing rotates, resets or races.

use serde::{Deserialize, Serialize};

pub use super::latencies::Latencies;
use crate::policy::arm::PerArm;
use crate::policy::key::Cluster;

/// What happened on both arms of a split between two readings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// How long the window lasted. Windows need not be equal.
    pub seconds: f64,
    /// Outcomes decided on `new`.
    pub new: ArmCounts,
    /// Outcomes decided on `legacy`.
    pub legacy: ArmCounts,
    /// Requests slower than legacy's quantiles where somebody has counted them beforehand, as in a
    /// recording; otherwise the judge counts them in the arms' latencies.
    pub slower: Option<Slower>,
    /// Failures of `new` in a row, up to the end of the window.
    pub streak: StreakReading,
    /// Whether legacy has an endpoint that could take everyone.
    pub legacy_available: bool,
    /// Whether `new` has an endpoint that could take requests.
    #[serde(default = "available")]
    pub new_available: bool,
}

/// What holds where nobody wrote it down.
const fn available() -> bool {
    true
}

/// Outcomes decided on one arm: a cumulative reading, or a window's difference of two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmCounts {
    /// Requests and the errors among them.
    pub errors: Clustered,
    /// The same requests and the client errors among them.
    pub client_errors: Clustered,
    /// Requests, diverted ones included, and those that the arm did not answer well.
    pub availability: Clustered,
    /// Requests, diverted ones included, and those that legacy answered in the arm's place.
    pub fallback: Clustered,
    /// For each of [`Criteria::latency_thresholds`](crate::policy::criteria::Criteria) in its
    /// order: requests whose latency is decided, and those that reached the threshold's age without
    /// a first byte.
    pub latency: Vec<Clustered>,
    /// The same for limits on the time to the answer's end.
    pub total_latency: Vec<Clustered>,
    /// Time to the first byte.
    pub first_byte: Latencies,
    /// Time to the answer's end.
    pub total: Latencies,
}

/// For each quantile at which a criterion compares the arms, in the criteria's order: the requests
/// slower than legacy at that quantile. None where legacy has too few requests to have a quantile.
pub type Slower = Vec<Option<PerArm<Pair>>>;

/// A count of requests and of events among them, in total and per cluster of sessions. Written
/// without the clusters that have none, which most have in a window of 100 ms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Sparse", try_from = "Sparse")]
pub struct Clustered {
    /// Over all clusters.
    pub total: Pair,
    /// Indexed by [`Cluster::index`].
    pub clusters: Vec<Pair>,
}

/// Requests, and the events among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// Requests.
    pub n: u64,
    /// Events: errors, or requests slower than a threshold.
    pub e: u64,
}

/// Failures of `new` in a row: transport errors, 5xx and diversions without a success between.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreakReading {
    /// How many.
    pub length: u64,
    /// How many in each cluster, indexed by [`Cluster::index`].
    pub clusters: Vec<u64>,
}

impl ArmCounts {
    /// What was counted after `earlier`, an older reading of the same counters.
    #[must_use]
    pub fn since(&self, earlier: &ArmCounts) -> ArmCounts {
        ArmCounts {
            errors: self.errors.since(&earlier.errors),
            client_errors: self.client_errors.since(&earlier.client_errors),
            availability: self.availability.since(&earlier.availability),
            fallback: self.fallback.since(&earlier.fallback),
            latency: each_since(&self.latency, &earlier.latency),
            total_latency: each_since(&self.total_latency, &earlier.total_latency),
            first_byte: self.first_byte.since(&earlier.first_byte),
            total: self.total.since(&earlier.total),
        }
    }

    /// Adds what another replica counted for the same criteria.
    pub fn add(&mut self, more: &ArmCounts) {
        self.errors.add(&more.errors);
        self.client_errors.add(&more.client_errors);
        self.availability.add(&more.availability);
        self.fallback.add(&more.fallback);
        add_each(&mut self.latency, &more.latency);
        add_each(&mut self.total_latency, &more.total_latency);
        self.first_byte.add(&more.first_byte);
        self.total.add(&more.total);
    }
}

fn each_since(now: &[Clustered], earlier: &[Clustered]) -> Vec<Clustered> {
    let none = Clustered::default();
    let pairs = now.iter().enumerate();
    pairs
        .map(|(index, counts)| counts.since(earlier.get(index).unwrap_or(&none)))
        .collect()
}

fn add_each(sums: &mut [Clustered], more: &[Clustered]) {
    for (sum, more) in sums.iter_mut().zip(more) {
        sum.add(more);
    }
}

impl Clustered {
    /// What was counted after `earlier`, an older reading of the same counters.
    #[must_use]
    pub fn since(&self, earlier: &Clustered) -> Clustered {
        Clustered {
            total: self.total.since(earlier.total),
            clusters: self
                .clusters
                .iter()
                .zip(&earlier.clusters)
                .map(|(now, then)| now.since(*then))
                .collect(),
        }
    }

    /// Adds what was counted elsewhere.
    pub fn add(&mut self, more: &Clustered) {
        self.total.add(more.total);
        for (sum, more) in self.clusters.iter_mut().zip(&more.clusters) {
            sum.add(*more);
        }
    }

    /// Counts `pair` in one cluster.
    ///
    /// # Panics
    /// If `cluster` is not below [`Cluster::COUNT`].
    pub fn count(&mut self, cluster: usize, pair: Pair) {
        self.total.add(pair);
        self.clusters[cluster].add(pair);
    }
}

/// A [`Clustered`] as it is written: requests and events, and the same for each cluster's number.
#[derive(Serialize, Deserialize)]
struct Sparse {
    total: (u64, u64),
    clusters: Vec<(usize, u64, u64)>,
}

impl From<Clustered> for Sparse {
    fn from(counts: Clustered) -> Self {
        let clusters = counts.clusters.iter().enumerate();
        Self {
            total: (counts.total.n, counts.total.e),
            clusters: clusters
                .filter(|(_, pair)| **pair != Pair::default())
                .map(|(cluster, pair)| (cluster, pair.n, pair.e))
                .collect(),
        }
    }
}

impl TryFrom<Sparse> for Clustered {
    type Error = String;

    fn try_from(written: Sparse) -> Result<Self, String> {
        let (n, e) = written.total;
        let mut counts = Clustered {
            total: Pair { n, e },
            ..Clustered::default()
        };
        for (cluster, n, e) in written.clusters {
            let pair = counts.clusters.get_mut(cluster);
            *pair.ok_or_else(|| format!("no cluster has the number {cluster}"))? = Pair { n, e };
        }
        Ok(counts)
    }
}

impl Default for Clustered {
    fn default() -> Self {
        Self {
            total: Pair::default(),
            clusters: vec![Pair::default(); Cluster::COUNT],
        }
    }
}

impl Pair {
    /// What was counted after `earlier`.
    #[must_use]
    pub const fn since(self, earlier: Pair) -> Pair {
        Pair {
            n: self.n.saturating_sub(earlier.n),
            e: self.e.saturating_sub(earlier.e),
        }
    }

    /// Adds what was counted elsewhere or later.
    pub const fn add(&mut self, more: Pair) {
        self.n += more.n;
        self.e += more.e;
    }

    /// Events per request; none without requests.
    pub fn ratio(self) -> Option<f64> {
        (self.n > 0).then(|| self.e as f64 / self.n as f64)
    }
}

impl Default for StreakReading {
    fn default() -> Self {
        Self {
            length: 0,
            clusters: vec![0; Cluster::COUNT],
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_counts() -> impl Strategy<Value = ArmCounts> {
        let pairs = prop::collection::vec((0_usize..64, 0_u64..50, 0_u64..50), 0..20);
        let latencies = prop::collection::vec((0_usize..642, 1_u64..9), 0..20);
        (pairs, latencies).prop_map(|(pairs, latencies)| {
            let mut counts = ArmCounts {
                latency: vec![Clustered::default(); 2],
                total_latency: vec![Clustered::default(); 1],
                ..ArmCounts::default()
            };
            for (cluster, n, e) in pairs {
                let pair = Pair { n: n + e, e };
                counts.errors.count(cluster, pair);
                counts.latency[1].count(cluster, pair);
                counts.total_latency[0].count(cluster, pair);
            }
            for (bucket, count) in latencies {
                counts.first_byte.record(bucket, count);
            }
            counts
        })
    }

    #[test]
    fn a_window_that_says_nothing_of_endpoints_of_new_is_read_as_if_there_were_some() {
        let window = Window {
            seconds: 0.1,
            new: ArmCounts::default(),
            legacy: ArmCounts::default(),
            slower: None,
            streak: StreakReading::default(),
            legacy_available: true,
            new_available: true,
        };
        let mut written = serde_json::to_value(&window).expect("serialisable");
        let fields = written.as_object_mut().expect("a structure");
        assert!(fields.remove("new_available").is_some());
        assert_eq!(serde_json::from_value(written).ok(), Some(window));
    }

    proptest! {
        #[test]
        fn counts_are_read_as_they_were_written(counts in any_counts()) {
            let text = serde_json::to_string(&counts).expect("serialisable");
            prop_assert_eq!(serde_json::from_str(&text).ok(), Some(counts));
        }

        /// Counters of replicas are added, and a window is a difference of sums; in either order
        /// the same integers come out, or the leader would judge other windows than its members.
        #[test]
        fn the_sum_of_windows_is_the_window_of_sums(
            first in any_counts(),
            first_window in any_counts(),
            second in any_counts(),
            second_window in any_counts(),
        ) {
            let plus = |one: &ArmCounts, other: &ArmCounts| {
                let mut sum = one.clone();
                sum.add(other);
                sum
            };
            let (first_later, second_later) =
                (plus(&first, &first_window), plus(&second, &second_window));
            let window = plus(&first_later, &second_later).since(&plus(&first, &second));
            prop_assert_eq!(window, plus(&first_window, &second_window));
        }
    }
}
