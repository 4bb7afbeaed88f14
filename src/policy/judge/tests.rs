//! The judge against the reference numbers, and against traffic.

use super::detector::{Detector, Prior, Step};
use super::kernels::{self, ALTERNATIVES, BreachKernel, Contrast};
use super::replay::{Ending, File};
use super::vectors::{REFERENCE, assert_close, assert_near, integer, load, number, numbers};
use super::window::{ArmCounts, Clustered, Pair, StreakReading};
use super::*;
use crate::policy::criteria::{Overdispersion, WhenLegacyToo};

mod comparing;
mod counting;
mod replaying;
mod traffic;

fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_milliseconds(milliseconds)
}

fn pair(n: u64, e: u64) -> Pair {
    Pair { n, e }
}

fn assert_worked(factors: &[f64], expected: &[f64]) {
    assert_eq!(factors.len(), expected.len());
    for (factor, expected) in factors.iter().zip(expected) {
        assert!((factor - expected).abs() < 5e-7, "{factor} {expected}");
    }
}

#[test]
fn the_worked_values_of_the_kernels_hold() {
    assert_worked(
        &BreachKernel::harm(0.05).log_factors(pair(20, 4)),
        &[
            1.128_008,
            2.031_228,
            2.749_939,
            2.315_674,
            -1.373_658,
            -11.096_933,
            -32.574_047,
        ],
    );
    assert_worked(
        &kernels::GoodKernel::health(0.01).log_factors(pair(300, 0)),
        &[2.954_501, 2.107_384, 0.901_353],
    );
    let counts = |new, legacy| Contrast { new, legacy };
    assert_worked(
        &kernels::worse(1.25, 0.001, counts(pair(10, 2), pair(90, 0))),
        &[
            0.692_587, 1.338_384, 2.150_568, 2.930_898, 3.618_696, 4.067_048, 4.298_573,
        ],
    );
    assert_worked(
        &kernels::worse(1.0, 0.05, counts(pair(100, 12), pair(900, 45))),
        &[
            2.117_043,
            3.193_069,
            2.420_294,
            -3.115_838,
            -21.086_078,
            -65.395_141,
            -173.989_588,
        ],
    );
    assert_worked(
        &kernels::not_worse(0.005, 0.001, counts(pair(600, 1), pair(5_400, 5))),
        &[1.161_988, 0.765_859, 1.154_735],
    );
}

fn prior() -> Prior {
    Prior::of_harm(&Criteria::default().expert)
}

/// A second's step without tempering.
fn second() -> Step {
    Step {
        prior: prior(),
        phi: 1.0,
        clip: f64::INFINITY,
        seconds: 1.0,
        begin: at(0),
    }
}

/// Evidence after each of these one-second windows, with the limit 5 % and no dispersion.
fn evidence_after(windows: &[(u64, u64)]) -> Vec<f64> {
    let kernel = BreachKernel::harm(0.05);
    let mut detector = Detector::new(ALTERNATIVES, prior(), at(0));
    let evidence = windows.iter().map(|(n, e)| {
        detector.step(&kernel.log_factors(pair(*n, *e)), second());
        detector.evidence()
    });
    evidence.collect()
}

#[test]
fn the_detectors_worked_values_hold() {
    let evidence = evidence_after(&[(5, 0), (20, 4), (1, 1)]);
    for (actual, expected) in evidence.iter().zip([0.169934883, 1.314746588, 4.032317539]) {
        assert_close(*actual, expected, 1e-8);
    }
    let evidence = evidence_after(&[(1, 1), (1, 1), (1, 1)]);
    for (actual, expected) in evidence.iter().zip([4.0886, 53.11, 821.47]) {
        assert_close(*actual, expected, 1e-4);
    }
}

#[test]
fn detectors_match_the_reference_in_evidence_and_in_suspected_start() {
    for vector in load().of("detector_breach") {
        let kernel = BreachKernel::harm(number(&vector["theta"]));
        let mut detector = Detector::new(ALTERNATIVES, prior(), at(0));
        let mut starts = [0; ALTERNATIVES];
        for (index, step) in vector["steps"]
            .as_array()
            .expect("a list")
            .iter()
            .enumerate()
        {
            let factors = kernel.log_factors(pair(integer(&step["n"]), integer(&step["e"])));
            let restarts = detector.step(&factors, second());
            for (k, start) in starts.iter_mut().enumerate() {
                if restarts.contains(k) {
                    *start = index as u64;
                }
            }
            assert_close(detector.evidence(), number(&step["E"]), 1e-6);
            let expected = step["start"].as_array().expect("a list").iter();
            assert!(expected.map(integer).eq(starts), "{step}");
        }
    }
}

/// The whole file through the very code that `cutover judge` and the live judge run.
#[test]
fn every_function_of_the_reference_returns_what_it_should() {
    let outcome = File::parse(REFERENCE)
        .expect("valid")
        .judge()
        .expect("valid");
    let vectors = load();
    assert_eq!(outcome.kernels.len(), vectors.kernels.len());
    for (found, vector) in outcome.kernels.iter().zip(&vectors.kernels) {
        if vector["fn"] == "detector_breach" {
            let steps = vector["steps"].as_array().expect("a list");
            assert_eq!(found.len(), steps.len());
            for (found, step) in found.iter().zip(steps) {
                assert_close(*found, number(&step["E"]), 1e-6);
            }
        } else {
            let expected = numbers(&vector["out"]);
            assert_eq!(found.len(), expected.len(), "{vector}");
            for (found, expected) in found.iter().zip(expected) {
                assert_near(*found, expected, 1e-9);
            }
        }
    }
}

#[test]
fn every_trace_of_the_reference_ends_as_it_should() {
    let outcome = File::parse(REFERENCE)
        .expect("valid")
        .judge()
        .expect("valid");
    let vectors = load();
    assert_eq!(outcome.traces.len(), vectors.traces.len());
    assert_eq!(vectors.traces.len(), 7);
    for (ending, trace) in outcome.traces.iter().zip(&vectors.traces) {
        assert_samples(ending, &trace.samples);
        let expected = &trace.expected;
        let name = &trace.name;
        assert_eq!(ending.rollback, expected["rollback"], "{name}");
        assert_window(ending.rollback_window, &expected["rollback_window"], name);
        assert_window(ending.first_advance, &expected["first_advance"], name);
        let reason = expected["condition"].as_str();
        assert_eq!(ending.condition.as_deref(), reason, "{name}");
    }
}

fn assert_samples(ending: &Ending, expected: &[vectors::Sample]) {
    assert_eq!(ending.samples.len(), expected.len(), "{}", ending.name);
    for (found, expected) in ending.samples.iter().zip(expected) {
        assert_eq!(found.window, expected.window);
        for (found, expected) in [
            (&found.evidence, &expected.evidence),
            (&found.good, &expected.good),
        ] {
            let expected = expected.as_object().expect("evidence by name");
            assert!(found.keys().eq(expected.keys()), "{found:?}");
            for (name, evidence) in expected {
                assert_close(number(&found[name]), number(evidence), 1e-6);
            }
        }
    }
}

fn assert_window(found: Option<usize>, expected: &serde_json::Value, name: &str) {
    match (found, expected.as_u64()) {
        (Some(found), Some(expected)) => {
            assert!(found.abs_diff(expected as usize) <= 1, "{name}: {found}");
        }
        (found, expected) => assert_eq!(found, expected.map(|window| window as usize), "{name}"),
    }
}
