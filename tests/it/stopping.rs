//! How the program ends: what is under way is finished, and only then, or when time is up, it goes.

mod last_requests;

use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::harness::client::{Answer, Client, Raw, get};
use crate::harness::eventually;
use crate::harness::frames::{DATA, Frames};
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::{Gate, Reply, Script, Step, Upstream};

/// Far beyond the patience of any test: what takes this long does not happen.
const NEVER: &str = "10m";

async fn start(upstream: &Upstream, delay: &str, deadline: &str) -> Proxy {
    let endpoint = upstream.address();
    Site::new()
        .start(&format!(
            "drain: {{delay: {delay}, deadline: {deadline}}}
backends: {{api: {{endpoints: ['{endpoint}']}}}}
routes: [{{backend: api}}]
"
        ))
        .await
}

/// Answers `/slow` whole and `/stream` in two halves once the gate opens; anything else at once.
fn upstream(gate: &Gate) -> Upstream {
    let gate = gate.clone();
    Upstream::start("api", move |request| match request.target.as_str() {
        "/slow" => Script::of([Step::Wait(gate.clone()), Step::Answer(Reply::new(200))]),
        "/stream" => Script::write("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
            .then(Step::Wait(gate.clone()))
            .then(Step::Write("half".into())),
        _ => Script::status(200),
    })
}

async fn is_not_ready(proxy: &Proxy) {
    eventually("readiness goes down", async || {
        proxy.ask("/readyz").await.status == 503
    })
    .await;
}

async fn refuses_connections(proxy: &Proxy) {
    eventually("new connections are refused", async || {
        TcpStream::connect(proxy.address()).await.is_err()
    })
    .await;
}

#[tokio::test]
async fn what_is_in_flight_finishes_and_what_is_idle_is_closed() {
    let gate = Gate::new();
    let upstream = upstream(&gate);
    let mut proxy = start(&upstream, "0s", NEVER).await;
    let mut idle = Raw::connect(proxy.address()).await;
    idle.write("GET /idle HTTP/1.1\r\nHost: api.example\r\n\r\n")
        .await;
    assert!(idle.read_head().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(idle.read("status 200".len()).await, b"status 200");
    let mut silent = Raw::connect(proxy.address()).await;
    let mut slow = proxy.client().await;
    let slow = tokio::spawn(async move { slow.get("/slow", "").await });
    upstream.has_received("/slow").await;
    let mut streaming = proxy.client().await;
    let streaming = streaming
        .begin(get("/stream", ""))
        .await
        .expect("its head has come");
    let mut multiplexed = Client::http2(proxy.address()).await;
    let multiplexed = tokio::spawn(async move { multiplexed.get("/slow", "").await });
    eventually("both slow requests are under way", async || {
        upstream.count(|request| request.target == "/slow") == 2
    })
    .await;

    proxy.signal("TERM");
    is_not_ready(&proxy).await;
    refuses_connections(&proxy).await;
    assert_eq!(idle.read_to_end().await, b"", "a kept-alive connection");
    assert_eq!(silent.read_to_end().await, b"", "one without a request");
    assert!(!slow.is_finished() && !multiplexed.is_finished());
    gate.open();
    for answer in [slow.await, multiplexed.await] {
        let answer = answer.expect("the client does not panic");
        assert_eq!((answer.status, answer.is_whole), (200, true));
    }
    let streaming = Answer::read(streaming).await;
    assert_eq!(
        (&streaming.body[..], streaming.is_whole),
        (&b"halfhalf"[..], true)
    );
    assert_eq!(proxy.ended().await.code(), Some(0));
    proxy.says(1, "stopped").await;
}

#[tokio::test]
async fn whoever_has_said_an_empty_line_or_half_a_head_is_not_waited_for() {
    let upstream = Upstream::ok("api");
    let endpoint = upstream.address();
    let mut proxy = Site::new()
        .start(&format!(
            "edge: {{header_timeout: {NEVER}}}
drain: {{delay: 0s, deadline: {NEVER}}}
backends: {{api: {{endpoints: ['{endpoint}']}}}}
routes: [{{backend: api}}]
"
        ))
        .await;
    let mut clients = Vec::new();
    for behind in ["\r\n", "GET / HT"] {
        let mut client = Raw::connect(proxy.address()).await;
        client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.read_head().await;
        assert_eq!(client.read(3).await, b"api");
        client.write(behind).await;
        clients.push(client);
    }
    proxy.signal("TERM");
    assert_eq!(proxy.ended().await.code(), Some(0));
}

#[tokio::test]
async fn during_the_delay_it_is_not_ready_and_serves_everybody() {
    let upstream = Upstream::ok("api");
    let mut proxy = start(&upstream, NEVER, NEVER).await;
    let mut kept = proxy.client().await;
    assert_eq!(kept.get("/", "").await.status, 200);
    proxy.signal("TERM");
    is_not_ready(&proxy).await;
    assert_eq!(kept.get("/", "").await.status, 200);
    assert_eq!(proxy.client().await.get("/", "").await.status, 200);
    assert_eq!(proxy.ask("/livez").await.status, 200, "it is still alive");

    proxy.signal("TERM");
    assert_eq!(proxy.ended().await.code(), Some(0), "asked twice, it goes");
}

#[tokio::test]
async fn the_deadline_cuts_whoever_takes_longer_and_not_sooner() {
    let upstream = upstream(&Gate::new());
    let mut proxy = start(&upstream, "0s", "300ms").await;
    let mut client = proxy.client().await;
    let streaming = client
        .begin(get("/stream", ""))
        .await
        .expect("its head has come");
    let asked = Instant::now();
    proxy.signal("TERM");
    assert_eq!(proxy.ended().await.code(), Some(0));
    assert!(asked.elapsed() >= Duration::from_millis(300));
    assert!(!Answer::read(streaming).await.is_whole);
    proxy.says(1, "cutting what is left").await;
}

#[tokio::test]
async fn a_client_that_never_takes_the_last_piece_of_its_answer_is_not_waited_for() {
    let upstream = Upstream::ok("api");
    let endpoint = upstream.address();
    let mut proxy = Site::new()
        .start(&format!(
            "drain: {{delay: 0s, deadline: {NEVER}}}
edge: {{header_timeout: 2s}}
backends: {{api: {{endpoints: ['{endpoint}']}}}}
routes: [{{backend: api}}]
"
        ))
        .await;
    let mut client = Frames::with_window(proxy.address(), 1).await;
    client.ask(1, &crate::harness::frames::get("/")).await;
    while client.next().await.expect("it is answered").kind != DATA {}
    proxy.signal("TERM");
    client.stays_to_the_end().await;
    assert_eq!(proxy.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_cuts_at_once() {
    for signals in [["TERM", "TERM"], ["TERM", "INT"], ["INT", "INT"]] {
        let upstream = upstream(&Gate::new());
        let mut proxy = start(&upstream, "0s", NEVER).await;
        let mut client = proxy.client().await;
        let hung = tokio::spawn(async move { client.begin(get("/slow", "")).await.is_err() });
        upstream.has_received("/slow").await;
        proxy.signal(signals[0]);
        refuses_connections(&proxy).await;
        assert!(!hung.is_finished(), "{signals:?}");
        proxy.signal(signals[1]);
        assert_eq!(proxy.ended().await.code(), Some(0), "{signals:?}");
        assert!(hung.await.expect("it is cut"), "{signals:?}");
    }
}

#[tokio::test]
async fn a_person_at_the_terminal_does_not_wait_for_the_delay() {
    let upstream = Upstream::ok("api");
    let mut proxy = start(&upstream, NEVER, NEVER).await;
    proxy.signal("INT");
    assert_eq!(proxy.ended().await.code(), Some(0));
}

#[tokio::test]
async fn whoever_had_connected_is_answered_even_where_no_place_was_free_before_the_stop() {
    let gate = Gate::new();
    let upstream = upstream(&gate);
    let endpoint = upstream.address();
    let mut proxy = Site::new()
        .start(&format!(
            "drain: {{delay: 0s, deadline: {NEVER}}}
edge: {{max_connections: 1}}
backends: {{api: {{endpoints: ['{endpoint}']}}}}
routes: [{{backend: api}}]
"
        ))
        .await;
    let mut served = Raw::connect(proxy.address()).await;
    served.write("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    upstream.has_received("/slow").await;
    // The kernel has let it in, and nobody else.
    let mut waiting = Raw::connect(proxy.address()).await;
    waiting.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    proxy.signal("TERM");
    let head = waiting.read_head().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    gate.open();
    let head = served.read_head().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(proxy.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_stop_under_load_fails_no_request() {
    let upstream = Upstream::start("api", |_| {
        Script::of([
            Step::Pause(Duration::from_millis(2)),
            Step::Answer(Reply::new(200)),
        ])
    });
    let mut proxy = start(&upstream, NEVER, NEVER).await;
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let address = proxy.address();
            tokio::spawn(async move {
                let mut client = Client::http1(address).await;
                for answered in 1.. {
                    let answer = client.get("/", "").await;
                    assert_eq!((answer.status, answer.is_whole), (200, true));
                    // Told to leave, it goes to where the balancer now sends it.
                    if answer.field("connection") == Some("close") {
                        return answered;
                    }
                }
                unreachable!("it goes on until it is told to leave");
            })
        })
        .collect();
    eventually("there is load", async || upstream.received().len() > 100).await;
    proxy.signal("TERM");
    let mut answered = 0;
    for client in clients {
        answered += client.await.expect("no request fails");
    }
    assert_eq!(upstream.received().len(), answered);
    eventually("nobody is left", async || {
        let open = proxy.metrics().await.sum("cutover_client_connections", &[]);
        open == 0.0
    })
    .await;
    proxy.signal("TERM");
    assert_eq!(proxy.ended().await.code(), Some(0));
}
