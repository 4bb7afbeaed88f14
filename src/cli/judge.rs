//! `cutover judge`: what would it have done?

use std::path::PathBuf;

use clap::Args;

use crate::policy::judge::replay::recorded::Agreement;
use crate::policy::judge::replay::{Ending, File, Outcome};

use super::exit::{Exit, Failure};
use super::output::{Align, Answer, Cell, Format, Ink, Output, Table, Tone, count, odds, percent};

/// `cutover judge`
#[derive(Debug, Args)]
pub(super) struct Judge {
    /// The recording.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    output: Output,
}

impl Judge {
    pub(super) fn run(self, ink: Ink) -> Result<Answer, Failure> {
        let path = self.file.display();
        let text = std::fs::read_to_string(&self.file)
            .map_err(|error| Failure::new(Exit::Failure, format!("cannot read {path}: {error}")))?;
        let outcome = File::parse(&text)
            .and_then(|file| file.judge())
            .map_err(|problem| Failure::new(Exit::Failure, format!("{path}: {problem}")))?;
        let answer = match self.output.format {
            Format::Json => Answer::json(&outcome),
            Format::Table => Answer::success(for_people(&outcome, ink)),
        };
        let mut agreements = outcome.traces.iter().filter_map(|it| it.agreement.as_ref());
        Ok(Answer {
            exit: if agreements.all(Agreement::is_whole) {
                Exit::Success
            } else {
                Exit::Failure
            },
            ..answer
        })
    }
}

fn for_people(outcome: &Outcome, ink: Ink) -> String {
    let mut paragraphs = Vec::new();
    if !outcome.kernels.is_empty() {
        let calls = count(outcome.kernels.len() as u64);
        paragraphs.push(format!(
            "{calls} function calls computed; their results are in `-o json`.\n"
        ));
    }
    paragraphs.extend(outcome.traces.iter().map(|ending| trace(ending, ink)));
    if paragraphs.is_empty() {
        return "The file holds nothing to judge.\n".to_owned();
    }
    paragraphs.join("\n")
}

fn trace(ending: &Ending, ink: Ink) -> String {
    let name = ink.paint(Tone::Heading, &format!("{}:", ending.name));
    let mut text = format!("{name} {}\n", verdict(ending));
    let mut table = Table::new([
        ("CRITERION", Align::Left),
        ("NEW", Align::Right),
        ("LEGACY", Align::Right),
        ("REQUESTS", Align::Right),
        ("EVIDENCE", Align::Right),
        ("ACTS AT", Align::Right),
        ("VERDICT", Align::Left),
    ]);
    let rate = |events: u64, samples: u64| match samples {
        0 => "-".to_owned(),
        _ => percent(events as f64 / samples as f64),
    };
    for (name, condition) in &ending.conditions {
        let tone = match condition.verdict.as_str() {
            "pass" => Tone::Good,
            "fail" => Tone::Bad,
            _ => Tone::Warning,
        };
        let verdict = match &condition.withheld_by {
            Some(guard) => format!("{}, withheld: {guard}", condition.verdict),
            None => condition.verdict.clone(),
        };
        table.row([
            name.as_str().into(),
            rate(condition.events, condition.samples).into(),
            rate(condition.legacy.events, condition.legacy.samples).into(),
            count(condition.samples).into(),
            odds(condition.evidence).into(),
            odds(condition.threshold).into(),
            Cell::toned(tone, verdict),
        ]);
    }
    for (name, need) in &ending.needs {
        let (tone, verdict) = match need.verdict.as_str() {
            "pass" => (Tone::Good, "proven"),
            _ => (Tone::Warning, "not proven"),
        };
        table.row([
            format!("advance: {name}").into(),
            rate(need.events, need.samples).into(),
            rate(need.legacy.events, need.legacy.samples).into(),
            count(need.samples).into(),
            odds(need.evidence).into(),
            odds(need.threshold).into(),
            Cell::toned(tone, verdict),
        ]);
    }
    text.push_str(&table.render(ink));
    if !ending.rollback {
        for lack in &ending.lacking {
            text.push_str(lack);
            text.push('\n');
        }
    }
    if ending.is_truncated {
        text.push_str("The recording was cut short: it had reached the most that is kept.\n");
    }
    if let Some(agreement) = &ending.agreement {
        text.push_str(&agrees(agreement, ink));
    }
    text
}

/// Whether it is what happened live.
fn agrees(agreement: &Agreement, ink: Ink) -> String {
    let samples = count(agreement.samples as u64);
    if agreement.is_whole() {
        let precision = match agreement.rounded {
            0 => "to the last bit",
            _ => "but for rounding",
        };
        let as_live = ink.paint(Tone::Good, "As it was live");
        return format!(
            "{as_live}: evidence, overdispersion and verdict are the same {precision}, at all \
             {samples} windows with samples.\n"
        );
    }
    let different = count(agreement.different as u64);
    let mut text = ink.paint(Tone::Bad, "Not as it was live");
    text.push_str(&format!(
        ": {different} of {samples} windows with samples differ, such as\n"
    ));
    for difference in &agreement.differences {
        text.push_str(&format!("  {difference}\n"));
    }
    text
}

fn verdict(ending: &Ending) -> String {
    let windows = count(ending.windows as u64);
    let advance = match ending.first_advance {
        Some(window) => format!("could advance from window {}", count(window as u64)),
        None => "could never advance".to_owned(),
    };
    match (ending.rollback_window, &ending.condition) {
        (Some(window), Some(condition)) => format!(
            "{advance}; rolled back at window {} of {windows} for {condition}.",
            count(window as u64)
        ),
        _ => format!("{advance}; not rolled back in {windows} windows."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(text: &str) -> Outcome {
        File::parse(text)
            .and_then(|file| file.judge())
            .expect("a recording")
    }

    /// Three dead seconds, after which nothing is judged.
    const DEAD: &str = r#"{"traces": [{
        "name": "dead",
        "config": {"conditions": ["error_rate"], "gates": ["error_rate"]},
        "columns": ["n_new", "err_new", "n_legacy", "err_legacy", "new_error_clusters"],
        "windows": [[2, 2, 9, 0, [1, 2]], [2, 2, 9, 0, [3, 4]], [2, 2, 9, 0, [5, 6]]],
        "samples": [{"window": 0}]
    }]}"#;

    #[test]
    fn people_see_the_end_and_the_evidence() {
        assert_eq!(
            for_people(&outcome(DEAD), Ink::Plain),
            "dead: could never advance; rolled back at window 1 of 3 for error_rate.\n\
             CRITERION               NEW  LEGACY  REQUESTS  EVIDENCE  ACTS AT  VERDICT\n\
             error_rate           100.0%      0%         4     13633      100  fail\n\
             advance: error_rate  100.0%      0%         4       0.1       20  not proven\n"
        );
    }

    #[test]
    fn programs_get_what_the_vectors_are_checked_with() {
        let json = serde_json::to_value(outcome(DEAD)).expect("serialisable");
        let trace = &json["traces"][0];
        assert_eq!(json["kernels"], serde_json::json!([]));
        assert_eq!(trace["rollback"], true);
        assert_eq!(trace["rollback_window"], 1);
        assert_eq!(trace["condition"], "error_rate");
        assert_eq!(trace["first_advance"], serde_json::Value::Null);
        let sample = &trace["samples"][0];
        assert_eq!(sample["window"], 0);
        assert!(sample["evidence"]["error_rate"].as_f64() > Some(20.0));
        assert!(sample["good"]["error_rate"].as_f64() < Some(1.0));
    }

    #[test]
    fn a_file_that_cannot_be_judged_is_refused_with_the_place() {
        let wrong_column = DEAD.replace("err_new", "oops");
        let wrong_key = DEAD.replace("gates", "gaits");
        let too_many = DEAD.replace("[2, 2, 9, 0, [3, 4]]", "[2, 3, 9, 0, [3, 4]]");
        for (text, message) in [
            ("[]".to_owned(), "the file: "),
            (
                wrong_column,
                "traces[0] \"dead\": no column is called `oops`",
            ),
            (
                wrong_key,
                "traces[0] \"dead\": config: unknown field `gaits`",
            ),
            (
                too_many,
                "traces[0] \"dead\": windows[1]: 3 events of 2 requests",
            ),
        ] {
            let problem = File::parse(&text).and_then(|file| file.judge());
            let problem = problem.expect_err("refused").to_string();
            assert!(problem.starts_with(message), "{problem}");
        }
    }
}
