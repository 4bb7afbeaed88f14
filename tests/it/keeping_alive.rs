//! Kept-alive connections to the servers behind: they save a handshake, and must never cost a
//! request, nor run one twice.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::client::{Client, request};
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::{Received, Script, Step, Upstream};

async fn start(upstream: &Upstream, legacy: &Upstream) -> Proxy {
    let (new, legacy) = (upstream.address(), legacy.address());
    Site::new()
        .start(&format!(
            "backends:
  legacy: {{endpoints: ['{legacy}']}}
  new: {{endpoints: ['{new}'], pool: {{idle_timeout: 1m}}}}
splits:
  api: {{legacy: legacy, new: new, share: 100%, rollback: off, shared_state: true}}
routes:
  - {{split: api}}
"
        ))
        .await
}

/// Answers `/first`, which leaves its connection in the proxy's pool, and does `script` to whatever
/// comes next on that connection.
fn first_well_then(script: Script) -> impl Fn(&Received) -> Script + Send + Sync + 'static {
    let kept = AtomicUsize::new(usize::MAX);
    move |request| {
        if request.target == "/first" {
            kept.store(request.connection, Ordering::SeqCst);
            return Script::status(200);
        }
        if request.connection == kept.load(Ordering::SeqCst) {
            return script.clone();
        }
        Script::status(200)
    }
}

/// A client whose connection's worker has a kept connection to the server.
async fn with_a_kept_connection(proxy: &Proxy) -> Client {
    let mut client = proxy.client().await;
    assert_eq!(client.get("/first", "alice").await.status, 200);
    client
}

#[tokio::test]
async fn requests_one_after_another_share_a_connection() {
    let (new, legacy) = (Upstream::ok("new"), Upstream::ok("legacy"));
    let proxy = start(&new, &legacy).await;
    let mut client = proxy.client().await;
    for number in 0..20 {
        let write = request("POST", "/", "alice", format!("write {number}"));
        assert_eq!(client.send(write).await.status, 200);
    }
    let connections: Vec<_> = new
        .received()
        .iter()
        .map(|request| request.connection)
        .collect();
    assert!(
        connections
            .iter()
            .all(|connection| *connection == connections[0]),
        "{connections:?}"
    );
}

#[tokio::test]
async fn a_get_never_notices_a_connection_that_closes_in_its_face() {
    let legacy = Upstream::ok("legacy");
    let new = Upstream::start("new", |request| match request.target.as_str() {
        "/first" => Script::status(200).then(Step::CloseAtNextRequest),
        _ => Script::status(200),
    });
    let proxy = start(&new, &legacy).await;
    let mut client = with_a_kept_connection(&proxy).await;
    let answer = client.get("/second", "alice").await;
    assert_eq!((answer.status, answer.served_by()), (200, Some("new")));
    assert_eq!(new.received_for("/second").len(), 1);
    assert!(legacy.received().is_empty(), "it is no failure of the arm");
    let booked = [("split", "api"), ("arm", "new"), ("class", "success")];
    proxy.counts(2.0, "cutover_requests_total", &booked).await;
    let retries = [("backend", "new")];
    proxy
        .counts(1.0, "cutover_attempt_retries_total", &retries)
        .await;
}

#[tokio::test]
async fn a_post_is_never_run_twice_whatever_a_kept_connection_does() {
    for (name, script) in [
        ("resets", Script::reset()),
        ("closes", Script::close()),
        ("closes early", Script::of([Step::Close])),
    ] {
        let legacy = Upstream::ok("legacy");
        let new = Upstream::start("new", first_well_then(script));
        let proxy = start(&new, &legacy).await;
        let mut client = with_a_kept_connection(&proxy).await;
        let answer = client
            .send(request("POST", "/second", "alice", "a write"))
            .await;
        assert_eq!(answer.status, 502, "{name}");
        assert_eq!(new.received_for("/second").len(), 1, "{name}");
        assert!(legacy.received().is_empty(), "{name}");
    }
}

#[tokio::test]
async fn a_post_that_finds_a_closing_connection_is_run_at_most_once() {
    let legacy = Upstream::ok("legacy");
    let new = Upstream::start("new", |request| match request.target.as_str() {
        "/first" => Script::status(200).then(Step::CloseAtNextRequest),
        _ => Script::status(200),
    });
    let proxy = start(&new, &legacy).await;
    let mut client = with_a_kept_connection(&proxy).await;
    let answer = client
        .send(request("POST", "/second", "alice", "a write"))
        .await;
    // The proxy cannot know that the server has thrown it away unread.
    assert_eq!(answer.status, 502);
    assert!(new.received_for("/second").is_empty());
    assert!(legacy.received().is_empty());
}

#[tokio::test]
async fn a_connection_that_closed_while_idle_is_not_used_for_a_post() {
    let legacy = Upstream::ok("legacy");
    let new = Upstream::start("new", |request| match request.target.as_str() {
        "/first" => Script::status(200).then(Step::Close),
        _ => Script::status(200),
    });
    let proxy = start(&new, &legacy).await;
    let mut client = with_a_kept_connection(&proxy).await;
    let open = [("backend", "new")];
    proxy
        .counts(0.0, "cutover_endpoint_connections", &open)
        .await;
    let answer = client
        .send(request("POST", "/second", "alice", "a write"))
        .await;
    assert_eq!((answer.status, answer.served_by()), (200, Some("new")));
}

#[tokio::test]
async fn what_stands_behind_an_answer_is_never_taken_for_the_next_one() {
    let legacy = Upstream::ok("legacy");
    let smuggled = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let new = Upstream::start("new", move |request| match request.target.as_str() {
        "/first" => Script::write(smuggled),
        _ => Script::status(200),
    });
    let proxy = start(&new, &legacy).await;
    let mut client = with_a_kept_connection(&proxy).await;
    let answer = client.get("/second", "alice").await;
    assert_eq!(&answer.body[..], b"status 200");
    let connection = |target| new.received_for(target)[0].connection;
    assert_ne!(connection("/second"), connection("/first"));
}
