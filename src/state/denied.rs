//! Networks denied by hand, as they lie in the store.
//!
//! There may be ten thousand, and each command changes one: only what differs is written.

use std::collections::BTreeMap;

use redb::{ReadTransaction, ReadableTable, TableError, WriteTransaction};

use super::{DENIED, StoreError};
use crate::policy::addresses::network;
use crate::policy::denials::{Denial, Denials};

/// All that is saved.
///
/// # Errors
/// [`StoreError`] if any of it cannot be read.
pub(super) fn read(transaction: &ReadTransaction) -> Result<Denials, StoreError> {
    let table = match transaction.open_table(DENIED) {
        Ok(table) => table,
        // An earlier version made the file.
        Err(TableError::TableDoesNotExist(_)) => return Ok(Denials::default()),
        Err(error) => return Err(error.into()),
    };
    let mut denials = Vec::new();
    for entry in table.iter()? {
        let (text, json) = entry?;
        let (text, json) = (text.value(), json.value());
        let network = network(text).ok_or_else(|| StoreError::Network(text.to_owned()))?;
        let denial: Denial = serde_json::from_str(json).map_err(StoreError::Value)?;
        denials.push((network, denial));
    }
    Ok(denials.into_iter().collect())
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
