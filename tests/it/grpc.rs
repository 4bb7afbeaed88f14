//! gRPC through the proxy, with a client and servers that were written without us in mind.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::eventually;
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::{Script, Upstream};

/// Debian's, which the package python3-grpcio belongs to.
const PYTHON: &str = "/usr/bin/python3";

/// A gRPC server; killed when dropped.
struct Server {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    address: SocketAddr,
}

impl Server {
    async fn start(name: &str) -> Self {
        let (child, said) = python("server.py", &[name]);
        let mut server = Self {
            child,
            said,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        eventually("the gRPC server says its port", async || {
            server.lines().iter().any(|line| line.starts_with("port "))
        })
        .await;
        let lines = server.lines();
        let port = lines.iter().find_map(|line| line.strip_prefix("port "));
        let port = port.and_then(|port| port.parse().ok());
        server.address.set_port(port.expect("a port is a number"));
        server
    }

    fn lines(&self) -> Vec<String> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.clone()
    }

    async fn says(&self, line: &str) {
        eventually(&format!("the gRPC server says `{line}`"), async || {
            self.lines().iter().any(|said| said == line)
        })
        .await;
    }

    fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts a script of this directory; what it says is collected.
fn python(script: &str, arguments: &[&str]) -> (Child, Arc<Mutex<Vec<String>>>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/grpc");
    let child = Command::new(PYTHON)
        .arg(path.join(script))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = child.unwrap_or_else(|error| {
        panic!("{PYTHON} cannot be run ({error}): ./test.sh installs python3-grpcio")
    });
    let said = Arc::<Mutex<Vec<String>>>::default();
    let stdout = child.stdout.take().expect("it is piped");
    thread::spawn({
        let said = Arc::clone(&said);
        move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                said.push(line);
            }
        }
    });
    (child, said)
}

/// A client's call under way, which ends when it is told to.
struct Leaving {
    child: Child,
    stdin: ChildStdin,
}

impl Leaving {
    /// Begins a call of a method that does not end by itself.
    fn begin(proxy: &Proxy, call: &str) -> Self {
        let address = proxy.address().to_string();
        let (mut child, _) = python("client.py", &[&address, "leave", call]);
        let stdin = child.stdin.take().expect("it is piped");
        Self { child, stdin }
    }

    /// Cancels the call.
    fn leave(mut self) {
        self.stdin.write_all(b"now\n").expect("it listens");
        self.child.wait().expect("it ends");
    }
}

/// What the client finds in this scenario.
async fn call(proxy: &Proxy, scenario: &str, argument: &str) -> Value {
    let address = proxy.address().to_string();
    let (mut child, said) = python("client.py", &[&address, scenario, argument]);
    eventually("the gRPC client ends", async || {
        child.try_wait().expect("it is our child").is_some()
    })
    .await;
    eventually("its last line arrives", async || {
        Arc::strong_count(&said) == 1
    })
    .await;
    let said = said.lock().unwrap_or_else(PoisonError::into_inner);
    let last = said.last().expect("the gRPC client found something");
    serde_json::from_str(last).expect("it speaks JSON")
}

/// A split with this share of requests on `new`, both arms over HTTP/2.
fn over_http2(legacy: SocketAddr, new: SocketAddr, settings: &str) -> String {
    format!(
        "backends:
  legacy: {{endpoints: ['{legacy}'], protocol: http2}}
  new: {{endpoints: ['{new}'], protocol: http2, timeouts: {{first_byte: 3s}}}}
splits:
  api:
    legacy: legacy
    new: new
    key: [{{header: X-User}}]
    keyless: legacy
    response_headers: true
    rollback: off
    analysis: {{hard_fail: 1000000}}
    {settings}
routes: [{{split: api}}]
"
    )
}

/// Both arms, and everything on `new`.
async fn on_new() -> (Server, Server, Proxy) {
    let (legacy, new) = (Server::start("legacy").await, Server::start("new").await);
    let configuration = over_http2(legacy.address, new.address, "share: 100%");
    let proxy = Site::new().start(&configuration).await;
    (legacy, new, proxy)
}

async fn arm_counts(proxy: &Proxy, class: &str, count: f64) {
    let labels = [("arm", "new"), ("class", class)];
    proxy.counts(count, "cutover_requests_total", &labels).await;
}

#[tokio::test]
async fn calls_of_every_kind_are_answered_by_either_arm() {
    let (legacy, new) = (Server::start("legacy").await, Server::start("new").await);
    for (share, arm) in [("0%", "legacy"), ("100%", "new")] {
        let settings = format!("share: {share}");
        let configuration = over_http2(legacy.address, new.address, &settings);
        let proxy = Site::new().start(&configuration).await;
        let unary = call(&proxy, "unary", "hello").await;
        assert_eq!(unary["answer"], "hello");
        assert_eq!(unary["code"], "OK");
        assert_eq!(unary["initial"]["served-by"], arm, "{unary}");
        assert_eq!(unary["trailing"]["after"], arm, "{unary}");
        assert_eq!(unary["trailing"]["after-bin"], "00ff", "{unary}");
        let count = call(&proxy, "count", "100").await;
        assert_eq!(count["answers"].as_array().map(Vec::len), Some(100));
        assert_eq!(count["code"], "OK");
        let collect = call(&proxy, "collect", "1000").await;
        assert_eq!(collect["answer"], "1000000", "{collect}");
        let chat = call(&proxy, "chat", "20").await;
        assert_eq!(chat["answers"][19], "heard 19", "each in its turn: {chat}");
        assert_eq!(chat["initial"]["served-by"], arm, "{chat}");
    }
}

#[tokio::test]
async fn metadata_and_the_deadline_reach_the_server() {
    let (_legacy, _new, proxy) = on_new().await;
    let told = call(&proxy, "metadata", "10").await;
    let answer = told["answer"].as_str().expect("the call succeeds");
    let answer: Value = serde_json::from_str(answer).expect("the server speaks JSON");
    let metadata = answer["metadata"].as_array().expect("a list");
    assert!(
        metadata.contains(&json!(["note-bin", "0001feff"])),
        "{answer}"
    );
    let remaining = answer["remaining"].as_f64().expect("there is a deadline");
    assert!((5.0..10.1).contains(&remaining), "{remaining} s");
}

#[tokio::test]
async fn messages_larger_than_every_window_pass() {
    let (_legacy, _new, proxy) = on_new().await;
    let large = call(&proxy, "large", "33554432").await;
    assert_eq!(large["same"], true, "{large}");
}

#[tokio::test]
async fn many_calls_at_once_share_few_connections() {
    let (_legacy, _new, proxy) = on_new().await;
    let many = call(&proxy, "many", "1000").await;
    assert_eq!(many["right"], 1000);
    let metrics = proxy.metrics().await;
    let opened = metrics.sum("cutover_upstream_connections_opened_total", &[]);
    assert!(opened <= 20.0, "{opened} connections");
    arm_counts(&proxy, "success", 1000.0).await;
}

/// Codes that blame the server.
const BLAMING: [&str; 6] = [
    "UNKNOWN",
    "DEADLINE_EXCEEDED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNIMPLEMENTED",
];

#[tokio::test]
async fn a_failure_without_a_head_is_replayed_only_where_that_cannot_do_harm() {
    let (legacy, new) = (Server::start("legacy").await, Server::start("new").await);
    let shared = "share: 100%, shared_state: true".replace(", ", "\n    ");
    let configuration = over_http2(legacy.address, new.address, &shared);
    let proxy = Site::new().start(&configuration).await;
    for (number, code) in (1..).zip(BLAMING) {
        let told = call(&proxy, "fail_with_key", code).await;
        // Legacy was asked the same, and failed likewise.
        assert_eq!(told["details"], format!("legacy says {code}"), "{told}");
        let labels = [("reason", "grpc")];
        proxy
            .counts(f64::from(number), "cutover_fallbacks_total", &labels)
            .await;
    }
    let told = call(&proxy, "fail", "UNAVAILABLE").await;
    assert_eq!(
        told["details"], "new says UNAVAILABLE",
        "it has no key: {told}"
    );
    arm_counts(&proxy, "grpc_error", 7.0).await;
    let told = call(&proxy, "fail_with_key", "NOT_FOUND").await;
    assert_eq!(
        told["details"], "new says NOT_FOUND",
        "nobody's failure: {told}"
    );
    arm_counts(&proxy, "client_error", 1.0).await;
}

#[tokio::test]
async fn a_call_is_answered_by_legacy_when_nobody_listens_at_new() {
    let (_legacy, mut new, proxy) = on_new().await;
    let told = call(&proxy, "unary", "x").await;
    assert_eq!(told["initial"]["served-by"], "new", "{told}");
    new.kill();
    let told = call(&proxy, "unary", "x").await;
    assert_eq!(told["initial"]["served-by"], "legacy", "{told}");
    arm_counts(&proxy, "transport", 1.0).await;
}

#[tokio::test]
async fn a_status_in_the_trailers_is_the_outcome() {
    let (_legacy, _new, proxy) = on_new().await;
    let told = call(&proxy, "fail_late", "INTERNAL").await;
    assert_eq!(told["answers"], json!(["first"]));
    assert_eq!(told["code"], "INTERNAL", "{told}");
    arm_counts(&proxy, "grpc_error", 1.0).await;
    let told = call(&proxy, "fail_late", "NOT_FOUND").await;
    assert_eq!(told["code"], "NOT_FOUND", "{told}");
    arm_counts(&proxy, "client_error", 1.0).await;
}

#[tokio::test]
async fn a_client_that_cancels_cancels_the_servers_call() {
    let (_legacy, new, proxy) = on_new().await;
    for call in ["Hang:one", "HangAfter:two", "Drink:three"] {
        let leaving = Leaving::begin(&proxy, call);
        let (_, name) = call.split_once(':').expect("both are given");
        new.says(&format!("begun {name}")).await;
        let left = Instant::now();
        leaving.leave();
        new.says(&format!("cancelled {name}")).await;
        assert!(left.elapsed() < Duration::from_secs(2));
    }
    arm_counts(&proxy, "cancelled", 3.0).await;
}

#[tokio::test]
async fn an_answer_that_is_no_grpc_is_a_status_to_the_client() {
    let http1 = Upstream::start("new", |_| {
        Script::write("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
    });
    let configuration = format!(
        "backends:
  down: {{endpoints: ['127.0.0.1:1'], protocol: http2}}
  failing: {{endpoints: ['{}']}}
routes:
  - {{path: /test.Api/Echo, backend: down}}
  - {{path: /test.Api/Fail, backend: failing}}
",
        http1.address()
    );
    let proxy = Site::new().start(&configuration).await;
    let told = call(&proxy, "unary", "x").await;
    assert_eq!(told["code"], "UNAVAILABLE", "nobody listens: {told}");
    let told = call(&proxy, "fail", "INTERNAL").await;
    assert_eq!(told["code"], "UNAVAILABLE", "HTTP/1 says 503: {told}");
    let told = call(&proxy, "metadata", "5").await;
    assert_eq!(
        told["code"], "UNIMPLEMENTED",
        "no route leads there: {told}"
    );
}
