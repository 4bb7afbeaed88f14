//! What the judge is given: counts of one tick, integers only.
//!
//! Everything here only grows and can be subtracted and added, so a window is the difference of
//! two readings and a fleet is the sum of its members; nothing rotates, resets or races.

use serde::{Deserialize, Serialize};

use crate::policy::key::Cluster;

/// What happened on both arms of a split between two readings.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// How long the window lasted. Windows need not be equal.
    pub seconds: f64,
    /// Outcomes decided on `new`.
    pub new: ArmCounts,
    /// Outcomes decided on `legacy`.
    pub legacy: ArmCounts,
    /// Failures of `new` in a row, up to the end of the window.
    pub streak: StreakReading,
    /// Whether legacy has an endpoint that could take everyone.
    pub legacy_available: bool,
}

/// Outcomes decided on one arm: a cumulative reading, or a window's difference of two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmCounts {
    /// Requests and the errors among them.
    pub errors: Clustered,
    /// Client errors among the requests.
    pub client_errors: u64,
    /// For each latency criterion in its order: requests whose latency is decided, and those that
    /// reached the threshold's age without a first byte.
    pub latency: Vec<Clustered>,
}

/// A count of requests and of events among them, in total and per cluster of sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
        let none = Clustered::default();
        ArmCounts {
            errors: self.errors.since(&earlier.errors),
            client_errors: self.client_errors.saturating_sub(earlier.client_errors),
            latency: self
                .latency
                .iter()
                .enumerate()
                .map(|(index, counts)| counts.since(earlier.latency.get(index).unwrap_or(&none)))
                .collect(),
        }
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
