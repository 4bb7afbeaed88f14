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
    Success,
    /// Something failed that is none of the others.
    Failure,
    /// The command line cannot be understood, or names a split, arm or backend that is not there.
    Usage,
    /// The configuration file is not valid.
    Config,
    /// Nobody answers at the admin address.
    Unreachable,
    /// The split was rolled back while `--wait` waited.
    RolledBack,
    /// The present state forbids it; the message says what would allow it.
    Refused,
    /// The split stands still while `--wait` waits, or the time is over.
    Standing,
    /// Something was decided since the revision that `--expect` names; the message says what.
    Stale,
}

impl Exit {
    /// Every way to end, in the order of their numbers.
    pub const ALL: [Exit; 9] = [
        Exit::Success,
        Exit::Failure,
        Exit::Usage,
        Exit::Config,
        Exit::Unreachable,
        Exit::RolledBack,
        Exit::Refused,
        Exit::Standing,
        Exit::Stale,
    ];

    /// The number that the shell sees. With `--wait`, 4 and 5 tell how it ended: there nobody to
    /// answer is a plain failure, so that no script takes a lost connection for a rollback.
    pub const fn code(self) -> u8 {
        match self {
            Exit::Success => 0,
            Exit::Failure => 1,
            Exit::Usage => 2,
            Exit::Config => 3,
            Exit::Unreachable | Exit::RolledBack => 4,
            Exit::Refused | Exit::Standing => 5,
            Exit::Stale => 6,
        }
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
            Exit::Unreachable => "nobody answers at the admin address (with `--wait`: 1)",
            Exit::RolledBack => "with `--wait`: the split was rolled back",
            Exit::Refused => "the present state forbids it; the message says what would allow it",
            Exit::Standing => {
                "with `--wait`: the split stands still until somebody acts, or the time is over"
            }
            Exit::Stale => {
                "something was decided since the revision given with `--expect`; the message says \
                 what"
            }
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
