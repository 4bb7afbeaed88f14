//! How often what was decided, for dashboards and alerts.
//!
//! A gauge that is scraped every half minute misses a rollback that a person resumed in between; a
//! count does not. Each action of each split has one from the first scrape on: a counter that only
//! appears with its first event shows no increase for it.

use std::collections::BTreeMap;

use crate::policy::rollout::Decision;

/// Counts of one split, in the order of [`Decision::ACTIONS`].
pub(super) type Counts = [u64; Decision::ACTIONS.len()];

/// The decisions announced since the start.
#[derive(Debug, Default)]
pub(super) struct Announced {
    splits: BTreeMap<String, Counts>,
}

impl Announced {
    /// One more of its kind.
    pub(super) fn count(&mut self, decision: &Decision) {
        let mut actions = Decision::ACTIONS.iter();
        if let Some(index) = actions.position(|action| *action == decision.action) {
            let counts = self.splits.entry(decision.split.clone()).or_default();
            counts[index] += 1;
        }
    }

    /// What was counted of a split.
    pub(super) fn of(&self, split: &str) -> Counts {
        self.splits.get(split).copied().unwrap_or_default()
    }

    /// Forgets the splits that left the configuration, or ever new names would fill the memory.
    pub(super) fn keep(&mut self, is_configured: impl Fn(&str) -> bool) {
        self.splits.retain(|split, _| is_configured(split));
    }
}
