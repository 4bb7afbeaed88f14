//! HTTP/2 connections on which nobody asks for anything: they end, and no others do.

use crate::harness::certificate::Certificate;
use crate::harness::client::{Client, Raw};
use crate::harness::frames::{Frames, get};
use crate::harness::proxy::{PLAIN_AND_TLS, Proxy, Site};
use crate::harness::upstream::{Gate, Reply, Script, Step, Upstream};
use crate::harness::{eventually, in_time};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

async fn start(upstream: &Upstream, certificate: &Certificate) -> Proxy {
    let endpoint = upstream.address();
    Site::new()
        .certified(certificate)
        .start_on(
            PLAIN_AND_TLS,
            &format!(
                "edge: {{header_timeout: 200ms}}
backends: {{api: {{endpoints: ['{endpoint}'], timeouts: {{first_byte: 1m}}}}}}
routes: [{{backend: api}}]
"
            ),
        )
        .await
}

#[tokio::test]
async fn a_client_that_agrees_on_http2_and_says_nothing_is_not_waited_for() {
    let certificate = Certificate::new();
    let proxy = start(&Upstream::ok("api"), &certificate).await;
    let stream = TcpStream::connect(proxy.addresses()[1])
        .await
        .expect("somebody listens");
    let connector = certificate.connector(&["h2"]);
    let mut stream = in_time(
        "a TLS handshake",
        connector.connect(Certificate::name(), stream),
    )
    .await
    .expect("TLS is spoken");
    let mut said = Vec::new();
    // Whether it ends in order or with a reset is all the same to a silent client.
    let _ = in_time("the connection ends", stream.read_to_end(&mut said)).await;
}

#[tokio::test]
async fn a_client_that_begins_http2_and_never_asks_is_not_waited_for() {
    let proxy = start(&Upstream::ok("api"), &Certificate::new()).await;
    let mut client = Raw::connect(proxy.address()).await;
    client.write(PREFACE).await;
    // Settings without any setting.
    client.write([0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
    client.read_to_end().await;
}

#[tokio::test]
async fn a_quiet_http2_connection_is_closed_although_its_client_answers_pings() {
    let upstream = Upstream::ok("api");
    let proxy = start(&upstream, &Certificate::new()).await;
    let mut client = Client::http2(proxy.address()).await;
    assert_eq!(client.get("/", "").await.status, 200);
    let Client::Http2(sender) = client else {
        panic!("it speaks HTTP/2");
    };
    eventually("the connection ends", async || sender.is_closed()).await;
}

#[tokio::test]
async fn an_http2_connection_is_not_quiet_while_an_answer_is_awaited_or_streams() {
    let (head, rest) = (Gate::new(), Gate::new());
    let gates = (head.clone(), rest.clone());
    let upstream = Upstream::start("api", move |request| match request.target.as_str() {
        "/slow" => Script::of([Step::Wait(gates.0.clone()), Step::Answer(Reply::new(200))]),
        "/stream" => Script::write("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
            .then(Step::Wait(gates.1.clone()))
            .then(Step::Write("half".into())),
        _ => Script::status(200),
    });
    let proxy = start(&upstream, &Certificate::new()).await;
    let mut waiting = Client::http2(proxy.address()).await;
    let waiting = tokio::spawn(async move { waiting.get("/slow", "").await });
    let mut streaming = Client::http2(proxy.address()).await;
    let streaming = tokio::spawn(async move { streaming.get("/stream", "").await });
    upstream.has_received("/slow").await;
    upstream.has_received("/stream").await;
    // Others show that more than the patience for quiet connections has passed, and a farewell.
    for _ in 0..5 {
        let mut other = Raw::connect(proxy.address()).await;
        other.write(PREFACE).await;
        other.read_to_end().await;
    }
    head.open();
    rest.open();
    let waiting = waiting.await.expect("it does not panic");
    assert_eq!((waiting.status, waiting.is_whole), (200, true));
    let streaming = streaming.await.expect("it does not panic");
    assert_eq!(&streaming.body[..], b"halfhalf");
}

#[tokio::test]
async fn a_client_that_never_takes_the_last_pieces_of_its_answers_keeps_no_connection() {
    let upstream = Upstream::ok("api");
    let proxy = start(&upstream, &Certificate::new()).await;
    let mut client = Frames::with_window(proxy.address(), 1).await;
    for stream in [1, 3, 5] {
        client.ask(stream, &get("/")).await;
    }
    client.stays_to_the_end().await;
}
