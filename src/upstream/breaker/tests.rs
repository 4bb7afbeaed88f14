use std::collections::BTreeSet;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::policy::key::Salt;

const OPEN_FOR: u64 = 1_000;

fn breaker(min_bad_clusters: u32) -> Breaker {
    let settings = BreakerSettings {
        consecutive_failures: 5,
        open_for: Duration::from_millis(OPEN_FOR),
    };
    Breaker::new("checkout", settings, min_bad_clusters)
}

fn at(milliseconds: u64) -> Elapsed {
    Elapsed::from_milliseconds(milliseconds)
}

/// The cluster numbered `index`, found by trying keys.
fn cluster(index: usize) -> Option<Cluster> {
    let salt = Salt::new("");
    (0u32..)
        .map(|key| salt.hash(&key.to_le_bytes()).cluster())
        .find(|cluster| cluster.index() == index)
}

fn fail(breaker: &Breaker, clusters: impl IntoIterator<Item = usize>) {
    for index in clusters {
        breaker.failure(Admission::Closed, cluster(index), at(0));
    }
}

fn opened() -> Breaker {
    let breaker = breaker(3);
    fail(&breaker, [1, 2, 3, 1, 2]);
    breaker
}

#[test]
fn five_failures_in_a_row_from_three_clusters_open_it() {
    let breaker = breaker(3);
    fail(&breaker, [1, 2, 3, 1]);
    assert_eq!(breaker.admit(at(0)), Admission::Closed);
    fail(&breaker, [2]);
    assert_eq!(breaker.admit(at(0)), Admission::Open);
    assert_eq!(breaker.state(at(0)), "open");
}

#[test]
fn a_reset_closes_it_and_starts_the_count_over() {
    let breaker = opened();
    breaker.reset();
    assert_eq!(breaker.admit(at(0)), Admission::Closed);
    fail(&breaker, [1, 2, 3, 1]);
    assert_eq!(breaker.state(at(0)), "closed");
    fail(&breaker, [2]);
    assert_eq!(breaker.state(at(0)), "open");
}

#[test]
fn a_success_starts_the_count_over() {
    let breaker = breaker(1);
    fail(&breaker, [1, 2, 3, 4]);
    breaker.success(Admission::Closed, cluster(5));
    fail(&breaker, [1, 2, 3, 4]);
    assert_eq!(breaker.state(at(0)), "closed");
}

#[test]
fn one_poison_client_among_many_never_opens_it() {
    let breaker = breaker(3);
    for index in 0..8 {
        breaker.success(Admission::Closed, cluster(index));
    }
    fail(&breaker, [1; 1_000]);
    assert_eq!(breaker.state(at(0)), "closed");
}

#[test]
fn the_only_client_there_is_opens_it() {
    let breaker = breaker(3);
    breaker.success(Admission::Closed, cluster(7));
    fail(&breaker, [7; 5]);
    assert_eq!(breaker.state(at(0)), "open");
}

#[test]
fn one_request_probes_per_period() {
    let breaker = opened();
    assert_eq!(breaker.admit(at(OPEN_FOR - 1)), Admission::Open);
    assert_eq!(breaker.admit(at(OPEN_FOR)), Admission::Probe);
    assert_eq!(breaker.state(at(OPEN_FOR)), "half_open");
    assert_eq!(breaker.admit(at(OPEN_FOR)), Admission::Open);
    assert_eq!(breaker.admit(at(2 * OPEN_FOR - 1)), Admission::Open);
}

#[test]
fn a_probe_that_succeeds_closes_it() {
    let breaker = opened();
    let probe = breaker.admit(at(OPEN_FOR));
    breaker.success(probe, cluster(1));
    assert_eq!(breaker.admit(at(OPEN_FOR)), Admission::Closed);
    fail(&breaker, [1, 2, 3, 4]);
    assert_eq!(breaker.state(at(OPEN_FOR)), "closed", "failures start over");
}

#[test]
fn a_probe_that_fails_opens_it_for_another_period() {
    let breaker = opened();
    let probe = breaker.admit(at(OPEN_FOR));
    breaker.failure(probe, cluster(1), at(OPEN_FOR + 500));
    assert_eq!(breaker.state(at(OPEN_FOR + 500)), "open");
    assert_eq!(breaker.admit(at(2 * OPEN_FOR + 499)), Admission::Open);
    assert_eq!(breaker.admit(at(2 * OPEN_FOR + 500)), Admission::Probe);
}

#[test]
fn a_probe_that_is_never_heard_of_again_costs_one_period() {
    let breaker = opened();
    assert_eq!(breaker.admit(at(OPEN_FOR)), Admission::Probe);
    assert_eq!(breaker.admit(at(2 * OPEN_FOR)), Admission::Probe);
}

#[test]
fn an_abandoned_probe_neither_opens_nor_closes() {
    let breaker = opened();
    let probe = breaker.admit(at(OPEN_FOR));
    breaker.abandoned(probe);
    assert_eq!(breaker.state(at(OPEN_FOR)), "open");
    assert_eq!(breaker.admit(at(2 * OPEN_FOR)), Admission::Probe);
}

#[test]
fn what_was_admitted_before_it_opened_neither_closes_nor_prolongs_it() {
    let breaker = opened();
    breaker.success(Admission::Closed, cluster(1));
    breaker.failure(Admission::Closed, cluster(1), at(OPEN_FOR - 1));
    assert_eq!(breaker.state(at(OPEN_FOR - 1)), "open");
    assert_eq!(breaker.admit(at(OPEN_FOR)), Admission::Probe);
    breaker.failure(Admission::Closed, cluster(1), at(OPEN_FOR));
    assert_eq!(breaker.state(at(OPEN_FOR)), "half_open");
}

/// What the breaker does, in words rather than bits: the reference for the property below.
#[derive(Default)]
struct Model {
    failing: Vec<Option<usize>>,
    seen: BTreeSet<usize>,
    /// When the next probe may go, and whether one is under way; absent while closed.
    open: Option<(u64, bool)>,
}

impl Model {
    fn admit(&mut self, now: u64) -> Admission {
        match self.open {
            None => Admission::Closed,
            Some((probe, _)) if now < probe => Admission::Open,
            Some(_) => {
                self.open = Some((now + OPEN_FOR, true));
                Admission::Probe
            }
        }
    }

    fn report(&mut self, admission: Admission, report: Report, now: u64) {
        if let Report::Success(Some(cluster)) | Report::Failure(Some(cluster)) = report {
            self.seen.insert(cluster);
        }
        match (admission, report) {
            (Admission::Closed, Report::Success(_)) => self.failing.clear(),
            (Admission::Closed, Report::Failure(cluster)) if self.open.is_none() => {
                self.failing.push(cluster);
                let bad: BTreeSet<_> = self.failing.iter().flatten().collect();
                if self.failing.len() >= 5 && bad.len() >= self.seen.len().min(3) {
                    self.open = Some((now + OPEN_FOR, false));
                }
            }
            (Admission::Probe, Report::Success(_)) => {
                self.failing.clear();
                self.open = None;
            }
            (Admission::Probe, Report::Failure(_)) if self.open.is_some() => {
                self.open = Some((now + OPEN_FOR, false));
            }
            (Admission::Probe, Report::Abandoned) => {
                self.open = self.open.map(|(probe, _)| (probe, false));
            }
            _ => {}
        }
    }

    fn state(&self, now: u64) -> &'static str {
        match self.open {
            None => "closed",
            Some((probe, probing)) if probing || now >= probe => "half_open",
            Some(_) => "open",
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Report {
    Success(Option<usize>),
    Failure(Option<usize>),
    Abandoned,
}

/// A step: time passes, a request asks, and one of those under way reports.
#[derive(Clone, Copy, Debug)]
struct Step {
    passes: u64,
    asks: bool,
    reports: Option<(prop::sample::Index, Report)>,
}

fn step() -> impl Strategy<Value = Step> {
    let caller = prop::option::weighted(0.9, 0usize..4);
    let report = prop_oneof![
        1 => caller.clone().prop_map(Report::Success),
        6 => caller.prop_map(Report::Failure),
        1 => Just(Report::Abandoned),
    ];
    let reports = prop::option::weighted(0.7, (any::<prop::sample::Index>(), report));
    (0u64..400, prop::bool::weighted(0.8), reports).prop_map(|(passes, asks, reports)| Step {
        passes,
        asks,
        reports,
    })
}

proptest! {
    #[test]
    fn it_does_what_its_model_does(steps in prop::collection::vec(step(), 1..200)) {
        let breaker = breaker(3);
        let clusters: Vec<_> = (0..4).map(cluster).collect();
        let mut model = Model::default();
        let mut under_way = Vec::new();
        let mut now = 0;
        for step in steps {
            now += step.passes;
            if step.asks {
                let admission = breaker.admit(at(now));
                prop_assert_eq!(admission, model.admit(now));
                if admission != Admission::Open {
                    under_way.push(admission);
                }
            }
            if let Some((index, report)) = step.reports.filter(|_| !under_way.is_empty()) {
                let admission = under_way.swap_remove(index.index(under_way.len()));
                let named = |caller: Option<usize>| caller.and_then(|index| clusters[index]);
                match report {
                    Report::Success(caller) => breaker.success(admission, named(caller)),
                    Report::Failure(caller) => breaker.failure(admission, named(caller), at(now)),
                    Report::Abandoned => breaker.abandoned(admission),
                }
                model.report(admission, report, now);
            }
            prop_assert_eq!(breaker.state(at(now)), model.state(now));
        }
    }
}

#[test]
fn of_many_threads_one_gets_to_probe() {
    for _ in 0..200 {
        let breaker = opened();
        let probes = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    if breaker.admit(at(OPEN_FOR)) == Admission::Probe {
                        probes.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(probes.into_inner(), 1);
    }
}

#[test]
fn whatever_threads_do_it_can_still_open_and_close() {
    let breaker = breaker(3);
    let clusters: Vec<_> = (0..4).map(cluster).collect();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (breaker, clusters) = (&breaker, &clusters);
            scope.spawn(move || {
                for turn in 0..5_000u64 {
                    let admission = breaker.admit(at(turn));
                    match (turn + thread) % 7 {
                        0 => breaker.success(admission, clusters[0]),
                        1 => breaker.abandoned(admission),
                        caller => {
                            let cluster = clusters[caller as usize % 4];
                            breaker.failure(admission, cluster, at(turn));
                        }
                    }
                }
            });
        }
    });
    let probe = breaker.admit(at(100_000));
    breaker.success(probe, clusters[0]);
    assert_eq!(breaker.state(at(100_000)), "closed");
    for cluster in [0, 1, 2, 3, 0] {
        breaker.failure(Admission::Closed, clusters[cluster], at(100_000));
    }
    assert_eq!(breaker.state(at(100_000)), "open");
}
