//! Bursts larger than the pool: who waits for a connection, and what for.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use tokio::task::JoinSet;

use super::{backend, start};
use crate::harness::client::Client;
use crate::harness::eventually;
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::{Refusing, Reply, Script, Step, Upstream};

/// One worker, so that only its own requests wait.
const ONE_WORKER: &str = "listeners: [{address: 127.0.0.1:0}]\nadmin: {address: 127.0.0.1:0}\n\
     state: {directory: state}\nworkers: 1\n";

/// A server that takes a moment for each request, so that others come meanwhile.
fn slow(moment: Duration) -> Upstream {
    Upstream::start("slow", move |_| {
        Script::of([Step::Pause(moment), Step::Answer(Reply::new(200))])
    })
}

/// What each of `count` clients is answered that ask `times` times, all together.
async fn burst(proxy: &Proxy, count: usize, times: usize) -> Vec<u16> {
    let mut clients = JoinSet::new();
    for _ in 0..count {
        let mut client: Client = proxy.client().await;
        clients.spawn(async move {
            let mut statuses = Vec::new();
            for _ in 0..times {
                statuses.push(client.get("/bare", "alice").await.status);
            }
            statuses
        });
    }
    clients.join_all().await.concat()
}

#[tokio::test]
async fn a_burst_on_the_one_endpoint_that_lives_waits_whatever_its_neighbour_does() {
    let ejected = "ejection: {consecutive_failures: 1, duration: 1h}";
    for (ejection, health) in [("", "unreachable"), (ejected, "ejected")] {
        let (legacy, well) = (Upstream::ok("legacy"), slow(Duration::from_millis(50)));
        let gone = Refusing::new();
        let settings = format!(
            "balance: round_robin, pool: {{max_connections: 2}}, timeouts: {{connect: 20s}}, {ejection}"
        );
        let new = backend([gone.address(), well.address()], &settings);
        let proxy = start(Site::new(), &backend([legacy.address()], ""), &new, "").await;
        let mut client = proxy.client().await;
        eventually("it is known to be gone", async || {
            assert_eq!(client.get("/bare", "alice").await.status, 200);
            proxy.endpoint("new", gone.address()).await.health == health
        })
        .await;
        assert_eq!(burst(&proxy, 8, 4).await, [200; 32], "{health}");
    }
}

#[tokio::test]
async fn who_waits_at_an_endpoint_that_then_refuses_waits_at_the_one_that_was_full_before() {
    let (legacy, well) = (Upstream::ok("legacy"), slow(Duration::from_millis(20)));
    let gone = Refusing::new();
    let settings = "balance: round_robin, pool: {max_connections: 3}, timeouts: {connect: 20s}";
    let new = backend([gone.address(), well.address()], settings);
    let proxy = start(Site::new(), &backend([legacy.address()], ""), &new, "").await;
    // So many at once that the connections being opened are as many as may be.
    assert_eq!(burst(&proxy, 12, 30).await, [200; 360]);
}

#[tokio::test]
async fn who_has_met_a_stale_connection_gets_a_new_one_and_not_what_another_leaves() {
    let legacy = Upstream::ok("legacy");
    let used = Mutex::new(HashSet::new());
    let new = Upstream::start("new", move |request| {
        match used.lock().unwrap().insert(request.connection) {
            true => Script::of([
                Step::Pause(Duration::from_millis(20)),
                Step::Answer(Reply::new(200)),
            ]),
            false => Script::reset(),
        }
    });
    let settings = "pool: {max_connections: 2}, timeouts: {connect: 20s}";
    let new = backend([new.address()], settings);
    let proxy = start(Site::new(), &backend([legacy.address()], ""), &new, "").await;
    assert_eq!(burst(&proxy, 8, 4).await, [200; 32]);
}

#[tokio::test]
async fn connections_are_handed_on_and_not_replaced_where_only_one_worker_waits() {
    let (legacy, new) = (Upstream::ok("legacy"), slow(Duration::from_millis(2)));
    let settings = "pool: {max_connections: 2}, timeouts: {connect: 20s}";
    let settings = backend([new.address()], settings);
    let site = Site::new().beginning(ONE_WORKER);
    let proxy = start(site, &backend([legacy.address()], ""), &settings, "").await;
    assert_eq!(burst(&proxy, 8, 50).await, [200; 400]);
    let opened = [("backend", "new")];
    let opened = proxy
        .metrics()
        .await
        .sum("cutover_upstream_connections_opened_total", &opened);
    // Two, and some for pauses of the machine in which a connection rested.
    assert!(opened <= 6.0, "{opened}");
}
