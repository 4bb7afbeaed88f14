//! A scrape, parsed.

use std::collections::HashMap;

/// A scrape, parsed.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    samples: HashMap<String, Vec<Sample>>,
}

#[derive(Debug)]
struct Sample {
    labels: Vec<(String, String)>,
    value: f64,
}

impl Metrics {
    /// Reads Prometheus' text format.
    pub(crate) fn parse(text: &str) -> Self {
        let mut metrics = Self::default();
        let lines = text.lines();
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').expect("a sample ends with its value");
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels.strip_suffix('}').expect("labels end with a brace");
            let sample = Sample {
                labels: parse_labels(labels),
                value: value.parse().expect("a value is a number"),
            };
            metrics
                .samples
                .entry(name.to_owned())
                .or_default()
                .push(sample);
        }
        metrics
    }

    /// The sum of all samples of `name` that bear these labels, whatever else they bear; 0 if
    /// there is none, since a counter may be born with its first event.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let samples = self.samples.get(name).into_iter().flatten();
        samples
            .filter(|sample| labels.iter().all(|label| sample.has(*label)))
            .map(|sample| sample.value)
            .sum()
    }

    /// The one sample of `name` with exactly these labels, if there is one.
    pub(crate) fn only(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let samples = self.samples.get(name)?;
        let exact = samples.iter().find(|sample| {
            sample.labels.len() == labels.len() && labels.iter().all(|label| sample.has(*label))
        });
        exact.map(|sample| sample.value)
    }
}

impl Sample {
    fn has(&self, (name, value): (&str, &str)) -> bool {
        let mut labels = self.labels.iter();
        labels.any(|label| label.0 == name && label.1 == value)
    }
}

fn parse_labels(mut rest: &str) -> Vec<(String, String)> {
    let mut labels = Vec::new();
    while let Some((name, after)) = rest.split_once("=\"") {
        let end = end_of_value(after);
        labels.push((name.to_owned(), after[..end].replace("\\\"", "\"")));
        rest = after[end + 1..].trim_start_matches(',');
    }
    labels
}

/// The position of the first quote that is not escaped.
fn end_of_value(text: &str) -> usize {
    let mut is_escaped = false;
    for (position, letter) in text.char_indices() {
        match letter {
            '"' if !is_escaped => return position,
            '\\' => is_escaped = !is_escaped,
            _ => is_escaped = false,
        }
    }
    panic!("a label's value has no end: {text}");
}
