//! `cutover state`: all that survives a restart, as one JSON document.
//!
//! Taking a backup needs no stop: a running instance reads it for us. Putting one in place does,
//! since two deciders on one state would each undo what the other was promised.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use crate::clock::Clock;
use crate::state::{Document, ImportError, OpenError, Replacing, Store};

use super::client::{ANSWER_LIMIT, Connection};
use super::exit::{Exit, Failure};
use super::output::{Answer, Format, Output};

/// `cutover state`
#[derive(Debug, Subcommand)]
pub(super) enum State {
    /// Print all of it.
    ///
    /// Example: cutover state export > state.json
    ///
    /// Asks a running instance, which takes a token that may operate; or reads the state directory
    /// of one that does not run, with --directory.
    Export(Export),

    /// Put a backup in place, where no instance runs.
    ///
    /// Example: cutover state import state.json --directory /var/lib/cutover
    ///
    /// A document that is damaged or of a newer version changes nothing. What was written is read
    /// back and compared before it takes the place of what was there. Shares and latches are those of
    /// the document with the next `cutover serve`.
    Import(Import),
}

/// `cutover state export`
#[derive(Debug, Args)]
pub(super) struct Export {
    /// The state directory of an instance that does not run.
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

/// `cutover state import`
#[derive(Debug, Args)]
pub(super) struct Import {
    /// What `cutover state export` has printed.
    file: PathBuf,
    /// The state directory; made if it is missing.
    #[arg(long, value_name = "DIR")]
    directory: PathBuf,
    /// Replace a state that holds something. The old file is kept beside the new one.
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    output: Output,
}

impl State {
    pub(super) fn run(self) -> Result<Answer, Failure> {
        match self {
            State::Export(export) => export.run(),
            State::Import(import) => import.run(),
        }
    }
}

impl Export {
    fn run(self) -> Result<Answer, Failure> {
        let Some(directory) = self.directory else {
            let document = self.connection.get("/api/v1/state")?;
            return Ok(Answer::json(&document));
        };
        let store = Store::reopen_if_there(&directory).map_err(|error| {
            let hint = match error {
                OpenError::Locked { .. } => {
                    "; to have that one tell its state, leave --directory out"
                }
                _ => "",
            };
            unopened(&error, hint)
        })?;
        let store = store.ok_or_else(|| {
            let message = format!("there is no state in {}", directory.display());
            Failure::new(Exit::Failure, message)
        })?;
        let reading = store.reading();
        let document = reading.and_then(|reading| reading.document(Clock::start().now()));
        let document = document.map_err(|error| Failure::new(Exit::Failure, error.to_string()))?;
        Ok(Answer::json(&document))
    }
}

impl Import {
    fn run(self) -> Result<Answer, Failure> {
        let text = read(&self.file)?;
        let document = Document::parse(&text).map_err(|error| {
            let message = format!("{}: {error}; nothing was changed", self.file.display());
            Failure::new(Exit::Failure, message)
        })?;
        let replacing = match self.replace {
            true => Replacing::SetAside,
            false => Replacing::Never,
        };
        let imported = document.import(&self.directory, replacing, Clock::start().now());
        let aside = imported.map_err(|error| match error {
            ImportError::Open(error) => unopened(&error, ""),
            error @ ImportError::NotEmpty { .. } => Failure::new(Exit::Refused, error.to_string()),
            error => Failure::new(Exit::Failure, error.to_string()),
        })?;
        let file = self.directory.join(Store::FILE_NAME);
        let (rollouts, decisions) = (document.rollouts.len(), document.audit.len());
        if self.output.format == Format::Json {
            return Ok(Answer::json(&json!({
                "file": file, "rollouts": rollouts, "decisions": decisions, "aside": aside,
            })));
        }
        let mut text = format!(
            "{} now holds the state of {}: rollouts {rollouts}, decisions {decisions}\n",
            file.display(),
            document.at
        );
        if let Some(aside) = aside {
            text.push_str(&format!("what was there is kept as {}\n", aside.display()));
        }
        Ok(Answer::success(text))
    }
}

fn read(file: &Path) -> Result<String, Failure> {
    let failed = |why: String| {
        let message = format!("{} cannot be read: {why}", file.display());
        Failure::new(Exit::Failure, message)
    };
    let mut text = String::new();
    let opened = File::open(file).map_err(|error| failed(error.to_string()))?;
    let most = ANSWER_LIMIT as u64;
    let read = opened.take(most + 1).read_to_string(&mut text);
    match read {
        Ok(length) if length as u64 > most => {
            Err(failed("it is longer than any backup".to_owned()))
        }
        Ok(_) => Ok(text),
        Err(error) => Err(failed(error.to_string())),
    }
}

fn unopened(error: &OpenError, hint: &str) -> Failure {
    let exit = match error {
        OpenError::Locked { .. } => Exit::Refused,
        _ => Exit::Failure,
    };
    Failure::new(exit, format!("{error}{hint}"))
}
