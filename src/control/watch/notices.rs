//! What the system said about the watched entries, kept until somebody looks.
//!
//! Notices arrive on a thread of their own and are folded into a few sets bounded by what is
//! watched, so that a flood of them costs neither memory nor more than one look.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use notify::Event;
use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};
use tokio::sync::Notify;

/// Shared by the thread that is told and the task that looks.
///
/// The lock must not be held while watches are changed: the thread that would change them may be
/// waiting for it.
#[derive(Debug, Default)]
pub(super) struct Notices {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The entries that matter.
    entries: BTreeSet<PathBuf>,
    /// The directories that hold them.
    directories: BTreeSet<PathBuf>,
    /// Directories whose watch ended or went elsewhere.
    lost: BTreeSet<PathBuf>,
    /// Entries written to and not closed since.
    being_written: BTreeSet<PathBuf>,
    /// Whether a file was closed by a writer, or something was renamed into place.
    completed: bool,
}

impl Notices {
    /// From now on, `entries` in `directories` matter. Returns whether they are others than before.
    pub(super) fn expect(
        &self,
        entries: BTreeSet<PathBuf>,
        directories: &BTreeSet<PathBuf>,
    ) -> bool {
        let mut state = self.state();
        if state.entries == entries {
            return false;
        }
        state.being_written.retain(|entry| entries.contains(entry));
        state.entries = entries;
        state.directories.clone_from(directories);
        true
    }

    /// Returns when there was a notice since the last return.
    pub(super) async fn arrive(&self) {
        self.wake.notified().await;
    }

    /// Whether something was completed since the last call.
    pub(super) fn take_completed(&self) -> bool {
        std::mem::take(&mut self.state().completed)
    }

    /// The directories to be watched anew.
    pub(super) fn take_lost(&self) -> BTreeSet<PathBuf> {
        std::mem::take(&mut self.state().lost)
    }

    /// Whether some file was written to and not closed since.
    pub(super) fn is_being_written(&self) -> bool {
        !self.state().being_written.is_empty()
    }

    /// Takes the files that were not closed for finished.
    pub(super) fn forget_writers(&self) {
        self.state().being_written.clear();
    }

    /// The system says something.
    pub(super) fn note(&self, event: notify::Result<Event>) {
        let mut state = self.state();
        let is_news = match event {
            // What was lost in an overflow could be anything.
            Ok(event) if event.need_rescan() => {
                let directories = state.directories.clone();
                state.lost.extend(directories);
                true
            }
            Ok(event) => (event.paths.iter()).fold(false, |is_news, path| {
                state.note(event.kind, path) | is_news
            }),
            Err(_) => true,
        };
        drop(state);
        if is_news {
            // One permit at most is stored: any number of notices is one look.
            self.wake.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The sets are valid at every moment, whatever a thread that panicked was about to do.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether this deserves a look.
    fn note(&mut self, kind: EventKind, path: &Path) -> bool {
        let is_gone = matches!(
            kind,
            EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From))
        );
        if is_gone && self.directories.contains(path) {
            self.lost.insert(path.to_path_buf());
            return true;
        }
        if !self.entries.contains(path) {
            return false;
        }
        if is_gone {
            self.being_written.remove(path);
            return true;
        }
        match kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(RenameMode::To)) => {
                self.being_written.remove(path);
                self.completed = true;
                true
            }
            // Our own reading must not wake us, and both halves of a rename were told before.
            EventKind::Access(_) | EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => false,
            // Each piece of a long write would be a look; its end is what matters.
            EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Any) => {
                self.being_written.insert(path.to_path_buf())
            }
            _ => true,
        }
    }
}
