//! Reasons not to roll back although the evidence suffices.
//!
//! Evidence counts requests; these rules ask who sent them and where everyone would be sent. Every
//! guard only withholds, so none can weaken a promise about false rollbacks.

use serde::{Deserialize, Serialize};

use crate::policy::criteria::Criteria;

/// A rule that withholds a rollback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guard {
    /// Fewer events than [`Criteria::min_events`] since the suspected start.
    MinEvents,
    /// The events come from fewer session groups than [`Criteria::min_bad_clusters`].
    MinBadClusters,
    /// One session group supplies more than [`Criteria::max_cluster_share`] of the events.
    MaxClusterShare,
    /// The difference to legacy is smaller than [`Criteria::error_min_effect`] or
    /// [`Criteria::client_error_min_effect`].
    MinEffect,
    /// Fewer requests than [`Criteria::min_latency_samples`].
    MinLatencySamples,
    /// The evidence has not sufficed for as long as the criterion asks.
    Sustained,
    /// Legacy breaches the same limit in the same seconds.
    WhenLegacyToo,
    /// Legacy has no endpoint that could take everyone.
    LegacyUnavailable,
}

impl Guard {
    /// The word in status and records: the setting's name where there is one.
    pub const fn as_str(self) -> &'static str {
        match self {
            Guard::MinEvents => "min_events",
            Guard::MinBadClusters => "min_bad_clusters",
            Guard::MaxClusterShare => "max_cluster_share",
            Guard::MinEffect => "min_effect",
            Guard::MinLatencySamples => "min_latency_samples",
            Guard::Sustained => "for",
            Guard::WhenLegacyToo => "when_legacy_too",
            Guard::LegacyUnavailable => "legacy_unavailable",
        }
    }
}

impl std::fmt::Display for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// Whether too few events from too few callers speak against `new`: one client in a retry loop
/// must never roll back a release.
///
/// `clusters_seen` is how many session groups sent anything to `new` in this rollout; where they
/// are fewer than the rule asks for, a single caller's traffic can still cut a dead `new`.
///
/// Where events are not known per group, requests stand for them: whoever supplies less than half
/// of the requests may supply more of the slow ones, but not all.
pub(super) fn too_few_callers(
    events: u64,
    by_cluster: &[u64],
    clusters_seen: u32,
    criteria: &Criteria,
) -> Option<Guard> {
    if events < criteria.min_events {
        return Some(Guard::MinEvents);
    }
    let bad = bad_clusters(by_cluster);
    if bad == 0 {
        // A recording without session groups: nobody can tell callers apart.
        return None;
    }
    if bad < criteria.min_bad_clusters.min(clusters_seen) {
        return Some(Guard::MinBadClusters);
    }
    // Of two groups one always supplies half or more, so the share means something from three on.
    let largest = by_cluster.iter().copied().max().unwrap_or(0);
    let whole: u64 = by_cluster.iter().sum();
    if bad >= 3 && largest as f64 > criteria.max_cluster_share * whole as f64 {
        return Some(Guard::MaxClusterShare);
    }
    None
}

/// How many session groups have at least one event.
pub(super) fn bad_clusters(by_cluster: &[u64]) -> u32 {
    by_cluster.iter().map(|events| u32::from(*events > 0)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(by_cluster: &[u64], clusters_seen: u32) -> Option<Guard> {
        let events = by_cluster.iter().sum();
        too_few_callers(events, by_cluster, clusters_seen, &Criteria::default())
    }

    #[test]
    fn three_failures_of_three_callers_suffice() {
        assert_eq!(guard(&[1, 1, 1, 0], 64), None);
        assert_eq!(guard(&[1, 1, 0, 0], 64), Some(Guard::MinEvents));
    }

    #[test]
    fn one_caller_never_suffices_where_there_are_others() {
        assert_eq!(guard(&[100, 0, 0], 3), Some(Guard::MinBadClusters));
        assert_eq!(guard(&[100, 1, 1], 3), Some(Guard::MaxClusterShare));
        assert_eq!(guard(&[100, 60, 40], 3), None);
    }

    #[test]
    fn one_caller_suffices_where_there_is_no_other() {
        assert_eq!(guard(&[3, 0, 0], 1), None);
        assert_eq!(guard(&[3, 1, 0], 2), None);
    }
}
