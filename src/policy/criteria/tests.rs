use proptest::prelude::*;

use super::*;

#[test]
fn a_criterion_reads_like_a_sentence() {
    for (text, criterion) in [
        (
            "error_rate > 5%",
            Criterion::beyond(Metric::ErrorRate, 0.05),
        ),
        (
            "error_rate>0.5%",
            Criterion::beyond(Metric::ErrorRate, 0.005),
        ),
        ("p95 > 500ms", Criterion::beyond(Metric::Latency(95), 0.5)),
        (
            " p99  >  1.5s ",
            Criterion::beyond(Metric::Latency(99), 1.5),
        ),
        (
            "total_p50 > 2s",
            Criterion::beyond(Metric::TotalLatency(50), 2.0),
        ),
        (
            "availability < 99.9%",
            Criterion::beyond(Metric::Availability, 0.999),
        ),
        (
            "fallback_rate > 10%",
            Criterion::beyond(Metric::FallbackRate, 0.1),
        ),
        (
            "client_error_rate worse than legacy by 25%",
            Criterion::worse_than_legacy(Metric::ClientErrorRate, 0.25),
        ),
        (
            "latency worse than legacy by 10%",
            Criterion::worse_than_legacy(Metric::LatencyProfile, 0.1),
        ),
        (
            "p95 worse than legacy by 150% for 1m then notify",
            Criterion {
                sustained: Duration::from_secs(60),
                action: Action::Notify,
                ..Criterion::worse_than_legacy(Metric::Latency(95), 1.5)
            },
        ),
        (
            "error_rate > 2% then hold",
            Criterion {
                action: Action::Hold,
                ..Criterion::beyond(Metric::ErrorRate, 0.02)
            },
        ),
    ] {
        assert_eq!(text.parse(), Ok(criterion), "{text}");
    }
}

#[test]
fn a_requirement_reads_like_a_sentence() {
    for (text, requirement) in [
        (
            "error_rate < 1%",
            Requirement::within(Metric::ErrorRate, 0.01),
        ),
        ("p95 < 200ms", Requirement::within(Metric::Latency(95), 0.2)),
        (
            "availability > 99.5%",
            Requirement::within(Metric::Availability, 0.995),
        ),
        (
            "error_rate not worse than legacy by 0.5pp",
            Requirement::not_worse_than_legacy(Metric::ErrorRate, 0.005),
        ),
    ] {
        assert_eq!(text.parse(), Ok(requirement), "{text}");
    }
}

#[test]
fn anything_else_is_refused() {
    for text in [
        "",
        "error_rate",
        "error_rate > 5",
        "error_rate > 0%",
        "error_rate > 100%",
        "error_rate < 5%",
        "availability > 99%",
        "p95 > 0s",
        "p95 > 5%",
        "p42 > 1s",
        "p95 500ms",
        "errors > 5%",
        "latency > 1s",
        "error_rate > 5% for ever",
        "error_rate > 5% for 0s",
        "error_rate > 5% then dance",
        "error_rate worse than legacy by 0%",
        "error_rate worse than legacy by 9901%",
        "availability worse than legacy by 10%",
        "error_rate not worse than legacy by 0.5pp",
    ] {
        assert_eq!(text.parse::<Criterion>(), Err(InvalidCriterion), "{text}");
    }
    for text in [
        "error_rate > 1%",
        "error_rate < 1% then hold",
        "availability < 99%",
        "p95 not worse than legacy by 1pp",
        "error_rate not worse than legacy by 0.5%",
        "error_rate worse than legacy by 0.5pp",
        "latency < 1s",
    ] {
        assert_eq!(
            text.parse::<Requirement>(),
            Err(InvalidRequirement),
            "{text}"
        );
    }
}

#[test]
fn what_must_hold_is_the_contrary_of_the_criterion() {
    for (text, promise) in [
        ("error_rate > 5% for 1m then hold", "error_rate <= 5%"),
        ("availability < 99%", "availability >= 99%"),
        ("p95 > 500ms", "p95 <= 500ms"),
        (
            "error_rate worse than legacy by 25%",
            "error_rate at most 1.25 × legacy",
        ),
        ("p50 worse than legacy by 10%", "p50 at most 1.1 × legacy"),
    ] {
        let criterion: Criterion = text.parse().expect("valid");
        assert_eq!(criterion.promise(), promise);
    }
}

#[test]
fn thresholds_are_those_of_criteria_and_requirements_each_once() {
    let criteria = Criteria::default();
    let milliseconds = criteria.latency_thresholds();
    assert_eq!(milliseconds, [500, 200].map(Duration::from_millis));
    let again = Criteria {
        advance: vec![Requirement::within(Metric::Latency(99), 0.5)],
        ..criteria
    };
    assert_eq!(
        again.latency_thresholds(),
        [Duration::from_millis(500)],
        "two quantiles of one threshold are one pair of counters"
    );
}

#[test]
fn several_stages_are_counted_in_one_list_of_distinct_limits() {
    let read = |rollback: &[&str], advance: &[&str]| Criteria {
        rollback: rollback
            .iter()
            .map(|text| text.parse().expect("valid"))
            .collect(),
        advance: advance
            .iter()
            .map(|text| text.parse().expect("valid"))
            .collect(),
        ..Criteria::default()
    };
    let stages = [
        read(&["p95 > 500ms", "total_p99 > 3s"], &["p95 < 200ms"]),
        read(&["p95 > 400ms", "total_p95 > 3s"], &["total_p50 < 1s"]),
        read(&["p99 > 500ms", "error_rate > 5%"], &["p95 < 200ms"]),
    ];
    let counted = LatencyLimits::of(stages.iter());
    assert_eq!(counted.first_byte, [0.5, 0.2, 0.4]);
    assert_eq!(counted.total, [3.0, 1.0]);
    assert_eq!(
        LatencyLimits::of(stages[..1].iter()),
        stages[0].latency_limits()
    );

    let stage = Criteria {
        counted: Some(counted),
        ..stages[1].clone()
    };
    let milliseconds = |limits: &[u64]| -> Vec<Duration> {
        let limits = limits.iter().copied();
        limits.map(Duration::from_millis).collect()
    };
    assert_eq!(stage.latency_thresholds(), milliseconds(&[500, 200, 400]));
    assert_eq!(stage.total_thresholds(), milliseconds(&[3_000, 1_000]));
}

fn any_metric() -> impl Strategy<Value = Metric> {
    prop_oneof![
        Just(Metric::ErrorRate),
        Just(Metric::ClientErrorRate),
        Just(Metric::Availability),
        Just(Metric::FallbackRate),
        prop::sample::select(&Metric::QUANTILES[..]).prop_map(Metric::Latency),
        prop::sample::select(&Metric::QUANTILES[..]).prop_map(Metric::TotalLatency),
    ]
}

proptest! {
    #[test]
    fn reads_what_it_prints(
        metric in any_metric(),
        basis_points in 1_u32..10_000,
        microseconds in 1_u64..86_400_000_000,
        seconds in 0_u64..10_000,
        action in prop::sample::select(vec![Action::Rollback, Action::Hold, Action::Notify]),
        compares in any::<bool>(),
    ) {
        let ratio = f64::from(basis_points) / 10_000.0;
        let limit = if metric.is_latency() {
            Duration::from_micros(microseconds).as_secs_f64()
        } else {
            ratio
        };
        let comparable = !matches!(metric, Metric::Availability | Metric::FallbackRate);
        let criterion = Criterion {
            metric,
            harm: if compares && comparable {
                Harm::WorseThanLegacy(ratio)
            } else {
                Harm::Beyond(limit)
            },
            sustained: Duration::from_secs(seconds),
            action,
        };
        prop_assert_eq!(criterion.to_string().parse(), Ok(criterion));
        let requirement = if compares && comparable && !metric.is_latency() {
            Requirement::not_worse_than_legacy(metric, ratio)
        } else {
            Requirement::within(metric, limit)
        };
        prop_assert_eq!(requirement.to_string().parse(), Ok(requirement));
    }
}
