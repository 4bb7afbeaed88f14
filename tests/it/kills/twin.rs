//! The program as it should be, in a few lines.

use cutover::policy::rollout::Phase;

use super::{Entry, Found};
use crate::harness::chance::Chance;

pub(super) const SPLITS: [&str; 4] = ["checkout", "search", "catalog", "stock"];
/// The split of which the engine takes a step by itself.
pub(super) const OF_ENGINE: usize = 3;

/// The shares of each split's stages, in hundredths of a percent; none where a person moves it.
const STAGES: [&[u16]; SPLITS.len()] = [&[], &[], &[0, 1_000, 3_000, 10_000], &[0, 1_000, 10_000]];
/// The stage of `catalog` that is only left with an approval, from 0.
const APPROVED_STAGE: (usize, usize) = (2, 1);

/// What an operator can ask for; a split by its index.
#[derive(Debug)]
pub(super) enum Command {
    Set(usize, u16),
    Stage(usize, usize),
    Promote(usize),
    Pause(usize),
    Approve(usize),
    Rollback(usize),
    /// A rollback `--to previous`.
    StepBack(usize),
    Resume(usize),
    Emergency {
        split: Option<usize>,
        clear: bool,
    },
}

impl Command {
    pub(super) fn any(chance: &mut Chance) -> Self {
        // The plan twice, since more can be done to it.
        let split = [0, 1, 2, 2, OF_ENGINE][chance.below(5) as usize];
        if split == OF_ENGINE {
            // Whatever the engine did meanwhile, this is accepted.
            return Command::Stage(split, 1);
        }
        match chance.below(14) {
            0..=1 => Command::Set(split, chance.below(101) as u16 * 100),
            2 => Command::Rollback(split),
            3 => Command::StepBack(split),
            4..=5 => Command::Resume(split),
            6 => Command::Pause(split),
            7..=8 => Command::Promote(split),
            9 => Command::Stage(split, chance.below(5) as usize + 1),
            10..=11 => Command::Approve(split),
            12 => Command::Emergency {
                split: (chance.below(2) == 0).then_some(split),
                clear: false,
            },
            _ => Command::Emergency {
                split: (chance.below(2) == 0).then_some(split),
                clear: true,
            },
        }
    }
}

/// All splits.
#[derive(Clone, Debug, Default)]
pub(super) struct Twin {
    splits: [TwinSplit; SPLITS.len()],
    emergency: bool,
    /// What people did.
    audit: Vec<Entry>,
    commands: usize,
}

/// One split. Its plan has stages of these shares; without one they are none.
#[derive(Clone, Debug, Default)]
struct TwinSplit {
    /// From 0.
    position: usize,
    /// An operator's share.
    operator: Option<u16>,
    is_paused: bool,
    is_approved: bool,
    /// The most since a rollback.
    latch: Option<u16>,
    emergency: bool,
}

/// What is told of one split.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SplitFound {
    pub(super) share: String,
    pub(super) phase: Phase,
    pub(super) emergency: bool,
    /// From 1.
    pub(super) stage: Option<usize>,
    pub(super) is_approved: bool,
}

impl Twin {
    /// A reason that no other command has.
    pub(super) fn next_reason(&mut self) -> String {
        self.commands += 1;
        format!("command {}", self.commands)
    }

    /// This one after an acknowledgement, or unchanged after a refusal; and no other answer.
    pub(super) fn after_answer(
        self,
        command: &Command,
        reason: &str,
        status: u16,
        place: &str,
    ) -> Self {
        match self.after(command, reason) {
            Some(next) => {
                assert_eq!(status, 200, "{place}: {command:?} of {self:#?}");
                next
            }
            None => {
                assert_eq!(status, 409, "{place}: {command:?} of {self:#?}");
                self
            }
        }
    }

    /// `None` if the command is refused.
    pub(super) fn after(&self, command: &Command, reason: &str) -> Option<Self> {
        let mut next = self.clone();
        let mut one = |split: usize, change: fn(&mut TwinSplit, &[u16]) -> bool| {
            change(&mut next.splits[split], STAGES[split]).then_some(vec![split])
        };
        let (action, concerned) = match *command {
            Command::Set(split, share) => {
                let is_set = next.splits[split].set(share);
                ("set", is_set.then_some(vec![split])?)
            }
            Command::Stage(split, number) => {
                let is_there = next.splits[split].go_to(number - 1, STAGES[split]);
                ("stage", is_there.then_some(vec![split])?)
            }
            Command::Promote(split) => {
                let promote = |split: &mut TwinSplit, stages: &[u16]| {
                    !stages.is_empty() && split.go_to(split.position + 1, stages)
                };
                ("promote", one(split, promote)?)
            }
            Command::Pause(split) => ("pause", one(split, TwinSplit::pause)?),
            Command::Approve(split) => {
                let needs_approval = next.needs_approval(split);
                let next = &mut next.splits[split];
                if !needs_approval || next.latch.is_some() {
                    return None;
                }
                next.is_approved = true;
                ("approve", vec![split])
            }
            Command::Rollback(split) => {
                next.splits[split].roll_back(0);
                ("rollback", vec![split])
            }
            Command::StepBack(split) => ("rollback", one(split, TwinSplit::step_back)?),
            Command::Resume(split) => ("resume", one(split, TwinSplit::resume)?),
            Command::Emergency { split, clear } => {
                let action = if clear {
                    "emergency_cleared"
                } else {
                    "emergency"
                };
                (action, next.declare(split, clear)?)
            }
        };
        for split in concerned {
            let entry = (
                SPLITS[split].to_owned(),
                action.to_owned(),
                reason.to_owned(),
            );
            next.audit.push(entry);
        }
        Some(next)
    }

    /// The splits that an emergency, or its end, concerns.
    fn declare(&mut self, split: Option<usize>, clear: bool) -> Option<Vec<usize>> {
        if clear && split.is_some() && self.emergency {
            return None;
        }
        let concerned: Vec<usize> = match split {
            Some(split) => vec![split],
            None => {
                self.emergency = !clear;
                let all = 0..SPLITS.len();
                all.filter(|split| !clear || self.splits[*split].emergency)
                    .collect()
            }
        };
        for split in &concerned {
            self.splits[*split].emergency = !clear;
        }
        Some(concerned)
    }

    /// A stage asks for it, or a step from 0 to more than 10 %.
    fn needs_approval(&self, index: usize) -> bool {
        let (split, stages) = (&self.splits[index], STAGES[index]);
        let Some(next) = stages.get(split.position + 1) else {
            return false;
        };
        let is_blind = stages[split.position] == 0 && *next > 1_000;
        is_blind || (index, split.position) == APPROVED_STAGE
    }

    /// Whether the engine will take a step soon.
    pub(super) fn awaits_engine(&self) -> bool {
        let split = &self.splits[OF_ENGINE];
        split.position == 0 && !split.emergency
    }

    /// This one after what the audit tells of the engine's step since `seen`.
    pub(super) fn moved_by_engine(&self, found: &Found, seen: &[Entry]) -> Self {
        let entries = found.audit.iter().enumerate().skip(seen.len());
        let mut next = self.clone();
        let position = &mut next.splits[OF_ENGINE].position;
        for (index, (split, action, _)) in entries {
            if split != SPLITS[OF_ENGINE] {
                continue;
            }
            // A step on its way to the disk may be refused for what follows it, and a kill may come
            // before the audit says that.
            let is_last = index + 1 == found.audit.len();
            let may_hold = is_last || found.splits[OF_ENGINE].stage == Some(2);
            match action.as_str() {
                "advance" => *position = usize::from(may_hold),
                "stage" | "withdrawn" => *position = 0,
                _ => {}
            }
        }
        next
    }

    /// What is told of it, but for what the engine did.
    pub(super) fn expected(&self) -> Found {
        let splits = self.splits.iter().zip(STAGES);
        Found {
            splits: splits.map(|(split, stages)| split.told(stages)).collect(),
            emergency: self.emergency,
            audit: self.audit.clone(),
        }
    }
}

impl TwinSplit {
    fn intended(&self, stages: &[u16]) -> u16 {
        let filed = stages.get(self.position).copied().unwrap_or(0);
        self.operator.unwrap_or(filed)
    }

    fn within_latch(&self, stages: &[u16]) -> u16 {
        let intended = self.intended(stages);
        self.latch.map_or(intended, |most| most.min(intended))
    }

    fn told(&self, stages: &[u16]) -> SplitFound {
        let is_planned = !stages.is_empty();
        let share = match self.emergency {
            true => 0,
            false => self.within_latch(stages),
        };
        SplitFound {
            share: format!("{}%", share / 100),
            phase: if self.latch.is_some() {
                Phase::RolledBack
            } else if self.is_paused || is_planned && self.operator.is_some() {
                Phase::Paused
            } else {
                Phase::Progressing
            },
            emergency: self.emergency,
            stage: is_planned.then_some(self.position + 1),
            is_approved: self.is_approved,
        }
    }

    fn set(&mut self, share: u16) -> bool {
        let may = self.latch.is_none_or(|most| share <= most);
        if may {
            self.operator = Some(share);
        }
        may
    }

    fn go_to(&mut self, position: usize, stages: &[u16]) -> bool {
        let may = position < stages.len() && self.latch.is_none();
        if may {
            self.position = position;
            self.operator = None;
            self.is_paused = false;
            self.is_approved = false;
        }
        may
    }

    fn pause(&mut self, stages: &[u16]) -> bool {
        let may = !stages.is_empty() && self.latch.is_none();
        self.is_paused |= may;
        may
    }

    fn step_back(&mut self, stages: &[u16]) -> bool {
        let share = self.within_latch(stages);
        let below = stages.iter().rev().find(|stage| **stage < share);
        self.roll_back(below.copied().unwrap_or(0));
        true
    }

    fn roll_back(&mut self, to: u16) {
        self.latch = Some(self.latch.map_or(to, |most| most.min(to)));
        self.is_approved = false;
    }

    fn resume(&mut self, stages: &[u16]) -> bool {
        let is_planned = !stages.is_empty();
        let stands_still = is_planned && (self.is_paused || self.operator.is_some());
        let may = self.latch.is_some() || stands_still;
        if may {
            self.latch = None;
            self.is_paused = false;
            self.is_approved = false;
            if is_planned {
                self.operator = None;
            }
        }
        may
    }
}

/// Whether the engine decided it.
pub(super) fn is_of_engine((split, action, _): &Entry) -> bool {
    split == SPLITS[OF_ENGINE] && ["advance", "withdrawn"].contains(&&**action)
}
