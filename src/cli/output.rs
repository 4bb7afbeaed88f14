//! What a command answers: text for people, or JSON for programs.

use clap::{ArgMatches, Args, ValueEnum};
use serde::Serialize;

pub(super) use crate::terminal::{
    Align, Cell, Ink, Table, Tone, count, meter, odds, percent, seconds, wrapped,
};

use super::exit::Exit;

/// What a command has to say, and what the shell is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Written to stdout as it is.
    pub(super) text: String,
    /// Not a success where the answer itself is bad news, such as a failed smoke test.
    pub(super) exit: Exit,
}

impl Answer {
    /// What was asked was done.
    pub(super) fn success(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            exit: Exit::Success,
        }
    }

    /// The same, as indented JSON.
    pub(super) fn json(value: &impl Serialize) -> Self {
        // Maps with keys that are not text are the only values that cannot be written, and no
        // answer has one.
        let text = serde_json::to_string_pretty(value).expect("answers have text keys");
        Self::success(without_raw_controls(text) + "\n")
    }
}

/// JSON may hold DEL and the C1 controls as they are, and some terminals obey them. Outside of its
/// texts there are none, so each can be written as an escape.
fn without_raw_controls(json: String) -> String {
    let steers = |character: char| character.is_control() && character != '\n';
    if !json.contains(steers) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len() + 64);
    for character in json.chars() {
        if steers(character) {
            escaped.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// For whom the answer is.
#[derive(Debug, Args)]
pub(super) struct Output {
    /// How to print the answer: a table for people, JSON for programs.
    #[arg(
        short = 'o',
        long = "output",
        value_name = "FORMAT",
        default_value = "table"
    )]
    pub(super) format: Format,
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

impl Format {
    /// What these words ask for. A command that has no choice answers people.
    pub(super) fn wanted(words: &ArgMatches) -> Self {
        match words.subcommand() {
            Some((_, words)) => Self::wanted(words),
            None => {
                let wanted = words.try_get_one::<Self>("format").ok().flatten();
                wanted.copied().unwrap_or(Self::Table)
            }
        }
    }
}
