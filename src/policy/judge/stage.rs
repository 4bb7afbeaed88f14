//! How far a stage has come, evidence apart.

use serde::{Deserialize, Serialize};

use crate::policy::criteria::Criteria;

/// Where a stage would lead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aim {
    /// To a larger share.
    #[default]
    Raise,
    /// To everybody: the risk of a mistake is held lower.
    Promote,
    /// To the end of the rollout, with everybody on `new` already: legacy has no traffic left to
    /// compare with, so absolute requirements alone count.
    Complete,
}

impl Aim {
    /// The evidence that each requirement needs.
    pub(super) fn threshold(self, criteria: &Criteria) -> f64 {
        match self {
            Aim::Raise => 1.0 / criteria.alpha_advance,
            Aim::Promote | Aim::Complete => 1.0 / criteria.alpha_promote,
        }
    }

    /// Whether requirements count that compare with legacy.
    pub(super) const fn compares(self) -> bool {
        matches!(self, Aim::Raise | Aim::Promote)
    }
}

/// How far a stage has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Stage {
    pub(super) aim: Aim,
    /// Time in which no criterion was under suspicion.
    pub(super) healthy_seconds: f64,
    /// Requests of `new`.
    pub(super) requests: u64,
}
