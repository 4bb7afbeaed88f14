//! What the control plane can be asked and what it answers.
//!
//! One task owns all that may change (the single writer); the admin API, the CLI and the page reach
//! it only through [`ControlHandle`], and read the same [`Status`]. The types here are also the
//! wire format of the admin API, so none of the surfaces can know what another does not.

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::handover::predecessor::Unconfirmed;
use crate::handover::restraint::Restraint;
use crate::policy::arm::PerArm;
use crate::policy::assign::Explanation;
use crate::policy::rollout::{Condition, Decision, Outlook, Phase, Rest};
use crate::policy::signal::SignalState;

use super::command::{Order, Outcome};
use super::denied::Denied;
use super::history::{HistoryQuery, Written};
use super::keeper::NotKept;
use super::recorder::Export;

/// Why a command was not carried out. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "kind", content = "message", rename_all = "snake_case")]
pub enum Refused {
    /// No such split; the message names the valid ones. HTTP 404, exit code 2.
    #[error("{0}")]
    NoSuchSplit(String),
    /// No such signal; the message names the valid ones. HTTP 404, exit code 2.
    #[error("{0}")]
    NoSuchSignal(String),
    /// The present state forbids it; the message says what would allow it. HTTP 409, exit code 5.
    #[error("{0}")]
    Precondition(String),
    /// Something was decided since whoever asks has looked; the message says what. HTTP 409, exit
    /// code 6.
    #[error("{0}")]
    RevisionMismatch(String),
    /// The configuration file is not valid; the message lists the problems. HTTP 422, exit code 3.
    #[error("{0}")]
    InvalidConfig(String),
    /// The state store failed; nothing was promised. HTTP 503, exit code 1.
    #[error("{0}")]
    StoreFailed(String),
    /// Another process is taking over, and neither decides at the moment: ask again, and whoever
    /// does by then answers. HTTP 503, exit code 1; `cutover` itself asks again.
    #[error("{0}")]
    HandingOver(String),
}

/// Says that there is no split `name`, and which there are.
pub fn no_such_split<'a>(name: &str, splits: impl Iterator<Item = &'a str>) -> String {
    match splits.collect::<Vec<_>>().as_slice() {
        [] => format!("no split `{name}`: the configuration has none"),
        names => format!("no split `{name}`; the splits are: {}", names.join(", ")),
    }
}

/// One question to the control plane, with the place for its answer.
#[derive(Debug)]
pub enum Message {
    /// Carry out a command.
    Command {
        /// What is asked, by whom and on which condition.
        order: Order,
        /// Receives the answer.
        reply: oneshot::Sender<Result<Outcome, Refused>>,
    },
    /// Tell which networks were denied by hand.
    Denied {
        /// Receives them.
        reply: oneshot::Sender<Denied>,
    },
    /// Say to which arm a key of a split belongs, and why.
    Explain {
        /// Name of the split.
        split: String,
        /// The session key.
        key: String,
        /// Receives the explanation.
        reply: oneshot::Sender<Result<Explanation, Refused>>,
    },
    /// Tell what was decided.
    History {
        /// Which decisions.
        query: HistoryQuery,
        /// Receives a [`History`](super::history::History) as JSON.
        reply: oneshot::Sender<Written>,
    },
    /// Tell all that is saved.
    State {
        /// Receives a [`Document`](crate::state::Document) as JSON.
        reply: oneshot::Sender<Written>,
    },
    /// Render everything measured in the Prometheus text format.
    Metrics {
        /// Receives the text.
        reply: oneshot::Sender<String>,
    },
    /// Hand out what was recorded of a split so far.
    Recording {
        /// Name of the split.
        split: String,
        /// Receives the recording.
        reply: oneshot::Sender<Result<Export, Refused>>,
    },
    /// Save everything, close the state store and decide no more, because another process is to.
    Release {
        /// Receives whether the store is closed.
        reply: oneshot::Sender<Result<(), NotKept>>,
    },
    /// Decide again, because no other process does.
    Resume {
        /// Receives whether the store works again.
        reply: oneshot::Sender<Result<(), NotKept>>,
    },
    /// Obey what the process that decides tells.
    Obey {
        /// What has become stricter.
        restraint: Restraint,
        /// Receives word when it is in force, or a still older process has not confirmed that.
        reply: oneshot::Sender<Result<(), Unconfirmed>>,
    },
    /// Report the state of one split.
    Split {
        /// Name of the split.
        split: String,
        /// Receives the report.
        reply: oneshot::Sender<Result<SplitStatus, Refused>>,
    },
    /// Report the state of everything.
    Status {
        /// Receives the report.
        reply: oneshot::Sender<Status>,
    },
}

/// The way to the control plane. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ControlHandle {
    messages: mpsc::Sender<Message>,
}

/// The control plane has ended; the process is about to exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the control plane has stopped")]
pub struct ControlStopped;

impl ControlHandle {
    /// A handle and the other end of its bounded queue.
    pub fn channel() -> (ControlHandle, mpsc::Receiver<Message>) {
        // Operators and probes ask a few times a second; a longer queue would only hide a stall.
        let (messages, receiver) = mpsc::channel(64);
        (ControlHandle { messages }, receiver)
    }

    /// Carries out what `order` says and waits until it has taken effect.
    ///
    /// # Errors
    /// [`ControlStopped`] while the process exits; the inner error says why it was refused.
    pub async fn command(&self, order: Order) -> Result<Result<Outcome, Refused>, ControlStopped> {
        self.ask(|reply| Message::Command { order, reply }).await
    }

    /// Reports the state of everything.
    ///
    /// # Errors
    /// [`ControlStopped`] while the process exits.
    pub async fn status(&self) -> Result<Status, ControlStopped> {
        self.ask(|reply| Message::Status { reply }).await
    }

    /// Reports the state of one split.
    ///
    /// # Errors
    /// [`ControlStopped`] while the process exits; the inner error where there is no such split.
    pub async fn split(&self, split: &str) -> Result<Result<SplitStatus, Refused>, ControlStopped> {
        let split = split.to_owned();
        self.ask(|reply| Message::Split { split, reply }).await
    }

    /// Which networks were denied by hand.
    ///
    /// # Errors
    /// [`ControlStopped`] while the process exits.
    pub async fn denied(&self) -> Result<Denied, ControlStopped> {
        self.ask(|reply| Message::Denied { reply }).await
    }

    /// What was decided: a [`History`](super::history::History) as JSON.
    ///
    /// # Errors
    /// [`ControlStopped`] while the process exits; the inner error if the store cannot be read.
    pub async fn history(&self, query: HistoryQuery) -> Result<Written, ControlStopped> {
        self.ask(|reply| Message::History { query, reply }).await
    }

    /// All that is saved: a [`Document`](crate::state::Document) as JSON.
    ///
    /// # Errors
    /// [`ControlStopped`] while the process exits; the inner error if the store cannot be read.
    pub async fn state(&self) -> Result<Written, ControlStopped> {
        self.ask(|reply| Message::State { reply }).await
    }

    /// Renders everything measured in the Prometheus text format.
    ///
    /// # Errors
    /// [`ControlStopped`] while the process exits.
    pub async fn metrics(&self) -> Result<String, ControlStopped> {
        self.ask(|reply| Message::Metrics { reply }).await
    }

    /// Says to which arm a key of a split belongs, and why.
    ///
    /// # Errors
    /// [`ControlStopped`] while the process exits; the inner error where there is no such split.
    pub async fn explain(
        &self,
        split: &str,
        key: &str,
    ) -> Result<Result<Explanation, Refused>, ControlStopped> {
        let (split, key) = (split.to_owned(), key.to_owned());
        self.ask(|reply| Message::Explain { split, key, reply })
            .await
    }

    /// Hands out what was recorded of a split so far.
    ///
    /// # Errors
    /// [`ControlStopped`] while the process exits; the inner error where nothing was recorded.
    pub async fn recording(&self, split: &str) -> Result<Result<Export, Refused>, ControlStopped> {
        let split = split.to_owned();
        self.ask(|reply| Message::Recording { split, reply }).await
    }

    /// Has everything saved and the state store closed; nothing is decided from then on.
    ///
    /// # Errors
    /// [`ControlStopped`] while the process exits; the inner error if the store does not close, and
    /// deciding goes on.
    pub async fn release(&self) -> Result<Result<(), NotKept>, ControlStopped> {
        self.ask(|reply| Message::Release { reply }).await
    }

    /// Has the state store opened again and deciding go on.
    ///
    /// # Errors
    /// [`ControlStopped`] while the process exits; the inner error if the store cannot be used yet:
    /// deciding goes on in memory until it can.
    pub async fn resume(&self) -> Result<Result<(), NotKept>, ControlStopped> {
        self.ask(|reply| Message::Resume { reply }).await
    }

    /// Holds shares and denials to what the process that decides tells; returns when they are.
    ///
    /// # Errors
    /// [`ControlStopped`] while the process exits; the inner error if a still older process has not
    /// confirmed that it obeys, too.
    pub async fn obey(
        &self,
        restraint: Restraint,
    ) -> Result<Result<(), Unconfirmed>, ControlStopped> {
        self.ask(|reply| Message::Obey { restraint, reply }).await
    }

    async fn ask<T>(
        &self,
        message: impl FnOnce(oneshot::Sender<T>) -> Message,
    ) -> Result<T, ControlStopped> {
        let (reply, answer) = oneshot::channel();
        self.messages
            .send(message(reply))
            .await
            .map_err(|_| ControlStopped)?;
        answer.await.map_err(|_| ControlStopped)
    }
}

/// The state of everything, as `cutover status` and the admin API show it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Version of this program.
    pub version: String,
    /// Its number among the machine's processes; another one after an upgrade.
    #[serde(default)]
    pub process: u32,
    /// Counts published snapshots since the start.
    pub generation: u64,
    /// The sum of the splits' revisions: who changes all of them may ask that it is still this one.
    #[serde(default)]
    pub revision: u64,
    /// RFC 3339.
    pub started_at: String,
    /// The configuration in force and the last attempt to change it.
    pub config: ConfigStatus,
    /// Whether an emergency covers all splits.
    pub emergency: bool,
    /// Whether the state store accepts writes.
    pub store_healthy: bool,
    /// In the file's order.
    pub splits: Vec<SplitStatus>,
    /// In the file's order.
    pub backends: Vec<BackendStatus>,
}

/// The configuration in force and the last attempt to change it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// The file.
    pub path: String,
    /// When the configuration in force was loaded, RFC 3339.
    pub loaded_at: String,
    /// Whether the last reading of the file was accepted.
    pub last_reload_successful: bool,
    /// The problems of the last reading, if it was refused.
    pub problems: Vec<String>,
}

/// One split.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SplitStatus {
    /// Its name.
    pub name: String,
    /// Counts its decisions: who changes something may ask that it is still this one.
    #[serde(default)]
    pub revision: u64,
    /// Where its rollout stands.
    pub phase: Phase,
    /// What it stands still for; absent while evidence or time may move it on, and once completed.
    #[serde(default)]
    pub rest: Option<Rest>,
    /// The share in effect, such as `10%`.
    pub share: String,
    /// The share the file fixes, if it does.
    pub file_share: Option<String>,
    /// The operator's share, if one is set; it differs from the file's.
    pub override_share: Option<String>,
    /// Whether an emergency covers this split.
    pub emergency: bool,
    /// The user's id of the rollout.
    pub rollout_id: String,
    /// Names of the arms' backends.
    pub backends: PerArm<String>,
    /// Each rollback criterion: what is measured, what is allowed, how much speaks against it.
    pub conditions: Vec<Condition>,
    /// How far its plan has come, and what the next step waits for.
    #[serde(flatten)]
    pub outlook: Outlook,
    /// Each signal: its value, how old it is, and the criteria on it.
    #[serde(default)]
    pub signals: Vec<SignalState>,
    /// What was measured on each arm since the start of the process.
    pub arms: PerArm<ArmStatus>,
    /// Requests that legacy answered after `new` failed.
    pub rescued: u64,
    /// Requests that went to legacy without trying `new`.
    pub diverted: u64,
    /// `closed`, `open` or `half_open`; `off` without a breaker.
    pub breaker: String,
    /// The most recent decision, if there was one.
    pub last_decision: Option<Decision>,
    /// What is recorded of the split, if anything is.
    #[serde(default)]
    pub recording: Option<RecordingStatus>,
}

/// A recording of one split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingStatus {
    /// Windows recorded so far.
    pub windows: u64,
    /// Bytes of text so far.
    pub bytes: u64,
    /// Why it has ended; absent while it goes on.
    pub ended: Option<String>,
}

/// What was measured on one arm; overridden requests are not in it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ArmStatus {
    /// Outcomes decided.
    pub requests: u64,
    /// Errors among them.
    pub errors: u64,
    /// 4xx and their gRPC kin.
    pub client_errors: u64,
    /// Requests whose client went away first (not in `requests`).
    pub cancelled: u64,
    /// Quantiles of the time to the first byte, seconds; absent without requests.
    pub p50_seconds: Option<f64>,
    /// 95th percentile of the time to the first byte, seconds.
    pub p95_seconds: Option<f64>,
    /// 99th percentile of the time to the first byte, seconds.
    pub p99_seconds: Option<f64>,
}

/// One backend.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Its name.
    pub name: String,
    /// In the file's order.
    pub endpoints: Vec<EndpointStatus>,
}

/// One endpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// `host:port`.
    pub address: String,
    /// `healthy`, `unhealthy` (active checks), `ejected` (passive), or `unreachable` where nothing
    /// keeps requests away but the last attempt to connect failed.
    pub health: String,
    /// Requests in flight.
    pub pending: u64,
    /// Open connections.
    pub connections: u64,
}
