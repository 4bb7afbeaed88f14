//! The reference numbers that come with the analysis specification, for tests.

use serde::Deserialize;
use serde_json::Value;

/// The file's contents, as far as absolute limits can be checked with them.
#[derive(Deserialize)]
pub(super) struct Vectors {
    kernels: Vec<Value>,
    pub(super) traces: Vec<Trace>,
}

/// A recorded sequence of one-second windows and what it must lead to.
#[derive(Deserialize)]
pub(super) struct Trace {
    pub(super) name: String,
    columns: Vec<String>,
    windows: Vec<Vec<Value>>,
    pub(super) samples: Vec<Sample>,
    pub(super) expected: Value,
}

/// The evidence of each condition after a window.
#[derive(Deserialize)]
pub(super) struct Sample {
    pub(super) window: usize,
    pub(super) evidence: Value,
}

pub(super) fn load() -> Vectors {
    serde_json::from_str(include_str!("../../../tests/vectors/analysis-vectors.json"))
        .expect("the vectors are valid")
}

impl Vectors {
    /// The vectors of one function.
    pub(super) fn of(&self, function: &str) -> Vec<&Value> {
        let vectors: Vec<&Value> = self
            .kernels
            .iter()
            .filter(|vector| vector["fn"] == function)
            .collect();
        assert!(!vectors.is_empty(), "no vectors of {function}");
        vectors
    }
}

impl Trace {
    pub(super) fn length(&self) -> usize {
        self.windows.len()
    }

    /// A count of one window, by the name of its column.
    pub(super) fn count(&self, window: usize, column: &str) -> u64 {
        integer(self.cell(window, column))
    }

    /// The clusters that had an error of `new` in one window.
    pub(super) fn error_clusters(&self, window: usize) -> Vec<usize> {
        let cell = self.cell(window, "new_error_clusters");
        let clusters = cell.as_array().expect("a list").iter();
        clusters.map(|cluster| integer(cluster) as usize).collect()
    }

    fn cell(&self, window: usize, column: &str) -> &Value {
        let position = self.columns.iter().position(|name| name == column);
        &self.windows[window][position.expect("a column")]
    }
}

pub(super) fn integer(value: &Value) -> u64 {
    value.as_u64().expect("an integer")
}

pub(super) fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

pub(super) fn numbers(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .expect("a list")
        .iter()
        .map(number)
        .collect()
}

#[track_caller]
pub(super) fn assert_close(actual: f64, expected: f64, relative: f64) {
    let tolerance = relative * expected.abs();
    assert!(
        (actual - expected).abs() <= tolerance,
        "{actual} is not {expected}"
    );
}
