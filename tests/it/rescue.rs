//! What stands around the fallback: the second endpoint before it, the breaker and the budget that
//! bound it, and the cases in which it must keep out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;

use crate::harness::client::{Answer, Client, Raw, get, request};
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::{Gate, Refusing, Reply, Script, Step, Upstream};
use crate::harness::{eventually, unjudged};

/// A split that nothing rolls back, so that a test can watch it fail for longer.
async fn start(legacy: &Upstream, new: &str, split: &str) -> Proxy {
    start_with(legacy, new, split, "").await
}

async fn start_with(legacy: &Upstream, new: &str, split: &str, routes: &str) -> Proxy {
    let legacy = format!("{{endpoints: {}}}", endpoints(legacy));
    let new = format!("{{endpoints: {new}}}");
    let configuration = unjudged(&legacy, &new, split, routes);
    Site::new().start(&configuration).await
}

fn endpoints(upstream: &Upstream) -> String {
    format!("['{}']", upstream.address())
}

#[tokio::test]
async fn the_breaker_diverts_after_five_failures_in_a_row_and_closes_after_a_good_probe() {
    let legacy = Upstream::ok("legacy");
    let is_well = Arc::new(AtomicBool::new(false));
    let new = {
        let is_well = Arc::clone(&is_well);
        Upstream::start("new", move |_| match is_well.load(Ordering::SeqCst) {
            true => Script::status(200),
            false => Script::reset(),
        })
    };
    let breaker = "fallback: {breaker: {consecutive_failures: 5, open_for: 300ms}}";
    let proxy = start(&legacy, &endpoints(&new), breaker).await;
    let mut client = proxy.client().await;
    for number in 0..5 {
        let answer = client.get("/", &format!("user-{number}")).await;
        assert_eq!(answer.field("cutover-fallback"), Some("reset"), "{number}");
    }
    let answer = client.send(request("POST", "/", "user-5", "a write")).await;
    assert_eq!(
        answer.served_by(),
        Some("legacy"),
        "what is not sent is harmless"
    );
    assert_eq!(answer.field("cutover-fallback"), Some("breaker"));
    assert_eq!(
        new.received().len(),
        5,
        "an open breaker keeps everybody out"
    );
    let labels = [
        ("split", "api"),
        ("reason", "breaker"),
        ("evidence", "true"),
    ];
    proxy.counts(1.0, "cutover_diverted_total", &labels).await;
    let booked = [("split", "api"), ("arm", "new")];
    proxy.counts(5.0, "cutover_requests_total", &booked).await;

    is_well.store(true, Ordering::SeqCst);
    eventually("a probe closes the breaker", async || {
        let answer = proxy.client().await.get("/", "user-6").await;
        answer.served_by() == Some("new")
    })
    .await;
    assert_eq!(proxy.split("api").await.breaker, "closed");
}

#[tokio::test]
async fn a_single_poisonous_session_opens_no_breaker_for_the_others() {
    let legacy = Upstream::ok("legacy");
    let new = Upstream::start("new", |request| match request.field("x-user") {
        Some("poison") => Script::reset(),
        _ => Script::status(200),
    });
    let proxy = start(&legacy, &endpoints(&new), "").await;
    let mut client = proxy.client().await;
    for number in 0..5 {
        client.get("/", &format!("user-{number}")).await;
    }
    for _ in 0..20 {
        let answer = client.get("/", "poison").await;
        assert_eq!(answer.field("cutover-fallback"), Some("reset"));
    }
    assert_eq!(client.get("/", "user-6").await.served_by(), Some("new"));
}

#[tokio::test]
async fn an_empty_budget_stops_replays_of_what_was_sent() {
    let legacy = Upstream::ok("legacy");
    let new = Upstream::start("new", |_| Script::status(503));
    let budget = "fallback: {budget: 0%, budget_floor: 0}";
    let proxy = start(&legacy, &endpoints(&new), budget).await;
    let answer = proxy.client().await.get("/", "alice").await;
    assert_eq!((answer.status, answer.served_by()), (503, Some("new")));
    let labels = [("split", "api"), ("reason", "budget")];
    proxy
        .counts(1.0, "cutover_fallback_refused_total", &labels)
        .await;
    assert!(legacy.received().is_empty());
}

#[tokio::test]
async fn an_empty_budget_does_not_touch_what_was_never_sent() {
    let legacy = Upstream::ok("legacy");
    let refusing = Refusing::new();
    let new = format!("['{}']", refusing.address());
    let proxy = start(&legacy, &new, "fallback: {budget: 0%, budget_floor: 0}").await;
    let answer = proxy.client().await.get("/", "alice").await;
    assert_eq!((answer.status, answer.served_by()), (200, Some("legacy")));
}

#[tokio::test]
async fn the_default_budget_allows_a_burst_and_then_a_part_of_the_traffic() {
    let legacy = Upstream::ok("legacy");
    let new = Upstream::start("new", |_| Script::status(503));
    let proxy = start(&legacy, &endpoints(&new), "").await;
    let mut client = proxy.client().await;
    let mut rescued = 0;
    for number in 0..400 {
        let answer = client.get("/", &format!("user-{number}")).await;
        rescued += usize::from(answer.status == 200);
    }
    // 10 per second saved up for 10 s, 20 % of 400 requests, and what the seconds of this test add.
    assert!((100..=250).contains(&rescued), "{rescued}");
    assert_eq!(legacy.received().len(), rescued);
}

#[tokio::test]
async fn a_route_without_fallback_shows_the_failure_and_nothing_is_diverted() {
    let legacy = Upstream::ok("legacy");
    let refusing = Refusing::new();
    let new = format!("['{}']", refusing.address());
    let routes = "  - {path_prefix: /bare, split: api, fallback: false}";
    let proxy = start_with(&legacy, &new, "", routes).await;
    let mut client = proxy.client().await;
    for number in 0..10 {
        let answer = client.get("/bare", &format!("user-{number}")).await;
        assert_eq!(answer.status, 502, "{number}");
    }
    assert!(legacy.received().is_empty());
    let labels = [("split", "api"), ("reason", "disabled")];
    proxy
        .counts(10.0, "cutover_fallback_refused_total", &labels)
        .await;
    let answer = client.get("/other", "alice").await;
    assert_eq!(
        answer.served_by(),
        Some("legacy"),
        "elsewhere it is rescued"
    );
}

#[tokio::test]
async fn what_could_not_be_sent_goes_to_another_endpoint_of_the_same_arm_first() {
    let legacy = Upstream::ok("legacy");
    let new = Upstream::ok("new");
    let refusing = Refusing::new();
    let both = format!("['{}', '{}']", refusing.address(), new.address());
    let proxy = start(&legacy, &both, "").await;
    let mut client = proxy.client().await;
    for number in 0..20 {
        let write = request("POST", "/", &format!("user-{number}"), "a write");
        let answer = client.send(write).await;
        assert_eq!(answer.served_by(), Some("new"), "{number}");
    }
    assert_eq!(new.received().len(), 20);
    assert!(legacy.received().is_empty());
    let booked = [("split", "api"), ("arm", "new"), ("class", "success")];
    proxy.counts(20.0, "cutover_requests_total", &booked).await;
    let metrics = proxy.metrics().await;
    let refused = [("backend", "new"), ("result", "connect")];
    let retries = metrics.sum("cutover_attempt_retries_total", &[("backend", "new")]);
    assert!(retries > 0.0, "some began with the dead endpoint");
    assert_eq!(metrics.sum("cutover_attempts_total", &refused), retries);
}

#[tokio::test]
async fn legacy_never_falls_back_to_new() {
    let legacy = Upstream::start("legacy", |_| Script::status(503));
    let new = Upstream::ok("new");
    let pins = "pins: {keys: {alice: legacy}}";
    let proxy = start(&legacy, &endpoints(&new), pins).await;
    let answer = proxy.client().await.get("/", "alice").await;
    assert_eq!((answer.status, answer.served_by()), (503, Some("legacy")));
    assert_eq!(answer.field("cutover-arm"), Some("legacy"));
    assert!(new.received().is_empty());
}

#[tokio::test]
async fn a_rescue_that_fails_shows_what_legacy_said_and_counts_as_failed() {
    let legacy = Upstream::start("legacy", |request| match request.target.as_str() {
        "/500" => Script::status(500),
        "/404" => Script::status(404),
        _ => Script::reset(),
    });
    let new = Upstream::start("new", |_| Script::status(503));
    let proxy = start(&legacy, &endpoints(&new), "").await;
    let mut client = proxy.client().await;
    assert_eq!(client.get("/500", "alice").await.status, 500);
    assert_eq!(client.get("/reset", "alice").await.status, 502);
    let failed = [("split", "api"), ("reason", "status"), ("result", "failed")];
    proxy.counts(2.0, "cutover_fallbacks_total", &failed).await;

    // Without a shared store, legacy may not know what `new` had created.
    assert_eq!(client.get("/404", "alice").await.status, 404);
    let split = [("split", "api")];
    proxy
        .counts(1.0, "cutover_fallback_mismatch_total", &split)
        .await;
    let booked = [("split", "api"), ("arm", "new"), ("class", "server_error")];
    proxy.counts(3.0, "cutover_requests_total", &booked).await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_rescued_for_its_beginning_has_left() {
    let legacy = Upstream::ok("legacy");
    let gate = Gate::new();
    let held = gate.clone();
    let new = Upstream::start("new", move |_| {
        Script::write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfour")
            .then(Step::Wait(held.clone()))
            .then(Step::Reset)
    });
    let proxy = start(&legacy, &endpoints(&new), "").await;
    let begun = proxy.client().await.begin(get("/", "alice")).await;
    gate.open();
    let answer = Answer::read(begun.unwrap()).await;
    assert_eq!((&answer.body[..], answer.is_whole), (&b"four"[..], false));
    assert!(legacy.received().is_empty());
}

#[tokio::test]
async fn an_early_failure_is_rescued_while_the_body_is_still_on_its_way() {
    let legacy = Upstream::ok("legacy");
    // It answers as soon as it sees the head, and reads on.
    let new = Upstream::start("new", |_| {
        let refusal = Reply::new(503).render("new", "PUT");
        Script::of([Step::Write(refusal)])
    });
    let proxy = start(&legacy, &endpoints(&new), "shared_state: true").await;
    let mut client = Raw::connect(proxy.address()).await;
    client
        .write("PUT /early HTTP/1.1\r\nHost: a\r\nX-User: alice\r\nContent-Length: 10\r\n\r\nfirst")
        .await;
    legacy.has_received("/early").await;
    client.write("other").await;
    let head = client.read_head().await;
    assert!(head.contains("Cutover-Fallback: status"), "{head}");
    assert_eq!(legacy.received()[0].body, b"firstother");
}

#[tokio::test]
async fn a_client_that_leaves_is_not_replayed() {
    let legacy = Upstream::ok("legacy");
    let new = Upstream::start("new", |_| Script::of([Step::AwaitDeparture]));
    let proxy = start(&legacy, &endpoints(&new), "").await;
    let mut client = Raw::connect(proxy.address()).await;
    client
        .write("GET /left HTTP/1.1\r\nHost: a\r\nX-User: alice\r\n\r\n")
        .await;
    new.has_received("/left").await;
    drop(client);
    new.was_departed("/left").await;
    let booked = [("split", "api"), ("arm", "new"), ("class", "cancelled")];
    proxy.counts(1.0, "cutover_requests_total", &booked).await;
    assert!(legacy.received().is_empty());
}

#[tokio::test]
async fn a_client_cannot_claim_to_be_a_replay() {
    let legacy = Upstream::ok("legacy");
    let new = Upstream::ok("new");
    let proxy = start(&legacy, &endpoints(&new), "").await;
    let claim = Request::get("/")
        .header("x-user", "alice")
        .header("cutover-replay", "1")
        .body(Full::new(Bytes::new()))
        .unwrap();
    assert_eq!(
        proxy.client().await.send(claim).await.served_by(),
        Some("new")
    );
    assert_eq!(new.received()[0].field("cutover-replay"), None);
}

#[tokio::test]
async fn a_full_pool_diverts_and_says_so() {
    let legacy = Upstream::ok("legacy");
    let gate = Gate::new();
    let held = gate.clone();
    let new = Upstream::start("new", move |_| {
        Script::of([Step::Wait(held.clone()), Step::Answer(Reply::new(200))])
    });
    let address = new.address();
    let limited = format!("['{address}'], pool: {{max_connections: 1}}");
    let proxy = start(&legacy, &limited, "").await;
    let mut client = proxy.client().await;
    let first = tokio::spawn(async move { client.get("/first", "alice").await });
    new.has_received("/first").await;
    let second = proxy.client().await.get("/second", "bob").await;
    assert_eq!(second.served_by(), Some("legacy"));
    assert_eq!(second.field("cutover-fallback"), Some("pool_full"));
    let labels = [("split", "api"), ("reason", "pool_full")];
    proxy.counts(1.0, "cutover_diverted_total", &labels).await;
    gate.open();
    let first = first.await.expect("waiting does not panic");
    assert_eq!(first.served_by(), Some("new"));
}

#[tokio::test]
async fn while_no_endpoint_is_healthy_requests_are_diverted_and_come_back_with_health() {
    let legacy = Upstream::ok("legacy");
    let is_well = Arc::new(AtomicBool::new(false));
    let new = {
        let is_well = Arc::clone(&is_well);
        Upstream::start("new", move |request| {
            let is_sick = request.target == "/health" && !is_well.load(Ordering::SeqCst);
            Script::status(if is_sick { 503 } else { 200 })
        })
    };
    let address = new.address();
    let checked = format!(
        "['{address}'], health_check: {{path: /health, interval: 20ms, unhealthy_after: 1, healthy_after: 1}}"
    );
    let proxy = start(&legacy, &checked, "").await;
    let mut client = proxy.client().await;
    eventually("the check is believed", async || {
        let answer = client.get("/", "alice").await;
        answer.field("cutover-fallback") == Some("no_endpoint")
    })
    .await;
    let write = request("POST", "/write", "alice", "a write");
    assert_eq!(client.send(write).await.served_by(), Some("legacy"));
    assert!(new.received_for("/write").is_empty());
    is_well.store(true, Ordering::SeqCst);
    eventually("health is believed too", async || {
        client.get("/", "alice").await.served_by() == Some("new")
    })
    .await;
}

#[tokio::test]
async fn streams_of_one_http2_connection_are_rescued_each_for_itself() {
    let legacy = Upstream::ok("legacy");
    let new = Upstream::start("new", |request| match request.target.as_str() {
        "/fails" => Script::reset(),
        _ => Script::status(200),
    });
    let proxy = start(&legacy, &endpoints(&new), "shared_state: true").await;
    let mut client = Client::http2(proxy.address()).await;
    for number in 0..4 {
        let key = format!("user-{number}");
        let content = format!("content {number}");
        let answer = client
            .send(request("PUT", "/fails", &key, content.clone()))
            .await;
        assert_eq!((answer.status, answer.served_by()), (200, Some("legacy")));
        assert_eq!(legacy.received()[number].body, content.as_bytes());
        let answer = client.send(request("PUT", "/well", &key, content)).await;
        assert_eq!((answer.status, answer.served_by()), (200, Some("new")));
    }
}

#[tokio::test]
async fn an_answer_that_ends_with_its_connection_is_whole() {
    for whole in [
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\nabc",
    ] {
        let new = Upstream::start("new", move |_| Script::write(whole).then(Step::Close));
        let legacy = Upstream::ok("legacy");
        let proxy = crate::rollback::start(&legacy, &new, "rollback: off").await;
        let key = crate::rollback::key_of(cutover::policy::arm::Arm::New);
        let answer = proxy.client().await.get("/", &key).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.field("cutover-arm"), Some("new"), "{whole}");
        assert_eq!(answer.body.as_ref(), b"abc", "{whole}");
    }
}

#[tokio::test]
async fn an_answer_that_comes_broken_is_taken_back() {
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (answer, end, reason) in [
        (length.to_owned(), Step::Close, "truncated"),
        (format!("{length}some"), Step::Close, "truncated"),
        (format!("{length}some"), Step::Reset, "truncated"),
        (format!("{chunked}3\r\nabc\r\n"), Step::Close, "truncated"),
        (
            format!("{chunked}three\r\n"),
            Step::AwaitDeparture,
            "invalid_response",
        ),
        (
            format!("{chunked}3\r\nabc\r\nXX\r\n"),
            Step::AwaitDeparture,
            "invalid_response",
        ),
    ] {
        let gate = Gate::new();
        let held = gate.clone();
        let (broken, ends) = (answer.clone(), end.clone());
        let new = Upstream::start("new", move |_| {
            let wait = Step::Wait(held.clone());
            Script::of([wait, Step::Write(broken.clone().into()), ends.clone()])
        });
        let legacy = Upstream::ok("legacy");
        let proxy = start(&legacy, &endpoints(&new), "").await;
        let mut client = proxy.client().await;
        let asking = tokio::spawn(async move { client.get("/", "alice").await });
        new.has_received("/").await;
        // What it wakes up to is there together.
        proxy.freeze().await;
        gate.open();
        if !matches!(end, Step::AwaitDeparture) {
            let what = "the server has gone";
            eventually(what, async || new.open_connections() == 0).await;
        }
        proxy.signal("CONT");
        let rescued = asking.await.expect("it is answered");
        assert_eq!(rescued.served_by(), Some("legacy"), "{answer} {end:?}");
        assert_eq!(rescued.field("cutover-fallback"), Some(reason), "{answer}");
        assert_eq!((rescued.status, rescued.is_whole), (200, true));
        let attempts = [("backend", "new"), ("result", reason)];
        proxy.counts(1.0, "cutover_attempts_total", &attempts).await;
        let booked = [("split", "api"), ("arm", "new"), ("class", "transport")];
        proxy.counts(1.0, "cutover_requests_total", &booked).await;
    }
}

#[tokio::test]
async fn a_broken_answer_to_what_must_not_be_repeated_stands() {
    let broken = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nthree\r\n";
    let new = Upstream::start("new", move |_| {
        Script::write(broken).then(Step::AwaitDeparture)
    });
    let legacy = Upstream::ok("legacy");
    let proxy = start(&legacy, &endpoints(&new), "").await;
    let write = request("POST", "/", "alice", "a write");
    // What breaks off so soon may break the connection before the head is written.
    if let Ok(response) = proxy.client().await.begin(write).await {
        assert_eq!(response.headers()["cutover-arm"], "new");
        assert!(!Answer::read(response).await.is_whole);
    }
    let attempts = [("backend", "new"), ("result", "success")];
    proxy.counts(1.0, "cutover_attempts_total", &attempts).await;
    assert!(legacy.received().is_empty());
}
