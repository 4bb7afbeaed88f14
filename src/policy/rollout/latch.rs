//! A rollback that stands until a person ends it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::share::Share;

/// Steps in which a ramp comes down.
const STEPS: u32 = 10;

/// The most that may reach `new` since a rollback.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Latch {
    /// At this moment.
    share: Share,
    /// Once the ramp has ended.
    target: Share,
    /// When it began.
    from: Share,
    /// Watched since then.
    seconds: f64,
}

impl Latch {
    /// The rollback is done.
    pub(super) const fn at_once(target: Share) -> Self {
        Self {
            share: target,
            target,
            from: target,
            seconds: 0.0,
        }
    }

    /// The rollback takes its first step now, and its last one before `over` has passed.
    pub(super) fn ramp(from: Share, target: Share, over: Duration) -> Self {
        let mut latch = Self {
            share: from,
            target,
            from,
            seconds: 0.0,
        };
        latch.pass(0.0, over);
        latch
    }

    /// Whether it falls from where it began to its target, as every one does that was not edited.
    pub(super) fn is_sound(&self) -> bool {
        self.from >= self.share && self.share >= self.target
    }

    /// The most that may reach `new`.
    pub(super) const fn share(&self) -> Share {
        self.share
    }

    /// The most that may reach `new` once the rollback is done.
    pub(super) const fn target(&self) -> Share {
        self.target
    }

    /// Time passes; whether the share falls.
    pub(super) fn pass(&mut self, seconds: f64, over: Duration) -> bool {
        if self.share <= self.target {
            return false;
        }
        self.seconds += seconds;
        let steps = 1.0 + (self.seconds / over.as_secs_f64() * f64::from(STEPS)).floor();
        let steps = (steps as u32).clamp(1, STEPS);
        let height = u32::from(self.from.basis_points() - self.target.basis_points());
        let fallen = height * steps / STEPS;
        let share = u32::from(self.from.basis_points()) - fallen;
        let share = u16::try_from(share).map(Share::from_basis_points);
        let share = share.ok().and_then(Result::ok).unwrap_or(self.target);
        let falls = share < self.share;
        self.share = self.share.min(share);
        falls
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_falls_step_by_step_and_ends_at_its_target_in_time() {
        let over = Duration::from_secs(10);
        let percent = |percent: u16| Share::from_basis_points(percent * 100).expect("a share");
        let mut latch = Latch::ramp(percent(50), percent(10), over);
        assert_eq!(
            latch.share(),
            percent(46),
            "the first step is taken at once"
        );
        let mut shares = Vec::new();
        for _ in 0..100 {
            if latch.pass(0.1, over) {
                shares.push(latch.share().basis_points() / 100);
            }
        }
        assert_eq!(shares, [42, 38, 34, 30, 26, 22, 18, 14, 10]);
    }
}
