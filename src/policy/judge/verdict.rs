//! What one look at a split has found.

use super::guards::{self, Guard};
use super::lack::Lack;
use super::watch::{Bench, Watch};
use super::window::Pair;
use crate::policy::criteria::Criterion;
use crate::policy::time::Timestamp;

/// What one look at a split has found.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// No criterion is breached, and everything is proven that an advance needs.
    Pass,
    /// Roll back.
    Fail(Breach),
    /// A limit is breached, but rolling back would help nobody (and which guard says so), or the
    /// criterion asks for no more than a hold.
    Hold(Breach, Option<Guard>),
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
    /// Evidence against its promise, as odds; [`LimitBreach::evidence_cap`] means at least that.
    pub evidence: f64,
    /// The evidence that was needed.
    pub threshold: f64,
    /// Evidence beyond this is not told apart any more.
    pub evidence_cap: f64,
    /// When the trouble is thought to have begun.
    pub since: Option<Timestamp>,
    /// Requests of `new` and the events among them.
    pub new: Pair,
    /// The same of legacy.
    pub legacy: Pair,
    /// From how many session groups the events of `new` come; the requests, where latency is
    /// compared with legacy's.
    pub clusters: u32,
}

impl LimitBreach {
    pub(super) fn of(watch: &Watch, bench: Bench<'_>) -> Self {
        let (since, tally) = watch.suspicion();
        Self {
            criterion: watch.criterion(),
            evidence: watch.evidence(),
            threshold: bench.threshold(),
            evidence_cap: bench.criteria.expert.evidence_cap,
            since,
            new: tally.counts.new,
            legacy: tally.counts.legacy,
            clusters: guards::bad_clusters(&tally.clusters),
        }
    }
}
