//! Limits of several stages, counted in one list.

use super::*;
use crate::policy::criteria::{LatencyLimits, Requirement};

/// Criteria of one stage among others: `counted` comes before its own.
fn stage(criterion: &str, counted: Option<LatencyLimits>) -> Criteria {
    Criteria {
        rollback: vec![criterion.parse().expect("a criterion")],
        advance: vec![Requirement::within(Metric::ErrorRate, 0.01)],
        counted,
        ..Criteria::default()
    }
}

fn spread(n: u64, e: u64) -> Clustered {
    let mut counts = Clustered::default();
    for request in 0..n {
        counts.count(request as usize % 64, pair(1, u64::from(request < e)));
    }
    counts
}

/// A second in which so many of 100 requests to each arm were slower than each limit.
fn slow(first_byte: &[u64], total: &[u64]) -> Window {
    let each = |slow: &[u64]| slow.iter().map(|slow| spread(100, *slow)).collect();
    let new = ArmCounts {
        errors: spread(100, 0),
        latency: each(first_byte),
        total_latency: each(total),
        ..ArmCounts::default()
    };
    Window {
        seconds: 1.0,
        legacy: ArmCounts {
            errors: spread(100, 0),
            latency: vec![spread(100, 0); first_byte.len()],
            total_latency: vec![spread(100, 0); total.len()],
            ..ArmCounts::default()
        },
        new,
        slower: None,
        streak: StreakReading::default(),
        legacy_available: true,
        new_available: true,
    }
}

fn is_rolled_back(criteria: Criteria, window: &Window) -> bool {
    let mut judge = Judge::new(criteria, at(0));
    (1..=60).any(|second| matches!(judge.observe(window, at(second * 1_000)), Verdict::Fail(_)))
}

#[test]
fn a_limit_is_found_at_its_place_among_those_of_all_stages() {
    let counted = LatencyLimits {
        first_byte: vec![0.5, 0.2],
        total: vec![3.0, 2.0],
    };
    let slow_for_others = slow(&[100, 0], &[100, 0]);
    let slow_for_this = slow(&[0, 100], &[0, 100]);
    for own in ["p95 > 200ms", "total_p95 > 2s"] {
        let criteria = stage(own, Some(counted.clone()));
        assert!(!is_rolled_back(criteria.clone(), &slow_for_others), "{own}");
        assert!(is_rolled_back(criteria, &slow_for_this), "{own}");
        let alone = stage(own, None);
        assert!(is_rolled_back(alone, &slow_for_others), "{own}: the first");
    }
}

#[test]
fn the_two_measures_of_latency_are_not_mixed_up() {
    let bodies = slow(&[0], &[100]);
    assert!(is_rolled_back(stage("total_p95 > 500ms", None), &bodies));
    assert!(!is_rolled_back(stage("p95 > 500ms", None), &bodies));
}

#[test]
fn a_limit_that_is_not_counted_lacks_traffic_and_proves_nothing() {
    let nothing = Some(LatencyLimits::default());
    let mut judge = Judge::new(stage("p95 > 500ms", nothing), at(0));
    let verdict = judge.observe(&slow(&[100], &[]), at(1_000));
    assert_eq!(verdict, Verdict::Inconclusive(Lack::Traffic));
}

#[test]
fn counting_more_than_before_changes_no_evidence() {
    let before = stage("p95 > 500ms", None);
    let mut judge = Judge::new(before.clone(), at(0));
    for second in 1..=30 {
        judge.observe(&slow(&[6], &[]), at(second * 1_000));
    }
    let (conditions, needs) = (judge.conditions(), judge.needs());
    let counted = LatencyLimits {
        first_byte: vec![0.2, 0.5],
        total: vec![2.0],
    };
    let after = Criteria {
        counted: Some(counted),
        ..before
    };
    judge.reconfigure(after, at(30_000));
    assert_eq!(judge.conditions(), conditions);
    assert_eq!(judge.needs(), needs);
    judge.observe(&slow(&[0, 100], &[0]), at(31_000));
    let slower = judge.conditions()[0].evidence > conditions[0].evidence;
    assert!(slower, "and the limit's new place is known");
}

/// Otherwise a stage's first failures would count as so many witnesses, for want of an estimate.
#[test]
fn the_bunches_of_a_later_stage_are_learnt_before_it_begins() {
    let counted = LatencyLimits {
        first_byte: vec![0.5, 0.2],
        total: Vec::new(),
    };
    let mut judge = Judge::new(stage("p95 > 500ms", Some(counted.clone())), at(0));
    let mut bunched = slow(&[0, 0], &[]);
    let counts = &mut bunched.legacy.latency[1];
    for cluster in 0..4 {
        let slow = counts.clusters[cluster].n;
        counts.count(cluster, pair(0, slow));
    }
    for second in 1..=60 {
        judge.observe(&bunched, at(second * 1_000));
    }
    judge.reconfigure(stage("p95 > 200ms", Some(counted)), at(60_000));
    let known = judge.conditions()[0].overdispersion;
    assert!(known > 5.0, "sessions are slow as a whole: {known}");
}
