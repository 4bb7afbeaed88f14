//! The signals of a split: what was told last, how old it is, and what it means for the rollout.

use crate::policy::signal::SignalState;
use crate::policy::wording::span;

use super::super::output::{Align, Cell, Ink, Table, Tone, wrapped};
use super::split::{COLUMNS, verdict};

/// What is left for a sentence about a signal.
const SENTENCE: usize = 22;

/// A row for each thing that is asked of a signal, then what sources say instead of values.
pub(super) fn signals(signals: &[SignalState], ink: Ink) -> String {
    if signals.is_empty() {
        return String::new();
    }
    let mut table = Table::new([
        ("VERDICT", Align::Left),
        ("STATE", Align::Left),
        ("AGE", Align::Right),
        ("VALUE", Align::Right),
        ("LIMIT", Align::Right),
        ("SIGNAL", Align::Left),
    ]);
    let mut errors = String::new();
    for signal in signals {
        for condition in &signal.conditions {
            let asked = (verdict(&condition.verdict), condition.limit);
            row(&mut table, signal, asked, &condition.sentence);
        }
        if signal.conditions.is_empty() {
            row(&mut table, signal, ("-".into(), None), &signal.name);
        }
        if let Some(error) = &signal.error {
            let sentence = wrapped(&format!("{}: {error}", signal.name), COLUMNS, "");
            errors.push_str(&ink.paint(Tone::Warning, sentence.trim_end()));
            errors.push('\n');
        }
    }
    table.render(ink) + &errors
}

/// A row, and as many below it as the sentence needs.
fn row(
    table: &mut Table,
    signal: &SignalState,
    (verdict, limit): (Cell, Option<f64>),
    sentence: &str,
) {
    let figure = |value: Option<f64>| value.map_or("-".to_owned(), |value| signal.show(value));
    let age = signal.age_seconds.map_or_else(|| "-".to_owned(), span);
    let lines = wrapped(sentence, SENTENCE, "");
    let mut lines = lines.lines();
    table.row([
        verdict,
        state(signal),
        age.into(),
        figure(signal.value).into(),
        figure(limit).into(),
        lines.next().unwrap_or_default().into(),
    ]);
    let empty = || Cell::from("");
    for line in lines {
        table.row([empty(), empty(), empty(), empty(), empty(), line.into()]);
    }
}

/// A value that is no longer fresh looks just like one that is.
fn state(signal: &SignalState) -> Cell {
    match (signal.fresh, signal.value) {
        (true, _) => Cell::toned(Tone::Good, "fresh"),
        (false, Some(_)) => Cell::toned(Tone::Warning, "stale"),
        (false, None) => Cell::toned(Tone::Warning, "no value"),
    }
}
