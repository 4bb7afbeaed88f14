use std::time::Duration;

use super::*;
use crate::config::model::{ClientTls, Ejection, PoolLimits, Protocol, Timeouts};

const START: Elapsed = Elapsed::from_milliseconds(0);

fn settings(endpoints: &[&str]) -> model::Backend {
    model::Backend {
        name: "api".to_owned(),
        endpoints: endpoints.iter().map(ToString::to_string).collect(),
        balance: Balance::LeastPending,
        protocol: Protocol::Http1,
        tls: None,
        timeouts: Timeouts {
            connect: Duration::from_secs(1),
            first_byte: None,
            body_idle: Duration::from_secs(60),
            upgrade_idle: Duration::from_secs(3600),
            total: None,
        },
        pool: PoolLimits {
            max_connections: 1_024,
            max_idle: 128,
            idle_timeout: Duration::from_secs(4),
            max_lifetime: Duration::from_secs(300),
            warm: 0,
        },
        health_check: None,
        ejection: Some(Ejection {
            consecutive_failures: 3,
            duration: Duration::from_secs(10),
        }),
    }
}

fn backend(endpoints: &[&str]) -> Backend {
    Backend::new(settings(endpoints), None).unwrap()
}

fn fail(backend: &Backend, index: usize, now: Elapsed) {
    for _ in 0..3 {
        backend.report(index, false, now);
    }
}

fn at(seconds: u64) -> Elapsed {
    Elapsed::from_milliseconds(seconds * 1_000)
}

#[test]
fn the_least_busy_endpoint_takes_the_next_request() {
    let backend = backend(&["a:1", "b:1", "c:1"]);
    let _on_a = backend.endpoints[0].begin();
    let _on_c = backend.endpoints[2].begin();
    assert_eq!(backend.pick(START, None), Some(1));
}

#[test]
fn equally_busy_endpoints_take_turns() {
    let backend = backend(&["a:1", "b:1", "c:1"]);
    let picked: Vec<_> = (0..6).map(|_| backend.pick(START, None)).collect();
    assert_eq!(picked, [0, 1, 2, 0, 1, 2].map(Some));
}

#[test]
fn turns_stay_even_when_one_is_out() {
    let backend = backend(&["a:1", "b:1", "c:1"]);
    backend.endpoints[1].set_passes_checks(false);
    let picked: Vec<_> = (0..4).map(|_| backend.pick(START, None)).collect();
    assert_eq!(picked, [0, 2, 0, 2].map(Some));
}

#[test]
fn round_robin_ignores_how_busy_they_are() {
    let settings = model::Backend {
        balance: Balance::RoundRobin,
        ..settings(&["a:1", "b:1"])
    };
    let backend = Backend::new(settings, None).unwrap();
    let _on_a = backend.endpoints[0].begin();
    let picked: Vec<_> = (0..4).map(|_| backend.pick(START, None)).collect();
    assert_eq!(picked, [0, 1, 0, 1].map(Some));
}

#[test]
fn the_endpoint_that_just_failed_is_not_picked_again() {
    let two = backend(&["a:1", "b:1"]);
    assert_eq!(two.pick(START, Some(0)), Some(1));
    assert_eq!(backend(&["a:1"]).pick(START, Some(0)), None);
}

#[test]
fn nobody_is_picked_when_nobody_is_available() {
    for addresses in [&["a:1"][..], &["a:1", "b:1"]] {
        let backend = backend(addresses);
        for endpoint in &backend.endpoints {
            endpoint.set_passes_checks(false);
        }
        assert_eq!(backend.pick(START, None), None);
        assert!(!backend.has_available(START));
    }
}

#[test]
fn failures_in_a_row_eject_and_time_readmits() {
    let backend = backend(&["a:1", "b:1"]);
    backend.report(0, false, START);
    backend.report(0, false, START);
    backend.report(0, true, START);
    backend.report(0, false, START);
    backend.report(0, false, START);
    assert!(backend.endpoints[0].is_available(START), "not in a row");
    backend.report(0, false, START);
    assert_eq!(backend.endpoints[0].health(START).as_str(), "ejected");
    assert_eq!(backend.pick(at(9), None), Some(1));
    assert!(backend.endpoints[0].is_available(at(10)));
}

#[test]
fn the_last_available_endpoint_is_never_ejected() {
    let backend = backend(&["a:1", "b:1"]);
    fail(&backend, 0, START);
    fail(&backend, 1, START);
    assert_eq!(backend.pick(START, None), Some(1));
}

#[test]
fn threads_that_blame_everyone_leave_one_endpoint() {
    for _ in 0..50 {
        let backend = backend(&["a:1", "b:1", "c:1", "d:1"]);
        std::thread::scope(|scope| {
            for index in 0..4 {
                let backend = &backend;
                scope.spawn(move || fail(backend, index, START));
            }
        });
        assert!(backend.has_available(START));
    }
}

#[test]
fn each_ejection_in_a_row_is_longer_up_to_ten_times() {
    let backend = backend(&["a:1", "b:1"]);
    let mut now = START;
    for times in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10] {
        fail(&backend, 0, now);
        let back = now.plus(Duration::from_secs(10 * times));
        let just_before = Elapsed::from_milliseconds(back.milliseconds() - 1);
        assert!(!backend.endpoints[0].is_available(just_before), "{times}");
        assert!(backend.endpoints[0].is_available(back), "{times}");
        now = back;
    }
}

#[test]
fn a_success_after_the_return_ends_the_row_and_one_before_does_not() {
    let backend = backend(&["a:1", "b:1"]);
    fail(&backend, 0, START);
    backend.report(0, true, at(5));
    fail(&backend, 0, at(10));
    assert!(
        !backend.endpoints[0].is_available(at(29)),
        "second in a row"
    );
    backend.report(0, true, at(30));
    fail(&backend, 0, at(30));
    assert!(backend.endpoints[0].is_available(at(40)), "first again");
}

#[test]
fn stragglers_do_not_prolong_an_ejection() {
    let backend = backend(&["a:1", "b:1"]);
    fail(&backend, 0, START);
    fail(&backend, 0, at(9));
    assert!(backend.endpoints[0].is_available(at(10)));
}

#[test]
fn endpoints_that_stay_survive_a_reload_by_identity() {
    let before = backend(&["a:1", "b:1"]);
    let after = Backend::new(settings(&["b:1", "c:1"]), Some(&before)).unwrap();
    assert!(Arc::ptr_eq(&before.endpoints[1], &after.endpoints[0]));
    assert!(before.endpoint("c:1").is_none());
}

#[test]
fn endpoints_are_new_when_tls_changes() {
    let before = backend(&["a:1"]);
    let roots = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
    let changed = model::Backend {
        tls: Some(ClientTls {
            roots_pem: Some(roots.cert.pem().into_bytes()),
            server_name: None,
        }),
        ..settings(&["a:1"])
    };
    let after = Backend::new(changed, Some(&before)).unwrap();
    assert!(!Arc::ptr_eq(&before.endpoints[0], &after.endpoints[0]));
}

#[test]
fn an_error_names_the_backend() {
    let error = Backend::new(settings(&["nonsense"]), None).unwrap_err();
    let sentence = error.to_string();
    assert!(
        sentence.contains("`api`") && sentence.contains("`nonsense`"),
        "{sentence}"
    );
}
