//! Records as they were written, by this version or an earlier one.

use serde::Deserialize;
use serde_json::Value;

use crate::policy::rollout::Record;

/// What was written is no record that this program understands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// A later version wrote it.
    #[error("is of version {0}, which is newer than this program's")]
    Newer(u64),
    /// It is not what any version wrote.
    #[error("{0}")]
    Damaged(String),
}

/// The record, and the version of the program that wrote it.
///
/// # Errors
/// [`Unknown`] says whose fault it is.
pub(super) fn understand(written: Value) -> Result<(Record, u32), Unknown> {
    /// Read first: a record of another version need not have the other fields.
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let damaged = |error| Unknown::Damaged(format!("is unreadable: {error}"));
    let Versioned { version } = Versioned::deserialize(&written).map_err(damaged)?;
    let record = match version {
        Record::VERSION => serde_json::from_value(written).map_err(damaged)?,
        1 | 2 => Record::from_earlier(written).map_err(damaged)?,
        version if version > Record::VERSION => return Err(Unknown::Newer(version.into())),
        version => return Err(Unknown::Damaged(format!("claims version {version}"))),
    };
    Ok((record, version))
}
