//! Networks denied by hand, as they lie in the store.
//!
//! There may be ten thousand, and each command changes one: only what differs is written.

use std::collections::BTreeMap;

use redb::{ReadTransaction, ReadableTable, TableError, WriteTransaction};

use super::{DENIED, StoreError};
use crate::policy::addresses::network;
use crate::policy::denials::{Denial, Denials};

/// What is saved, and how many more there were than may be: the oldest are left out then.
///
/// # Errors
/// [`StoreError`] if any of it cannot be read.
pub(super) fn read(transaction: &ReadTransaction) -> Result<(Denials, u64), StoreError> {
    let table = match transaction.open_table(DENIED) {
        Ok(table) => table,
        // An earlier version made the file.
        Err(TableError::TableDoesNotExist(_)) => return Ok((Denials::default(), 0)),
        Err(error) => return Err(error.into()),
    };
    let mut denials = BTreeMap::new();
    let mut dropped = 0;
    for entry in table.iter()? {
        let (text, json) = entry?;
        let (text, json) = (text.value(), json.value());
        let network = network(text).ok_or_else(|| StoreError::Network(text.to_owned()))?;
        let denial: Denial = serde_json::from_str(json).map_err(StoreError::Value)?;
        denials.insert((denial.since, network), denial);
        // Never more in memory than may be, whatever wrote the file.
        if denials.len() > Denials::MAX {
            denials.pop_first();
            dropped += 1;
        }
    }
    let denials = denials.into_iter();
    let denials = denials.map(|((_, network), denial)| (network, denial));
    Ok((denials.collect(), dropped))
}

/// Makes the table hold exactly these.
///
/// # Errors
/// [`StoreError`]; the transaction must not be committed then.
pub(super) fn write(transaction: &WriteTransaction, denials: &Denials) -> Result<(), StoreError> {
    let mut table = transaction.open_table(DENIED)?;
    let mut wanted = BTreeMap::new();
    for (network, denial) in denials.iter() {
        let json = serde_json::to_string(denial).map_err(StoreError::Value)?;
        wanted.insert(network.to_string(), json);
    }
    table.retain(|network, json| wanted.get(network).is_some_and(|wanted| wanted == json))?;
    for (network, json) in &wanted {
        if table.get(network.as_str())?.is_none() {
            table.insert(network.as_str(), json.as_str())?;
        }
    }
    Ok(())
}
