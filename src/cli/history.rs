//! `cutover history`: what was decided, by whom, and why.

use clap::Args;

use crate::control::history::{History, HistoryQuery, Since};

use super::client::{Connection, escape, for_people};
use super::exit::Failure;
use super::output::{Align, Answer, Cell, Format, Ink, Output, Table, Tone};

/// `cutover history`
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Name of a split, also of one that is no longer configured; without it, all of them.
    split: Option<String>,
    /// At most so many decisions, the latest: 1 to 1000.
    #[arg(long, value_name = "N", default_value_t = HistoryQuery::DEFAULT_LIMIT, value_parser = limit)]
    limit: usize,
    /// Only decisions from then on: a time in UTC, such as 2026-11-20T14:00:00Z or 2026-11-20, or
    /// how long ago, such as 90m or 7d.
    #[arg(long, value_name = "TIME|DURATION", value_parser = since)]
    since: Option<String>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

impl Arguments {
    pub(super) fn run(self, ink: Ink) -> Result<Answer, Failure> {
        let mut path = format!("/api/v1/history?limit={}", self.limit);
        for (name, value) in [("split", &self.split), ("since", &self.since)] {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", escape(value)));
            }
        }
        let answer = self.connection.get(&path)?;
        match self.output.format {
            Format::Json => Ok(Answer::json(&answer)),
            Format::Table => Ok(Answer::success(render(&for_people(answer)?, ink))),
        }
    }
}

/// The latest last, so that it stands above the prompt.
fn render(history: &History, ink: Ink) -> String {
    if history.decisions.is_empty() {
        return "Nothing was decided.\n".to_owned();
    }
    let mut table = Table::new([
        ("TIME", Align::Left),
        ("SPLIT", Align::Left),
        ("ACTOR", Align::Left),
        ("ACTION", Align::Left),
        ("SHARE", Align::Left),
        ("WHAT", Align::Left),
    ]);
    for decision in history.decisions.iter().rev() {
        let tone = match decision.action.as_str() {
            "rollback" | "emergency" | "deny" => Tone::Bad,
            "hold" => Tone::Warning,
            _ => Tone::Normal,
        };
        let mut sentence = decision.sentence.clone();
        if !sentence.contains(&decision.reason) {
            sentence.push_str(&format!(" Reason: {}", decision.reason));
        }
        // What concerns the edge is about no split and no share.
        let (split, share) = match decision.split.as_str() {
            "" => ("-", "-".to_owned()),
            split => (split, format!("{} -> {}", decision.from, decision.to)),
        };
        table.row([
            decision.at.as_str().into(),
            split.into(),
            decision.actor.as_str().into(),
            Cell::toned(tone, decision.action.as_str()),
            share.into(),
            sentence.into(),
        ]);
    }
    table.render(ink)
}

fn limit(text: &str) -> Result<usize, String> {
    let (least, most) = HistoryQuery::LIMITS.into_inner();
    let limit = text.parse().ok();
    limit
        .filter(|limit| HistoryQuery::LIMITS.contains(limit))
        .ok_or_else(|| format!("a number from {least} to {most}"))
}

/// Refused here in the same words as there, before anything is sent.
fn since(text: &str) -> Result<String, String> {
    let read: Result<Since, _> = text.parse();
    read.map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}
