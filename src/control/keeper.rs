//! The thread that writes to the state store.
//!
//! Committing to a disk takes as long as the disk wants. Everything goes through one thread in
//! order, so evidence saved by the clock can never overwrite a decision made after it, and the
//! judge never waits for evidence to be saved. A store that fails while running costs no traffic:
//! it is logged, shown in a gauge, and opened again with a later write, which then brings everything
//! that is missing. A disk that hangs is a store that fails: nobody waits for it longer than
//! [`PATIENCE`].

#[cfg(test)]
mod tests;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use self::writer::Writer;
use crate::policy::denials::Denials;
use crate::policy::rollout::{Decision, Record};
use crate::state::{Reading, Store, StoreError};

/// Writes that may wait. Decisions are rare; a longer queue means that the disk hangs.
const QUEUE: usize = 256;
/// A disk that others keep busy takes two or three seconds now and then; nothing judges meanwhile
/// where a share is to rise.
const PATIENCE: Duration = Duration::from_secs(5);

/// Readings at the same time. A disk that hangs must not fill the queue of the writes with them,
/// nor the process with threads that wait for it.
const READERS: usize = 4;
/// Exports at the same time: each puts everything together in memory, some ten thousand decisions.
const EXPORTS: usize = 1;
/// Somebody waits for what is read, and nothing else does.
const READING: Duration = Duration::from_secs(10);

/// Everything that a restart needs, or what of it has changed.
#[derive(Debug)]
pub struct Memory {
    /// By name of the split. What is left out stays as it was kept.
    pub rollouts: Vec<(String, Record)>,
    /// Whether an emergency covers all splits.
    pub emergency: bool,
    /// What was denied by hand.
    pub denials: Arc<Denials>,
}

/// The thread that writes to the state store.
#[derive(Debug)]
pub struct Keeper {
    writes: Option<SyncSender<Order>>,
    /// The store's; none where there is no store.
    file: Option<PathBuf>,
    condition: Arc<Condition>,
    readers: Arc<Semaphore>,
    exports: Arc<Semaphore>,
    /// Resolves when the thread has written everything and closed the store.
    ended: Option<oneshot::Receiver<()>>,
}

/// How the store is.
#[derive(Debug)]
struct Condition {
    /// Whether the last write succeeded.
    is_healthy: AtomicBool,
    /// Whether a write has taken too long and none has ended since.
    is_hanging: AtomicBool,
    /// Decisions that the writer or the audit has dropped since the start.
    dropped: AtomicU64,
    /// Decisions that found no place in the queue.
    unsent: AtomicU64,
    /// Whether an order found no place in the queue since somebody asked.
    has_missed: AtomicBool,
}

/// What was to be remembered is not; the reason is in the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotKept(pub String);

#[derive(Debug)]
enum Order {
    /// What is in force.
    Save {
        memory: Memory,
        decisions: Vec<Decision>,
        done: Option<oneshot::Sender<Result<(), NotKept>>>,
    },
    /// What is in force only once it is saved.
    Promise {
        memory: Memory,
        decisions: Vec<Decision>,
        done: oneshot::Sender<Result<(), NotKept>>,
    },
    Read(
        oneshot::Sender<(Result<Reading, NotKept>, OwnedSemaphorePermit)>,
        OwnedSemaphorePermit,
    ),
}

impl Keeper {
    /// Starts writing to `store`; without one, nothing is remembered and the gauge says so.
    ///
    /// # Errors
    /// Those of making a thread.
    pub fn start(store: Option<Store>) -> std::io::Result<Self> {
        let Some(store) = store else {
            return Ok(Self {
                writes: None,
                file: None,
                condition: Condition::new(false),
                readers: Arc::new(Semaphore::new(READERS)),
                exports: Arc::new(Semaphore::new(EXPORTS)),
                ended: None,
            });
        };
        let file = store.file().to_owned();
        let mut keeper = Self {
            writes: None,
            file: Some(file),
            condition: Condition::new(true),
            readers: Arc::new(Semaphore::new(READERS)),
            exports: Arc::new(Semaphore::new(EXPORTS)),
            ended: None,
        };
        keeper.begin(Writer::new(store))?;
        Ok(keeper)
    }

    fn begin(&mut self, writer: Writer) -> std::io::Result<()> {
        let (writes, queue) = mpsc::sync_channel(QUEUE);
        let (end, ended) = oneshot::channel();
        let told = Arc::clone(&self.condition);
        thread::Builder::new()
            .name("keeper".to_owned())
            .spawn(move || {
                run(writer, &queue, &told);
                // Whoever asked may have gone.
                let _ = end.send(());
            })?;
        self.writes = Some(writes);
        self.ended = Some(ended);
        Ok(())
    }

    /// Begins again after [`Keeper::close`], if there is a store and it was closed: the next write
    /// opens it, as it does after a failure.
    ///
    /// # Errors
    /// Those of making a thread; the store is not healthy until a later call succeeds.
    pub fn reopen(&mut self) -> std::io::Result<()> {
        let begun = match self.file.clone() {
            Some(file) if self.writes.is_none() => self.begin(Writer::closed(file)),
            _ => return Ok(()),
        };
        if begun.is_err() {
            self.condition.is_healthy.store(false, Ordering::Relaxed);
        }
        begun
    }

    /// Whether the last write succeeded.
    pub fn is_healthy(&self) -> bool {
        self.condition.is_healthy.load(Ordering::Relaxed)
    }

    /// Whether something that was to be saved never reached the thread since this was last asked. All
    /// of it is to be saved again then.
    pub fn has_missed_something(&self) -> bool {
        self.condition.has_missed.swap(false, Ordering::Relaxed)
    }

    /// Decisions that the audit has dropped since the start, to stay within its bounds.
    pub fn dropped_decisions(&self) -> u64 {
        let unsent = self.condition.unsent.load(Ordering::Relaxed);
        unsent + self.condition.dropped.load(Ordering::Relaxed)
    }

    /// Asks for a save of what is in force, with the decisions that led there; the future resolves
    /// when both are on the disk, or when that has failed or taken too long. What failed or took too
    /// long is written later all the same, but never after what is saved after it.
    ///
    /// # Errors
    /// [`NotKept`] with the reason.
    pub fn save(
        &self,
        memory: Memory,
        decisions: Vec<Decision>,
    ) -> impl Future<Output = Result<(), NotKept>> + use<> {
        let (done, kept) = oneshot::channel();
        self.in_time(
            kept,
            Order::Save {
                memory,
                decisions,
                done: Some(done),
            },
        )
    }

    /// Asks for a save of what is to be in force once it is on the disk; otherwise nothing of it
    /// shall be, and the audit does not tell of it either. Whoever asked saves again what is in force
    /// after a failure: a disk that answers too late may have written the other.
    ///
    /// # Errors
    /// [`NotKept`] with the reason.
    pub fn promise(
        &self,
        memory: Memory,
        decisions: Vec<Decision>,
    ) -> impl Future<Output = Result<(), NotKept>> + use<> {
        let (done, kept) = oneshot::channel();
        self.in_time(
            kept,
            Order::Promise {
                memory,
                decisions,
                done,
            },
        )
    }

    /// Saves what is in force without waiting, with the decisions that led there; a failure shows in
    /// the gauge and the log.
    pub fn save_in_passing(&self, memory: Memory, decisions: Vec<Decision>) {
        let count = decisions.len();
        let order = Order::Save {
            memory,
            decisions,
            done: None,
        };
        // The next save is five seconds away and carries everything then, but for decisions.
        if let Err(error) = self.send(order)
            && count > 0
        {
            self.condition
                .unsent
                .fetch_add(count as u64, Ordering::Relaxed);
            tracing::error!(%error, decisions = count, "decisions are missing from the audit");
        }
    }

    /// Reads what is on the disk, with everything asked for before, on a thread of its own; the
    /// future resolves when it has been read, or when that has failed or taken too long.
    ///
    /// # Errors
    /// [`NotKept`] with the reason.
    pub fn read<T: Send + 'static, R>(
        &self,
        read: R,
    ) -> impl Future<Output = Result<T, NotKept>> + use<T, R>
    where
        R: FnOnce(&Reading) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, reading) = oneshot::channel();
        let permit = Arc::clone(&self.readers).try_acquire_owned();
        let sent = permit
            .map_err(|_| NotKept("others are reading it: ask again in a moment".to_owned()))
            .and_then(|permit| self.send(Order::Read(reply, permit)));
        async move {
            sent?;
            let read = async {
                let (reading, permit) = reading.await.map_err(|_| NotKept::ended())?;
                let reading = reading?;
                let reader = spawn_blocking(move || {
                    let result = read(&reading);
                    drop((reading, permit));
                    result
                });
                let result = reader.await.map_err(|error| NotKept(error.to_string()))?;
                result.map_err(|error| NotKept(error.to_string()))
            };
            let too_late = || NotKept("the disk does not answer".to_owned());
            timeout(READING, read).await.map_err(|_| too_late())?
        }
    }

    /// [`Keeper::read`] for what is large: one at a time.
    ///
    /// # Errors
    /// [`NotKept`] with the reason, also while another one is under way.
    pub fn read_alone<T: Send + 'static, R>(
        &self,
        read: R,
    ) -> impl Future<Output = Result<T, NotKept>> + use<T, R>
    where
        R: FnOnce(&Reading) -> Result<T, StoreError> + Send + 'static,
    {
        let permit = Arc::clone(&self.exports).try_acquire_owned();
        let result = permit.map(|permit| {
            self.read(move |reading| {
                let result = read(reading);
                drop(permit);
                result
            })
        });
        async move {
            let busy = |_| NotKept("another export is under way: ask again in a moment".to_owned());
            result.map_err(busy)?.await
        }
    }

    /// Ends the thread; resolves when everything asked for has been written and the store is
    /// closed, or when that takes too long.
    pub async fn finish(mut self) {
        if self.close().await.is_err() {
            tracing::error!("the state store hangs; it is left as it is");
        }
    }

    /// Closes the store when everything asked for has been written, so that another process may
    /// open it. From then on nothing is kept, until [`Keeper::reopen`].
    ///
    /// # Errors
    /// The disk hangs: the store may still be open.
    pub async fn close(&mut self) -> Result<(), NotKept> {
        self.writes = None;
        let Some(ended) = self.ended.take() else {
            return Ok(());
        };
        let closed = timeout(PATIENCE, ended).await;
        // That it was dropped instead of answered means the same: the thread has ended.
        closed
            .map(drop)
            .map_err(|_| NotKept("the disk does not answer".to_owned()))
    }

    /// One whose disk hangs as long as the other value lives.
    #[cfg(test)]
    pub(super) fn hanging() -> (Self, impl std::any::Any + use<>) {
        let (writes, queue) = mpsc::sync_channel(QUEUE);
        let keeper = Self {
            writes: Some(writes),
            file: None,
            condition: Condition::new(true),
            readers: Arc::new(Semaphore::new(READERS)),
            exports: Arc::new(Semaphore::new(EXPORTS)),
            ended: None,
        };
        (keeper, queue)
    }

    /// Sends an order and waits for its end, but not for ever.
    fn in_time(
        &self,
        kept: oneshot::Receiver<Result<(), NotKept>>,
        order: Order,
    ) -> impl Future<Output = Result<(), NotKept>> + use<> {
        let sent = self.send(order);
        let condition = Arc::clone(&self.condition);
        async move {
            sent?;
            // The judge may be waiting: one hang costs it its patience once.
            if condition.is_hanging.load(Ordering::Relaxed) {
                return Err(NotKept("the disk hangs".to_owned()));
            }
            match timeout(PATIENCE, kept).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(NotKept::ended()),
                Err(_) => {
                    condition.is_hanging.store(true, Ordering::Relaxed);
                    if condition.is_healthy.swap(false, Ordering::Relaxed) {
                        tracing::error!("the state store hangs; going on in memory");
                    }
                    Err(NotKept("the disk does not answer".to_owned()))
                }
            }
        }
    }

    fn send(&self, order: Order) -> Result<(), NotKept> {
        let Some(writes) = &self.writes else {
            return Err(NotKept("there is no state store".to_owned()));
        };
        writes.try_send(order).map_err(|error| {
            self.condition.has_missed.store(true, Ordering::Relaxed);
            let error = match error {
                TrySendError::Full(_) => NotKept("the state store does not keep up".to_owned()),
                TrySendError::Disconnected(_) => NotKept::ended(),
            };
            if self.condition.is_healthy.swap(false, Ordering::Relaxed) {
                tracing::error!(%error, "the state store fails; going on in memory");
            }
            error
        })
    }
}

impl Condition {
    fn new(is_healthy: bool) -> Arc<Self> {
        Arc::new(Self {
            is_healthy: AtomicBool::new(is_healthy),
            is_hanging: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            unsent: AtomicU64::new(0),
            has_missed: AtomicBool::new(false),
        })
    }
}

impl NotKept {
    fn ended() -> Self {
        Self("the thread that writes the state store has ended".to_owned())
    }
}

/// Writes what comes; the store is closed when this returns.
fn run(mut writer: Writer, queue: &Receiver<Order>, condition: &Condition) {
    for order in queue {
        match order {
            Order::Save {
                memory,
                decisions,
                done,
            } => {
                writer.remember(memory);
                writer.add(decisions);
                // Whoever waits, the stop among them, is told how the disk is now.
                if done.is_none() && !writer.is_due() {
                    continue;
                }
                let result = write(&mut writer, condition);
                if let Some(done) = done {
                    // Whoever asked may have gone.
                    let _ = done.send(result);
                }
            }
            // Whoever asked has given up, and been told that nothing changed.
            Order::Promise { done, .. } if done.is_closed() => {}
            Order::Promise {
                memory,
                decisions,
                done,
            } => {
                let promised = decisions.clone();
                let pending = writer.remember(memory);
                writer.add(decisions);
                let result = write(&mut writer, condition);
                if result.is_err() {
                    writer.take_back(pending, promised.len());
                }
                if let Err(Ok(())) = done.send(result) {
                    tracing::error!("the disk answered too late; what it saved is withdrawn");
                    let because = "the disk answered too late";
                    let promised = promised.into_iter();
                    writer.add(promised.map(|decision| withdrawn(decision, because)));
                }
            }
            Order::Read(reply, permit) => {
                // Whoever asked may have gone.
                let _ = reply.send((writer.reading().map_err(NotKept), permit));
            }
        }
    }
    let missing = writer.missing();
    if missing > 0 {
        tracing::error!(missing, "decisions are missing from the audit");
    }
}

fn write(writer: &mut Writer, condition: &Condition) -> Result<(), NotKept> {
    let result = writer.write();
    condition.is_hanging.store(false, Ordering::Relaxed);
    condition.dropped.store(writer.dropped(), Ordering::Relaxed);
    let was_healthy = condition.is_healthy.swap(result.is_ok(), Ordering::Relaxed);
    if result.is_ok() && !was_healthy {
        tracing::info!("the state store works again");
    }
    result.map_err(|error| NotKept(error.to_string()))
}

/// The audit is only added to. So what it tells of a decision that was refused after all is followed
/// by this.
fn withdrawn(decision: Decision, because: &str) -> Decision {
    let sentence = format!("Not carried out, since {because}: {}", decision.sentence);
    Decision {
        action: "withdrawn".to_owned(),
        from: decision.to,
        to: decision.from,
        sentence,
        ..decision
    }
}
