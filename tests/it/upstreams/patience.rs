//! How long each phase of an attempt may take, what the client gets when it takes longer, and how
//! that is booked.

use std::net::TcpListener;
use std::time::Duration;

use super::{backend, start};
use crate::harness::certificate::Certificate;
use crate::harness::client::{Answer, Raw, request};
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::{Script, Silent, Step, Upstream};

async fn with_timeouts(legacy: &Upstream, new: &str, timeouts: &str) -> Proxy {
    let new = format!("{{endpoints: ['{new}'], timeouts: {{{timeouts}}}}}");
    start(Site::new(), &backend([legacy.address()], ""), &new, "").await
}

async fn booked(proxy: &Proxy, class: &str, count: f64) {
    let labels = [("split", "api"), ("arm", "new"), ("class", class)];
    proxy.counts(count, "cutover_requests_total", &labels).await;
    let all = [("split", "api")];
    proxy.counts(count, "cutover_requests_total", &all).await;
}

async fn attempted(proxy: &Proxy, result: &str, count: f64) {
    let labels = [("backend", "new"), ("result", result)];
    proxy.counts(count, "cutover_attempts_total", &labels).await;
}

/// Sends its head and two pieces of its body at once, and then a piece every so often.
fn trickling(pieces: usize, pause: Duration) -> Script {
    let length = pieces * 4;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    let mut script = Script::write(head);
    for _ in 0..pieces {
        script = script
            .then(Step::Write("piec".into()))
            .then(Step::Pause(pause));
    }
    script
}

#[tokio::test]
async fn a_host_that_drops_packets_is_answered_504_or_rescued() {
    let (legacy, silent) = (Upstream::ok("legacy"), Silent::new());
    let address = silent.address().to_string();
    let proxy = with_timeouts(&legacy, &address, "connect: 100ms").await;
    let mut client = proxy.client().await;
    assert_eq!(client.get("/bare", "").await.status, 504);
    let answer = client.send(request("POST", "/", "alice", "a write")).await;
    assert_eq!((answer.status, answer.served_by()), (200, Some("legacy")));
    assert_eq!(answer.field("cutover-fallback"), Some("connect_timeout"));
    attempted(&proxy, "connect_timeout", 2.0).await;
    booked(&proxy, "transport", 1.0).await;
}

#[tokio::test]
async fn the_time_to_connect_includes_the_tls_handshake() {
    let legacy = Upstream::ok("legacy");
    // The kernel accepts, and nobody says a word.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = mute.local_addr().unwrap();
    let settings = "tls: {roots: roots.pem}, timeouts: {connect: 100ms}";
    let new = backend([address], settings);
    let site = Site::new().file("roots.pem", Certificate::new().certificate_pem);
    let proxy = start(site, &backend([legacy.address()], ""), &new, "").await;
    let mut client = proxy.client().await;
    assert_eq!(client.get("/bare", "").await.status, 504);
    let answer = client.get("/", "alice").await;
    assert_eq!(answer.field("cutover-fallback"), Some("connect_timeout"));
    attempted(&proxy, "connect_timeout", 2.0).await;
}

#[tokio::test]
async fn an_answer_that_does_not_begin_is_504_or_rescued_where_nothing_can_run_twice() {
    let (legacy, new) = (
        Upstream::ok("legacy"),
        Upstream::start("new", |_| Script::hang()),
    );
    let address = new.address().to_string();
    let proxy = with_timeouts(&legacy, &address, "first_byte: 100ms").await;
    let mut client = proxy.client().await;
    assert_eq!(client.get("/bare", "").await.status, 504);
    let answer = client.get("/", "alice").await;
    assert_eq!((answer.status, answer.served_by()), (200, Some("legacy")));
    assert_eq!(answer.field("cutover-fallback"), Some("first_byte_timeout"));
    let answer = client.send(request("POST", "/", "alice", "a write")).await;
    assert_eq!((answer.status, answer.served_by()), (504, None));
    attempted(&proxy, "first_byte_timeout", 3.0).await;
    booked(&proxy, "transport", 2.0).await;
    let refused = [("split", "api"), ("reason", "method")];
    proxy
        .counts(1.0, "cutover_fallback_refused_total", &refused)
        .await;
    assert_eq!(legacy.received().len(), 1);
}

#[tokio::test]
async fn the_total_time_ends_an_attempt_before_its_first_byte_with_504() {
    let (legacy, new) = (
        Upstream::ok("legacy"),
        Upstream::start("new", |_| Script::hang()),
    );
    let address = new.address().to_string();
    let proxy = with_timeouts(&legacy, &address, "total: 100ms").await;
    let answer = proxy
        .client()
        .await
        .send(request("POST", "/", "alice", "a write"))
        .await;
    assert_eq!(answer.status, 504);
    booked(&proxy, "transport", 1.0).await;
}

#[tokio::test]
async fn the_total_time_cuts_an_answer_that_never_ends() {
    let legacy = Upstream::ok("legacy");
    let new = Upstream::start("new", |_| trickling(10_000, Duration::from_millis(20)));
    let address = new.address().to_string();
    let proxy = with_timeouts(&legacy, &address, "total: 300ms").await;
    let answer = proxy.client().await.get("/", "alice").await;
    assert_eq!((answer.status, answer.is_whole), (200, false));
    assert!(answer.body.starts_with(b"piec"));
    booked(&proxy, "transport", 1.0).await;
    new.was_departed("/").await;
    assert!(legacy.received().is_empty(), "its beginning has left");
}

#[tokio::test]
async fn an_answer_that_stalls_is_cut() {
    let legacy = Upstream::ok("legacy");
    let new = Upstream::start("new", |_| {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfour";
        Script::write(head).then(Step::AwaitDeparture)
    });
    let address = new.address().to_string();
    let proxy = with_timeouts(&legacy, &address, "body_idle: 100ms").await;
    let answer = proxy.client().await.get("/", "alice").await;
    assert_eq!((&answer.body[..], answer.is_whole), (&b"four"[..], false));
    booked(&proxy, "transport", 1.0).await;
    new.was_departed("/").await;
}

#[tokio::test]
async fn an_answer_that_is_merely_slow_outlives_the_time_between_two_pieces() {
    let legacy = Upstream::ok("legacy");
    let new = Upstream::start("new", |_| trickling(15, Duration::from_millis(100)));
    let address = new.address().to_string();
    let proxy = with_timeouts(&legacy, &address, "body_idle: 1s").await;
    let answer = proxy.client().await.get("/", "alice").await;
    assert_eq!((answer.body.len(), answer.is_whole), (60, true));
    booked(&proxy, "success", 1.0).await;
}

#[tokio::test]
async fn a_client_that_stalls_its_upload_is_answered_408_and_blamed_on_no_arm() {
    let (legacy, new) = (Upstream::ok("legacy"), Upstream::ok("new"));
    let address = new.address().to_string();
    let proxy = with_timeouts(&legacy, &address, "body_idle: 100ms").await;
    let mut client = Raw::connect(proxy.address()).await;
    client
        .write("POST / HTTP/1.1\r\nHost: a\r\nX-User: alice\r\nContent-Length: 9\r\n\r\nfour")
        .await;
    let head = client.read_head().await;
    assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
    proxy.refused("client_timeout", 1.0).await;
    booked(&proxy, "cancelled", 1.0).await;
    assert!(legacy.received().is_empty());
}

#[tokio::test]
async fn an_upstream_that_does_not_take_the_upload_is_a_failure_of_the_arm() {
    let legacy = Upstream::ok("legacy");
    // It reads the head and nothing of the body, which is more than the sockets hold.
    let new = Upstream::start("new", |_| {
        Script::of([Step::Pause(Duration::from_secs(60))])
    });
    let address = new.address().to_string();
    let proxy = with_timeouts(&legacy, &address, "body_idle: 200ms").await;
    let body = vec![b'x'; 32 * 1024 * 1024];
    let begun = proxy
        .client()
        .await
        .begin(request("POST", "/", "alice", body))
        .await;
    let answer = Answer::read(begun.expect("the proxy says what happened")).await;
    assert_eq!(answer.status, 504);
    attempted(&proxy, "first_byte_timeout", 1.0).await;
    booked(&proxy, "transport", 1.0).await;
}

/// Answers at once, but says the rest only when the upload has ended.
fn early() -> Upstream {
    Upstream::start("new", |_| {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nfour";
        Script::of([
            Step::Write(head.into()),
            Step::ReadBody,
            Step::Write("more".into()),
        ])
    })
}

/// A client that has sent `beginning` of a body framed by `framing`, and got the answer's head.
async fn uploading(proxy: &Proxy, framing: &str, beginning: &str) -> Raw {
    let mut client = Raw::connect(proxy.address()).await;
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nX-User: alice\r\n{framing}\r\n\r\n");
    client.write(head + beginning).await;
    let head = client.read_head().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    client
}

#[tokio::test]
async fn an_answer_may_wait_for_an_upload_for_as_long_as_that_moves() {
    let (legacy, new) = (Upstream::ok("legacy"), early());
    let address = new.address().to_string();
    let proxy = with_timeouts(&legacy, &address, "body_idle: 1s").await;
    let mut client = uploading(&proxy, "Content-Length: 16", "x").await;
    // The upload is slow, but nowhere as slow as may be; as a whole it takes longer.
    for _ in 0..15 {
        let between_two_pieces = Duration::from_millis(100);
        tokio::time::sleep(between_two_pieces).await;
        client.write("x").await;
    }
    assert_eq!(client.read(8).await, b"fourmore");
    booked(&proxy, "success", 1.0).await;
}

#[tokio::test]
async fn a_client_that_stalls_its_upload_after_the_answers_head_is_blamed_on_no_arm() {
    let (legacy, new) = (Upstream::ok("legacy"), early());
    let address = new.address().to_string();
    let proxy = with_timeouts(&legacy, &address, "body_idle: 100ms").await;
    let mut client = uploading(&proxy, "Content-Length: 9", "four").await;
    assert_eq!(client.read_to_end().await, b"four");
    booked(&proxy, "cancelled", 1.0).await;
    new.was_departed("/").await;
}

#[tokio::test]
async fn a_client_that_breaks_off_its_upload_after_the_answers_head_is_blamed_on_no_arm() {
    for is_malformed in [true, false] {
        let (legacy, new) = (Upstream::ok("legacy"), early());
        let address = new.address().to_string();
        let proxy = with_timeouts(&legacy, &address, "body_idle: 60s").await;
        let chunk = "4\r\nfour\r\n";
        let mut client = uploading(&proxy, "Transfer-Encoding: chunked", chunk).await;
        if is_malformed {
            client.write("no length\r\n").await;
        } else {
            client.finish().await;
        }
        assert_eq!(client.read_to_end().await, b"four", "{is_malformed}");
        booked(&proxy, "cancelled", 1.0).await;
        new.was_departed("/").await;
    }
}
