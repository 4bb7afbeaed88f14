//! A `new` that dies and comes back again and again, and one that answers nothing but errors, with
//! everything on that is to help: breaker, budget, ejection, checks.

use std::time::Duration;

use crate::harness::proxy::Site;
use crate::harness::traffic::Traffic;
use crate::harness::upstream::{Place, Received, Reply, Script, Upstream};
use crate::harness::{eventually, migration, unjudged};

const CALLERS: usize = 8;
const PACE: Duration = Duration::from_millis(4);
/// How often `new` dies.
const DEATHS: usize = 15;
/// What it is asked for in each life, and what the callers are answered before the next.
const SERVED: usize = 20;
const MISSED: usize = 100;

fn answer(request: &Received) -> Script {
    match request.target.as_str() {
        "/health" => Script::status(204),
        _ => Script::answer(Reply::new(200)),
    }
}

#[tokio::test]
async fn a_new_arm_that_flaps_is_noticed_by_nobody() {
    let eject = "ejection: {consecutive_failures: 3, duration: 150ms}";
    let check = "health_check: {path: /health, interval: 30ms, unhealthy_after: 1}";
    for (settings, with_another, breaker) in [
        (String::new(), false, "false"),
        (String::new(), false, "{open_for: 50ms}"),
        (check.to_owned(), false, "{open_for: 50ms}"),
        (eject.to_owned(), true, "false"),
        (format!("{eject}, {check}"), true, "{open_for: 50ms}"),
    ] {
        let (legacy, place) = (Upstream::ok("legacy"), Place::new());
        let another = Upstream::start("new", answer);
        let mut endpoints = format!("'{}'", place.address());
        if with_another {
            endpoints += &format!(", '{}'", another.address());
        }
        let new = format!("{{endpoints: [{endpoints}], {settings}}}");
        let legacy_backend = format!("{{endpoints: ['{}']}}", legacy.address());
        let fallback = format!("fallback: {{breaker: {breaker}}}");
        let proxy = Site::new()
            .start(&unjudged(&legacy_backend, &new, &fallback, ""))
            .await;
        let traffic = Traffic::begin(proxy.address(), CALLERS, PACE);
        for _ in 0..DEATHS {
            let alive = place.start("new", answer);
            eventually("it is found again", async || {
                alive.count(|request| request.target != "/health") >= SERVED
            })
            .await;
            drop(alive);
            traffic.goes_on(MISSED).await;
        }
        let record = traffic.end().await;
        let failed = record.statuses.iter().filter(|status| **status != 200);
        let name = format!("{settings}, another: {with_another}, breaker: {breaker}");
        assert_eq!(failed.count(), 0, "{name}: of {}", record.statuses.len());
        let opened = [("backend", "new"), ("result", "success")];
        let metrics = proxy.metrics().await;
        let answered = metrics.sum("cutover_attempts_total", &opened);
        assert!(answered > 0.0, "{name}: nobody ever reached it");
        for gauge in [
            "cutover_requests_in_flight",
            "cutover_endpoint_pending_requests",
        ] {
            proxy.counts(0.0, gauge, &[]).await;
        }
    }
}

#[tokio::test]
async fn a_storm_of_errors_at_a_small_share_is_within_the_budget() {
    let legacy = Upstream::ok("legacy");
    let new = Upstream::start("new", |_| Script::status(503));
    let settings = "share: 10%, rollback: off, analysis: {hard_fail: 1000000}, \
                    response_headers: true";
    let proxy = Site::new()
        .start(&migration(legacy.address(), new.address(), settings))
        .await;
    let traffic = Traffic::begin(proxy.address(), CALLERS, PACE);
    traffic.goes_on(2_000).await;
    let record = traffic.end().await;
    assert!(record.first_fallback.is_some(), "new has its share");
    assert!(record.statuses.iter().all(|status| *status == 200));
    let rescued = [("reason", "status"), ("result", "rescued")];
    let rescued = proxy
        .metrics()
        .await
        .sum("cutover_fallbacks_total", &rescued);
    assert_eq!(rescued, new.received().len() as f64);
}
