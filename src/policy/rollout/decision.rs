//! What is told of a rollout: the types here are also the wire format of status and audit.

use serde::{Deserialize, Serialize};

use crate::policy::criteria::Action;
use crate::policy::share::Share;

/// Where a rollout stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The plan's first stage has not begun.
    Pending,
    /// The engine moves the share along the plan; without one, the share is what the file or an
    /// operator says. Rollback criteria watch it.
    Progressing,
    /// The engine does not raise the share until a person resumes; it still rolls back.
    Paused,
    /// The last stage has been proven. It is still watched, and can still be rolled back.
    Completed,
    /// A rollback latched the share; only a person or a new `rollout.id` clears it.
    RolledBack,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Phase; 5] = [
        Phase::Pending,
        Phase::Progressing,
        Phase::Paused,
        Phase::Completed,
        Phase::RolledBack,
    ];

    /// The word in records, status and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Pending => "pending",
            Phase::Progressing => "progressing",
            Phase::Paused => "paused",
            Phase::Completed => "completed",
            Phase::RolledBack => "rolled_back",
        }
    }
}

/// One record of a decision; the same record feeds log, audit, status and metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// RFC 3339.
    pub at: String,
    /// Name of the split; empty where it is about the edge.
    pub split: String,
    /// A person's name, `engine`, or `file` for an edited configuration.
    pub actor: String,
    /// By the engine: `advance`, `complete`, `rollback`, `hold`, `notify`, `timeout`, `advise`. By
    /// a person: `set`, `stage`, `promote`, `pause`, `approve`, `rollback`, `resume`, `emergency`,
    /// `emergency_cleared`. By the file: `configured`. `withdrawn` follows one that was saved and
    /// then not carried out, by the same actor. About the edge: `deny`, `deny_ended`.
    pub action: String,
    /// What the operator gave as the reason, or the condition that fired.
    pub reason: String,
    /// The share before.
    pub from: Share,
    /// The share after.
    pub to: Share,
    /// Counts the decisions of a split; absent in records of version 1 and 2.
    #[serde(default)]
    pub revision: u64,
    /// The phase after; absent in records of version 1 and 2.
    #[serde(default)]
    pub phase: Option<Phase>,
    /// The stage after, counted from 1; absent before the first one, and without a plan.
    #[serde(default)]
    pub stage: Option<usize>,
    /// Each criterion as it stood.
    pub conditions: Vec<Condition>,
    /// Each requirement of an advance as it stood; absent in records of version 1 and 2.
    #[serde(default)]
    pub needs: Vec<Need>,
    /// The whole story in one sentence.
    pub sentence: String,
}

impl Decision {
    /// Every word that [`Decision::action`] may be when it is announced of a split; `withdrawn`
    /// is only in the audit.
    pub const ACTIONS: [&str; 16] = [
        "advance",
        "complete",
        "rollback",
        "hold",
        "notify",
        "timeout",
        "advise",
        "set",
        "stage",
        "promote",
        "pause",
        "approve",
        "resume",
        "emergency",
        "emergency_cleared",
        "configured",
    ];
}

/// A rollback criterion and what speaks against it at this moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    /// As written, such as `error_rate > 5%`.
    pub criterion: String,
    /// What it does once it fires. Decisions of version 1 do not say: they knew only rollbacks.
    #[serde(default)]
    pub action: Action,
    /// The share of events among `samples`, both since `since`; where nothing points to trouble,
    /// since the evidence was fresh.
    pub value: Option<f64>,
    /// The share of events that is allowed; where legacy is the measure, as far as `legacy` tells.
    pub limit: Option<f64>,
    /// Requests of `new` counted since `since`.
    pub samples: u64,
    /// Events among them.
    pub events: u64,
    /// The rates that are compatible with these counts, 95 % at every look.
    pub interval: Option<[f64; 2]>,
    /// What was counted of legacy over the same time. Decisions of version 1 tell it in their
    /// sentence only.
    #[serde(default)]
    pub legacy: Observed,
    /// Evidence against "all is well", as odds.
    pub evidence: f64,
    /// The evidence at which it fires.
    pub threshold: f64,
    /// How close the evidence is to the threshold by orders of magnitude, 0 to 1. Decisions of
    /// version 1 do not say: 0.
    #[serde(default)]
    pub meter: f64,
    /// When the trouble is thought to have begun, RFC 3339.
    pub since: Option<String>,
    /// The dispersion factor in use: events come in bunches of about this size.
    pub overdispersion: f64,
    /// `pass`, `fail` or `inconclusive`.
    pub verdict: String,
    /// The guard that withholds a rollback although the evidence suffices.
    pub withheld_by: Option<String>,
}

/// Something that an advance needs to be proven, and how far the proof is. All counts are those of
/// the present stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Need {
    /// As written, such as `error_rate < 1%`.
    pub requirement: String,
    /// The share of events among `samples`.
    pub value: Option<f64>,
    /// The share of events that must be undercut; where legacy is the measure, as far as `legacy`
    /// tells.
    pub limit: Option<f64>,
    /// Requests of `new`.
    pub samples: u64,
    /// Events among them.
    pub events: u64,
    /// The rates that are compatible with these counts, 95 % at every look.
    pub interval: Option<[f64; 2]>,
    /// What was counted of legacy.
    pub legacy: Observed,
    /// Evidence that the requirement is met, as odds.
    pub evidence: f64,
    /// The evidence at which it counts as proven.
    pub threshold: f64,
    /// How close the evidence is to the threshold by orders of magnitude, 0 to 1.
    pub meter: f64,
    /// The dispersion factor in use: events come in bunches of about this size.
    pub overdispersion: f64,
    /// `pass` or `inconclusive`.
    pub verdict: String,
    /// Requests that it will take at the present pace; none once proven, or if it leads nowhere.
    pub requests_to_come: Option<f64>,
    /// The seconds that these take.
    pub seconds_to_come: Option<f64>,
    /// What is lacking, in one sentence.
    pub lacking: Option<String>,
}

/// What was counted of one arm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// Requests.
    pub samples: u64,
    /// Events among them.
    pub events: u64,
    /// The rates that are compatible with these counts, 95 % at every look.
    pub interval: Option<[f64; 2]>,
}
