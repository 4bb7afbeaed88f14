//! What an operator may ask for, on which condition, and what is answered.
//!
//! Two operators who look at the same status and both act on it must not undo each other unseen: so
//! any order may name the revision that its author has seen, and is refused at any other. And
//! whoever is not sure may rehearse: everything is worked out and refused as it would be, and
//! nothing is done.

use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::policy::plan::Retreat;
use crate::policy::rollout::{By, Decision, Event};
use crate::policy::share::Share;
use crate::policy::signal::Reading;

/// Something that is asked for, by whom and on which condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// What is asked for.
    pub command: Command,
    /// Who asks.
    pub author: Author,
    /// On which condition.
    pub proviso: Proviso,
}

/// Who asks, and why; recorded with the decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// The token's name, or `local` where no token is configured.
    pub actor: String,
    /// What the operator gave as the reason; may be empty.
    pub reason: String,
}

/// On which condition something is to be done. By default on none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Proviso {
    /// The revision that the author has seen; at any other the order is refused.
    pub expected_revision: Option<u64>,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What can be asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Change something about one split.
    Change {
        /// Name of the split.
        split: String,
        /// What.
        change: Change,
    },
    /// Tell the value of a signal that nothing is asked for. No decision, and not in the audit.
    Signal {
        /// Name of the split.
        split: String,
        /// Name of the signal.
        name: String,
        /// Its value.
        reading: Reading,
    },
    /// Declare or clear an emergency: legacy alone, whatever else says otherwise.
    Emergency {
        /// One split, or all.
        split: Option<String>,
        /// Clear it instead.
        clear: bool,
    },
    /// Deny a network from the next request on.
    Deny {
        /// Which one.
        network: IpNet,
        /// For how long; absent: until somebody ends it.
        span: Option<Duration>,
    },
    /// End the denial of a network.
    EndDenial {
        /// Exactly this one.
        network: IpNet,
    },
    /// Read the configuration file again, now.
    Reload,
    /// Begin to record what the judge of a split is given.
    Record {
        /// Name of the split.
        split: String,
        /// For how long.
        span: Duration,
    },
    /// End a recording, and forget it.
    EndRecording {
        /// Name of the split.
        split: String,
    },
}

/// What can be changed about one split.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Fix the share by hand.
    Set {
        /// The share wanted.
        share: Share,
        /// Whether a share fixed in the file may be overridden.
        override_file: bool,
    },
    /// Go to a stage of the plan, whatever is proven.
    Stage {
        /// Counted from 1.
        number: usize,
    },
    /// Take the next step of the plan, whatever is proven.
    Promote,
    /// Raise the share no more.
    Pause,
    /// Approve that the present stage is left.
    Approve,
    /// Roll back, latched.
    Rollback {
        /// Where to; absent: where the split's rules send every rollback.
        to: Option<Retreat>,
    },
    /// End a pause, an operator's share within a plan, the latch of a rollback, or a hold.
    Resume {
        /// The stage to go on at, counted from 1; absent: the interrupted one.
        stage: Option<usize>,
    },
}

impl Change {
    /// What the split's rollout is told.
    pub(super) fn event(self, by: By) -> Event {
        match self {
            Change::Set {
                share,
                override_file,
            } => Event::Set {
                share,
                override_file,
                by,
            },
            Change::Stage { number } => Event::Stage { number, by },
            Change::Promote => Event::Promote { by },
            Change::Pause => Event::Pause { by },
            Change::Approve => Event::Approve { by },
            Change::Rollback { to } => Event::Rollback { to, by },
            Change::Resume { stage } => Event::Resume { stage, by },
        }
    }
}

/// What became of an order that was not refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// What is now true; of a rehearsal, what would be.
    pub sentence: String,
    /// The revision of the split now, or the sum over all splits where the order concerned all.
    #[serde(default)]
    pub revision: u64,
    /// What was decided for each split concerned; empty where nothing had to be.
    #[serde(default)]
    pub splits: Vec<Moved>,
    /// Whether it was only rehearsed: nothing was done, and the revision is the old one.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a decision meant for a split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Name of the split.
    pub name: String,
    /// The share in effect before, such as `10%`.
    pub from: String,
    /// The share in effect after.
    pub to: String,
    /// The stage after, counted from 1; absent before the first one, and without a plan.
    pub stage: Option<usize>,
}

impl Outcome {
    /// What these decisions have led to.
    pub(super) fn of(decisions: &[Decision], sentence: String, revision: u64) -> Self {
        Self {
            sentence,
            revision,
            splits: decisions.iter().map(Moved::by).collect(),
            dry_run: false,
        }
    }

    /// Says that nothing was done.
    pub(super) fn rehearsed(self) -> Self {
        Self {
            sentence: format!("Nothing was done. It would be: {}", self.sentence),
            dry_run: true,
            ..self
        }
    }
}

impl Moved {
    fn by(decision: &Decision) -> Self {
        Self {
            name: decision.split.clone(),
            from: decision.from.to_string(),
            to: decision.to.to_string(),
            stage: decision.stage,
        }
    }
}
