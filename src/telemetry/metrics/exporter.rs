//! Writing families of metrics: counters and gauges through the exporter, histograms from buckets.

use std::fmt::Write as _;

use metrics::{Key, KeyName, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use super::scene::SplitScene;
use crate::policy::arm::Arm;
use crate::telemetry::histogram::{EDGES, Histogram, edge};
use crate::telemetry::tally::ArmFigures;

/// A factor of √2 from one `le` to the next. Finer ones multiply the series of every split and
/// arm, and a verdict is never made from these.
const EDGES_PER_BUCKET: usize = 16;

/// The exporter of one scrape.
pub(super) struct Exporter {
    recorder: PrometheusRecorder,
}

impl Exporter {
    pub(super) fn new() -> Self {
        // No idle timeout: a series lives exactly as long as this exporter.
        let builder = PrometheusBuilder::new().with_recommended_naming(true);
        Self {
            recorder: builder.build_recorder(),
        }
    }

    /// Everything set so far, in the text format.
    pub(super) fn render(&self) -> String {
        self.recorder.handle().render()
    }

    pub(super) fn counter(&self, name: &'static str, help: &'static str) -> Counters<'_> {
        let key = KeyName::from_const_str(name);
        self.recorder.describe_counter(key, None, help.into());
        Counters {
            exporter: self,
            name,
        }
    }

    pub(super) fn gauge(&self, name: &'static str, help: &'static str) -> Gauges<'_> {
        let key = KeyName::from_const_str(name);
        self.recorder.describe_gauge(key, None, help.into());
        Gauges {
            exporter: self,
            name,
        }
    }
}

/// A family of counters.
pub(super) struct Counters<'a> {
    exporter: &'a Exporter,
    name: &'static str,
}

impl Counters<'_> {
    pub(super) fn set(&self, labels: &[(&'static str, &str)], value: u64) {
        let counter = self
            .exporter
            .recorder
            .register_counter(&key(self.name, labels), &METADATA);
        counter.absolute(value);
    }
}

/// A family of gauges.
pub(super) struct Gauges<'a> {
    exporter: &'a Exporter,
    name: &'static str,
}

impl Gauges<'_> {
    pub(super) fn set(&self, labels: &[(&'static str, &str)], value: f64) {
        let gauge = self
            .exporter
            .recorder
            .register_gauge(&key(self.name, labels), &METADATA);
        gauge.set(value);
    }
}

/// The exporter wants to know where a metric comes from and ignores it.
const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
    let labels = labels
        .iter()
        .map(|(name, value)| Label::new(*name, value.to_string()));
    Key::from_parts(name, labels.collect::<Vec<_>>())
}

/// A label's value with the three characters escaped that would end it.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for character in self.0.chars() {
            match character {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// A family of histograms with one series per split and arm.
pub(super) fn write_histograms(
    output: &mut String,
    splits: &[SplitScene<'_>],
    name: &str,
    help: &str,
    histogram: impl Fn(&ArmFigures) -> &Histogram,
) {
    if splits.is_empty() {
        return;
    }
    // Writing to a string cannot fail.
    let _ = writeln!(output, "# HELP {name} {help}\n# TYPE {name} histogram");
    for split in splits {
        for arm in Arm::ALL {
            let histogram = histogram(&split.reading.figures[arm]);
            let labels = format!("split=\"{}\",arm=\"{arm}\"", Escaped(split.name));
            let mut count = 0;
            for (index, bucket) in histogram.counts().iter().enumerate() {
                count += bucket;
                if index < EDGES && index % EDGES_PER_BUCKET == 0 {
                    let le = edge(index).as_secs_f64();
                    let _ = writeln!(output, "{name}_bucket{{{labels},le=\"{le}\"}} {count}");
                }
            }
            let sum = histogram.sum().as_secs_f64();
            let _ = writeln!(output, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
            let _ = writeln!(output, "{name}_sum{{{labels}}} {sum}");
            let _ = writeln!(output, "{name}_count{{{labels}}} {count}");
        }
    }
    output.push('\n');
}
