//! What is passed on must be what was sent, byte for byte, as far as it is anybody's business but
//! the connection's.

mod heads;
mod limits;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body::{Body, Frame};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::harness::client::{Client, Raw};
use crate::harness::in_time;
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::{Script, Step, Upstream};
use crate::harness::witness::{Seen, Witness};

/// All traffic to one server, with these settings of the edge.
async fn start(address: std::net::SocketAddr, edge: &str) -> Proxy {
    let configuration = format!(
        "edge: {{{edge}}}
backends:
  api: {{endpoints: ['{address}']}}
routes:
  - {{path: /closed, methods: [PATCH], backend: api}}
  - {{path_prefix: /, methods: [GET, HEAD, POST, PUT], backend: api}}
"
    );
    Site::new().start(&configuration).await
}

/// What the witness has seen, all of it in the one right spelling.
fn seen(witness: &Witness) -> Vec<Seen> {
    assert_eq!(witness.complaints(), [""; 0]);
    witness.seen()
}

#[tokio::test]
async fn a_target_is_passed_on_byte_for_byte() {
    const TARGETS: [&str; 22] = [
        "/",
        "//",
        "///a//",
        "/a/",
        "/%2F%2f",
        "/a/..;/b",
        "/.",
        "/a/./b/../c",
        "/%2e%2e/%2E",
        "/a%00%0d%0a%20",
        "/%zz%",
        "/a;b=c;d",
        "/a:b@c!$&'()*+,=~",
        "/a\\b",
        "/a|b",
        "/{a}[b]^",
        "/\u{e9}",
        "/?",
        "/a?",
        "/a??b=?/&&",
        "/a?b=%2F&b=c+d&=&e{}`^",
        "/a?http://b.example/",
    ];
    let witness = Witness::start();
    let proxy = start(witness.address(), "").await;
    let mut client = Raw::connect(proxy.address()).await;
    for target in TARGETS {
        client
            .write(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"))
            .await;
        let head = client.read_head().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{target}: {head}");
        client.read(2).await;
    }
    let seen = seen(&witness);
    let targets: Vec<_> = seen.iter().map(|seen| seen.target.as_str()).collect();
    assert_eq!(targets, TARGETS);
}

/// A body of unknown length.
struct Frames(VecDeque<Frame<Bytes>>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}

#[tokio::test]
async fn trailers_of_a_request_follow_its_chunks() {
    let witness = Witness::start();
    let proxy = start(witness.address(), "").await;
    let mut client = Raw::connect(proxy.address()).await;
    client
        .write(
            "POST /http1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\
             Trailer: X-Sum\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nX-Sum: 1\r\nContent-Length: 7\r\n\
             X-Forwarded-For: 192.0.2.1\r\nX_Real_IP: 192.0.2.1\r\nx-sum: 2\r\n\r\n",
        )
        .await;
    assert!(client.read_head().await.starts_with("HTTP/1.1 200 "));

    let stream = tokio::net::TcpStream::connect(proxy.address())
        .await
        .unwrap();
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.unwrap();
    tokio::spawn(connection);
    let mut trailers = HeaderMap::new();
    trailers.append("x-sum", "1".parse().unwrap());
    trailers.append("authorization", "no".parse().unwrap());
    trailers.append("x-sum", "2".parse().unwrap());
    let body = Frames(VecDeque::from([
        Frame::data(Bytes::from("hello")),
        Frame::trailers(trailers),
    ]));
    let request = Request::post("http://a/http2")
        .header("trailer", "X-Sum")
        .body(body)
        .unwrap();
    let answer = in_time("an answer", sender.send_request(request)).await;
    assert_eq!(answer.unwrap().status(), 200);

    let seen = seen(&witness);
    for (seen, target) in seen.iter().zip(["/http1", "/http2"]) {
        assert_eq!(
            (seen.target.as_str(), &seen.body[..]),
            (target, &b"hello"[..])
        );
        assert_eq!(seen.values("trailer"), ["X-Sum"], "{target}");
        let sums = [("X-Sum", "1"), ("X-Sum", "2")];
        let sums = sums.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(seen.trailers, sums, "{target}");
    }
    assert_eq!(seen.len(), 2);
}

#[tokio::test]
async fn trailers_of_an_answer_are_for_those_who_say_that_they_read_them() {
    let upstream = Upstream::start("api", |_| {
        Script::write(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
             2\r\nok\r\n0\r\nX-Sum: 1\r\nHost: b\r\n\r\n",
        )
    });
    let proxy = start(upstream.address(), "").await;
    for (te, end) in [
        ("TE: trailers", "0\r\nX-Sum: 1\r\n\r\n"),
        ("TE: gzip, Trailers", "0\r\nX-Sum: 1\r\n\r\n"),
        ("X: y", "0\r\n\r\n"),
    ] {
        let mut client = Raw::connect(proxy.address()).await;
        client
            .write(format!(
                "GET /{} HTTP/1.1\r\nHost: a\r\nConnection: close, TE\r\n{te}\r\n\r\n",
                te.len()
            ))
            .await;
        let head = client.read_head().await;
        assert!(head.contains("Trailer: X-Sum\r\n"), "{head}");
        let body = String::from_utf8(client.read_to_end().await).unwrap();
        assert_eq!(body, format!("2\r\nok\r\n{end}"), "{te}");
        let received = &upstream.received_for(&format!("/{}", te.len()))[0];
        let asked = te.starts_with("TE").then_some("trailers");
        assert_eq!(received.field("te"), asked, "{te}");
        assert_eq!(received.field("connection"), asked.map(|_| "TE"), "{te}");
    }
    let answer = Client::http2(proxy.address()).await.get("/", "").await;
    assert_eq!(answer.trailers.len(), 1);
    assert_eq!(answer.trailers["x-sum"], "1");
}

#[tokio::test]
async fn a_request_that_nobody_will_serve_is_not_asked_to_go_on() {
    let upstream = Upstream::ok("api");
    let proxy = start(upstream.address(), "deny: [127.0.0.2/32]").await;
    let head = |first: &str| {
        format!("{first} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    };
    for (first, status) in [
        ("DELETE /none", 404),
        ("POST a.example", 400),
        ("POST /a", 200),
    ] {
        let mut client = Raw::connect(proxy.address()).await;
        client.write(head(first)).await;
        let answer = client.read_head().await;
        if status == 200 {
            assert!(answer.starts_with("HTTP/1.1 100 "), "{first}: {answer}");
            client.write("hello").await;
            let answer = client.read_head().await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{first}: {answer}");
            continue;
        }
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{first}: {answer}"
        );
        // The body was never asked for, so what comes now could be it or another request.
        client.write(head("POST /smuggled")).await;
        let rest = client.read_to_end().await;
        assert!(!rest.starts_with(b"HTTP"), "{}", rest.escape_ascii());
    }
    assert_eq!(upstream.received().len(), 1);
    drop(proxy);

    let denying = start(upstream.address(), "deny: [127.0.0.0/8]").await;
    let mut client = Raw::connect(denying.address()).await;
    client.write(head("POST /a")).await;
    assert!(client.read_head().await.starts_with("HTTP/1.1 403 "));
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_costs_nobody_a_body() {
    let refusing = crate::harness::upstream::Refusing::new();
    let proxy = start(refusing.address(), "").await;
    let mut client = Raw::connect(proxy.address()).await;
    client
        .write("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        .await;
    let answer = client.read_head().await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let upstream = Upstream::start("api", |request| {
        let pause = if request.target == "/1" { 100 } else { 0 };
        let length = request.target.len();
        let wire = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{}",
            request.target
        );
        let pause = Step::Pause(Duration::from_millis(pause));
        Script::of([Step::ReadBody, pause, Step::Write(wire.into())])
    });
    let proxy = start(upstream.address(), "").await;
    let mut client = Raw::connect(proxy.address()).await;
    client
        .write(
            "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\
             POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 24\r\n\r\nGET /no HTTP/1.1\r\nX: y\r\n\
             POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\
             HEAD /4 HTTP/1.1\r\nHost: a\r\n\r\n\
             GET /5 HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .await;
    for target in ["/1", "/2", "/3", "/4", "/5"] {
        let head = client.read_head().await;
        assert!(head.contains("Content-Length: 2\r\n"), "{target}: {head}");
        if target != "/4" {
            assert_eq!(client.read(2).await, target.as_bytes());
        }
    }
    assert_eq!(upstream.received().len(), 5);
}

#[tokio::test]
async fn clients_of_http10_get_what_they_can_read() {
    let upstream = Upstream::start("api", |request| match request.target.as_str() {
        "/chunked" => Script::write(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ),
        _ => Script::write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    });
    let proxy = start(upstream.address(), "").await;
    for (target, kept) in [("/length", true), ("/chunked", false)] {
        let mut client = Raw::connect(proxy.address()).await;
        let request = format!("GET {target} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        client
            .write([request.as_bytes(), request.as_bytes()].concat())
            .await;
        let head = client.read_head().await.to_ascii_lowercase();
        assert!(!head.contains("transfer-encoding"), "{target}: {head}");
        assert_eq!(
            head.contains("connection: keep-alive\r\n"),
            kept,
            "{target}: {head}"
        );
        assert_eq!(client.read(2).await, b"ok", "{target}");
        if kept {
            assert!(client.read_head().await.starts_with("HTTP/1."), "{target}");
        } else {
            assert_eq!(client.read_to_end().await, b"", "{target}");
        }
    }
    let mut client = Raw::connect(proxy.address()).await;
    client
        .write("GET /length HTTP/1.0\r\n\r\nGET /no HTTP/1.0\r\n\r\n")
        .await;
    let answer = String::from_utf8(client.read_to_end().await).unwrap();
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
    let received = upstream.received_for("/length");
    assert!(
        received
            .iter()
            .all(|request| request.field("host") == Some(""))
    );
    assert_eq!(upstream.received_for("/no").len(), 0);
}

#[tokio::test]
async fn an_answer_of_http10_is_passed_on_as_our_own_version() {
    let upstream = Upstream::start("api", |_| {
        Script::write("HTTP/1.0 200 OK\r\nX-A: 1\r\nx-a: 2\r\n\r\nhello").then(Step::Close)
    });
    let proxy = start(upstream.address(), "").await;
    let mut client = Raw::connect(proxy.address()).await;
    client
        .write("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    let answer = String::from_utf8(client.read_to_end().await).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\nX-A: 1\r\nx-a: 2\r\n"),
        "{answer}"
    );
    assert!(answer.ends_with("5\r\nhello\r\n0\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn nothing_of_an_upgrade_to_http2_reaches_the_upstream() {
    let witness = Witness::start();
    let proxy = start(witness.address(), "").await;
    let mut client = Raw::connect(proxy.address()).await;
    client
        .write(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings, close\r\n\
             Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        )
        .await;
    let head = client.read_head().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let seen = &seen(&witness)[0];
    for name in ["upgrade", "http2-settings", "connection"] {
        assert_eq!(seen.values(name), [""; 0], "{name}");
    }
}
