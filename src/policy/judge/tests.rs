//! The judge against the reference numbers, and against traffic.

use super::detector::Detector;
use super::kernels::{ALTERNATIVES, BreachKernel};
use super::vectors::{Trace, assert_close, integer, load, number, numbers};
use super::window::{ArmCounts, Clustered, StreakReading};
use super::*;
use crate::policy::criteria::{Overdispersion, WhenLegacyToo};

mod traffic;

fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_milliseconds(milliseconds)
}

fn pair(n: u64, e: u64) -> Pair {
    Pair { n, e }
}

#[test]
fn breach_kernels_match_the_reference() {
    for vector in load().of("kernel_breach") {
        let kernel = BreachKernel::new(number(&vector["theta"]));
        let factors = kernel.log_factors(pair(integer(&vector["n"]), integer(&vector["e"])));
        for (factor, expected) in factors.into_iter().zip(numbers(&vector["out"])) {
            let tolerance = 1e-9 * expected.abs().max(1.0);
            assert!((factor - expected).abs() <= tolerance, "{vector}: {factor}");
        }
    }
}

#[test]
fn the_worked_value_of_the_kernel_holds() {
    let factors = BreachKernel::new(0.05).log_factors(pair(20, 4));
    let expected = [
        1.128_008,
        2.031_228,
        2.749_939,
        2.315_674,
        -1.373_658,
        -11.096_933,
        -32.574_047,
    ];
    for (factor, expected) in factors.into_iter().zip(expected) {
        assert!((factor - expected).abs() < 5e-7, "{factor} {expected}");
    }
}

/// Evidence after each of these one-second windows, with the limit 5 % and no dispersion.
fn evidence_after(windows: &[(u64, u64)]) -> Vec<f64> {
    let kernel = BreachKernel::new(0.05);
    let mut detector = Detector::new(at(0));
    let evidence = windows.iter().map(|(n, e)| {
        detector.step(kernel.log_factors(pair(*n, *e)), 1.0, 1.0, at(0));
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
        let kernel = BreachKernel::new(number(&vector["theta"]));
        let phi = number(&vector["phi"]);
        let mut detector = Detector::new(at(0));
        let mut starts = [0; ALTERNATIVES];
        for (index, step) in vector["steps"]
            .as_array()
            .expect("a list")
            .iter()
            .enumerate()
        {
            let factors = kernel.log_factors(pair(integer(&step["n"]), integer(&step["e"])));
            let restarted = detector.step(factors, phi, 1.0, at(0));
            for (start, restarted) in starts.iter_mut().zip(restarted) {
                if restarted {
                    *start = index as u64;
                }
            }
            assert_close(detector.evidence(), number(&step["E"]), 1e-6);
            let expected = step["start"].as_array().expect("a list").iter();
            assert!(expected.map(integer).eq(starts), "{step}");
        }
    }
}

/// Without tempering, and with the number of criteria of the reference (four, of which absolute
/// limits are two) expressed through the budget, so that the threshold is the same.
fn criteria_of_traces() -> Criteria {
    Criteria {
        alpha: 0.005,
        overdispersion: Overdispersion::Fixed(1.0),
        // The traces list clusters without counts.
        max_cluster_share: 1.0,
        ..Criteria::default()
    }
}

fn window_of(trace: &Trace, index: usize) -> Window {
    let mut new = ArmCounts {
        latency: vec![Clustered::default()],
        ..ArmCounts::default()
    };
    let mut legacy = new.clone();
    new.errors.total = pair(trace.count(index, "n_new"), trace.count(index, "err_new"));
    new.latency[0].total = pair(
        trace.count(index, "n_new"),
        trace.count(index, "slow_new_rollback"),
    );
    legacy.errors.total = pair(
        trace.count(index, "n_legacy"),
        trace.count(index, "err_legacy"),
    );
    for cluster in &mut new.errors.clusters {
        cluster.n = 1;
    }
    for cluster in trace.error_clusters(index) {
        new.errors.clusters[cluster].e = 1;
    }
    Window {
        seconds: 1.0,
        new,
        legacy,
        streak: StreakReading::default(),
        legacy_available: true,
    }
}

#[test]
fn traces_give_the_reference_evidence_for_absolute_limits() {
    for trace in load().traces {
        let mut judge = Judge::new(criteria_of_traces(), at(0));
        let mut samples = trace.samples.iter().peekable();
        for index in 0..trace.length() {
            judge.observe(&window_of(&trace, index), at(1_000 * (index as i64 + 1)));
            if let Some(sample) = samples.next_if(|sample| sample.window == index) {
                let conditions = judge.conditions();
                for (condition, name) in conditions.iter().zip(["error_rate", "latency"]) {
                    assert_close(condition.evidence, number(&sample.evidence[name]), 1e-6);
                }
            }
        }
        assert!(samples.next().is_none(), "{}: samples left", trace.name);
    }
}

#[test]
fn traces_roll_back_when_and_only_when_an_absolute_limit_is_the_expected_reason() {
    let mut rolled_back = 0;
    for trace in load().traces {
        let mut judge = Judge::new(criteria_of_traces(), at(0));
        let first_failure = (0..trace.length()).find(|index| {
            let window = window_of(&trace, *index);
            let verdict = judge.observe(&window, at(1_000 * (*index as i64 + 1)));
            matches!(verdict, Verdict::Fail(_))
        });
        let condition = trace.expected["condition"].as_str().unwrap_or_default();
        if ["error_rate", "latency"].contains(&condition) {
            let expected = integer(&trace.expected["rollback_window"]) as usize;
            let actual = first_failure.expect("a rollback");
            assert!(actual.abs_diff(expected) <= 1, "{}: {actual}", trace.name);
            rolled_back += 1;
        } else if trace.expected["rollback"] == false {
            assert_eq!(first_failure, None, "{}", trace.name);
        }
    }
    assert!(rolled_back > 0, "no trace checked");
}
