//! How long things have lasted, counted in time that was watched.
//!
//! A stage ripens by being observed, not by the clock moving on: neither a restart of an hour nor a
//! clock that is set may add to any of these.

use serde::{Deserialize, Serialize};

/// Changes of the share are counted over this many watched seconds.
const DAY: f64 = 86_400.0;
/// More changes than anybody could allow in a day are not told apart.
const MAX_CHANGES: usize = 1_000;

/// Watched seconds since several events.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Times {
    /// Since the rollout was first seen.
    pub(super) watched: f64,
    /// Since the stage began, pauses left out.
    pub(super) stage: f64,
    /// In a stage at share 0: with an endpoint of `new` that could take requests.
    pub(super) healthy: f64,
    /// In a stage above share 0: with neither a criterion under suspicion nor a signal against it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) calm: f64,
    /// When the share changed within the last day, in [`Times::watched`].
    changes: Vec<f64>,
}

impl Times {
    /// The share has changed now.
    pub(super) fn change(&mut self) {
        let since = self.watched - DAY;
        self.changes.retain(|at| *at > since);
        if self.changes.len() == MAX_CHANGES {
            self.changes.remove(0);
        }
        self.changes.push(self.watched);
    }

    /// Changes of the share within the last day.
    pub(super) fn changes(&self) -> usize {
        let since = self.watched - DAY;
        self.changes.iter().filter(|at| **at > since).count()
    }

    /// Seconds until the oldest of these changes counts no more.
    pub(super) fn oldest_change_ends(&self) -> Option<f64> {
        let ends = self.changes.iter().map(|at| at + DAY - self.watched);
        ends.into_iter().find(|left| *left > 0.0)
    }

    /// Since the share last changed, however long ago; none if it never did.
    pub(super) fn since_change(&self) -> Option<f64> {
        self.changes.last().map(|at| self.watched - at)
    }

    /// The same; none if it did not within the last day.
    pub(super) fn since_recent_change(&self) -> Option<f64> {
        self.since_change().filter(|seconds| *seconds < DAY)
    }

    /// A stage begins.
    pub(super) fn begin_stage(&mut self) {
        self.stage = 0.0;
        self.forget_health();
    }

    /// Good health has to be seen anew.
    pub(super) fn forget_health(&mut self) {
        self.healthy = 0.0;
        self.calm = 0.0;
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(seconds: &f64) -> bool {
    *seconds == 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_of_the_last_watched_day_count() {
        let mut times = Times::default();
        assert_eq!(times.since_change(), None);
        times.change();
        times.watched += DAY - 10.0;
        times.change();
        assert_eq!(times.changes(), 2);
        times.watched += 10.0;
        assert_eq!((times.changes(), times.since_change()), (1, Some(10.0)));
        times.watched += DAY;
        assert_eq!((times.changes(), times.since_recent_change()), (0, None));
        let cooling_down = times.since_change();
        assert_eq!(cooling_down, Some(DAY + 10.0), "which may take days");
    }

    #[test]
    fn changes_are_bounded() {
        let mut times = Times::default();
        for _ in 0..2 * MAX_CHANGES {
            times.change();
        }
        assert_eq!(times.changes(), MAX_CHANGES);
    }
}
