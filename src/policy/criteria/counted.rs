//! Which latency limits the data plane counts.
//!
//! A limit has its own pairs of counters, and a judge finds them by their place. So whoever counts
//! and whoever judges must agree on one list; and since a plan's stages may have limits of their
//! own while a split is counted once, that list can be longer than what one stage's criteria name.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Criteria, Harm, Metric, Proof};

/// Limits in seconds, each once, in the order in which windows count them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LatencyLimits {
    /// On the time to the first byte.
    pub first_byte: Vec<f64>,
    /// On the time to the answer's end.
    pub total: Vec<f64>,
}

impl LatencyLimits {
    /// The limits that these criteria name, those of the first before those of the second, and of
    /// each its rollback criteria before its requirements. What they say is counted besides
    /// ([`Criteria::counted`]) is not looked at.
    pub fn of<'a>(criteria: impl Iterator<Item = &'a Criteria>) -> LatencyLimits {
        let mut limits = LatencyLimits::default();
        for criteria in criteria {
            let harms = criteria
                .rollback
                .iter()
                .filter_map(|criterion| match criterion.harm {
                    Harm::Beyond(limit) => Some((criterion.metric, limit)),
                    Harm::WorseThanLegacy(_) => None,
                });
            let proofs =
                criteria
                    .advance
                    .iter()
                    .filter_map(|requirement| match requirement.proof {
                        Proof::Within(limit) => Some((requirement.metric, limit)),
                        Proof::NotWorseThanLegacy(_) => None,
                    });
            for (metric, limit) in harms.chain(proofs) {
                limits.add(metric, limit);
            }
        }
        limits
    }

    fn add(&mut self, metric: Metric, limit: f64) {
        let limits = match metric {
            Metric::Latency(_) => &mut self.first_byte,
            Metric::TotalLatency(_) => &mut self.total,
            _ => return,
        };
        if !limits.contains(&limit) {
            limits.push(limit);
        }
    }
}

impl Criteria {
    /// The pairs of counters that a tally has room for, per measure of latency.
    pub const MAX_LATENCY_LIMITS: usize = 6;

    /// The limits on the time to the first byte. The data plane counts an exact pair for each; at
    /// most [`Criteria::MAX_LATENCY_LIMITS`] are configurable.
    pub fn latency_thresholds(&self) -> Vec<Duration> {
        durations(&self.latency_limits().first_byte)
    }

    /// The limits on the time to the answer's end, under the same rule.
    pub fn total_thresholds(&self) -> Vec<Duration> {
        durations(&self.latency_limits().total)
    }

    /// All that is counted for these criteria, in the order of the counters.
    pub fn latency_limits(&self) -> LatencyLimits {
        let own = || LatencyLimits::of(std::iter::once(self));
        self.counted.clone().unwrap_or_else(own)
    }
}

fn durations(limits: &[f64]) -> Vec<Duration> {
    let limits = limits.iter().copied();
    limits.map(Duration::from_secs_f64).collect()
}
