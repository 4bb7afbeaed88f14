//! The thread that writes to the state store.
//!
//! Committing to a disk takes as long as the disk wants. Everything goes through one thread in
//! order, so evidence saved by the clock can never overwrite a decision made after it, and the
//! judge never waits for evidence to be saved. A store that fails while running costs memory of
//! decisions, not traffic: it is logged, shown in a gauge, and tried again with the next write.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;

use crate::policy::rollout::{Decision, Record};
use crate::state::Store;

/// Writes that may wait. Decisions are rare; a longer queue means that the disk hangs.
const QUEUE: usize = 256;

/// Everything that a restart needs.
#[derive(Debug)]
pub struct Memory {
    /// By name of the split.
    pub rollouts: Vec<(String, Record)>,
    /// Whether an emergency covers all splits.
    pub emergency: bool,
}

/// The thread that writes to the state store.
#[derive(Debug)]
pub struct Keeper {
    writes: Option<SyncSender<Write>>,
    is_healthy: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What was to be remembered is not; the reason is in the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotKept(pub String);

#[derive(Debug)]
enum Write {
    Save {
        memory: Memory,
        done: Option<oneshot::Sender<Result<(), NotKept>>>,
    },
    Audit(Box<Decision>),
}

impl Keeper {
    /// Starts writing to `store`; without one, nothing is remembered and the gauge says so.
    ///
    /// # Errors
    /// Those of making a thread.
    pub fn start(store: Option<Store>) -> std::io::Result<Self> {
        let is_healthy = Arc::new(AtomicBool::new(store.is_some()));
        let Some(store) = store else {
            return Ok(Self {
                writes: None,
                is_healthy,
                thread: None,
            });
        };
        let (writes, queue) = mpsc::sync_channel(QUEUE);
        let health = Arc::clone(&is_healthy);
        let thread = thread::Builder::new()
            .name("keeper".to_owned())
            .spawn(move || run(&store, &queue, &health))?;
        Ok(Self {
            writes: Some(writes),
            is_healthy,
            thread: Some(thread),
        })
    }

    /// Whether the last write succeeded.
    pub fn is_healthy(&self) -> bool {
        self.is_healthy.load(Ordering::Relaxed)
    }

    /// Saves, and resolves when it is on the disk.
    ///
    /// # Errors
    /// [`NotKept`] with the reason.
    pub async fn save(&self, memory: Memory) -> Result<(), NotKept> {
        let (done, kept) = oneshot::channel();
        self.send(Write::Save {
            memory,
            done: Some(done),
        })?;
        let ended = |_| NotKept("the thread that writes the state store has ended".to_owned());
        kept.await.map_err(ended)?
    }

    /// Saves without waiting; a failure shows in the gauge.
    pub fn save_evidence(&self, memory: Memory) {
        // The next save is five seconds away and carries everything again.
        let _ = self.send(Write::Save { memory, done: None });
    }

    /// Adds a decision to the audit without waiting; a failure shows in the gauge and the log.
    pub fn audit(&self, decision: Decision) {
        if let Err(error) = self.send(Write::Audit(Box::new(decision))) {
            tracing::error!(%error, "a decision is missing from the audit");
        }
    }

    /// Ends the thread after everything asked for has been written.
    pub fn finish(mut self) {
        self.writes = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    fn send(&self, write: Write) -> Result<(), NotKept> {
        let Some(writes) = &self.writes else {
            return Err(NotKept("there is no state store".to_owned()));
        };
        writes.try_send(write).map_err(|error| {
            self.is_healthy.store(false, Ordering::Relaxed);
            NotKept(match error {
                TrySendError::Full(_) => "the state store does not keep up".to_owned(),
                TrySendError::Disconnected(_) => {
                    "the thread that writes the state store has ended".to_owned()
                }
            })
        })
    }
}

fn run(store: &Store, queue: &Receiver<Write>, is_healthy: &AtomicBool) {
    for write in queue {
        let result = match &write {
            Write::Save { memory, .. } => {
                let rollouts = memory.rollouts.iter();
                let rollouts = rollouts.map(|(split, record)| (split.as_str(), record));
                store.save_all(rollouts, memory.emergency)
            }
            Write::Audit(decision) => store.append_audit(decision),
        };
        let was_healthy = is_healthy.swap(result.is_ok(), Ordering::Relaxed);
        match &result {
            Err(error) if was_healthy => {
                tracing::error!(%error, "the state store fails; going on in memory");
            }
            Ok(()) if !was_healthy => tracing::info!("the state store works again"),
            _ => {}
        }
        if let Write::Save {
            done: Some(done), ..
        } = write
        {
            // Whoever asked may have gone.
            let _ = done.send(result.map_err(|error| NotKept(error.to_string())));
        }
    }
}
