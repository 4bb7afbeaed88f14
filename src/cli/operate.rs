//! The commands that change something. Each sends one request and prints the sentence it gets.

use clap::Args;

use crate::admin::wire::{
    self, Emergency as Declaration, GoToStage, RollBack, SetShare, Target, Tell, Upgraded,
};
use crate::policy::share::Share;

use super::change::{ChangeRequest, Reason, reason, split_path};
use super::client::{Connection, escape, for_people};
use super::exit::Failure;
use super::output::{Answer, Format, Output};
use super::wait::Patience;

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
    patience: Patience,
    #[command(flatten)]
    request: ChangeRequest,
}

impl Set {
    pub(super) fn run(self) -> Result<Answer, Failure> {
        let body = SetShare {
            share: self.share,
            override_file: self.override_file,
            reason: self.reason.text(),
            expected_revision: self.request.expect,
            dry_run: self.request.dry_run,
        };
        let patience = &self.patience;
        self.request.wait(&self.split, "share", &body, patience)
    }
}

/// `cutover stage`
#[derive(Debug, Args)]
pub(super) struct Stage {
    /// Name of the split.
    split: String,
    /// The stage of its plan, counted from 1.
    number: usize,
    #[command(flatten)]
    reason: Reason,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    request: ChangeRequest,
}

impl Stage {
    pub(super) fn run(self) -> Result<Answer, Failure> {
        let body = GoToStage {
            stage: self.number,
            reason: self.reason.text(),
            expected_revision: self.request.expect,
            dry_run: self.request.dry_run,
        };
        let patience = &self.patience;
        self.request.wait(&self.split, "stage", &body, patience)
    }
}

/// `cutover resume`
#[derive(Debug, Args)]
pub(super) struct Resume {
    /// Name of the split.
    split: String,
    /// The stage of its plan to go on at, counted from 1, not above the interrupted one. Default:
    /// the interrupted one.
    #[arg(long, value_name = "NUMBER")]
    stage: Option<usize>,
    #[command(flatten)]
    reason: Reason,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    request: ChangeRequest,
}

impl Resume {
    pub(super) fn run(self) -> Result<Answer, Failure> {
        let body = wire::GoOn {
            stage: self.stage,
            reason: self.reason.text(),
            expected_revision: self.request.expect,
            dry_run: self.request.dry_run,
        };
        let patience = &self.patience;
        self.request.wait(&self.split, "resume", &body, patience)
    }
}

/// `cutover promote` and `cutover approve`
#[derive(Debug, Args)]
pub(super) struct GoOn {
    /// Name of the split.
    split: String,
    #[command(flatten)]
    reason: Reason,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    request: ChangeRequest,
}

impl GoOn {
    pub(super) fn run(self, action: &str) -> Result<Answer, Failure> {
        let body = self.request.because(&self.reason);
        let patience = &self.patience;
        self.request.wait(&self.split, action, &body, patience)
    }
}

/// `cutover pause`
#[derive(Debug, Args)]
pub(super) struct Pause {
    /// Name of the split.
    split: String,
    #[command(flatten)]
    reason: Reason,
    #[command(flatten)]
    request: ChangeRequest,
}

impl Pause {
    pub(super) fn run(self) -> Result<Answer, Failure> {
        let body = self.request.because(&self.reason);
        self.request.send(&split_path(&self.split, "pause"), &body)
    }
}

/// `cutover rollback`
#[derive(Debug, Args)]
pub(super) struct Rollback {
    /// Name of the split.
    split: String,
    /// Where to; without it, where the split's `rollback_to` sends every rollback.
    #[arg(long)]
    to: Option<Target>,
    #[command(flatten)]
    reason: Reason,
    #[command(flatten)]
    request: ChangeRequest,
}

impl Rollback {
    pub(super) fn run(self) -> Result<Answer, Failure> {
        let body = RollBack {
            to: self.to,
            reason: self.reason.text(),
            expected_revision: self.request.expect,
            dry_run: self.request.dry_run,
        };
        self.request
            .send(&split_path(&self.split, "rollback"), &body)
    }
}

/// `cutover signal`
#[derive(Debug, Args)]
pub(super) struct Signal {
    /// Name of the split.
    split: String,
    /// Name of the signal.
    name: String,
    /// Its value for the new API.
    #[arg(allow_negative_numbers = true, value_parser = finite)]
    value: f64,
    /// Its value for legacy.
    #[arg(long, value_name = "VALUE", allow_negative_numbers = true, value_parser = finite)]
    legacy: Option<f64>,
    #[command(flatten)]
    request: ChangeRequest,
}

impl Signal {
    pub(super) fn run(self) -> Result<Answer, Failure> {
        let body = Tell {
            value: self.value,
            legacy: self.legacy,
            expected_revision: self.request.expect,
            dry_run: self.request.dry_run,
        };
        let action = format!("signals/{}", escape(&self.name));
        self.request.send(&split_path(&self.split, &action), &body)
    }
}

/// JSON has no other numbers.
fn finite(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err("not a number such as 12.5".to_owned()),
    }
}

/// `cutover emergency`
#[derive(Debug, Args)]
pub(super) struct Emergency {
    /// Name of a split; without it, all of them.
    split: Option<String>,
    /// End the emergency; without the name of a split, also those declared for single splits.
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
            expected_revision: self.request.expect,
            dry_run: self.request.dry_run,
        };
        self.request.send("/api/v1/emergency", &body)
    }
}

/// `cutover upgrade`
#[derive(Debug, Args)]
pub(super) struct Upgrade {
    /// Why; the log tells.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: Option<String>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

impl Upgrade {
    pub(super) fn run(self) -> Result<Answer, Failure> {
        let body = wire::Upgrade {
            reason: self.reason.unwrap_or_default(),
        };
        let answer = self.connection.post("/api/v1/upgrade", &body)?;
        match self.output.format {
            Format::Json => Ok(Answer::json(&answer)),
            Format::Table => {
                let upgraded: Upgraded = for_people(answer)?;
                Ok(Answer::success(upgraded.sentence + "\n"))
            }
        }
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
        let body = self.request.because(&self.reason);
        self.request.send("/api/v1/reload", &body)
    }
}
