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

/// The record, and the version of the program that wrote it. A record that was edited into something
/// that no program writes is refused here, so that nothing later has to ask.
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
    let record: Record = match version {
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
    record
        .check()
        .map_err(|error| Unknown::Damaged(format!("is damaged: {error}")))?;
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::arm::PerArm;
    use crate::policy::criteria::Criteria;
    use crate::policy::plan::{Course, OnTimeout, Plan, Rules, Stage};
    use crate::policy::rollout::{By, Event, Rollout, Terms};
    use crate::policy::share::Share;
    use crate::policy::time::Timestamp;

    /// A plan that comes down a ramp, from 50 to 10 %.
    fn written() -> Value {
        let stages = [0, 1_000, 5_000].map(|basis_points| Stage {
            share: Share::from_basis_points(basis_points).expect("a share"),
            criteria: Criteria::default(),
            approval: false,
            calendar: None,
            timeout: None,
            on_timeout: OnTimeout::Hold,
        });
        let terms = Terms {
            course: Course::Planned(Plan::new(stages.to_vec()).expect("a plan")),
            rules: Rules::default(),
            rollout_id: "r1".to_owned(),
            signals: Vec::new(),
            backends: PerArm::from_fn(|arm| arm.to_string()),
        };
        let now = Timestamp::from_milliseconds(0);
        let mut rollout = Rollout::new("shop", terms, now);
        let by = By {
            actor: "alice".to_owned(),
            reason: String::new(),
        };
        let number = 3;
        let stage = Event::Stage {
            number,
            by: by.clone(),
        };
        rollout.handle(stage, now).expect("not refused");
        let rollback = Event::Rollback { to: None, by };
        rollout.handle(rollback, now).expect("not refused");
        let mut record = serde_json::to_value(rollout.record()).expect("serialisable");
        record["state"]["latch"] =
            json!({"from": 5_000, "share": 3_000, "target": 1_000, "seconds": 5.0});
        record
    }

    #[test]
    fn an_edited_record_is_refused_by_the_field_that_cannot_be() {
        assert!(understand(written()).is_ok());
        for (field, value, named) in [
            ("/state/latch/from", json!(500), "`state.latch`"),
            ("/state/latch/share", json!(10_000), "`state.latch`"),
            ("/state/latch/target", json!(4_000), "`state.latch`"),
            ("/state/position", json!(3), "`state.position`"),
            ("/state/position", json!(usize::MAX), "`state.position`"),
        ] {
            let mut edited = written();
            *edited.pointer_mut(field).expect(field) = value;
            let said = understand(edited)
                .map(|_| ())
                .map_err(|error| error.to_string());
            let is_named = said.as_ref().is_err_and(|error| error.contains(named));
            assert!(is_named, "{field}: {said:?}");
        }
        let mut by_hand = written();
        by_hand["state"]["outline"] = json!({"by_hand": 1_000});
        assert!(understand(by_hand).is_err(), "a stage without a plan");
    }
}
