//! What is not ours on both sides: servers that were written without us in mind as the two arms,
//! and the Prometheus that people have as the reader of our metrics.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cutover::policy::arm::Arm;
use http::Request;
use http_body_util::Full;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::harness::certificate::Certificate;
use crate::harness::client::{Client, get, request};
use crate::harness::keys::keys;
use crate::harness::proxy::{PLAIN_AND_TLS, Proxy, Site};
use crate::harness::upstream::{Reply, Script, Step, Upstream};
use crate::harness::{eventually, migration};
use crate::project::read;

/// A split that is judged, but whose share stays where it is, so that counts are exact.
const UNMOVED: &str = "share: 50%, analysis: {alpha: 0.000001, hard_fail: 1000}, \
                       rollback: ['error_rate > 90%', 'p95 > 10s']";

/// A plan that stays in its second stage, and of which every kind of metric is known.
const PLAN: &str = "stages: [{share: 0%, observe: 200ms}, {share: 10%, observe: 1h}, 100%], \
                    analysis: {alpha: 0.000001, hard_fail: 1000, min_events: 1000}, \
                    rollback: ['error_rate > 90%', 'p95 > 10s'], \
                    advance: ['error_rate < 20%', 'p95 < 5s']";

/// A program that is not ours; killed when dropped.
struct Running(Child);

impl Running {
    /// Starts a program of a Debian package.
    fn start(command: &mut Command, package: &str) -> Self {
        let child = command.stdin(Stdio::null()).spawn();
        Self(child.unwrap_or_else(|error| missing(command, package, &error)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn missing(command: &Command, package: &str, error: &std::io::Error) -> ! {
    let program = command.get_program().to_string_lossy().into_owned();
    panic!(
        "{program} cannot be run ({error}): install the Debian package {package}, or run \
         ./test.sh, which does"
    )
}

/// A program whose directory is not on everybody's path.
fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    let found = format!("{path}:/usr/sbin:/sbin")
        .split(':')
        .map(|directory| Path::new(directory).join(name))
        .find(|candidate| candidate.is_file());
    found.map_or(command, Command::new)
}

/// An address for a program that cannot be told to let the system choose. Nobody else asks for
/// ports of this IP address: it is made of our process's number.
fn own_address() -> SocketAddr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let address = Ipv4Addr::new(127, 77, high, low);
    let listener = TcpListener::bind((address, 0)).expect("all of 127.0.0.0/8 is this machine");
    let bound = listener.local_addr();
    bound.expect("a bound listener has an address")
}

async fn listens(what: &str, address: SocketAddr) {
    eventually(what, async || TcpStream::connect(address).await.is_ok()).await;
}

/// What both servers have: a small file and one of a megabyte.
fn documents() -> TempDir {
    let directory = tempfile::tempdir().expect("the temporary directory is writable");
    let large: Vec<u8> = (0..1 << 20)
        .map(|index: u32| index.to_le_bytes()[0])
        .collect();
    for (name, contents) in [("small.txt", b"small".as_slice()), ("large.bin", &large)] {
        fs::write(directory.path().join(name), contents).expect("it is writable");
    }
    directory
}

async fn nginx(documents: &Path, work: &Path) -> (Running, SocketAddr) {
    let address = own_address();
    let (root, work) = (documents.display(), work.display());
    let configuration = format!(
        "daemon off; master_process off; pid {work}/nginx.pid; error_log stderr warn;
events {{}}
http {{
  access_log off;
  client_body_temp_path {work}/body; proxy_temp_path {work}/proxy;
  fastcgi_temp_path {work}/fastcgi; uwsgi_temp_path {work}/uwsgi; scgi_temp_path {work}/scgi;
  server {{ listen {address}; root {root}; }}
}}
"
    );
    let file = format!("{work}/nginx.conf");
    fs::write(&file, configuration).expect("it is writable");
    let mut command = program("nginx");
    command.args(["-e", "stderr", "-c", &file]);
    let running = Running::start(&mut command, "nginx-light");
    listens("nginx listens", address).await;
    (running, address)
}

/// Python's server says where it listens.
fn python(documents: &Path) -> (Running, SocketAddr) {
    let mut command = program("python3");
    command
        .args([
            "-u",
            "-m",
            "http.server",
            "0",
            "--bind",
            "127.0.0.1",
            "--directory",
        ])
        .arg(documents)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut running = Running::start(&mut command, "python3");
    let stdout = running.0.stdout.take().expect("it is piped");
    let mut line = String::new();
    BufReader::new(stdout)
        .read_line(&mut line)
        .expect("it says where it listens");
    let port = line.split(' ').skip_while(|word| *word != "port").nth(1);
    let port = port.and_then(|port| port.parse().ok());
    let port = port.unwrap_or_else(|| panic!("no port in: {line}"));
    (running, SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

#[tokio::test]
async fn nginx_and_python_serve_as_the_two_arms() {
    let (documents, work) = (documents(), tempfile::tempdir().expect("writable"));
    let (_nginx, legacy) = nginx(documents.path(), work.path()).await;
    let (python, new) = python(documents.path());
    let configuration = migration(legacy, new, "share: 50%, response_headers: true");
    let proxy = Site::new().start(&configuration).await;
    let large = fs::read(documents.path().join("large.bin")).expect("it was just written");
    let mut client = proxy.client().await;
    for (arm, server) in [(Arm::Legacy, "nginx/"), (Arm::New, "SimpleHTTP/")] {
        for key in keys("api", "50%", arm).take(20) {
            let answer = client.get("/small.txt", &key).await;
            assert_eq!((answer.status, &answer.body[..]), (200, &b"small"[..]));
            let served_by = answer.field("server").expect("both say who they are");
            assert!(served_by.starts_with(server), "{key}: {served_by}");
            assert_eq!(answer.field("cutover-arm"), Some(arm.as_str()));
        }
        let key = keys("api", "50%", arm).next().expect("there is one");
        let answer = client.get("/large.bin", &key).await;
        assert!(answer.status == 200 && answer.body == large, "{arm}");
        assert_eq!(client.get("/nothing", &key).await.status, 404, "{arm}");
        let head = client.send(request("HEAD", "/large.bin", &key, "")).await;
        let length = large.len().to_string();
        assert_eq!(head.field("content-length"), Some(length.as_str()), "{arm}");
        assert!(head.status == 200 && head.body.is_empty(), "{arm}");
        // The one knows that this is no place to write to, the other does not know the method.
        let refused = client.send(request("POST", "/small.txt", &key, "a write"));
        let refused = refused.await.status;
        assert_eq!(refused, if arm == Arm::Legacy { 405 } else { 501 }, "{arm}");
        let again = proxy.client().await.get("/small.txt", &key).await;
        assert_eq!(again.status, 200, "{arm}");
    }
    drop(python);
    let mut client = proxy.client().await;
    for key in keys("api", "50%", Arm::New).take(40) {
        let answer = client.get("/small.txt", &key).await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b"small"[..]));
    }
    eventually("the dead arm is cut off", async || {
        proxy.split("api").await.share == "0%"
    })
    .await;
}

/// A Prometheus that scrapes an instance five times a second.
pub(crate) struct Prometheus {
    pub(crate) address: SocketAddr,
    _running: Running,
    _work: TempDir,
}

impl Prometheus {
    pub(crate) async fn start(target: SocketAddr) -> Self {
        let (work, address) = (tempfile::tempdir().expect("writable"), own_address());
        let configuration = format!(
            "global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}
scrape_configs: [{{job_name: cutover, static_configs: [{{targets: ['{target}']}}]}}]
"
        );
        let file = work.path().join("prometheus.yml");
        fs::write(&file, configuration).expect("it is writable");
        let mut command = program("prometheus");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", work.path().display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=error");
        let running = Running::start(&mut command, "prometheus");
        listens("Prometheus listens", address).await;
        eventually("Prometheus is ready", async || {
            let mut client = Client::http1(address).await;
            client.get("/-/ready", "").await.status == 200
        })
        .await;
        Self {
            address,
            _running: running,
            _work: work,
        }
    }

    /// What an instant query answers: labels and value of each series.
    async fn ask(&self, query: &str) -> Vec<(Value, f64)> {
        let mut target = String::from("/api/v1/query?query=");
        for byte in query.bytes() {
            write!(target, "%{byte:02X}").expect("a string takes everything");
        }
        let request = Request::get(target).body(Full::<Bytes>::default());
        let request = request.expect("the query is escaped");
        let answer = Client::http1(self.address).await.send(request).await;
        let body: Value = serde_json::from_slice(&answer.body).expect("it answers in JSON");
        assert_eq!(body["status"], "success", "{query}: {body}");
        let series = body["data"]["result"].as_array().expect("a vector");
        let value = |series: &Value| {
            let text = series["value"][1].as_str().expect("a sample is text");
            text.parse().expect("a sample is a number")
        };
        series
            .iter()
            .map(|series| (series["metric"].clone(), value(series)))
            .collect()
    }

    /// The same, as soon as there are as many series as expected and all have a number.
    async fn answers(&self, query: &str, series: usize) -> Vec<(Value, f64)> {
        let mut answer = Vec::new();
        eventually(&format!("Prometheus answers {query}"), async || {
            answer = self.ask(query).await;
            answer.len() == series && answer.iter().all(|(_, value)| value.is_finite())
        })
        .await;
        answer
    }
}

/// The queries that a document tells people to ask.
fn queries(document: &str) -> Vec<String> {
    let blocks = document.split("```promql\n").skip(1);
    let blocks = blocks.filter_map(|block| block.split_once("```"));
    blocks.map(|(query, _)| query.trim().to_owned()).collect()
}

/// Two arms of which `new` takes a while and now and then fails; and how long the client waited
/// for the first byte of the slowest answer.
async fn traffic(proxy: &Proxy) -> Duration {
    let mut client = proxy.client().await;
    let mut slowest = Duration::ZERO;
    let of = |arm| keys("api", "50%", arm).take(25);
    for (legacy, new) in of(Arm::Legacy).zip(of(Arm::New)) {
        for key in [legacy, new] {
            let asked = Instant::now();
            client
                .begin(get("/", &key))
                .await
                .expect("the proxy always answers");
            slowest = slowest.max(asked.elapsed());
        }
    }
    slowest
}

#[tokio::test]
async fn prometheus_scrapes_and_answers_what_the_documents_tell_people_to_ask() {
    const PAUSE: Duration = Duration::from_millis(40);
    let legacy = Upstream::ok("legacy");
    let new = Upstream::start("new", |request| {
        let slow = Step::Pause(PAUSE);
        let status = match request.field("x-user") {
            Some(key) if key.ends_with('7') => 500,
            _ => 200,
        };
        Script::of([slow, Step::Answer(Reply::new(status))])
    });
    let configuration = migration(legacy.address(), new.address(), UNMOVED);
    let proxy = Site::new().start(&configuration).await;
    let prometheus = Prometheus::start(proxy.admin()).await;
    // A rate needs a scrape before the traffic and one after it.
    prometheus.answers("up", 1).await;
    prometheus
        .answers("cutover_split_share_ratio == 0.5", 1)
        .await;
    let slowest = traffic(&proxy).await;
    let booked = "sum by (arm) (cutover_requests_total) == 25";
    prometheus.answers(booked, 2).await;

    let p95 = "histogram_quantile(0.95, \
               sum by (arm, le) (rate(cutover_request_first_byte_seconds_bucket[1m])))";
    let by_arm = prometheus.answers(p95, 2).await;
    let of = |arm: &str| {
        let mut series = by_arm.iter();
        series
            .find(|(labels, _)| labels["arm"] == arm)
            .map(|(_, value)| *value)
            .expect("both arms have traffic")
    };
    // Buckets are a factor of √2 apart, so that a quantile may be off by as much.
    let slack = std::f64::consts::SQRT_2;
    println!("p95: legacy {} s, new {} s", of("legacy"), of("new"));
    assert!(of("new") >= PAUSE.as_secs_f64() / slack);
    assert!(of("new") <= slowest.as_secs_f64() * slack);
    assert!(of("legacy") > 0.0 && of("legacy") <= slowest.as_secs_f64() * slack);

    let queries = queries(&read("docs/metrics.md"));
    assert!(
        queries.len() >= 4,
        "the document has questions: {queries:?}"
    );
    for query in queries {
        let answer = prometheus.ask(&query).await;
        assert!(!answer.is_empty(), "nothing answers {query}");
    }
}

#[tokio::test]
async fn every_query_of_the_dashboard_and_of_the_alerts_is_answered_of_a_plan() {
    let legacy = Upstream::ok("legacy");
    let new = Upstream::start("new", |request| match request.field("x-user") {
        Some(key) if key.ends_with('7') => Script::reset(),
        _ => Script::status(200),
    });
    let configuration = migration(legacy.address(), new.address(), PLAN);
    let certificate = Certificate::new();
    let proxy = Site::new()
        .certified(&certificate)
        .start_on(PLAIN_AND_TLS, &configuration)
        .await;
    eventually("the first stage is left", async || {
        proxy.split("api").await.share == "10%"
    })
    .await;
    let prometheus = Prometheus::start(proxy.admin()).await;
    prometheus.answers("cutover_stage == 2", 1).await;
    traffic(&proxy).await;
    prometheus
        .answers("sum(cutover_requests_total) == 50", 1)
        .await;

    let expressions = dashboard(&read("config/grafana/rollout.json"));
    assert!(expressions.len() > 20, "{expressions:?}");
    for expression in expressions {
        let answer = prometheus.ask(&expression).await;
        assert!(!answer.is_empty(), "nothing answers {expression}");
    }
    // A rule that names what there is not would keep silent for ever.
    for name in metrics_of(&read("config/prometheus/alerts.yaml")) {
        let answer = prometheus.ask(&name).await;
        assert!(!answer.is_empty(), "nothing is called {name}");
    }
}

/// The expressions of a dashboard, with its variables filled in as Grafana does.
fn dashboard(text: &str) -> Vec<String> {
    let dashboard: Value = serde_json::from_str(text).expect("a dashboard is JSON");
    let panels = dashboard["panels"].as_array().expect("it has panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array());
    let expressions = targets.flatten().map(|target| {
        let expression = target["expr"].as_str().expect("each asks something");
        expression
            .replace("$split", ".*")
            .replace("$__rate_interval", "1m")
    });
    expressions.collect()
}

/// The names of our metrics in the expressions of rules.
fn metrics_of(rules: &str) -> BTreeSet<String> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = rules.split(|letter| !is_part(letter));
    let names = words.filter(|word| word.starts_with("cutover_"));
    names.map(str::to_owned).collect()
}

#[test]
fn promtool_accepts_the_alerts_and_each_fires_when_it_should() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/prometheus");
    for words in [
        ["check", "rules", "alerts.yaml"],
        ["test", "rules", "alerts-test.yaml"],
    ] {
        let mut command = program("promtool");
        let output = command.args(words).current_dir(&directory).output();
        let output = output.unwrap_or_else(|error| missing(&command, "prometheus", &error));
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn each_alert_says_what_to_do_and_is_tried() {
    let (rules, trial) = (
        read("config/prometheus/alerts.yaml"),
        read("config/prometheus/alerts-test.yaml"),
    );
    let alerts: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    assert!(alerts.len() >= 8);
    for alert in alerts {
        let name = alert.lines().next().unwrap_or_default();
        assert!(alert.contains("runbook: "), "{name} says nothing");
        assert!(trial.contains(name), "{name} is not tried");
    }
}

#[tokio::test]
async fn promtool_finds_nothing_wrong_with_a_live_scrape() {
    let (legacy, new) = (
        Upstream::ok("legacy"),
        Upstream::start("new", |_| Script::reset()),
    );
    let configuration = migration(legacy.address(), new.address(), UNMOVED);
    let proxy = Site::new().start(&configuration).await;
    traffic(&proxy).await;
    let booked = [("split", "api"), ("arm", "legacy")];
    proxy.counts(25.0, "cutover_requests_total", &booked).await;
    let scrape = proxy.ask("/metrics").await.body;
    let mut command = program("promtool");
    command
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn();
    let mut child = child.unwrap_or_else(|error| missing(&command, "prometheus", &error));
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(&scrape).expect("it reads to the end");
    drop(stdin);
    let output = child.wait_with_output().expect("it is our child");
    assert!(output.status.success(), "{output:?}");
    assert!(
        output.stdout.is_empty() && output.stderr.is_empty(),
        "{output:?}"
    );
}
