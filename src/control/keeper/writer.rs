//! What is to be written, until it is.
//!
//! After an error of its file the library refuses everything until the file is opened again. A disk
//! that was full for a moment would then cost every later decision, silently, at the next restart.
//! So what could not be written is kept here, and each attempt opens the file first if the last one
//! failed.
//!
//! The file is opened again, never made again: one that is missing or damaged by then holds
//! decisions that only a person can bring back, and until then writing fails.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Memory;
use crate::policy::denials::Denials;
use crate::policy::rollout::{Decision, Record};
use crate::state::{Changes, OpenError, Reading, Store, StoreError};

/// Opening reads the whole file; what nobody waits for is tried no sooner after a failure.
const AGAIN: Duration = Duration::from_secs(1);
/// Decisions kept for the audit. They are rare: more wait only where the disk fails for long.
pub(super) const BACKLOG: usize = 256;
/// Reasons told of one failure. A text that changes each time must not fill the log.
const REASONS: usize = 16;

/// The store with what it still lacks.
#[derive(Debug)]
pub(super) struct Writer {
    file: PathBuf,
    /// `None` since a write has failed.
    store: Option<Store>,
    failed_at: Option<Instant>,
    /// The newest of each split that is not on the disk yet.
    memory: Option<Memory>,
    /// The denials that the file holds for certain; they are many and seldom change.
    denials: Option<Arc<Denials>>,
    /// In order, the oldest first.
    decisions: VecDeque<Decision>,
    /// Decisions that the audit will never have, since the store last worked.
    lost: u64,
    /// Decisions that the audit has not any more, or will never have.
    dropped: u64,
    /// What was told of this failure.
    told: BTreeSet<String>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the state store cannot be opened again: {0}")]
    Open(#[from] OpenError),
    #[error(transparent)]
    Write(#[from] StoreError),
}

impl Writer {
    pub(super) fn new(store: Store) -> Self {
        let closed = Self::closed(store.file().to_owned());
        Self {
            store: Some(store),
            ..closed
        }
    }

    /// One that opens this file with its first attempt.
    pub(super) fn closed(file: PathBuf) -> Self {
        Self {
            file,
            store: None,
            failed_at: None,
            memory: None,
            denials: None,
            decisions: VecDeque::new(),
            lost: 0,
            dropped: 0,
            told: BTreeSet::new(),
        }
    }

    /// Takes what is to be saved, instead of anything older of the same splits. Returns what was to
    /// be saved before.
    pub(super) fn remember(&mut self, mut memory: Memory) -> Option<Memory> {
        let before = self.memory.take();
        if let Some(before) = &before {
            let named = memory.rollouts.iter().map(|(split, _)| split.as_str());
            let named: BTreeSet<&str> = named.collect();
            let others = before.rollouts.iter();
            let others = others.filter(|(split, _)| !named.contains(split.as_str()));
            let others: Vec<(String, Record)> = others.cloned().collect();
            memory.rollouts.extend(others);
        }
        self.memory = Some(memory);
        before
    }

    /// Takes decisions for the audit. The oldest give way where there are too many.
    pub(super) fn add(&mut self, decisions: impl IntoIterator<Item = Decision>) {
        for decision in decisions {
            if self.decisions.len() == BACKLOG {
                self.decisions.pop_front();
                if self.lost == 0 {
                    tracing::error!("too many decisions wait for the audit; it loses the oldest");
                }
                self.lost += 1;
                self.dropped += 1;
            }
            self.decisions.push_back(decision);
        }
    }

    /// Forgets what the disk has refused and nobody was promised: the memory, for what waited before
    /// it, and the last `count` decisions.
    pub(super) fn take_back(&mut self, pending: Option<Memory>, count: usize) {
        self.memory = pending;
        let kept = self.decisions.len().saturating_sub(count);
        self.decisions.truncate(kept);
    }

    /// Whether an attempt is worth its cost though nobody waits for it.
    pub(super) fn is_due(&self) -> bool {
        self.failed_at.is_none_or(|at| at.elapsed() >= AGAIN)
    }

    /// Writes everything that is not on the disk yet.
    ///
    /// # Errors
    /// What was not written is kept for the next attempt. A decision whose commit failed late can
    /// be in the audit twice then, which is better than never.
    pub(super) fn write(&mut self) -> Result<(), Failure> {
        let result = self.try_write();
        match &result {
            Ok(()) => {
                self.failed_at = None;
                self.told.clear();
                if self.lost > 0 {
                    tracing::error!(decisions = self.lost, "the audit lacks decisions for ever");
                    self.lost = 0;
                }
            }
            Err(error) => {
                // It would refuse everything from now on, and opening needs its lock.
                self.store = None;
                self.denials = None;
                self.failed_at = Some(Instant::now());
                if self.told.len() < REASONS && self.told.insert(error.to_string()) {
                    tracing::error!(%error, "the state store fails; going on in memory");
                }
            }
        }
        result
    }

    /// What is on the disk at this moment.
    ///
    /// # Errors
    /// A sentence; after a failure the file is opened again by the next attempt to write.
    pub(super) fn reading(&self) -> Result<Reading, String> {
        let store = self.store.as_ref().ok_or("the state store fails")?;
        store.reading().map_err(|error| error.to_string())
    }

    /// Decisions that gave way to the bound of the audit, or of what waits for it.
    pub(super) const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Decisions that the audit lacks.
    pub(super) fn missing(&self) -> u64 {
        self.lost + self.decisions.len() as u64
    }

    fn try_write(&mut self) -> Result<(), Failure> {
        let store = match &mut self.store {
            Some(store) => store,
            none => none.insert(Store::reopen(&self.file)?),
        };
        if self.memory.is_none() && self.decisions.is_empty() {
            return Ok(());
        }
        let rollouts = self.memory.iter().flat_map(|memory| &memory.rollouts);
        let rollouts = rollouts.map(|(split, record)| (split.as_str(), record));
        let emergency = self.memory.as_ref().map(|memory| memory.emergency);
        let wanted = self.memory.as_ref().map(|memory| &memory.denials);
        let is_known = |denials: &&Arc<Denials>| {
            let known = self.denials.as_ref();
            known.is_some_and(|known| Arc::ptr_eq(known, denials))
        };
        let denials = wanted.filter(|wanted| !is_known(wanted));
        let changes = Changes {
            emergency,
            denials: denials.map(|denials| &**denials),
        };
        self.dropped += store.commit(rollouts, changes, &self.decisions)?;
        if let Some(memory) = self.memory.take() {
            self.denials = Some(memory.denials);
        }
        self.decisions.clear();
        Ok(())
    }
}
