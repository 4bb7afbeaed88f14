//! The harness keeps its own promises: a test that passes because its tools lie is worse than none.

use std::time::Duration;

use tokio::net::TcpStream;

use super::certificate::Certificate;
use super::client::{Client, Raw, get, request};
use super::metrics::Metrics;
use super::upstream::{Gate, Refusing, Reply, Script, Silent, Step, Upstream};

#[tokio::test]
async fn an_upstream_answers_and_remembers() {
    let upstream = Upstream::ok("new");
    let mut client = Client::http1(upstream.address()).await;
    for method in ["GET", "HEAD", "POST"] {
        let answer = client.send(request(method, "/a?b", "alice", "hello")).await;
        assert_eq!((answer.status, answer.served_by()), (200, Some("new")));
        assert_eq!(answer.field("content-length"), Some("3"), "{method}");
        assert_eq!(answer.body.is_empty(), method == "HEAD", "{method}");
    }
    let received = upstream.received();
    let methods: Vec<_> = received
        .iter()
        .map(|request| request.method.as_str())
        .collect();
    assert_eq!(methods, ["GET", "HEAD", "POST"]);
    assert!(
        received
            .iter()
            .all(|request| request.connection == 0 && request.is_whole)
    );
    assert_eq!(received[2].body, b"hello");
    assert_eq!(received[2].field("x-user"), Some("alice"));
}

#[tokio::test]
async fn an_upstream_understands_chunks() {
    let upstream = Upstream::ok("new");
    let mut client = Raw::connect(upstream.address()).await;
    client
        .write(
            "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n",
        )
        .await;
    assert!(client.read_head().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(upstream.received()[0].body, b"abcd");
}

#[tokio::test]
async fn an_upstream_misbehaves_as_it_is_told() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::start("new", move |request| match request.target.as_str() {
        "/reset" => Script::reset(),
        "/close" => Script::close(),
        "/partial" => {
            Script::write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfour").then(Step::Reset)
        }
        "/flood" => Script::write("HTTP/1.1 200 OK\r\n\r\n")
            .then(Step::Flood(100_000))
            .then(Step::Close),
        "/wait" => Script::of([
            Step::Wait(held.clone()),
            Step::Pause(Duration::from_millis(1)),
            Step::Answer(Reply::new(503).field("X-Late", "1")),
        ]),
        "/stale" => Script::status(200).then(Step::CloseAtNextRequest),
        _ => Script::hang(),
    });
    for target in ["/reset", "/close"] {
        let mut client = Client::http1(upstream.address()).await;
        assert!(client.begin(get(target, "")).await.is_err(), "{target}");
    }
    let mut client = Client::http1(upstream.address()).await;
    let answer = client.get("/partial", "").await;
    assert_eq!((&answer.body[..], answer.is_whole), (&b"four"[..], false));

    let mut client = Client::http1(upstream.address()).await;
    let answer = client.get("/flood", "").await;
    assert_eq!((answer.body.len(), upstream.flooded()), (100_000, 100_000));

    let mut client = Client::http1(upstream.address()).await;
    let waiting = tokio::spawn(async move { client.get("/wait", "").await });
    upstream.has_received("/wait").await;
    assert!(!waiting.is_finished());
    gate.open();
    let answer = waiting.await.unwrap();
    assert_eq!((answer.status, answer.field("x-late")), (503, Some("1")));

    let mut client = Client::http1(upstream.address()).await;
    assert_eq!(client.get("/stale", "").await.status, 200);
    assert!(client.begin(get("/stale", "")).await.is_err());
    assert_eq!(upstream.count(|request| request.target == "/stale"), 1);

    let mut client = Raw::connect(upstream.address()).await;
    client.write("GET /hang HTTP/1.1\r\n\r\n").await;
    upstream.has_received("/hang").await;
    drop(client);
    upstream.was_departed("/hang").await;
}

#[tokio::test]
async fn tls_is_spoken_with_the_protocol_that_was_agreed() {
    let certificate = Certificate::new();
    let upstream = Upstream::start_tls("new", &certificate, |_| Script::status(200));
    let mut client = Client::tls(upstream.address(), &certificate, &["http/1.1"]).await;
    assert_eq!(client.get("/", "").await.status, 200);
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn refusing_and_silent_addresses_refuse_and_are_silent() {
    let refusing = Refusing::new();
    let refused = TcpStream::connect(refusing.address()).await;
    assert_eq!(
        refused.unwrap_err().kind(),
        std::io::ErrorKind::ConnectionRefused
    );
    let silent = Silent::new();
    let connecting = TcpStream::connect(silent.address());
    let waited = tokio::time::timeout(Duration::from_millis(300), connecting).await;
    assert!(waited.is_err(), "nobody may accept or refuse");
}

#[tokio::test]
async fn a_stopped_upstream_refuses() {
    let upstream = Upstream::ok("new");
    let address = upstream.address();
    drop(upstream);
    assert!(TcpStream::connect(address).await.is_err());
}

#[test]
fn a_scrape_is_summed_by_labels() {
    let metrics = Metrics::parse(
        "# HELP a_total Something.\na_total{x=\"1\",y=\"p \\\"q\\\" > 5%\"} 2\na_total{x=\"2\",y=\"r\"} 3\nb 4.5\n",
    );
    assert_eq!(metrics.sum("a_total", &[]), 5.0);
    assert_eq!(metrics.sum("a_total", &[("x", "1")]), 2.0);
    assert_eq!(metrics.sum("a_total", &[("y", "p \"q\" > 5%")]), 2.0);
    assert_eq!(metrics.sum("a_total", &[("y", "r"), ("x", "1")]), 0.0);
    assert_eq!(metrics.sum("b", &[]), 4.5);
}
