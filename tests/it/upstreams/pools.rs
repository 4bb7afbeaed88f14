//! Connections to endpoints: kept, bounded, aged, and opened before they are needed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{backend, start};
use crate::harness::client::{Client, Raw, get};
use crate::harness::eventually;
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::{Gate, Reply, Script, Step, Upstream};

/// A server that holds requests for `/held` until the gate opens.
fn holding(name: &str, gate: &Gate) -> Upstream {
    let gate = gate.clone();
    Upstream::start(name, move |request| match request.target.as_str() {
        "/held" => Script::of([Step::Wait(gate.clone()), Step::Answer(Reply::new(200))]),
        _ => Script::status(200),
    })
}

/// Two ordinary backends, with these settings of the new one's pool.
async fn with_pool(legacy: &Upstream, new: &Upstream, pool: &str, split: &str) -> Proxy {
    let legacy = backend([legacy.address()], "");
    let new = backend([new.address()], &format!("pool: {{{pool}}}"));
    start(Site::new(), &legacy, &new, split).await
}

/// Clients on every worker, since each connection goes to the worker that has the fewest.
async fn clients(proxy: &Proxy, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(proxy.client().await);
    }
    clients
}

#[tokio::test]
async fn every_worker_reuses_its_connection() {
    let (legacy, new) = (Upstream::ok("legacy"), Upstream::ok("new"));
    let proxy = with_pool(&legacy, &new, "idle_timeout: 1m", "").await;
    for client in &mut clients(&proxy, 4).await {
        for _ in 0..10 {
            assert_eq!(client.get("/", "alice").await.served_by(), Some("new"));
        }
    }
    let metrics = proxy.metrics().await;
    let backend = [("backend", "new")];
    let opened = metrics.sum("cutover_upstream_connections_opened_total", &backend);
    let reused = metrics.sum("cutover_upstream_connections_reused_total", &backend);
    assert_eq!((opened, reused), (2.0, 38.0));
    assert_eq!(new.open_connections(), 2);
}

#[tokio::test]
async fn a_full_pool_of_new_diverts_to_legacy_and_is_counted() {
    let gate = Gate::new();
    let (legacy, new) = (Upstream::ok("legacy"), holding("new", &gate));
    let proxy = with_pool(&legacy, &new, "max_connections: 1", "").await;
    let mut clients = clients(&proxy, 2).await;
    let (mut other, mut first) = (clients.remove(1), clients.remove(0));
    let held = tokio::spawn(async move { (first.get("/held", "alice").await, first) });
    new.has_received("/held").await;
    let answer = other.send(get("/", "bob")).await;
    assert_eq!((answer.status, answer.served_by()), (200, Some("legacy")));
    assert_eq!(answer.field("cutover-fallback"), Some("pool_full"));
    let diverted = [("split", "api"), ("reason", "pool_full")];
    proxy.counts(1.0, "cutover_diverted_total", &diverted).await;
    assert_eq!(
        proxy.metrics().await.sum("cutover_requests_total", &[]),
        0.0
    );
    gate.open();
    let (answer, mut first) = held.await.unwrap();
    assert_eq!(answer.served_by(), Some("new"));
    assert_eq!(first.get("/", "bob").await.served_by(), Some("new"));
}

#[tokio::test]
async fn a_full_pool_diverts_nobody_while_another_endpoint_has_room() {
    let gate = Gate::new();
    let legacy = Upstream::ok("legacy");
    let servers = ["a", "b"].map(|name| holding(name, &gate));
    let addresses = servers.each_ref().map(Upstream::address);
    let new = backend(
        addresses,
        "balance: round_robin, pool: {max_connections: 1}",
    );
    let proxy = start(Site::new(), &backend([legacy.address()], ""), &new, "").await;
    let mut clients = clients(&proxy, 2).await;
    let (mut other, mut first) = (clients.remove(1), clients.remove(0));
    let held = tokio::spawn(async move { first.get("/held", "alice").await });
    let is_held = |server: &Upstream| !server.received_for("/held").is_empty();
    eventually("one of them is full", async || servers.iter().any(is_held)).await;
    let with_room = if is_held(&servers[0]) { "b" } else { "a" };
    for _ in 0..6 {
        let answer = other.send(get("/", "bob")).await;
        assert_eq!(answer.served_by(), Some(with_room));
    }
    assert_eq!(
        proxy.metrics().await.sum("cutover_diverted_total", &[]),
        0.0
    );
    gate.open();
    assert_eq!(held.await.unwrap().status, 200);
    assert!(legacy.received().is_empty());
}

#[tokio::test]
async fn a_full_pool_hides_no_neighbour_that_cannot_be_reached() {
    let gate = Gate::new();
    let (legacy, server) = (Upstream::ok("legacy"), holding("new", &gate));
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = gone.local_addr().expect("it is bound");
    drop(gone);
    let settings = "balance: round_robin, pool: {max_connections: 1}";
    let new = backend([address, server.address()], settings);
    let proxy = start(Site::new(), &backend([legacy.address()], ""), &new, "").await;
    let mut clients = clients(&proxy, 2).await;
    let (mut other, mut first) = (clients.remove(1), clients.remove(0));
    let held = tokio::spawn(async move { first.get("/held", "alice").await });
    server.has_received("/held").await;
    // In whichever order the two are tried.
    for _ in 0..2 {
        assert_eq!(
            other.send(get("/", "bob")).await.served_by(),
            Some("legacy")
        );
    }
    let failed = [("arm", "new"), ("class", "transport")];
    proxy.counts(2.0, "cutover_requests_total", &failed).await;
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("cutover_diverted_total", &[]), 0.0);
    gate.open();
    assert_eq!(held.await.unwrap().status, 200);
}

#[tokio::test]
async fn a_full_pool_of_legacy_is_answered_503_with_a_time_to_come_back_and_counted() {
    let gate = Gate::new();
    let (legacy, new) = (holding("legacy", &gate), Upstream::ok("new"));
    let full = backend([legacy.address()], "pool: {max_connections: 1}");
    let new = backend([new.address()], "");
    let pins = "pins: {keys: {alice: legacy, bob: legacy}}";
    let proxy = start(Site::new(), &full, &new, pins).await;
    let mut clients = clients(&proxy, 2).await;
    let (mut other, mut first) = (clients.remove(1), clients.remove(0));
    let held = tokio::spawn(async move { first.get("/held", "alice").await });
    legacy.has_received("/held").await;
    let answer = other.get("/", "bob").await;
    assert_eq!((answer.status, answer.served_by()), (503, None));
    assert_eq!(answer.field("retry-after"), Some("1"));
    proxy.refused("pool_full", 1.0).await;
    gate.open();
    assert_eq!(held.await.unwrap().served_by(), Some("legacy"));
}

#[tokio::test]
async fn a_burst_of_three_times_the_maximum_waits_its_turn_and_nobody_is_refused() {
    let legacy = Upstream::ok("legacy");
    let new = Upstream::start("new", |_| {
        let work = Step::Pause(Duration::from_millis(50));
        Script::of([work, Step::Answer(Reply::new(200))])
    });
    let proxy = with_pool(&legacy, &new, "max_connections: 8", "").await;
    let burst = clients(&proxy, 24).await.into_iter();
    let burst: JoinSet<u16> = burst
        .map(|mut client| async move { client.get("/bare", "alice").await.status })
        .collect();
    assert_eq!(burst.join_all().await, [200; 24]);
    assert!(new.open_connections() <= 8);
}

#[tokio::test]
async fn more_than_may_wait_for_a_connection_are_refused_and_whoever_leaves_makes_room() {
    let gate = Gate::new();
    let (legacy, new) = (Upstream::ok("legacy"), super::holding("new", &gate));
    let settings = "pool: {max_connections: 1}, timeouts: {connect: 1m}";
    let new_backend = backend([new.address()], settings);
    let legacy = backend([legacy.address()], "");
    let proxy = start(Site::new(), &legacy, &new_backend, "").await;
    let pending = async |count: u8| {
        let backend = [("backend", "new")];
        let metric = "cutover_endpoint_pending_requests";
        proxy.counts(f64::from(count), metric, &backend).await;
    };
    let mut waiting = Vec::new();
    for number in 1..=5 {
        let mut client = Raw::connect(proxy.address()).await;
        client
            .write("GET /bare/held HTTP/1.1\r\nHost: a.example\r\n\r\n")
            .await;
        pending(number).await;
        waiting.push(client);
    }
    let mut late = proxy.client().await;
    assert_eq!(late.get("/bare", "alice").await.status, 503);
    let refused = [("reason", "pool_full")];
    proxy.counts(1.0, "cutover_refused_total", &refused).await;
    waiting.remove(2).reset();
    pending(4).await;
    let late = tokio::spawn(async move { late.get("/bare", "alice").await.status });
    pending(5).await;
    gate.open();
    for client in &mut waiting {
        let head = client.read_head().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    }
    assert_eq!(late.await.expect("it does not panic"), 200);
    proxy.counts(1.0, "cutover_refused_total", &refused).await;
}

#[tokio::test]
async fn idle_connections_of_one_worker_do_not_keep_another_out_of_a_small_pool() {
    let (legacy, new) = (Upstream::ok("legacy"), Upstream::ok("new"));
    let pool = "max_connections: 1, idle_timeout: 1h";
    let proxy = with_pool(&legacy, &new, pool, "").await;
    let mut clients = clients(&proxy, 2).await;
    for _ in 0..3 {
        for client in &mut clients {
            eventually(
                "the other worker lets go of what it does not use",
                async || client.get("/", "alice").await.served_by() == Some("new"),
            )
            .await;
        }
    }
}

#[tokio::test]
async fn no_more_idle_connections_are_kept_than_allowed() {
    let gate = Gate::new();
    let (legacy, new) = (Upstream::ok("legacy"), holding("new", &gate));
    let pool = "max_idle: 2, idle_timeout: 1h";
    let proxy = with_pool(&legacy, &new, pool, "").await;
    let busy: Vec<_> = clients(&proxy, 6)
        .await
        .into_iter()
        .map(|mut client| {
            tokio::spawn(async move { (client.get("/held", "alice").await.status, client) })
        })
        .collect();
    eventually("all of them are busy", async || {
        new.count(|request| request.target == "/held") == 6
    })
    .await;
    gate.open();
    let mut clients = Vec::new();
    for busy in busy {
        let (status, client) = busy.await.unwrap();
        assert_eq!(status, 200);
        clients.push(client);
    }
    eventually("the surplus is closed", async || {
        new.open_connections() == 2
    })
    .await;
    let opened = new.connections();
    for client in &mut clients {
        assert_eq!(client.get("/", "alice").await.served_by(), Some("new"));
    }
    assert_eq!(new.connections(), opened, "each worker has kept one");
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_time_and_not_before() {
    let (legacy, new) = (Upstream::ok("legacy"), Upstream::ok("new"));
    let proxy = with_pool(&legacy, &new, "idle_timeout: 300ms", "").await;
    let mut client = proxy.client().await;
    let since = Instant::now();
    assert_eq!(client.get("/", "alice").await.served_by(), Some("new"));
    eventually("the server sees it close", async || {
        new.open_connections() == 0
    })
    .await;
    let rested = since.elapsed();
    assert!(rested >= Duration::from_millis(280), "{rested:?}");
}

#[tokio::test]
async fn a_connection_is_not_reused_beyond_its_lifetime_and_no_request_suffers() {
    let (legacy, new) = (Upstream::ok("legacy"), Upstream::ok("new"));
    let pool = "max_lifetime: 300ms, idle_timeout: 1h";
    let proxy = with_pool(&legacy, &new, pool, "").await;
    let mut client = proxy.client().await;
    let since = Instant::now();
    let connection = || new.received().last().map(|request| request.connection);
    assert_eq!(client.get("/", "alice").await.served_by(), Some("new"));
    let first = connection();
    eventually("the connection is replaced", async || {
        assert_eq!(client.get("/", "alice").await.served_by(), Some("new"));
        connection() != first
    })
    .await;
    let lived = since.elapsed();
    assert!(lived >= Duration::from_millis(280), "{lived:?}");
    let failed = [("backend", "new"), ("result", "success")];
    let attempts = proxy.metrics().await.sum("cutover_attempts_total", &failed);
    assert_eq!(
        attempts,
        new.received().len() as f64,
        "none was tried twice"
    );
}

#[tokio::test]
async fn a_share_that_rises_from_nothing_finds_warm_connections_on_every_worker() {
    let (legacy, new) = (Upstream::ok("legacy"), Upstream::ok("new"));
    let pool = "warm: 3, idle_timeout: 1h";
    let legacy_backend = backend([legacy.address()], "");
    let new_backend = backend([new.address()], &format!("pool: {{{pool}}}"));
    let proxy = Site::new()
        .start(&format!(
            "backends: {{legacy: {legacy_backend}, new: {new_backend}}}
splits: {{api: {{legacy: legacy, new: new, key: [{{header: X-User}}]}}}}
routes: [{{split: api}}]
"
        ))
        .await;
    let mut clients = clients(&proxy, 4).await;
    for client in &mut clients {
        assert_eq!(client.get("/", "alice").await.served_by(), Some("legacy"));
    }
    eventually("nothing but a look whether it is there", async || {
        new.connections() == 1 && new.open_connections() == 0
    })
    .await;
    let set = proxy.cutover(&["set", "api", "100%"]).await;
    assert!(set.status.success(), "{set:?}");
    eventually("before the first request", async || {
        new.open_connections() == 2 * 3
    })
    .await;
    assert!(new.received().is_empty());
    for _ in 0..5 {
        for client in &mut clients {
            assert_eq!(client.get("/", "alice").await.served_by(), Some("new"));
        }
    }
    assert_eq!(new.connections(), 1 + 2 * 3, "they are used");
    let used = |number: usize| {
        let received = new.received();
        received
            .iter()
            .filter(|request| request.connection == number)
            .count()
    };
    assert_eq!((1..=6).map(used).sum::<usize>(), 20);
}

#[tokio::test]
async fn a_warm_connection_that_breaks_is_stale_like_any_other_and_no_failure_of_the_arm() {
    let legacy = Upstream::ok("legacy");
    let is_first = AtomicBool::new(true);
    let new = Upstream::start("new", move |_| {
        match is_first.swap(false, Ordering::SeqCst) {
            true => Script::reset(),
            false => Script::status(200),
        }
    });
    let proxy = with_pool(&legacy, &new, "warm: 1, idle_timeout: 1h", "").await;
    let answer = proxy.client().await.get("/", "alice").await;
    assert_eq!(answer.served_by(), Some("new"));
    proxy
        .counts(1.0, "cutover_attempt_retries_total", &[("backend", "new")])
        .await;
    assert_eq!(
        proxy.metrics().await.sum("cutover_fallbacks_total", &[]),
        0.0
    );
}

#[tokio::test]
async fn connections_are_warm_before_the_first_request_of_a_share_that_the_file_fixes() {
    let (legacy, new) = (Upstream::ok("legacy"), Upstream::ok("new"));
    let proxy = with_pool(&legacy, &new, "warm: 2, idle_timeout: 1h", "").await;
    eventually(
        "both workers' connections are open, the look is over",
        async || new.open_connections() == 2 * 2,
    )
    .await;
    let opened = new.connections();
    for client in &mut clients(&proxy, 2).await {
        assert_eq!(client.get("/", "alice").await.served_by(), Some("new"));
    }
    assert_eq!(new.connections(), opened);
}
