//! What the workers count: one tally per split, one per backend.
//!
//! The verdict needs "`e` errors among `n` requests" from counters that are being written while it
//! reads them. Two counters `n` and `e` would sooner or later be read between the two writes, and
//! a window with more errors than requests has no likelihood. So nothing here is counted twice:
//! an outcome increments exactly one cell, `n` and `e` are sums of cells, and the difference of
//! any two readings is consistent whenever they were taken.
//!
//! Each worker writes to a shard of its own (see [`WorkerId`]); [`SplitTally::reading`] sums them.
//! A shard is large (some 30 KiB), and a configuration may have a thousand splits of which a dozen
//! have traffic; so it is made with the worker's first request of the split. For the same reason a
//! look at the sums is worth avoiding: [`SplitTally::changes`] tells for a few loads whether there
//! is anything to see.
//!
//! Requests whose arm was fixed by a pin, a token or an emergency, and requests without a key, are
//! no evidence about the arms: they come with `cluster: None` and are kept apart, for display.
//!
//! What is booked when is ruled by the data plane; the tally only knows that
//! [`Class::Cancelled`] is never a decided request.

mod latency;

use std::sync::OnceLock;
use std::time::Duration;

pub use self::latency::{Measure, Thresholds};

use self::latency::Latency;
use super::counter::{Counter, WorkerId, add_all};
use super::histogram::{Histogram, HistogramShard};
use super::streak::Streak;
use crate::policy::arm::{Arm, PerArm};
use crate::policy::class::{Class, Diversion, Failure};
use crate::policy::criteria::Criteria;
use crate::policy::fallback::Refusal;
use crate::policy::judge::window::{ArmCounts, Clustered, Pair, StreakReading};
use crate::policy::key::Cluster;

const CLASSES: usize = Class::ALL.len();
const FAILURES: usize = Failure::LABELS.len();
const REFUSALS: usize = Refusal::LABELS.len();
const DIVERSIONS: usize = Diversion::LABELS.len();

/// Everything counted about one split. It outlives reloads for as long as the split's name and
/// latency thresholds stay the same.
#[derive(Debug)]
pub struct SplitTally {
    thresholds: Thresholds,
    /// None of a worker that had no request of the split.
    workers: Box<[OnceLock<Box<SplitShard>>]>,
    streak: Streak,
}

impl SplitTally {
    /// A tally for `workers` workers and the thresholds of the latency criteria.
    ///
    /// # Panics
    /// With more than [`Criteria::MAX_LATENCY_LIMITS`] thresholds on one measure, which no valid
    /// configuration has.
    pub fn new(workers: usize, thresholds: Thresholds) -> SplitTally {
        for measure in Measure::ALL {
            assert!(
                thresholds.on(measure).len() <= Criteria::MAX_LATENCY_LIMITS,
                "the configuration limits the latency criteria"
            );
        }
        SplitTally {
            thresholds,
            workers: (0..workers).map(|_| OnceLock::new()).collect(),
            streak: Streak::new(),
        }
    }

    /// The thresholds of the latency criteria.
    pub fn thresholds(&self) -> &Thresholds {
        &self.thresholds
    }

    /// Where `worker` counts the requests assigned to `arm`.
    pub fn arm(&self, worker: WorkerId, arm: Arm) -> &ArmTally {
        &self.shard(worker).arms[arm]
    }

    /// Legacy answered after the attempt on `new` had failed. The failure is booked on `new` too.
    pub fn rescued(&self, worker: WorkerId, failure: Failure, cluster: Option<Cluster>) {
        let shard = self.shard(worker);
        shard.rescued[failure.index()].increment();
        if let Some(cluster) = cluster {
            shard.rescued_clusters.0[cluster.index()].increment();
        }
        shard.changes.announce();
    }

    /// The attempt on `new` failed, was replayed on legacy, and the replay failed as well.
    pub fn rescue_failed(&self, worker: WorkerId, failure: Failure) {
        let shard = self.shard(worker);
        shard.rescue_failed[failure.index()].increment();
        shard.changes.announce();
    }

    /// The attempt on `new` failed, and the client left while legacy was asked.
    pub fn rescue_cancelled(&self, worker: WorkerId, failure: Failure) {
        let shard = self.shard(worker);
        shard.rescue_cancelled[failure.index()].increment();
        shard.changes.announce();
    }

    /// The attempt on `new` failed and was not replayed.
    pub fn not_replayed(&self, worker: WorkerId, refusal: Refusal) {
        let shard = self.shard(worker);
        shard.not_replayed[refusal.index()].increment();
        shard.changes.announce();
    }

    /// A request assigned to `new` went to legacy without an attempt. This does not touch
    /// [`SplitTally::streak`].
    pub fn diverted(&self, worker: WorkerId, diversion: Diversion, cluster: Option<Cluster>) {
        let shard = self.shard(worker);
        let counters = match cluster {
            Some(_) => &shard.diverted,
            None => &shard.diverted_overridden,
        };
        counters[diversion.index()].increment();
        if let Some(cluster) = cluster {
            shard.diverted_clusters.0[cluster.index()].increment();
        }
        shard.changes.announce();
    }

    /// A rescue ended 401, 403 or 404: legacy may not know what `new` had created.
    pub fn fallback_mismatch(&self, worker: WorkerId) {
        let shard = self.shard(worker);
        shard.fallback_mismatches.increment();
        shard.changes.announce();
    }

    /// A request came with a JWT that could not be verified and counted as absent.
    pub fn unverifiable_token(&self, worker: WorkerId) {
        let shard = self.shard(worker);
        shard.unverifiable_tokens.increment();
        shard.changes.announce();
    }

    /// Failures of `new` in a row. Booking an outcome does not touch it: whether a failure or a
    /// success is one of `new` is known to the caller alone.
    pub fn streak(&self) -> &Streak {
        &self.streak
    }

    /// Differs from what it was whenever a [reading](Self::reading) would, if it is asked for before
    /// the reading: what is counted in between differs again the next time.
    pub fn changes(&self) -> u64 {
        let shards = self.shards().map(|shard| {
            let arms = Arm::ALL.iter().map(|arm| shard.arms[*arm].changes.seen());
            arms.fold(shard.changes.seen(), u64::wrapping_add)
        });
        shards.fold(self.streak.changes(), u64::wrapping_add)
    }

    /// Counts of nothing, as a window has them in which nothing happened.
    pub fn nothing(&self) -> ArmCounts {
        ArmCounts {
            latency: vec![Clustered::default(); self.thresholds.first_byte.len()],
            total_latency: vec![Clustered::default(); self.thresholds.total.len()],
            ..ArmCounts::default()
        }
    }

    /// What all workers counted so far.
    pub fn reading(&self) -> SplitReading {
        let mut reading = SplitReading {
            evidence: PerArm::from_fn(|_| self.nothing()),
            streak: self.streak.reading(),
            figures: PerArm::from_fn(|_| ArmFigures::default()),
            rescued: [0; FAILURES],
            rescue_failed: [0; FAILURES],
            rescue_cancelled: [0; FAILURES],
            not_replayed: [0; REFUSALS],
            diverted: [0; DIVERSIONS],
            diverted_overridden: [0; DIVERSIONS],
            fallback_mismatches: 0,
            unverifiable_tokens: 0,
        };
        for shard in self.shards() {
            for arm in Arm::ALL {
                shard.arms[arm].add_to(&mut reading.evidence[arm], &mut reading.figures[arm]);
            }
            add_all(&mut reading.rescued, &shard.rescued);
            add_all(&mut reading.rescue_failed, &shard.rescue_failed);
            add_all(&mut reading.rescue_cancelled, &shard.rescue_cancelled);
            add_all(&mut reading.not_replayed, &shard.not_replayed);
            add_all(&mut reading.diverted, &shard.diverted);
            add_all(&mut reading.diverted_overridden, &shard.diverted_overridden);
            reading.fallback_mismatches += shard.fallback_mismatches.value();
            reading.unverifiable_tokens += shard.unverifiable_tokens.value();
        }
        self.add_detours(&mut reading.evidence);
        reading
    }

    /// Availability and fallbacks count requests that the arm did not get, or did not answer, on
    /// top of those that it decided.
    fn add_detours(&self, evidence: &mut PerArm<ArmCounts>) {
        for arm in Arm::ALL {
            let counts = &mut evidence[arm];
            counts.availability.clone_from(&counts.errors);
            counts.fallback.clone_from(&counts.errors);
            counts.fallback.total.e = 0;
            for pair in &mut counts.fallback.clusters {
                pair.e = 0;
            }
        }
        let new = &mut evidence.new;
        for cluster in 0..Cluster::COUNT {
            let sum = |counters: fn(&SplitShard) -> &ByCluster| -> u64 {
                let shards = self.shards();
                shards.map(|shard| counters(shard).0[cluster].value()).sum()
            };
            let diverted = sum(|shard| &shard.diverted_clusters);
            let rescued = sum(|shard| &shard.rescued_clusters);
            let not_tried = Pair {
                n: diverted,
                e: diverted,
            };
            new.availability.count(cluster, not_tried);
            let not_answered = Pair {
                n: diverted,
                e: diverted + rescued,
            };
            new.fallback.count(cluster, not_answered);
        }
    }

    fn shard(&self, worker: WorkerId) -> &SplitShard {
        self.workers[worker.0].get_or_init(|| Box::new(SplitShard::new(&self.thresholds)))
    }

    fn shards(&self) -> impl Iterator<Item = &SplitShard> {
        self.workers
            .iter()
            .filter_map(|shard| shard.get().map(|shard| &**shard))
    }
}

/// One worker's outcomes of the requests assigned to one arm.
#[derive(Debug)]
pub struct ArmTally {
    /// By cluster, then by class.
    outcomes: [[Counter; CLASSES]; Cluster::COUNT],
    /// By class, without a cluster.
    overridden: [Counter; CLASSES],
    /// By [`Measure::index`].
    latency: [Latency; Measure::ALL.len()],
    first_byte: HistogramShard,
    total: HistogramShard,
    /// How often any of these was written.
    changes: Counter,
}

impl ArmTally {
    fn new(thresholds: &Thresholds) -> Self {
        let latency = Measure::ALL.map(|measure| Latency::new(thresholds.on(measure).len()));
        Self {
            outcomes: std::array::from_fn(|_| <[Counter; CLASSES]>::default()),
            overridden: <[Counter; CLASSES]>::default(),
            latency,
            first_byte: HistogramShard::default(),
            total: HistogramShard::default(),
            changes: Counter::default(),
        }
    }

    /// How a request ended. Without a cluster it is no evidence and only displayed.
    pub fn book(&self, class: Class, cluster: Option<Cluster>) {
        let outcomes = match cluster {
            Some(cluster) => &self.outcomes[cluster.index()],
            None => &self.overridden,
        };
        outcomes[class.index()].increment();
        self.changes.announce();
    }

    /// A stream that was already booked a success has been truncated: one more request, and an
    /// error.
    pub fn book_late_truncation(&self, cluster: Option<Cluster>) {
        self.book(Class::Transport, cluster);
    }

    /// Whether a request reached the age of `threshold`, an index into the
    /// [`SplitTally::thresholds`] on `measure`, without what is measured. Without a cluster it is
    /// no evidence.
    ///
    /// # Panics
    /// If the tally has no such threshold.
    pub fn latency(
        &self,
        measure: Measure,
        threshold: usize,
        exceeded: bool,
        cluster: Option<Cluster>,
    ) {
        if let Some(cluster) = cluster {
            self.latency[measure.index()].count(threshold, exceeded, cluster);
            self.changes.announce();
        }
    }

    /// The time from the request's head to the first byte of the answer. To be called for the
    /// requests that are evidence, so that a quantile speaks of the same requests as the counts.
    pub fn first_byte(&self, elapsed: Duration) {
        self.first_byte.record(elapsed);
        self.changes.announce();
    }

    /// The time from the request's head to the answer's end, under the same rule as
    /// [`ArmTally::first_byte`].
    pub fn total(&self, elapsed: Duration) {
        self.total.record(elapsed);
        self.changes.announce();
    }

    fn add_to(&self, evidence: &mut ArmCounts, figures: &mut ArmFigures) {
        for (cluster, outcomes) in self.outcomes.iter().enumerate() {
            let mut counts = [0; CLASSES];
            add_all(&mut counts, outcomes);
            let booked = Pair {
                n: Class::ALL
                    .iter()
                    .filter(|class| **class != Class::Cancelled)
                    .map(|class| counts[class.index()])
                    .sum(),
                e: Class::ALL
                    .iter()
                    .filter(|class| class.is_error())
                    .map(|class| counts[class.index()])
                    .sum(),
            };
            evidence.errors.count(cluster, booked);
            let blamed_on_clients = Pair {
                n: booked.n,
                e: counts[Class::ClientError.index()],
            };
            evidence.client_errors.count(cluster, blamed_on_clients);
            for (sum, count) in figures.classes.iter_mut().zip(counts) {
                *sum += count;
            }
        }
        let [first_byte, total] = &self.latency;
        first_byte.add_to(&mut evidence.latency);
        total.add_to(&mut evidence.total_latency);
        add_all(&mut figures.overridden, &self.overridden);
        self.first_byte.add_to(&mut figures.first_byte);
        self.total.add_to(&mut figures.total);
    }
}

/// What was counted about one split, over all workers and since the tally was made.
#[derive(Clone, Debug)]
pub struct SplitReading {
    /// What the judge sees: assigned by share, with a session key, decided.
    pub evidence: PerArm<ArmCounts>,
    /// Failures of `new` in a row.
    pub streak: StreakReading,
    /// What is shown.
    pub figures: PerArm<ArmFigures>,
    /// Answered by legacy after `new` failed, by [`Failure::index`].
    pub rescued: [u64; FAILURES],
    /// Failed on `new` and on legacy, by the failure of `new`.
    pub rescue_failed: [u64; FAILURES],
    /// Replays whose client left before legacy had answered, in the order of
    /// [`Failure::LABELS`].
    pub rescue_cancelled: [u64; FAILURES],
    /// Failed on `new` and not replayed, by [`Refusal::index`].
    pub not_replayed: [u64; REFUSALS],
    /// Sent to legacy without an attempt on `new`, by [`Diversion::index`].
    pub diverted: [u64; DIVERSIONS],
    /// The same for requests that are no evidence.
    pub diverted_overridden: [u64; DIVERSIONS],
    /// Rescues that ended 401, 403 or 404.
    pub fallback_mismatches: u64,
    /// Tokens that could not be verified.
    pub unverifiable_tokens: u64,
}

/// What is shown about one arm beyond the judge's counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArmFigures {
    /// Outcomes that are evidence, and cancellations, by [`Class::index`].
    pub classes: [u64; CLASSES],
    /// Outcomes that are no evidence, by [`Class::index`].
    pub overridden: [u64; CLASSES],
    /// Time to the first byte.
    pub first_byte: Histogram,
    /// Time to the end of the answer.
    pub total: Histogram,
}

/// Everything counted about the attempts on one backend.
#[derive(Debug)]
pub struct AttemptTally {
    workers: Box<[AttemptShard]>,
}

impl AttemptTally {
    /// A tally for `workers` workers.
    pub fn new(workers: usize) -> AttemptTally {
        AttemptTally {
            workers: (0..workers).map(|_| AttemptShard::default()).collect(),
        }
    }

    /// How one try of a request at one endpoint ended.
    pub fn attempt(&self, worker: WorkerId, result: Result<(), Failure>) {
        let shard = self.shard(worker);
        match result {
            Ok(()) => shard.succeeded.increment(),
            Err(failure) => shard.failed[failure.index()].increment(),
        }
    }

    /// The request was tried again at another endpoint, or on another connection, of this backend.
    pub fn retried(&self, worker: WorkerId) {
        self.shard(worker).retried.increment();
    }

    /// A connection was opened.
    pub fn connection_opened(&self, worker: WorkerId) {
        self.shard(worker).connections_opened.increment();
    }

    /// A kept-alive connection was used again.
    pub fn connection_reused(&self, worker: WorkerId) {
        self.shard(worker).connections_reused.increment();
    }

    /// What all workers counted so far.
    pub fn reading(&self) -> AttemptReading {
        let mut reading = AttemptReading::default();
        for shard in &self.workers {
            reading.succeeded += shard.succeeded.value();
            add_all(&mut reading.failed, &shard.failed);
            reading.retried += shard.retried.value();
            reading.connections_opened += shard.connections_opened.value();
            reading.connections_reused += shard.connections_reused.value();
        }
        reading
    }

    fn shard(&self, worker: WorkerId) -> &AttemptShard {
        &self.workers[worker.0]
    }
}

/// What was counted about the attempts on one backend, over all workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttemptReading {
    /// Attempts that were answered.
    pub succeeded: u64,
    /// Attempts that failed, by [`Failure::index`].
    pub failed: [u64; FAILURES],
    /// Second tries within the backend.
    pub retried: u64,
    /// Connections opened.
    pub connections_opened: u64,
    /// Kept-alive connections used again.
    pub connections_reused: u64,
}

/// One worker's counters of a split. Aligned so that no other worker writes to its cache lines;
/// 128 rather than 64 because processors fetch lines in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct SplitShard {
    arms: PerArm<ArmTally>,
    rescued: [Counter; FAILURES],
    rescue_failed: [Counter; FAILURES],
    rescue_cancelled: [Counter; FAILURES],
    not_replayed: [Counter; REFUSALS],
    diverted: [Counter; DIVERSIONS],
    diverted_overridden: [Counter; DIVERSIONS],
    /// Of the requests that are evidence, by cluster.
    rescued_clusters: ByCluster,
    /// The same of those that were diverted.
    diverted_clusters: ByCluster,
    fallback_mismatches: Counter,
    unverifiable_tokens: Counter,
    /// How often any of these was written, those of the arms left out.
    changes: Counter,
}

impl SplitShard {
    fn new(thresholds: &Thresholds) -> Self {
        Self {
            arms: PerArm::from_fn(|_| ArmTally::new(thresholds)),
            rescued: <[Counter; FAILURES]>::default(),
            rescue_failed: <[Counter; FAILURES]>::default(),
            rescue_cancelled: <[Counter; FAILURES]>::default(),
            not_replayed: <[Counter; REFUSALS]>::default(),
            diverted: <[Counter; DIVERSIONS]>::default(),
            diverted_overridden: <[Counter; DIVERSIONS]>::default(),
            rescued_clusters: ByCluster::default(),
            diverted_clusters: ByCluster::default(),
            fallback_mismatches: Counter::default(),
            unverifiable_tokens: Counter::default(),
            changes: Counter::default(),
        }
    }
}

/// One counter for each cluster.
#[derive(Debug)]
struct ByCluster([Counter; Cluster::COUNT]);

impl Default for ByCluster {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

/// One worker's counters of a backend, aligned like [`SplitShard`].
#[derive(Debug, Default)]
#[repr(align(128))]
struct AttemptShard {
    succeeded: Counter,
    failed: [Counter; FAILURES],
    retried: Counter,
    connections_opened: Counter,
    connections_reused: Counter,
}

#[cfg(test)]
mod tests;
