//! What survives a kill: rollouts, the emergency, what was denied by hand, and the audit.
//!
//! A proxy that forgets a rollback sends everyone back to the arm that was just found dead. So a
//! decision is on disk when its call returns, a file that cannot be read in full is refused instead
//! of replaced, and nothing ever starts afresh in silence: an empty or half-made file is damage
//! too, which is why a new file gets its name only when it is complete.
//!
//! One file, one process: the lock is held while a [`Store`] exists. Values are JSON, so that a
//! person with the file in hand can read them. Every call may wait for the disk; the control plane
//! makes them where that hurts nobody.

mod denied;
mod document;
mod error;
mod reading;
mod record;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use redb::backends::InMemoryBackend;
use redb::{
    Builder, Database, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    StorageBackend, Table, TableDefinition, WriteTransaction,
};

pub use self::document::{Document, ImportError, Replacing, Unreadable};
pub use self::error::{OpenError, StoreError};
pub use self::reading::{Reading, Wanted};
use crate::policy::denials::Denials;
use crate::policy::rollout::{Decision, Record};
use crate::policy::time::Timestamp;

/// `format` → the number below; `emergency` → 0 or 1.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// Name of the split → [`Record`].
const ROLLOUTS: TableDefinition<&str, &str> = TableDefinition::new("rollouts");
/// Network → `Denial`. A file of an earlier version has no such table.
const DENIED: TableDefinition<&str, &str> = TableDefinition::new("denied");
/// Running number → [`Decision`].
const AUDIT: TableDefinition<u64, &str> = TableDefinition::new("audit");

/// Rises whenever an older program could misread a file.
const FORMAT: u64 = 1;
/// Decisions kept; older ones are dropped, so that the file cannot grow for ever.
const AUDIT_LIMIT: u64 = 10_000;
/// The library's default of 1 GiB is meant for databases; this file is a few pages.
const CACHE_BYTES: usize = 1024 * 1024;

/// The state store of one running process.
#[derive(Debug)]
pub struct Store {
    database: Database,
    file: PathBuf,
    is_new: bool,
}

/// What an earlier process left behind.
#[derive(Debug, Default, PartialEq)]
pub struct Saved {
    /// By name of the split, those that are no longer configured included.
    pub rollouts: BTreeMap<String, Record>,
    /// Whether an emergency covers all splits.
    pub emergency: bool,
    /// What was denied by hand.
    pub denials: Denials,
    /// How many denials more than may be the file holds; the oldest, they are not in force.
    pub denials_dropped: u64,
}

/// What is to be saved besides rollouts; what is absent stays as it was.
#[derive(Clone, Copy, Debug, Default)]
pub struct Changes<'a> {
    /// Whether an emergency covers all splits.
    pub emergency: Option<bool>,
    /// All that was denied by hand.
    pub denials: Option<&'a Denials>,
}

impl Store {
    /// Name of the file within the state directory.
    pub const FILE_NAME: &'static str = "cutover.redb";

    /// Opens the store in `directory`; directory and file are created where they are missing.
    ///
    /// # Errors
    /// [`OpenError`] names the file and what to do; nothing was changed.
    pub fn open(directory: &Path) -> Result<Store, OpenError> {
        let unusable = |source| OpenError::Directory {
            directory: directory.to_owned(),
            source,
        };
        fs::create_dir_all(directory).map_err(unusable)?;
        let file = directory.join(Self::FILE_NAME);
        let is_new = !file.try_exists().map_err(unusable)?;
        if is_new {
            create(directory, &file)?;
        }
        let store = Self::reopen(&file)?;
        Ok(Store { is_new, ..store })
    }

    /// Opens a store that must exist: its [`Store::file`], after it has failed and was dropped.
    ///
    /// # Errors
    /// [`OpenError`], also where there is no file; none is made.
    pub fn reopen(file: &Path) -> Result<Store, OpenError> {
        verify(file)?;
        let database = Builder::new()
            .set_cache_size(CACHE_BYTES)
            .open(file)
            .map_err(|error| OpenError::from_database(file, error))?;
        let store = Store {
            database,
            file: file.to_owned(),
            is_new: false,
        };
        store.check_format()?;
        Ok(store)
    }

    /// Opens the store in `directory` if there is one; otherwise nothing is made.
    ///
    /// # Errors
    /// [`OpenError`] names the file and what to do.
    pub fn reopen_if_there(directory: &Path) -> Result<Option<Store>, OpenError> {
        let file = directory.join(Self::FILE_NAME);
        let is_there = file.try_exists().map_err(|source| OpenError::Directory {
            directory: directory.to_owned(),
            source,
        })?;
        is_there.then(|| Self::reopen(&file)).transpose()
    }

    /// Copies the file, so that another may take its name in one step. Returns the copy's name.
    ///
    /// # Errors
    /// The copy's; there may be a part of it.
    pub fn copy_aside(directory: &Path, now: Timestamp) -> io::Result<PathBuf> {
        let aside = Self::aside(directory, now);
        fs::copy(directory.join(Self::FILE_NAME), &aside)?;
        fs::File::open(&aside)?.sync_all()?;
        Ok(aside)
    }

    /// Renames the file of a store that cannot be opened, so that the next [`Store::open`] begins a
    /// new one. Returns its new name.
    ///
    /// # Errors
    /// The rename's.
    pub fn set_aside(directory: &Path, now: Timestamp) -> io::Result<PathBuf> {
        let aside = Self::aside(directory, now);
        fs::rename(directory.join(Self::FILE_NAME), &aside)?;
        Ok(aside)
    }

    fn aside(directory: &Path, now: Timestamp) -> PathBuf {
        let name = format!("{}.aside-{}", Self::FILE_NAME, now.milliseconds());
        directory.join(name)
    }

    /// Where it is.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Whether there was no file, so that nothing of earlier decisions is known.
    pub const fn is_new(&self) -> bool {
        self.is_new
    }

    /// Everything that was saved. Meant for the start, hence the error.
    ///
    /// # Errors
    /// [`OpenError`] if any of it cannot be read or understood.
    pub fn load(&self) -> Result<Saved, OpenError> {
        let broken = |error: redb::Error| OpenError::damaged(&self.file, error);
        let mut saved = Saved::default();
        let transaction = self.database.begin_read().map_err(|it| broken(it.into()))?;
        let meta = transaction
            .open_table(META)
            .map_err(|it| broken(it.into()))?;
        let emergency = meta.get("emergency").map_err(|it| broken(it.into()))?;
        saved.emergency = emergency.is_some_and(|flag| flag.value() != 0);

        let rollouts = transaction
            .open_table(ROLLOUTS)
            .map_err(|it| broken(it.into()))?;
        for entry in rollouts.iter().map_err(|it| broken(it.into()))? {
            let (split, json) = entry.map_err(|it| broken(it.into()))?;
            let (split, json) = (split.value().to_owned(), json.value());
            let record = self.read_record(&split, json)?;
            saved.rollouts.insert(split, record);
        }
        (saved.denials, saved.denials_dropped) =
            denied::read(&transaction).map_err(|error| match error {
                StoreError::Database(error) => broken(error),
                error => OpenError::damaged(&self.file, error),
            })?;
        Ok(saved)
    }

    /// Saves all of these rollouts, the other changes, and the decisions that led there, or nothing of
    /// it: in one step, so that no kill can leave a decision in force that the audit does not know.
    /// Rollouts that are not given stay as they were: a split that leaves the file and comes back is
    /// still rolled back. On disk when this returns. Returns how many old decisions the audit has
    /// dropped to stay within its bound; none of those it keeps is ever altered.
    ///
    /// # Errors
    /// [`StoreError`]; what was saved before is still there.
    pub fn commit<'a>(
        &self,
        rollouts: impl IntoIterator<Item = (&'a str, &'a Record)>,
        changes: Changes<'_>,
        decisions: impl IntoIterator<Item = &'a Decision>,
    ) -> Result<u64, StoreError> {
        let transaction = begin(&self.database)?;
        {
            let mut table = transaction.open_table(ROLLOUTS)?;
            for (split, record) in rollouts {
                insert_record(&mut table, split, record)?;
            }
        }
        if let Some(denials) = changes.denials {
            denied::write(&transaction, denials)?;
        }
        if let Some(emergency) = changes.emergency {
            let mut meta = transaction.open_table(META)?;
            meta.insert("emergency", u64::from(emergency))?;
        }
        let dropped = append(&transaction, decisions)?;
        // An error before this drops the transaction, which undoes it.
        transaction.commit()?;
        Ok(dropped)
    }

    fn check_format(&self) -> Result<(), OpenError> {
        let format = self.read_format().map_err(|error| match error {
            redb::Error::TableDoesNotExist(_) => {
                OpenError::damaged(&self.file, "another program wrote it")
            }
            error => OpenError::damaged(&self.file, error),
        })?;
        match format {
            Some(FORMAT) => Ok(()),
            Some(found) if found > FORMAT => Err(OpenError::Newer {
                file: self.file.clone(),
                found,
                known: FORMAT,
            }),
            _ => Err(OpenError::damaged(
                &self.file,
                "it has no valid format number",
            )),
        }
    }

    fn read_format(&self) -> Result<Option<u64>, redb::Error> {
        let transaction = self.database.begin_read()?;
        let meta = transaction.open_table(META)?;
        Ok(meta.get("format")?.map(|format| format.value()))
    }

    fn read_record(&self, split: &str, json: &str) -> Result<Record, OpenError> {
        let damaged = |detail: String| {
            let detail = format!("the record of {split} {detail}");
            OpenError::damaged(&self.file, detail)
        };
        let written = serde_json::from_str(json);
        let written = written.map_err(|error| damaged(format!("is unreadable: {error}")))?;
        match record::understand(written) {
            Ok((record, version)) => {
                if version < Record::VERSION {
                    tracing::info!(split, version, "its state is an earlier version's");
                }
                Ok(record)
            }
            Err(record::Unknown::Newer(found)) => Err(OpenError::Newer {
                file: self.file.clone(),
                found,
                known: u64::from(Record::VERSION),
            }),
            Err(record::Unknown::Damaged(detail)) => Err(damaged(detail)),
        }
    }
}

/// Examines every page of a file before anything trusts it.
///
/// The library examines only a file that was not closed properly, mends what it can in place, and
/// panics on some damage. So it is given a copy in memory: a refused file stays as it is, and is
/// refused again at the next start instead of being used with whatever was left of it.
fn verify(file: &Path) -> Result<(), OpenError> {
    let unusable = |source| OpenError::File {
        file: file.to_owned(),
        source,
    };
    let mut handle = OpenOptions::new()
        .read(true)
        .write(true)
        .open(file)
        .map_err(unusable)?;
    handle.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => OpenError::Locked {
            file: file.to_owned(),
        },
        TryLockError::Error(source) => unusable(source),
    })?;
    let mut contents = Vec::new();
    handle.read_to_end(&mut contents).map_err(unusable)?;
    if contents.is_empty() {
        return Err(OpenError::damaged(file, "it is empty"));
    }
    match std::panic::catch_unwind(move || is_sound(&contents)) {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(OpenError::damaged(file, "its checksums do not match")),
        Ok(Err(error)) => Err(OpenError::damaged(file, error)),
        Err(_) => Err(OpenError::damaged(file, "its structure makes no sense")),
    }
}

fn is_sound(contents: &[u8]) -> Result<bool, redb::Error> {
    let copy = InMemoryBackend::new();
    copy.set_len(contents.len() as u64)?;
    copy.write(0, contents)?;
    let mut database = Builder::new()
        .set_cache_size(CACHE_BYTES)
        .create_with_backend(copy)?;
    Ok(database.check_integrity()?)
}

/// Makes a complete, empty store and only then gives it its name.
fn create(directory: &Path, file: &Path) -> Result<(), OpenError> {
    let unfinished = file.with_extension("unfinished");
    let failed = |source| OpenError::Directory {
        directory: directory.to_owned(),
        source,
    };
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let written = fill_new(&unfinished);
    written.map_err(|error| match error {
        StoreError::Database(redb::Error::Io(source)) => failed(source),
        error => failed(io::Error::other(error)),
    })?;
    fs::rename(&unfinished, file).map_err(failed)?;
    // The name itself is on disk only when the directory is.
    let directory = fs::File::open(directory).map_err(failed)?;
    directory.sync_all().map_err(failed)
}

fn fill_new(file: &Path) -> Result<(), StoreError> {
    let database = Builder::new().set_cache_size(CACHE_BYTES).create(file)?;
    let transaction = begin(&database)?;
    transaction.open_table(META)?.insert("format", FORMAT)?;
    transaction.open_table(ROLLOUTS)?;
    transaction.open_table(AUDIT)?;
    transaction.commit()?;
    Ok(())
}

fn begin(database: &Database) -> Result<WriteTransaction, StoreError> {
    let mut transaction = database.begin_write()?;
    // The library's default, written down because every promise here rests on it.
    transaction.set_durability(Durability::Immediate)?;
    Ok(transaction)
}

/// Adds decisions to the audit; returns how many old ones gave way.
fn append<'a>(
    transaction: &WriteTransaction,
    decisions: impl IntoIterator<Item = &'a Decision>,
) -> Result<u64, StoreError> {
    let mut audit = transaction.open_table(AUDIT)?;
    let last = audit.last()?.map(|(number, _)| number.value());
    let first = last.map_or(0, |number| number + 1);
    for (number, decision) in (first..).zip(decisions) {
        let json = serde_json::to_string(decision).map_err(StoreError::Value)?;
        audit.insert(number, json.as_str())?;
    }
    let mut dropped = 0;
    while audit.len()? > AUDIT_LIMIT {
        audit.pop_first()?;
        dropped += 1;
    }
    Ok(dropped)
}

fn insert_record(
    table: &mut Table<&str, &str>,
    split: &str,
    record: &Record,
) -> Result<(), StoreError> {
    let json = serde_json::to_string(record).map_err(StoreError::Value)?;
    table.insert(split, json.as_str())?;
    Ok(())
}
