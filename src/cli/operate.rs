//! The commands that change something. Each sends one request and prints the sentence it gets.

use clap::Args;

use crate::admin::wire::{Because, Done, Emergency as Declaration, SetShare, check_reason};
use crate::policy::share::Share;

use super::client::{Connection, escape, for_people};
use super::exit::Failure;
use super::output::{Answer, Format, Output};

/// `cutover set`
#[derive(Debug, Args)]
pub(super) struct Set {
    /// Name of the split.
    split: String,
    /// The part of the sessions that the new API gets, from 0% to 100%, such as 12.5%.
    share: Share,
    /// Go against a share that the file fixes, until the file's share changes.
    #[arg(long = "override")]
    override_file: bool,
    #[command(flatten)]
    reason: Reason,
    #[command(flatten)]
    request: ChangeRequest,
}

impl Set {
    pub(super) fn run(self) -> Result<Answer, Failure> {
        let body = SetShare {
            share: self.share,
            override_file: self.override_file,
            reason: self.reason.text(),
        };
        self.request.send(&split_path(&self.split, "share"), &body)
    }
}

/// `cutover rollback`
#[derive(Debug, Args)]
pub(super) struct Rollback {
    /// Name of the split.
    split: String,
    #[command(flatten)]
    reason: Reason,
    #[command(flatten)]
    request: ChangeRequest,
}

impl Rollback {
    pub(super) fn run(self) -> Result<Answer, Failure> {
        let body = self.reason.body();
        self.request
            .send(&split_path(&self.split, "rollback"), &body)
    }
}

/// `cutover resume`
#[derive(Debug, Args)]
pub(super) struct Resume {
    /// Name of the split.
    split: String,
    #[command(flatten)]
    reason: Reason,
    #[command(flatten)]
    request: ChangeRequest,
}

impl Resume {
    pub(super) fn run(self) -> Result<Answer, Failure> {
        let body = self.reason.body();
        self.request.send(&split_path(&self.split, "resume"), &body)
    }
}

/// `cutover emergency`
#[derive(Debug, Args)]
pub(super) struct Emergency {
    /// Name of a split; without it, all of them.
    split: Option<String>,
    /// End the emergency.
    #[arg(long)]
    clear: bool,
    /// Why; obligatory when declaring. Recorded with the decision.
    #[arg(long, value_name = "TEXT", required_unless_present = "clear", value_parser = reason)]
    reason: Option<String>,
    #[command(flatten)]
    request: ChangeRequest,
}

impl Emergency {
    pub(super) fn run(self) -> Result<Answer, Failure> {
        let body = Declaration {
            split: self.split,
            clear: self.clear,
            reason: self.reason.unwrap_or_default(),
        };
        self.request.send("/api/v1/emergency", &body)
    }
}

/// `cutover reload`
#[derive(Debug, Args)]
pub(super) struct Reload {
    #[command(flatten)]
    reason: Reason,
    #[command(flatten)]
    request: ChangeRequest,
}

impl Reload {
    pub(super) fn run(self) -> Result<Answer, Failure> {
        self.request.send("/api/v1/reload", &self.reason.body())
    }
}

/// Why something is changed.
#[derive(Debug, Args)]
struct Reason {
    /// Why. Recorded with the decision.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: Option<String>,
}

impl Reason {
    fn text(&self) -> String {
        self.reason.clone().unwrap_or_default()
    }

    fn body(&self) -> Because {
        Because {
            reason: self.text(),
        }
    }
}

/// Refused here in the same words as there, before anything is sent.
fn reason(text: &str) -> Result<String, String> {
    check_reason(text)?;
    Ok(text.to_owned())
}

/// To whom the change goes, and for whom the answer is.
#[derive(Debug, Args)]
struct ChangeRequest {
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

impl ChangeRequest {
    fn send(&self, path: &str, body: &impl serde::Serialize) -> Result<Answer, Failure> {
        let answer = self.connection.post(path, body);
        match (self.output.format, answer) {
            (Format::Json, Ok(answer)) => Ok(Answer::json(&answer)),
            // A script that asked for JSON reads it whatever the exit code.
            (Format::Json, Err(failure)) => Ok(failure.json()),
            (Format::Table, answer) => {
                let done: Done = for_people(answer?)?;
                Ok(Answer::success(done.sentence + "\n"))
            }
        }
    }
}

fn split_path(split: &str, action: &str) -> String {
    format!("/api/v1/splits/{}/{action}", escape(split))
}
