//! All that a store holds as one JSON document: a backup, and the way to another machine.
//!
//! The document is read as strictly as the store itself: whatever is not understood in full is
//! refused with the name of its place, because half a backup would bring back a share that nobody
//! has promised. A new store is made whole beside the old one, read back and compared, and only then
//! takes its place in one step; the old one is copied aside before, never deleted.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use redb::{ReadOnlyTable, ReadableTable};
use serde::de::DeserializeOwned;
use serde::ser::{Error, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use super::{
    AUDIT, AUDIT_LIMIT, Changes, META, OpenError, ROLLOUTS, Reading, Store, StoreError, denied,
    record,
};
use crate::policy::denials::{Denial, Denials};
use crate::policy::rollout::{Decision, Record};
use crate::policy::time::Timestamp;

/// All that a store holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Document<A = Vec<Decision>> {
    /// [`Document::FORMAT`] of the program that wrote it.
    pub format: u64,
    /// Version of that program.
    pub version: String,
    /// When it was written, RFC 3339.
    pub at: String,
    /// Whether an emergency covers all splits.
    pub emergency: bool,
    /// By name of the split, those that are no longer configured included.
    pub rollouts: BTreeMap<String, Record>,
    /// Networks denied by hand; absent where there are none, as in documents of earlier versions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub denied: BTreeMap<IpNet, Denial>,
    /// The oldest first.
    pub audit: A,
}

/// The audit where it is, written decision by decision.
struct Audit(ReadOnlyTable<u64, &'static str>);

impl Serialize for Audit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sequence = serializer.serialize_seq(None)?;
        for entry in self.0.iter().map_err(S::Error::custom)? {
            let (_, json) = entry.map_err(S::Error::custom)?;
            let decision: Decision =
                serde_json::from_str(json.value()).map_err(S::Error::custom)?;
            sequence.serialize_element(&decision)?;
        }
        sequence.end()
    }
}

/// The text is no document that this program understands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// A later version wrote it.
    #[error(
        "{place} is of a newer cutover (format {found}, this one knows {known}): import it with \
         that version"
    )]
    Newer {
        /// Where it says so.
        place: String,
        /// Its format.
        found: u64,
        /// The latest format known.
        known: u64,
    },
    /// Something in it is missing or is not what was written.
    #[error("{place} is damaged: {detail}")]
    Damaged {
        /// Where.
        place: String,
        /// What is wrong there.
        detail: String,
    },
}

/// The document is not in the store. What was there before is still there.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The present store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It holds something, and nobody said that it may be replaced.
    #[error(
        "{} holds {rollouts} rollouts and {decisions} decisions: to set that file aside and put the \
         document in its place, say --replace",
        .file.display()
    )]
    NotEmpty {
        /// The store.
        file: PathBuf,
        /// Its rollouts.
        rollouts: usize,
        /// Its decisions.
        decisions: usize,
    },
    /// The new store cannot be written.
    #[error(transparent)]
    Write(#[from] StoreError),
    /// The new store does not hold what was written to it.
    #[error("what was written to {} is not what is read back", .0.display())]
    Differs(PathBuf),
    /// A file cannot be put in its place.
    #[error("{} cannot be put in place: {source}", .file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl Document {
    /// Rises whenever an older program could misread a document.
    pub const FORMAT: u64 = 1;

    /// Reads what [`Reading::document`] or an earlier version of it gave.
    ///
    /// # Errors
    /// [`Unreadable`] names the first place that is not understood.
    pub fn parse(text: &str) -> Result<Document, Unreadable> {
        let mut fields: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| damaged("the document", error))?;
        let format = take(&mut fields, "format")?;
        if format > Self::FORMAT {
            return Err(Unreadable::Newer {
                place: "`format`".to_owned(),
                found: format,
                known: Self::FORMAT,
            });
        }
        if format == 0 {
            return Err(damaged("`format`", "there never was a format 0"));
        }
        let written: BTreeMap<String, Value> = take(&mut fields, "rollouts")?;
        let mut rollouts = BTreeMap::new();
        for (split, written) in written {
            let (record, _) = record::understand(written).map_err(|error| {
                let place = format!("`rollouts.{split}`");
                match error {
                    record::Unknown::Newer(found) => Unreadable::Newer {
                        place,
                        found,
                        known: u64::from(Record::VERSION),
                    },
                    record::Unknown::Damaged(detail) => damaged(&place, detail),
                }
            })?;
            rollouts.insert(split, record);
        }
        let written: Vec<Value> = take(&mut fields, "audit")?;
        if written.len() as u64 > AUDIT_LIMIT {
            let detail = format!("it has more than {AUDIT_LIMIT} decisions");
            return Err(damaged("`audit`", detail));
        }
        let audit = (0..).zip(written).map(|(index, written): (usize, Value)| {
            let decision: Result<Decision, _> = serde_json::from_value(written);
            decision.map_err(|error| damaged(&format!("`audit[{index}]`"), error))
        });
        let audit = audit.collect::<Result<_, _>>()?;
        let mut denied: BTreeMap<IpNet, Denial> = BTreeMap::new();
        if fields.contains_key("denied") {
            denied = take(&mut fields, "denied")?;
        }
        if denied.len() > Denials::MAX {
            let detail = format!("it has more than {} networks", Denials::MAX);
            return Err(damaged("`denied`", detail));
        }
        let document = Document {
            denied,
            format,
            version: take(&mut fields, "version")?,
            at: take(&mut fields, "at")?,
            emergency: take(&mut fields, "emergency")?,
            rollouts,
            audit,
        };
        match fields.keys().next() {
            None => Ok(document),
            Some(unknown) => Err(damaged(
                &format!("`{unknown}`"),
                "nobody wrote such a field",
            )),
        }
    }

    /// Makes this the store of `directory`. Returns where the old one is kept, if it held anything.
    ///
    /// # Errors
    /// [`ImportError`]; what was there before is still there.
    pub fn import(
        &self,
        directory: &Path,
        replacing: Replacing,
        now: Timestamp,
    ) -> Result<Option<PathBuf>, ImportError> {
        let file = directory.join(Store::FILE_NAME);
        // Held until the end: no process may begin to use what is about to be replaced.
        let present = match Store::reopen_if_there(directory) {
            Ok(present) => present,
            Err(OpenError::Damaged { .. } | OpenError::Newer { .. })
                if replacing == Replacing::SetAside =>
            {
                None
            }
            Err(error) => return Err(error.into()),
        };
        let held = present.as_ref().map(|store| store.reading()?.document(now));
        match held.filter(|_| replacing == Replacing::Never) {
            Some(Ok(held)) if !held.is_empty() => {
                return Err(ImportError::NotEmpty {
                    file,
                    rollouts: held.rollouts.len(),
                    decisions: held.audit.len(),
                });
            }
            Some(Err(error)) => return Err(error.into()),
            Some(Ok(_)) | None => {}
        }
        let unplaced = |source| ImportError::File {
            file: file.clone(),
            source,
        };
        let draft = Draft::make_in(directory, now).map_err(unplaced)?;
        self.write_new(&draft.0, now)?;
        let aside = match file.try_exists().map_err(unplaced)? {
            true => Some(Store::copy_aside(directory, now).map_err(unplaced)?),
            false => None,
        };
        fs::rename(draft.0.join(Store::FILE_NAME), &file).map_err(unplaced)?;
        let named = fs::File::open(directory).and_then(|directory| directory.sync_all());
        named.map_err(unplaced)?;
        drop(draft);
        drop(present);
        Ok(aside)
    }

    fn is_empty(&self) -> bool {
        self.rollouts.is_empty()
            && self.audit.is_empty()
            && self.denied.is_empty()
            && !self.emergency
    }

    /// Writes a whole store of its own, and reads it back.
    fn write_new(&self, directory: &Path, now: Timestamp) -> Result<(), ImportError> {
        let store = Store::open(directory)?;
        let rollouts = self.rollouts.iter();
        let rollouts = rollouts.map(|(split, record)| (split.as_str(), record));
        let denials = self.denied.clone().into_iter().collect();
        let changes = Changes {
            emergency: Some(self.emergency),
            denials: Some(&denials),
        };
        store.commit(rollouts, changes, &self.audit)?;
        let file = store.file().to_owned();
        drop(store);
        let found = Store::reopen(&file)?.reading()?.document(now)?;
        let is_same = found.emergency == self.emergency
            && found.rollouts == self.rollouts
            && found.denied == self.denied
            && found.audit == self.audit;
        is_same.then_some(()).ok_or(ImportError::Differs(file))
    }
}

/// A directory of our own beside the store, for as long as a new one is being made.
///
/// It is made under a name that nothing has yet, and only what a store writes is removed from it:
/// whatever else lies in a state directory is somebody's.
struct Draft(PathBuf);

impl Draft {
    fn make_in(directory: &Path, now: Timestamp) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let draft = directory.join(format!(".cutover-import-{}", now.milliseconds()));
        fs::create_dir(&draft)?;
        Ok(Self(draft))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // There may be no such file any more; and a directory that stays harms nobody.
        let _ = fs::remove_file(self.0.join(Store::FILE_NAME));
        let _ = fs::remove_dir(&self.0);
    }
}

/// What may become of a store that holds something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replacing {
    /// It stays.
    Never,
    /// It is kept beside the new one.
    SetAside,
}

impl Reading {
    /// All that the store holds.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    pub fn document(&self, now: Timestamp) -> Result<Document, StoreError> {
        let mut audit = Vec::new();
        for entry in self.0.open_table(AUDIT)?.iter()? {
            let (_, json) = entry?;
            audit.push(serde_json::from_str(json.value()).map_err(StoreError::Value)?);
        }
        self.document_with(audit, now)
    }

    /// [`Reading::document`] as JSON, with one decision at a time in memory besides the text.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    pub fn export(&self, now: Timestamp) -> Result<String, StoreError> {
        let audit = Audit(self.0.open_table(AUDIT)?);
        serde_json::to_string(&self.document_with(audit, now)?).map_err(StoreError::Value)
    }

    fn document_with<A>(&self, audit: A, now: Timestamp) -> Result<Document<A>, StoreError> {
        let emergency = self.0.open_table(META)?.get("emergency")?;
        let mut rollouts = BTreeMap::new();
        for entry in self.0.open_table(ROLLOUTS)?.iter()? {
            let (split, json) = entry?;
            let written = serde_json::from_str(json.value()).map_err(StoreError::Value)?;
            let (record, _) = record::understand(written).map_err(StoreError::Record)?;
            rollouts.insert(split.value().to_owned(), record);
        }
        let (denied, _) = denied::read(&self.0)?;
        Ok(Document {
            format: Document::FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            at: now.rfc3339(),
            emergency: emergency.is_some_and(|flag| flag.value() != 0),
            rollouts,
            denied: denied
                .iter()
                .map(|(network, denial)| (*network, denial.clone()))
                .collect(),
            audit,
        })
    }
}

fn take<T: DeserializeOwned>(fields: &mut Map<String, Value>, name: &str) -> Result<T, Unreadable> {
    let place = format!("`{name}`");
    let value = fields.remove(name);
    let value = value.ok_or_else(|| damaged(&place, "it is missing"))?;
    serde_json::from_value(value).map_err(|error| damaged(&place, error))
}

fn damaged(place: &str, detail: impl ToString) -> Unreadable {
    Unreadable::Damaged {
        place: place.to_owned(),
        detail: detail.to_string(),
    }
}
