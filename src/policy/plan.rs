//! How far a split is to be moved, in which steps, and when a step may be taken.
//!
//! A plan that falls or repeats would have the engine lower a share and call it progress, so a
//! [`Plan`] that exists has at least one stage and strictly rising shares; nothing later asks again.

mod outlook;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::outlook::Doubt;

use super::calendar::Calendar;
use super::criteria::{Criteria, LatencyLimits};
use super::judge::Aim;
use super::share::Share;

/// From 0, a first step beyond this needs a person: nothing at all is known of `new` by then.
pub const LARGEST_BLIND_STEP: Share = match Share::from_basis_points(1_000) {
    Ok(share) => share,
    Err(_) => Share::ZERO,
};

/// Who moves a split's share.
#[derive(Clone, Debug, PartialEq)]
pub enum Course {
    /// A person: in the file, or where that says nothing with `set`, from 0.
    ByHand {
        /// The share fixed in the file.
        share: Option<Share>,
        /// What rolls it back.
        criteria: Box<Criteria>,
    },
    /// The engine, stage by stage.
    Planned(Plan),
}

/// The stages of a migration: at least one, each with a larger share than the one before it.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    stages: Vec<Stage>,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// The part of keys that goes to `new`.
    pub share: Share,
    /// What rolls back, what an advance needs, how long to observe and how many requests.
    pub criteria: Criteria,
    /// Whether a person must approve before the stage is left for a larger share.
    pub approval: bool,
    /// When the engine may leave the stage for a larger share; absent: at any time.
    pub calendar: Option<Calendar>,
    /// Watched time after which the stage counts as undecided; absent: never.
    pub timeout: Option<Duration>,
    /// What happens then.
    pub on_timeout: OnTimeout,
}

/// What becomes of a stage that is undecided for too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnTimeout {
    /// The rollout is paused until a person decides.
    #[default]
    Hold,
    /// As if a criterion were breached.
    Rollback,
    /// The next stage begins although not everything is proven; never while something speaks
    /// against `new`, or while it has had no requests.
    Advance,
}

/// Rules of the whole rollout, whatever its stage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// Where a rollback goes.
    pub retreat: Retreat,
    /// Time over which a rollback lowers the share, step by step; zero: at once. Harm that goes on
    /// meanwhile ends it at 0 at once.
    pub ramp: Duration,
    /// Watched time after any change of the share in which the engine does not raise it.
    pub cool_down: Duration,
    /// Changes of the share within a watched day after which the engine raises it no more.
    pub max_changes_per_day: usize,
    /// Whether the engine only says what it would do.
    pub advise: bool,
}

/// Where a rollback goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retreat {
    /// Everyone back to legacy.
    #[default]
    Zero,
    /// To the share of the stage before; from the first one, or for the second time in a row, to 0.
    PreviousStage,
}

/// The stages are no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPlan {
    /// There is none.
    #[error("a plan needs at least one stage")]
    Empty,
    /// The share of one, by its index, is not above that of the stage before it.
    #[error("stage {} is not above the stage before it", .0 + 1)]
    NotRising(usize),
}

impl Course {
    /// The plan, where the engine moves the share.
    pub const fn plan(&self) -> Option<&Plan> {
        match self {
            Course::ByHand { .. } => None,
            Course::Planned(plan) => Some(plan),
        }
    }

    /// The share that the file fixes.
    pub const fn file_share(&self) -> Option<Share> {
        match self {
            Course::ByHand { share, .. } => *share,
            Course::Planned(_) => None,
        }
    }

    /// The same shares, judged by nothing but `criteria`.
    #[must_use]
    pub fn judged_by(&self, criteria: &Criteria) -> Course {
        match self {
            Course::ByHand { share, .. } => Course::ByHand {
                share: *share,
                criteria: Box::new(criteria.clone()),
            },
            Course::Planned(plan) => {
                let stages = plan.stages.iter().map(|stage| Stage {
                    criteria: criteria.clone(),
                    ..stage.clone()
                });
                Course::Planned(Plan {
                    stages: stages.collect(),
                })
            }
        }
    }

    /// What is judged in the stage with this index, from 0; before the first stage what is judged
    /// there.
    pub fn criteria(&self, stage: Option<usize>) -> &Criteria {
        match self {
            Course::ByHand { criteria, .. } => criteria,
            Course::Planned(plan) => {
                let last = plan.stages.len() - 1;
                &plan.stages[stage.unwrap_or(0).min(last)].criteria
            }
        }
    }
}

impl Plan {
    /// A plan of these stages. A split is counted once for all of them, so each stage's criteria
    /// are told what is counted for the others ([`Criteria::counted`]).
    ///
    /// # Errors
    /// [`InvalidPlan`] with the first thing that is wrong.
    pub fn new(mut stages: Vec<Stage>) -> Result<Self, InvalidPlan> {
        if stages.is_empty() {
            return Err(InvalidPlan::Empty);
        }
        let falls = stages
            .windows(2)
            .position(|pair| pair[1].share <= pair[0].share);
        if let Some(before) = falls {
            return Err(InvalidPlan::NotRising(before + 1));
        }
        let counted = LatencyLimits::of(stages.iter().map(|stage| &stage.criteria));
        for stage in &mut stages {
            let own = LatencyLimits::of(std::iter::once(&stage.criteria));
            stage.criteria.counted = (own != counted).then(|| counted.clone());
        }
        Ok(Self { stages })
    }

    /// The stages, in order; at least one.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// The index of the last stage whose share is not above `share`.
    pub fn highest_within(&self, share: Share) -> Option<usize> {
        self.stages.iter().rposition(|stage| stage.share <= share)
    }

    /// Where the stage with this index would lead; before the first one, where that would lead.
    /// Only at 100 % is there nothing left to compare with: a plan may end below it.
    pub fn aim(&self, stage: Option<usize>) -> Aim {
        let share = |index: usize| self.stages.get(index).map(|stage| stage.share);
        let here = stage.and_then(share);
        let next = share(stage.map_or(0, |stage| stage + 1));
        if here == Some(Share::ALL) {
            Aim::Complete
        } else if next == Some(Share::ALL) {
            Aim::Promote
        } else {
            Aim::Raise
        }
    }

    /// The share of each stage.
    pub fn shares(&self) -> impl Iterator<Item = Share> {
        self.stages.iter().map(|stage| stage.share)
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            retreat: Retreat::Zero,
            ramp: Duration::ZERO,
            cool_down: Duration::ZERO,
            max_changes_per_day: 24,
            advise: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::criteria::{Criterion, Metric};

    fn plan(percentages: &[u16]) -> Result<Plan, InvalidPlan> {
        let stages = percentages.iter().map(|percent| stage(*percent));
        Plan::new(stages.collect())
    }

    fn stage(percent: u16) -> Stage {
        Stage {
            share: Share::from_basis_points(percent * 100).expect("a share"),
            criteria: Criteria::default(),
            approval: false,
            calendar: None,
            timeout: None,
            on_timeout: OnTimeout::Hold,
        }
    }

    #[test]
    fn only_rising_stages_are_a_plan() {
        assert_eq!(plan(&[]), Err(InvalidPlan::Empty));
        assert_eq!(plan(&[0, 10, 10]), Err(InvalidPlan::NotRising(2)));
        assert_eq!(plan(&[20, 10]), Err(InvalidPlan::NotRising(1)));
        assert!(plan(&[0, 100]).is_ok());
        assert!(plan(&[5]).is_ok());
    }

    /// Before the first stage the data plane counts already, and goes on counting the same.
    #[test]
    fn every_stage_knows_the_limits_of_all() {
        let mut last = stage(100);
        last.criteria.rollback = vec![Criterion::beyond(Metric::TotalLatency(95), 2.0)];
        let mixed = Plan::new(vec![stage(0), stage(50), last]).expect("a plan");
        let course = Course::Planned(mixed);
        for index in [None, Some(0), Some(1), Some(2)] {
            let limits = course.criteria(index).latency_limits();
            assert_eq!(limits.first_byte, [0.5, 0.2], "{index:?}");
            assert_eq!(limits.total, [2.0], "{index:?}");
        }
        let same = plan(&[0, 100]).expect("a plan");
        assert_eq!(same.stages()[0].criteria, Criteria::default());
    }

    #[test]
    fn a_plan_that_ends_below_everybody_is_compared_with_legacy_to_its_end() {
        let whole = plan(&[0, 50, 100]).expect("a plan");
        let aims = [None, Some(0), Some(1), Some(2)].map(|stage| whole.aim(stage));
        assert_eq!(aims, [Aim::Raise, Aim::Raise, Aim::Promote, Aim::Complete]);
        let half = plan(&[0, 50]).expect("a plan");
        assert_eq!(half.aim(Some(1)), Aim::Raise);
        assert_eq!(plan(&[100]).expect("a plan").aim(None), Aim::Promote);
    }

    #[test]
    fn an_edited_plan_goes_on_at_the_highest_stage_that_raises_nobody() {
        let plan = plan(&[10, 30, 50]).expect("a plan");
        for (percent, stage) in [(0, None), (10, Some(0)), (29, Some(0)), (100, Some(2))] {
            let share = Share::from_basis_points(percent * 100).expect("a share");
            assert_eq!(plan.highest_within(share), stage, "{percent}");
        }
    }
}
