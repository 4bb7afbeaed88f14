//! Servers that close what they keep alive at the very moment of its reuse, thousands of times.
//!
//! Nobody can tell a connection that was closed a moment ago from one that is open; only what is sent
//! down it will. A request that may be repeated is, and its client must not notice; one that may not
//! must never be run twice, and fails only if it was sent.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::faults::{Seen, see};
use crate::harness::client::{Client, request};
use crate::harness::proxy::Site;
use crate::harness::unjudged;
use crate::harness::upstream::{Received, Refusing, Script, Step, Upstream};

const CLIENTS: usize = 8;
const REQUESTS_OF_EACH: usize = 500;

/// A server that answers the first request of each connection, and after each answer decides anew
/// how the connection is to end, if at all.
fn fickle(name: &str) -> Upstream {
    let known = Mutex::new(HashSet::new());
    let turn = AtomicU64::new(0);
    Upstream::start(name, move |request: &Received| {
        let turn = turn.fetch_add(1, Ordering::SeqCst);
        let answer = Script::status(200);
        let known = known.lock();
        let is_kept = !known
            .expect("nobody panics while holding this lock")
            .insert(request.connection);
        match turn % 8 {
            // Half of the time all is well.
            0 | 2 | 4 | 6 => answer,
            // A moment later, which may be that of the next request.
            1 => answer
                .then(Step::Pause(Duration::from_micros(turn % 64 * 16)))
                .then(Step::Close),
            3 => answer.then(Step::CloseAtNextRequest),
            // Nothing was wrong until it had read the request: only on a connection that was kept.
            5 if is_kept => Script::of([Step::Close]),
            7 if is_kept => Script::reset(),
            _ => answer,
        }
    })
}

/// Asks with GET and POST in turn; the targets of what failed.
async fn ask(address: SocketAddr, client: usize, prefix: &'static str) -> Vec<String> {
    let mut connection = match client % 2 {
        0 => Client::http1(address).await,
        _ => Client::http2(address).await,
    };
    let mut failed = Vec::new();
    for number in 0..REQUESTS_OF_EACH {
        let (method, body) = [("GET", ""), ("POST", "a body")][number % 2];
        let target = format!("{prefix}/{method}/{client}/{number}");
        let key = format!("user-{client}");
        let seen = see(&mut connection, request(method, &target, &key, body)).await;
        if seen != Seen::Whole(200) {
            assert_eq!(seen, Seen::Whole(502), "{target}");
            failed.push(target);
        }
    }
    failed
}

#[tokio::test]
async fn a_server_that_closes_what_it_keeps_costs_no_get_and_runs_no_post_twice() {
    let (legacy, new) = (fickle("legacy"), fickle("new"));
    let backend = |server: &Upstream| format!("{{endpoints: ['{}']}}", server.address());
    let bare = "  - {path_prefix: /bare, backend: legacy}";
    let configuration = unjudged(
        &backend(&legacy),
        &backend(&new),
        "fallback: {breaker: false}",
        bare,
    );
    let proxy = Site::new().start(&configuration).await;
    for (prefix, server, name) in [("/split", &new, "new"), ("/bare", &legacy, "legacy")] {
        let asking: JoinSet<_> = (0..CLIENTS)
            .map(|client| ask(proxy.address(), client, prefix))
            .collect();
        let failed = asking.join_all().await.concat();
        let gets = failed.iter().filter(|target| target.contains("/GET/"));
        assert_eq!(gets.count(), 0, "{failed:?}");

        let mut runs: HashMap<String, usize> = HashMap::new();
        for request in server.received() {
            *runs.entry(request.target).or_default() += 1;
        }
        let posts = || runs.iter().filter(|(target, _)| target.contains("/POST/"));
        assert!(posts().all(|(_, count)| *count == 1), "{runs:?}");
        let of = [("backend", name)];
        let metrics = proxy.metrics().await;
        let resets = metrics.sum("cutover_attempts_total", &[of[0], ("result", "reset")]);
        assert_eq!(resets, failed.len() as f64, "each was sent, and broken off");
        let retries = metrics.sum("cutover_attempt_retries_total", &of);
        assert!(retries > 100.0, "{name}: only {retries} GETs met a close");
        let reused = metrics.sum("cutover_upstream_connections_reused_total", &of);
        assert!(
            reused > 1_000.0,
            "{name}: only {reused} reuses prove little"
        );
        // By its turns the server breaks off some three of eight.
        let most = CLIENTS * REQUESTS_OF_EACH / 2 / 2;
        assert!(failed.len() < most, "{} POSTs failed", failed.len());
    }
    let fallbacks = proxy.metrics().await.sum("cutover_fallbacks_total", &[]);
    assert_eq!(
        fallbacks, 0.0,
        "a stale connection is no failure of the arm"
    );
}

#[tokio::test]
async fn an_endpoint_that_is_gone_and_a_stale_connection_to_the_other_cost_no_get_together() {
    let (legacy, gone) = (Upstream::ok("legacy"), Refusing::new());
    let alive = Upstream::start("alive", |_| {
        Script::status(200).then(Step::CloseAtNextRequest)
    });
    let endpoints = [gone.address(), alive.address()].map(|address| format!("'{address}'"));
    let backend = format!(
        "{{endpoints: [{}], balance: round_robin}}",
        endpoints.join(", ")
    );
    let legacy = format!("{{endpoints: ['{}']}}", legacy.address());
    let bare = "  - {path_prefix: /bare, backend: new}";
    let proxy = Site::new()
        .start(&unjudged(&legacy, &backend, "", bare))
        .await;
    let mut client = proxy.client().await;
    for number in 0..20 {
        let target = format!("/bare/{number}");
        let seen = see(&mut client, request("GET", &target, "alice", "")).await;
        assert_eq!(seen, Seen::Whole(200), "{target}");
        assert_eq!(alive.received_for(&target).len(), 1, "{target}");
    }
}
