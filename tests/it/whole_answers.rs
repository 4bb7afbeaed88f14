//! Limits on the whole answer: counted when it ends or grows too old, whichever comes first.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cutover::policy::arm::Arm;
use cutover::policy::rollout::{Condition, Phase};

use crate::harness::client::Raw;
use crate::harness::eventually;
use crate::harness::keys::keys;
use crate::harness::proxy::Proxy;
use crate::harness::traffic::Traffic;
use crate::harness::upstream::{Gate, Script, Step, Upstream};
use crate::rollback::{decision, is, key_of, start};

const FIRST: &str = "first";
const LAST: &str = "-last";

/// An answer whose head and first bytes come at once.
fn begun() -> Script {
    let length = FIRST.len() + LAST.len();
    Script::write(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{FIRST}"
    ))
}

#[tokio::test]
async fn quick_heads_do_not_hide_slow_bodies_from_a_limit_on_the_whole_answer() {
    let legacy = Upstream::ok("legacy");
    let count = AtomicUsize::new(0);
    // One in ten is quick, which the 95th percentile does not forgive.
    let new = Upstream::start("new", move |_| {
        let pause = match count.fetch_add(1, Ordering::SeqCst) % 10 {
            9 => Duration::ZERO,
            _ => Duration::from_millis(500),
        };
        begun()
            .then(Step::Pause(pause))
            .then(Step::Write(LAST.into()))
    });
    let pace = Duration::from_millis(10);

    let proxy = start(&legacy, &new, "rollback: ['p95 > 300ms']").await;
    let traffic = Traffic::begin(proxy.address(), 20, pace);
    traffic.goes_on(240).await;
    traffic.end().await;
    is(&proxy, Phase::Progressing, "50%").await;

    let proxy = start(&legacy, &new, "rollback: ['total_p95 > 300ms']").await;
    let traffic = Traffic::begin(proxy.address(), 20, pace);
    let decided = decision(&proxy, "rollback").await;
    assert_eq!(decided.reason, "total_p95 > 300ms");
    let sentence = &decided.sentence;
    assert!(
        sentence.contains("whole answers slower than 300ms"),
        "{sentence}"
    );
    let record = traffic.end().await;
    assert!(record.statuses.iter().all(|status| *status == 200));
}

/// The one criterion of the test below, as it stands.
async fn condition(proxy: &Proxy) -> Condition {
    let conditions = proxy.split("api").await.conditions;
    let mut found = conditions.into_iter();
    found
        .find(|condition| condition.criterion.starts_with("total_p95"))
        .expect("it is configured")
}

async fn counts(proxy: &Proxy, samples: u64, events: u64) {
    eventually("enough is counted", async || {
        condition(proxy).await.samples >= samples
    })
    .await;
    let counted = condition(proxy).await;
    assert_eq!((counted.samples, counted.events), (samples, events));
}

/// A client that has asked for `target`.
async fn asking(proxy: &Proxy, target: &str, key: &str) -> Raw {
    let mut client = Raw::connect(proxy.address()).await;
    let head = format!("GET {target} HTTP/1.1\r\nHost: a.example\r\nX-User: {key}\r\n\r\n");
    client.write(head).await;
    client
}

/// A client that has read the beginning of the answer for `target`.
async fn reading(proxy: &Proxy, target: &str, key: &str) -> Raw {
    let mut client = asking(proxy, target, key).await;
    client.read_head().await;
    assert_eq!(client.read(FIRST.len()).await, FIRST.as_bytes());
    client
}

#[tokio::test]
async fn a_stream_is_slow_at_the_limit_and_early_failures_and_aborts_are_neither_quick_nor_slow() {
    const STREAMS: u64 = 20;
    let gate = Gate::new();
    let held = gate.clone();
    let legacy = Upstream::ok("legacy");
    let new = Upstream::start("new", move |request| match request.target.as_str() {
        "/fails" => Script::status(500),
        "/breaks" => begun().then(Step::Close),
        "/aborted" => begun().then(Step::AwaitDeparture),
        "/quick" => begun().then(Step::Write(LAST.into())),
        _ => begun()
            .then(Step::Wait(held.clone()))
            .then(Step::Write(LAST.into())),
    });
    // Failures are to be counted here, and not to be acted upon.
    let settings = "rollback: ['total_p95 > 2s then notify'], fallback: {enabled: false}, \
                    analysis: {min_events: 1000, hard_fail: 1000}";
    let proxy = start(&legacy, &new, settings).await;

    let mut streams = Vec::new();
    for key in keys("api", "50%", Arm::New).take(STREAMS as usize) {
        streams.push(reading(&proxy, "/stream", &key).await);
    }
    counts(&proxy, STREAMS, STREAMS).await;

    let key = key_of(Arm::New);
    let mut client = proxy.client().await;
    for _ in 0..3 {
        assert_eq!(client.get("/fails", &key).await.status, 500);
        // How much of it arrives before it breaks off is of no concern.
        asking(&proxy, "/breaks", &key).await.read_to_end().await;
        drop(reading(&proxy, "/aborted", &key).await);
    }
    eventually("the server sees the aborts", async || {
        new.count(|request| request.target == "/aborted" && request.was_departed) == 3
    })
    .await;
    let labels = [("split", "api"), ("arm", "new"), ("class", "transport")];
    proxy.counts(3.0, "cutover_requests_total", &labels).await;
    for _ in 0..2 {
        assert!(client.get("/quick", &key).await.is_whole);
    }
    counts(&proxy, STREAMS + 2, STREAMS).await;

    gate.open();
    for stream in &mut streams {
        assert_eq!(stream.read(LAST.len()).await, LAST.as_bytes());
    }
    assert!(client.get("/quick", &key).await.is_whole);
    counts(&proxy, STREAMS + 3, STREAMS).await;
}
