//! What must hold of `new`, as the configuration states it.
//!
//! Two kinds of sentences, and two types, because mixing them up would promote on absence of proof:
//! a [`Criterion`] names harm, and acts once there is evidence *for* harm; a [`Requirement`] names
//! what an advance needs, and is met once there is evidence *for* health. Between the two lies
//! "nobody knows yet", which does nothing.

mod counted;
mod sentence;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::counted::LatencyLimits;
pub use self::sentence::{InvalidCriterion, InvalidRequirement};

use super::signal::{SignalCriterion, SignalRequirement};

/// What rolls a split back, what lets it advance, and the settings of the judgement.
///
/// Field names and defaults are those of the analysis specification.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Criteria {
    /// ANY of these acts.
    pub rollback: Vec<Criterion>,
    /// ALL of these must be proven before a stage may be left.
    pub advance: Vec<Requirement>,
    /// ANY of these acts as well: criteria on signals. They spend nothing of `alpha`.
    #[serde(default)]
    pub signal_rollback: Vec<SignalCriterion>,
    /// ALL of these must hold as well: requirements on signals.
    #[serde(default)]
    pub signal_advance: Vec<SignalRequirement>,
    /// False-rollback budget per 24 h and split, over all criteria together that roll back.
    /// Default 0.01.
    pub alpha: f64,
    /// Risk that a requirement counts as proven although it is violated. Default 0.05.
    pub alpha_advance: f64,
    /// The same for the last advance, the one to everybody. Default 0.01.
    pub alpha_promote: f64,
    /// Healthy time that a stage needs. Default 60 s.
    pub observe: Duration,
    /// Requests of `new` that a stage needs. Default 100.
    pub min_requests: u64,
    /// A smaller difference of error rates never acts, whatever the ratio. Default 0.0005.
    pub error_min_effect: f64,
    /// The same for client errors. Default 0.005.
    pub client_error_min_effect: f64,
    /// Quantiles, in hundredths, at which `latency` is compared with legacy's. Default 50 and 95.
    pub latency_quantiles: Vec<u8>,
    /// Errors of `new` needed since the suspected start. Default 3.
    pub min_events: u64,
    /// Distinct clusters among those errors. Default 3.
    pub min_bad_clusters: u32,
    /// The largest part of those errors that one cluster may supply. Default 0.5.
    pub max_cluster_share: f64,
    /// Seconds that a breach must last at least, however loud it is: one second supplies at most
    /// this fraction of the evidence needed. Default 1, which limits nothing.
    pub min_breach_windows: u32,
    /// Requests of `new` needed before a latency criterion may act. Default 20.
    pub min_latency_samples: u64,
    /// Time after the first request of `new` in which latency is not judged. Default 0.
    pub latency_warmup: Duration,
    /// Consecutive failed or diverted requests that roll back at once. Default 10.
    pub hard_fail: u64,
    /// How correlated the errors of a session are: a fixed factor, or estimated on legacy.
    pub overdispersion: Overdispersion,
    /// The same for slow answers.
    pub latency_overdispersion: Overdispersion,
    /// What happens when legacy breaches the same absolute limit in the same seconds.
    pub when_legacy_too: WhenLegacyToo,
    /// Settings that nobody needs to touch.
    pub expert: Expert,
    /// What the data plane counts where it counts more than these criteria name: the limits of the
    /// plan's other stages too. None: those of these criteria.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted: Option<LatencyLimits>,
}

/// The priors of the detectors.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Expert {
    /// The prior weight of "bad from the start"; the rest is spread over `alpha_horizon`.
    /// Default 0.5.
    pub start_weight: f64,
    /// The time over which the false-rollback budget is spent. Default 24 h.
    pub alpha_horizon: Duration,
    /// Evidence beyond this is not told apart. Default 1 000 000.
    pub evidence_cap: f64,
    /// `start_weight` of what an advance needs. Default 0.9.
    pub gate_start_weight: f64,
    /// `alpha_horizon` of what an advance needs. Default 1 h.
    pub advance_horizon: Duration,
}

/// Harm: what it is, and what is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Criterion {
    /// What is measured.
    pub metric: Metric,
    /// When it counts as harm.
    pub harm: Harm,
    /// How long the evidence must have sufficed without a break; zero acts at once.
    pub sustained: Duration,
    /// What is done.
    pub action: Action,
}

/// When a measure counts as harm.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Harm {
    /// It is worse than this limit, in the metric's unit: a ratio for rates, seconds for quantiles.
    /// Worse means higher, except for `availability`.
    Beyond(f64),
    /// It is worse than legacy's over the same seconds by more than this part of legacy's.
    WorseThanLegacy(f64),
}

/// What is done about harm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Everyone goes back to legacy.
    #[default]
    Rollback,
    /// The share stays where it is until the evidence has gone or a person decides.
    Hold,
    /// Somebody is told.
    Notify,
}

/// What an advance needs to be proven.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Requirement {
    /// What is measured.
    pub metric: Metric,
    /// How good it must be.
    pub proof: Proof,
}

/// How good a measure must be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// Better than this limit, in the metric's unit.
    Within(f64),
    /// A rate not above legacy's by more than this difference, a ratio.
    NotWorseThanLegacy(f64),
}

/// A measured quantity that a criterion may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Errors per decided request.
    ErrorRate,
    /// Client errors (4xx) per decided request.
    ClientErrorRate,
    /// The part of requests that `new` answered well: neither failed nor diverted.
    Availability,
    /// The part of requests that legacy answered in the place of `new`.
    FallbackRate,
    /// A quantile of the time to the first byte, given in hundredths: 50, 90, 95, 99.
    Latency(u8),
    /// A quantile of the time to the end of the answer, given in hundredths.
    TotalLatency(u8),
    /// The time to the first byte at all of [`Criteria::latency_quantiles`] together; only to be
    /// compared with legacy's.
    LatencyProfile,
}

/// How the dispersion factor phi is found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overdispersion {
    /// Estimated on legacy's clusters.
    Auto,
    /// At least 1.
    Fixed(f64),
}

/// What an absolute breach of `new` means while legacy breaches the same limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenLegacyToo {
    /// Hold and notify: moving everyone to an equally sick arm helps nobody.
    Hold,
    /// Roll back all the same.
    Rollback,
}

impl Criteria {
    /// The quantiles, in hundredths, at which a comparison of `metric` looks.
    pub(super) fn compared_quantiles(&self, metric: Metric) -> Vec<u8> {
        match metric {
            Metric::Latency(quantile) | Metric::TotalLatency(quantile) => vec![quantile],
            // Without any there would be nothing to compare; the configuration has at least one.
            Metric::LatencyProfile if self.latency_quantiles.is_empty() => vec![95],
            Metric::LatencyProfile => self.latency_quantiles.clone(),
            _ => Vec::new(),
        }
    }

    /// How many criteria share the false-rollback budget.
    pub fn spenders(&self) -> usize {
        let rollbacks = self.rollback.iter();
        rollbacks
            .filter(|criterion| criterion.action == Action::Rollback)
            .count()
    }
}

impl Default for Criteria {
    fn default() -> Self {
        Self {
            rollback: vec![
                Criterion::beyond(Metric::ErrorRate, 0.05),
                Criterion::beyond(Metric::Latency(95), 0.5),
                Criterion::worse_than_legacy(Metric::ErrorRate, 0.25),
                Criterion::worse_than_legacy(Metric::ClientErrorRate, 0.25),
            ],
            advance: vec![
                Requirement::within(Metric::ErrorRate, 0.01),
                Requirement::within(Metric::Latency(95), 0.2),
                Requirement::not_worse_than_legacy(Metric::ErrorRate, 0.005),
                Requirement::not_worse_than_legacy(Metric::ClientErrorRate, 0.005),
            ],
            signal_rollback: Vec::new(),
            signal_advance: Vec::new(),
            alpha: 0.01,
            alpha_advance: 0.05,
            alpha_promote: 0.01,
            observe: Duration::from_secs(60),
            min_requests: 100,
            error_min_effect: 0.0005,
            client_error_min_effect: 0.005,
            latency_quantiles: vec![50, 95],
            min_events: 3,
            min_bad_clusters: 3,
            max_cluster_share: 0.5,
            min_breach_windows: 1,
            min_latency_samples: 20,
            latency_warmup: Duration::ZERO,
            hard_fail: 10,
            overdispersion: Overdispersion::Auto,
            latency_overdispersion: Overdispersion::Auto,
            when_legacy_too: WhenLegacyToo::Hold,
            expert: Expert::default(),
            counted: None,
        }
    }
}

impl Default for Expert {
    fn default() -> Self {
        Self {
            start_weight: 0.5,
            alpha_horizon: Duration::from_secs(86_400),
            evidence_cap: 1e6,
            gate_start_weight: 0.9,
            advance_horizon: Duration::from_secs(3_600),
        }
    }
}

impl Criterion {
    /// Rolls back when `metric` is worse than `limit`, given in the metric's unit.
    pub const fn beyond(metric: Metric, limit: f64) -> Self {
        Self::rolling_back(metric, Harm::Beyond(limit))
    }

    /// Rolls back when `metric` is worse than legacy's by more than `margin`, a part of legacy's.
    pub const fn worse_than_legacy(metric: Metric, margin: f64) -> Self {
        Self::rolling_back(metric, Harm::WorseThanLegacy(margin))
    }

    const fn rolling_back(metric: Metric, harm: Harm) -> Self {
        Self {
            metric,
            harm,
            sustained: Duration::ZERO,
            action: Action::Rollback,
        }
    }

    /// The share of requests that may be events, for an absolute limit: erroneous, or slower than
    /// the limit.
    pub fn allowed_share(self) -> Option<f64> {
        match self.harm {
            Harm::Beyond(limit) => Some(self.metric.allowed_share(limit)),
            Harm::WorseThanLegacy(_) => None,
        }
    }

    /// What must hold, such as `error_rate <= 5%` or `error_rate at most 1.25 × legacy`: the
    /// contrary of what the criterion says.
    pub fn promise(self) -> String {
        sentence::promise(self)
    }
}

impl Requirement {
    /// `metric` must be proven better than `limit`, given in the metric's unit.
    pub const fn within(metric: Metric, limit: f64) -> Self {
        Self {
            metric,
            proof: Proof::Within(limit),
        }
    }

    /// The rate `metric` must be proven to exceed legacy's by less than `margin`, a ratio.
    pub const fn not_worse_than_legacy(metric: Metric, margin: f64) -> Self {
        Self {
            metric,
            proof: Proof::NotWorseThanLegacy(margin),
        }
    }

    /// Whether its limit lies at or beyond the one of `criterion`: what is proven could be harm.
    pub fn contradicts(self, criterion: Criterion) -> bool {
        match (self.proof, criterion.harm) {
            (Proof::Within(needed), Harm::Beyond(harm)) if self.metric == criterion.metric => {
                match self.metric {
                    Metric::Availability => needed <= harm,
                    _ => needed >= harm,
                }
            }
            _ => false,
        }
    }
}

impl Metric {
    /// The quantiles that a criterion may name, in hundredths.
    pub const QUANTILES: [u8; 4] = [50, 90, 95, 99];

    /// The share of requests that may be events where `limit` is kept just so.
    pub(super) fn allowed_share(self, limit: f64) -> f64 {
        match self {
            Metric::ErrorRate | Metric::ClientErrorRate | Metric::FallbackRate => limit,
            Metric::Availability => 1.0 - limit,
            Metric::Latency(quantile) | Metric::TotalLatency(quantile) => tail(quantile),
            // Only compared, never limited.
            Metric::LatencyProfile => 1.0,
        }
    }

    /// Whether requests are counted that are slower than something.
    pub const fn is_latency(self) -> bool {
        matches!(
            self,
            Metric::Latency(_) | Metric::TotalLatency(_) | Metric::LatencyProfile
        )
    }
}

impl Action {
    /// The word in criteria, records and status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Action::Rollback => "rollback",
            Action::Hold => "hold",
            Action::Notify => "notify",
        }
    }
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// The share of requests beyond a quantile, given in hundredths.
pub(super) fn tail(quantile: u8) -> f64 {
    f64::from(100_u8.saturating_sub(quantile)) / 100.0
}
