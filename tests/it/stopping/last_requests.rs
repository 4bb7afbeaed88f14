//! Requests that were on their way when the drain began, on connections whose clients could not
//! know of it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::harness::certificate::Certificate;
use crate::harness::client::{Answer, Client, Raw, get};
use crate::harness::frames::{Frames, GOAWAY, Outcome, get as asking};
use crate::harness::proxy::{ONLY_TLS, Proxy, Site};
use crate::harness::upstream::{Gate, Upstream};
use crate::harness::{eventually, in_time};

use super::{NEVER, refuses_connections, start, upstream};

/// The time that such a client is given once the drain has begun.
const GIVEN: Duration = Duration::from_millis(500);
/// Attempts that a machine under load may spoil.
const ATTEMPTS: usize = 5;
const PROTOCOLS: [&str; 2] = ["http/1.1", "h2"];

async fn start_tls(upstream: &Upstream, certificate: &Certificate) -> Proxy {
    let endpoint = upstream.address();
    Site::new()
        .certified(certificate)
        .start_on(
            ONLY_TLS,
            &format!(
                "drain: {{delay: 0s, deadline: {NEVER}}}
backends: {{api: {{endpoints: ['{endpoint}']}}}}
routes: [{{backend: api}}]
"
            ),
        )
        .await
}

/// Has the proxy drain, and then the client ask, as often as it takes until it asks in time.
///
/// Once connections are refused, the workers drain, too.
async fn is_answered<C>(
    start: impl AsyncFn() -> Proxy,
    connect: impl AsyncFn(&Proxy) -> C,
    ask: impl AsyncFn(C) -> hyper::Result<u16>,
) {
    for _ in 0..ATTEMPTS {
        let mut proxy = start().await;
        let client = connect(&proxy).await;
        let asked = Instant::now();
        proxy.signal("TERM");
        refuses_connections(&proxy).await;
        let answer = ask(client).await;
        if answer.is_ok() || asked.elapsed() < GIVEN {
            assert_eq!(answer.expect("a request in time is answered"), 200);
            assert_eq!(proxy.ended().await.code(), Some(0));
            return;
        }
    }
    panic!("the machine is too slow for this test");
}

async fn ask(mut client: Client) -> hyper::Result<u16> {
    let answer = client.begin(get("/", "")).await;
    answer.map(|response| response.status().as_u16())
}

#[tokio::test]
async fn a_first_request_over_tls_that_crosses_with_the_drain_is_answered() {
    let upstream = Upstream::ok("api");
    let certificate = Certificate::new();
    for protocol in PROTOCOLS {
        is_answered(
            async || start_tls(&upstream, &certificate).await,
            async |proxy| Client::tls(proxy.address(), &certificate, &[protocol]).await,
            ask,
        )
        .await;
    }
}

#[tokio::test]
async fn a_first_request_over_http2_in_clear_that_crosses_with_the_drain_is_answered() {
    let upstream = Upstream::ok("api");
    is_answered(
        async || start(&upstream, "0s", NEVER).await,
        async |proxy| Client::http2(proxy.address()).await,
        ask,
    )
    .await;
}

#[tokio::test]
async fn a_handshake_that_crosses_with_the_drain_goes_on_and_its_request_is_answered() {
    let upstream = Upstream::ok("api");
    let certificate = Certificate::new();
    for protocol in PROTOCOLS {
        let mut proxy = start_tls(&upstream, &certificate).await;
        let stream = TcpStream::connect(proxy.address()).await;
        let stream = stream.expect("somebody listens");
        proxy.signal("TERM");
        refuses_connections(&proxy).await;
        let connector = certificate.connector(&[protocol]);
        let mut client = Client::shaking_hands(stream, &connector).await;
        assert_eq!(client.get("/", "").await.status, 200, "{protocol}");
        assert_eq!(proxy.ended().await.code(), Some(0));
    }
}

#[tokio::test]
async fn whoever_says_nothing_after_its_handshake_keeps_no_process() {
    let upstream = Upstream::ok("api");
    let certificate = Certificate::new();
    for protocol in PROTOCOLS {
        let mut proxy = start_tls(&upstream, &certificate).await;
        let _silent = Client::tls(proxy.address(), &certificate, &[protocol]).await;
        proxy.signal("TERM");
        assert_eq!(proxy.ended().await.code(), Some(0), "{protocol}");
        assert!(!proxy.log().contains("cutting what is left"));
    }
}

#[tokio::test]
async fn http2_without_a_request_gets_goaway_before_it_is_closed() {
    let upstream = Upstream::ok("api");
    let mut proxy = start(&upstream, "0s", NEVER).await;
    let mut client = Frames::connect(proxy.address()).await;
    proxy.signal("TERM");
    let mut is_told = false;
    while let Some(frame) = client.next().await {
        is_told |= frame.kind == GOAWAY;
    }
    assert!(is_told);
    assert_eq!(proxy.ended().await.code(), Some(0));
}

#[tokio::test]
async fn http2_that_ignores_goaway_does_not_outlive_the_request_it_had() {
    let gate = Gate::new();
    let upstream = upstream(&gate);
    let mut proxy = start(&upstream, "0s", NEVER).await;
    let mut client = Frames::connect(proxy.address()).await;
    client.ask(1, &asking("/slow")).await;
    upstream.has_received("/slow").await;
    proxy.signal("TERM");
    client.is_refused_from(1).await;
    client.ask(3, &asking("/late")).await;
    gate.open();
    assert!(matches!(client.outcome(1).await, Outcome::Answered(200, _)));
    assert_eq!(client.outcome(3).await, Outcome::Gone(None));
    assert_eq!(proxy.ended().await.code(), Some(0));
    assert_eq!(upstream.received().len(), 1);
}

#[tokio::test]
async fn a_client_that_was_not_told_may_ask_once_more_after_an_answer_that_outlasts_the_drain() {
    let gate = Gate::new();
    let upstream = upstream(&gate);
    is_answered(
        async || start(&upstream, "0s", NEVER).await,
        async |proxy| {
            let mut client = Client::http1(proxy.address()).await;
            let streaming = client.begin(get("/stream", "")).await;
            (client, streaming.expect("its head has come"))
        },
        async |(mut client, streaming)| {
            gate.open();
            let answer = Answer::read(streaming).await;
            assert!(answer.is_whole);
            assert_eq!(answer.field("connection"), None, "it was not told");
            let answer = client.begin(get("/", "")).await?;
            assert_eq!(answer.headers()["connection"], "close");
            Ok(answer.status().as_u16())
        },
    )
    .await;
}

#[tokio::test]
async fn a_kept_alive_client_that_rests_when_the_drain_begins_may_ask_once_more() {
    let upstream = Upstream::ok("api");
    is_answered(
        async || start(&upstream, "0s", NEVER).await,
        async |proxy| {
            let mut client = Client::http1(proxy.address()).await;
            assert_eq!(client.get("/", "").await.status, 200);
            client
        },
        async |mut client| {
            let answer = client.begin(get("/", "")).await?;
            assert_eq!(answer.headers()["connection"], "close");
            Ok(answer.status().as_u16())
        },
    )
    .await;
}

/// Asks again and again on one connection until told that it ends; the number of answers.
async fn ask_on(address: SocketAddr, rest: Duration) -> usize {
    let mut client = Raw::connect(address).await;
    for answered in 1.. {
        client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let head = client.read_head().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(client.read("api".len()).await, b"api");
        if head.contains("Connection: close") {
            return answered;
        }
        tokio::time::sleep(rest).await;
        if client.has_ended() {
            return answered;
        }
    }
    unreachable!("it goes on until it is told to leave");
}

#[tokio::test]
async fn clients_that_ask_again_and_again_lose_no_request_to_the_drain() {
    let upstream = Upstream::ok("api");
    let mut proxy = start(&upstream, "0s", NEVER).await;
    let rests = (0..20).map(|number| Duration::from_millis(number / 2));
    let asking: JoinSet<usize> = rests.map(|rest| ask_on(proxy.address(), rest)).collect();
    eventually("there is load", async || upstream.received().len() > 200).await;
    proxy.signal("TERM");
    let answered: usize = asking.join_all().await.into_iter().sum();
    assert_eq!(upstream.received().len(), answered);
    assert_eq!(proxy.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_kept_alive_client_is_told_with_an_answer_before_it_is_closed() {
    let upstream = upstream(&Gate::new());
    let mut proxy = start(&upstream, NEVER, NEVER).await;
    let mut kept = Raw::connect(proxy.address()).await;
    let request = "GET / HTTP/1.1\r\nHost: api.example\r\n\r\n";
    kept.write(request).await;
    let head = kept.read_head().await;
    assert!(!head.contains("Connection: close"), "{head}");
    kept.read("status 200".len()).await;
    proxy.signal("TERM");
    proxy.says(1, "draining").await;
    super::is_not_ready(&proxy).await;
    assert!(!kept.has_ended(), "at rest, it is not closed yet");
    // The workers are told after the readiness went down; a request or two may be quicker.
    loop {
        kept.write(request).await;
        let head = kept.read_head().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        kept.read("status 200".len()).await;
        if head.contains("Connection: close") {
            break;
        }
    }
    assert_eq!(in_time("its end", kept.read_to_end()).await, b"");
    proxy.signal("TERM");
    assert_eq!(proxy.ended().await.code(), Some(0));
}
