//! From counts to a verdict.
//!
//! Looking at an error rate ten times a second and acting when it exceeds a limit cries wolf within
//! the hour. So [`kernels`] turns each window into evidence that stays valid however often one
//! looks, [`detector`] adds it up without letting good hours hide a bad minute, [`overdispersion`]
//! discounts failures that come in bunches, and [`guards`] asks whether acting would be just.
//! [`Judge`] puts them together; what it knows is plain data, [`Evidence`], and the same windows
//! always give the same evidence, bit for bit.

mod detector;
pub mod guards;
mod kernels;
mod overdispersion;
mod streak;
mod watch;
pub mod window;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;

use serde::{Deserialize, Serialize};

use self::guards::Guard;
use self::streak::Streak;
use self::watch::{Bench, Counts, Finding, Watch};
use self::window::{Pair, Window};
use super::criteria::{Criteria, Criterion, Metric};
use super::key::Cluster;
use super::rollout::Condition;
use super::time::Timestamp;

/// Evidence beyond this is not told apart any more.
pub const EVIDENCE_CAP: f64 = detector::CAP;

/// What one look at a split has found.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Every criterion is tested and none is breached.
    Pass,
    /// Roll back.
    Fail(Breach),
    /// A limit is breached, but rolling back would help nobody.
    Hold(Breach, Guard),
    /// Something is lacking.
    Inconclusive(Lack),
}

/// A broken limit, with the figures for the sentence that reports it.
#[derive(Clone, Debug, PartialEq)]
pub enum Breach {
    /// The evidence against a criterion's promise suffices.
    Limit(LimitBreach),
    /// Requests to `new` failed or were diverted one after the other.
    Streak {
        /// How many.
        length: u64,
        /// From how many session groups.
        clusters: u32,
    },
}

/// A criterion whose evidence suffices. Counts are those since the suspected start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LimitBreach {
    /// The criterion.
    pub criterion: Criterion,
    /// Evidence against its promise, as odds; [`EVIDENCE_CAP`] means at least that.
    pub evidence: f64,
    /// The evidence that was needed.
    pub threshold: f64,
    /// When the trouble is thought to have begun.
    pub since: Option<Timestamp>,
    /// Requests of `new` and the events among them.
    pub new: Pair,
    /// The same of legacy.
    pub legacy: Pair,
    /// From how many session groups the events of `new` come.
    pub clusters: u32,
}

/// What a verdict lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// A criterion has seen no request of `new` yet.
    Traffic,
    /// The evidence suffices, but a guard asks for more behind it.
    Support(Guard),
}

/// Watches the criteria of one split. Give it every window: [`Judge::observe`] while `new` is on
/// trial, [`Judge::learn`] while it is not.
#[derive(Clone, Debug)]
pub struct Judge {
    criteria: Criteria,
    evidence: Evidence,
    streak: Streak,
}

/// All a judge knows; persisted, so that a restart neither forgets nor spends the false-rollback
/// budget again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    watches: Vec<Watch>,
    /// One bit per cluster that sent anything to `new` since the evidence was fresh.
    clusters_seen: u64,
    /// As of the last window.
    legacy_available: bool,
}

impl Judge {
    /// A judge without any evidence.
    pub fn new(criteria: Criteria, now: Timestamp) -> Self {
        let nothing = Evidence {
            watches: Vec::new(),
            clusters_seen: 0,
            legacy_available: true,
        };
        Self::restore(criteria, nothing, now)
    }

    /// A judge that goes on from `evidence`. Criteria it says nothing about begin afresh.
    pub fn restore(criteria: Criteria, evidence: Evidence, now: Timestamp) -> Self {
        let mut judge = Self {
            criteria: Criteria::default(),
            evidence,
            streak: Streak::default(),
        };
        judge.reconfigure(criteria, now);
        judge
    }

    /// Judges by other criteria from now on. Criteria that stay keep their evidence, others begin
    /// afresh, and what was learnt about bunching is kept wherever it applies.
    pub fn reconfigure(&mut self, criteria: Criteria, now: Timestamp) {
        let old = std::mem::take(&mut self.evidence.watches);
        self.evidence.watches = criteria
            .rollback
            .iter()
            .map(|criterion| {
                if let Some(same) = old.iter().find(|watch| watch.criterion() == *criterion) {
                    return same.clone();
                }
                let dispersion = old
                    .iter()
                    .find_map(|watch| watch.dispersion_for(*criterion));
                Watch::new(*criterion, dispersion.cloned().unwrap_or_default(), now)
            })
            .collect();
        self.criteria = criteria;
    }

    /// Forgets all evidence against `new`; what was learnt about bunching on legacy stays.
    pub fn refresh(&mut self, now: Timestamp) {
        for watch in &mut self.evidence.watches {
            watch.refresh(now);
        }
        self.evidence.clusters_seen = 0;
        self.streak.forgive();
    }

    /// Judges one window, which ends at `now`. Each window must be given once.
    pub fn observe(&mut self, window: &Window, now: Timestamp) -> Verdict {
        self.streak.read(&window.streak);
        self.evidence.legacy_available = window.legacy_available;
        let clusters = window.new.errors.clusters.iter().take(Cluster::COUNT);
        for (cluster, counts) in clusters.enumerate() {
            let seen = counts.n > 0 || self.streak.failures(cluster) > 0;
            self.evidence.clusters_seen |= u64::from(seen) << cluster;
        }
        let begin = beginning(window, now);
        self.with_counts(window, |watch, counts, criteria| {
            watch.observe(counts, criteria, begin);
        });
        self.verdict()
    }

    /// Takes in a window in which nothing is judged, as long as a rollback or an emergency keeps
    /// everyone on legacy: its bunching is learnt all the same, and failures of `new` are not held
    /// against it later.
    pub fn learn(&mut self, window: &Window) {
        self.streak.read(&window.streak);
        self.streak.forgive();
        self.evidence.legacy_available = window.legacy_available;
        self.with_counts(window, |watch, counts, _| watch.learn(counts));
    }

    /// Each criterion as it stands, in the criteria's order.
    pub fn conditions(&self) -> Vec<Condition> {
        let bench = self.bench();
        let watches = self.evidence.watches.iter();
        watches.map(|watch| watch.condition(bench)).collect()
    }

    /// All that must be kept to go on after a restart.
    pub const fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    fn with_counts(&mut self, window: &Window, mut act: impl FnMut(&mut Watch, Counts, &Criteria)) {
        let mut latency_index = 0;
        for watch in &mut self.evidence.watches {
            let metric = watch.criterion().metric;
            let counts = Counts::of(window, metric, latency_index);
            if matches!(metric, Metric::Latency(_)) {
                latency_index += 1;
            }
            if let Some(counts) = counts {
                act(watch, counts, &self.criteria);
            }
        }
    }

    fn verdict(&self) -> Verdict {
        if self.criteria.rollback.is_empty() {
            return Verdict::Pass;
        }
        let bench = self.bench();
        let mut worst: Option<(Finding, &Watch)> = None;
        let mut untested = false;
        for watch in &self.evidence.watches {
            let finding = watch.finding(bench);
            untested |= finding == Finding::Untested;
            let is_worse = worst.is_none_or(|(than, other)| {
                let (rank, other_rank) = (finding.rank(), than.rank());
                rank > other_rank || rank == other_rank && watch.evidence() > other.evidence()
            });
            if is_worse {
                worst = Some((finding, watch));
            }
        }
        let limit = match worst {
            Some((Finding::Breached, watch)) => {
                return Verdict::Fail(limit_breach(watch, bench));
            }
            other => other,
        };
        match (self.streak_verdict(bench), limit) {
            (Some(verdict @ Verdict::Fail(_)), _) => verdict,
            (_, Some((Finding::Held(guard), watch))) => {
                Verdict::Hold(limit_breach(watch, bench), guard)
            }
            (Some(verdict), _) => verdict,
            (None, Some((Finding::Doubted(guard), _))) => {
                Verdict::Inconclusive(Lack::Support(guard))
            }
            _ if untested => Verdict::Inconclusive(Lack::Traffic),
            _ => Verdict::Pass,
        }
    }

    /// The hard trip: so many failures in a row need no statistics.
    fn streak_verdict(&self, bench: Bench<'_>) -> Option<Verdict> {
        let length = self.streak.length();
        let by_cluster = self.streak.by_cluster();
        let long_enough = self.criteria.hard_fail > 0 && length >= self.criteria.hard_fail;
        let doubt =
            guards::too_few_callers(length, by_cluster, bench.clusters_seen, bench.criteria);
        if !long_enough || doubt.is_some() {
            return None;
        }
        let breach = Breach::Streak {
            length,
            clusters: guards::bad_clusters(by_cluster),
        };
        let legacy_fails_too =
            self.evidence.watches.iter().any(|watch| {
                watch.criterion().metric == Metric::ErrorRate && watch.legacy_too(bench)
            });
        Some(if !bench.legacy_available {
            Verdict::Hold(breach, Guard::LegacyUnavailable)
        } else if legacy_fails_too {
            Verdict::Hold(breach, Guard::WhenLegacyToo)
        } else {
            Verdict::Fail(breach)
        })
    }

    fn bench(&self) -> Bench<'_> {
        Bench {
            criteria: &self.criteria,
            clusters_seen: self.evidence.clusters_seen.count_ones(),
            legacy_available: self.evidence.legacy_available,
        }
    }
}

fn limit_breach(watch: &Watch, bench: Bench<'_>) -> Breach {
    let (since, tally) = watch.suspicion();
    Breach::Limit(LimitBreach {
        criterion: watch.criterion(),
        evidence: watch.evidence(),
        threshold: bench.threshold(),
        since,
        new: tally.new,
        legacy: tally.legacy,
        clusters: guards::bad_clusters(&tally.clusters),
    })
}

/// When a window that ends at `now` began.
fn beginning(window: &Window, now: Timestamp) -> Timestamp {
    let milliseconds = (window.seconds * 1_000.0).round() as i64;
    Timestamp::from_milliseconds(now.milliseconds().saturating_sub(milliseconds))
}
