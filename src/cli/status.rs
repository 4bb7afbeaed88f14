//! `cutover status`: the state of everything, for someone who was just woken up.
//!
//! What is wrong comes first, then a line for each split, then each split with its arms side by side
//! and all evidence, then the endpoints. Every number shown is the control plane's own; nothing is
//! computed here but the quotient of two counts.

mod signals;
mod split;

use clap::Args;

use crate::control::protocol::{BackendStatus, ConfigStatus, SplitStatus, Status};

use super::client::{Connection, escape, for_people};
use super::exit::Failure;
use super::output::{Align, Answer, Cell, Format, Ink, Output, Table, Tone, count};

/// `cutover status`
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Name of a split, to see nothing else; without it, everything.
    split: Option<String>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

impl Arguments {
    pub(super) fn run(self, ink: Ink) -> Result<Answer, Failure> {
        let path = match &self.split {
            Some(split) => format!("/api/v1/splits/{}", escape(split)),
            None => "/api/v1/status".to_owned(),
        };
        let answer = self.connection.get(&path)?;
        match self.output.format {
            Format::Json => Ok(Answer::json(&answer)),
            Format::Table if self.split.is_some() => {
                let split: SplitStatus = for_people(answer)?;
                Ok(Answer::success(render_split(&split, ink)))
            }
            Format::Table => Ok(Answer::success(render(&for_people(answer)?, ink))),
        }
    }
}

/// The whole status as text.
pub(super) fn render(status: &Status, ink: Ink) -> String {
    let mut sections = vec![summary(status, ink), split::overview(&status.splits, ink)];
    sections.extend(status.splits.iter().map(|it| split::details(it, ink)));
    sections.push(backends(&status.backends, ink));
    sections.retain(|text| !text.is_empty());
    sections.join("\n")
}

/// One split as text.
fn render_split(status: &SplitStatus, ink: Ink) -> String {
    let overview = split::overview(std::slice::from_ref(status), ink);
    format!("{overview}\n{}", split::details(status, ink))
}

fn summary(status: &Status, ink: Ink) -> String {
    let mut text = format!(
        "cutover {}, started {}, generation {}\n",
        status.version, status.started_at, status.generation
    );
    if status.emergency {
        let warning = "EMERGENCY: every split is on legacy until `cutover emergency --clear`";
        text.push_str(&ink.paint(Tone::Bad, warning));
        text.push('\n');
    }
    if !status.store_healthy {
        let warning = "STATE STORE FAILING: decisions hold in memory and are lost by a restart";
        text.push_str(&ink.paint(Tone::Bad, warning));
        text.push('\n');
    }
    text.push_str(&config(&status.config, ink));
    text
}

fn config(config: &ConfigStatus, ink: Ink) -> String {
    let in_force = format!("{}, loaded {}\n", config.path, config.loaded_at);
    if config.last_reload_successful {
        return in_force;
    }
    let warning = "CONFIG REFUSED: the file has problems, what was loaded before stays in force";
    let mut text = format!("{in_force}{}\n", ink.paint(Tone::Bad, warning));
    for problem in &config.problems {
        // A problem may quote the lines of the file it speaks of.
        text.push_str(&format!("  {}\n", problem.trim_end().replace('\n', "\n  ")));
    }
    text
}

fn backends(backends: &[BackendStatus], ink: Ink) -> String {
    if backends.is_empty() {
        return String::new();
    }
    let mut table = Table::new([
        ("BACKEND", Align::Left),
        ("ENDPOINT", Align::Left),
        ("HEALTH", Align::Left),
        ("PENDING", Align::Right),
        ("CONNECTIONS", Align::Right),
    ]);
    for backend in backends {
        for (position, endpoint) in backend.endpoints.iter().enumerate() {
            let name = if position == 0 {
                backend.name.as_str()
            } else {
                ""
            };
            let tone = if endpoint.health == "healthy" {
                Tone::Good
            } else {
                Tone::Bad
            };
            table.row([
                name.into(),
                endpoint.address.as_str().into(),
                Cell::toned(tone, endpoint.health.as_str()),
                count(endpoint.pending).into(),
                count(endpoint.connections).into(),
            ]);
        }
    }
    table.render(ink)
}

#[cfg(test)]
mod tests;
