//! Records as they were written, by this version or an earlier one.
//!
//! Who reads leniently takes a record that says `ltach`, or has lost its latch, for one that was
//! never rolled back. So a record is written again once it is read, and has to be what was read:
//! this finds what is unknown and what is missing at any depth, of every type.

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
        Record::VERSION => {
            let record = Record::deserialize(&written).map_err(damaged)?;
            let again = serde_json::to_value(&record).map_err(damaged)?;
            match difference("", &written, &again) {
                None => record,
                Some(difference) => return Err(Unknown::Damaged(difference)),
            }
        }
        1 | 2 => Record::from_earlier(written).map_err(damaged)?,
        version if version > Record::VERSION => return Err(Unknown::Newer(version.into())),
        version => return Err(Unknown::Damaged(format!("claims version {version}"))),
    };
    Ok((record, version))
}

/// Where `written` has something else than `again`, and what.
fn difference(place: &str, written: &Value, again: &Value) -> Option<String> {
    match (written, again) {
        (Value::Object(written), Value::Object(again)) => {
            let below = |name: &str| match place {
                "" => name.to_owned(),
                place => format!("{place}.{name}"),
            };
            if let Some(name) = written.keys().find(|name| !again.contains_key(*name)) {
                return Some(format!("has `{}`, which nobody wrote", below(name)));
            }
            again
                .iter()
                .find_map(|(name, again)| match written.get(name) {
                    None => Some(format!("lacks `{}`", below(name))),
                    // Told and never obeyed, and an older program told less.
                    Some(_) if name == "last_decision" => None,
                    Some(written) => difference(&below(name), written, again),
                })
        }
        (Value::Array(written), Value::Array(again)) if written.len() == again.len() => {
            let mut pairs = written.iter().zip(again).enumerate();
            pairs.find_map(|(index, (written, again))| {
                difference(&format!("{place}[{index}]"), written, again)
            })
        }
        // A tool that formats documents may write 1 for 1.0.
        (Value::Number(written), Value::Number(again)) if written.as_f64() == again.as_f64() => {
            None
        }
        (written, again) if written == again => None,
        (written, again) => Some(format!("has {written} as `{place}`, read as {again}")),
    }
}
