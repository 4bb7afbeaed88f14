//! `--wait`: until a rollout has come to rest.
//!
//! A script that promotes wants to know how it went, and must not hang: not for a person who does
//! not know that somebody waits, and not for an instance that is restarted meanwhile. So it looks at
//! the status once a second, which outlives a restart, and ends at the first look that shows where
//! the split has come to rest.

use std::io::Write;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;

use crate::control::command::Outcome;
use crate::control::protocol::SplitStatus;
use crate::policy::duration;
use crate::policy::rollout::{Phase, Rest};

use super::client::{Connection, escape, for_people};
use super::exit::{Exit, Failure};

/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Between two lines on standard error: figures rise with every look, and nobody reads them all.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// Whether to wait, and how long.
#[derive(Debug, Args)]
pub(super) struct Patience {
    /// Wait until the split has left its stage or has completed (exit code 0), was rolled back (4),
    /// or stands still until somebody acts (5).
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// How long to wait; after that the exit code is 5.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration::parse)]
    timeout: Duration,
}

impl Patience {
    /// How long to wait, if at all.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.wait.then_some(self.timeout)
    }
}

/// Where a wait begins.
#[derive(Debug)]
pub(super) struct Departure {
    split: String,
    revision: u64,
    stage: Option<usize>,
}

/// Where it ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) exit: Exit,
    pub(super) sentence: String,
}

impl Departure {
    /// After a change of `split`.
    pub(super) fn of(split: &str, outcome: &Outcome) -> Self {
        let moved = outcome.splits.iter().find(|moved| moved.name == split);
        Self {
            split: split.to_owned(),
            revision: outcome.revision,
            stage: moved.and_then(|moved| moved.stage),
        }
    }

    /// Looks until the split has come to rest, or the time is over, and tells on standard error what
    /// it sees.
    ///
    /// # Errors
    /// Where somebody answers, but not with a status of the split.
    pub(super) fn wait(
        &self,
        connection: &Connection,
        timeout: Duration,
    ) -> Result<Arrival, Failure> {
        let path = format!("/api/v1/splits/{}", escape(&self.split));
        let end = Instant::now() + timeout;
        let (mut told, mut told_at) = (String::new(), None::<Instant>);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let seen = match connection.get(&path) {
                Ok(answer) => {
                    let split: SplitStatus = for_people(answer)?;
                    if let Some(arrival) = self.arrival(&split, left) {
                        return Ok(arrival);
                    }
                    progress(&split)
                }
                // It may be restarting.
                Err(failure) if failure.exit == Exit::Unreachable && !left.is_zero() => {
                    failure.message
                }
                Err(failure) if failure.exit == Exit::Unreachable => {
                    return Err(Failure::new(Exit::Failure, failure.message));
                }
                Err(failure) => return Err(failure),
            };
            if seen != told && told_at.is_none_or(|at| at.elapsed() >= TELL_AGAIN) {
                // If standard error is closed, the wait goes on all the same.
                let _ = writeln!(std::io::stderr(), "{seen}");
                (told, told_at) = (seen, Some(Instant::now()));
            }
            sleep(LOOK_AGAIN.min(left));
        }
    }

    /// Where the split has come to rest, if it has.
    fn arrival(&self, split: &SplitStatus, left: Duration) -> Option<Arrival> {
        let name = &split.name;
        let latest = split.last_decision.as_ref();
        let latest = latest.filter(|latest| latest.revision > self.revision);
        let arrive = |exit: Exit, otherwise: String| {
            let sentence = latest.map_or(otherwise, |latest| latest.sentence.clone());
            Some(Arrival { exit, sentence })
        };
        match split.phase {
            Phase::RolledBack if split.revision > self.revision => {
                return arrive(Exit::RolledBack, format!("{name} was rolled back."));
            }
            Phase::Completed => return arrive(Exit::Success, format!("{name} is completed.")),
            Phase::RolledBack | Phase::Paused | Phase::Pending | Phase::Progressing => {}
        }
        let stage = split.outlook.stage.as_ref().map(|stage| stage.number);
        let is_by_person =
            latest.is_some_and(|latest| ["stage", "promote"].contains(&latest.action.as_str()));
        if stage != self.stage || is_by_person {
            let has_advanced = stage > self.stage && !is_by_person;
            let exit = if has_advanced {
                Exit::Success
            } else {
                Exit::Standing
            };
            return arrive(exit, format!("{name} has left its stage."));
        }
        let why = match split.rest {
            Some(Rest::Person) => "Only a person moves it on.",
            Some(Rest::Calendar { seconds }) if Duration::from_secs(seconds) > left => {
                "That is longer than --timeout."
            }
            _ if left.is_zero() => "The time is over.",
            _ => return None,
        };
        let sentence = format!("{} {why}", progress(split));
        Some(Arrival {
            exit: Exit::Standing,
            sentence,
        })
    }
}

/// Where the split is, and what is lacking.
fn progress(split: &SplitStatus) -> String {
    let mut text = format!("{} is at {}.", split.name, split.share);
    for lacking in &split.outlook.lacking {
        text.push(' ');
        text.push_str(lacking);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    use serde_json::{Value, json};

    /// A split whose third stage was begun by decision 7.
    fn seen(changes: &Value) -> SplitStatus {
        let mut split = json!({
            "name": "shop", "revision": 7, "phase": "progressing", "share": "30%",
            "file_share": null, "override_share": null, "emergency": false, "rollout_id": "1",
            "backends": {"legacy": "old", "new": "shiny"}, "conditions": [],
            "stage": {"number": 3}, "arms": {"legacy": {}, "new": {}},
            "rescued": 0, "diverted": 0, "breaker": "off", "last_decision": null,
        });
        for arm in ["legacy", "new"] {
            split["arms"][arm] = json!({
                "requests": 0, "errors": 0, "client_errors": 0, "cancelled": 0,
            });
        }
        for (field, value) in changes.as_object().unwrap() {
            split[field] = value.clone();
        }
        serde_json::from_value(split).unwrap()
    }

    fn decision(revision: u64, actor: &str, action: &str) -> Value {
        json!({
            "at": "2026-11-20T03:00:00Z", "split": "shop", "actor": actor, "action": action,
            "reason": "", "from": 3000, "to": 5000, "revision": revision, "conditions": [],
            "sentence": format!("{actor} has done it."),
        })
    }

    fn arrival(changes: &Value, left: u64) -> Option<(Exit, String)> {
        let departure = Departure {
            split: "shop".into(),
            revision: 7,
            stage: Some(3),
        };
        let arrival = departure.arrival(&seen(changes), Duration::from_secs(left));
        arrival.map(|arrival| (arrival.exit, arrival.sentence))
    }

    #[test]
    fn a_wait_goes_on_while_evidence_is_gathered_and_ends_with_its_time() {
        let gathering = json!({"lacking": ["Nothing was measured yet."]});
        assert_eq!(arrival(&gathering, 60), None);
        let (exit, sentence) = arrival(&gathering, 0).unwrap();
        assert_eq!(exit, Exit::Standing);
        assert!(sentence.contains("Nothing was measured yet."), "{sentence}");
        let opens_soon = json!({"rest": {"calendar": {"seconds": 60}}});
        assert_eq!(arrival(&opens_soon, 60), None);
    }

    #[test]
    fn where_a_rollout_comes_to_rest_is_the_exit_code() {
        let advance = decision(8, "engine", "advance");
        let rollback = decision(8, "engine", "rollback");
        let promote = decision(8, "bob", "promote");
        for (changes, exit) in [
            (
                json!({"revision": 8, "stage": {"number": 4}, "last_decision": advance}),
                Exit::Success,
            ),
            (json!({"revision": 8, "phase": "completed"}), Exit::Success),
            (
                json!({"revision": 8, "phase": "rolled_back", "last_decision": rollback}),
                Exit::RolledBack,
            ),
            (
                json!({"phase": "rolled_back", "rest": "person"}),
                Exit::Standing,
            ),
            (json!({"phase": "paused", "rest": "person"}), Exit::Standing),
            (json!({"rest": "person"}), Exit::Standing),
            (
                json!({"rest": {"calendar": {"seconds": 61}}}),
                Exit::Standing,
            ),
            (
                json!({"revision": 8, "stage": {"number": 4}, "last_decision": promote}),
                Exit::Standing,
            ),
            (
                json!({"revision": 8, "stage": {"number": 2}}),
                Exit::Standing,
            ),
        ] {
            let (found, sentence) = arrival(&changes, 60).unwrap();
            assert_eq!(found, exit, "{changes}: {sentence}");
        }
    }

    #[test]
    fn a_wait_ends_with_the_sentence_of_what_ended_it_and_no_earlier_one() {
        let advance = decision(8, "engine", "advance");
        let later = json!({"revision": 8, "stage": {"number": 4}, "last_decision": advance});
        assert_eq!(arrival(&later, 60).unwrap().1, "engine has done it.");
        let before = decision(7, "alice", "promote");
        let earlier = json!({"last_decision": before});
        assert_eq!(arrival(&earlier, 60), None);
    }
}
