//! Stops sending keys to a `new` that does not answer at all.
//!
//! Without it every request would first wait for a dead arm and only then be rescued. The mistake
//! to avoid is believing one caller: a poison client whose requests kill their own connections
//! would divert everybody else. So failures must come from several clusters of sessions, unless
//! fewer ever sent anything.
//!
//! The state is one word, shared by all workers. Zero is closed, and finding that out is one
//! relaxed load. Otherwise it is the time at which the next request may probe, shifted left by
//! one, and a bit that says whether a probe is under way. Admitting a probe moves that time on by
//! one period, so a probe that never reports costs a period and wedges nothing.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::config::model::BreakerSettings;
use crate::policy::key::Cluster;
use crate::policy::time::Elapsed;

const CLOSED: u64 = 0;
const PROBING: u64 = 1;

/// The breaker of one split.
///
/// Each request asks [`Breaker::admit`] once and, unless the answer is [`Admission::Open`],
/// reports once with what it was answered: [`Breaker::success`], [`Breaker::failure`] (only
/// failures to answer at all, see [`crate::policy::class::Failure::is_transport`]; an answer with
/// an error status is a success here) or [`Breaker::abandoned`].
#[derive(Debug)]
pub struct Breaker {
    split: String,
    settings: BreakerSettings,
    min_bad_clusters: u32,
    state: AtomicU64,
    failures_in_a_row: AtomicU32,
    /// One bit per cluster among the failures in a row.
    failing: AtomicU64,
    /// One bit per cluster that ever reported.
    seen: AtomicU64,
}

/// Whether a request may go to `new`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Yes, as usual.
    Closed,
    /// Yes, and the breaker's fate hangs on it.
    Probe,
    /// No; there is nothing to report.
    Open,
}

impl Breaker {
    /// A closed breaker of `split`, which opens when failures come from `min_bad_clusters`
    /// clusters, or from all that ever sent anything where these are fewer.
    pub fn new(split: &str, settings: BreakerSettings, min_bad_clusters: u32) -> Breaker {
        Breaker {
            split: split.to_owned(),
            settings,
            min_bad_clusters,
            state: AtomicU64::new(CLOSED),
            failures_in_a_row: AtomicU32::new(0),
            failing: AtomicU64::new(0),
            seen: AtomicU64::new(0),
        }
    }

    /// Whether a request may go to `new` at `now`.
    pub fn admit(&self, now: Elapsed) -> Admission {
        let state = self.state.load(Ordering::Relaxed);
        if state == CLOSED {
            return Admission::Closed;
        }
        if now < probe_time(state) {
            return Admission::Open;
        }
        let probing = self.open_until_next_probe(now) | PROBING;
        match self
            .state
            .compare_exchange(state, probing, Ordering::AcqRel, Ordering::Relaxed)
        {
            Ok(_) => Admission::Probe,
            Err(CLOSED) => Admission::Closed,
            Err(_) => Admission::Open,
        }
    }

    /// `new` answered. Failures start over; a probe closes the breaker. What was admitted before
    /// the breaker opened says nothing about now and changes nothing.
    pub fn success(&self, admission: Admission, cluster: Option<Cluster>) {
        self.see(cluster);
        match admission {
            Admission::Closed => {
                if self.failures_in_a_row.load(Ordering::Relaxed) != 0 {
                    self.start_over();
                }
            }
            Admission::Probe => {
                self.start_over();
                if self.state.swap(CLOSED, Ordering::AcqRel) != CLOSED {
                    tracing::info!(split = %self.split, "breaker closed: a probe was answered");
                }
            }
            Admission::Open => {}
        }
    }

    /// `new` did not answer. `cluster` is absent for requests without a key.
    pub fn failure(&self, admission: Admission, cluster: Option<Cluster>, now: Elapsed) {
        self.see(cluster);
        match admission {
            Admission::Closed => self.count_failure(cluster, now),
            Admission::Probe => self.reopen(now),
            Admission::Open => {}
        }
    }

    /// The request ended without a verdict: its client went away. The next probe comes when it
    /// would have come anyway.
    pub fn abandoned(&self, admission: Admission) {
        if admission == Admission::Probe {
            // Closed stays closed: its probing bit is never set.
            self.state.fetch_and(!PROBING, Ordering::AcqRel);
        }
    }

    /// Closes it, because `new` is to be judged afresh: what it would divert until its next probe
    /// says nothing about the arm as it is now, and would count against it.
    pub fn reset(&self) {
        self.start_over();
        if self.state.swap(CLOSED, Ordering::AcqRel) != CLOSED {
            tracing::info!(split = %self.split, "breaker closed: the new arm gets a fresh start");
        }
    }

    /// `closed`, `open` or `half_open`, for status and metrics. Half open is an open breaker with
    /// a probe under way, or due.
    pub fn state(&self, now: Elapsed) -> &'static str {
        match self.state.load(Ordering::Relaxed) {
            CLOSED => "closed",
            state if state & PROBING != 0 || now >= probe_time(state) => "half_open",
            _ => "open",
        }
    }

    fn count_failure(&self, cluster: Option<Cluster>, now: Elapsed) {
        if self.state.load(Ordering::Relaxed) != CLOSED {
            return;
        }
        let failing = self.failing.fetch_or(mask(cluster), Ordering::Relaxed) | mask(cluster);
        let failures = self
            .failures_in_a_row
            .fetch_add(1, Ordering::Relaxed)
            .saturating_add(1);
        let seen = self.seen.load(Ordering::Relaxed).count_ones();
        let enough_clusters = failing.count_ones() >= self.min_bad_clusters.min(seen);
        if failures < self.settings.consecutive_failures || !enough_clusters {
            return;
        }
        let open = self.open_until_next_probe(now);
        if self
            .state
            .compare_exchange(CLOSED, open, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
        {
            tracing::info!(
                split = %self.split,
                failures,
                clusters = failing.count_ones(),
                "breaker opened: the new arm does not answer",
            );
        }
    }

    /// A probe failed: the next one comes a whole period from now. A breaker that another probe
    /// has closed meanwhile stays closed.
    fn reopen(&self, now: Elapsed) {
        let open = self.open_until_next_probe(now);
        let unless_closed = |state| (state != CLOSED).then_some(open);
        // An error means it is closed, which is what the sentence above wants.
        let _ = self
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, unless_closed);
    }

    /// The word for an open breaker at `now` without a probe; never [`CLOSED`], whatever the time
    /// and the period.
    fn open_until_next_probe(&self, now: Elapsed) -> u64 {
        let next = now.plus(self.settings.open_for).milliseconds();
        next.clamp(1, u64::MAX >> 1) << 1
    }

    fn start_over(&self) {
        self.failures_in_a_row.store(0, Ordering::Relaxed);
        self.failing.store(0, Ordering::Relaxed);
    }

    fn see(&self, cluster: Option<Cluster>) {
        let mask = mask(cluster);
        // A load first: after the first requests nothing is written, so the line stays shared.
        if self.seen.load(Ordering::Relaxed) & mask != mask {
            self.seen.fetch_or(mask, Ordering::Relaxed);
        }
    }
}

fn mask(cluster: Option<Cluster>) -> u64 {
    cluster.map_or(0, |cluster| 1 << cluster.index())
}

fn probe_time(state: u64) -> Elapsed {
    Elapsed::from_milliseconds(state >> 1)
}

#[cfg(test)]
mod tests;
