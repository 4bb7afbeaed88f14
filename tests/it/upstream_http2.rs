//! Upstreams that speak HTTP/2: what they may do to the connections that requests share.

mod api;
mod frames;
mod hostile;
mod sharing;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::harness::certificate::Certificate;
use crate::harness::client::{Answer, Client, Raw, get, request};
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::Upstream;
use crate::harness::{eventually, in_time};

use api::Api;
use frames::{
    CANCEL, DATA, END_HEADERS, END_STREAM, HEADERS, INTERNAL_ERROR, NO_ERROR, OK, REFUSED_STREAM,
    Server, field,
};

/// Everything goes to this one upstream.
fn all_to(address: SocketAddr, settings: &str) -> String {
    format!(
        "backends: {{api: {{endpoints: ['{address}'], protocol: http2{settings}}}}}
routes: [{{backend: api}}]
"
    )
}

/// A split with everything on `new`, which speaks HTTP/2; legacy does not.
fn migration(legacy: SocketAddr, new: SocketAddr) -> String {
    crate::harness::unjudged(
        &format!("{{endpoints: ['{legacy}']}}"),
        &format!("{{endpoints: ['{new}'], protocol: http2, timeouts: {{first_byte: 1s}}}}"),
        "",
        "",
    )
}

async fn start(server: &Server) -> Proxy {
    Site::new().start(&all_to(server.address, "")).await
}

async fn post(proxy: &Proxy) -> Answer {
    let mut client = proxy.client().await;
    client
        .send(request("POST", "/", "somebody", "content"))
        .await
}

#[tokio::test]
async fn fields_cross_as_they_do_over_http1() {
    let api = Api::start(async |request, mut respond| {
        let informational = http::Response::builder().status(103).body(());
        respond
            .send_informational(informational.expect("it is valid"))
            .expect("it comes first");
        let mut answer = http::Response::new(());
        let headers = answer.headers_mut();
        headers.insert("cutover-arm", "mine".parse().expect("it is valid"));
        headers.insert("kept", "yes".parse().expect("it is valid"));
        let told = format!("{:?} {:?}", request.uri(), request.headers());
        let mut body = respond.send_response(answer, false).expect("it is valid");
        body.send_data(told.into(), true).expect("it fits");
    })
    .await;
    let proxy = Site::new().start(&all_to(api.address, "")).await;
    let mut client = Raw::connect(proxy.address()).await;
    client
        .write(
            "GET /a//b?x=%2F HTTP/1.1\r\nHost: a.example\r\nConnection: close, X-Mine\r\n\
             X-Mine: 1\r\nTE: gzip, trailers\r\nCookie: a=1\r\nCutover-Replay: 1\r\n\
             X-Forwarded-For: 6.6.6.6\r\nUpgrade: h2c\r\nKeep-Alive: 5\r\n\
             X_Real_IP: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\n\r\n",
        )
        .await;
    assert!(client.read_head().await.starts_with("HTTP/1.1 103 "));
    let head = client.read_head().await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("Kept: yes\r\n"), "{head}");
    assert!(!head.contains("Cutover-Arm"), "{head}");
    let told = String::from_utf8(client.read_to_end().await).expect("it is text");
    assert!(told.contains("http://a.example/a//b?x=%2F"), "{told}");
    for field in [
        r#""te": "trailers""#,
        r#""cookie": "a=1""#,
        r#""x-forwarded-for": "127.0.0.1""#,
        r#""x-forwarded-host": "a.example""#,
    ] {
        assert!(told.contains(field), "{field} in {told}");
    }
    for name in [
        "connection",
        "x-mine",
        "host\":",
        "replay",
        "upgrade",
        "keep-alive",
        "6.6.6.6",
    ] {
        let is_there = told.replace("x-forwarded-host\":", "").contains(name);
        assert!(!is_there, "{name} in {told}");
    }
}

#[tokio::test]
async fn a_switch_of_protocols_is_no_answer_and_no_hint_and_lengths_cross_once() {
    let api = Api::start(async |request, mut respond| {
        if request.uri().path() == "/switch" {
            let switch = http::Response::builder().status(101).body(());
            let switch = respond.send_informational(switch.expect("it is valid"));
            assert!(switch.is_ok(), "the library says it");
        }
        let mut answer = http::Response::new(());
        for length in ["2", "02"] {
            let length = length.parse().expect("it is valid");
            answer.headers_mut().append("content-length", length);
        }
        let mut body = respond.send_response(answer, false).expect("it is valid");
        body.send_data("ok".into(), true).expect("it fits");
    })
    .await;
    let proxy = Site::new().start(&all_to(api.address, "")).await;
    let mut client = Raw::connect(proxy.address()).await;
    client
        .write("GET /switch HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    let head = client.read_head().await;
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    let mut client = Raw::connect(proxy.address()).await;
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = client.read_head().await;
    assert_eq!(
        head.to_ascii_lowercase().matches("content-length").count(),
        1,
        "{head}"
    );
    assert!(head.contains("Content-Length: 2\r\n"), "{head}");
}

#[tokio::test]
async fn trailers_cross_both_ways_without_what_must_not_trail() {
    let api = Api::start(async |request, mut respond| {
        let mut body = request.into_body();
        while let Some(data) = body.data().await {
            let length = data.expect("it is whole").len();
            let _ = body.flow_control().release_capacity(length);
        }
        let trailers = body.trailers().await.expect("it is whole");
        let told = format!("{:?}", trailers.unwrap_or_default());
        let mut answer = respond
            .send_response(http::Response::new(()), false)
            .expect("it is valid");
        answer.send_data(told.into(), false).expect("it fits");
        let mut trailers = HeaderMap::new();
        for name in ["answered", "set-cookie", "x-forwarded-for", "cutover-arm"] {
            trailers.insert(name, "8".parse().expect("it is valid"));
        }
        answer.send_trailers(trailers).expect("they may end it");
    })
    .await;
    let proxy = Site::new().start(&all_to(api.address, "")).await;
    let stream = in_time("it connects", TcpStream::connect(proxy.address())).await;
    let io = hyper_util::rt::TokioIo::new(stream.expect("it listens"));
    let executor = hyper_util::rt::TokioExecutor::new();
    let handshake = hyper::client::conn::http2::handshake(executor, io).await;
    let (mut sender, connection) = handshake.expect("the preface can be written");
    tokio::spawn(connection);
    let mut trailers = HeaderMap::new();
    trailers.insert("checksum", "7".parse().expect("it is valid"));
    trailers.insert("cutover-arm", "new".parse().expect("it is valid"));
    let body = Full::new(Bytes::from("content"));
    let body = body.with_trailers(async { Some(Ok(trailers)) });
    let request = Request::post("http://a.example/").body(Box::pin(body));
    let answer = sender.send_request(request.expect("it is valid"));
    let answer = in_time("an answer", answer).await.expect("there is one");
    let told = answer.into_body().collect().await.expect("it is whole");
    let trailers = format!("{:?}", told.trailers());
    assert_eq!(trailers, r#"Some({"answered": "8"})"#);
    assert_eq!(&told.to_bytes()[..], br#"{"checksum": "7"}"#);
}

#[tokio::test]
async fn a_request_that_the_upstream_has_not_looked_at_is_sent_again_whatever_its_method() {
    for refuses in [true, false] {
        let server = Server::start(move |number, mut connection| async move {
            if number > 0 {
                return connection.answer_all("second").await;
            }
            let Some(stream) = connection.request().await else {
                return;
            };
            if refuses {
                connection.reset(stream, REFUSED_STREAM).await;
            } else {
                connection.go_away(stream - 1, NO_ERROR).await;
            }
            connection.read_to_end().await;
        })
        .await;
        let proxy = start(&server).await;
        let answer = post(&proxy).await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b"second"[..]));
        let labels = [("backend", "api")];
        proxy
            .counts(1.0, "cutover_attempt_retries_total", &labels)
            .await;
        let labels = [("backend", "api"), ("result", "reset")];
        proxy.counts(0.0, "cutover_attempts_total", &labels).await;
    }
}

#[tokio::test]
async fn a_second_refusal_of_what_nobody_has_looked_at_is_forgiven_too() {
    let refuse_first = |number, mut connection: frames::Connection| async move {
        if number > 0 {
            return connection.answer_all("taken").await;
        }
        if let Some(stream) = connection.request().await {
            connection.reset(stream, REFUSED_STREAM).await;
            connection.read_to_end().await;
        }
    };
    let one = Server::start(refuse_first).await;
    let other = Server::start(refuse_first).await;
    let endpoints = format!("{}', '{}", one.address, other.address);
    let configuration = all_to(one.address, "").replace(&one.address.to_string(), &endpoints);
    let proxy = Site::new().start(&configuration).await;
    let answer = post(&proxy).await;
    assert_eq!((answer.status, &answer.body[..]), (200, &b"taken"[..]));
}

#[tokio::test]
async fn a_connection_that_many_wait_for_fails_its_endpoint_once() {
    // The kernel accepts for it, and nobody ever greets.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let silent = (silent.local_addr().expect("it is bound"), silent);
    let server = Server::start(|_, mut connection| async move {
        connection.answer_all("taken").await;
    })
    .await;
    let settings = ", balance: round_robin, timeouts: {connect: 1s}, \
                    ejection: {consecutive_failures: 3, duration: 1h}";
    let endpoints = format!("{}', '{}", silent.0, server.address);
    let configuration = all_to(server.address, settings);
    let configuration = configuration.replace(&server.address.to_string(), &endpoints);
    let site = Site::new().beginning(&one_worker());
    let proxy = site.start(&configuration).await;
    let mut asking = JoinSet::new();
    for _ in 0..20 {
        let mut client = proxy.client().await;
        asking.spawn(async move { client.get("/", "somebody").await });
    }
    for answer in asking.join_all().await {
        assert_eq!((answer.status, &answer.body[..]), (200, &b"taken"[..]));
    }
    let silent = silent.0.to_string();
    let labels = [("backend", "api"), ("endpoint", &silent[..])];
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("cutover_endpoint_healthy", &labels), 1.0);
}

#[tokio::test]
async fn a_goodbye_lets_what_was_begun_end_and_takes_nothing_new() {
    let server = Server::start(|number, mut connection| async move {
        let Some(stream) = connection.request().await else {
            return;
        };
        if number == 0 {
            connection.go_away(stream, NO_ERROR).await;
            connection.answer(stream, "first").await;
            connection.read_to_end().await;
        } else {
            connection.answer(stream, "second").await;
            connection.answer_all("third").await;
        }
    })
    .await;
    let site = Site::new().beginning(&one_worker());
    let proxy = site.start(&all_to(server.address, "")).await;
    for said in ["first", "second", "third"] {
        assert_eq!(post(&proxy).await.body, said);
    }
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_request_that_may_have_been_executed_is_not_sent_again() {
    let server = Server::start(|_, mut connection| async move {
        while let Some(stream) = connection.request().await {
            connection.reset(stream, INTERNAL_ERROR).await;
        }
    })
    .await;
    let legacy = Upstream::ok("legacy");
    let configuration = migration(legacy.address(), server.address);
    let proxy = Site::new().start(&configuration).await;
    assert_eq!(post(&proxy).await.status, 502);
    let labels = [("arm", "new"), ("class", "transport")];
    proxy.counts(1.0, "cutover_requests_total", &labels).await;
    let rescued = proxy.client().await.get("/", "somebody").await;
    assert_eq!(rescued.served_by(), Some("legacy"), "a GET is safe");
    assert_eq!(legacy.received().len(), 1);
}

#[tokio::test]
async fn an_answer_that_breaks_off_never_looks_complete() {
    for reason in [NO_ERROR, CANCEL, INTERNAL_ERROR] {
        let server = Server::start(move |_, mut connection| async move {
            while let Some(stream) = connection.request().await {
                connection.send(HEADERS, END_HEADERS, stream, OK).await;
                connection.send(DATA, 0, stream, b"some").await;
                connection.reset(stream, reason).await;
            }
        })
        .await;
        let legacy = Upstream::ok("legacy");
        let configuration = migration(legacy.address(), server.address);
        let proxy = Site::new().start(&configuration).await;
        let mut over_http1 = proxy.client().await;
        let mut over_http2 = Client::http2(proxy.address()).await;
        for client in [&mut over_http1, &mut over_http2] {
            let Ok(response) = client.begin(get("/", "somebody")).await else {
                continue;
            };
            let answer = Answer::read(response).await;
            assert!(!answer.is_whole, "reset with {reason}");
        }
        let labels = [("arm", "new"), ("class", "transport")];
        proxy.counts(2.0, "cutover_requests_total", &labels).await;
    }
}

#[tokio::test]
async fn an_answer_that_is_not_as_long_as_it_says_is_never_whole() {
    for (flags, body) in [(END_STREAM, ""), (0, "abc"), (0, "abcdefg")] {
        let server = Server::start(move |_, mut connection| async move {
            while let Some(stream) = connection.request().await {
                let head = [OK, &field("content-length", "5")].concat();
                connection
                    .send(HEADERS, END_HEADERS | flags, stream, &head)
                    .await;
                if flags == 0 {
                    connection
                        .send(DATA, END_STREAM, stream, body.as_bytes())
                        .await;
                }
            }
        })
        .await;
        let proxy = start(&server).await;
        let mut client = proxy.client().await;
        let is_whole = match client.begin(get("/", "somebody")).await {
            Ok(response) => {
                let is_ok = response.status() == 200;
                Answer::read(response).await.is_whole && is_ok
            }
            Err(_) => false,
        };
        assert!(!is_whole, "{body:?} for a length of 5");
    }
}

#[tokio::test]
async fn an_upstream_may_answer_before_it_has_read_the_request() {
    let server = Server::start(|_, mut connection| async move {
        let Some(stream) = connection.request().await else {
            return;
        };
        connection.answer(stream, "enough").await;
        connection.reset(stream, NO_ERROR).await;
        connection.read_to_end().await;
    })
    .await;
    let proxy = start(&server).await;
    let mut client = Raw::connect(proxy.address()).await;
    let head = "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1000000\r\n\r\nabc";
    client.write(head).await;
    assert!(client.read_head().await.starts_with("HTTP/1.1 200 OK\r\n"));
    let body = String::from_utf8_lossy(&client.read(11).await).into_owned();
    assert!(body.contains("enough"), "{body:?}");
}

#[tokio::test]
async fn a_client_that_leaves_resets_its_stream_and_no_other() {
    let are_both_here = Arc::new(AtomicBool::new(false));
    let noted = Arc::clone(&are_both_here);
    let server = Server::start(move |_, mut connection| {
        let noted = Arc::clone(&noted);
        async move {
            let (Some(one), Some(other)) = (connection.request().await, connection.request().await)
            else {
                return;
            };
            noted.store(true, Ordering::Release);
            while let Some(frame) = connection.next().await {
                if frame.kind == frames::RST_STREAM {
                    let rest = if frame.stream == one { other } else { one };
                    connection.answer(rest, "stayed").await;
                }
            }
        }
    })
    .await;
    let site = Site::new().beginning(&one_worker());
    let proxy = site.start(&all_to(server.address, "")).await;
    let mut leaves = Raw::connect(proxy.address()).await;
    leaves
        .write("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        .await;
    let mut stays = proxy.client().await;
    let staying = stays.send(get("/", "somebody"));
    let leaving = async {
        eventually("both are under way", async || {
            are_both_here.load(Ordering::Acquire)
        })
        .await;
        drop(leaves);
    };
    let (answer, ()) = tokio::join!(staying, leaving);
    assert_eq!(answer.body, "stayed");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn an_upstream_that_does_not_speak_http2_is_told_of_and_legacy_answers() {
    let new = Upstream::ok("new");
    let legacy = Upstream::ok("legacy");
    let configuration = migration(legacy.address(), new.address());
    let proxy = Site::new().start(&configuration).await;
    let answer = post(&proxy).await;
    assert_eq!(
        answer.served_by(),
        Some("legacy"),
        "nothing was sent to new"
    );
    proxy.says(1, "the upstream does not speak HTTP/2").await;
}

#[tokio::test]
async fn over_tls_the_upstream_must_choose_http2() {
    let certificate = Certificate::new();
    for (protocols, status) in [
        (&["h2", "http/1.1"][..], 200),
        (&["http/1.1"], 502),
        (&[], 502),
    ] {
        let api = Api::start_tls(&certificate, protocols).await;
        let site = Site::new().file("roots.pem", &certificate.certificate_pem);
        let proxy = site
            .start(&all_to(api.address, ", tls: {roots: roots.pem}"))
            .await;
        let answer = post(&proxy).await;
        assert_eq!(answer.status, status, "{protocols:?}");
        if status == 200 {
            assert_eq!(answer.body, "https", "the scheme");
        }
    }
}

#[tokio::test]
async fn health_is_checked_over_http2() {
    let api = Api::start(async |request, respond| {
        if request.uri().path() == "/healthy" {
            api::say(respond, "fine");
        }
    })
    .await;
    for (path, is_healthy) in [("/healthy", true), ("/silent", false)] {
        let check = format!(
            ", health_check: {{path: {path}, interval: 20ms, timeout: 200ms, unhealthy_after: 1}}"
        );
        let proxy = Site::new().start(&all_to(api.address, &check)).await;
        let labels = [("backend", "api")];
        let healthy = if is_healthy { 1.0 } else { 0.0 };
        proxy
            .counts(healthy, "cutover_endpoint_healthy", &labels)
            .await;
    }
    assert!(api.requests() > 1);
}

#[tokio::test]
async fn the_smoke_test_asks_over_http2() {
    let api = Api::start(async |_, respond| api::say(respond, "fine")).await;
    let legacy = Upstream::ok("legacy");
    let configuration = migration(legacy.address(), api.address);
    let proxy = Site::new().start(&configuration).await;
    let output = proxy.cutover(&["test", "--config", "cutover.yaml"]).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    assert_eq!(api.requests(), 1);
}

/// One worker, so that what its requests share is shared by all.
fn one_worker() -> String {
    "listeners: [{address: 127.0.0.1:0}]\nadmin: {address: 127.0.0.1:0}\n\
     state: {directory: state}\nworkers: 1\n"
        .to_owned()
}

#[tokio::test]
async fn a_grpc_answer_without_a_status_is_not_whole() {
    let head = [OK, &field("content-type", "application/grpc+proto")].concat();
    for (flags, status) in [(END_STREAM, 502), (0, 200)] {
        let head = head.clone();
        let server = Server::start(move |_, mut connection| {
            let head = head.clone();
            async move {
                while let Some(stream) = connection.request().await {
                    let all = END_HEADERS | flags;
                    connection.send(HEADERS, all, stream, &head).await;
                    if flags == 0 {
                        connection.send(DATA, END_STREAM, stream, b"some").await;
                    }
                }
            }
        })
        .await;
        let proxy = start(&server).await;
        let mut client = Client::http2(proxy.address()).await;
        let response = client.begin(request("POST", "/", "somebody", "")).await;
        let response = response.expect("there is a head");
        assert_eq!(response.status(), status);
        let answer = Answer::read(response).await;
        assert_eq!(answer.is_whole, status == 502, "{answer:?}");
    }
}

#[tokio::test]
async fn what_a_client_cancels_never_looks_complete_to_an_upstream() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let received = Arc::new(Mutex::new(Vec::new()));
    let written = Arc::clone(&received);
    let (gone, has_gone) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let mut gone = Some(gone);
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut piece = [0; 1024];
            while let Ok(count @ 1..) = stream.read(&mut piece).await {
                let mut written = written.lock().expect("nobody panics with it");
                written.extend_from_slice(&piece[..count]);
            }
            let is_asked = !written.lock().expect("nobody panics with it").is_empty();
            // Whoever only looked whether somebody is there asked nothing.
            if let Some(gone) = gone.take_if(|_| is_asked) {
                let _ = gone.send(());
            }
        }
    });
    let text = || {
        let received = received.lock().expect("nobody panics with it");
        String::from_utf8_lossy(&received).into_owned()
    };
    let configuration =
        format!("backends: {{api: {{endpoints: ['{address}']}}}}\nroutes: [{{backend: api}}]\n");
    let proxy = Site::new().start(&configuration).await;
    let stream = TcpStream::connect(proxy.address()).await;
    let (mut sender, connection) = h2::client::handshake(stream.expect("it listens"))
        .await
        .expect("it speaks HTTP/2");
    tokio::spawn(connection);
    let request = Request::post("http://a.example/").body(());
    let sent = sender.send_request(request.expect("it is valid"), false);
    let (_answer, mut body) = sent.expect("the connection is open");
    body.send_data(Bytes::from("some"), false)
        .expect("it is open");
    eventually("the upstream gets a piece", async || {
        text().contains("some")
    })
    .await;
    body.send_reset(h2::Reason::CANCEL);
    in_time("the upstream is left", has_gone)
        .await
        .expect("it is told");
    assert!(
        text().ends_with("\r\n4\r\nsome\r\n") || text().ends_with("some"),
        "{}",
        text()
    );
}
