//! When the machine has no file descriptor left.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;

use super::nobody_is_left;
use crate::harness::client::{Client, Raw};
use crate::harness::eventually;
use crate::harness::metrics::Metrics;
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::{Gate, Reply, Script, Step, Upstream};

/// More than the machine lets us have.
const FLOOD: usize = 100;

/// Everything goes to `new`, which is checked all the time; ten failures in a row would take the share
/// back. The process may have 64 files open, fewer than it was promised when it began.
async fn start(legacy: &Upstream, new: &Upstream) -> Proxy {
    let (legacy, new) = (legacy.address(), new.address());
    let configuration = format!(
        "backends:
  legacy: {{endpoints: ['{legacy}']}}
  new:
    endpoints: ['{new}']
    health_check: {{path: /health, interval: 50ms, unhealthy_after: 1}}
    ejection: {{consecutive_failures: 3}}
splits:
  api: {{legacy: legacy, new: new, share: 100%, key: [{{header: X-User}}], keyless: legacy}}
routes: [{{split: api}}]
"
    );
    let proxy = Site::new().start(&configuration).await;
    proxy.limit_open_files(64);
    proxy
}

/// A scrape over a connection that is open already.
async fn scrape(proxy: &Proxy, admin: &mut Client) -> Metrics {
    let request = Request::get("/metrics")
        .header("host", proxy.admin().to_string())
        .body(Full::new(Bytes::new()))
        .expect("it is valid");
    let answer = admin.send(request).await;
    Metrics::parse(&String::from_utf8_lossy(&answer.body))
}

/// Connections that say nothing, until no more are let in.
async fn flood(proxy: &Proxy) -> Vec<Raw> {
    let mut flood = Vec::new();
    for _ in 0..FLOOD {
        flood.push(Raw::connect(proxy.address()).await);
    }
    proxy.says(1, "cannot accept connections").await;
    flood
}

#[tokio::test]
async fn without_descriptors_nobody_new_is_let_in_until_there_are_some_again() {
    let (legacy, new) = (Upstream::ok("legacy"), Upstream::ok("new"));
    let proxy = start(&legacy, &new).await;
    for _ in 0..3 {
        let flood = flood(&proxy).await;
        drop(flood);
        nobody_is_left(&proxy).await;
        let answer = proxy.client().await.get("/", "alice").await;
        assert_eq!((answer.status, answer.served_by()), (200, Some("new")));
    }
    let metrics = proxy.metrics().await;
    assert!(metrics.sum("cutover_failed_accepts_total", &[]) > 0.0);
    // It was said once, however often it happened.
    proxy.says(1, "cannot accept connections").await;
}

#[tokio::test]
async fn an_upstream_that_could_not_be_asked_for_want_of_descriptors_is_not_to_blame() {
    let (legacy, new) = (Upstream::ok("legacy"), Upstream::ok("new"));
    let proxy = start(&legacy, &new).await;
    let mut admin = Client::http1(proxy.admin()).await;
    scrape(&proxy, &mut admin).await;
    // The first in the queue, so it is let in.
    let mut client = proxy.client().await;
    let flood = flood(&proxy).await;
    let mut count = 0.0;
    // Far more than the failures in a row that would take the share back, open the breaker or eject
    // the endpoint.
    for _ in 0..30 {
        let answer = client.get("/", "alice").await;
        // A health check that has just ended may have left a descriptor.
        if answer.status == 200 {
            continue;
        }
        assert_eq!((answer.status, answer.served_by()), (503, None));
        assert_eq!(answer.field("retry-after"), Some("1"));
        count += 1.0;
    }
    assert!(count > 10.0, "{count}");
    let metrics = scrape(&proxy, &mut admin).await;
    let diverted = |evidence| {
        let labels = [("reason", "no_socket"), ("evidence", evidence)];
        metrics.sum("cutover_diverted_total", &labels)
    };
    assert_eq!((diverted("false"), diverted("true")), (count, 0.0));
    assert_eq!(metrics.sum("cutover_failure_streak", &[]), 0.0);
    let breaker = metrics.sum("cutover_breaker_state", &[("state", "closed")]);
    assert_eq!(breaker, 1.0);
    let failed = metrics.sum("cutover_attempts_total", &[("result", "connect")]);
    assert_eq!(failed, 0.0);
    for gauge in ["cutover_endpoint_healthy", "cutover_endpoint_reachable"] {
        assert_eq!(metrics.sum(gauge, &[]), 2.0, "{gauge}");
    }
    drop(flood);
    eventually("it is served again", async || {
        client.get("/", "alice").await.served_by() == Some("new")
    })
    .await;
    proxy.refused("no_socket", count).await;
    let split = proxy.split("api").await;
    assert_eq!(split.share.to_string(), "100%");
    assert_eq!(split.arms.new.errors, 0);
}

#[tokio::test]
async fn clients_leave_descriptors_to_their_upstreams_and_to_the_operator() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::start("api", move |_| {
        Script::of([Step::Wait(held.clone()), Step::Answer(Reply::new(200))])
    });
    let address = upstream.address();
    let configuration =
        format!("backends: {{api: {{endpoints: ['{address}']}}}}\nroutes: [{{backend: api}}]\n");
    let proxy = Site::new().open_files(64).start(&configuration).await;
    proxy
        .says(1, "fewer clients than `edge.max_connections`")
        .await;
    let mut clients = Vec::new();
    for _ in 0..FLOOD {
        clients.push(Raw::connect(proxy.address()).await);
    }
    let most = proxy.metrics().await;
    let most = most.sum("cutover_max_client_connections", &[]);
    assert!((4.0..32.0).contains(&most), "{most}");
    proxy.counts(most, "cutover_client_connections", &[]).await;
    // Everybody asks at once, and who was let in can be served.
    for client in &mut clients {
        client
            .write("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
            .await;
    }
    eventually("all are asked for", async || {
        upstream.received().len() as f64 >= most
    })
    .await;
    for path in ["/livez", "/metrics"] {
        assert_eq!(proxy.ask(path).await.status, 200, "{path}");
    }
    let words = ["deny", "192.0.2.1", "--reason", "it floods"];
    let denied = proxy.cutover(&words).await;
    assert!(denied.status.success(), "{denied:?}");
    gate.open();
    // Who waited is served when others have left.
    for mut client in clients {
        let head = client.read_head().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    }
    proxy.counts(0.0, "cutover_failed_accepts_total", &[]).await;
}
