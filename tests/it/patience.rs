//! Clients that are slow, silent or gone in the middle, and what others must not suffer from them.

use cutover::policy::arm::Arm;

use crate::harness::client::Raw;
use crate::harness::eventually;
use crate::harness::proxy::{Proxy, Site};
use crate::harness::traffic::halted;
use crate::harness::upstream::{Gate, Script, Step, Upstream};
use crate::rollback::key_of;

/// More than the sockets between a server and a client hold.
const LARGE: usize = 32 * 1024 * 1024;

/// A split at half of the keys, with these settings of the whole file and of new's backend.
async fn start(legacy: &Upstream, new: &Upstream, file: &str, backend: &str) -> Proxy {
    let (legacy, new) = (legacy.address(), new.address());
    let configuration = format!(
        "{file}
backends:
  legacy: {{endpoints: ['{legacy}']}}
  new: {{endpoints: ['{new}'], {backend}}}
splits:
  api: {{legacy: legacy, new: new, key: [{{header: X-User}}], keyless: legacy, share: 50%, rollback: off}}
routes: [{{split: api}}]
"
    );
    Site::new().start(&configuration).await
}

/// A client that has sent this much of a request for a session of `new`.
async fn begun(proxy: &Proxy, request: &str) -> Raw {
    let mut client = Raw::connect(proxy.address()).await;
    let key = key_of(Arm::New);
    client
        .write(request.replace(
            "\r\n\r\n",
            &format!("\r\nHost: a.example\r\nX-User: {key}\r\n\r\n"),
        ))
        .await;
    client
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_no_connection_that_waits_for_its_rest() {
    for framing in [
        "Content-Length: 10\r\n\r\nabc",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        let gate = Gate::new();
        let held = gate.clone();
        // It answers before it has read the upload, keeps the connection, and takes its time.
        let new = Upstream::start("new", move |request| match request.method.as_str() {
            "POST" => Script::of([
                Step::Write(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n".into(),
                ),
                Step::Wait(held.clone()),
                Step::Write("1\r\nb\r\n0\r\n\r\n".into()),
            ]),
            _ => Script::status(200),
        });
        let proxy = start(&Upstream::ok("legacy"), &new, "", "").await;
        let mut client = begun(&proxy, &format!("POST /early HTTP/1.1\r\n{framing}")).await;
        client.read_head().await;
        client.finish().await;
        gate.open();
        client.read_to_end().await;
        let mut other = proxy.client().await;
        let answer = other.get("/after", &key_of(Arm::New)).await;
        assert_eq!(answer.status, 200, "{framing}");
        assert_eq!(
            new.count(|request| request.target == "/after"),
            1,
            "{framing}"
        );
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_and_its_upstream_connection_freed() {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n");
    let new = Upstream::start("new", move |_| {
        Script::write(head.clone()).then(Step::Flood(LARGE))
    });
    let file = "edge: {header_timeout: 300ms}";
    let proxy = start(&Upstream::ok("legacy"), &new, file, "").await;
    let _client = begun(&proxy, "GET /large HTTP/1.1\r\n\r\n").await;
    eventually("the flood begins", async || new.flooded() > 0).await;
    eventually("the connection is given up", async || {
        new.open_connections() == 0 && proxy.status().await.backends[1].endpoints[0].pending == 0
    })
    .await;
}

#[tokio::test]
async fn a_client_that_pauses_for_longer_than_the_upstream_may_is_no_fault_of_the_upstream() {
    let gate = Gate::new();
    let held = gate.clone();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", LARGE + 1);
    let new = Upstream::start("new", move |request| match request.target.as_str() {
        "/large" => Script::write(head.clone())
            .then(Step::Flood(LARGE))
            .then(Step::Wait(held.clone()))
            .then(Step::Write("!".into())),
        _ => {
            Script::write("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n").then(Step::AwaitDeparture)
        }
    });
    let legacy = Upstream::ok("legacy");
    let backend = "timeouts: {body_idle: 1500ms}";
    let proxy = start(&legacy, &new, "", backend).await;
    let mut client = begun(&proxy, "GET /large HTTP/1.1\r\n\r\n").await;
    client.read_head().await;
    halted(&proxy, &new).await;
    // It pauses until a silence of the upstream that began later has been too long.
    let mut waiting = begun(&proxy, "GET /silent HTTP/1.1\r\n\r\n").await;
    waiting.read_to_end().await;
    assert_eq!(client.read(LARGE).await.len(), LARGE);
    gate.open();
    assert_eq!(client.read(1).await, b"!");
    eventually("nothing but the silence is an error of new", async || {
        let arms = proxy.split("api").await.arms;
        (arms.new.requests, arms.new.errors) == (2, 1)
    })
    .await;
}
