//! Commands that need no running instance.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use super::exit::Failure;
use super::output::Answer;

/// `cutover completions`
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell.
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> Result<Answer, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "cutover", &mut script);
        Ok(Answer::success(String::from_utf8_lossy(&script)))
    }
}
