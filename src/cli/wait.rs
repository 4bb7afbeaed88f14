//! `--wait`: until a rollout has come to rest.
//!
//! A script that promotes wants to know how it went, and must not hang: not for a person who does
//! not know that somebody waits, and not for an instance that is restarted meanwhile. So it looks at
//! the status once a second, which outlives a restart, and ends at the first look that shows where
//! the split has come to rest. How it came there is told by the decisions since, not by the number of
//! the stage: a person or an edited file may have moved it, and that proves nothing.

use std::io::Write;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;

use crate::control::command::Outcome;
use crate::control::history::{History, HistoryQuery};
use crate::control::protocol::SplitStatus;
use crate::policy::duration;
use crate::policy::rollout::{Decision, Phase, Rest};

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
                    let decided = self.decided(connection, &split);
                    if let Some(arrival) = self.arrival(&split, &decided, left) {
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

    /// What was decided since the departure and is in force, the earliest first.
    fn decided(&self, connection: &Connection, split: &SplitStatus) -> Vec<Decision> {
        let since = split.revision.saturating_sub(self.revision);
        if since == 0 {
            return Vec::new();
        }
        // Most decisions are one entry each; one that was withdrawn is two more.
        let limit = usize::try_from(since.saturating_mul(3)).unwrap_or(usize::MAX);
        let limit = limit.min(*HistoryQuery::LIMITS.end());
        let path = format!(
            "/api/v1/history?split={}&limit={limit}",
            escape(&self.split)
        );
        let history = connection.get(&path).and_then(for_people::<History>);
        // Where the disk fails there is still the latest one.
        let mut decided = history.map_or_else(|_| Vec::new(), |history| history.decisions);
        decided.reverse();
        decided.extend(split.last_decision.clone());
        self.in_force(decided, split.revision)
    }

    /// Those after the departure until `revision` that were not withdrawn, each once.
    fn in_force(&self, decided: Vec<Decision>, revision: u64) -> Vec<Decision> {
        let mut in_force: Vec<Decision> = Vec::new();
        for decision in decided {
            if decision.action == "withdrawn" {
                // It repeats what it takes back.
                in_force.retain(|refused| !decision.sentence.contains(&refused.sentence));
            } else if (self.revision + 1..=revision).contains(&decision.revision)
                && in_force.last() != Some(&decision)
            {
                in_force.push(decision);
            }
        }
        in_force
    }

    /// Where the split has come to rest, if it has.
    fn arrival(
        &self,
        split: &SplitStatus,
        decided: &[Decision],
        left: Duration,
    ) -> Option<Arrival> {
        let name = &split.name;
        let settled = decided.iter().find_map(|decision| {
            let exit = settles(decision)?;
            let sentence = decision.sentence.clone();
            Some(Arrival { exit, sentence })
        });
        if settled.is_some() {
            return settled;
        }
        let arrive = |exit: Exit, otherwise: String| {
            let latest = decided.last();
            let sentence = latest.map_or(otherwise, |latest| latest.sentence.clone());
            Some(Arrival { exit, sentence })
        };
        if split.phase == Phase::Completed {
            return arrive(Exit::Success, format!("{name} is completed."));
        }
        let stage = split.outlook.stage.as_ref().map(|stage| stage.number);
        if stage != self.stage {
            return arrive(Exit::Standing, format!("{name} has left its stage."));
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

/// What a decision makes of the wait, if it ends it.
fn settles(decision: &Decision) -> Option<Exit> {
    match decision.action.as_str() {
        "advance" | "complete" if decision.actor == "engine" => Some(Exit::Success),
        "rollback" | "timeout" if decision.phase == Some(Phase::RolledBack) => {
            Some(Exit::RolledBack)
        }
        "stage" | "promote" => Some(Exit::Standing),
        _ => None,
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

    fn decision(revision: u64, actor: &str, action: &str) -> Decision {
        let phase = match action {
            "rollback" | "timeout" => "rolled_back",
            _ => "progressing",
        };
        let decision = json!({
            "at": "2026-11-20T03:00:00Z", "split": "shop", "actor": actor, "action": action,
            "reason": "", "from": 3000, "to": 5000, "revision": revision, "phase": phase,
            "conditions": [], "sentence": format!("{actor} has done {revision}."),
        });
        serde_json::from_value(decision).unwrap()
    }

    fn departure() -> Departure {
        Departure {
            split: "shop".into(),
            revision: 7,
            stage: Some(3),
        }
    }

    fn arrival(changes: &Value, decided: Vec<Decision>, left: u64) -> Option<(Exit, String)> {
        let split = seen(changes);
        let decided = departure().in_force(decided, split.revision);
        let arrival = departure().arrival(&split, &decided, Duration::from_secs(left));
        arrival.map(|arrival| (arrival.exit, arrival.sentence))
    }

    #[test]
    fn a_wait_goes_on_while_evidence_is_gathered_and_ends_with_its_time() {
        let gathering = json!({"lacking": ["Nothing was measured yet."]});
        assert_eq!(arrival(&gathering, vec![], 60), None);
        let (exit, sentence) = arrival(&gathering, vec![], 0).unwrap();
        assert_eq!(exit, Exit::Standing);
        assert!(sentence.contains("Nothing was measured yet."), "{sentence}");
        let opens_soon = json!({"rest": {"calendar": {"seconds": 60}}});
        assert_eq!(arrival(&opens_soon, vec![], 60), None);
    }

    #[test]
    fn where_a_rollout_comes_to_rest_is_the_exit_code() {
        let next = json!({"revision": 8, "stage": {"number": 4}});
        for (changes, decided, exit) in [
            (next.clone(), vec![("engine", "advance")], Exit::Success),
            (
                json!({"revision": 8, "phase": "completed"}),
                vec![("engine", "complete")],
                Exit::Success,
            ),
            (json!({"phase": "completed"}), vec![], Exit::Success),
            (
                json!({"revision": 8, "phase": "rolled_back"}),
                vec![("engine", "rollback")],
                Exit::RolledBack,
            ),
            (
                json!({"revision": 8, "phase": "rolled_back"}),
                vec![("engine", "timeout")],
                Exit::RolledBack,
            ),
            (
                json!({"phase": "rolled_back", "rest": "person"}),
                vec![],
                Exit::Standing,
            ),
            (
                json!({"phase": "paused", "rest": "person"}),
                vec![],
                Exit::Standing,
            ),
            (json!({"rest": "person"}), vec![], Exit::Standing),
            (
                json!({"rest": {"calendar": {"seconds": 61}}}),
                vec![],
                Exit::Standing,
            ),
            (next, vec![("bob", "promote")], Exit::Standing),
            (
                json!({"revision": 8, "stage": {"number": 2}}),
                vec![("bob", "stage")],
                Exit::Standing,
            ),
        ] {
            let decided = (8..).zip(decided);
            let decided = decided.map(|(number, (actor, action))| decision(number, actor, action));
            let (found, sentence) = arrival(&changes, decided.collect(), 60).unwrap();
            assert_eq!(found, exit, "{changes}: {sentence}");
        }
    }

    #[test]
    fn a_later_decision_hides_neither_who_moved_the_split_nor_that_nobody_proved_anything() {
        let moved = json!({"revision": 9, "stage": {"number": 5}});
        let by_person = vec![decision(8, "bob", "stage"), decision(9, "engine", "notify")];
        let (exit, sentence) = arrival(&moved, by_person, 60).unwrap();
        assert_eq!((exit, &*sentence), (Exit::Standing, "bob has done 8."));
        let by_file = vec![decision(8, "file", "configured")];
        let shifted = json!({"revision": 8, "stage": {"number": 4}});
        assert_eq!(arrival(&shifted, by_file, 60).unwrap().0, Exit::Standing);
        let latched = json!({"revision": 8, "phase": "rolled_back", "rest": "person"});
        let notified = vec![decision(8, "engine", "notify")];
        assert_eq!(arrival(&latched, notified, 60).unwrap().0, Exit::Standing);
        let recovered = json!({"revision": 9, "stage": {"number": 1}});
        let rolled_back = vec![
            decision(8, "engine", "rollback"),
            decision(9, "bob", "resume"),
        ];
        let (exit, _) = arrival(&recovered, rolled_back, 60).unwrap();
        assert_eq!(exit, Exit::RolledBack);
    }

    #[test]
    fn only_what_is_in_force_and_came_after_the_departure_ends_a_wait() {
        let resting = json!({"revision": 8});
        let earlier = vec![decision(7, "alice", "promote")];
        assert_eq!(arrival(&resting, earlier, 60), None);
        let promised = vec![decision(9, "engine", "advance")];
        assert_eq!(arrival(&resting, promised, 60), None, "not yet");
        let refused = vec![
            decision(8, "engine", "advance"),
            decision(8, "engine", "withdrawn"),
        ];
        assert_eq!(arrival(&resting, refused, 60), None, "never");
    }
}
