//! Connections that switch protocols: from the handshake to the end of either end, over raw sockets.

mod websockets;

use std::cell::Cell;
use std::time::{Duration, Instant};

use cutover::policy::arm::Arm;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::certificate::Certificate;
use crate::harness::client::Raw;
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::{Refusing, Reply, Script, Step, Upstream};
use crate::harness::{in_time, migration};
use crate::rollback::{command, key_of, start};

/// The limit between a client's departure and the end of what it had asked for.
const PROMPTLY: Duration = Duration::from_secs(2);

const SWITCH: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n";

/// A server that switches to `chat`, greets, and sends back what it hears.
fn chat(name: &'static str) -> Upstream {
    Upstream::start(name, move |_| {
        Script::write(format!("{SWITCH}{name}")).then(Step::Echo)
    })
}

/// A proxy before one backend with these timeouts.
async fn before(upstream: &Upstream, timeouts: &str) -> Proxy {
    let address = upstream.address();
    let configuration = format!(
        "backends: {{api: {{endpoints: ['{address}'], timeouts: {{{timeouts}}}}}}}
routes: [{{backend: api}}]
"
    );
    Site::new().start(&configuration).await
}

fn offer(key: &str) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: a.example\r\nX-User: {key}\r\n\
         Connection: keep-alive, Upgrade\r\nUpgrade: chat\r\n\r\n"
    )
}

/// A client whose connection has switched protocols with this server.
async fn connected(proxy: &Proxy, key: &str, server: &str) -> Raw {
    let mut client = Raw::connect(proxy.address()).await;
    client.write(offer(key)).await;
    let head = client.read_head().await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(client.read(server.len()).await, server.as_bytes());
    client
}

async fn echoes(client: &mut Raw, words: &str) {
    client.write(words).await;
    assert_eq!(client.read(words.len()).await, words.as_bytes());
}

/// The status of what `request` is answered with, on a connection of its own.
async fn status(proxy: &Proxy, request: &str) -> String {
    let mut client = Raw::connect(proxy.address()).await;
    client.write(request).await;
    let head = client.read_head().await;
    head["HTTP/1.1 ".len()..][..3].to_owned()
}

#[tokio::test]
async fn what_either_end_says_early_reaches_the_other() {
    let upstream = Upstream::start("api", |_| {
        Script::write(format!("{SWITCH}early server")).then(Step::Echo)
    });
    let proxy = before(&upstream, "").await;
    let mut client = Raw::connect(proxy.address()).await;
    client.write(offer("") + "early client").await;
    let head = client.read_head().await;
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"));
    for field in ["\r\nConnection: Upgrade\r\n", "\r\nUpgrade: chat\r\n"] {
        assert_eq!(head.matches(field).count(), 1, "{head}");
    }
    assert!(!head.contains("Content-Length"), "{head}");
    assert!(!head.contains("Transfer-Encoding"), "{head}");
    let said = client.read("early serverearly client".len()).await;
    assert_eq!(said, b"early serverearly client");
    echoes(&mut client, "and later").await;
}

#[tokio::test]
async fn large_pieces_pass_whole_in_both_directions_at_once() {
    let upstream = chat("api");
    let proxy = before(&upstream, "").await;
    let mut client = connected(&proxy, "", "api").await;
    let mut other = connected(&proxy, "", "api").await;
    // Larger than what sockets hold, so that each direction has to wait for the other.
    let large: Vec<u8> = (0..4_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let echoed = client.exchange(&large).await;
    assert!(echoed == large, "the echo differs");
    echoes(&mut other, "others are not in the way").await;
}

#[tokio::test]
async fn an_upstream_hears_of_the_offer_in_our_words_and_never_of_another_http() {
    let upstream = Upstream::start("api", |_| Script::status(200));
    let proxy = before(&upstream, "").await;
    let head = |target: &str, fields: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n\r\n")
    };
    let offers = [
        (
            "/firefox",
            "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket",
            Some("WebSocket"),
        ),
        (
            "/several",
            "Connection: Upgrade\r\nUpgrade: h2c, chat/2\r\nUpgrade: chat",
            Some("chat/2, chat"),
        ),
        (
            "/h2c",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk",
            None,
        ),
        ("/tls", "Connection: Upgrade\r\nUpgrade: TLS/1.2", None),
        ("/unnamed", "Upgrade: chat", None),
        (
            "/body",
            "Connection: Upgrade\r\nUpgrade: chat\r\nTransfer-Encoding: chunked\r\n\r\n0",
            None,
        ),
    ];
    for (target, fields, expected) in offers {
        assert_eq!(status(&proxy, &head(target, fields)).await, "200");
        let received = upstream.received_for(target);
        let [request] = &received[..] else {
            panic!("{target} came {} times", received.len());
        };
        assert_eq!(request.field("upgrade"), expected, "{target}");
        let connection = expected.map(|_| "Upgrade");
        assert_eq!(request.field("connection"), connection, "{target}");
        assert_eq!(request.field("http2-settings"), None, "{target}");
    }
    let old = "GET /old HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n";
    status(&proxy, old).await;
    assert_eq!(upstream.received_for("/old")[0].field("upgrade"), None);
}

#[tokio::test]
async fn a_switch_that_nobody_asked_for_is_no_answer() {
    let upstream = chat("api");
    let proxy = before(&upstream, "").await;
    let unasked = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
    let h2c = "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    let other = "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: talk\r\n\r\n";
    for request in [unasked, h2c, other] {
        assert_eq!(status(&proxy, request).await, "502", "{request}");
    }
    proxy.counts(0.0, "cutover_tunnels", &[]).await;
}

#[tokio::test]
async fn a_refused_switch_is_an_ordinary_answer_and_the_connection_goes_on() {
    let upstream = Upstream::start("api", |request| match request.field("upgrade") {
        Some(_) => Script::status(403),
        None => Script::status(200),
    });
    let proxy = before(&upstream, "").await;
    let mut client = Raw::connect(proxy.address()).await;
    client.write(offer("")).await;
    assert!(client.read_head().await.starts_with("HTTP/1.1 403 "));
    assert_eq!(client.read("status 403".len()).await, b"status 403");
    client
        .write("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        .await;
    assert!(client.read_head().await.starts_with("HTTP/1.1 200 "));
    let received = upstream.received();
    let used: Vec<usize> = received.iter().map(|request| request.connection).collect();
    assert_eq!(used[0], used[1], "and so does the upstream's");
}

#[tokio::test]
async fn a_tunnel_is_a_request_in_flight_booked_at_once_that_leaves_nothing_behind() {
    let (legacy, new) = (chat("legacy"), chat("new"));
    let proxy = start(&legacy, &new, "").await;
    let in_flight = ["cutover_requests_in_flight", "cutover_tunnels"];
    let of_backend = [
        "cutover_endpoint_pending_requests",
        "cutover_endpoint_connections",
    ];
    let expect = async |count| {
        for name in in_flight {
            proxy.counts(count, name, &[]).await;
        }
        for name in of_backend {
            proxy.counts(count, name, &[("backend", "new")]).await;
        }
    };
    expect(0.0).await;
    let mut client = connected(&proxy, &key_of(Arm::New), "new").await;
    expect(1.0).await;
    let labels = [("arm", "new"), ("class", "success")];
    proxy.counts(1.0, "cutover_requests_total", &labels).await;
    let metrics = proxy.metrics().await;
    let timed = |name| metrics.sum(name, &[("arm", "new")]);
    assert_eq!(timed("cutover_request_first_byte_seconds_count"), 1.0);
    assert_eq!(timed("cutover_request_duration_seconds_count"), 0.0);
    client.finish().await;
    expect(0.0).await;
    let ended = [("reason", "client")];
    proxy
        .counts(1.0, "cutover_tunnels_ended_total", &ended)
        .await;
    proxy
        .counts(1.0, "cutover_requests_total", &[("arm", "new")])
        .await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_upstream_connection() {
    let upstream = chat("api");
    let proxy = before(&upstream, "").await;
    let client = connected(&proxy, "", "api").await;
    let left = Instant::now();
    drop(client);
    upstream.was_departed("/").await;
    assert!(left.elapsed() < PROMPTLY, "{:?}", left.elapsed());
    proxy.counts(0.0, "cutover_tunnels", &[]).await;
}

#[tokio::test]
async fn an_upstream_that_leaves_ends_its_client_after_its_last_words() {
    let upstream = Upstream::start("api", |_| {
        Script::write(format!("{SWITCH}farewell")).then(Step::Close)
    });
    let proxy = before(&upstream, "").await;
    let mut client = Raw::connect(proxy.address()).await;
    client.write(offer("")).await;
    client.read_head().await;
    assert_eq!(client.read_to_end().await, b"farewell");
    let ended = [("reason", "upstream")];
    proxy
        .counts(1.0, "cutover_tunnels_ended_total", &ended)
        .await;
    proxy.counts(0.0, "cutover_tunnels", &[]).await;
}

#[tokio::test]
async fn a_tunnel_in_which_nothing_moves_is_closed_and_a_busy_one_is_not() {
    let upstream = chat("api");
    let proxy = before(&upstream, "upgrade_idle: 1s, total: 100ms").await;
    let mut quiet = connected(&proxy, "", "api").await;
    let mut busy = connected(&proxy, "", "api").await;
    let began = Instant::now();
    let is_closed = Cell::new(false);
    let closed = async {
        let rest = quiet.read_to_end().await;
        is_closed.set(true);
        (rest, began.elapsed())
    };
    let talking = async {
        while !is_closed.get() {
            echoes(&mut busy, "still here").await;
        }
    };
    let ((rest, after), ()) = tokio::join!(closed, talking);
    assert_eq!(rest, b"");
    assert!(after >= Duration::from_secs(1), "closed after {after:?}");
    echoes(&mut busy, "and here").await;
    let ended = [("reason", "idle")];
    proxy
        .counts(1.0, "cutover_tunnels_ended_total", &ended)
        .await;
}

#[tokio::test]
async fn who_has_ended_one_direction_hears_the_other_for_as_long_as_it_speaks() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = [0; 4096];
                if !matches!(stream.read(&mut head).await, Ok(1..)) {
                    return;
                }
                let _ = stream.write_all(SWITCH.as_bytes()).await;
                // It speaks only to who has ended, and for longer than anybody's silence may last.
                let _ = stream.read(&mut head).await;
                let mut pace = tokio::time::interval(Duration::from_millis(100));
                for _ in 0..15 {
                    pace.tick().await;
                    let _ = stream.write_all(b".").await;
                }
            });
        }
    });
    let configuration =
        format!("backends: {{api: {{endpoints: ['{address}']}}}}\nroutes: [{{backend: api}}]\n");
    let proxy = Site::new().start(&configuration).await;
    let mut client = TcpStream::connect(proxy.address())
        .await
        .expect("it listens");
    client
        .write_all(offer("").as_bytes())
        .await
        .expect("it reads");
    let mut said = vec![0; SWITCH.len()];
    client.read_exact(&mut said).await.expect("it switches");
    client.shutdown().await.expect("it is open");
    client.read_to_end(&mut said).await.expect("it ends");
    let said = String::from_utf8_lossy(&said);
    assert!(said.ends_with(&".".repeat(15)), "{said}");
}

#[tokio::test]
async fn a_rollback_closes_the_tunnels_of_new_after_their_grace_and_no_others() {
    for words in [&["rollback", "api"][..], &["emergency", "--reason", "test"]] {
        let (legacy, new) = (chat("legacy"), chat("new"));
        let proxy = start(&legacy, &new, "stream_grace: 200ms").await;
        let mut on_new = connected(&proxy, &key_of(Arm::New), "new").await;
        let mut on_legacy = connected(&proxy, &key_of(Arm::Legacy), "legacy").await;
        echoes(&mut on_new, "before").await;
        command(&proxy, words).await;
        let rest = in_time("the tunnel of new is closed", on_new.read_to_end()).await;
        assert_eq!(rest, b"");
        new.was_departed("/").await;
        echoes(&mut on_legacy, "after").await;
        let ended = [("reason", "rollback")];
        proxy
            .counts(1.0, "cutover_tunnels_ended_total", &ended)
            .await;
        connected(&proxy, &key_of(Arm::New), "legacy").await;
        let arms = proxy.split("api").await.arms;
        assert_eq!((arms.new.requests, arms.new.errors), (1, 0), "{words:?}");
    }
}

#[tokio::test]
async fn legacy_takes_the_handshake_that_new_fails() {
    let legacy = chat("legacy");
    let refusing = Refusing::new();
    let failing = |script: fn() -> Script| Upstream::start("new", move |_| script());
    let broken = [failing(|| Script::status(503)), failing(Script::reset)];
    let addresses = broken.iter().map(Upstream::address);
    for new in addresses.chain([refusing.address()]) {
        let settings = "share: 50%, rollback: off";
        let configuration = migration(legacy.address(), new, settings);
        let proxy = Site::new().start(&configuration).await;
        let mut client = connected(&proxy, &key_of(Arm::New), "legacy").await;
        echoes(&mut client, "rescued").await;
        proxy.counts(1.0, "cutover_fallbacks_total", &[]).await;
    }
}

#[tokio::test]
async fn a_drain_leaves_tunnels_alone_until_its_time_is_up_and_then_counts_those_it_cuts() {
    let upstream = chat("api");
    let endpoint = upstream.address();
    let mut proxy = Site::new()
        .start(&format!(
            "drain: {{delay: 0s, deadline: 10m}}
backends: {{api: {{endpoints: ['{endpoint}']}}}}
routes: [{{backend: api}}]
"
        ))
        .await;
    let mut client = connected(&proxy, "", "api").await;
    proxy.signal("TERM");
    proxy.says(1, "draining: no longer ready").await;
    echoes(&mut client, "still here").await;
    // Whoever asks twice does not want to wait.
    proxy.signal("TERM");
    assert!(proxy.ended().await.success());
    assert_eq!(client.read_to_end().await, b"");
    upstream.was_departed("/").await;
    let log = proxy.log();
    assert!(log.contains("connections=1 tunnels=1"), "{log}");
}

#[tokio::test]
async fn what_follows_an_offer_that_was_not_taken_up_is_the_next_request() {
    let upstream = Upstream::start("api", |_| Script::answer(Reply::new(200)));
    let proxy = before(&upstream, "").await;
    let mut client = Raw::connect(proxy.address()).await;
    client.write(offer("") + &offer("")).await;
    for _ in 0..2 {
        assert!(client.read_head().await.starts_with("HTTP/1.1 200 "));
        assert_eq!(client.read("status 200".len()).await, b"status 200");
    }
    proxy.counts(0.0, "cutover_tunnels", &[]).await;
}

#[tokio::test]
async fn a_tunnel_passes_where_both_ends_are_encrypted() {
    let certificate = Certificate::new();
    let upstream = Upstream::start_tls("api", &certificate, |_| {
        Script::write(format!("{SWITCH}early")).then(Step::Echo)
    });
    let listeners = "[{address: 127.0.0.1:0, tls: {certificate: certificate.pem, key: key.pem}}]";
    let endpoint = upstream.address();
    let tls = "tls: {roots: certificate.pem, server_name: localhost}";
    let configuration = format!(
        "backends: {{api: {{endpoints: ['{endpoint}'], {tls}}}}}\nroutes: [{{backend: api}}]\n"
    );
    let proxy = Site::new()
        .file("certificate.pem", &certificate.certificate_pem)
        .file("key.pem", &certificate.key_pem)
        .start_on(listeners, &configuration)
        .await;
    let stream = TcpStream::connect(proxy.address())
        .await
        .expect("somebody listens");
    let connector = certificate.connector(&["http/1.1"]);
    let shaking = connector.connect(Certificate::name(), stream);
    let mut client = in_time("a handshake", shaking)
        .await
        .expect("TLS is spoken");
    let offer = offer("") + " and late";
    client
        .write_all(offer.as_bytes())
        .await
        .expect("it is read");
    let mut heard = Vec::new();
    while !heard.ends_with(b"early and late") {
        let reading = client.read_buf(&mut heard);
        let count = in_time("the proxy writes", reading).await;
        assert!(
            count.expect("the proxy is there") > 0,
            "it ended: {heard:?}"
        );
    }
    client.shutdown().await.expect("the proxy is there");
    upstream.was_departed("/").await;
    proxy.counts(0.0, "cutover_tunnels", &[]).await;
}
