//! What all commands that change something have in common: a reason, a condition, a rehearsal, and
//! how the answer is shown.

use std::io::Write;

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::admin::wire::{Because, check_reason};
use crate::control::command::Outcome;

use super::client::{Connection, escape, for_people};
use super::exit::{Exit, Failure};
use super::output::{Answer, Format, Output};
use super::wait::{Departure, Patience};

/// Why something is changed.
#[derive(Debug, Args)]
pub(super) struct Reason {
    /// Why. Recorded with the decision.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: Option<String>,
}

impl Reason {
    pub(super) fn text(&self) -> String {
        self.reason.clone().unwrap_or_default()
    }
}

/// Refused here in the same words as there, before anything is sent.
pub(super) fn reason(text: &str) -> Result<String, String> {
    check_reason(text)?;
    Ok(text.to_owned())
}

/// On which condition something is changed, to whom the change goes, and for whom the answer is.
#[derive(Debug, Args)]
pub(super) struct ChangeRequest {
    /// Refuse unless this is still the revision that `cutover status -o json` shows: of the split,
    /// or the sum over all where the command concerns all.
    #[arg(long, value_name = "REVISION")]
    pub(super) expect: Option<u64>,
    /// Only say what would be done.
    #[arg(long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) output: Output,
    #[command(flatten)]
    pub(super) connection: Connection,
}

impl ChangeRequest {
    /// The body of a change that needs nothing of its own.
    pub(super) fn because(&self, reason: &Reason) -> Because {
        Because {
            reason: reason.text(),
            expected_revision: self.expect,
            dry_run: self.dry_run,
        }
    }

    /// Has something changed and tells what became of it.
    pub(super) fn send(&self, path: &str, body: &impl Serialize) -> Result<Answer, Failure> {
        self.tell(self.connection.post(path, body)?)
    }

    /// Has a split changed, waits as long as is wanted until it has come to rest, and tells where.
    pub(super) fn wait(
        &self,
        split: &str,
        action: &str,
        body: &impl Serialize,
        patience: &Patience,
    ) -> Result<Answer, Failure> {
        let path = split_path(split, action);
        let Some(timeout) = patience.timeout() else {
            return self.send(&path, body);
        };
        let changed = self.connection.post(&path, body).map_err(without_4)?;
        let outcome: Outcome = for_people(changed.clone())?;
        // If standard error is closed, the wait goes on all the same.
        let _ = write!(std::io::stderr(), "{}", shown(&outcome));
        let departure = Departure::of(split, &outcome);
        let arrival = departure.wait(&self.connection, timeout)?;
        let text = match self.output.format {
            Format::Table => arrival.sentence + "\n",
            Format::Json => {
                let mut whole = changed;
                whole["arrived"] = serde_json::json!({
                    "exit": arrival.exit.code(),
                    "sentence": arrival.sentence,
                });
                Answer::json(&whole).text
            }
        };
        Ok(Answer {
            text,
            exit: arrival.exit,
        })
    }

    fn tell(&self, answer: Value) -> Result<Answer, Failure> {
        match self.output.format {
            Format::Json => Ok(Answer::json(&answer)),
            Format::Table => Ok(Answer::success(shown(&for_people(answer)?))),
        }
    }
}

/// While somebody waits, 4 means a rollback and nothing else.
fn without_4(failure: Failure) -> Failure {
    match failure.exit {
        Exit::Unreachable => Failure::new(Exit::Failure, failure.message),
        _ => failure,
    }
}

fn shown(outcome: &Outcome) -> String {
    let Outcome {
        sentence, revision, ..
    } = outcome;
    format!("{sentence}\nRevision {revision}.\n")
}

/// The path of something that is done to a split.
pub(super) fn split_path(split: &str, action: &str) -> String {
    format!("/api/v1/splits/{}/{action}", escape(split))
}
