//! A detector of harm, and what was counted since it suspects that the harm began.
//!
//! A sentence that says "errors 5.1 %" after hours of good traffic would lie if it averaged over
//! them, and a guard that counts callers would look at the wrong ones. So counts are kept from the
//! suspected start of each alternative, and begin anew whenever the suspicion does.

use serde::{Deserialize, Serialize};

use super::by_cluster::ByCluster;
use super::detector::{Detector, Prior, Step};
use super::kernels::{ALTERNATIVES, Contrast};
use super::window::Pair;
use crate::policy::time::Timestamp;

/// What was counted from some moment on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Tally {
    pub(super) counts: Contrast,
    /// Events of `new` per cluster; for slowness against legacy, requests.
    pub(super) clusters: ByCluster<u64>,
}

/// What a window or a block adds to a tally.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch<'a> {
    pub(super) counts: Contrast,
    pub(super) clusters: Clusters<'a>,
}

/// Which part of the counts per cluster is meant.
#[derive(Clone, Copy, Debug)]
pub(super) enum Clusters<'a> {
    Events(&'a [Pair]),
    Requests(&'a [Pair]),
    Counted(&'a ByCluster<u64>),
}

impl Tally {
    pub(super) fn add(&mut self, batch: Batch<'_>) {
        let counts = batch.counts;
        self.counts.new.add(counts.new);
        self.counts.legacy.add(counts.legacy);
        // Nearly every window of a healthy arm has nothing to add here.
        match batch.clusters {
            Clusters::Events(pairs) if counts.new.e > 0 => {
                add_all(self.clusters.slots(), pairs.iter().map(|pair| pair.e));
            }
            Clusters::Requests(pairs) if counts.new.n > 0 => {
                add_all(self.clusters.slots(), pairs.iter().map(|pair| pair.n));
            }
            Clusters::Counted(counts_by_cluster) if !counts_by_cluster.is_untouched() => {
                add_all(self.clusters.slots(), counts_by_cluster.iter().copied());
            }
            Clusters::Events(_) | Clusters::Requests(_) | Clusters::Counted(_) => {}
        }
    }

    pub(super) fn clear(&mut self) {
        if self.counts.new.n > 0 {
            self.clusters.clear();
        }
        self.counts = Contrast::default();
    }

    pub(super) fn batch(&self) -> Batch<'_> {
        Batch {
            counts: self.counts,
            clusters: Clusters::Counted(&self.clusters),
        }
    }
}

fn add_all(sums: &mut [u64], more: impl Iterator<Item = u64>) {
    for (sum, more) in sums.iter_mut().zip(more) {
        *sum += more;
    }
}

/// A detector of harm with its tallies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Trail {
    detector: Detector,
    /// Counted since each alternative's suspected start.
    since: Vec<Tally>,
    /// Counted since the evidence was fresh.
    all: Tally,
}

impl Trail {
    pub(super) fn new(prior: Prior, now: Timestamp) -> Self {
        Self {
            detector: Detector::new(ALTERNATIVES, prior, now),
            since: vec![Tally::default(); ALTERNATIVES],
            all: Tally::default(),
        }
    }

    /// Takes in the log factors of a window or block, and its counts.
    pub(super) fn step(&mut self, log_factors: &[f64], step: Step, batch: Batch<'_>) {
        let restarts = self.detector.step(log_factors, step);
        for (k, tally) in self.since.iter_mut().enumerate() {
            if restarts.contains(k) {
                tally.clear();
            }
            tally.add(batch);
        }
        self.all.add(batch);
    }

    pub(super) fn evidence(&self) -> f64 {
        self.detector.evidence()
    }

    /// How much of the current second is left.
    pub(super) fn second_left(&self) -> f64 {
        self.detector.second_left()
    }

    /// Requests of `new` since the evidence was fresh.
    pub(super) const fn requests(&self) -> u64 {
        self.all.counts.new.n
    }

    /// What was counted since the alternative that explains best was first suspected.
    pub(super) fn leading(&self) -> &Tally {
        &self.since[self.detector.leading()]
    }

    /// When the harm is thought to have begun, and what was counted since. Where nothing points to
    /// harm: everything since the evidence was fresh.
    pub(super) fn suspicion(&self) -> (Option<Timestamp>, &Tally) {
        let leading = self.detector.leading();
        match self.detector.suspected_start(leading) {
            Some(start) => (Some(start), &self.since[leading]),
            None => (None, &self.all),
        }
    }
}
