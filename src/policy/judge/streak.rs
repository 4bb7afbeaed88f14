//! Failures in a row, without those that were already paid for.
//!
//! The data plane's streak ends only with a success, and after a rollback there is none: an
//! operator who resumes would be rolled back at the next tick by failures from before. So what was
//! read while nothing was judged is subtracted. Where a streak ended unseen between two readings
//! this counts too few, never too many.
//!
//! This is not persisted, since a new process counts its streak from zero; but a recording begins
//! with it.

use serde::{Deserialize, Serialize};

use super::window::StreakReading;

/// The failures in a row that count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Streak {
    /// The last reading.
    last: StreakReading,
    /// What is subtracted from it.
    forgiven: StreakReading,
    /// The difference.
    counted: StreakReading,
}

impl Streak {
    /// Takes in a reading.
    pub(super) fn read(&mut self, reading: &StreakReading) {
        self.last.clone_from(reading);
        if reading.length < self.forgiven.length {
            self.forgiven = StreakReading::default();
        }
        self.subtract();
    }

    /// From now on nothing read so far counts.
    pub(super) fn forgive(&mut self) {
        self.forgiven.clone_from(&self.last);
        self.subtract();
    }

    pub(super) const fn length(&self) -> u64 {
        self.counted.length
    }

    pub(super) fn by_cluster(&self) -> &[u64] {
        &self.counted.clusters
    }

    pub(super) fn failures(&self, cluster: usize) -> u64 {
        self.counted.clusters.get(cluster).copied().unwrap_or(0)
    }

    fn subtract(&mut self) {
        self.counted.length = self.last.length.saturating_sub(self.forgiven.length);
        let readings = self.last.clusters.iter().zip(&self.forgiven.clusters);
        for (counted, (last, forgiven)) in self.counted.clusters.iter_mut().zip(readings) {
            *counted = last.saturating_sub(*forgiven);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(length: u64) -> StreakReading {
        let mut reading = StreakReading {
            length,
            ..StreakReading::default()
        };
        reading.clusters[5] = length;
        reading
    }

    #[test]
    fn what_was_forgiven_does_not_count_again_until_the_streak_has_ended() {
        let mut streak = Streak::default();
        streak.read(&reading(12));
        assert_eq!((streak.length(), streak.failures(5)), (12, 12));
        streak.forgive();
        assert_eq!((streak.length(), streak.failures(5)), (0, 0));
        streak.read(&reading(15));
        assert_eq!((streak.length(), streak.failures(5)), (3, 3));

        streak.read(&reading(2));
        assert_eq!(streak.length(), 2, "a success has ended the old streak");
        streak.read(&reading(13));
        assert_eq!((streak.length(), streak.by_cluster()[5]), (13, 13));
    }
}
