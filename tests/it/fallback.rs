//! Every way in which `new` can fail, for every kind of request, over real sockets.
//!
//! What must happen is written down here a second time, in the plainest words ([`Cell::verdict`]),
//! and not asked of the code that decides it. The breaker and the budget are on, as they are by
//! default. So that the one does not open, a split sees no more than four failures; and each way to
//! fail, method and kind of store has a split of its own, whose counters tell what happened there.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::harness::certificate::Certificate;
use crate::harness::client::{Answer, Client};
use crate::harness::metrics::Metrics;
use crate::harness::proxy::Site;
use crate::harness::upstream::{Received, Refusing, Reply, Script, Silent, Step, Upstream};

/// The default limit of bodies that are kept for a replay.
const BODY_LIMIT: usize = 64 * 1024;

/// How `new` fails.
#[derive(Clone, Copy, Debug)]
struct Failing {
    /// Part of the split's name.
    name: &'static str,
    /// The backend in the configuration.
    backend: &'static str,
    /// Whether the request reaches the server; where not, it cannot have been executed.
    is_sent: bool,
    /// What the client gets where nobody rescues it.
    status: u16,
    /// The label of the counters; `None` where it is no failure at all.
    reason: Option<&'static str>,
    /// What the request is booked as.
    class: &'static str,
}

const fn failing(
    name: &'static str,
    status: u16,
    reason: Option<&'static str>,
    class: &'static str,
) -> Failing {
    Failing {
        name,
        backend: "new",
        is_sent: true,
        status,
        reason,
        class,
    }
}

/// It breaks the connection. Such servers stand apart from those that keep connections alive: what
/// breaks on a kept one looks like a connection that was closed as idle, and a safe request is then
/// repeated within the arm, which is another test's subject.
const fn breaking(name: &'static str, reason: &'static str) -> Failing {
    Failing {
        backend: "breaking",
        ..failing(name, 502, Some(reason), "transport")
    }
}

const fn unreachable(name: &'static str, status: u16, reason: &'static str) -> Failing {
    Failing {
        name,
        backend: name,
        is_sent: false,
        status,
        reason: Some(reason),
        class: "transport",
    }
}

const FAILINGS: [Failing; 21] = [
    unreachable("refused", 502, "connect"),
    unreachable("silent", 504, "connect_timeout"),
    unreachable("untrusted", 502, "tls"),
    Failing {
        backend: "impatient",
        ..failing("hanging", 504, Some("first_byte_timeout"), "transport")
    },
    breaking("reset", "reset"),
    breaking("closed", "reset"),
    breaking("half-a-head", "reset"),
    breaking("garbage", "invalid_response"),
    failing("status-500", 500, Some("status"), "server_error"),
    failing("status-502", 502, Some("status"), "server_error"),
    failing("status-503", 503, Some("status"), "server_error"),
    failing("status-504", 504, Some("status"), "server_error"),
    failing("grpc-2", 200, Some("grpc"), "grpc_error"),
    failing("grpc-4", 200, Some("grpc"), "grpc_error"),
    failing("grpc-12", 200, Some("grpc"), "grpc_error"),
    failing("grpc-13", 200, Some("grpc"), "grpc_error"),
    failing("grpc-14", 200, Some("grpc"), "grpc_error"),
    failing("grpc-15", 200, Some("grpc"), "grpc_error"),
    // These look like failures and are the caller's fault, or not listed by default.
    failing("grpc-5", 200, None, "client_error"),
    failing("status-501", 501, None, "server_error"),
    failing("status-404", 404, None, "client_error"),
];

/// What a request is, as far as a repetition is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Get,
    Head,
    Put,
    Delete,
    Post,
    PostWithKey,
}

impl Kind {
    const ALL: [Kind; 6] = [
        Kind::Get,
        Kind::Head,
        Kind::Put,
        Kind::Delete,
        Kind::Post,
        Kind::PostWithKey,
    ];

    const fn method(self) -> &'static str {
        match self {
            Kind::Get => "GET",
            Kind::Head => "HEAD",
            Kind::Put => "PUT",
            Kind::Delete => "DELETE",
            Kind::Post | Kind::PostWithKey => "POST",
        }
    }
}

const BODIES: [usize; 4] = [0, 100, BODY_LIMIT, BODY_LIMIT + 1];

/// What the bodies are made of; a byte that is lost or doubled shows.
static CONTENT: LazyLock<Bytes> =
    LazyLock::new(|| (0..=BODY_LIMIT).map(|index| (index % 251) as u8).collect());

/// One request of the table.
#[derive(Clone, Copy, Debug)]
struct Cell {
    failing: Failing,
    kind: Kind,
    is_shared: bool,
    body: usize,
}

/// What must become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Rescued,
    Refused(&'static str),
    Passed,
}

impl Cell {
    fn verdict(self) -> Expected {
        if self.failing.reason.is_none() {
            return Expected::Passed;
        }
        if !self.failing.is_sent {
            return Expected::Rescued;
        }
        match (self.kind, self.is_shared) {
            (Kind::Post, _) => return Expected::Refused("method"),
            (Kind::Put | Kind::Delete | Kind::PostWithKey, false) => {
                return Expected::Refused("method");
            }
            (Kind::Get | Kind::Head, _) | (Kind::Put | Kind::Delete | Kind::PostWithKey, true) => {}
        }
        if self.body > BODY_LIMIT {
            return Expected::Refused("body");
        }
        Expected::Rescued
    }

    fn split(self) -> String {
        let store = if self.is_shared { "shared" } else { "separate" };
        format!("{}_{:?}_{store}", self.failing.name, self.kind)
    }

    fn target(self) -> String {
        format!("/{}/{}", self.split(), self.body)
    }

    fn content(self) -> Bytes {
        CONTENT.slice(..self.body)
    }

    fn request(self) -> Request<Full<Bytes>> {
        let mut request = Request::builder()
            .method(self.kind.method())
            .uri(self.target())
            // Sessions of several clusters, or the breaker would not believe in them anyway.
            .header("x-user", format!("user-{}", self.body));
        if self.kind == Kind::PostWithKey {
            request = request.header("idempotency-key", "7");
        }
        request
            .body(Full::new(self.content()))
            .expect("it is a valid request")
    }

    /// Checks what the client got and what the servers executed.
    fn check(self, answer: &Answer, servers: &Servers) {
        let target = self.target();
        let new = [&servers.new, &servers.breaking];
        let on_new: usize = new
            .map(|new| new.count(|request| request.target == target))
            .iter()
            .sum();
        let on_legacy = servers.legacy.received_for(&target);
        assert_eq!(
            on_new,
            usize::from(self.failing.is_sent),
            "executions on new: {self:?}"
        );
        if self.verdict() != Expected::Rescued {
            assert_eq!(answer.status, self.failing.status, "{self:?} {answer:?}");
            assert_eq!(answer.field("cutover-arm"), Some("new"), "{self:?}");
            assert_eq!(answer.field("cutover-fallback"), None, "{self:?}");
            assert_eq!(on_legacy.len(), 0, "executions on legacy: {self:?}");
            return;
        }
        assert_eq!(
            (answer.status, answer.served_by()),
            (200, Some("legacy")),
            "{self:?}"
        );
        assert_eq!(answer.field("cutover-arm"), Some("legacy"), "{self:?}");
        assert_eq!(
            answer.field("cutover-fallback"),
            self.failing.reason,
            "{self:?}"
        );
        // Legacy knows nothing of the session that `new` made, unless they share it.
        assert_eq!(
            answer.field("set-cookie").is_some(),
            self.is_shared,
            "{self:?}"
        );
        let [replayed] = &on_legacy[..] else {
            panic!("executions on legacy: {} of {self:?}", on_legacy.len());
        };
        assert_eq!(replayed.method, self.kind.method());
        assert_eq!(replayed.body, self.content(), "{self:?}");
        assert_eq!(replayed.field("cutover-replay"), Some("1"), "{self:?}");
    }
}

/// The requests of each split, one after the other.
fn cells_by_split() -> BTreeMap<String, Vec<Cell>> {
    let mut splits: BTreeMap<String, Vec<Cell>> = BTreeMap::new();
    for failing in FAILINGS {
        for kind in Kind::ALL {
            for is_shared in [false, true] {
                for body in BODIES {
                    let cell = Cell {
                        failing,
                        kind,
                        is_shared,
                        body,
                    };
                    splits.entry(cell.split()).or_default().push(cell);
                }
            }
        }
    }
    splits
}

/// What `new` does with the requests of the split that its target begins with.
fn fail(request: &Received) -> Script {
    let name = request.target[1..]
        .split('_')
        .next()
        .expect("a split's name");
    match name.split_once('-') {
        Some(("status", status)) => Script::status(status.parse().expect("a status")),
        Some(("grpc", code)) => Script::answer(
            Reply::new(200)
                .field("Content-Type", "application/grpc")
                .field("Grpc-Status", code)
                .body(""),
        ),
        _ => match name {
            "hanging" => Script::hang(),
            "closed" => Script::close(),
            "half-a-head" => Script::write("HTTP/1.1 200 OK\r\nContent-Le").then(Step::Close),
            "garbage" => Script::write("220 mail.example ESMTP\r\n"),
            _ => Script::reset(),
        },
    }
}

/// All that stands behind the proxy.
struct Servers {
    legacy: Upstream,
    new: Upstream,
    breaking: Upstream,
    refusing: Refusing,
    silent: Silent,
}

impl Servers {
    fn start() -> Self {
        Self {
            legacy: Upstream::start("legacy", |_| {
                Script::answer(Reply::new(200).field("Set-Cookie", "session=legacy"))
            }),
            new: Upstream::start("new", fail),
            breaking: Upstream::start("new", fail),
            refusing: Refusing::new(),
            silent: Silent::new(),
        }
    }
}

fn configuration(servers: &Servers, splits: &BTreeMap<String, Vec<Cell>>) -> String {
    let legacy = servers.legacy.address();
    let new = servers.new.address();
    let breaking = servers.breaking.address();
    let refusing = servers.refusing.address();
    let silent = servers.silent.address();
    let mut text = format!(
        "backends:
  legacy: {{endpoints: ['{legacy}']}}
  new: {{endpoints: ['{new}']}}
  breaking: {{endpoints: ['{breaking}']}}
  impatient: {{endpoints: ['{breaking}'], timeouts: {{first_byte: 200ms}}}}
  refused: {{endpoints: ['{refusing}']}}
  silent: {{endpoints: ['{silent}'], timeouts: {{connect: 200ms}}}}
  untrusted: {{endpoints: ['{new}'], tls: {{roots: root.pem}}}}
splits:
"
    );
    let mut routes = String::from("routes:\n");
    for (name, cells) in splits {
        let cell = cells[0];
        let _ = writeln!(
            text,
            "  {name}: {{legacy: legacy, new: {}, share: 100%, key: [{{header: X-User}}], keyless: legacy, \
             shared_state: {}, response_headers: true, rollback: off, \
             analysis: {{hard_fail: 1000000}}}}",
            cell.failing.backend, cell.is_shared
        );
        let _ = writeln!(routes, "  - {{path_prefix: /{name}, split: {name}}}");
    }
    text + &routes
}

/// Checks that a split counted each of its requests where it belongs, once, and nowhere else.
fn check_counters(split: &str, cells: &[Cell], metrics: &Metrics) {
    let Failing { reason, class, .. } = cells[0].failing;
    let expect = |expected: Expected| {
        let cells = cells.iter().filter(|cell| cell.verdict() == expected);
        cells.count() as f64
    };
    let rescued = expect(Expected::Rescued);
    let name = "cutover_fallbacks_total";
    let labels = [
        ("split", split),
        ("reason", reason.unwrap_or("")),
        ("result", "rescued"),
    ];
    assert_eq!(metrics.sum(name, &labels), rescued, "{labels:?}");
    assert_eq!(metrics.sum(name, &[("split", split)]), rescued, "{split}");

    let name = "cutover_fallback_refused_total";
    for refusal in ["disabled", "method", "body", "budget"] {
        let labels = [("split", split), ("reason", refusal)];
        let expected = expect(Expected::Refused(refusal));
        assert_eq!(metrics.sum(name, &labels), expected, "{labels:?}");
    }
    let diverted = metrics.sum("cutover_diverted_total", &[("split", split)]);
    assert_eq!(diverted, 0.0, "{split}");

    // Rescued or not, it is the failure of `new` and of nobody else.
    let name = "cutover_requests_total";
    let labels = [
        ("split", split),
        ("arm", "new"),
        ("class", class),
        ("evidence", "true"),
    ];
    assert_eq!(metrics.sum(name, &labels), cells.len() as f64, "{labels:?}");
    assert_eq!(
        metrics.sum(name, &[("split", split)]),
        cells.len() as f64,
        "{split}"
    );
}

#[tokio::test]
async fn every_failure_is_rescued_exactly_where_nothing_can_be_executed_twice() {
    let servers = Servers::start();
    let splits = cells_by_split();
    let text = configuration(&servers, &splits);
    let root = Certificate::new().certificate_pem;
    let proxy = Site::new().file("root.pem", root).start(&text).await;

    let room = Arc::new(Semaphore::new(32));
    let mut clients = JoinSet::new();
    for cells in splits.values().cloned() {
        let (room, address) = (Arc::clone(&room), proxy.address());
        clients.spawn(async move {
            let _place = room.acquire().await;
            let mut answers = Vec::new();
            for cell in cells {
                let answer = Client::http1(address).await.send(cell.request()).await;
                answers.push((cell, answer));
            }
            answers
        });
    }
    for (cell, answer) in clients.join_all().await.iter().flatten() {
        cell.check(answer, &servers);
    }
    let metrics = proxy.metrics().await;
    for (split, cells) in &splits {
        check_counters(split, cells, &metrics);
    }
}
