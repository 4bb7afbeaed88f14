//! `cutover record`: what a split is judged by, in a file.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::admin::wire::Record as Request;
use crate::control::command::Outcome;
use crate::control::protocol::SplitStatus;
use crate::policy::duration::{self, InvalidDuration};

use super::client::{Connection, escape, for_people};
use super::exit::{Exit, Failure};
use super::output::{Answer, count};

/// Between two looks at whether a recording has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// `cutover record`
#[derive(Debug, Args)]
pub(super) struct Record {
    /// Name of the split.
    split: String,
    /// For how long, at most 1h; Ctrl-C ends it earlier and keeps what is there.
    #[arg(long = "for", value_name = "DURATION", default_value = "5m", value_parser = span)]
    span: Duration,
    /// Where to write it; without this, on standard output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

impl Record {
    pub(super) fn run(self) -> Result<Answer, Failure> {
        if let Some(path) = &self.output {
            // A path that cannot be written must not cost a recording.
            let opened = OpenOptions::new().create(true).append(true).open(path);
            opened.map_err(|error| self.cannot_write(&error))?;
        }
        let split = format!("/api/v1/splits/{}", escape(&self.split));
        let recording = format!("{split}/recording");
        let request = Request { span: self.span };
        let begun: Outcome = for_people(self.connection.post(&recording, &request)?)?;
        // If standard error is closed, the recording goes on all the same.
        let _ = writeln!(
            std::io::stderr(),
            "{} Ctrl-C ends it and keeps what is there.",
            begun.sentence
        );
        self.wait(&split)?;
        let text = self.connection.text(&recording)?;
        let Some(path) = &self.output else {
            self.connection.delete(&recording)?;
            return Ok(Answer::success(String::from_utf8_lossy(&text)));
        };
        std::fs::write(path, &text).map_err(|error| self.cannot_write(&error))?;
        self.connection.delete(&recording)?;
        let path = path.display();
        let bytes = count(text.len() as u64);
        Ok(Answer::success(format!(
            "Wrote {bytes} bytes to {path}; judge them with: cutover judge {path}\n"
        )))
    }

    /// Until the recording has ended, or somebody wants it to.
    fn wait(&self, split: &str) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| {
                Failure::new(Exit::Failure, format!("cannot start a runtime: {error}"))
            })?;
        loop {
            let status: SplitStatus = for_people(self.connection.get(split)?)?;
            let Some(recording) = status.recording else {
                return Err(Failure::new(
                    Exit::Failure,
                    "the recording is gone: somebody ended it, or the instance was restarted",
                ));
            };
            if recording.ended.is_some() {
                return Ok(());
            }
            let is_interrupted = runtime.block_on(async {
                tokio::select! {
                    _ = tokio::signal::ctrl_c() => true,
                    () = tokio::time::sleep(LOOK_AGAIN) => false,
                }
            });
            if is_interrupted {
                return Ok(());
            }
        }
    }

    fn cannot_write(&self, error: &std::io::Error) -> Failure {
        let path = self.output.as_deref().unwrap_or(std::path::Path::new("-"));
        let message = format!("cannot write {}: {error}", path.display());
        Failure::new(Exit::Failure, message)
    }
}

fn span(text: &str) -> Result<Duration, InvalidDuration> {
    duration::parse(text)
}
