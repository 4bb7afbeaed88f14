//! What HTTP/2 can say and HTTP/1 must not hear.

use std::net::SocketAddr;

use crate::harness::client::{Client, request};
use crate::harness::eventually;
use crate::harness::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Field, Frames, GOAWAY, HEADERS, Outcome, PING,
    PRIORITY, PROTOCOL_ERROR, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, asking, block,
    data, frame, get, headers,
};
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::{Received, Script, Upstream};
use crate::harness::witness::Witness;

async fn start(upstream: &Upstream) -> Proxy {
    start_before(upstream.address()).await
}

async fn start_before(address: SocketAddr) -> Proxy {
    let configuration =
        format!("backends: {{api: {{endpoints: ['{address}']}}}}\nroutes: [{{backend: api}}]\n");
    Site::new().start(&configuration).await
}

/// The fields of a GET of `/case` with one more.
fn and<'text>(name: &'text str, value: &'text [u8]) -> Vec<Field<'text>> {
    let mut fields = get("/case");
    fields.push((name, value));
    fields
}

/// The fields of a GET of `/case` with another value for one of them.
fn but<'text>(name: &'text str, value: &'text [u8]) -> Vec<Field<'text>> {
    let mut fields = get("/case");
    fields.retain(|field| field.0 != name);
    fields.insert(0, (name, value));
    fields
}

fn without(name: &str) -> Vec<Field<'static>> {
    let mut fields = get("/case");
    fields.retain(|field| field.0 != name);
    fields
}

/// The values of all fields of this name.
fn values<'received>(received: &'received Received, name: &str) -> Vec<&'received str> {
    let fields = received.fields.iter();
    fields
        .filter(|(field, _)| field.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
        .collect()
}

#[tokio::test]
async fn a_malformed_request_is_refused_and_the_streams_beside_it_go_on() {
    let upstream = Upstream::ok("api");
    let proxy = start(&upstream).await;
    let mut late_pseudo = vec![("x-first", &b"1"[..])];
    late_pseudo.extend(get("/case"));
    let mut connect = vec![
        (":method", &b"CONNECT"[..]),
        (":authority", b"api.example:1"),
    ];
    let mut extended = connect.clone();
    extended.extend([(":scheme", &b"http"[..]), (":path", b"/case")]);
    extended.push((":protocol", b"websocket"));
    let mut two_hosts = without(":authority");
    two_hosts.extend([("host", &b"a.example"[..]), ("host", b"b.example")]);
    let mut two_lengths = and("content-length", b"0");
    two_lengths.push(("content-length", b"5"));
    let mut bad_host = without(":authority");
    bad_host.push(("host", b"user@api.example"));
    let cases = [
        ("connection", and("connection", b"x-secret")),
        ("keep-alive", and("keep-alive", b"timeout=5")),
        ("proxy-connection", and("proxy-connection", b"keep-alive")),
        ("transfer-encoding", and("transfer-encoding", b"chunked")),
        ("upgrade", and("upgrade", b"h2c")),
        ("te", and("te", b"gzip")),
        ("te and trailers", and("te", b"trailers, gzip")),
        ("a pseudo-header after a field", late_pseudo),
        ("two paths", and(":path", b"/other")),
        ("two methods", and(":method", b"POST")),
        ("two authorities", and(":authority", b"other.example")),
        ("two schemes", and(":scheme", b"https")),
        ("a status", and(":status", b"200")),
        ("no method", without(":method")),
        ("no scheme", without(":scheme")),
        ("no authority at all", without(":authority")),
        ("no path", without(":path")),
        ("an empty path", but(":path", b"")),
        ("a path with a space", but(":path", b"/case HTTP/1.1")),
        (
            "a path with lines",
            but(":path", b"/case\r\nX-Evil: 1\r\n\r\n"),
        ),
        ("a path with a NUL", but(":path", b"/case\0")),
        ("a path that is none", but(":path", b"case")),
        (
            "a path that is an address",
            but(":path", b"http://other.example/case"),
        ),
        ("a scheme with a space", but(":scheme", b"ht tp")),
        (
            "an authority with a path",
            but(":authority", b"api.example/case"),
        ),
        (
            "an authority with a space",
            but(":authority", b"api example"),
        ),
        (
            "an authority with a user",
            but(":authority", b"user@api.example"),
        ),
        (
            "an authority with a list",
            but(":authority", b"a.example,b.example"),
        ),
        (
            "an authority with lines",
            but(":authority", b"api.example\r\nX-Evil: 1"),
        ),
        ("an empty authority", but(":authority", b"")),
        ("two hosts", two_hosts),
        ("a host with a user", bad_host),
        ("a length that is none", and("content-length", b"5x")),
        ("a length with a sign", and("content-length", b"+0")),
        ("a negative length", and("content-length", b"-1")),
        ("a list of lengths", and("content-length", b"0, 0")),
        ("two lengths", two_lengths),
        (
            "a length beyond all",
            and("content-length", b"18446744073709551616"),
        ),
        ("a length without a body", and("content-length", b"5")),
        ("CONNECT", std::mem::take(&mut connect)),
        ("extended CONNECT", extended),
    ];
    let mut client = Frames::connect(proxy.address()).await;
    let mut stream = 1;
    for (case, fields) in cases {
        client.ask(stream, &fields).await;
        let outcome = client.outcome(stream).await;
        let is_refused = match outcome {
            Outcome::Answered(status, _) => matches!(status, 400 | 404 | 405),
            Outcome::Reset(code) => code == PROTOCOL_ERROR,
            Outcome::Gone(_) => false,
        };
        assert!(is_refused, "{case}: {outcome:?}");
        client.goes_on(stream + 2, case).await;
        stream += 4;
    }
    let strangers: Vec<_> = upstream
        .received()
        .into_iter()
        .filter(|received| received.target != "/beside")
        .collect();
    assert!(strangers.is_empty(), "{strangers:?}");
}

#[tokio::test]
async fn a_field_that_no_header_block_can_hold_ends_its_connection_and_reaches_nobody() {
    let upstream = Upstream::ok("api");
    let proxy = start(&upstream).await;
    let cases = [
        ("a value with lines", and("x-case", b"1\r\nX-Evil: 1")),
        ("a value with a line feed", and("x-case", b"1\nX-Evil: 1")),
        (
            "a value with a carriage return",
            and("x-case", b"1\rX-Evil: 1"),
        ),
        ("a value with a NUL", and("x-case", b"1\0")),
        ("a name with lines", and("x-case\r\nx-evil", b"1")),
        ("a name with a space", and("x case", b"1")),
        ("a name with a colon", and("x-case: 1\r\nx-evil", b"1")),
        ("a name in capitals", and("X-Case", b"1")),
        (
            "transfer-encoding in capitals",
            and("Transfer-Encoding", b"chunked"),
        ),
        ("an empty name", and("", b"1")),
        ("an unknown pseudo-header", and(":case", b"1")),
        (
            "a method with a space",
            but(":method", b"GET /evil HTTP/1.1"),
        ),
        ("a method with lines", but(":method", b"GET\r\n")),
        ("an empty method", but(":method", b"")),
    ];
    for (case, fields) in cases {
        let mut client = Frames::connect(proxy.address()).await;
        client.ask(1, &fields).await;
        let outcome = client.outcome(1).await;
        let expected = Outcome::Gone(Some(PROTOCOL_ERROR));
        assert_eq!(outcome, expected, "{case}");
    }
    assert_eq!(upstream.received().len(), 0);
}

#[tokio::test]
async fn frames_out_of_order_end_their_connection_and_nobody_elses() {
    let upstream = Upstream::ok("api");
    let proxy = start(&upstream).await;
    let mut other = Frames::connect(proxy.address()).await;
    let asked = block(&get("/case"));
    let update = |bytes: u32| frame(WINDOW_UPDATE, 0, 0, &bytes.to_be_bytes());
    let ask = headers(1, 0, &get("/case"));
    let cases = [
        ("an even stream", headers(2, END_STREAM, &get("/case"))),
        (
            "the connection as a stream",
            headers(0, END_STREAM, &get("/case")),
        ),
        ("data before a request", data(1, 0, b"case")),
        ("a reset before a request", frame(RST_STREAM, 0, 1, &[0; 4])),
        (
            "a continuation of nothing",
            frame(CONTINUATION, END_HEADERS, 1, &asked),
        ),
        (
            "something between a head and its continuation",
            [
                frame(HEADERS, END_STREAM, 1, &asked),
                frame(PING, 0, 0, &[0; 8]),
            ]
            .concat(),
        ),
        (
            "a continuation of another stream",
            [
                frame(HEADERS, END_STREAM, 1, &asked),
                frame(CONTINUATION, END_HEADERS, 3, &asked),
            ]
            .concat(),
        ),
        (
            "a promise by a client",
            frame(PUSH_PROMISE, END_HEADERS, 1, &asked),
        ),
        ("a window update of nothing", update(0)),
        ("a window beyond all", update((1 << 31) - 1)),
        ("settings of a stream", frame(SETTINGS, 0, 1, &[])),
        ("settings of odd length", frame(SETTINGS, 0, 0, &[0; 5])),
        ("a ping of odd length", frame(PING, 0, 0, &[0; 7])),
        ("a ping of a stream", frame(PING, 0, 1, &[0; 8])),
        ("a priority of no stream", frame(PRIORITY, 0, 0, &[0; 5])),
        (
            "a frame larger than allowed",
            frame(DATA, 0, 1, &[0; 16_385]),
        ),
        (
            "padding without end",
            [ask, frame(DATA, 8, 1, &[200, 0])].concat(),
        ),
        (
            "an index of nothing",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff, 0x20]),
        ),
    ];
    for (case, frames) in cases {
        let mut client = Frames::connect(proxy.address()).await;
        client.write(frames).await;
        let outcome = client.outcome(1).await;
        assert!(matches!(outcome, Outcome::Gone(_)), "{case}: {outcome:?}");
    }
    other.ask(1, &get("/beside")).await;
    assert!(matches!(other.outcome(1).await, Outcome::Answered(200, _)));
    let whole = upstream.count(|received| received.target == "/case" && received.is_whole);
    assert_eq!(whole, 0);
}

#[tokio::test]
async fn a_body_longer_or_shorter_than_announced_is_never_whole_for_the_upstream() {
    let upstream = Upstream::start("api", |_| {
        Script::answer(crate::harness::upstream::Reply::new(200))
    });
    let proxy = start(&upstream).await;
    let mut client = Frames::connect(proxy.address()).await;
    let mut stream = 1;
    for (target, body) in [
        (
            "/longer",
            vec![data(1, 0, b"hel"), data(1, END_STREAM, b"lo and more")],
        ),
        (
            "/longer-at-once",
            vec![data(1, END_STREAM, b"hello and more")],
        ),
        ("/shorter", vec![data(1, END_STREAM, b"hell")]),
        (
            "/shorter-by-an-empty-end",
            vec![data(1, 0, b"hell"), data(1, END_STREAM, b"")],
        ),
    ] {
        let mut fields = asking("POST", target);
        fields.push(("content-length", b"5"));
        client.write(headers(stream, 0, &fields)).await;
        for mut frame in body {
            frame[5..9].copy_from_slice(&stream.to_be_bytes());
            client.write(frame).await;
        }
        let outcome = client.outcome(stream).await;
        assert_eq!(outcome, Outcome::Reset(PROTOCOL_ERROR), "{target}");
        client.goes_on(stream + 2, target).await;
        stream += 4;
    }
    eventually("what was begun at the upstream is broken off", async || {
        upstream
            .received()
            .iter()
            .all(|received| received.target == "/beside" || received.was_departed)
    })
    .await;
    let whole = upstream.count(|received| received.method == "POST" && received.is_whole);
    assert_eq!(whole, 0);
}

#[tokio::test]
async fn a_body_that_its_client_withdraws_is_never_whole_for_the_upstream() {
    const NO_ERROR: u32 = 0;
    const CANCEL: u32 = 8;
    let upstream = Upstream::ok("api");
    let proxy = start(&upstream).await;
    let mut client = Frames::connect(proxy.address()).await;
    for (stream, target, reason) in [(1, "/left", NO_ERROR), (3, "/cancelled", CANCEL)] {
        client
            .write(headers(stream, 0, &asking("POST", target)))
            .await;
        client.write(data(stream, 0, b"hello")).await;
        upstream.has_received(target).await;
        client
            .write(frame(RST_STREAM, 0, stream, &reason.to_be_bytes()))
            .await;
        upstream.was_departed(target).await;
    }
    assert_eq!(upstream.count(|received| received.is_whole), 0);
}

#[tokio::test]
async fn what_the_upstream_hears_has_one_host_and_it_is_the_authority() {
    let upstream = Upstream::ok("api");
    let proxy = start(&upstream).await;
    let mut client = Frames::connect(proxy.address()).await;
    let mut mismatch = get("/mismatch");
    mismatch.push(("host", b"evil.example"));
    let mut both = get("/both");
    both.push(("host", b"api.example"));
    let mut alone = get("/alone");
    alone.retain(|field| field.0 != ":authority");
    alone.push(("host", b"api.example"));
    for (stream, fields) in [(1, mismatch), (3, both), (5, alone)] {
        client.ask(stream, &fields).await;
        let outcome = client.outcome(stream).await;
        let target = fields.iter().find(|field| field.0 == ":path").unwrap().1;
        let target = std::str::from_utf8(target).unwrap();
        let received = upstream.received_for(target);
        // A mismatch may be refused as well as overruled, and is never passed on.
        match &received[..] {
            [received] => assert_eq!(values(received, "host"), ["api.example"], "{target}"),
            _ => assert_eq!((target, outcome), ("/mismatch", Outcome::Answered(400, 0))),
        }
    }
}

#[tokio::test]
async fn what_is_only_odd_reaches_the_upstream_as_one_plain_request() {
    let upstream = Upstream::ok("api");
    let proxy = start(&upstream).await;
    let mut client = Frames::connect(proxy.address()).await;
    let mut odd = asking("POST", "/odd?a=%2F//&b");
    odd.extend([
        ("cookie", &b"a=1"[..]),
        ("te", b"trailers"),
        ("cookie", b"b=2; c=3"),
        ("x-text", b"caf\xe9\ttab"),
        ("x-empty", b""),
        ("x-twice", b"1"),
        ("x-twice", b"2"),
        ("expect", b"100-continue"),
        ("content-length", b"003"),
        ("content-length", b"3"),
        ("cookie", b"d=4"),
    ]);
    // Padded, and with a priority, which nobody heeds any more.
    let mut payload = vec![2, 0, 0, 0, 0, 16];
    payload.extend(block(&odd));
    payload.extend([0, 0]);
    client
        .write(frame(HEADERS, END_HEADERS | 0x8 | 0x20, 1, &payload))
        .await;
    client.write(data(1, 0, b"")).await;
    client.write(data(1, 0, b"od")).await;
    client
        .write(frame(DATA, END_STREAM | 0x8, 1, b"\x03d\0\0\0"))
        .await;
    let outcome = client.outcome(1).await;
    assert!(matches!(outcome, Outcome::Answered(200, _)), "{outcome:?}");
    let received = upstream.received();
    let [received] = &received[..] else {
        panic!("one request: {received:?}");
    };
    assert_eq!(received.method, "POST");
    assert_eq!(received.target, "/odd?a=%2F//&b");
    assert_eq!(received.body, b"odd");
    assert_eq!(values(received, "cookie"), ["a=1; b=2; c=3; d=4"]);
    assert_eq!(values(received, "content-length"), ["3"]);
    assert_eq!(values(received, "x-twice"), ["1", "2"]);
    // Said anew, for our own connection to the upstream.
    assert_eq!(values(received, "te"), ["trailers"]);
    assert_eq!(values(received, "connection"), ["TE"]);
    for absent in ["expect", "transfer-encoding"] {
        assert!(values(received, absent).is_empty(), "{absent}");
    }
    for (target, expected) in [
        ("?query", "/?query"),
        ("/a#fragment", "/a"),
        ("/\u{e9}", "/\u{e9}"),
    ] {
        let mut client = Frames::connect(proxy.address()).await;
        client.ask(1, &get(target)).await;
        let outcome = client.outcome(1).await;
        let heard = upstream.received_for(expected).len();
        let is_refused = matches!(outcome, Outcome::Reset(_) | Outcome::Answered(400, _));
        assert_eq!(heard == 0, is_refused, "{target}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_length_that_says_nothing_does_not_reach_the_upstream() {
    let upstream = Upstream::ok("api");
    let proxy = start(&upstream).await;
    let mut client = Frames::connect(proxy.address()).await;
    let mut fields = asking("POST", "/empty-length");
    fields.push(("content-length", b""));
    client.write(headers(1, 0, &fields)).await;
    client.write(data(1, END_STREAM, b"hello")).await;
    let outcome = client.outcome(1).await;
    let is_refused = matches!(outcome, Outcome::Answered(400, _) | Outcome::Reset(_));
    assert!(is_refused, "{outcome:?}");
    assert_eq!(upstream.received().len(), 0);
}

#[tokio::test]
async fn trailers_cannot_say_what_only_heads_may() {
    let witness = Witness::start();
    let proxy = start_before(witness.address()).await;
    let mut client = Frames::connect(proxy.address()).await;
    let mut stream = 1;
    for (case, trailer) in [
        ("a pseudo-header", (":path", &b"/evil"[..])),
        ("a length", ("content-length", b"999")),
        ("a host", ("host", b"evil.example")),
        ("an encoding", ("transfer-encoding", b"chunked")),
        ("a claim", ("x-forwarded-for", b"192.0.2.1")),
        ("a disguise", ("x_real_ip", b"192.0.2.1")),
        ("nothing else", ("x-other", b"5")),
    ] {
        client
            .write(headers(stream, 0, &asking("POST", "/trailers")))
            .await;
        client.write(data(stream, 0, b"hello")).await;
        let trailers = [trailer, ("x-sum", b"5")];
        client.write(headers(stream, END_STREAM, &trailers)).await;
        let outcome = client.outcome(stream).await;
        let is_plain = matches!(
            outcome,
            Outcome::Answered(200, _) | Outcome::Reset(PROTOCOL_ERROR)
        );
        assert!(is_plain, "{case}: {outcome:?}");
        stream += 2;
    }
    // A second head that does not end its stream is no trailer section.
    client
        .write(headers(stream, 0, &asking("POST", "/trailers")))
        .await;
    client.write(headers(stream, 0, &get("/evil"))).await;
    let outcome = client.outcome(stream).await;
    let is_refused = matches!(outcome, Outcome::Reset(_) | Outcome::Gone(_));
    assert!(is_refused, "{outcome:?}");
    assert_eq!(witness.complaints(), [""; 0]);
    let mut trailers = Vec::new();
    for seen in witness.seen() {
        assert_eq!(seen.target, "/trailers");
        assert_eq!(seen.values("host"), ["api.example"]);
        assert_eq!(seen.body, b"hello");
        let names = seen.trailers.iter();
        let names: Vec<_> = names.map(|(name, _)| name.to_lowercase()).collect();
        trailers.push(names.join(", "));
    }
    trailers.sort_unstable();
    trailers.dedup();
    assert_eq!(trailers, ["x-other, x-sum", "x-sum"]);
}

#[tokio::test]
async fn an_answer_loses_what_concerned_its_connection_and_keeps_its_trailers() {
    let upstream = Upstream::start("api", |_| {
        Script::write(
            "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Private\r\nX-Private: 1\r\n\
             Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nUpgrade: h2c\r\n\
             Trailer: X-Sum\r\nTransfer-Encoding: chunked\r\nX-Public: 1\r\n\r\n\
             5\r\nhello\r\n0\r\nX-Sum: 5\r\n\r\n",
        )
    });
    let proxy = start(&upstream).await;
    let mut client = Client::http2(proxy.address()).await;
    let answer = client.send(request("GET", "/", "alice", "")).await;
    assert_eq!((answer.status, &answer.body[..]), (200, &b"hello"[..]));
    assert!(answer.is_whole);
    assert_eq!(answer.field("x-public"), Some("1"));
    assert_eq!(answer.trailers.get("x-sum").unwrap(), "5");
    for absent in [
        "connection",
        "x-private",
        "keep-alive",
        "proxy-connection",
        "upgrade",
        "transfer-encoding",
    ] {
        assert_eq!(answer.field(absent), None, "{absent}");
    }
}

#[tokio::test]
async fn a_connection_that_begins_like_http2_and_goes_on_otherwise_is_closed() {
    let upstream = Upstream::ok("api");
    let proxy = start(&upstream).await;
    let mut raw = crate::harness::client::Raw::connect(proxy.address()).await;
    raw.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nGET / HTTP/1.1\r\nHost: api.example\r\n\r\n")
        .await;
    let said = raw.read_to_end().await;
    let kinds: Vec<u8> = said.get(3).into_iter().copied().collect();
    assert!(kinds.is_empty() || matches!(kinds[0], SETTINGS | GOAWAY));
    assert_eq!(upstream.received().len(), 0);
}
