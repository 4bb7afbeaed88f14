//! One criterion under observation: the evidence on both arms, and what was counted since the
//! trouble is thought to have begun.

use serde::{Deserialize, Serialize};

use super::detector::Detector;
use super::guards::{self, Guard};
use super::kernels::{ALTERNATIVES, BreachKernel};
use super::overdispersion::Dispersion;
use super::window::{Clustered, Pair, Window};
use crate::policy::criteria::{Criteria, Criterion, Metric, Overdispersion, WhenLegacyToo};
use crate::policy::key::Cluster;
use crate::policy::rollout::Condition;
use crate::policy::time::Timestamp;

/// Evidence against legacy, over the seconds in which `new` is bad, that counts as "legacy too".
/// Modest, since a hold is the milder mistake and ends as soon as legacy's counts improve.
const LEGACY_ODDS: f64 = 20.0;

/// One criterion under observation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Watch {
    criterion: Criterion,
    kernel: BreachKernel,
    new: Detector,
    /// Legacy, judged for the same limit over the same seconds.
    legacy: Detector,
    /// Counted since each alternative's suspected start.
    since: [Tally; ALTERNATIVES],
    /// Counted since the evidence was fresh.
    all: Tally,
    dispersion: Dispersion,
}

/// What was counted from some moment on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tally {
    pub(super) new: Pair,
    pub(super) legacy: Pair,
    /// Events of `new` per cluster.
    pub(super) clusters: Vec<u64>,
}

/// Where a criterion stands, in rising order of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// Nothing was sent to `new`.
    Untested,
    /// The evidence is below the threshold.
    Quiet,
    /// The evidence suffices; too little stands behind it to act.
    Doubted(Guard),
    /// The limit is breached; acting would help nobody.
    Held(Guard),
    /// The limit is breached.
    Breached,
}

impl Finding {
    /// Larger for more trouble; the guard makes no difference.
    pub(super) const fn rank(self) -> u8 {
        match self {
            Finding::Untested => 0,
            Finding::Quiet => 1,
            Finding::Doubted(_) => 2,
            Finding::Held(_) => 3,
            Finding::Breached => 4,
        }
    }
}

/// What all criteria of a split have in common at one moment.
#[derive(Clone, Copy)]
pub(super) struct Bench<'a> {
    pub(super) criteria: &'a Criteria,
    pub(super) clusters_seen: u32,
    pub(super) legacy_available: bool,
}

impl Bench<'_> {
    /// The evidence at which each criterion fires: the budget, shared out evenly.
    pub(super) fn threshold(&self) -> f64 {
        self.criteria.rollback.len() as f64 / self.criteria.alpha
    }
}

impl Watch {
    pub(super) fn new(criterion: Criterion, dispersion: Dispersion, now: Timestamp) -> Self {
        Self {
            criterion,
            kernel: BreachKernel::new(criterion.allowed_share()),
            new: Detector::new(now),
            legacy: Detector::new(now),
            since: std::array::from_fn(|_| Tally::default()),
            all: Tally::default(),
            dispersion,
        }
    }

    pub(super) fn criterion(&self) -> Criterion {
        self.criterion
    }

    /// What was learnt about bunching, if it holds for `criterion` too: one estimate for errors,
    /// one for each latency threshold.
    pub(super) fn dispersion_for(&self, criterion: Criterion) -> Option<&Dispersion> {
        let alike = match (self.criterion.metric, criterion.metric) {
            (Metric::ErrorRate, Metric::ErrorRate) => true,
            (Metric::Latency(_), Metric::Latency(_)) => self.criterion.limit == criterion.limit,
            _ => false,
        };
        alike.then_some(&self.dispersion)
    }

    /// The same criterion with fresh evidence; what was learnt about bunching stays.
    pub(super) fn refresh(&mut self, now: Timestamp) {
        *self = Watch::new(self.criterion, std::mem::take(&mut self.dispersion), now);
    }

    /// Judges both arms' counts of one window that began at `begin`.
    pub(super) fn observe(&mut self, counts: Counts<'_>, settings: &Criteria, begin: Timestamp) {
        self.dispersion.renew_if_due();
        let phi = self.phi(settings);
        let (new, legacy) = (counts.new.total, counts.legacy.total);

        let factors = self.kernel.log_factors(new);
        let restarted = self.new.step(factors, phi, counts.seconds, begin);
        let factors = self.kernel.log_factors(legacy);
        self.legacy.step(factors, phi, counts.seconds, begin);

        for (tally, restarted) in self.since.iter_mut().zip(restarted) {
            if restarted {
                tally.clear();
            }
            tally.add(&counts);
        }
        self.all.add(&counts);
        self.dispersion.learn(counts.legacy, counts.seconds);
    }

    /// Takes in legacy's counts of a window in which nothing is judged.
    pub(super) fn learn(&mut self, counts: Counts<'_>) {
        self.dispersion.renew_if_due();
        self.dispersion.learn(counts.legacy, counts.seconds);
    }

    pub(super) fn finding(&self, bench: Bench<'_>) -> Finding {
        if self.new.evidence() < bench.threshold() {
            return match self.all.new.n {
                0 => Finding::Untested,
                _ => Finding::Quiet,
            };
        }
        let criteria = bench.criteria;
        let too_young = matches!(self.criterion.metric, Metric::Latency(_))
            && self.all.new.n < criteria.min_latency_samples;
        if too_young {
            return Finding::Doubted(Guard::MinLatencySamples);
        }
        let tally = &self.since[self.new.leading()];
        let doubt =
            guards::too_few_callers(tally.new.e, &tally.clusters, bench.clusters_seen, criteria);
        if let Some(guard) = doubt {
            return Finding::Doubted(guard);
        }
        if !bench.legacy_available {
            return Finding::Held(Guard::LegacyUnavailable);
        }
        if self.legacy_too(bench) {
            return Finding::Held(Guard::WhenLegacyToo);
        }
        Finding::Breached
    }

    /// Whether legacy breaches the limit as well, and that is a reason to hold.
    ///
    /// Two questions, as either arm may be the first to suffer: has legacy's own detector fired,
    /// and what do legacy's counts say since the moment at which `new` is thought to have turned
    /// bad? That moment was found without looking at legacy, so the search for it need not be paid
    /// for again; without this, luck alone would decide which of two equally sick arms fires a
    /// tick earlier.
    pub(super) fn legacy_too(&self, bench: Bench<'_>) -> bool {
        if bench.criteria.when_legacy_too == WhenLegacyToo::Rollback {
            return false;
        }
        let leading = self.new.leading();
        let factors = self.kernel.log_factors(self.since[leading].legacy);
        let phi = self.phi(bench.criteria);
        let odds: f64 = factors.iter().map(|factor| (factor / phi).exp()).sum();
        odds / ALTERNATIVES as f64 >= LEGACY_ODDS || self.legacy.evidence() >= bench.threshold()
    }

    pub(super) fn evidence(&self) -> f64 {
        self.new.evidence()
    }

    /// When the trouble is thought to have begun, and what was counted since. Where nothing points
    /// to trouble: everything since the evidence was fresh.
    pub(super) fn suspicion(&self) -> (Option<Timestamp>, &Tally) {
        let leading = self.new.leading();
        match self.new.suspected_start(leading) {
            Some(start) => (Some(start), &self.since[leading]),
            None => (None, &self.all),
        }
    }

    /// The criterion as status, records and pages show it.
    pub(super) fn condition(&self, bench: Bench<'_>) -> Condition {
        let (since, tally) = self.suspicion();
        let (verdict, withheld_by) = match self.finding(bench) {
            Finding::Untested => ("inconclusive", None),
            Finding::Quiet => ("pass", None),
            Finding::Doubted(guard) => ("inconclusive", Some(guard)),
            Finding::Held(guard) => ("fail", Some(guard)),
            Finding::Breached => ("fail", None),
        };
        Condition {
            criterion: self.criterion.to_string(),
            value: tally.new.ratio(),
            limit: self.kernel.theta(),
            samples: tally.new.n,
            events: tally.new.e,
            evidence: self.new.evidence(),
            threshold: bench.threshold(),
            since: since.map(Timestamp::rfc3339),
            overdispersion: self.phi(bench.criteria),
            verdict: verdict.to_owned(),
            withheld_by: withheld_by.map(|guard| guard.to_string()),
        }
    }

    fn phi(&self, settings: &Criteria) -> f64 {
        match settings.overdispersion {
            Overdispersion::Auto => self.dispersion.phi(),
            Overdispersion::Fixed(phi) => phi.max(1.0),
        }
    }
}

/// One criterion's counts of one window.
#[derive(Clone, Copy)]
pub(super) struct Counts<'a> {
    pub(super) seconds: f64,
    pub(super) new: &'a Clustered,
    pub(super) legacy: &'a Clustered,
}

impl<'a> Counts<'a> {
    /// The counts that `metric` is about; `latency_index` is its place among the latency criteria.
    /// None if the window was counted for other criteria than these.
    pub(super) fn of(window: &'a Window, metric: Metric, latency_index: usize) -> Option<Self> {
        let (new, legacy) = match metric {
            Metric::ErrorRate => (&window.new.errors, &window.legacy.errors),
            Metric::Latency(_) => (
                window.new.latency.get(latency_index)?,
                window.legacy.latency.get(latency_index)?,
            ),
        };
        Some(Self {
            seconds: window.seconds,
            new,
            legacy,
        })
    }
}

impl Tally {
    fn add(&mut self, counts: &Counts<'_>) {
        self.new.add(counts.new.total);
        self.legacy.add(counts.legacy.total);
        if counts.new.total.e > 0 {
            for (events, cluster) in self.clusters.iter_mut().zip(&counts.new.clusters) {
                *events += cluster.e;
            }
        }
    }

    fn clear(&mut self) {
        // Nearly every window of a healthy arm comes here with nothing to wipe.
        if self.new.e > 0 {
            self.clusters.fill(0);
        }
        self.new = Pair::default();
        self.legacy = Pair::default();
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            new: Pair::default(),
            legacy: Pair::default(),
            clusters: vec![0; Cluster::COUNT],
        }
    }
}
