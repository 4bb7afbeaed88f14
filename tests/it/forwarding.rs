//! What crosses the proxy, and how: heads, bodies of every framing in either direction, and what
//! becomes of an exchange when one side is slow, early, or gone.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;

use crate::harness::certificate::Certificate;
use crate::harness::client::{Client, Raw, get, request};
use crate::harness::proxy::{PLAIN_AND_TLS, Proxy, Site};
use crate::harness::traffic::halted;
use crate::harness::upstream::{Gate, Reply, Script, Step, Upstream};

/// More than all socket buffers on the way hold, and far more than the proxy may keep.
const LARGE: usize = 64 * 1024 * 1024;
/// What may be on its way while nobody reads: socket buffers, and a little in the proxy.
const ON_ITS_WAY: usize = 24 * 1024 * 1024;
/// What the proxy may keep of a body, with much to spare.
const KEPT: usize = 16 * 1024 * 1024;

/// All traffic to one server, as the `new` arm of a split, so that bodies pass the replay buffer.
async fn start(upstream: &Upstream) -> Proxy {
    Site::new().start(&configuration(upstream, "")).await
}

fn configuration(upstream: &Upstream, more: &str) -> String {
    let address = upstream.address();
    format!(
        "backends:
  legacy: {{endpoints: ['{address}']}}
  new: {{endpoints: ['{address}']}}
splits:
  api:
    legacy: legacy
    new: new
    share: 100%
    rollback: off
    analysis: {{hard_fail: 1000000}}
routes:
  - {{split: api}}
{more}
"
    )
}

/// Sends the head of a request and nothing else.
async fn begin(proxy: &Proxy, head: &str) -> Raw {
    let mut client = Raw::connect(proxy.address()).await;
    client
        .write(format!("{head}\r\nHost: api.example\r\n\r\n"))
        .await;
    client
}

#[tokio::test]
async fn an_answer_flows_no_faster_than_its_reader_reads() {
    let upstream = Upstream::start("new", |request| match request.target.as_str() {
        "/beside" => Script::status(200),
        _ => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n");
            Script::write(head).then(Step::Flood(LARGE))
        }
    });
    let proxy = start(&upstream).await;
    let before = proxy.peak_memory();
    let mut client = begin(&proxy, "GET / HTTP/1.1").await;
    client.read_head().await;
    let flooded = halted(&proxy, &upstream).await;
    assert!(
        flooded < ON_ITS_WAY,
        "{flooded} bytes were taken from the server"
    );
    let body = client.read(LARGE).await;
    assert_eq!(body.len(), LARGE);
    assert!(body.iter().all(|byte| *byte == b'x'));
    let kept = proxy.peak_memory() - before;
    assert!(kept < KEPT, "{kept} bytes of memory");
}

#[tokio::test]
async fn a_request_flows_no_faster_than_its_server_reads() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::start("new", move |_| {
        Script::of([Step::Wait(held.clone()), Step::Answer(Reply::new(200))])
    });
    let proxy = start(&upstream).await;
    let before = proxy.peak_memory();
    let head = format!("POST /large HTTP/1.1\r\nContent-Length: {LARGE}");
    let mut client = begin(&proxy, &head).await;
    let body = vec![b'y'; LARGE];
    let taken = client.write_until_stuck(&body).await;
    assert!(
        taken < ON_ITS_WAY,
        "{taken} bytes were taken from the client"
    );
    gate.open();
    client.write(&body[taken..]).await;
    assert!(client.read_head().await.starts_with("HTTP/1.1 200 "));
    let received = upstream.received_for("/large");
    assert_eq!(received[0].body.len(), LARGE);
    let kept = proxy.peak_memory() - before;
    assert!(kept < KEPT, "{kept} bytes of memory");
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_with_it() {
    let upstream = Upstream::start("new", |request| match request.target.as_str() {
        "/waiting" => Script::hang(),
        "/reading" => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n");
            Script::write(head).then(Step::Flood(LARGE))
        }
        _ => Script::status(200),
    });
    let proxy = start(&upstream).await;
    for head in [
        "GET /waiting HTTP/1.1",
        "GET /reading HTTP/1.1",
        "POST /writing HTTP/1.1\r\nContent-Length: 10",
    ] {
        let target = head.split(' ').nth(1).unwrap();
        let client = begin(&proxy, head).await;
        upstream.has_received(target).await;
        drop(client);
        upstream.was_departed(target).await;
    }
    let booked = [("split", "api"), ("arm", "new"), ("class", "cancelled")];
    proxy.counts(3.0, "cutover_requests_total", &booked).await;
}

#[tokio::test]
async fn the_target_and_the_end_to_end_fields_arrive_as_they_were_sent() {
    let upstream = Upstream::start("new", |_| {
        Script::write(
            "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2; Path=/\r\nX-Mine: 1\r\n\
             Connection: keep-alive, X-Mine\r\nKeep-Alive: timeout=5\r\nServer: old\r\n\
             Cutover-Arm: legacy\r\nContent-Length: 2\r\n\r\nok",
        )
    });
    let proxy = start(&upstream).await;
    let target = "/a//b/../c%2F%zz?x=%20y&&z=/?";
    let mut client = Raw::connect(proxy.address()).await;
    client
        .write(format!(
            "GET {target} HTTP/1.1\r\nHost: shop.example:81\r\nX-A: 1\r\nx-b: two  words\r\nX-A: 2\r\n\
             Connection: X-Secret\r\nX-Secret: 1\r\nKeep-Alive: 9\r\nTE: trailers\r\n\
             X-Forwarded-For: 198.51.100.7\r\nX-Forwarded-Proto: https\r\n\
             X-Forwarded-Port: 443\r\nForwarded: for=198.51.100.7\r\nX-Real-Ip: 198.51.100.7\r\n\
             X-Request-Id: a stranger's\r\n\r\n"
        ))
        .await;
    let head = client.read_head().await;
    assert_eq!(client.read(2).await, b"ok");
    for line in [
        "Set-Cookie: a=1\r\nSet-Cookie: b=2; Path=/\r\n",
        "Server: old\r\n",
    ] {
        assert!(head.contains(line), "{head}");
    }
    for name in ["X-Mine", "Keep-Alive", "Cutover-Arm"] {
        assert!(!head.contains(name), "{head}");
    }
    let received = &upstream.received()[0];
    assert_eq!(received.target, target);
    let id = received
        .field("x-request-id")
        .expect("every request is given one");
    assert!(
        id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{id}"
    );
    let fields: Vec<_> = received
        .fields
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .filter(|(name, _)| *name != "X-Request-Id")
        .collect();
    assert_eq!(
        fields,
        [
            ("Host", "shop.example:81"),
            ("X-A", "1"),
            ("x-b", "two  words"),
            ("X-A", "2"),
            ("X-Forwarded-For", "127.0.0.1"),
            ("X-Forwarded-Proto", "http"),
            ("X-Forwarded-Host", "shop.example:81"),
            ("TE", "trailers"),
            ("Connection", "TE"),
        ]
    );
}

#[tokio::test]
async fn a_trusted_proxys_word_is_passed_on() {
    let upstream = Upstream::ok("new");
    let trust = "edge: {trusted_proxies: [127.0.0.0/8]}";
    let proxy = Site::new().start(&configuration(&upstream, trust)).await;
    let forwarded = Request::get("/")
        .header("x-forwarded-for", "198.51.100.7")
        .header("x-forwarded-proto", "https")
        .header("x-forwarded-host", "shop.example")
        .header("x-request-id", "a-trusted-one")
        .body(Full::new(Bytes::new()))
        .unwrap();
    assert_eq!(proxy.client().await.send(forwarded).await.status, 200);
    let received = &upstream.received()[0];
    assert_eq!(
        received.field("x-forwarded-for"),
        Some("198.51.100.7, 127.0.0.1")
    );
    assert_eq!(received.field("x-forwarded-proto"), Some("https"));
    assert_eq!(received.field("x-forwarded-host"), Some("shop.example"));
    assert_eq!(received.field("x-request-id"), Some("a-trusted-one"));
}

#[tokio::test]
async fn lengths_of_answers_without_a_body_are_passed_on_as_received() {
    let upstream = Upstream::start("new", |request| match request.target.as_str() {
        "/head" => Script::write("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"),
        "/no-length" => Script::write("HTTP/1.1 200 OK\r\n\r\n"),
        "/304" => {
            Script::write("HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\nETag: a\r\n\r\n")
        }
        "/204" => Script::write("HTTP/1.1 204 No Content\r\n\r\n"),
        _ => Script::write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    });
    let proxy = start(&upstream).await;
    // One connection: a body that is wrongly announced or sent would spoil the next answer.
    let mut client = Raw::connect(proxy.address()).await;
    for (method, target, status, length) in [
        ("HEAD", "/head", 200, Some("1234")),
        ("HEAD", "/no-length", 200, None),
        ("GET", "/304", 304, Some("99")),
        ("GET", "/204", 204, None),
        ("GET", "/empty", 200, Some("0")),
    ] {
        client
            .write(format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n"))
            .await;
        let head = client.read_head().await;
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{target}: {head}"
        );
        let announced = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "));
        assert_eq!(announced, length, "{target}: {head}");
        assert!(!head.contains("Transfer-Encoding"), "{target}: {head}");
    }
    let mut http2 = Client::http2(proxy.address()).await;
    let answer = http2.get("/304", "alice").await;
    assert_eq!((answer.status, answer.is_whole), (304, true));
    assert_eq!(answer.field("content-length"), Some("99"));
    let success = [("split", "api"), ("arm", "new"), ("class", "success")];
    proxy.counts(6.0, "cutover_requests_total", &success).await;
}

#[tokio::test]
async fn bodies_of_every_framing_arrive_whole() {
    let upstream = Upstream::start("new", |request| match request.target.as_str() {
        "/length" => Script::write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
        "/chunked" => Script::write(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;ext\r\nllo\r\n0\r\n\r\n",
        ),
        "/pieces" => Script::write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nh")
            .then(Step::Pause(Duration::from_millis(20)))
            .then(Step::Write(Bytes::from("e\r\n3\r\nllo\r\n0\r")))
            .then(Step::Pause(Duration::from_millis(20)))
            .then(Step::Write(Bytes::from("\n\r\n"))),
        "/close" => Script::write("HTTP/1.1 200 OK\r\n\r\nhello").then(Step::Close),
        "/old" => Script::write("HTTP/1.0 200 OK\r\n\r\nhello").then(Step::Close),
        _ => Script::write(
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello",
        ),
    });
    let proxy = start(&upstream).await;
    let mut http1 = proxy.client().await;
    let mut http2 = Client::http2(proxy.address()).await;
    let targets = ["/length", "/chunked", "/pieces", "/close", "/old", "/kept"];
    for target in targets {
        for client in [&mut http1, &mut http2] {
            let answer = client.get(target, "alice").await;
            assert_eq!(
                (&answer.body[..], answer.is_whole),
                (&b"hello"[..], true),
                "{target}"
            );
        }
    }
    let mut old = Raw::connect(proxy.address()).await;
    old.write("GET /chunked HTTP/1.0\r\n\r\n").await;
    let answer = String::from_utf8(old.read_to_end().await).unwrap();
    assert!(
        answer.ends_with("\r\n\r\nhello"),
        "HTTP/1.0 knows no chunks: {answer}"
    );
}

#[tokio::test]
async fn bodies_of_requests_arrive_whole_with_the_framing_they_came_with() {
    let upstream = Upstream::ok("new");
    let proxy = start(&upstream).await;
    let answer = proxy
        .client()
        .await
        .send(request("POST", "/length", "alice", "hello"))
        .await;
    assert_eq!(answer.status, 200);
    let mut chunked = begin(
        &proxy,
        "POST /chunked HTTP/1.1\r\nTransfer-Encoding: chunked",
    )
    .await;
    chunked
        .write("2\r\nhe\r\n3;ext\r\nllo\r\n0\r\nX-Sum: 1\r\n\r\n")
        .await;
    assert!(chunked.read_head().await.starts_with("HTTP/1.1 200 "));
    let mut http2 = Client::http2(proxy.address()).await;
    http2
        .send(request("POST", "/http2", "alice", "hello"))
        .await;
    for target in ["/length", "/chunked", "/http2"] {
        let received = &upstream.received_for(target)[0];
        assert_eq!(received.body, b"hello", "{target}");
        let is_chunked = received.field("transfer-encoding") == Some("chunked");
        assert_eq!(is_chunked, target == "/chunked", "{target}");
        assert_eq!(
            received.field("content-length").is_some(),
            !is_chunked,
            "{target}"
        );
    }
}

#[tokio::test]
async fn both_bodies_flow_at_once() {
    let upstream = Upstream::start("new", |_| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nearly\r\n";
        Script::of([
            Step::ReadSome,
            Step::Write(Bytes::from(head)),
            Step::ReadBody,
            Step::Write(Bytes::from("4\r\nlate\r\n0\r\n\r\n")),
        ])
    });
    let proxy = start(&upstream).await;
    let mut client = begin(&proxy, "POST /both HTTP/1.1\r\nContent-Length: 10").await;
    client.write("first").await;
    assert!(client.read_head().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(client.read(10).await, b"5\r\nearly\r\n");
    client.write("other").await;
    assert_eq!(client.read(14).await, b"4\r\nlate\r\n0\r\n\r\n");
    assert_eq!(upstream.received_for("/both")[0].body, b"firstother");
}

#[tokio::test]
async fn an_answer_that_comes_before_the_upload_ends_is_passed_on_at_once() {
    let refusal = "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig";
    let upstream = Upstream::start("new", move |request| match request.target.as_str() {
        "/and-waits" => Script::of([Step::ReadSome, Step::Write(refusal.into())]),
        _ => Script::of([Step::ReadSome, Step::Write(refusal.into()), Step::Close]),
    });
    let proxy = start(&upstream).await;
    for target in ["/and-waits", "/and-closes"] {
        let head = format!("POST {target} HTTP/1.1\r\nContent-Length: 1000000");
        let mut client = begin(&proxy, &head).await;
        client.write("first").await;
        assert!(
            client.read_head().await.starts_with("HTTP/1.1 413 "),
            "{target}"
        );
        assert_eq!(client.read(3).await, b"big", "{target}");
    }
    let booked = [("split", "api"), ("class", "client_error")];
    proxy.counts(2.0, "cutover_requests_total", &booked).await;
}

#[tokio::test]
async fn an_informational_answer_is_not_the_answer_and_expectations_are_met_here() {
    let upstream = Upstream::start("new", |_| {
        Script::write(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
             HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        )
    });
    let proxy = start(&upstream).await;
    let answer = proxy.client().await.get("/", "alice").await;
    assert_eq!((answer.status, &answer.body[..]), (200, &b"ok"[..]));
    assert_eq!(answer.field("link"), None);

    let head = "POST /expecting HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue";
    let mut client = begin(&proxy, head).await;
    assert!(client.read_head().await.starts_with("HTTP/1.1 100 "));
    client.write("hello").await;
    assert!(client.read_head().await.starts_with("HTTP/1.1 103 "));
    assert!(client.read_head().await.starts_with("HTTP/1.1 200 "));
    let received = &upstream.received_for("/expecting")[0];
    assert_eq!(received.body, b"hello");
    assert_eq!(received.field("expect"), None);
}

#[tokio::test]
async fn trailers_reach_a_client_that_can_read_them() {
    let upstream = Upstream::start("new", |_| {
        Script::write(
            "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n\
             2\r\nok\r\n0\r\nGrpc-Status: 0\r\nGrpc-Message: fine\r\n\r\n",
        )
    });
    let proxy = start(&upstream).await;
    let answer = Client::http2(proxy.address()).await.get("/", "alice").await;
    assert_eq!(&answer.body[..], b"ok");
    assert_eq!(answer.trailers["grpc-status"], "0");
    assert_eq!(answer.trailers["grpc-message"], "fine");
}

#[tokio::test]
async fn http2_is_spoken_in_clear_and_agreed_on_under_tls() {
    let upstream = Upstream::ok("new");
    let certificate = Certificate::new();
    let proxy = Site::new()
        .certified(&certificate)
        .start_on(PLAIN_AND_TLS, &configuration(&upstream, ""))
        .await;
    let [plain, secure] = proxy.addresses()[..] else {
        panic!("two listeners were configured");
    };
    for (mut client, target, is_http2) in [
        (Client::http2(plain).await, "/clear", true),
        (
            Client::tls(secure, &certificate, &["h2", "http/1.1"]).await,
            "/h2",
            true,
        ),
        (
            Client::tls(secure, &certificate, &["http/1.1"]).await,
            "/h1",
            false,
        ),
        (Client::tls(secure, &certificate, &[]).await, "/none", false),
    ] {
        assert_eq!(matches!(client, Client::Http2(_)), is_http2, "{target}");
        let answer = client.get(target, "alice").await;
        assert_eq!(
            (answer.status, answer.served_by()),
            (200, Some("new")),
            "{target}"
        );
        let received = &upstream.received_for(target)[0];
        assert_eq!(received.field("host"), Some("api.example"), "{target}");
        let scheme = if target == "/clear" { "http" } else { "https" };
        assert_eq!(
            received.field("x-forwarded-proto"),
            Some(scheme),
            "{target}"
        );
    }
}

#[tokio::test]
async fn a_tls_upstream_is_verified_and_spoken_to() {
    let certificate = Certificate::new();
    let upstream = Upstream::start_tls("new", &certificate, |_| Script::status(200));
    let address = upstream.address();
    let proxy = Site::new()
        .file("root.pem", &certificate.certificate_pem)
        .start(&format!(
            "backends:
  api: {{endpoints: ['{address}'], tls: {{roots: root.pem, server_name: localhost}}}}
  mistaken: {{endpoints: ['{address}'], tls: {{roots: root.pem, server_name: other.example}}}}
routes:
  - {{path: /mistaken, backend: mistaken}}
  - {{backend: api}}
"
        ))
        .await;
    let mut client = proxy.client().await;
    for _ in 0..3 {
        assert_eq!(client.send(get("/", "")).await.status, 200);
    }
    assert_eq!(client.send(get("/mistaken", "")).await.status, 502);
    assert_eq!(upstream.received().len(), 3);
}
