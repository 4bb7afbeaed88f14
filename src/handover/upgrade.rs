//! How an operator's wish for an upgrade reaches whoever carries it out.

use tokio::sync::{mpsc, oneshot};

/// Who may wait at the same time: one upgrade is enough for all.
const WAITING: usize = 4;

/// Somebody wants this process to be replaced, and waits.
#[derive(Debug)]
pub struct Wish {
    /// Who, as the log shall tell.
    pub actor: String,
    /// Why; may be empty.
    pub reason: String,
    /// Receives the successor's number among the machine's processes, where the system tells it, or
    /// why there is no successor.
    pub reply: oneshot::Sender<Result<Option<u32>, String>>,
}

/// The way to whoever carries upgrades out. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Upgrades(mpsc::Sender<Wish>);

impl Upgrades {
    /// A handle and the other end of its bounded queue.
    pub fn channel() -> (Self, mpsc::Receiver<Wish>) {
        let (wishes, receiver) = mpsc::channel(WAITING);
        (Self(wishes), receiver)
    }

    /// Has this process replaced; returns the successor's number among the machine's processes once
    /// it serves, where the system tells it.
    ///
    /// # Errors
    /// A sentence that says why there is no successor.
    pub async fn ask(&self, actor: String, reason: String) -> Result<Option<u32>, String> {
        let (reply, answer) = oneshot::channel();
        let wish = Wish {
            actor,
            reason,
            reply,
        };
        let sent = self.0.try_send(wish);
        sent.map_err(|_| "an upgrade is under way, or the process leaves".to_owned())?;
        let ended = |_| "the process leaves".to_owned();
        answer.await.map_err(ended)?
    }
}
