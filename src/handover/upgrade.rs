//! How an operator's wish for an upgrade reaches whoever carries it out, and how one that takes too
//! long is taken back for the sake of an order that cannot wait.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc, oneshot};

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
pub struct Upgrades {
    wishes: mpsc::Sender<Wish>,
    recall: Arc<Notify>,
}

/// What reaches whoever carries upgrades out.
#[derive(Debug)]
pub struct Wishes {
    wishes: mpsc::Receiver<Wish>,
    recall: Arc<Notify>,
}

impl Upgrades {
    /// A handle and the other end of its bounded queue.
    pub fn channel() -> (Self, Wishes) {
        let (sender, wishes) = mpsc::channel(WAITING);
        let recall = Arc::default();
        let upgrades = Self {
            wishes: sender,
            recall: Arc::clone(&recall),
        };
        (upgrades, Wishes { wishes, recall })
    }

    /// Has the handover under way given up, if there is one: this process is to decide again.
    pub fn take_back(&self) {
        // Kept for nobody: it would end the next one.
        self.recall.notify_waiters();
    }

    /// Whether another process has taken over for good, or this one leaves.
    pub fn are_over(&self) -> bool {
        self.wishes.is_closed()
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
        let sent = self.wishes.try_send(wish);
        sent.map_err(|_| "an upgrade is under way, or the process leaves".to_owned())?;
        let ended = |_| "the process leaves".to_owned();
        answer.await.map_err(ended)?
    }
}

impl Wishes {
    /// The next who wants an upgrade; none once nobody can.
    pub async fn next(&mut self) -> Option<Wish> {
        self.wishes.recv().await
    }

    /// Resolves when the handover under way is to be given up.
    pub async fn taken_back(&self) {
        self.recall.notified().await;
    }
}
