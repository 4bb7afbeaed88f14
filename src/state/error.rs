//! What can be wrong with the store: at the start, where the program refuses and says what to do,
//! and later, where it goes on in memory.

use std::path::{Path, PathBuf};

use super::record::Unknown;

/// The store cannot be opened. Every message names the file and a remedy.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be used.
    #[error(
        "the state directory {} cannot be used: {source}; make it a directory that this user may \
         write to, name another one in the configuration, or {RECOVER}",
        .directory.display()
    )]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file cannot be read or written.
    #[error(
        "the state file {} cannot be used: {source}; let this user read and write it, or {RECOVER}",
        .file.display()
    )]
    File {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Another process has it open.
    #[error(
        "the state file {} is in use by another process: stop that one first, or give this one a \
         state directory of its own",
        .file.display()
    )]
    Locked {
        /// The file.
        file: PathBuf,
    },
    /// It is not what this program has written.
    #[error(
        "the state file {} is damaged: {detail}; put a backup in its place, or {RECOVER}",
        .file.display()
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// A later version of this program has written it.
    #[error(
        "the state file {} was written by a newer cutover (format {found}, this one knows \
         {known}): start that version again, or {RECOVER}",
        .file.display()
    )]
    Newer {
        /// The file.
        file: PathBuf,
        /// Its format.
        found: u64,
        /// The latest format known.
        known: u64,
    },
}

/// The way to start all the same.
const RECOVER: &str = "start with --recover-share and say which share is right";

impl OpenError {
    pub(super) fn damaged(file: &Path, detail: impl ToString) -> Self {
        OpenError::Damaged {
            file: file.to_owned(),
            detail: detail.to_string(),
        }
    }

    pub(super) fn from_database(file: &Path, error: redb::DatabaseError) -> Self {
        use redb::{DatabaseError, StorageError};
        let file = file.to_owned();
        match error {
            DatabaseError::DatabaseAlreadyOpen => OpenError::Locked { file },
            DatabaseError::Storage(StorageError::Io(source))
                if source.kind() != std::io::ErrorKind::InvalidData
                    && source.kind() != std::io::ErrorKind::UnexpectedEof =>
            {
                OpenError::File { file, source }
            }
            error => OpenError::damaged(&file, error),
        }
    }
}

/// A read or write failed while running. Nothing of it was saved.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file failed.
    #[error("the state store failed: {0}")]
    Database(redb::Error),
    /// A value is not what was written.
    #[error("the state store holds a value that cannot be read: {0}")]
    Value(serde_json::Error),
    /// What should be a network is none.
    #[error("the state store holds `{0}` where a denied network should be")]
    Network(String),
    /// A record is not one that this program understands.
    #[error("the state store holds a record that {0}")]
    Record(Unknown),
}

/// The library has an error for every call; here they mean the same.
impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> Self {
        StoreError::Database(error.into())
    }
}
