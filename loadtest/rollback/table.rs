//! The result, for people and for files. A number without its machine is a rumour.

use std::fmt::{self, Display, Formatter, Write as _};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use super::arm::Death;
use super::run::{Kept, Run};
use super::{Impossible, proxy};

/// Where it was measured, and what.
pub(super) struct Machine {
    date: String,
    version: String,
    commit: String,
    processor: String,
    processors: usize,
    load: String,
    profile: &'static str,
}

impl Machine {
    #[expect(
        clippy::disallowed_methods,
        reason = "a result has a date, and nothing is decided by it"
    )]
    pub(super) fn look() -> Result<Self, Impossible> {
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = processors
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or("unknown", |(_, name)| name);
        let profile = if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        };
        Ok(Self {
            date: jiff::Timestamp::now().strftime("%Y-%m-%d-%H%M").to_string(),
            version: said_by(Command::new(proxy::program()?).arg("--version")),
            commit: said_by(Command::new("git").args(["rev-parse", "--short", "HEAD"])),
            processor: processor.to_owned(),
            processors: std::thread::available_parallelism()?.get(),
            load: load(),
            profile,
        })
    }
}

impl Display for Machine {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            date,
            version,
            commit,
            processor,
            processors,
            load,
            profile,
        } = self;
        write!(
            f,
            "{date}: {version}, {commit}, {profile} build; {processors} × {processor}, load {load}"
        )
    }
}

/// Markdown, a line for each way to die.
pub(super) fn of_runs(runs: &[Run]) -> String {
    let mut text = "| new | runs | ms to share 0: min | median | p95 | max | failed attempts: \
                    min | median | p95 | max | bad answers |\n"
        .to_owned();
    text.push_str("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
    for death in Death::ALL {
        let runs: Vec<&Run> = runs.iter().filter(|run| run.death == death).collect();
        let spans = spread(runs.iter().map(|run| run.milliseconds()));
        let attempts = spread(runs.iter().map(|run| run.attempts as f64));
        let bad: u64 = runs.iter().map(|run| run.bad_answers).sum();
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "| {} | {} | {spans} | {attempts} | {bad} |",
            death.as_str(),
            runs.len()
        );
    }
    text
}

/// Least, median, 95th percentile and greatest; of ranks, so each of them has happened.
fn spread(values: impl Iterator<Item = f64>) -> String {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let shown = [0.0, 0.5, 0.95, 1.0].map(|part| {
        let rank = (part * values.len() as f64).ceil() as usize;
        let value = values.get(rank.saturating_sub(1));
        value.map_or_else(|| "-".to_owned(), f64::to_string)
    });
    shown.join(" | ")
}

/// Writes every run beside the other results.
pub(super) fn write(
    machine: &Machine,
    runs: &[Run],
    kept: Option<&Kept>,
) -> Result<PathBuf, Impossible> {
    let name = format!("{}-{}-rollback.json", machine.date, machine.commit);
    let directory = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/loadtest/results"));
    let file = directory.join(name);
    let command: Vec<String> = std::env::args().skip(1).collect();
    let document = json!({
        "date": machine.date,
        "version": machine.version,
        "commit": machine.commit,
        "profile": machine.profile,
        "arguments": command,
        "processor": machine.processor,
        "processors": machine.processors,
        "load_before": machine.load,
        "load_after": load(),
        "runs": runs.iter().map(Run::to_json).collect::<Vec<_>>(),
        "state": kept.map(Kept::to_json),
    });
    fs::write(&file, serde_json::to_string_pretty(&document)? + "\n")?;
    Ok(file)
}

fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// The first line that a program writes; it is not worth an end of the measurement.
fn said_by(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout);
    let text = String::from_utf8(output.unwrap_or_default()).unwrap_or_default();
    let line = text.lines().next().unwrap_or("unknown");
    line.to_owned()
}
