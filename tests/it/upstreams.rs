//! Backends of several endpoints: who takes the next request, who is left out, and that no client
//! notices any of it.

mod bursts;
mod patience;
mod pools;
mod security;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::harness::client::{Client, get, request};
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::{Gate, Received, Refusing, Reply, Script, Silent, Step, Upstream};
use crate::harness::{eventually, unjudged};

/// Everything goes to `new` unless the test says otherwise, and nothing rolls it back. `/bare`
/// leads to the backend of `new` without a split, so that its own answers can be seen.
async fn start(site: Site, legacy: &str, new: &str, split: &str) -> Proxy {
    let bare = "  - {path_prefix: /bare, backend: new}";
    site.start(&unjudged(legacy, new, split, bare)).await
}

/// A backend of these endpoints, with these other settings.
fn backend<const COUNT: usize>(endpoints: [SocketAddr; COUNT], settings: &str) -> String {
    let endpoints = endpoints.map(|address| format!("'{address}'")).join(", ");
    format!("{{endpoints: [{endpoints}], {settings}}}")
}

/// Which of the servers answer `count` requests for `target`, one after the other.
async fn who_answers(client: &mut Client, target: &str, count: usize) -> Vec<String> {
    let mut names = Vec::new();
    for number in 0..count {
        let answer = client.get(target, &format!("user-{number}")).await;
        assert_eq!(answer.status, 200, "{target}");
        names.push(answer.served_by().expect("a server answered").to_owned());
    }
    names
}

fn count_of(names: &[String], name: &str) -> usize {
    names.iter().filter(|found| *found == name).count()
}

/// A server that holds requests for `…/held` until the gate opens.
fn holding(name: &str, gate: &Gate) -> Upstream {
    let gate = gate.clone();
    Upstream::start(name, move |request| {
        match request.target.ends_with("/held") {
            true => Script::of([Step::Wait(gate.clone()), Step::Answer(Reply::new(200))]),
            false => Script::status(200),
        }
    })
}

/// A server that answers 503 while `is_sick`.
fn sometimes_sick(name: &str, is_sick: &Arc<AtomicBool>) -> Upstream {
    let is_sick = Arc::clone(is_sick);
    Upstream::start(name, move |_| match is_sick.load(Ordering::SeqCst) {
        true => Script::status(503),
        false => Script::status(200),
    })
}

#[tokio::test]
async fn round_robin_takes_the_endpoints_in_turn_even_over_several_workers() {
    let servers = ["a", "b", "c"].map(Upstream::ok);
    let addresses = servers.each_ref().map(Upstream::address);
    let new = backend(addresses, "balance: round_robin");
    let legacy = Upstream::ok("legacy");
    let proxy = start(Site::new(), &backend([legacy.address()], ""), &new, "").await;
    let (mut one, mut other) = (proxy.client().await, proxy.client().await);
    for _ in 0..5 {
        let mut names = who_answers(&mut one, "/", 2).await;
        names.extend(who_answers(&mut other, "/", 1).await);
        names.sort();
        assert_eq!(names, ["a", "b", "c"]);
    }
}

#[tokio::test]
async fn least_pending_spares_an_endpoint_that_is_busy_and_round_robin_does_not() {
    for (balance, to_the_busy_one) in [("least_pending", 0), ("round_robin", 5)] {
        let gate = Gate::new();
        let servers = ["a", "b"].map(|name| holding(name, &gate));
        let addresses = servers.each_ref().map(Upstream::address);
        let new = backend(addresses, &format!("balance: {balance}"));
        let legacy = Upstream::ok("legacy");
        let proxy = start(Site::new(), &backend([legacy.address()], ""), &new, "").await;

        let mut patient = proxy.client().await;
        let held = tokio::spawn(async move { patient.get("/bare/held", "").await });
        let is_held = |server: &Upstream| !server.received_for("/bare/held").is_empty();
        eventually("one of them is busy", async || servers.iter().any(is_held)).await;
        let busy = if is_held(&servers[0]) { "a" } else { "b" };

        let names = who_answers(&mut proxy.client().await, "/bare", 10).await;
        assert_eq!(count_of(&names, busy), to_the_busy_one, "{balance}");
        gate.open();
        assert_eq!(held.await.unwrap().served_by(), Some(busy));
    }
}

#[tokio::test]
async fn no_client_notices_a_dead_endpoint_and_no_fallback_is_counted() {
    let (refusing, silent) = (Refusing::new(), Silent::new());
    for (dead, result) in [
        (refusing.address(), "connect"),
        (silent.address(), "connect_timeout"),
    ] {
        let (legacy, alive) = (Upstream::ok("legacy"), Upstream::ok("alive"));
        let settings = "balance: round_robin, timeouts: {connect: 50ms}";
        let new = backend([dead, alive.address()], settings);
        let proxy = start(Site::new(), &backend([legacy.address()], ""), &new, "").await;
        let mut client = proxy.client().await;
        for number in 0..6 {
            let write = request("POST", "/", &format!("user-{number}"), "a write");
            let answer = client.send(write).await;
            assert_eq!(answer.served_by(), Some("alive"), "{result}");
            assert_eq!(answer.field("cutover-fallback"), None, "{result}");
        }
        let booked = [("split", "api"), ("arm", "new"), ("class", "success")];
        proxy.counts(6.0, "cutover_requests_total", &booked).await;
        let metrics = proxy.metrics().await;
        let failed = [("backend", "new"), ("result", result)];
        assert_eq!(metrics.sum("cutover_attempts_total", &failed), 3.0);
        let retried = metrics.sum("cutover_attempt_retries_total", &[("backend", "new")]);
        assert_eq!(retried, 3.0, "every other request began with the dead one");
        assert_eq!(metrics.sum("cutover_fallbacks_total", &[]), 0.0);
        assert_eq!(metrics.sum("cutover_diverted_total", &[]), 0.0);
        assert_eq!(alive.received().len(), 6, "each write was executed once");
        assert!(legacy.received().is_empty());
        assert_eq!(proxy.endpoint("new", dead).await.health, "unreachable");
    }
}

#[tokio::test]
async fn what_was_in_flight_at_an_endpoint_that_dies_goes_to_another_where_nothing_can_run_twice() {
    let gate = Gate::new();
    let servers = ["a", "b"].map(|name| holding(name, &gate));
    let new = backend(
        servers.each_ref().map(Upstream::address),
        "pool: {warm: 8, idle_timeout: 1h}",
    );
    let legacy = Upstream::ok("legacy");
    let proxy = start(Site::new(), &backend([legacy.address()], ""), &new, "").await;
    eventually("every request will find a connection", async || {
        servers
            .iter()
            .all(|server| server.open_connections() == 2 * 8)
    })
    .await;
    let mut held = Vec::new();
    for number in 0..8 {
        let mut client = proxy.client().await;
        let key = format!("user-{number}");
        held.push(tokio::spawn(async move { client.get("/held", &key).await }));
    }
    let waiting = |server: &Upstream| server.received_for("/held").len();
    eventually("all of them wait", async || {
        servers.iter().map(waiting).sum::<usize>() == 8
    })
    .await;
    let [dying, other] = servers;
    let lost = waiting(&dying);
    assert!(lost > 0, "both are busy");
    drop(dying);
    eventually("the other one is asked", async || waiting(&other) == 8).await;
    gate.open();
    for held in held {
        let answer = held.await.unwrap();
        assert_eq!((answer.status, answer.served_by()), (200, Some("b")));
        assert_eq!(answer.field("cutover-fallback"), None);
    }
    assert!(legacy.received().is_empty());
    let retried = [("backend", "new")];
    proxy
        .counts(lost as f64, "cutover_attempt_retries_total", &retried)
        .await;
    let failed = [("split", "api"), ("class", "transport")];
    assert_eq!(
        proxy.metrics().await.sum("cutover_requests_total", &failed),
        0.0
    );
}

#[tokio::test]
async fn when_every_endpoint_is_dead_legacy_answers_and_one_fallback_is_counted() {
    let (legacy, dead) = (Upstream::ok("legacy"), [Refusing::new(), Refusing::new()]);
    let new = backend(dead.each_ref().map(Refusing::address), "");
    let proxy = start(Site::new(), &backend([legacy.address()], ""), &new, "").await;
    let write = request("POST", "/", "alice", "a write");
    let answer = proxy.client().await.send(write).await;
    assert_eq!(answer.served_by(), Some("legacy"));
    assert_eq!(answer.field("cutover-fallback"), Some("connect"));
    let rescued = [("reason", "connect"), ("result", "rescued")];
    proxy.counts(1.0, "cutover_fallbacks_total", &rescued).await;
    let failed = [("backend", "new"), ("result", "connect")];
    proxy.counts(2.0, "cutover_attempts_total", &failed).await;
    let booked = [("arm", "new"), ("class", "transport")];
    proxy.counts(1.0, "cutover_requests_total", &booked).await;
}

#[tokio::test]
async fn an_endpoint_that_keeps_failing_is_ejected_and_returns_after_its_time() {
    let is_sick = Arc::new(AtomicBool::new(true));
    let (sick, well) = (sometimes_sick("sick", &is_sick), Upstream::ok("well"));
    let settings = "balance: round_robin, ejection: {consecutive_failures: 3, duration: 400ms}";
    let new = backend([sick.address(), well.address()], settings);
    let legacy = Upstream::ok("legacy");
    let proxy = start(Site::new(), &backend([legacy.address()], ""), &new, "").await;
    let mut client = proxy.client().await;
    let mut ejected_after = Instant::now();
    while sick.received().len() < 3 {
        ejected_after = Instant::now();
        let status = client.get("/bare", "").await.status;
        assert!(matches!(status, 200 | 503), "{status}");
    }
    is_sick.store(false, Ordering::SeqCst);
    eventually("the endpoint takes requests again", async || {
        assert_eq!(client.get("/bare", "").await.status, 200);
        sick.received().len() > 3
    })
    .await;
    // The proxy's clock ticks every 20 ms.
    let away = ejected_after.elapsed();
    assert!(away >= Duration::from_millis(370), "{away:?}");
    assert_eq!(
        proxy.endpoint("new", sick.address()).await.health,
        "healthy"
    );
}

#[tokio::test]
async fn an_ejected_endpoint_gets_nothing_and_is_shown_as_ejected() {
    let is_sick = Arc::new(AtomicBool::new(true));
    let (sick, well) = (sometimes_sick("sick", &is_sick), Upstream::ok("well"));
    let settings = "balance: round_robin, ejection: {consecutive_failures: 2, duration: 1h}";
    let new = backend([sick.address(), well.address()], settings);
    let legacy = Upstream::ok("legacy");
    let proxy = start(Site::new(), &backend([legacy.address()], ""), &new, "").await;
    let mut client = proxy.client().await;
    for _ in 0..20 {
        client.get("/bare", "").await;
    }
    assert_eq!((sick.received().len(), well.received().len()), (2, 18));
    assert_eq!(
        proxy.endpoint("new", sick.address()).await.health,
        "ejected"
    );
    let address = sick.address().to_string();
    let labels = [("backend", "new"), ("endpoint", address.as_str())];
    proxy.counts(0.0, "cutover_endpoint_healthy", &labels).await;
    proxy
        .counts(1.0, "cutover_endpoint_healthy", &[("backend", "new")])
        .await;
}

#[tokio::test]
async fn the_last_endpoint_is_never_ejected() {
    let is_sick = Arc::new(AtomicBool::new(true));
    let servers = ["a", "b"].map(|name| sometimes_sick(name, &is_sick));
    let settings = "balance: round_robin, ejection: {consecutive_failures: 2, duration: 1h}";
    let new = backend(servers.each_ref().map(Upstream::address), settings);
    let legacy = Upstream::ok("legacy");
    let proxy = start(Site::new(), &backend([legacy.address()], ""), &new, "").await;
    let mut client = proxy.client().await;
    for number in 0..20 {
        let answer = client.get("/bare", "").await;
        let is_theirs = answer.status == 503 && answer.served_by().is_some();
        assert!(is_theirs, "{number}: an endpoint was asked");
    }
    let mut received = servers.each_ref().map(|server| server.received().len());
    received.sort_unstable();
    assert_eq!(received, [2, 18], "one of the two stays");
}

#[tokio::test]
async fn checks_take_an_endpoint_out_and_back_exactly_at_their_thresholds() {
    // What each check finds, and whether the endpoint is healthy after it.
    let story = [
        (false, "healthy"),
        (false, "healthy"),
        (true, "healthy"),
        (false, "healthy"),
        (false, "healthy"),
        (false, "unhealthy"),
        (true, "unhealthy"),
        (false, "unhealthy"),
        (true, "unhealthy"),
        (true, "healthy"),
    ];
    let gates: Vec<Gate> = std::iter::repeat_with(Gate::new)
        .take(story.len() + 1)
        .collect();
    let checks = Arc::new(AtomicUsize::new(0));
    let checked = {
        let (gates, checks) = (gates.clone(), Arc::clone(&checks));
        Upstream::start("checked", move |request| {
            if request.target != "/health" {
                return Script::status(200);
            }
            let number = checks.fetch_add(1, Ordering::SeqCst);
            let status = match story.get(number) {
                Some((false, _)) => 500,
                _ => 204,
            };
            let wait = Step::Wait(gates[number.min(story.len())].clone());
            Script::of([wait, Step::Answer(Reply::new(status))])
        })
    };
    let (well, legacy) = (Upstream::ok("well"), Upstream::ok("legacy"));
    let settings = "balance: round_robin, health_check: {path: /health, interval: 10ms, \
                    timeout: 1h, unhealthy_after: 3, healthy_after: 2}";
    let new = backend([checked.address(), well.address()], settings);
    let proxy = start(Site::new(), &backend([legacy.address()], ""), &new, "").await;
    let mut client = proxy.client().await;
    for (number, (_, health)) in story.iter().enumerate() {
        gates[number].open();
        // The next check begins only when this one has been judged.
        eventually("the next check comes", async || {
            checks.load(Ordering::SeqCst) > number + 1
        })
        .await;
        let endpoint = proxy.endpoint("new", checked.address()).await;
        assert_eq!(endpoint.health, *health, "after check {number}");
        let names = who_answers(&mut client, "/", 4).await;
        let expected = if *health == "healthy" { 2 } else { 0 };
        assert_eq!(
            count_of(&names, "checked"),
            expected,
            "after check {number}"
        );
    }
    assert!(legacy.received().is_empty());
}

#[tokio::test]
async fn an_arm_without_healthy_endpoints_is_not_tried_unless_there_is_nowhere_else_to_go() {
    let sick = |request: &Received| match request.target.as_str() {
        "/health" => Script::status(500),
        _ => Script::status(200),
    };
    let (legacy, new) = (
        Upstream::start("legacy", sick),
        Upstream::start("new", sick),
    );
    let settings = "health_check: {path: /health, interval: 10ms, unhealthy_after: 1}";
    let proxy = start(
        Site::new(),
        &backend([legacy.address()], settings),
        &backend([new.address()], settings),
        "",
    )
    .await;
    for (name, server) in [("legacy", &legacy), ("new", &new)] {
        eventually("the checks fail", async || {
            proxy.endpoint(name, server.address()).await.health == "unhealthy"
        })
        .await;
    }
    let mut client = proxy.client().await;
    let answer = client.send(get("/", "alice")).await;
    assert_eq!((answer.status, answer.served_by()), (200, Some("legacy")));
    assert_eq!(answer.field("cutover-fallback"), Some("no_endpoint"));
    let diverted = [("split", "api"), ("reason", "no_endpoint")];
    proxy.counts(1.0, "cutover_diverted_total", &diverted).await;
    let answer = client.get("/bare", "").await;
    assert_eq!((answer.status, answer.served_by()), (200, Some("new")));
}
