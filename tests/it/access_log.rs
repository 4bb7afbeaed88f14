//! The access log, `Server-Timing` and the trace context: what is told of each request, to whom.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use cutover::policy::arm::Arm;
use http::Request;
use http_body_util::Full;
use serde_json::Value;

use crate::harness::client::{Client, Raw, get};
use crate::harness::eventually;
use crate::harness::keys::keys;
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::{Gate, Reply, Script, Step, Upstream};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A split at 50 % with a log beside the configuration.
struct Scene {
    proxy: Proxy,
    legacy: Upstream,
    new: Upstream,
    log: PathBuf,
}

fn configuration(top: &str, legacy: &Upstream, new: &Upstream) -> String {
    format!(
        "{top}
backends:
  legacy: {{endpoints: ['{}']}}
  new: {{endpoints: ['{}'], timeouts: {{body_idle: 500ms}}}}
splits:
  api: {{legacy: legacy, new: new, share: 50%, key: [{{header: X-User}}]}}
routes:
  - {{path_prefix: /api, split: api}}
",
        legacy.address(),
        new.address()
    )
}

impl Scene {
    async fn start(top: &str) -> Self {
        Self::with_new(top, Upstream::ok("new")).await
    }

    async fn with_new(top: &str, new: Upstream) -> Self {
        let legacy = Upstream::ok("legacy");
        let site = Site::new();
        let log = site.path().join("access.log");
        let proxy = site.start(&configuration(top, &legacy, &new)).await;
        Self {
            proxy,
            legacy,
            new,
            log,
        }
    }

    /// The log, once it has this many lines.
    async fn lines(&self, count: usize) -> Vec<String> {
        let read = || fs::read_to_string(&self.log).unwrap_or_default();
        eventually("the log has its lines", async || {
            read().lines().count() >= count
        })
        .await;
        let lines: Vec<_> = read().lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), count, "one line each");
        lines
    }

    async fn entries(&self, count: usize) -> Vec<Value> {
        let lines = self.lines(count).await;
        let parse = |line: &String| serde_json::from_str(line).expect("each line is JSON");
        lines.iter().map(parse).collect()
    }
}

fn key_of(arm: Arm) -> String {
    keys("api", "50%", arm).next().expect("each arm has keys")
}

const LOG: &str = "access_log: {path: access.log}";

#[tokio::test]
async fn every_request_has_one_line_that_says_what_became_of_it() {
    let scene = Scene::start(LOG).await;
    let mut clients = [
        Client::http1(scene.proxy.address()).await,
        Client::http2(scene.proxy.address()).await,
    ];
    for client in &mut clients {
        for arm in [Arm::Legacy, Arm::New] {
            client.get("/api//x?a=%2F", &key_of(arm)).await;
        }
        client.get("/elsewhere", "").await;
    }
    let entries = scene.entries(6).await;
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for entry in &entries {
        let part = |name: &str| entry[name].to_string();
        *seen.entry(part("arm") + &part("status")).or_default() += 1;
        assert_eq!(entry["client"], "127.0.0.1");
        assert_eq!(entry["end"], "complete");
        assert_eq!(entry["request_id"].as_str().map(str::len), Some(32));
        assert!(entry["duration_ms"].as_f64() >= entry["upstream_ms"].as_f64());
    }
    let expected = [("\"legacy\"200", 2), ("\"new\"200", 2), ("null404", 2)];
    assert!(seen.iter().map(|(k, n)| (k.as_str(), *n)).eq(expected));
    let versions: Vec<_> = entries.iter().map(|entry| &entry["protocol"]).collect();
    assert_eq!(versions.iter().filter(|one| **one == "HTTP/1.1").count(), 3);
    assert_eq!(versions.iter().filter(|one| **one == "HTTP/2.0").count(), 3);
    assert!(
        entries
            .iter()
            .any(|entry| entry["target"] == "/api//x?a=%2F")
    );
    let lines = [("result", "written")];
    let name = "cutover_access_log_lines_total";
    scene.proxy.counts(6.0, name, &lines).await;
    scene
        .proxy
        .counts(0.0, name, &[("result", "dropped")])
        .await;
}

#[tokio::test]
async fn a_rescue_names_its_reason_and_a_client_that_left_is_told_from_a_whole_answer() {
    let gate = Gate::new();
    let waited = gate.clone();
    let new = Upstream::start("new", move |request| match request.target.as_str() {
        "/api/hang" => Script::of([Step::Wait(waited.clone())]),
        _ => Script::status(503),
    });
    let scene = Scene::with_new(LOG, new).await;
    let key = key_of(Arm::New);
    let mut client = scene.proxy.client().await;
    assert_eq!(client.get("/api", &key).await.status, 200);
    let entries = scene.entries(1).await;
    assert_eq!(entries[0]["arm"], "new");
    assert_eq!(entries[0]["fallback"], "status");
    assert_eq!(entries[0]["status"], 200);
    let mut leaving = Raw::connect(scene.proxy.address()).await;
    let head = format!("GET /api/hang HTTP/1.1\r\nHost: a\r\nX-User: {key}\r\n\r\n");
    leaving.write(head).await;
    scene.new.has_received("/api/hang").await;
    drop(leaving);
    let entries = scene.entries(2).await;
    assert_eq!(entries[1]["status"], 499);
    assert_eq!(entries[1]["end"], "client_gone");
}

#[tokio::test]
async fn an_answer_that_breaks_off_says_so() {
    // What breaks off before its head is handed on would be rescued.
    let gate = Gate::new();
    let waited = gate.clone();
    let new = Upstream::start("new", move |_| {
        Script::write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
            .then(Step::Wait(waited.clone()))
            .then(Step::Close)
    });
    let scene = Scene::with_new(LOG, new).await;
    let mut client = Raw::connect(scene.proxy.address()).await;
    let key = key_of(Arm::New);
    let head = format!("GET /api HTTP/1.1\r\nHost: a\r\nX-User: {key}\r\n\r\n");
    client.write(head).await;
    client.read_head().await;
    gate.open();
    client.read_to_end().await;
    let entries = scene.entries(1).await;
    assert_eq!(entries[0]["end"], "truncated");
    assert_eq!(entries[0]["bytes"], 5);
}

#[tokio::test]
async fn a_client_that_breaks_off_its_upload_after_the_answers_head_is_gone_and_nothing_truncated()
{
    for is_malformed in [true, false] {
        let new = Upstream::start("new", |_| {
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nfour";
            Script::of([Step::Write(head.into()), Step::ReadBody])
        });
        let scene = Scene::with_new(LOG, new).await;
        let mut client = Raw::connect(scene.proxy.address()).await;
        let key = key_of(Arm::New);
        let head = format!("POST /api HTTP/1.1\r\nHost: a\r\nX-User: {key}\r\n");
        let body = "Transfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n";
        client.write(head + body).await;
        let head = client.read_head().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        if is_malformed {
            client.write("no length\r\n").await;
        } else {
            client.finish().await;
        }
        assert_eq!(client.read_to_end().await, b"four", "{is_malformed}");
        let entries = scene.entries(1).await;
        assert_eq!(entries[0]["end"], "client_gone", "{is_malformed}");
        assert_eq!(entries[0]["status"], 200);
        let cancelled = [("arm", "new"), ("class", "cancelled")];
        let name = "cutover_requests_total";
        scene.proxy.counts(1.0, name, &cancelled).await;
    }
}

#[tokio::test]
async fn a_client_that_stalls_its_upload_after_the_answers_head_is_gone_and_nothing_truncated() {
    let new = Upstream::start("new", |_| {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nfour";
        Script::of([Step::Write(head.into()), Step::ReadBody])
    });
    let scene = Scene::with_new(LOG, new).await;
    let mut client = Raw::connect(scene.proxy.address()).await;
    let key = key_of(Arm::New);
    let head = format!("POST /api HTTP/1.1\r\nHost: a\r\nX-User: {key}\r\n");
    client.write(head + "Content-Length: 9\r\n\r\nfour").await;
    client.read_to_end().await;
    assert_eq!(scene.entries(1).await[0]["end"], "client_gone");
}

#[tokio::test]
async fn an_answer_without_a_body_is_whole() {
    let new = Upstream::start("new", |_| {
        Script::write("HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n")
    });
    let scene = Scene::with_new(LOG, new).await;
    let mut client = scene.proxy.client().await;
    assert_eq!(client.get("/api", &key_of(Arm::New)).await.status, 304);
    assert_eq!(scene.entries(1).await[0]["end"], "complete");
}

#[tokio::test]
async fn a_log_that_is_rotated_goes_on_in_a_new_file_and_a_reload_changes_its_format() {
    let scene = Scene::start(LOG).await;
    let mut client = scene.proxy.client().await;
    client.get("/api", "").await;
    scene.lines(1).await;
    let rotated = scene.log.with_extension("1");
    fs::rename(&scene.log, &rotated).expect("the log is renamed");
    scene.proxy.signal("USR1");
    eventually("the file is opened anew", async || scene.log.exists()).await;
    client.get("/api", "").await;
    scene.lines(1).await;
    let combined = "access_log: {path: access.log, format: combined}";
    let text = configuration(combined, &scene.legacy, &scene.new);
    scene.proxy.reconfigure(&text).await;
    client.get("/api", "").await;
    let lines = scene.lines(2).await;
    assert!(lines[1].starts_with("127.0.0.1 - - ["), "{}", lines[1]);
    assert!(
        lines[1].contains("\"GET /api HTTP/1.1\" 200 "),
        "{}",
        lines[1]
    );
    let text = configuration("", &scene.legacy, &scene.new);
    scene.proxy.reconfigure(&text).await;
    client.get("/api", "").await;
    scene
        .proxy
        .reconfigure(&configuration(LOG, &scene.legacy, &scene.new))
        .await;
    client.get("/api/last", "").await;
    let lines = scene.lines(3).await;
    assert!(lines[2].contains("/api/last"), "off is off");
}

#[tokio::test]
async fn a_log_that_cannot_be_opened_is_refused_and_the_old_one_goes_on() {
    let scene = Scene::start(LOG).await;
    let nowhere = "access_log: {path: /nonexistent/access.log}";
    scene
        .proxy
        .site()
        .configure(&configuration(nowhere, &scene.legacy, &scene.new));
    scene
        .proxy
        .says(1, "/nonexistent/access.log cannot be opened")
        .await;
    scene.proxy.client().await.get("/api", "").await;
    scene.lines(1).await;
}

#[tokio::test]
async fn the_last_lines_are_written_before_the_end() {
    let mut scene = Scene::start(LOG).await;
    let mut client = scene.proxy.client().await;
    for _ in 0..50 {
        client.get("/api", "").await;
    }
    scene.proxy.signal("TERM");
    assert!(scene.proxy.ended().await.success());
    scene.lines(50).await;
}

#[tokio::test]
async fn server_timing_is_told_only_when_asked_for() {
    let scene = Scene::start("edge: {server_timing: true}").await;
    let mut client = scene.proxy.client().await;
    let answer = client.get("/api", "").await;
    let timing = answer.field("server-timing").expect("it was asked for");
    let parts: Vec<f64> = timing
        .split(", ")
        .map(|part| part.split_once(";dur=").expect("a duration").1.parse())
        .collect::<Result<_, _>>()
        .expect("numbers");
    assert!(parts[0] > 0.0 && parts[1] >= parts[0], "{timing}");
    let text = configuration("", &scene.legacy, &scene.new);
    scene.proxy.reconfigure(&text).await;
    assert_eq!(client.get("/api", "").await.field("server-timing"), None);
}

/// Sends a `traceparent` and a `tracestate`; what the upstream gets of them.
async fn traced(edge: &str, context: Option<&str>) -> (Option<String>, Option<String>) {
    let new = Upstream::start("new", |_| Script::answer(Reply::new(200)));
    let scene = Scene::with_new(edge, new).await;
    let mut request = get("/api", &key_of(Arm::New));
    if let Some(context) = context {
        let headers = request.headers_mut();
        headers.insert("traceparent", context.parse().expect("a value"));
        headers.insert("tracestate", "vendor=1".parse().expect("a value"));
    }
    let request: Request<Full<bytes::Bytes>> = request;
    scene.proxy.client().await.send(request).await;
    let received = scene.new.received();
    let field = |name| received[0].field(name).map(str::to_owned);
    (field("traceparent"), field("tracestate"))
}

#[tokio::test]
async fn the_trace_context_of_a_stranger_crosses_is_removed_or_replaced_as_configured() {
    let sent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let state = Some("vendor=1".to_owned());
    let crossed = (Some(sent.clone()), state.clone());
    assert_eq!(traced("", Some(&sent)).await, crossed);
    let trusting = "edge: {trace_context: trusted, trusted_proxies: [127.0.0.0/8]}";
    assert_eq!(traced(trusting, Some(&sent)).await, crossed);
    assert_eq!(traced(trusting, Some("00-nonsense")).await, (None, None));
    let strict = "edge: {trace_context: trusted}";
    assert_eq!(traced(strict, Some(&sent)).await, (None, None));
    let (begun, state) = traced("edge: {trace_context: start}", Some(&sent)).await;
    let begun = begun.expect("a new trace");
    assert!(
        begun.starts_with("00-") && begun.ends_with("-01") && begun.len() == 55,
        "{begun}"
    );
    assert!(!begun.contains(TRACE));
    assert_eq!(state, None);
    let (begun, _) = traced("edge: {trace_context: start}", None).await;
    assert!(begun.is_some());
}
