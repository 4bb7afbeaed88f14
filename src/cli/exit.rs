//! What the program tells the shell.
//!
//! A script that promotes a release must tell "it was refused, and rightly" from "nobody is
//! there", without reading prose; so each of these is a promise, listed in `cutover help`.

use std::process::ExitCode;

use serde_json::json;

use super::output::Answer;

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// What was asked was done.
    Success = 0,
    /// Something failed that is none of the others.
    Failure = 1,
    /// The command line cannot be understood, or names a split, arm or backend that is not there.
    Usage = 2,
    /// The configuration file is not valid.
    Config = 3,
    /// Nobody answers at the admin address.
    Unreachable = 4,
    /// The present state forbids it; the message says what would allow it.
    Refused = 5,
}

impl Exit {
    /// Every way to end, in the order of their numbers.
    pub const ALL: [Exit; 6] = [
        Exit::Success,
        Exit::Failure,
        Exit::Usage,
        Exit::Config,
        Exit::Unreachable,
        Exit::Refused,
    ];

    /// The number that the shell sees.
    pub const fn code(self) -> u8 {
        self as u8
    }

    const fn meaning(self) -> &'static str {
        match self {
            Exit::Success => "what was asked was done",
            Exit::Failure => {
                "something failed that is none of the below, such as a token that may not do it"
            }
            Exit::Usage => {
                "the command line is wrong, or names a split, arm or backend that is not there"
            }
            Exit::Config => "the configuration file is not valid",
            Exit::Unreachable => "nobody answers at the admin address",
            Exit::Refused => "the present state forbids it; the message says what would allow it",
        }
    }

    /// The paragraph of the help that lists them.
    pub(super) fn help() -> String {
        let mut text = String::from("Exit codes:\n");
        for exit in Exit::ALL {
            text.push_str(&format!("  {}  {}\n", exit.code(), exit.meaning()));
        }
        text
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

/// Why a command failed: one sentence for people and a number for scripts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The number.
    pub exit: Exit,
    /// The sentence, without the program's name.
    pub message: String,
}

impl Failure {
    /// The same for programs that read JSON.
    pub(super) fn json(&self) -> Answer {
        let text = Answer::json(&json!({
            "error": {"exit": self.exit.code(), "message": self.message},
        }));
        Answer {
            exit: self.exit,
            ..text
        }
    }

    /// A failure that ends the program with `exit`.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
        }
    }
}
