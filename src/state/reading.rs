//! Reading the store while its owner goes on writing to it.
//!
//! An audit of ten thousand decisions takes a while to go through, and whoever raises a share waits
//! for the thread that writes. So a reading is a view of one moment that any thread may take its
//! time with. The mistake to avoid is a reading that is kept: as long as one exists the file's lock
//! is held, and no page that it sees is used again.

use std::borrow::Cow;

use redb::{ReadTransaction, ReadableDatabase, ReadableTable};
use serde::Deserialize;

use super::{AUDIT, Store, StoreError};
use crate::policy::rollout::Decision;
use crate::policy::time::Timestamp;

/// The store at one moment.
#[derive(Debug)]
pub struct Reading(pub(super) ReadTransaction);

/// Which decisions are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Those of this split; absent: of all.
    pub split: Option<String>,
    /// Those from then on.
    pub since: Option<Timestamp>,
    /// At most so many, the latest.
    pub limit: usize,
}

/// What tells whether a decision is wanted, without reading all of it.
#[derive(Deserialize)]
struct Heading<'a> {
    #[serde(borrow)]
    at: Cow<'a, str>,
    #[serde(borrow)]
    split: Cow<'a, str>,
}

impl Store {
    /// What is saved at this moment.
    ///
    /// # Errors
    /// [`StoreError`] if the file has failed.
    pub fn reading(&self) -> Result<Reading, StoreError> {
        Ok(Reading(self.database.begin_read()?))
    }
}

impl Reading {
    /// The decisions that are wanted, the latest first.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    pub fn history(&self, wanted: &Wanted) -> Result<Vec<Decision>, StoreError> {
        let audit = self.0.open_table(AUDIT)?;
        let mut found = Vec::new();
        // The time of day may have been set back between two decisions, so an early one does not
        // end the search.
        for entry in audit.iter()?.rev() {
            if found.len() == wanted.limit {
                break;
            }
            let (_, json) = entry?;
            let heading = serde_json::from_str(json.value()).map_err(StoreError::Value)?;
            if wanted.includes(&heading) {
                let decision = serde_json::from_str(json.value()).map_err(StoreError::Value)?;
                found.push(decision);
            }
        }
        Ok(found)
    }
}

impl Wanted {
    fn includes(&self, decision: &Heading<'_>) -> bool {
        let is_late_enough = self.since.is_none_or(|since| {
            // One without a readable time is shown rather than hidden.
            Timestamp::parse(&decision.at).map_or(true, |at| at >= since)
        });
        let split = self.split.as_deref();
        is_late_enough && split.is_none_or(|split| split == decision.split)
    }
}
