//! A plan is shown alike to people, to programs and to the monitoring.

use std::time::Duration;

use cutover::control::protocol::SplitStatus;
use cutover::policy::plan::OnTimeout;
use cutover::policy::rollout::Phase;

use crate::harness::metrics::Metrics;
use crate::harness::proxy::{Proxy, Site};
use crate::harness::traffic::Traffic;
use crate::harness::upstream::Upstream;
use crate::harness::{eventually, migration};

/// The second stage needs an hour, so that the plan stays there.
const PLAN: &str = "stages: [{share: 0%, observe: 200ms}, \
                    {share: 10%, observe: 1h, min_requests: 1000000, timeout: 2h}, \
                    {share: 100%, approval: false}], \
                    rollback: ['error_rate > 50%', 'p95 > 10s'], \
                    advance: ['error_rate < 20%', 'p95 < 5s']";

/// A proxy in the second of three stages, with some traffic behind it and none under way.
async fn in_the_second_stage() -> (Proxy, [Upstream; 2]) {
    let arms = [Upstream::ok("legacy"), Upstream::ok("new")];
    let configuration = migration(arms[0].address(), arms[1].address(), PLAN);
    let proxy = Site::new().start(&configuration).await;
    eventually("the first stage is left", async || {
        proxy.split("api").await.share == "10%"
    })
    .await;
    let traffic = Traffic::begin(proxy.address(), 2, Duration::from_millis(2));
    eventually("both arms are judged", async || {
        let split = proxy.split("api").await;
        split.outlook.stage.is_some_and(|stage| stage.requests > 50)
    })
    .await;
    traffic.end().await;
    (proxy, arms)
}

#[tokio::test]
async fn status_shows_a_plan_with_all_that_its_next_step_waits_for() {
    let (proxy, _arms) = in_the_second_stage().await;
    let split = proxy.split("api").await;
    let outlook = &split.outlook;
    let stage = outlook.stage.as_ref().expect("the second stage");
    assert_eq!(
        (split.phase, split.share.as_str()),
        (Phase::Progressing, "10%")
    );
    assert_eq!((stage.number, stage.of), (2, 3));
    assert_eq!(stage.share.to_string(), "10%");
    assert_eq!(
        (stage.observe_seconds, stage.min_requests),
        (3_600.0, 1_000_000)
    );
    assert_eq!(stage.timeout_seconds, Some(7_200.0));
    let timeout = outlook.timeout.expect("it comes before a million requests");
    assert_eq!(
        (timeout.then, outlook.seconds_to_come),
        (OnTimeout::Hold, None)
    );
    assert!(
        stage.requests > 50 && stage.healthy_seconds > 0.0,
        "{stage:?}"
    );
    assert!(stage.watched_seconds >= stage.healthy_seconds, "{stage:?}");
    let plan: Vec<_> = outlook
        .stages
        .iter()
        .map(|it| it.share.to_string())
        .collect();
    assert_eq!(plan, ["0%", "10%", "100%"]);
    assert_eq!(
        outlook.next_share.map(|next| next.to_string()).as_deref(),
        Some("100%")
    );
    assert!(outlook.seconds_since_change.is_some());
    let needs: Vec<_> = outlook.needs.iter().map(|need| &need.requirement).collect();
    assert_eq!(needs[..2], ["error_rate < 20%", "p95 < 5s"]);
    let lacking = outlook.lacking.join(" ");
    assert!(
        lacking.contains("of 1h.") && lacking.contains("of 1 000 000 requests."),
        "{lacking}"
    );

    let shown = proxy.cutover(&["status"]).await;
    let text = String::from_utf8(shown.stdout).expect("text");
    for part in [
        "2 of 3",
        "pause in ",
        "api: stage 2 of 3 at 10%\nIn good health for ",
        "The step to 100% waits:\n- Observed in good health for ",
        "error_rate > 50%",
        "error_rate < 20%",
        "Advanced new of api from 0% to 10% (stage 2 of 3)",
    ] {
        assert!(text.contains(part), "no `{part}` in:\n{text}");
    }
    // The first lines name files and are as long as their names.
    for line in text.lines().skip_while(|line| !line.starts_with("SPLIT")) {
        assert!(line.chars().count() <= 80, "too wide: {line}\n{text}");
    }
}

#[tokio::test]
async fn a_scrape_says_what_status_says_at_the_same_moment() {
    let (proxy, _arms) = in_the_second_stage().await;
    // Time goes on between the two, so that the scrape has to lie between two looks that show the
    // same figures but for the seconds.
    let mut found = None;
    eventually("nothing changes while it is scraped", async || {
        let before = proxy.split("api").await;
        let scrape = proxy.metrics().await;
        let after = proxy.split("api").await;
        let is_calm = before.conditions == after.conditions
            && before.outlook.needs == after.outlook.needs
            && before.phase == after.phase;
        found = is_calm.then_some((before, scrape, after));
        is_calm
    })
    .await;
    let (before, scrape, after) = found.expect("it was calm");
    agrees(&scrape, &before, &after);
}

fn agrees(scrape: &Metrics, before: &SplitStatus, after: &SplitStatus) {
    let (first, last) = (&before.outlook, &after.outlook);
    let stages = [first, last].map(|outlook| outlook.stage.as_ref().expect("a stage"));
    let [stage, stage_after] = stages;
    let says = |name: &str, labels: &[(&str, &str)], value: f64| {
        let found = scrape.only(name, labels);
        let found = found.unwrap_or_else(|| panic!("no {name}{labels:?}"));
        assert!(
            (found - value).abs() <= 1e-9 * value.abs(),
            "{name}{labels:?}: {found}, {value}"
        );
    };
    let tells = |name: &str, labels: &[(&str, &str)], value: Option<f64>| match value {
        Some(value) => says(name, labels, value),
        None => assert_eq!(scrape.only(name, labels), None, "{name}{labels:?}"),
    };
    let lies = |name: &str, from: f64, to: f64| {
        let found = scrape.only(name, &[("split", "api")]);
        let found = found.unwrap_or_else(|| panic!("no {name}"));
        assert!(
            (from..=to).contains(&found),
            "{name}: {found}, {from} to {to}"
        );
    };
    let api = [("split", "api")];
    for phase in Phase::ALL {
        let labels = [("split", "api"), ("phase", phase.as_str())];
        says(
            "cutover_phase",
            &labels,
            f64::from(u8::from(phase == before.phase)),
        );
    }
    says("cutover_split_share_ratio", &api, 0.1);
    says("cutover_stage", &api, stage.number as f64);
    says("cutover_stages", &api, first.stages.len() as f64);
    says("cutover_stage_share_ratio", &api, stage.share.ratio());
    says("cutover_stage_observe_seconds", &api, stage.observe_seconds);
    says(
        "cutover_stage_min_requests",
        &api,
        stage.min_requests as f64,
    );
    says("cutover_stage_requests", &api, stage.requests as f64);
    says("cutover_next_step_waits", &api, first.lacking.len() as f64);
    says("cutover_approval_needed", &api, 0.0);
    says("cutover_held", &api, 0.0);
    lies(
        "cutover_stage_healthy_seconds",
        stage.healthy_seconds,
        stage_after.healthy_seconds,
    );
    lies(
        "cutover_stage_watched_seconds",
        stage.watched_seconds,
        stage_after.watched_seconds,
    );
    let since = [first, last].map(|outlook| outlook.seconds_since_change.expect("it changed"));
    lies("cutover_seconds_since_change", since[0], since[1]);
    for condition in &before.conditions {
        let labels = [
            ("split", "api"),
            ("condition", condition.criterion.as_str()),
        ];
        tells("cutover_criterion_value_ratio", &labels, condition.value);
        tells("cutover_criterion_limit_ratio", &labels, condition.limit);
        says(
            "cutover_criterion_samples",
            &labels,
            condition.samples as f64,
        );
        says("cutover_criterion_events", &labels, condition.events as f64);
        says(
            "cutover_evidence_log10",
            &labels,
            condition.evidence.log10(),
        );
        says(
            "cutover_evidence_threshold_log10",
            &labels,
            condition.threshold.log10(),
        );
        let labels = [("split", "api"), ("event", condition.criterion.as_str())];
        says("cutover_overdispersion", &labels, condition.overdispersion);
    }
    for need in &first.needs {
        let labels = [("split", "api"), ("gate", need.requirement.as_str())];
        tells("cutover_gate_value_ratio", &labels, need.value);
        tells("cutover_gate_limit_ratio", &labels, need.limit);
        says("cutover_gate_samples", &labels, need.samples as f64);
        says(
            "cutover_gate_evidence_log10",
            &labels,
            need.evidence.log10(),
        );
        says(
            "cutover_gate_threshold_log10",
            &labels,
            need.threshold.log10(),
        );
    }
}
