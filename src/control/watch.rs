//! Tells when the configuration file, or a file it names, has changed and is complete.
//!
//! The obvious way, a watch on the file, misses most of what people do to files. An editor renames
//! a new file over the old one, and the watch stays with the old. Kubernetes swaps a symbolic link
//! in front of the file's directory, and the file's own entry never changes. So what is watched is
//! every directory entry on the way to a file (see [`entries`]), found afresh after each change.
//! And since the kernel's notices can overflow, or be unavailable, or not reach over a network file
//! system, they only say when to look; whether something changed is decided by the content, and
//! every [`POLL`] it is looked at without a notice.
//!
//! The other mistake is to read half a file. What is guaranteed:
//!
//! - After a writer closed its file, or something was renamed into place, the change is reported at
//!   once, unless a watched file is being written at that moment.
//! - While a file was written to and not closed, the change is reported when the content was found
//!   equal [`WRITER_PATIENCE`] apart, for the sake of writers that never close. A writer that rests
//!   for longer in the middle of its work is indistinguishable from one that has finished.
//! - Without a notice of a write (an entry that vanished or appeared, a file changed on another
//!   machine), the change is reported when the content was found equal [`SETTLING`] apart.
//!
//! A reader still opens the file a moment after the report. If another writer begins just then, the
//! reader may meet its half, and there will be another report when that writer is done.

mod entries;
mod notices;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::time::{Instant, sleep_until};
use xxhash_rust::xxh3::Xxh3Default;

use self::entries::entries_of;
use self::notices::Notices;

/// How long content must stay the same when nothing is known about a writer.
const SETTLING: Duration = Duration::from_millis(20);
/// How long content must stay the same while a writer has not closed the file. Copies over a
/// network stall for tenths of a second; a writer that never closes is rare and can wait.
const WRITER_PATIENCE: Duration = Duration::from_millis(500);
/// How often to look without a notice.
const POLL: Duration = Duration::from_secs(15);
/// How often to look when notices are not to be had.
const BLIND_POLL: Duration = Duration::from_secs(1);

/// Watches the content of a few files.
#[derive(Debug)]
pub struct Watcher {
    files: Vec<PathBuf>,
    /// What the files contained when [`changed`](Self::changed) last returned.
    reported: Fingerprint,
    candidate: Option<Candidate>,
    next_look: Instant,
    notices: Arc<Notices>,
    /// Absent where the system gives no notices.
    system: Option<RecommendedWatcher>,
    /// The directories that the system watches for us.
    armed: BTreeSet<PathBuf>,
    /// Whether some directory could not be watched.
    is_blind: bool,
}

/// A hash of each file's content, in the order of the files; nothing for a file that cannot be
/// read.
type Fingerprint = Vec<Option<u64>>;

/// Content that would be news if it stayed as it is.
#[derive(Debug)]
struct Candidate {
    fingerprint: Fingerprint,
    since: Instant,
}

impl Watcher {
    /// Watches `files`, whose present content is no change. To miss nothing, make the watcher
    /// before the files are read for the first time.
    ///
    /// Where the system gives no notices, a warning is logged and the files are looked at every
    /// second.
    pub fn new(files: Vec<PathBuf>) -> Self {
        let notices = Arc::new(Notices::default());
        let receiver = Arc::clone(&notices);
        let system = notify::recommended_watcher(move |event| receiver.note(event));
        let system = match system {
            Ok(system) => Some(system),
            Err(error) => {
                tracing::warn!(
                    %error,
                    "no notices of changed files from the system; looking every second instead"
                );
                None
            }
        };
        Self::with_system(files, notices, system)
    }

    fn with_system(
        files: Vec<PathBuf>,
        notices: Arc<Notices>,
        system: Option<RecommendedWatcher>,
    ) -> Self {
        let mut watcher = Self {
            files,
            reported: Fingerprint::new(),
            candidate: None,
            next_look: Instant::now(),
            notices,
            is_blind: system.is_none(),
            system,
            armed: BTreeSet::new(),
        };
        watcher.arm();
        watcher.reported = fingerprint(&watcher.files);
        watcher.next_look = Instant::now() + watcher.poll();
        watcher
    }

    /// Watches `files` instead, after a reload. A file that was watched before keeps what was
    /// reported of it, so no change is missed; of a new one the present content is no change.
    pub fn watch(&mut self, files: Vec<PathBuf>) {
        if files == self.files {
            return;
        }
        let previous = std::mem::replace(&mut self.files, files);
        self.arm();
        self.reported = (self.files.iter())
            .map(|file| {
                let known = previous.iter().position(|known| known == file);
                known.map_or_else(|| content_of(file), |index| self.reported[index])
            })
            .collect();
        self.candidate = None;
        // A known file may have changed while the list was replaced.
        self.next_look = Instant::now();
    }

    /// Returns once when the content of the files differs from what it was at the last return, and
    /// is complete. Reads the files on the calling thread. Can be dropped and called again without
    /// losing a change.
    pub async fn changed(&mut self) {
        loop {
            tokio::select! {
                () = self.notices.arrive() => {}
                // Without a notice for so long, the watches themselves are in doubt.
                () = sleep_until(self.next_look) => if self.candidate.is_none() {
                    self.disarm();
                },
            }
            // A notice is used up by now, so nothing below may wait.
            if self.look() {
                return;
            }
        }
    }

    /// Whether the files have changed and are complete. Sets the time of the next look.
    fn look(&mut self) -> bool {
        let something_was_completed = self.notices.take_completed();
        self.arm();
        let seen = fingerprint(&self.files);
        let now = Instant::now();
        if seen == self.reported {
            self.candidate = None;
            self.next_look = now + self.poll();
            return false;
        }
        let is_being_written = self.notices.is_being_written();
        if !something_was_completed || is_being_written {
            let patience = if is_being_written {
                WRITER_PATIENCE
            } else {
                SETTLING
            };
            let since = match &self.candidate {
                Some(candidate) if candidate.fingerprint == seen => candidate.since,
                _ => now,
            };
            if now < since + patience {
                self.next_look = since + patience;
                self.candidate = Some(Candidate {
                    fingerprint: seen,
                    since,
                });
                return false;
            }
            // A writer that neither writes nor closes shall not delay the next change as well.
            self.notices.forget_writers();
        }
        self.reported = seen;
        self.candidate = None;
        self.next_look = now + self.poll();
        true
    }

    /// Has the system watch every directory that holds an entry on the way to one of the files.
    fn arm(&mut self) {
        let Some(system) = &mut self.system else {
            return;
        };
        for directory in self.notices.take_lost() {
            self.armed.remove(&directory);
            // It may be gone, and the watch with it, here and below.
            let _ = system.unwatch(&directory);
        }
        let mut refusal = None;
        // What is found depends on entries that may change before they are watched, so the second
        // round looks again. If they change faster than that, their notices are still to come.
        for _ in 0..2 {
            let entries = entries_of(&self.files);
            let needed: BTreeSet<PathBuf> = entries
                .iter()
                .filter_map(|entry| entry.parent().map(Path::to_path_buf))
                .collect();
            if !self.notices.expect(entries, &needed) && needed == self.armed {
                break;
            }
            for directory in self.armed.difference(&needed) {
                let _ = system.unwatch(directory);
            }
            self.armed.retain(|directory| needed.contains(directory));
            for directory in needed {
                if self.armed.contains(&directory) {
                    continue;
                }
                match system.watch(&directory, RecursiveMode::NonRecursive) {
                    Ok(()) => drop(self.armed.insert(directory)),
                    Err(error) => refusal = Some((directory, error)),
                }
            }
        }
        if let (Some((directory, error)), false) = (&refusal, self.is_blind) {
            tracing::warn!(
                directory = %directory.display(),
                %error,
                "a directory cannot be watched; looking every second instead"
            );
        }
        self.is_blind = refusal.is_some();
    }

    /// Ends all watches; the next look begins them anew.
    fn disarm(&mut self) {
        if let Some(system) = &mut self.system {
            for directory in std::mem::take(&mut self.armed) {
                let _ = system.unwatch(&directory);
            }
        }
    }

    fn poll(&self) -> Duration {
        if self.is_blind { BLIND_POLL } else { POLL }
    }
}

fn fingerprint(files: &[PathBuf]) -> Fingerprint {
    files.iter().map(|file| content_of(file)).collect()
}

fn content_of(file: &Path) -> Option<u64> {
    hash(file).ok()
}

fn hash(file: &Path) -> io::Result<u64> {
    // Opening a named pipe would wait for its writer.
    if !std::fs::metadata(file)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut file = File::open(file)?;
    let mut hash = Xxh3Default::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hash.digest()),
            Ok(length) => hash.update(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
