//! What legacy's traffic teaches about bunching, for each kind of event once.
//!
//! Several criteria speak of the same events: an absolute limit, a comparison and a requirement on
//! errors share one dispersion. It outlives a rollout, since legacy does too.

use serde::{Deserialize, Serialize};

use super::overdispersion::{Dispersion, PRIOR};
use super::source::{Counts, Event};
use super::window::Window;
use crate::policy::criteria::{Criteria, LatencyLimits, Metric, Overdispersion};

/// The dispersions of all events that the criteria speak of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Learnt {
    kinds: Vec<Learner>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Learner {
    kind: Kind,
    dispersion: Dispersion,
}

/// Events that come in the same bunches.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// Errors. On legacy, what is not answered well is an error, so they stand for availability and
    /// fallbacks too.
    Errors,
    ClientErrors,
    /// Requests slower than this many seconds, to the first byte.
    SlowFirstByte(f64),
    /// The same, to the answer's end.
    SlowTotal(f64),
}

impl Kind {
    /// None for slowness against legacy, which has no fixed limit.
    fn of(event: Event) -> Option<Kind> {
        match (event.metric, event.limit) {
            (Metric::ErrorRate | Metric::Availability | Metric::FallbackRate, _) => {
                Some(Kind::Errors)
            }
            (Metric::ClientErrorRate, _) => Some(Kind::ClientErrors),
            (Metric::Latency(_), Some(limit)) => Some(Kind::SlowFirstByte(limit)),
            (Metric::TotalLatency(_), Some(limit)) => Some(Kind::SlowTotal(limit)),
            _ => None,
        }
    }

    fn event(self) -> Event {
        let (metric, limit) = match self {
            Kind::Errors => (Metric::ErrorRate, None),
            Kind::ClientErrors => (Metric::ClientErrorRate, None),
            Kind::SlowFirstByte(limit) => (Metric::Latency(0), Some(limit)),
            Kind::SlowTotal(limit) => (Metric::TotalLatency(0), Some(limit)),
        };
        Event { metric, limit }
    }

    const fn is_slow(self) -> bool {
        matches!(self, Kind::SlowFirstByte(_) | Kind::SlowTotal(_))
    }
}

impl Learnt {
    /// Learns about these criteria from now on, and keeps what was learnt about them before. Limits
    /// that are counted for other stages are learnt about as well: when such a stage begins, its
    /// bunches are known.
    pub(super) fn reconfigure(&mut self, criteria: &Criteria) {
        let harms = criteria.rollback.iter();
        let harms = harms.map(|criterion| Event::of_harm(criterion.metric, criterion.harm));
        let proofs = criteria.advance.iter();
        let proofs = proofs.map(|needed| Event::of_proof(needed.metric, needed.proof));
        let limits = criteria.latency_limits();
        let first_byte = limits.first_byte.into_iter().map(Kind::SlowFirstByte);
        let counted = first_byte.chain(limits.total.into_iter().map(Kind::SlowTotal));
        let mut kinds: Vec<Learner> = Vec::new();
        for kind in harms.chain(proofs).filter_map(Kind::of).chain(counted) {
            if kinds.iter().any(|learner| learner.kind == kind) {
                continue;
            }
            let known = self.kinds.iter().find(|learner| learner.kind == kind);
            kinds.push(known.cloned().unwrap_or(Learner {
                kind,
                dispersion: Dispersion::default(),
            }));
        }
        self.kinds = kinds;
    }

    /// Renews the estimates that are due; to be called before a window is judged.
    pub(super) fn renew_if_due(&mut self) {
        for learner in &mut self.kinds {
            learner.dispersion.renew_if_due();
        }
    }

    /// Seconds until the next estimate is due.
    pub(super) fn renewal_left(&self) -> f64 {
        let left = self
            .kinds
            .iter()
            .map(|learner| learner.dispersion.renewal_left());
        left.fold(f64::INFINITY, f64::min)
    }

    /// Takes in legacy's counts; to be called after a window was judged.
    pub(super) fn learn(&mut self, window: &Window, limits: &LatencyLimits) {
        for learner in &mut self.kinds {
            if let Some(counts) = Counts::of(window, learner.kind.event(), limits) {
                learner.dispersion.learn(counts.legacy, window.seconds);
            }
        }
    }

    /// The dispersion by which evidence about `event` is divided.
    pub(super) fn phi(&self, event: Event, criteria: &Criteria) -> f64 {
        let setting = if event.metric.is_latency() {
            criteria.latency_overdispersion
        } else {
            criteria.overdispersion
        };
        match setting {
            Overdispersion::Fixed(phi) => phi.max(1.0),
            Overdispersion::Auto => self.estimate(event),
        }
    }

    /// Slowness against legacy has a moving limit that nothing is counted for; the worst of the
    /// fixed limits stands for it.
    fn estimate(&self, event: Event) -> f64 {
        let kind = Kind::of(event);
        let meant = self.kinds.iter().filter(|learner| match kind {
            Some(kind) => learner.kind == kind,
            None => learner.kind.is_slow(),
        });
        let phi = meant.map(|learner| learner.dispersion.phi());
        phi.reduce(f64::max).unwrap_or(PRIOR)
    }
}
