//! The reference numbers of the analysis, for tests.

use serde::Deserialize;
use serde_json::Value;

/// The file.
pub(super) const REFERENCE: &str = include_str!("../../../tests/vectors/analysis-vectors.json");

/// What the file expects.
#[derive(Deserialize)]
pub(super) struct Vectors {
    pub(super) kernels: Vec<Value>,
    pub(super) traces: Vec<Trace>,
}

/// What a recorded sequence of windows must lead to.
#[derive(Deserialize)]
pub(super) struct Trace {
    pub(super) name: String,
    pub(super) samples: Vec<Sample>,
    pub(super) expected: Value,
}

/// The evidence of each condition after a window.
#[derive(Deserialize)]
pub(super) struct Sample {
    pub(super) window: usize,
    pub(super) evidence: Value,
    pub(super) good: Value,
}

pub(super) fn load() -> Vectors {
    serde_json::from_str(REFERENCE).expect("the vectors are valid")
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

/// Up to `tolerance`, absolute for small numbers and relative for large ones.
#[track_caller]
pub(super) fn assert_near(actual: f64, expected: f64, tolerance: f64) {
    let tolerance = tolerance * expected.abs().max(1.0);
    assert!(
        (actual - expected).abs() <= tolerance,
        "{actual} is not {expected}"
    );
}
