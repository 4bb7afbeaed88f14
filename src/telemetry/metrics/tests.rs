use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use super::*;
use crate::policy::criteria::Action;
use crate::policy::rollout::{
    Condition, Decision, Need, Observed, Outlook, Phase, PlannedStage, StageProgress,
};
use crate::policy::share::Share;
use crate::policy::signal::{SignalCondition, SignalState};
use crate::telemetry::WorkerId;
use crate::telemetry::access_log::LogReading;
use crate::telemetry::edge::EdgeLoad;
use crate::telemetry::fixture::cluster;
use crate::telemetry::tally::{AttemptTally, SplitReading, SplitTally, Thresholds};

const WORKER: WorkerId = WorkerId(0);
const PROCESS: ProcessScene<'static> = ProcessScene {
    generation: 3,
    last_reload_successful: true,
    last_reload_at: Timestamp::from_milliseconds(1_795_000_000_250),
    store_healthy: true,
    audit_dropped: 0,
    worker_connections: &[4, 6],
    max_client_connections: 20,
    connections_accepted: 11,
    denied_networks: 5,
    denials_dropped: 2,
    failed_accepts: 1,
    untold: 3,
    edge_load: EdgeLoad {
        requests_in_flight: 3,
        remembered_addresses: 2,
        requests_on_common_allowance: 1,
        log: LogReading {
            written: 7,
            dropped: 2,
        },
    },
    tunnels: 5,
    tunnels_ended: [4, 3, 2, 1],
    refused: &[("connection_limit", 2)],
    handovers: &[("taken_over", 1), ("failed", 0)],
    certificates: &[CertificateScene {
        listener: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8443),
        file: "tls/edge.pem",
        not_after: Timestamp::from_milliseconds(1_800_000_000_000),
    }],
};

const ROUTE: RouteScene<'static> = RouteScene {
    name: "login",
    limits_requests: true,
    limits_rate: true,
    in_flight: 4,
    overloaded: 6,
    rate_limited: 7,
    keys: 8,
    on_common_allowance: 9,
};

fn metrics() -> Metrics {
    Metrics::new(Timestamp::from_milliseconds(1_794_000_000_000))
}

fn condition() -> Condition {
    Condition {
        criterion: "error_rate > 5%".to_owned(),
        action: Action::Rollback,
        value: Some(0.2),
        limit: Some(0.05),
        samples: 10,
        events: 2,
        interval: Some([0.01, 0.6]),
        legacy: Observed::default(),
        evidence: 100.0,
        threshold: 400.0,
        meter: 0.77,
        since: None,
        overdispersion: 1.5,
        verdict: "pass".to_owned(),
        withheld_by: None,
    }
}

fn split<'a>(
    name: &'a str,
    reading: &'a SplitReading,
    conditions: &'a [Condition],
) -> SplitScene<'a> {
    SplitScene {
        name,
        phase: Phase::Progressing,
        share: Share::from_basis_points(1_000).expect("10%"),
        emergency: false,
        breaker: Some("open"),
        conditions,
        signals: &SIGNALS,
        outlook: &OUTLOOK,
        announced: std::array::from_fn(|index| index as u64),
        reading,
    }
}

static SIGNALS: LazyLock<Vec<SignalState>> = LazyLock::new(|| {
    let condition = SignalCondition {
        sentence: "memory > 2GiB".to_owned(),
        action: Some(Action::Rollback),
        limit: Some(2_147_483_648.0),
        breached_seconds: None,
        verdict: "pass".to_owned(),
    };
    vec![SignalState {
        name: "memory".to_owned(),
        value: Some(1e9),
        legacy: Some(5e8),
        at: None,
        age_seconds: Some(3.0),
        fresh_for_seconds: 60.0,
        fresh: true,
        absent: "inconclusive".to_owned(),
        error: None,
        conditions: vec![condition],
    }]
});

/// In the second of two stages; nobody has approved that it is left.
static OUTLOOK: LazyLock<Outlook> = LazyLock::new(|| Outlook {
    stage: Some(StageProgress {
        number: 2,
        of: 2,
        share: Share::ALL,
        healthy_seconds: 12.5,
        ..StageProgress::default()
    }),
    stages: vec![PlannedStage::default(); 2],
    needs: vec![need()],
    approval_needed: true,
    seconds_to_come: Some(40.0),
    seconds_since_change: Some(60.0),
    ..Outlook::default()
});

fn need() -> Need {
    Need {
        requirement: "p95 < 200ms".to_owned(),
        value: Some(0.01),
        limit: Some(0.05),
        samples: 100,
        events: 1,
        interval: None,
        legacy: Observed::default(),
        evidence: 10.0,
        threshold: 20.0,
        meter: 0.77,
        overdispersion: 1.0,
        verdict: "inconclusive".to_owned(),
        requests_to_come: None,
        seconds_to_come: None,
        lacking: None,
    }
}

fn render(splits: Vec<SplitScene<'_>>) -> String {
    metrics().render(&Scene {
        process: PROCESS,
        splits,
        backends: Vec::new(),
        routes: Vec::new(),
    })
}

/// Something of everything.
fn render_all() -> String {
    let tally = SplitTally::new(1, Thresholds::default());
    let new = tally.arm(WORKER, Arm::New);
    new.book(Class::Success, Some(cluster(1)));
    new.first_byte(Duration::from_millis(3));
    new.total(Duration::from_millis(4));
    let attempts = AttemptTally::new(1);
    attempts.attempt(WORKER, Ok(()));
    let endpoint = EndpointScene {
        address: "127.0.0.1:9002",
        healthy: false,
        reachable: true,
        pending: 1,
        connections: 2,
    };
    metrics().render(&Scene {
        process: PROCESS,
        splits: vec![split("checkout", &tally.reading(), &[condition()])],
        backends: vec![BackendScene {
            name: "new-api",
            attempts: &attempts.reading(),
            endpoints: vec![endpoint],
        }],
        routes: vec![ROUTE],
    })
}

/// Samples by name and labels; a series that occurs twice is refused by Prometheus.
fn samples(text: &str) -> BTreeMap<&str, f64> {
    let mut samples = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some((series, value)) = line.rsplit_once(' ') {
            let value = value.parse().expect("a number");
            assert_eq!(samples.insert(series, value), None, "{series} occurs twice");
        }
    }
    samples
}

/// Each metric's name and type.
fn families(text: &str) -> BTreeSet<(&str, &str)> {
    text.lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect()
}

#[test]
fn requests_are_shown_by_arm_class_and_whether_they_are_evidence() {
    let tally = SplitTally::new(1, Thresholds::default());
    let new = tally.arm(WORKER, Arm::New);
    new.book(Class::ServerError, Some(cluster(1)));
    new.book(Class::ServerError, None);
    new.book(Class::ServerError, None);
    let text = render(vec![split("checkout", &tally.reading(), &[])]);

    let samples = samples(&text);
    let requests = |evidence| {
        format!(
            "cutover_requests_total{{split=\"checkout\",arm=\"new\",class=\"server_error\",\
             evidence=\"{evidence}\"}}"
        )
    };
    assert_eq!(samples[&*requests("true")], 1.0);
    assert_eq!(samples[&*requests("false")], 2.0);
    let share = samples["cutover_split_share_ratio{split=\"checkout\"}"];
    assert_eq!(share, 0.1);
}

#[test]
fn the_breaker_is_in_one_of_its_states() {
    let reading = SplitTally::new(1, Thresholds::default()).reading();
    let text = render(vec![split("checkout", &reading, &[])]);
    let samples = samples(&text);
    for state in BREAKER_STATES {
        let series = format!("cutover_breaker_state{{split=\"checkout\",state=\"{state}\"}}");
        assert_eq!(samples[&*series], truth(state == "open"), "{state}");
    }
}

#[test]
fn a_rollout_is_in_one_phase_and_one_stage() {
    let reading = SplitTally::new(1, Thresholds::default()).reading();
    let text = render(vec![split("checkout", &reading, &[])]);
    let samples = samples(&text);
    for phase in Phase::ALL {
        let series = format!(
            "cutover_phase{{split=\"checkout\",phase=\"{}\"}}",
            phase.as_str()
        );
        assert_eq!(samples[&*series], truth(phase == Phase::Progressing));
    }
    let of_split = |name: &str| samples[&*format!("{name}{{split=\"checkout\"}}")];
    assert_eq!(of_split("cutover_stage"), 2.0);
    assert_eq!(of_split("cutover_stages"), 2.0);
    assert_eq!(of_split("cutover_stage_share_ratio"), 1.0);
    assert_eq!(of_split("cutover_stage_healthy_seconds"), 12.5);
    assert_eq!(of_split("cutover_approval_needed"), 1.0);
}

#[test]
fn decisions_are_counted_by_what_was_done_those_that_never_happened_as_well() {
    let reading = SplitTally::new(1, Thresholds::default()).reading();
    let text = render(vec![split("checkout", &reading, &[])]);
    let samples = samples(&text);
    for (index, action) in Decision::ACTIONS.into_iter().enumerate() {
        let labels = format!("split=\"checkout\",action=\"{action}\"");
        let series = format!("cutover_decisions_total{{{labels}}}");
        assert_eq!(samples[&*series], index as f64, "{action}");
    }
}

#[test]
fn a_signal_is_shown_with_its_age_and_what_is_asked_of_it() {
    let reading = SplitTally::new(1, Thresholds::default()).reading();
    let text = render(vec![split("checkout", &reading, &[])]);
    let samples = samples(&text);
    let signal = "split=\"checkout\",signal=\"memory\"";
    let condition = "condition=\"memory > 2GiB\"";
    assert_eq!(
        samples[&*format!("cutover_signal_age_seconds{{{signal}}}")],
        3.0
    );
    assert_eq!(samples[&*format!("cutover_signal_fresh{{{signal}}}")], 1.0);
    for (arm, value) in [("new", 1e9), ("legacy", 5e8)] {
        let series = format!("cutover_signal_value{{{signal},arm=\"{arm}\"}}");
        assert_eq!(samples[&*series], value);
    }
    let passes = format!("cutover_signal_passes{{{signal},{condition}}}");
    assert_eq!(samples[&*passes], 1.0);
}

#[test]
fn without_a_plan_no_stage_is_invented() {
    let reading = SplitTally::new(1, Thresholds::default()).reading();
    let outlook = Outlook::default();
    let by_hand = SplitScene {
        outlook: &outlook,
        ..split("checkout", &reading, &[])
    };
    let text = render(vec![by_hand]);
    for absent in [
        "cutover_stage",
        "cutover_gate",
        "cutover_seconds_since_change",
    ] {
        assert!(!text.contains(absent), "{absent} in:\n{text}");
    }
}

#[test]
fn a_histogram_is_cumulative_and_exact_at_its_edges() {
    let tally = SplitTally::new(1, Thresholds::default());
    let legacy = tally.arm(WORKER, Arm::Legacy);
    for elapsed in [
        Duration::ZERO,
        Duration::from_micros(100),
        Duration::from_nanos(100_001),
        Duration::from_micros(200),
        Duration::from_secs(300),
    ] {
        legacy.first_byte(elapsed);
    }
    let text = render(vec![split("checkout", &tally.reading(), &[])]);

    let samples = samples(&text);
    let first_byte = |suffix: &str, le: &str| {
        let series = format!(
            "cutover_request_first_byte_seconds_{suffix}{{split=\"checkout\",arm=\"legacy\"{le}}}"
        );
        samples[&*series]
    };
    assert_eq!(first_byte("bucket", ",le=\"0.0001\""), 2.0);
    assert_eq!(first_byte("bucket", ",le=\"0.000141421\""), 3.0);
    assert_eq!(first_byte("bucket", ",le=\"0.0002\""), 4.0);
    assert_eq!(first_byte("bucket", ",le=\"104.8576\""), 4.0);
    assert_eq!(first_byte("bucket", ",le=\"+Inf\""), 5.0);
    assert_eq!(first_byte("count", ""), 5.0);
    assert_eq!(first_byte("sum", ""), 300.000_400_001);
}

#[test]
fn a_split_that_was_removed_is_gone_and_a_tally_that_began_anew_goes_down() {
    let counted = SplitTally::new(1, Thresholds::default());
    counted.unverifiable_token(WORKER);
    let fresh = SplitTally::new(1, Thresholds::default()).reading();
    let counted = counted.reading();
    let metrics = metrics();
    let scene = |splits| Scene {
        process: PROCESS,
        splits,
        backends: Vec::new(),
        routes: Vec::new(),
    };

    let before = metrics.render(&scene(vec![
        split("checkout", &counted, &[]),
        split("search", &counted, &[]),
    ]));
    let after = metrics.render(&scene(vec![split("checkout", &fresh, &[])]));

    assert!(before.contains("search"));
    assert!(!after.contains("search"));
    let tokens = "cutover_unverifiable_tokens_total{split=\"checkout\"}";
    assert_eq!(samples(&before)[tokens], 1.0);
    assert_eq!(samples(&after)[tokens], 0.0);
}

#[test]
fn evidence_that_underflowed_is_a_finite_number() {
    let reading = SplitTally::new(1, Thresholds::default()).reading();
    let none = Condition {
        evidence: 0.0,
        ..condition()
    };
    let text = render(vec![split("checkout", &reading, &[none])]);
    let series = "cutover_evidence_log10{split=\"checkout\",condition=\"error_rate > 5%\"}";
    assert!(samples(&text)[series].is_finite());
}

#[test]
fn a_name_with_special_characters_ends_no_label() {
    let reading = SplitTally::new(1, Thresholds::default()).reading();
    let text = render(vec![split("a\"b\\c\nd", &reading, &[])]);
    assert_accepted_by_promtool(&text);
    let count = r#"cutover_request_duration_seconds_count{split="a\"b\\c\nd",arm="new"}"#;
    let requests = r#"cutover_unverifiable_tokens_total{split="a\"b\\c\nd"}"#;
    assert!(samples(&text).contains_key(count));
    assert!(samples(&text).contains_key(requests));
}

#[test]
fn promtool_accepts_every_name_unit_and_type() {
    assert_accepted_by_promtool(&render_all());
}

#[test]
fn the_documentation_lists_exactly_the_metrics_there_are() {
    let documentation = include_str!("../../../docs/metrics.md");
    let documented = documentation.lines().filter_map(|line| {
        let (metric, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
        let kind = rest.split(' ').next()?;
        let is_metric = ["counter", "gauge", "histogram"].contains(&kind);
        is_metric.then(|| (metric.split('{').next().unwrap_or(metric), kind))
    });
    let rendered = render_all();
    assert_eq!(documented.collect::<BTreeSet<_>>(), families(&rendered));
}

/// `promtool check metrics` parses the text and applies the naming rules of Prometheus.
fn assert_accepted_by_promtool(text: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("this test needs promtool, of Debian's package `prometheus`");
    let mut input = promtool.stdin.take().expect("standard input is piped");
    input
        .write_all(text.as_bytes())
        .expect("promtool reads its input");
    drop(input);
    let output = promtool.wait_with_output().expect("promtool ends");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaints}\n{text}");
}
