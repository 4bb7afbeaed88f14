use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::telemetry::fixture::cluster;

const WORKER: WorkerId = WorkerId(0);
const THRESHOLD: Duration = Duration::from_millis(200);

fn tally() -> SplitTally {
    SplitTally::new(1, on_first_byte(&[THRESHOLD]))
}

fn on_first_byte(limits: &[Duration]) -> Thresholds {
    Thresholds {
        first_byte: limits.to_vec(),
        total: Vec::new(),
    }
}

#[test]
fn outcomes_are_counted_by_arm_and_cluster() {
    let tally = tally();
    let new = tally.arm(WORKER, Arm::New);
    new.book(Class::Success, Some(cluster(3)));
    new.book(Class::ClientError, Some(cluster(3)));
    new.book(Class::ServerError, Some(cluster(9)));

    let evidence = tally.reading().evidence;
    assert_eq!(evidence.new.errors.total, Pair { n: 3, e: 1 });
    assert_eq!(evidence.new.errors.clusters[3], Pair { n: 2, e: 0 });
    assert_eq!(evidence.new.errors.clusters[9], Pair { n: 1, e: 1 });
    assert_eq!(evidence.new.client_errors.total.e, 1);
    assert_eq!(evidence.legacy.errors, Clustered::default());
}

/// The judge leaves a split alone as long as this stays the same.
#[test]
fn everything_that_is_booked_changes_what_is_told_of_changes() {
    type Booking = fn(&SplitTally);
    let bookings: [Booking; 14] = [
        |it| it.arm(WORKER, Arm::New).book(Class::Success, None),
        |it| it.arm(WORKER, Arm::Legacy).book(Class::Success, None),
        |it| it.arm(WORKER, Arm::New).book_late_truncation(None),
        |it| {
            let arm = it.arm(WORKER, Arm::New);
            arm.latency(Measure::FirstByte, 0, true, Some(cluster(1)));
        },
        |it| it.arm(WORKER, Arm::New).first_byte(THRESHOLD),
        |it| it.arm(WORKER, Arm::New).total(THRESHOLD),
        |it| it.rescued(WORKER, Failure::Connect, None),
        |it| it.rescue_failed(WORKER, Failure::Connect),
        |it| it.rescue_cancelled(WORKER, Failure::Connect),
        |it| it.not_replayed(WORKER, Refusal::Method),
        |it| it.diverted(WORKER, Diversion::Breaker, None),
        |it| it.fallback_mismatch(WORKER),
        |it| it.unverifiable_token(WORKER),
        |it| it.streak().failure(cluster(1)),
    ];
    let tally = tally();
    assert_eq!(tally.changes(), 0, "no worker has a shard");
    for book in bookings {
        let before = tally.changes();
        assert_eq!(tally.changes(), before, "looking changes nothing");
        book(&tally);
        assert_ne!(tally.changes(), before);
    }
    let before = tally.changes();
    tally.streak().success();
    assert_ne!(tally.changes(), before, "a streak has ended");
    let before = tally.changes();
    tally.streak().success();
    assert_eq!(tally.changes(), before, "there was none to end");
}

#[test]
fn every_class_that_is_an_error_is_counted_as_one() {
    for class in Class::ALL {
        let tally = tally();
        tally.arm(WORKER, Arm::New).book(class, Some(cluster(0)));
        let total = tally.reading().evidence.new.errors.total;
        assert_eq!(total.n, u64::from(class != Class::Cancelled), "{class:?}");
        assert_eq!(total.e, u64::from(class.is_error()), "{class:?}");
    }
}

#[test]
fn a_client_that_went_away_is_shown_but_no_decided_request() {
    let tally = tally();
    tally
        .arm(WORKER, Arm::New)
        .book(Class::Cancelled, Some(cluster(0)));

    let reading = tally.reading();
    assert_eq!(reading.evidence.new.errors, Clustered::default());
    assert_eq!(
        reading.figures.new.classes[Class::Cancelled.index()],
        1,
        "the figures show it"
    );
}

#[test]
fn overridden_requests_are_shown_apart_and_are_no_evidence() {
    let tally = tally();
    let new = tally.arm(WORKER, Arm::New);
    new.book(Class::ServerError, None);
    new.book_late_truncation(None);
    new.latency(Measure::FirstByte, 0, true, None);
    tally.diverted(WORKER, Diversion::Breaker, None);

    let reading = tally.reading();
    assert_eq!(reading.evidence.new.errors, Clustered::default());
    assert_eq!(reading.evidence.new.latency, [Clustered::default()]);
    assert_eq!(reading.figures.new.classes, [0; CLASSES]);
    let overridden = reading.figures.new.overridden;
    assert_eq!(overridden[Class::ServerError.index()], 1);
    assert_eq!(overridden[Class::Transport.index()], 1);
    assert_eq!(reading.diverted, [0; DIVERSIONS]);
    assert_eq!(reading.diverted_overridden, [1, 0, 0, 0]);
}

#[test]
fn a_late_truncation_adds_one_request_and_one_error() {
    let tally = tally();
    let new = tally.arm(WORKER, Arm::New);
    new.book(Class::Success, Some(cluster(7)));
    new.book_late_truncation(Some(cluster(7)));

    let errors = tally.reading().evidence.new.errors;
    assert_eq!(errors.total, Pair { n: 2, e: 1 });
    assert_eq!(errors.clusters[7], Pair { n: 2, e: 1 });
}

#[test]
fn latency_pairs_are_counted_for_each_threshold_in_their_order() {
    let thresholds = Thresholds {
        first_byte: vec![THRESHOLD, 2 * THRESHOLD],
        total: vec![3 * THRESHOLD],
    };
    let tally = SplitTally::new(1, thresholds);
    let legacy = tally.arm(WORKER, Arm::Legacy);
    legacy.latency(Measure::FirstByte, 0, true, Some(cluster(1)));
    legacy.latency(Measure::FirstByte, 1, false, Some(cluster(1)));
    legacy.latency(Measure::Total, 0, false, Some(cluster(2)));
    legacy.latency(Measure::Total, 0, true, Some(cluster(3)));

    let counts = tally.reading().evidence.legacy;
    assert_eq!(counts.total_latency.len(), 1);
    assert_eq!(counts.total_latency[0].total, Pair { n: 2, e: 1 });
    assert_eq!(counts.total_latency[0].clusters[3], Pair { n: 1, e: 1 });
    let latency = counts.latency;
    assert_eq!(latency.len(), 2);
    assert_eq!(latency[0].total, Pair { n: 1, e: 1 });
    assert_eq!(latency[1].total, Pair { n: 1, e: 0 });
    assert_eq!(latency[1].clusters[1], Pair { n: 1, e: 0 });
}

#[test]
fn fallbacks_are_counted_by_reason() {
    let tally = tally();
    tally.rescued(WORKER, Failure::Reset, Some(cluster(0)));
    tally.rescue_failed(WORKER, Failure::Status(503));
    tally.not_replayed(WORKER, Refusal::Budget);
    tally.diverted(WORKER, Diversion::PoolFull, Some(cluster(0)));
    tally.fallback_mismatch(WORKER);
    tally.unverifiable_token(WORKER);

    let reading = tally.reading();
    assert_eq!(reading.rescued[Failure::Reset.index()], 1);
    assert_eq!(reading.rescue_failed[Failure::Status(500).index()], 1);
    assert_eq!(reading.not_replayed[Refusal::Budget.index()], 1);
    assert_eq!(reading.diverted[Diversion::PoolFull.index()], 1);
    assert_eq!(reading.fallback_mismatches, 1);
    assert_eq!(reading.unverifiable_tokens, 1);
}

#[test]
fn attempts_are_counted_by_result() {
    let tally = AttemptTally::new(2);
    tally.attempt(WorkerId(0), Ok(()));
    tally.attempt(WorkerId(1), Ok(()));
    tally.attempt(WorkerId(1), Err(Failure::Connect));
    tally.retried(WorkerId(1));
    tally.connection_opened(WorkerId(0));
    tally.connection_reused(WorkerId(1));

    let mut expected = AttemptReading {
        succeeded: 2,
        retried: 1,
        connections_opened: 1,
        connections_reused: 1,
        ..AttemptReading::default()
    };
    expected.failed[Failure::Connect.index()] = 1;
    assert_eq!(tally.reading(), expected);
}

/// Readings are taken while workers write. Whatever moment they hit, a window between two of them
/// must be possible: no more errors than requests, no cluster beyond the total. Counting requests
/// and errors in counters of their own fails this within milliseconds.
#[test]
fn a_window_between_readings_is_consistent_while_workers_write_and_nothing_is_lost() {
    const WORKERS: usize = 4;
    const ROUNDS: u64 = 100_000;
    let tally = SplitTally::new(WORKERS, on_first_byte(&[THRESHOLD]));
    let finished = AtomicBool::new(false);

    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let arm = tally.arm(WorkerId(worker), Arm::New);
                let cluster = Some(cluster(worker));
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        // Only errors, so that `n` and `e` change together.
                        arm.book(Class::Transport, cluster);
                        arm.latency(Measure::FirstByte, 0, round % 2 == 0, cluster);
                        arm.first_byte(Duration::from_millis(round % 10));
                    }
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            let mut earlier = tally.reading();
            while !finished.load(Ordering::Relaxed) {
                let now = tally.reading();
                let window = now.evidence.new.since(&earlier.evidence.new);
                for counts in std::iter::once(&window.errors).chain(&window.latency) {
                    assert!(counts.total.e <= counts.total.n);
                    assert!(counts.clusters.iter().all(|pair| pair.e <= pair.n));
                    let sum: u64 = counts.clusters.iter().map(|pair| pair.n).sum();
                    assert_eq!(counts.total.n, sum);
                }
                assert_eq!(window.errors.total.e, window.errors.total.n);
                earlier = now;
            }
        });
        for worker in workers {
            worker.join().expect("a worker only counts");
        }
        finished.store(true, Ordering::Relaxed);
        reader.join().expect("every window was consistent");
    });

    let all = ROUNDS * WORKERS as u64;
    let reading = tally.reading();
    assert_eq!(
        reading.evidence.new.errors.total,
        Pair { n: all, e: all },
        "no increment was lost"
    );
    assert_eq!(
        reading.evidence.new.latency[0].total,
        Pair { n: all, e: all / 2 }
    );
    assert_eq!(reading.figures.new.first_byte.count(), all);
}
