//! What must hold of `new`, as the configuration states it.

use serde::{Deserialize, Serialize};

/// The conditions that roll a split back and the settings of their judgement.
///
/// Field names and defaults are those of the analysis specification.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Criteria {
    /// ANY of these rolls back.
    pub rollback: Vec<Criterion>,
    /// False-rollback budget per 24 h and split, over all criteria together. Default 0.01.
    pub alpha: f64,
    /// Errors of `new` needed since the suspected start. Default 3.
    pub min_events: u64,
    /// Distinct clusters among those errors. Default 3.
    pub min_bad_clusters: u32,
    /// The largest part of those errors that one cluster may supply. Default 0.5.
    pub max_cluster_share: f64,
    /// Requests of `new` needed before a latency criterion may roll back. Default 20.
    pub min_latency_samples: u64,
    /// Consecutive failed or diverted requests that roll back at once. Default 10.
    pub hard_fail: u64,
    /// How correlated the requests of a session are: a fixed factor, or estimated on legacy.
    pub overdispersion: Overdispersion,
    /// What happens when legacy breaches the same absolute limit in the same seconds.
    pub when_legacy_too: WhenLegacyToo,
}

/// One condition that rolls back, an absolute limit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Criterion {
    /// What is limited.
    pub metric: Metric,
    /// What it must not exceed, in the metric's unit: a ratio for rates, seconds for quantiles.
    pub limit: f64,
}

/// A measured quantity that a criterion may name.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Errors per decided request.
    ErrorRate,
    /// A quantile of the time to the first byte, given in hundredths: 50, 90, 95, 99.
    Latency(u8),
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
    /// The thresholds of all latency criteria, in their order. The data plane counts an exact pair
    /// for each, and at most [`Criteria::MAX_LATENCY_LIMITS`] are configurable.
    pub fn latency_thresholds(&self) -> Vec<std::time::Duration> {
        self.rollback
            .iter()
            .filter(|criterion| matches!(criterion.metric, Metric::Latency(_)))
            .map(|criterion| std::time::Duration::from_secs_f64(criterion.limit))
            .collect()
    }

    /// The pairs of counters that a tally has room for.
    pub const MAX_LATENCY_LIMITS: usize = 4;
}

impl Default for Criteria {
    fn default() -> Self {
        Self {
            rollback: vec![
                Criterion {
                    metric: Metric::ErrorRate,
                    limit: 0.05,
                },
                Criterion {
                    metric: Metric::Latency(95),
                    limit: 0.5,
                },
            ],
            alpha: 0.01,
            min_events: 3,
            min_bad_clusters: 3,
            max_cluster_share: 0.5,
            min_latency_samples: 20,
            hard_fail: 10,
            overdispersion: Overdispersion::Auto,
            when_legacy_too: WhenLegacyToo::Hold,
        }
    }
}
