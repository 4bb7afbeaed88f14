//! Where in a window the counts lie that a metric is about.

use super::kernels::Contrast;
use super::trail::{Batch, Clusters};
use super::window::{ArmCounts, Clustered, Latencies, Pair, Window};
use crate::policy::arm::PerArm;
use crate::policy::criteria::{Harm, LatencyLimits, Metric, Proof};

/// What is counted as an event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Event {
    pub(super) metric: Metric,
    /// The limit beyond which a request is slow; only latency has one.
    pub(super) limit: Option<f64>,
}

impl Event {
    pub(super) fn of_harm(metric: Metric, harm: Harm) -> Self {
        match harm {
            Harm::Beyond(limit) => Self::with_limit(metric, limit),
            Harm::WorseThanLegacy(_) => Self {
                metric,
                limit: None,
            },
        }
    }

    pub(super) fn of_proof(metric: Metric, proof: Proof) -> Self {
        match proof {
            Proof::Within(limit) => Self::with_limit(metric, limit),
            Proof::NotWorseThanLegacy(_) => Self {
                metric,
                limit: None,
            },
        }
    }

    fn with_limit(metric: Metric, limit: f64) -> Self {
        Self {
            metric,
            limit: metric.is_latency().then_some(limit),
        }
    }
}

/// One kind of event in one window.
#[derive(Clone, Copy)]
pub(super) struct Counts<'a> {
    pub(super) new: &'a Clustered,
    pub(super) legacy: &'a Clustered,
}

impl<'a> Counts<'a> {
    /// None if the window was counted for other criteria than these.
    pub(super) fn of(window: &'a Window, event: Event, limits: &LatencyLimits) -> Option<Self> {
        Some(Self {
            new: clustered(&window.new, event, limits)?,
            legacy: clustered(&window.legacy, event, limits)?,
        })
    }

    pub(super) fn batch(self) -> Batch<'a> {
        Batch {
            counts: Contrast {
                new: self.new.total,
                legacy: self.legacy.total,
            },
            clusters: Clusters::Events(&self.new.clusters),
        }
    }
}

fn clustered<'a>(
    arm: &'a ArmCounts,
    event: Event,
    limits: &LatencyLimits,
) -> Option<&'a Clustered> {
    let counted = |limits: &[f64], counts: &'a [Clustered]| {
        let place = limits
            .iter()
            .position(|limit| Some(*limit) == event.limit)?;
        counts.get(place)
    };
    match event.metric {
        Metric::ErrorRate => Some(&arm.errors),
        Metric::ClientErrorRate => Some(&arm.client_errors),
        Metric::Availability => Some(&arm.availability),
        Metric::FallbackRate => Some(&arm.fallback),
        Metric::Latency(_) => counted(&limits.first_byte, &arm.latency),
        Metric::TotalLatency(_) => counted(&limits.total, &arm.total_latency),
        Metric::LatencyProfile => None,
    }
}

/// Both arms' durations that a latency metric is about.
pub(super) fn latencies(window: &Window, metric: Metric) -> PerArm<&Latencies> {
    match metric {
        Metric::TotalLatency(_) => PerArm {
            legacy: &window.legacy.total,
            new: &window.new.total,
        },
        _ => PerArm {
            legacy: &window.legacy.first_byte,
            new: &window.new.first_byte,
        },
    }
}

/// Requests slower than legacy at one quantile, in one window.
pub(super) type Slow = Option<PerArm<Pair>>;
