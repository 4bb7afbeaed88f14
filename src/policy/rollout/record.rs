//! What is kept of a rollout across restarts, and what earlier programs kept.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::decision::Decision;
use super::latch::Latch;
use super::times::Times;
use crate::policy::arm::PerArm;
use crate::policy::judge::Evidence;
use crate::policy::plan::Course;
use crate::policy::share::Share;
use crate::policy::signal::Board;
use crate::policy::time::Timestamp;

/// All that is kept of a rollout across restarts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`Record::VERSION`] of the program that wrote it.
    pub version: u32,
    pub(super) state: State,
    pub(super) evidence: Evidence,
}

/// A record that no program has written, by the field that tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRecord {
    /// The latch is above where it began, or below its target.
    #[error("`state.latch` does not fall from `from` to `target`")]
    Latch,
    /// The plan has no such stage, or there is no plan.
    #[error("`state.position` is no stage of `state.outline`")]
    Position,
}

/// All of a rollout that changes, but for the evidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) rollout_id: String,
    /// What the position is a position in.
    pub(super) outline: Outline,
    /// Absent in what older programs wrote.
    pub(super) backends: Option<PerArm<String>>,
    /// The index of the stage; none before the first one, and without a plan.
    pub(super) position: Option<usize>,
    pub(super) is_paused: bool,
    pub(super) is_completed: bool,
    /// Who approved that the present stage is left.
    pub(super) approved_by: Option<String>,
    pub(super) latch: Option<Latch>,
    pub(super) operator_share: Option<Share>,
    pub(super) emergency: bool,
    pub(super) times: Times,
    pub(super) board: Board,
    /// When the last window ended.
    pub(super) seen_at: Option<Timestamp>,
    /// When something that lasts was last told of, in watched seconds.
    pub(super) episodes: BTreeMap<String, f64>,
    pub(super) last_decision: Option<Decision>,
    /// Counts decisions.
    pub(super) revision: u64,
}

/// The shares that the file names: what a changed file is compared with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outline {
    /// No plan, but perhaps a share.
    ByHand(Option<Share>),
    /// The share of each stage.
    Stages(Vec<Share>),
}

impl Outline {
    pub(super) fn of(course: &Course) -> Self {
        match course {
            Course::ByHand { share, .. } => Outline::ByHand(*share),
            Course::Planned(plan) => Outline::Stages(plan.shares().collect()),
        }
    }
}

impl Record {
    /// Rises whenever an older program could misread a record.
    pub const VERSION: u32 = 3;

    /// Counts the decisions of the split.
    pub const fn revision(&self) -> u64 {
        self.state.revision
    }

    /// Whether its fields go together, so that a rollout can go on from it.
    ///
    /// # Errors
    /// [`InvalidRecord`] with the first field that is at odds with the others.
    pub fn check(&self) -> Result<(), InvalidRecord> {
        let state = &self.state;
        let is_fallen = state.latch.as_ref().is_none_or(Latch::is_sound);
        let stages = match &state.outline {
            Outline::ByHand(_) => 0,
            Outline::Stages(shares) => shares.len(),
        };
        let is_placed = state.position.is_none_or(|position| position < stages);
        match (is_fallen, is_placed) {
            (false, _) => Err(InvalidRecord::Latch),
            (_, false) => Err(InvalidRecord::Position),
            (true, true) => Ok(()),
        }
    }

    /// What a program of version 1 or 2 wrote. A latch and the shares stand as they stood. The
    /// evidence of version 1 was counted otherwise, and is gathered afresh.
    ///
    /// # Errors
    /// The first field that is missing, or is not what such a program wrote.
    pub fn from_earlier(written: serde_json::Value) -> Result<Record, serde_json::Error> {
        let earlier: Earlier = serde_json::from_value(written)?;
        let evidence = match earlier.version {
            1 => Evidence::default(),
            _ => serde_json::from_value(earlier.evidence)?,
        };
        let is_latched = matches!(earlier.phase, EarlierPhase::RolledBack);
        Ok(Record {
            version: Record::VERSION,
            state: State {
                outline: Outline::ByHand(earlier.file_share),
                backends: earlier.backends,
                latch: is_latched.then(|| Latch::at_once(Share::ZERO)),
                operator_share: earlier.operator_share,
                emergency: earlier.emergency,
                last_decision: earlier.last_decision,
                ..State::new(earlier.rollout_id)
            },
            evidence,
        })
    }
}

impl State {
    /// Nothing has happened yet, and nothing is configured.
    pub(super) fn new(rollout_id: String) -> Self {
        Self {
            rollout_id,
            outline: Outline::ByHand(None),
            backends: None,
            position: None,
            is_paused: false,
            is_completed: false,
            approved_by: None,
            latch: None,
            operator_share: None,
            emergency: false,
            times: Times::default(),
            board: Board::default(),
            seen_at: None,
            episodes: BTreeMap::new(),
            last_decision: None,
            revision: 0,
        }
    }
}

impl State {
    /// The share if nothing but the file and its plan counted.
    pub(super) fn filed_share(&self) -> Share {
        match &self.outline {
            Outline::ByHand(share) => share.unwrap_or(Share::ZERO),
            Outline::Stages(shares) => {
                let share = self.position.and_then(|index| shares.get(index));
                share.copied().unwrap_or(Share::ZERO)
            }
        }
    }

    /// The share if neither an emergency nor a latch stood against it.
    pub(super) fn intended_share(&self) -> Share {
        self.operator_share.unwrap_or(self.filed_share())
    }
}

/// What programs of version 1 and 2 wrote.
#[derive(Deserialize)]
struct Earlier {
    version: u32,
    rollout_id: String,
    file_share: Option<Share>,
    phase: EarlierPhase,
    operator_share: Option<Share>,
    emergency: bool,
    last_decision: Option<Decision>,
    evidence: serde_json::Value,
    #[serde(default)]
    backends: Option<PerArm<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum EarlierPhase {
    Progressing,
    RolledBack,
}
