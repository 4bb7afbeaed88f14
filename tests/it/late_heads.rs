//! Heads that are not whole in time: who has begun one is told, who has not is left without a word.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::certificate::Certificate;
use crate::harness::client::Raw;
use crate::harness::in_time;
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::{Gate, Reply, Script, Step, Upstream};

const GET: &str = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
const HALF: &str = "GET / HTTP/1.1\r\nHost: a.exa";

async fn start(upstream: &Upstream, certificate: &Certificate, patience: &str) -> Proxy {
    let endpoint = upstream.address();
    Site::new()
        .file("edge.pem", &certificate.certificate_pem)
        .file("edge.key", &certificate.key_pem)
        .start_on(
            "[{address: 127.0.0.1:0}, {address: 127.0.0.1:0, tls: {certificate: edge.pem, key: edge.key}}]",
            &format!(
                "edge: {{header_timeout: {patience}}}
backends: {{api: {{endpoints: ['{endpoint}']}}}}
routes: [{{backend: api}}]
"
            ),
        )
        .await
}

/// Everything that is said over TLS to a client that says `bytes`.
async fn heard_over_tls(proxy: &Proxy, certificate: &Certificate, bytes: &str) -> String {
    let stream = TcpStream::connect(proxy.addresses()[1])
        .await
        .expect("somebody listens");
    let connector = certificate.connector(&["http/1.1"]);
    let connecting = connector.connect(Certificate::name(), stream);
    let mut stream = in_time("a handshake", connecting)
        .await
        .expect("TLS is spoken");
    let written = stream.write_all(bytes.as_bytes()).await;
    written.expect("the proxy is there");
    let mut heard = String::new();
    let ended = in_time("the end", stream.read_to_string(&mut heard)).await;
    ended.expect("TLS ends in order");
    heard
}

/// Everything that is said to a client that says `bytes`.
async fn heard(proxy: &Proxy, bytes: &str) -> String {
    let mut client = Raw::connect(proxy.address()).await;
    client.write(bytes).await;
    text(client.read_to_end().await)
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("answers in tests are ASCII")
}

fn is_408(answer: &str) {
    let (head, body) = answer.split_once("\r\n\r\n").expect("there is an answer");
    assert!(
        head.starts_with("HTTP/1.1 408 Request Timeout\r\n"),
        "{head}"
    );
    let length = format!("\r\nContent-Length: {}", body.len());
    for field in ["\r\nConnection: close", "\r\nDate: ", &length] {
        assert!(head.contains(field), "{field} in {head}");
    }
}

async fn counted(proxy: &Proxy, count: f64) {
    let reason = [("reason", "no_request")];
    proxy.counts(count, "cutover_refused_total", &reason).await;
    proxy.counts(0.0, "cutover_client_connections", &[]).await;
}

#[tokio::test]
async fn half_a_head_is_answered_408_in_plain_and_in_tls() {
    let upstream = Upstream::ok("api");
    let certificate = Certificate::new();
    let proxy = start(&upstream, &certificate, "300ms").await;
    is_408(&heard(&proxy, HALF).await);
    is_408(&heard(&proxy, "G").await);
    is_408(&heard_over_tls(&proxy, &certificate, HALF).await);
    counted(&proxy, 3.0).await;
    assert!(upstream.received().is_empty());
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_answered_408_in_time() {
    let upstream = Upstream::ok("api");
    let proxy = start(&upstream, &Certificate::new(), "300ms").await;
    let mut client = Raw::connect(proxy.address()).await;
    let begun = Instant::now();
    client.write(HALF).await;
    in_time("something is said", async {
        while !client.has_heard() {
            client.write("e").await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(begun.elapsed() >= Duration::from_millis(300));
    // It goes on for a while, as somebody does who looks at nothing before he is done.
    for _ in 0..10 {
        client.try_write(b"e").await;
    }
    is_408(&text(client.read_to_end().await));
    counted(&proxy, 1.0).await;
}

#[tokio::test]
async fn whoever_has_begun_no_head_is_left_without_a_word() {
    let upstream = Upstream::ok("api");
    let certificate = Certificate::new();
    let proxy = start(&upstream, &certificate, "300ms").await;
    assert_eq!(heard(&proxy, "").await, "");
    assert_eq!(heard_over_tls(&proxy, &certificate, "").await, "");
    // Some send an empty line behind their request, or before it.
    assert_eq!(heard(&proxy, "\r\n").await, "");
    counted(&proxy, 3.0).await;
    let behind = format!("{GET}\r\n");
    for bytes in [GET, &behind] {
        for answer in [
            heard(&proxy, bytes).await,
            heard_over_tls(&proxy, &certificate, bytes).await,
        ] {
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            assert!(answer.ends_with("\r\n\r\napi"), "{answer}");
        }
    }
    counted(&proxy, 3.0).await;
}

#[tokio::test]
async fn half_a_head_behind_a_request_is_answered_behind_its_answer() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::start("api", move |_| {
        Script::of([Step::Wait(held.clone()), Step::Answer(Reply::new(200))])
    });
    let proxy = start(&upstream, &Certificate::new(), "300ms").await;
    let mut client = Raw::connect(proxy.address()).await;
    client.write(format!("{GET}{HALF}")).await;
    upstream.has_received("/").await;
    // Others show that the patience with a head is over.
    is_408(&heard(&proxy, HALF).await);
    assert!(!client.has_heard(), "first comes what was asked for first");
    gate.open();
    let answers = text(client.read_to_end().await);
    assert!(answers.starts_with("HTTP/1.1 200 OK\r\n"), "{answers}");
    let second = answers.find("HTTP/1.1 408 ").expect("a second answer");
    is_408(&answers[second..]);
    counted(&proxy, 2.0).await;
}

#[tokio::test]
async fn a_head_has_its_whole_time_also_after_a_rest() {
    // Two of these are more than one patience, and one is less by far.
    const PAUSE: Duration = Duration::from_millis(1800);
    let upstream = Upstream::ok("api");
    let proxy = start(&upstream, &Certificate::new(), "3s").await;
    let mut client = Raw::connect(proxy.address()).await;
    for _ in 0..2 {
        tokio::time::sleep(PAUSE).await;
        client.write(HALF).await;
        tokio::time::sleep(PAUSE).await;
        client.write("mple\r\n\r\n").await;
        let head = client.read_head().await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert_eq!(client.read(3).await, b"api");
    }
}
