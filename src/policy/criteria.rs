//! What must hold of `new`, as the configuration states it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::duration;
use super::share::Share;

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

impl Metric {
    /// The quantiles that a criterion may name, in hundredths.
    pub const QUANTILES: [u8; 4] = [50, 90, 95, 99];
}

impl std::fmt::Display for Metric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Metric::ErrorRate => f.pad("error_rate"),
            Metric::Latency(quantile) => f.pad(&format!("p{quantile}")),
        }
    }
}

/// The text is no rollback criterion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a rollback criterion is `error_rate > 5%` (above 0%, below 100%) or `p95 > 500ms` (p50, p90, \
     p95, p99)"
)]
pub struct InvalidCriterion;

/// Reads a sentence such as `error_rate > 5%` or `p95 > 500ms`.
impl std::str::FromStr for Criterion {
    type Err = InvalidCriterion;

    fn from_str(text: &str) -> Result<Self, InvalidCriterion> {
        let (metric, limit) = text.split_once('>').ok_or(InvalidCriterion)?;
        let (metric, limit) = (metric.trim(), limit.trim());
        if metric == "error_rate" {
            let share: Share = limit.parse().map_err(|_| InvalidCriterion)?;
            // No evidence can speak against "never an error" or "always one" by degrees.
            if share == Share::ZERO || share == Share::ALL {
                return Err(InvalidCriterion);
            }
            return Ok(Criterion {
                metric: Metric::ErrorRate,
                limit: share.ratio(),
            });
        }
        let metric = Metric::QUANTILES
            .map(Metric::Latency)
            .into_iter()
            .find(|quantile| quantile.to_string() == metric)
            .ok_or(InvalidCriterion)?;
        let limit = duration::parse(limit).map_err(|_| InvalidCriterion)?;
        if limit.is_zero() {
            return Err(InvalidCriterion);
        }
        Ok(Criterion {
            metric,
            limit: limit.as_secs_f64(),
        })
    }
}

/// Writes the sentence that [`std::str::FromStr`] reads.
impl std::fmt::Display for Criterion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let metric = self.metric;
        match metric {
            Metric::ErrorRate => {
                // Rounded to the hundredth of a percent in which limits are written.
                let hundredths = (self.limit * 10_000.0).round() / 100.0;
                write!(f, "{metric} > {hundredths}%")
            }
            Metric::Latency(_) => {
                let limit = Duration::try_from_secs_f64(self.limit).unwrap_or_default();
                // A limit is written in whole microseconds; the float is off by a nanosecond.
                let microseconds = limit.saturating_add(Duration::from_nanos(500)).as_micros();
                let limit = Duration::from_micros(u64::try_from(microseconds).unwrap_or(u64::MAX));
                write!(f, "{metric} > {}", duration::print(limit))
            }
        }
    }
}

impl Criterion {
    /// The share of requests that may be events: erroneous, or slower than the limit.
    pub fn allowed_share(self) -> f64 {
        match self.metric {
            Metric::ErrorRate => self.limit,
            Metric::Latency(quantile) => f64::from(100_u8.saturating_sub(quantile)) / 100.0,
        }
    }

    /// What must hold, such as `error_rate <= 5%`: the contrary of what the criterion says.
    pub fn promise(self) -> String {
        self.to_string().replace(" > ", " <= ")
    }
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
    pub fn latency_thresholds(&self) -> Vec<Duration> {
        self.rollback
            .iter()
            .filter(|criterion| matches!(criterion.metric, Metric::Latency(_)))
            .map(|criterion| Duration::from_secs_f64(criterion.limit))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_criterion_reads_like_a_sentence() {
        let error_rate = |limit| Criterion {
            metric: Metric::ErrorRate,
            limit,
        };
        let latency = |quantile, limit| Criterion {
            metric: Metric::Latency(quantile),
            limit,
        };
        for (text, criterion) in [
            ("error_rate > 5%", error_rate(0.05)),
            ("error_rate>0.5%", error_rate(0.005)),
            ("p95 > 500ms", latency(95, 0.5)),
            (" p99  >  1.5s ", latency(99, 1.5)),
        ] {
            assert_eq!(text.parse(), Ok(criterion), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "error_rate",
            "error_rate > 5",
            "error_rate > 0%",
            "error_rate > 100%",
            "error_rate < 5%",
            "p95 > 0s",
            "p95 > 5%",
            "p42 > 1s",
            "p95 500ms",
            "errors > 5%",
        ] {
            assert_eq!(text.parse::<Criterion>(), Err(InvalidCriterion), "{text}");
        }
    }

    proptest! {
        #[test]
        fn reads_what_it_prints(basis_points in 1u16..10_000, microseconds in 1u64..86_400_000_000) {
            let share = Share::from_basis_points(basis_points).expect("in range");
            let rate = Criterion { metric: Metric::ErrorRate, limit: share.ratio() };
            prop_assert_eq!(rate.to_string().parse(), Ok(rate));
            let limit = Duration::from_micros(microseconds).as_secs_f64();
            let slow = Criterion { metric: Metric::Latency(99), limit };
            prop_assert_eq!(slow.to_string().parse(), Ok(slow));
        }
    }
}
