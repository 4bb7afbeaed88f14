//! A rollout is moved by people: one at a time, after a look at what would happen, and in the end
//! with an answer that says how it went.

use std::process::Output;
use std::time::Duration;

use cutover::control::command::Outcome;
use cutover::policy::rollout::Phase;
use serde_json::{Value, json};

use crate::harness::migration;
use crate::harness::proxy::{Proxy, Site};
use crate::harness::traffic::Traffic;
use crate::harness::upstream::Upstream;
use crate::rollback::{becomes, command};

/// A stage that nothing leaves by itself within a test, and two that a second of traffic proves.
const PLAN: &str = "stages: [{share: 5%, observe: 1h}, \
                    {share: 50%, observe: 200ms, min_requests: 20}, \
                    {share: 100%, observe: 200ms, min_requests: 20}], \
                    rollback: ['error_rate > 50%'], advance: ['error_rate < 20%']";

async fn start(plan: &str) -> (Proxy, [Upstream; 2]) {
    let arms = [Upstream::ok("legacy"), Upstream::ok("new")];
    let configuration = migration(arms[0].address(), arms[1].address(), plan);
    (Site::new().start(&configuration).await, arms)
}

/// A proxy in the first stage of the plan, with no traffic.
async fn in_the_first_stage() -> (Proxy, [Upstream; 2]) {
    let (proxy, arms) = start(PLAN).await;
    becomes(&proxy, "the first stage begins", |split| {
        split.share == "5%"
    })
    .await;
    (proxy, arms)
}

fn said(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("it speaks UTF-8")
}

async fn revision(proxy: &Proxy) -> String {
    proxy.split("api").await.revision.to_string()
}

/// What nothing but a decision changes: status but for its figures, the snapshots, and the audit.
async fn all_that_was_decided(proxy: &Proxy) -> Value {
    let status = proxy.status().await;
    let history = proxy.ask("/api/v1/history?limit=1000").await;
    let history: Value = serde_json::from_slice(&history.body).expect("it is JSON");
    let split = &status.splits[0];
    json!({
        "generation": status.generation,
        "revision": [status.revision, split.revision],
        "emergency": [status.emergency, split.emergency],
        "phase": split.phase,
        "shares": [Some(&split.share), split.override_share.as_ref()],
        "last_decision": split.last_decision,
        "history": history,
    })
}

#[tokio::test]
async fn of_two_operators_who_saw_the_same_the_second_is_refused_and_told_of_the_first() {
    let (proxy, _arms) = in_the_first_stage().await;
    let seen = revision(&proxy).await;
    let first = ["promote", "api", "--expect", &seen, "--reason", "first"];
    command(&proxy, &first).await;
    let after_the_first = all_that_was_decided(&proxy).await;
    assert_eq!(after_the_first["shares"][0], "50%");

    let second = ["stage", "api", "1", "--expect", &seen];
    let refused = proxy.cutover(&second).await;
    assert_eq!(refused.status.code(), Some(6), "{}", said(&refused));
    assert!(said(&refused).contains("first"), "{}", said(&refused));
    let body = json!({"expected_revision": seen.parse::<u64>().expect("a number")}).to_string();
    let answer = proxy.change("/api/v1/splits/api/rollback", &body).await;
    assert_eq!(answer.status, 409);
    let error: Value = serde_json::from_slice(&answer.body).expect("errors are JSON");
    assert_eq!(error["error"]["kind"], "revision_mismatch");
    for words in [&["reload"] as &[&str], &["emergency", "--reason", "late"]] {
        let refused = proxy.cutover(&[words, &["--expect", &seen]].concat()).await;
        assert_eq!(refused.status.code(), Some(6), "{words:?}");
    }
    assert_eq!(all_that_was_decided(&proxy).await, after_the_first);

    let now = revision(&proxy).await;
    command(&proxy, &["stage", "api", "1", "--expect", &now]).await;
    let sum = proxy.status().await.revision.to_string();
    command(&proxy, &["reload", "--expect", &sum]).await;
    command(
        &proxy,
        &["emergency", "--reason", "a drill", "--expect", &sum],
    )
    .await;
}

#[tokio::test]
async fn a_rehearsal_says_what_would_be_and_leaves_no_trace() {
    let (proxy, _arms) = in_the_first_stage().await;
    let before = all_that_was_decided(&proxy).await;
    let log = proxy.log();
    // Shares in effect afterwards.
    for (words, to) in [
        (&["set", "api", "7%"] as &[&str], "7%"),
        (&["stage", "api", "3"], "100%"),
        (&["promote", "api"], "50%"),
        (&["pause", "api"], "5%"),
        (&["rollback", "api"], "0%"),
        (&["rollback", "api", "--to", "previous"], "0%"),
        (&["emergency", "--reason", "a drill"], "0%"),
        (&["emergency", "api", "--reason", "a drill"], "0%"),
    ] {
        let output = proxy
            .cutover(&[words, &["--dry-run", "-o", "json"]].concat())
            .await;
        assert_eq!(output.status.code(), Some(0), "{words:?}");
        let outcome: Outcome = serde_json::from_slice(&output.stdout).expect("an outcome");
        assert!(
            outcome.sentence.starts_with("Nothing was done."),
            "{outcome:?}"
        );
        assert!(outcome.dry_run, "{words:?}");
        let moved = &outcome.splits[0];
        assert_eq!((&*moved.from, &*moved.to), ("5%", to), "{words:?}");
    }
    let edited = migration("127.0.0.1:1", "127.0.0.1:2", "share: 40%");
    proxy.rewrite("other.yaml", &edited);
    command(&proxy, &["reload", "--dry-run"]).await;
    assert_eq!(all_that_was_decided(&proxy).await, before);
    assert_eq!(proxy.log(), log);
}

/// Whether each command would be carried out: its words, its path, its body, its exit code.
async fn answers(proxy: &Proxy, phase: Phase, codes: [i32; 7]) {
    assert_eq!(proxy.split("api").await.phase, phase);
    let commands = [
        (
            "stage",
            &["stage", "api", "2"] as &[&str],
            json!({"stage": 2}),
        ),
        ("promote", &["promote", "api"], json!({})),
        ("pause", &["pause", "api"], json!({})),
        ("approve", &["approve", "api"], json!({})),
        ("resume", &["resume", "api"], json!({})),
        ("share", &["set", "api", "60%"], json!({"share": "60%"})),
        ("rollback", &["rollback", "api"], json!({})),
    ];
    for ((path, words, mut body), code) in commands.into_iter().zip(codes) {
        let output = proxy.cutover(&[words, &["--dry-run"]].concat()).await;
        let what = format!("{words:?}, {phase:?}: {}", said(&output));
        assert_eq!(output.status.code(), Some(code), "{what}");
        body["dry_run"] = json!(true);
        let path = format!("/api/v1/splits/api/{path}");
        let answer = proxy.change(&path, &body.to_string()).await;
        let status = if code == 0 { 200 } else { 409 };
        assert_eq!(answer.status, status, "{what}");
    }
}

#[tokio::test]
async fn each_command_is_carried_out_or_refused_by_the_phase() {
    // From nothing, a first step of more than 10% waits for a person.
    let (proxy, _arms) = start(&PLAN.replace("5%, observe: 1h", "20%, observe: 1h")).await;
    answers(&proxy, Phase::Pending, [0, 0, 0, 0, 5, 0, 0]).await;
    command(&proxy, &["stage", "api", "1"]).await;
    answers(&proxy, Phase::Progressing, [0, 0, 0, 5, 5, 0, 0]).await;
    command(&proxy, &["pause", "api"]).await;
    answers(&proxy, Phase::Paused, [0, 0, 0, 5, 0, 0, 0]).await;
    command(&proxy, &["rollback", "api"]).await;
    answers(&proxy, Phase::RolledBack, [5, 5, 5, 5, 0, 5, 0]).await;
    command(&proxy, &["resume", "api"]).await;
    let traffic = Traffic::begin(proxy.address(), 2, Duration::from_millis(2));
    command(&proxy, &["stage", "api", "3", "--wait", "--timeout", "1m"]).await;
    traffic.end().await;
    answers(&proxy, Phase::Completed, [0, 5, 5, 5, 5, 0, 0]).await;
    for words in [&["promote", "no"] as &[&str], &["stage", "no", "1"]] {
        assert_eq!(proxy.cutover(words).await.status.code(), Some(2));
    }
}

#[tokio::test]
async fn a_wait_ends_with_an_advance_a_rollback_or_a_person() {
    let (proxy, [_legacy, new]) = in_the_first_stage().await;
    let wait = ["--wait", "--timeout", "1m"];
    let wait_after = async |words: &[&str]| proxy.cutover(&[words, &wait].concat()).await;
    let traffic = Traffic::begin(proxy.address(), 2, Duration::from_millis(2));

    let advanced = wait_after(&["promote", "api"]).await;
    assert_eq!(advanced.status.code(), Some(0), "{}", said(&advanced));
    let paused = wait_after(&["set", "api", "60%"]).await;
    assert_eq!(paused.status.code(), Some(5), "{}", said(&paused));
    let refused = wait_after(&["approve", "api"]).await;
    assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));

    let before = proxy.split("api").await.revision;
    let dies_afterwards = async {
        becomes(&proxy, "the stage begins", |split| split.revision > before).await;
        drop(new);
    };
    let (rolled_back, ()) = tokio::join!(wait_after(&["stage", "api", "2"]), dies_afterwards);
    assert_eq!(rolled_back.status.code(), Some(4), "{}", said(&rolled_back));
    let sentence = String::from_utf8_lossy(&rolled_back.stdout);
    assert!(sentence.contains("olled back"), "{sentence}");
    traffic.end().await;

    let words = ["stage", "api", "1", "--wait", "--timeout", "0s"];
    command(&proxy, &["resume", "api"]).await;
    let late = proxy.cutover(&words).await;
    assert_eq!(late.status.code(), Some(5), "{}", said(&late));
    let nobody = ["--admin", "http://127.0.0.1:1"];
    let nobody = proxy.cutover(&[&words[..], &nobody].concat()).await;
    assert_eq!(nobody.status.code(), Some(1), "{}", said(&nobody));
}

#[tokio::test]
async fn only_a_pushed_signal_can_be_told_and_only_as_a_number() {
    let signals = "signals: {lag: {pushed: true}, \
                   memory: {http: 'http://127.0.0.1:1/', pointer: /bytes}}";
    let (proxy, _arms) = start(&format!("{PLAN}, {signals}")).await;
    becomes(&proxy, "the first stage begins", |split| {
        split.share == "5%"
    })
    .await;
    let before = revision(&proxy).await;
    command(&proxy, &["signal", "api", "lag", "-2.5", "--legacy", "3"]).await;
    becomes(&proxy, "the value is shown", |split| {
        serde_json::to_string(&split.signals).is_ok_and(|shown| shown.contains("-2.5"))
    })
    .await;
    assert_eq!(revision(&proxy).await, before, "it is no decision");
    for (words, code) in [
        (["signal", "api", "memory", "1"], 5),
        (["signal", "api", "cpu", "1"], 2),
        (["signal", "no", "lag", "1"], 2),
    ] {
        let refused = proxy.cutover(&words).await;
        let what = said(&refused);
        assert_eq!(refused.status.code(), Some(code), "{words:?}: {what}");
    }
}
