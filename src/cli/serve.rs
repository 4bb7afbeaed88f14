//! `cutover serve`

use clap::Args;

use crate::app::{self, Recover, ServeError, ServeOptions};
use crate::policy::share::Share;
use crate::telemetry::log::Format;

use super::exit::{Exit, Failure};
use super::file::ConfigFile;
use super::output::Answer;

/// `cutover serve`
#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    file: ConfigFile,

    /// How to start although the state store cannot be used: with everyone on `legacy`, or with
    /// this share for every split
    #[arg(long, value_name = "legacy|PERCENT", value_parser = parse_recover)]
    recover_share: Option<Recover>,

    /// Relieve the process that works with the same state directory, if there is one: take its
    /// sockets and its state, and have it leave. Without one, start as usual
    #[arg(long)]
    take_over: bool,

    /// How a line of the log looks
    #[arg(long, value_enum, default_value_t)]
    log_format: Format,
}

impl Serve {
    pub(super) fn run(self) -> Result<Answer, Failure> {
        let options = ServeOptions {
            config: self.file.path,
            recover: self.recover_share,
            take_over: self.take_over,
            log_format: self.log_format,
        };
        match app::serve(options) {
            Ok(()) => Ok(Answer::success(String::new())),
            Err(error) => Err(Failure {
                exit: match error {
                    ServeError::Config(_) | ServeError::Unusable(_) => Exit::Config,
                    _ => Exit::Failure,
                },
                message: error.to_string(),
            }),
        }
    }
}

fn parse_recover(text: &str) -> Result<Recover, String> {
    if text == "legacy" {
        return Ok(Recover::Legacy);
    }
    let share: Share = text
        .parse()
        .map_err(|error| format!("write `legacy`, or a share: {error}"))?;
    Ok(Recover::Share(share))
}
