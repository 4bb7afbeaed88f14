//! The engine cuts off a new arm that does harm, says why once, and leaves it cut off until a person
//! says otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cutover::control::protocol::SplitStatus;
use cutover::policy::arm::Arm;
use cutover::policy::rollout::{Decision, Phase};
use cutover::state::{Store, Wanted};

use crate::harness::client::get;
use crate::harness::keys::keys;
use crate::harness::proxy::{Proxy, Site};
use crate::harness::traffic::Traffic;
use crate::harness::upstream::{Reply, Script, Step, Upstream};
use crate::harness::{eventually, found, migration};

/// A split at half of the keys that tells in its answers whether it fell back.
pub(crate) async fn start(legacy: &Upstream, new: &Upstream, settings: &str) -> Proxy {
    let settings = format!("share: 50%, response_headers: true, {settings}");
    let configuration = migration(legacy.address(), new.address(), &settings);
    Site::new().start(&configuration).await
}

/// An arm that fails as long as it is not well.
fn patient(failure: Script) -> (Upstream, Arc<AtomicBool>) {
    let is_well = Arc::new(AtomicBool::new(true));
    let told = Arc::clone(&is_well);
    let upstream = Upstream::start("new", move |_| {
        if told.load(Ordering::SeqCst) {
            Script::status(200)
        } else {
            failure.clone()
        }
    });
    (upstream, is_well)
}

/// Waits until the last decision is `action`.
pub(crate) async fn decision(proxy: &Proxy, action: &str) -> Decision {
    found(async || {
        let split = proxy.split("api").await;
        let (decided, conditions) = (split.last_decision, split.conditions);
        match decided {
            Some(decision) if decision.action == action => Ok(decision),
            other => Err(format!("no {action}, but {other:?} and {conditions:?}")),
        }
    })
    .await
}

pub(crate) async fn is(proxy: &Proxy, phase: Phase, share: &str) {
    let split = proxy.split("api").await;
    assert_eq!((split.phase, split.share.as_str()), (phase, share));
}

/// Waits until the status of the split is as it should be.
pub(crate) async fn becomes(proxy: &Proxy, what: &str, condition: impl Fn(&SplitStatus) -> bool) {
    eventually(what, async || condition(&proxy.split("api").await)).await;
}

/// Attempts on `new` that failed.
async fn failed_attempts(proxy: &Proxy) -> f64 {
    let metrics = proxy.metrics().await;
    let of = |labels: &[(&str, &str)]| metrics.sum("cutover_attempts_total", labels);
    of(&[("backend", "new")]) - of(&[("backend", "new"), ("result", "success")])
}

pub(crate) fn key_of(arm: Arm) -> String {
    keys("api", "50%", arm).next().expect("there is always one")
}

pub(crate) async fn served_by(proxy: &Proxy, key: &str) -> Option<String> {
    let answer = proxy.client().await.get("/", key).await;
    answer.served_by().map(str::to_owned)
}

pub(crate) async fn command(proxy: &Proxy, words: &[&str]) {
    let output = proxy.cutover(words).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{words:?}: {said}");
}

#[tokio::test]
async fn a_dead_arm_is_cut_off_once_and_for_good_and_no_client_sees_it_fail() {
    let (legacy, new) = (Upstream::ok("legacy"), Upstream::ok("new"));
    let proxy = start(&legacy, &new, "").await;
    // A hundred requests a second to each arm.
    let traffic = Traffic::begin(proxy.address(), 2, Duration::from_millis(10));
    traffic.goes_on(50).await;
    assert!(!new.received().is_empty(), "new has its share");
    drop(new);
    let decided = decision(&proxy, "rollback").await;
    let decided_at = Instant::now();
    traffic.goes_on(50).await;
    let record = traffic.end().await;
    assert!(record.statuses.iter().all(|status| *status == 200));
    let failed = failed_attempts(&proxy).await;
    let first = record.first_fallback.expect("some were rescued");
    println!(
        "dead arm at 100 requests/s: share 0 {:?} after the first failure, {failed} failed attempts",
        decided_at.duration_since(first)
    );
    assert!((1.0..=15.0).contains(&failed), "{failed} failed attempts");

    assert_eq!(decided.actor, "engine");
    assert_eq!(decided.from.to_string(), "50%");
    assert_eq!(decided.to.to_string(), "0%");
    assert!(decided.sentence.starts_with("Rolled back new of api at "));
    is(&proxy, Phase::RolledBack, "0%").await;
    proxy.says(1, &decided.sentence).await;
    proxy.says(1, "action=rollback").await;

    let site = proxy.kill();
    let state = site.path().join("state");
    let store = Store::open(&state).expect("a kill damages nothing");
    let history = {
        let everything = Wanted {
            split: None,
            since: None,
            limit: 10,
        };
        let reading = store.reading().expect("nor the audit");
        reading
            .history(&everything)
            .expect("nor one of its entries")
    };
    assert_eq!(history, std::slice::from_ref(&decided));
    drop(store);
    let proxy = site.launch(&[]).await;
    is(&proxy, Phase::RolledBack, "0%").await;
    assert_eq!(proxy.split("api").await.last_decision, Some(decided));
    let answer = proxy.client().await.get("/", &key_of(Arm::New)).await;
    assert_eq!(answer.served_by(), Some("legacy"));
    assert_eq!(answer.field("cutover-fallback"), None, "new is not tried");
}

#[tokio::test]
async fn a_dead_arm_with_little_traffic_is_cut_off_after_few_attempts() {
    let (legacy, new) = (Upstream::ok("legacy"), Upstream::ok("new"));
    let proxy = start(&legacy, &new, "").await;
    drop(new);
    let mut client = proxy.client().await;
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    let mut requests = 0;
    for key in keys("api", "50%", Arm::New) {
        pace.tick().await;
        if proxy.split("api").await.phase == Phase::RolledBack {
            break;
        }
        assert_eq!(client.get("/", &key).await.status, 200);
        requests += 1;
    }
    let failed = failed_attempts(&proxy).await;
    println!(
        "dead arm at 10 requests/s: share 0 after {requests} requests, {failed} failed attempts"
    );
    assert!(requests <= 15, "{requests} requests until the rollback");
    assert!((1.0..=15.0).contains(&failed), "{failed} failed attempts");
}

#[tokio::test]
async fn errors_that_clients_see_are_cut_off() {
    let legacy = Upstream::ok("legacy");
    let count = AtomicUsize::new(0);
    // Never ten in a row: here the evidence decides.
    let new = Upstream::start("new", move |_| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        Script::status(if number % 3 == 2 { 200 } else { 500 })
    });
    let proxy = start(&legacy, &new, "fallback: {enabled: false}").await;
    let traffic = Traffic::begin(proxy.address(), 2, Duration::from_millis(10));
    let decided = decision(&proxy, "rollback").await;
    let after = new.received().len();
    traffic.goes_on(50).await;
    let record = traffic.end().await;
    assert!(record.statuses.contains(&500), "without a fallback");
    assert_eq!(decided.reason, "error_rate > 5%");
    let sentence = &decided.sentence;
    assert!(
        sentence.contains("against \"error_rate <= 5%\""),
        "{sentence}"
    );
    assert!(
        new.received().len() <= after + 2,
        "only what was under way still arrives"
    );
}

#[tokio::test]
async fn answers_that_are_too_slow_are_cut_off() {
    let legacy = Upstream::ok("legacy");
    let new = Upstream::start("new", |_| {
        let slow = Step::Pause(Duration::from_millis(300));
        Script::of([slow, Step::Answer(Reply::new(200))])
    });
    let proxy = start(&legacy, &new, "rollback: ['p95 > 100ms']").await;
    let traffic = Traffic::begin(proxy.address(), 20, Duration::from_millis(10));
    let decided = decision(&proxy, "rollback").await;
    assert_eq!(decided.reason, "p95 > 100ms");
    let sentence = &decided.sentence;
    assert!(sentence.contains("slower than 100ms 100%"), "{sentence}");
    let record = traffic.end().await;
    assert!(record.statuses.iter().all(|status| *status == 200));
}

#[tokio::test]
async fn requests_that_hang_are_cut_off_before_they_end() {
    let legacy = Upstream::ok("legacy");
    let new = Upstream::start("new", |_| Script::hang());
    let settings = "share: 50%, rollback: ['p95 > 100ms']";
    let configuration = migration(legacy.address(), new.address(), settings).replace(
        "new: {endpoints",
        "new: {timeouts: {first_byte: 1h}, endpoints",
    );
    let proxy = Site::new().start(&configuration).await;
    let mut hanging = Vec::new();
    for key in keys("api", "50%", Arm::New).take(30) {
        let mut client = proxy.client().await;
        hanging.push(tokio::spawn(
            async move { client.begin(get("/", &key)).await },
        ));
    }
    let decided = decision(&proxy, "rollback").await;
    assert_eq!(decided.reason, "p95 > 100ms");
    assert!(hanging.iter().all(|client| !client.is_finished()));
    assert_eq!(new.count(|request| request.was_departed), 0);
    let key = key_of(Arm::New);
    assert_eq!(served_by(&proxy, &key).await.as_deref(), Some("legacy"));
}

#[tokio::test]
async fn where_legacy_is_as_bad_the_share_is_held_and_that_is_said_once() {
    let legacy = Upstream::start("legacy", |_| Script::status(500));
    let new = Upstream::start("new", |_| Script::status(500));
    let proxy = start(&legacy, &new, "fallback: {enabled: false}").await;
    let traffic = Traffic::begin(proxy.address(), 2, Duration::from_millis(10));
    let held = decision(&proxy, "hold").await;
    assert!(held.sentence.contains("legacy breaches the same limit"));
    assert_eq!((held.from, held.to), (held.to, held.from));
    traffic.goes_on(200).await;
    traffic.end().await;
    is(&proxy, Phase::Progressing, "50%").await;
    assert_eq!(proxy.split("api").await.last_decision, Some(held));
    proxy.says(1, "action=hold").await;
    proxy.says(0, "action=rollback").await;
}

#[tokio::test]
async fn a_resumed_arm_is_judged_by_what_it_does_afterwards() {
    let legacy = Upstream::ok("legacy");
    let (new, is_well) = patient(Script::reset());
    let proxy = start(&legacy, &new, "").await;
    let traffic = Traffic::begin(proxy.address(), 2, Duration::from_millis(10));
    is_well.store(false, Ordering::SeqCst);
    decision(&proxy, "rollback").await;

    is_well.store(true, Ordering::SeqCst);
    let before = new.received().len();
    command(&proxy, &["resume", "api", "--reason", "it is mended"]).await;
    eventually("new has its share again", async || {
        new.received().len() >= before + 100
    })
    .await;
    is(&proxy, Phase::Progressing, "50%").await;
    let resumed = proxy.split("api").await.last_decision;
    let resumed = resumed.expect("a person decided");
    assert_eq!(
        (resumed.action.as_str(), resumed.actor.as_str()),
        ("resume", "local")
    );
    assert_eq!(resumed.reason, "it is mended");

    is_well.store(false, Ordering::SeqCst);
    decision(&proxy, "rollback").await;
    is(&proxy, Phase::RolledBack, "0%").await;
    proxy.says(2, "action=rollback").await;
    let record = traffic.end().await;
    assert!(record.statuses.iter().all(|status| *status == 200));
}

#[tokio::test]
async fn a_breaker_that_is_still_open_does_not_undo_a_resume() {
    let legacy = Upstream::ok("legacy");
    let is_well = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&is_well);
    // Well, but busy: while one request is answered, many more arrive.
    let new = Upstream::start("new", move |_| match told.load(Ordering::SeqCst) {
        true => Script::of([
            Step::Pause(Duration::from_millis(150)),
            Step::Answer(Reply::new(200)),
        ]),
        false => Script::reset(),
    });
    let breaker = "fallback: {breaker: {open_for: 1h}}, rollback: ['error_rate > 5%']";
    let proxy = start(&legacy, &new, breaker).await;
    let traffic = Traffic::begin(proxy.address(), 40, Duration::from_millis(50));
    decision(&proxy, "rollback").await;
    is_well.store(true, Ordering::SeqCst);
    // What was sent before is over with.
    traffic.goes_on(100).await;
    let before = new.received().len();
    command(&proxy, &["resume", "api"]).await;
    eventually("new has its share again", async || {
        new.received().len() >= before + 100
    })
    .await;
    traffic.end().await;
    is(&proxy, Phase::Progressing, "50%").await;
    assert_eq!(proxy.split("api").await.breaker, "closed");
}
