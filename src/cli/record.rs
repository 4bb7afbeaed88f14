//! `cutover record`: what a split is judged by, in a file.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

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
        // A path that cannot be written must not cost a recording.
        let place = self.output.as_deref().map(Place::take).transpose();
        let place = place.map_err(|error| self.cannot_write(&error))?;
        // One from the beginning to the end: Ctrl-C may come at any moment.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let listening = runtime.and_then(|runtime| {
            let interrupt = runtime.block_on(async { signal(SignalKind::interrupt()) })?;
            Ok((runtime, interrupt))
        });
        let (runtime, mut interrupt) = listening.map_err(|error| {
            Failure::new(Exit::Failure, format!("cannot listen for Ctrl-C: {error}"))
        })?;
        let split = format!("/api/v1/splits/{}", escape(&self.split));
        let recording = format!("{split}/recording");
        let request = Request { span: self.span };
        let begun: Outcome = for_people(self.connection.post(&recording, &request)?)?;
        // If standard error is closed, the recording goes on all the same.
        let _ = writeln!(
            io::stderr(),
            "{} Ctrl-C ends it and keeps what is there.",
            begun.sentence
        );
        self.wait(&split, &runtime, &mut interrupt)?;
        let text = self.connection.text(&recording)?;
        let (Some(path), Some(place)) = (&self.output, place) else {
            self.connection.delete(&recording)?;
            return Ok(Answer::success(String::from_utf8_lossy(&text)));
        };
        place.keep();
        fs::write(path, &text).map_err(|error| self.cannot_write(&error))?;
        self.connection.delete(&recording)?;
        let path = path.display();
        let bytes = count(text.len() as u64);
        Ok(Answer::success(format!(
            "Wrote {bytes} bytes to {path}; judge them with: cutover judge {path}\n"
        )))
    }

    /// Until the recording has ended, or somebody wants it to.
    fn wait(&self, split: &str, runtime: &Runtime, interrupt: &mut Signal) -> Result<(), Failure> {
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
                    _ = interrupt.recv() => true,
                    () = tokio::time::sleep(LOOK_AGAIN) => false,
                }
            });
            if is_interrupted {
                return Ok(());
            }
        }
    }

    fn cannot_write(&self, error: &io::Error) -> Failure {
        let path = self.output.as_deref().unwrap_or(Path::new("-"));
        let message = format!("cannot write {}: {error}", path.display());
        Failure::new(Exit::Failure, message)
    }
}

/// A file that can be written. One that was made for this goes again unless it is kept.
struct Place(Option<PathBuf>);

impl Place {
    fn take(path: &Path) -> io::Result<Self> {
        let made = OpenOptions::new().write(true).create_new(true).open(path);
        match made {
            Ok(_) => Ok(Self(Some(path.to_owned()))),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                OpenOptions::new().append(true).open(path)?;
                Ok(Self(None))
            }
            Err(error) => Err(error),
        }
    }

    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // The failure that ended the recording is told; an empty file is no second one.
            let _ = fs::remove_file(path);
        }
    }
}

fn span(text: &str) -> Result<Duration, InvalidDuration> {
    duration::parse(text)
}
