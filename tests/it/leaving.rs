//! Clients that say no more: those who wait for their answer get it, those who have left cost no
//! upstream anything.

use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::harness::certificate::Certificate;
use crate::harness::client::{Client, Raw, get};
use crate::harness::eventually;
use crate::harness::proxy::{PLAIN_AND_TLS, Proxy, Site};
use crate::harness::upstream::{Gate, Reply, Script, Step, Upstream};

/// The limit between a client's departure and the end of what it had asked for.
const PROMPTLY: Duration = Duration::from_secs(2);
const HEAD: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
const GET: &str = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";

async fn before(upstream: &Upstream, edge: &str) -> Proxy {
    let address = upstream.address();
    let configuration = format!(
        "edge: {{{edge}}}
backends: {{api: {{endpoints: ['{address}']}}}}
routes: [{{backend: api}}]
"
    );
    Site::new().start(&configuration).await
}

/// A client whose request is being answered.
async fn waiting(proxy: &Proxy, upstream: &Upstream) -> Raw {
    let mut client = Raw::connect(proxy.address()).await;
    client.write(GET).await;
    upstream.has_received("/").await;
    client
}

#[tokio::test]
async fn a_client_that_leaves_with_other_requests_behind_its_own_costs_no_upstream_more() {
    let half = &GET[..20];
    for behind in [half, GET, &GET.repeat(20), &GET.repeat(2000)] {
        for is_reset in [false, true] {
            let upstream = Upstream::start("api", |_| Script::of([Step::AwaitDeparture]));
            let proxy = before(&upstream, "").await;
            let mut client = Raw::connect(proxy.address()).await;
            client.write(format!("{GET}{behind}")).await;
            upstream.has_received("/").await;
            let left = Instant::now();
            if is_reset {
                client.reset();
            } else {
                drop(client);
            }
            upstream.was_departed("/").await;
            assert!(left.elapsed() < PROMPTLY, "{} bytes behind", behind.len());
        }
    }
}

#[tokio::test]
async fn a_client_that_half_closes_after_its_request_gets_its_answer() {
    let upstream = Upstream::ok("api");
    let proxy = before(&upstream, "").await;
    let mut client = Raw::connect(proxy.address()).await;
    client.write(GET).await;
    client.finish().await;
    let head = client.read_head().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(client.read_to_end().await, b"api", "and then the end");
}

#[tokio::test]
async fn a_half_closed_client_may_wait_as_long_as_the_file_says() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::start("api", move |_| {
        Script::of([Step::Wait(held.clone()), Step::Answer(Reply::new(200))])
    });
    let proxy = before(&upstream, "half_close_grace: 10m").await;
    let impatient = Upstream::start("impatient", |_| Script::hang());
    let default = before(&impatient, "").await;
    let mut client = waiting(&proxy, &upstream).await;
    client.finish().await;
    // Whoever came later, and waits as long as by default, is given up before.
    let mut other = waiting(&default, &impatient).await;
    other.finish().await;
    impatient.was_departed("/").await;
    gate.open();
    assert!(client.read_head().await.starts_with("HTTP/1.1 200 "));
    let began = Instant::now();
    assert_eq!(client.read_to_end().await, b"status 200");
    assert!(began.elapsed() < PROMPTLY, "the end follows the answer");
}

#[tokio::test]
async fn a_half_closed_client_that_goes_on_taking_is_there() {
    const PIECES: usize = 30;
    let upstream = Upstream::start("api", |_| {
        let piece = [
            Step::Pause(Duration::from_millis(50)),
            Step::Write("1\r\na\r\n".into()),
        ];
        let pieces = std::iter::repeat_n(piece, PIECES).flatten();
        Script::of(std::iter::once(Step::Write(HEAD.into())).chain(pieces))
            .then(Step::Write("0\r\n\r\n".into()))
    });
    let proxy = before(&upstream, "half_close_grace: 1s").await;
    let mut client = waiting(&proxy, &upstream).await;
    client.finish().await;
    client.read_head().await;
    let body = String::from_utf8(client.read_to_end().await).expect("text");
    assert_eq!(body.matches('a').count(), PIECES, "{body}");
    assert!(body.ends_with("0\r\n\r\n"), "{body}");
}

#[tokio::test]
async fn a_client_that_leaves_ends_what_it_asked_for_within_two_seconds() {
    for http2 in [false, true] {
        let upstream = Upstream::start("api", |_| Script::hang());
        let proxy = before(&upstream, "").await;
        let left = if http2 {
            let mut client = Client::http2(proxy.address()).await;
            let asking = client.begin(get("/", ""));
            tokio::select! {
                answer = asking => panic!("answered with {answer:?}"),
                () = upstream.has_received("/") => {}
            }
            Instant::now()
        } else {
            let client = waiting(&proxy, &upstream).await;
            let left = Instant::now();
            drop(client);
            left
        };
        upstream.was_departed("/").await;
        assert!(left.elapsed() < PROMPTLY, "{:?}", left.elapsed());
        proxy.counts(0.0, "cutover_requests_in_flight", &[]).await;
    }
}

#[tokio::test]
async fn a_client_that_resets_is_not_waited_for() {
    let upstream = Upstream::start("api", |_| Script::hang());
    let proxy = before(&upstream, "half_close_grace: 10m").await;
    waiting(&proxy, &upstream).await.reset();
    upstream.was_departed("/").await;
}

#[tokio::test]
async fn a_client_that_left_is_found_out_by_the_first_piece_that_is_sent_to_it() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::start("api", move |_| {
        Script::write(format!("{HEAD}1\r\na\r\n"))
            .then(Step::Wait(held.clone()))
            .then(Step::Write("1\r\nb\r\n".into()))
            .then(Step::AwaitDeparture)
    });
    let proxy = before(&upstream, "half_close_grace: 10m").await;
    let mut client = waiting(&proxy, &upstream).await;
    client.read_head().await;
    client.read("1\r\na\r\n".len()).await;
    drop(client);
    gate.open();
    upstream.was_departed("/").await;
}

#[tokio::test]
async fn a_client_that_says_no_more_between_two_requests_is_let_go_at_once() {
    let upstream = Upstream::ok("api");
    let proxy = before(&upstream, "half_close_grace: 10m").await;
    let mut client = Raw::connect(proxy.address()).await;
    client.write(GET).await;
    client.read_head().await;
    assert_eq!(client.read(3).await, b"api");
    client.finish().await;
    assert_eq!(client.read_to_end().await, b"");
}

/// More than the sockets between a server and a client hold.
const LARGE: usize = 32 << 20;

/// A proxy for plain clients and for others, who may rest for as long as they like.
async fn before_both(upstream: &Upstream, certificate: &Certificate) -> Proxy {
    let address = upstream.address();
    let configuration = format!(
        "edge: {{half_close_grace: 10m, header_timeout: 600ms}}
backends: {{api: {{endpoints: ['{address}']}}}}
routes: [{{backend: api}}]
"
    );
    Site::new()
        .certified(certificate)
        .start_on(PLAIN_AND_TLS, &configuration)
        .await
}

/// A client that has asked over TLS, and said that it will say no more.
async fn half_closed(proxy: &Proxy, certificate: &Certificate) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(proxy.addresses()[1]).await;
    let stream = stream.expect("somebody listens");
    let connector = certificate.connector(&["http/1.1"]);
    let shaken = connector.connect(Certificate::name(), stream).await;
    let mut stream = shaken.expect("TLS is spoken");
    stream.write_all(GET.as_bytes()).await.expect("it is read");
    stream.shutdown().await.expect("it is there");
    stream
}

#[tokio::test]
async fn a_half_closed_client_that_takes_nothing_is_cut_with_tls_and_without() {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n");
    let upstream = Upstream::start("api", move |_| {
        Script::write(head.clone()).then(Step::Flood(LARGE))
    });
    let certificate = Certificate::new();
    let proxy = before_both(&upstream, &certificate).await;
    let mut plain = Raw::connect(proxy.address()).await;
    plain.write(GET).await;
    plain.finish().await;
    let _secured = half_closed(&proxy, &certificate).await;
    eventually("both are being answered", async || {
        upstream.received_for("/").len() == 2
    })
    .await;
    proxy.refused("slow_reader", 2.0).await;
    eventually("the connections are given up", async || {
        upstream.open_connections() == 0
    })
    .await;
}

#[tokio::test]
async fn a_half_closed_client_that_resets_is_not_waited_for_with_tls_and_without() {
    for is_secured in [false, true] {
        let upstream = Upstream::start("api", |_| Script::hang());
        let certificate = Certificate::new();
        let proxy = before_both(&upstream, &certificate).await;
        if is_secured {
            let client = half_closed(&proxy, &certificate).await;
            upstream.has_received("/").await;
            let linger = SockRef::from(client.get_ref().0).set_linger(Some(Duration::ZERO));
            linger.expect("TCP has this option");
        } else {
            let mut client = waiting(&proxy, &upstream).await;
            client.finish().await;
            client.reset();
        }
        upstream.was_departed("/").await;
    }
}
