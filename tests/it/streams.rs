//! Long answers and rollbacks: nothing in flight is moved, but nobody stays on `new` for ever.

use cutover::policy::arm::Arm;

use crate::harness::client::Raw;
use crate::harness::in_time;
use crate::harness::proxy::Proxy;
use crate::harness::upstream::{Gate, Script, Step, Upstream};
use crate::rollback::{command, key_of, start};

const FIRST: &str = "first";
const LAST: &str = "-last";

/// A server whose every answer says something, is silent until the gate opens, and ends.
fn streaming(name: &'static str, gate: &Gate) -> Upstream {
    let gate = gate.clone();
    Upstream::start(name, move |_| {
        let length = FIRST.len() + LAST.len();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{FIRST}");
        Script::write(head)
            .then(Step::Wait(gate.clone()))
            .then(Step::Write(LAST.into()))
    })
}

/// A stream that has begun for a session of this arm.
async fn begun(proxy: &Proxy, arm: Arm) -> Raw {
    let mut client = Raw::connect(proxy.address()).await;
    let key = key_of(arm);
    let head = format!("GET / HTTP/1.1\r\nHost: a.example\r\nX-User: {key}\r\n\r\n");
    client.write(head).await;
    let head = client.read_head().await;
    assert!(head.contains(&format!("Cutover-Arm: {arm}\r\n")), "{head}");
    assert_eq!(client.read(FIRST.len()).await, FIRST.as_bytes());
    client
}

#[tokio::test]
async fn silent_streams_of_new_are_closed_after_their_grace_and_those_of_legacy_are_not() {
    let gate = Gate::new();
    let (legacy, new) = (streaming("legacy", &gate), streaming("new", &gate));
    let proxy = start(&legacy, &new, "stream_grace: 200ms").await;
    let mut on_new = begun(&proxy, Arm::New).await;
    let mut on_legacy = begun(&proxy, Arm::Legacy).await;
    command(&proxy, &["rollback", "api"]).await;
    let rest = in_time("the stream of new is closed", on_new.read_to_end()).await;
    assert_eq!(rest, b"", "and does not look complete");
    gate.open();
    assert_eq!(on_legacy.read(LAST.len()).await, LAST.as_bytes());
    let arms = proxy.split("api").await.arms;
    assert_eq!(
        (arms.new.requests, arms.new.errors),
        (1, 0),
        "a decision is nobody's failure"
    );
}

#[tokio::test]
async fn a_stream_of_new_that_ends_within_its_grace_ends_whole() {
    let gate = Gate::new();
    let (legacy, new) = (streaming("legacy", &gate), streaming("new", &gate));
    let proxy = start(&legacy, &new, "stream_grace: 10m").await;
    let mut on_new = begun(&proxy, Arm::New).await;
    command(&proxy, &["rollback", "api"]).await;
    gate.open();
    assert_eq!(on_new.read(LAST.len()).await, LAST.as_bytes());
}

#[tokio::test]
async fn a_busy_stream_of_new_is_closed_after_its_grace_too() {
    const LARGE: usize = 1 << 40;
    let new = Upstream::start("new", |_| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n{FIRST}");
        Script::write(head).then(Step::Flood(LARGE))
    });
    let proxy = start(&Upstream::ok("legacy"), &new, "stream_grace: 200ms").await;
    let mut on_new = begun(&proxy, Arm::New).await;
    command(&proxy, &["rollback", "api"]).await;
    in_time("the stream of new is closed", on_new.skip_to_end()).await;
}

#[tokio::test]
async fn a_pinned_stream_of_new_outlives_a_rollback() {
    let gate = Gate::new();
    let (legacy, new) = (streaming("legacy", &gate), streaming("new", &gate));
    let key = key_of(Arm::New);
    let settings = format!("stream_grace: 0s, pins: {{keys: {{'{key}': new}}}}");
    let proxy = start(&legacy, &new, &settings).await;
    command(&proxy, &["rollback", "api"]).await;
    let mut pinned = begun(&proxy, Arm::New).await;
    // Another change is published, and seen by a request, while the stream is silent.
    command(&proxy, &["rollback", "api"]).await;
    begun(&proxy, Arm::Legacy).await;
    gate.open();
    assert_eq!(pinned.read(LAST.len()).await, LAST.as_bytes());
}
