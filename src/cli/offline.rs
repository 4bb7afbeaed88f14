//! Commands that need no running instance.

use std::time::Duration;

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use serde_json::json;

use crate::app;
use crate::clock::Clock;
use crate::config::{self, certificate, model::Config};
use crate::demo::{self, Ending, Outcome};
use crate::identity::pin;
use crate::policy::arm::Arm;
use crate::policy::duration;
use crate::snapshot::registry::Registry;

use super::Cli;
use super::exit::{Exit, Failure};
use super::file::{self, ConfigFile};
use super::output::{Answer, Format, Ink, Output, count};

/// `cutover demo`
#[derive(Debug, Args)]
pub(super) struct Demo {
    /// End with the story; exit with 0 only if each claim was seen to hold.
    #[arg(long)]
    once: bool,
}

impl Demo {
    pub(super) fn run(self, ink: Ink) -> Result<Answer, Failure> {
        let ending = if self.once {
            Ending::Once
        } else {
            Ending::Interrupted
        };
        let outcome = demo::run(ending, ink);
        let outcome = outcome.map_err(|error| Failure::new(Exit::Failure, error.to_string()))?;
        // It has said everything already.
        Ok(Answer {
            text: String::new(),
            exit: match outcome {
                Outcome::Held => Exit::Success,
                Outcome::Broken => Exit::Failure,
            },
        })
    }
}

/// `cutover check`
#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    output: Output,
}

impl Check {
    pub(super) fn run(self) -> Result<Answer, Failure> {
        match self.output.format {
            Format::Json => Ok(self.for_programs()),
            Format::Table => self.for_people(),
        }
    }

    fn for_people(&self) -> Result<Answer, Failure> {
        let path = self.file.path.display();
        let config = file::load(&self.file.path)?;
        if let Some(problem) = refusal(&config) {
            let message = format!("{path} is not valid:\n{path}: {problem}");
            return Err(Failure::new(Exit::Config, message));
        }
        let mut text = String::new();
        for warning in &warnings(&config) {
            text.push_str(&format!("warning: {path}:{warning}\n"));
        }
        text.push_str(&format!(
            "{path} is valid: {}, {}, {}, {}\n",
            numbered(config.listeners.len(), "listener"),
            numbered(config.backends.len(), "backend"),
            numbered(config.splits.len(), "split"),
            numbered(config.routes.len(), "route"),
        ));
        Ok(Answer::success(text))
    }

    fn for_programs(&self) -> Answer {
        let (problems, warnings) = match config::load(&self.file.path) {
            Ok(config) => (refusal(&config).into_iter().collect(), warnings(&config)),
            Err(problems) => (problems.problems, Vec::new()),
        };
        let listed =
            |problems: &[config::Problem]| -> Vec<_> { problems.iter().map(problem).collect() };
        let exit = if problems.is_empty() {
            Exit::Success
        } else {
            Exit::Config
        };
        let answer = Answer::json(&json!({
            "valid": problems.is_empty(),
            "problems": listed(&problems),
            "warnings": listed(&warnings),
        }));
        Answer { exit, ..answer }
    }
}

/// What is allowed and yet worth a look, the ends of certificates among it.
fn warnings(config: &Config) -> Vec<config::Problem> {
    let mut warnings = config.warnings.clone();
    warnings.extend(certificate::ending(config, Clock::start().now()));
    warnings
}

/// What `serve` would find when it puts the file into effect, which reading it does not tell.
fn refusal(config: &Config) -> Option<config::Problem> {
    let built = Registry::new(1).build(config).map(drop);
    let prepared = built
        .map_err(|error| error.to_string())
        .and_then(|()| app::certify(config).map(drop));
    prepared.err().map(|message| config::Problem {
        line: 0,
        column: 0,
        key: String::new(),
        message,
        remedy: "`serve` refuses it too, and keeps what it has".to_owned(),
    })
}

fn problem(problem: &config::Problem) -> serde_json::Value {
    json!({
        "line": problem.line,
        "column": problem.column,
        "key": problem.key,
        "message": problem.message,
        "remedy": problem.remedy,
    })
}

fn numbered(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", count(number as u64))
}

/// `cutover pin`
#[derive(Debug, Args)]
pub(super) struct Pin {
    #[command(flatten)]
    file: ConfigFile,
    /// Name of the split.
    #[arg(long, value_name = "NAME")]
    split: String,
    /// Whose answers the bearer gets: legacy or new.
    #[arg(long, value_name = "ARM")]
    arm: Arm,
    /// How long the token is valid, such as 30m, 24h or 7d.
    #[arg(long = "for", value_name = "DURATION", default_value = "24h", value_parser = duration::parse)]
    valid_for: Duration,
    #[command(flatten)]
    output: Output,
}

impl Pin {
    pub(super) fn run(self) -> Result<Answer, Failure> {
        let config = file::load(&self.file.path)?;
        let split = file::split(&config, &self.split)?;
        let secret = split.pin_secret.as_ref().ok_or_else(|| {
            let message = format!(
                "the split `{}` has no secret for pin tokens, so it would ignore this one; give \
                 it one in {}",
                split.name,
                self.file.path.display()
            );
            Failure::new(Exit::Refused, message)
        })?;
        // Before 1970 the token would be born expired, which is what it is worth there.
        let now = Clock::start().now();
        let token = pin::issue(secret, &split.name, self.arm, self.valid_for, now.seconds());
        if self.output.format == Format::Json {
            let expires_at = now.plus(self.valid_for).rfc3339();
            return Ok(Answer::json(&json!({
                "split": split.name, "arm": self.arm.as_str(), "token": token,
                "expires_at": expires_at,
            })));
        }
        Ok(Answer::success(token + "\n"))
    }
}

/// Prints the schema of the configuration file: `cutover schema`.
pub(super) fn schema() -> Answer {
    Answer::json(&config::schema())
}

/// `cutover completions`
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell.
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> Answer {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "cutover", &mut script);
        Answer::success(String::from_utf8_lossy(&script))
    }
}
