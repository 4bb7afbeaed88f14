//! What goes into a rollout and what comes out of it.

use super::decision::Decision;
use crate::policy::arm::PerArm;
use crate::policy::judge::window::Window;
use crate::policy::plan::{Course, Retreat, Rules};
use crate::policy::share::Share;
use crate::policy::signal::{Reading, SignalTerms};

/// What the configuration says of a split.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// Who moves the share, and what is judged.
    pub course: Course,
    /// Rules of the whole rollout.
    pub rules: Rules,
    /// Written by the user; a new value clears a rollback's latch and begins the plan anew.
    pub rollout_id: String,
    /// The signals that there are.
    pub signals: Vec<SignalTerms>,
    /// Names of the arms' backends; what was seen of others is no evidence about these.
    pub backends: PerArm<String>,
}

/// Who wants something, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct By {
    /// A person's name.
    pub actor: String,
    /// May be empty.
    pub reason: String,
}

/// What can happen to a rollout.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A window was measured; each must be given once.
    Observed(Box<Window>),
    /// The source of a signal has answered, or somebody has told its value.
    Signal {
        /// The signal's name.
        name: String,
        /// A value, or why there is none.
        reading: Reading,
    },
    /// The engine takes the next step of the plan, as [`Rollout::wish`](super::Rollout::wish) has
    /// asked for. Where it was [promised](super::Rollout::promise), the promised decision comes
    /// along: it becomes the record of the step, and a step that would be another one is refused.
    Advance(Option<Box<Decision>>),
    /// An operator fixes the share.
    Set {
        /// The share wanted.
        share: Share,
        /// Whether a share fixed in the file may be overridden.
        override_file: bool,
        /// Who.
        by: By,
    },
    /// An operator takes the split to a stage of its plan, whatever is proven.
    Stage {
        /// Counted from 1.
        number: usize,
        /// Who.
        by: By,
    },
    /// An operator takes the next step of the plan, whatever is proven.
    Promote {
        /// Who.
        by: By,
    },
    /// An operator lets the engine raise the share no more. It still rolls back.
    Pause {
        /// Who.
        by: By,
    },
    /// An operator approves that the present stage is left once everything else is proven.
    Approve {
        /// Who.
        by: By,
    },
    /// An operator wants a rollback, latched.
    Rollback {
        /// Where to; absent: where the rules send every rollback.
        to: Option<Retreat>,
        /// Who.
        by: By,
    },
    /// An operator ends a pause, an operator's share within a plan, the latch of a rollback, or what
    /// a hold or a suspicion rests on. The interrupted stage is judged and proven afresh.
    Resume {
        /// Where to go on, counted from 1: not above the interrupted stage. Absent: there.
        stage: Option<usize>,
        /// Who.
        by: By,
    },
    /// An operator declares or ends an emergency.
    Emergency {
        /// Whether it holds from now on.
        active: bool,
        /// Who.
        by: By,
    },
    /// The configuration says this from now on.
    Configured(Box<Terms>),
}

/// What must be done about an event, in the order in which effects are returned.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Let the data plane obey this.
    Publish(Standing),
    /// Store [`Rollout::record`](super::Rollout::record).
    Persist,
    /// Tell everyone: log, audit, metric, notification.
    Announce(Box<Decision>),
}

/// What the data plane obeys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The share in effect.
    pub share: Share,
    /// Under an emergency even pinned keys go to legacy.
    pub emergency: bool,
}

impl Standing {
    /// Whether more may reach `new` than under `other`.
    pub fn exceeds(self, other: Standing) -> bool {
        self.share > other.share || (other.emergency && !self.emergency)
    }
}

/// A wish that the present state forbids. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What forbids it, and what would allow it.
    pub message: String,
}
