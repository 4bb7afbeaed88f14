//! Every fault of an upstream, on either arm, for requests that may be repeated and for those that
//! may not, from clients of both protocols: what the client sees, what is counted, and that nothing
//! is left behind.
//!
//! What must happen is written down a second time in [`Fault`], in the plainest words. Each fault has
//! two splits of its own: one in which `new` has it and legacy is well, and one in which legacy has
//! it. The breaker and
//! the budget stay out of it.

mod departures;
mod fault;
mod flapping;
mod names;
mod stale;
mod unread;

use std::net::SocketAddr;

use bytes::Bytes;
use cutover::policy::arm::Arm;
use http::Request;
use http_body_util::Full;
use tokio::task::JoinSet;

use self::fault::{Expected, FAULTS, Fault, Servers};
use crate::harness::client::{Answer, Client, request};
use crate::harness::eventually;
use crate::harness::metrics::Metrics;
use crate::harness::proxy::{Proxy, Site};

/// How often everything is asked for. The first time, memory and files are taken that stay.
const ROUNDS: usize = 3;
/// The memory that further rounds may cost: what an allocator does not give back at once.
const MEMORY: usize = 16 * 1024 * 1024;

/// An answer to HEAD has no body that could break off, so it has to do only with what fails before.
fn methods(fault: Fault) -> impl Iterator<Item = &'static str> {
    let head = fault.reason.map(|_| "HEAD");
    ["GET", "POST"].into_iter().chain(head)
}

/// What a client sees of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It is whole.
    Whole(u16),
    /// The connection, or the stream, ended before the answer did.
    Truncated,
}

/// Sends a request over a connection of its own.
pub(crate) async fn see(client: &mut Client, request: Request<Full<Bytes>>) -> Seen {
    // An answer that breaks off right behind its head may lose the head as well.
    let Ok(response) = client.begin(request).await else {
        return Seen::Truncated;
    };
    let answer = Answer::read(response).await;
    match answer.is_whole {
        true => Seen::Whole(answer.status),
        false => Seen::Truncated,
    }
}

/// One request of the table.
#[derive(Clone, Copy, Debug)]
struct Cell {
    fault: Fault,
    /// The arm that has the fault, and the session.
    arm: Arm,
    method: &'static str,
    is_http2: bool,
}

impl Cell {
    fn all() -> impl Iterator<Item = Self> {
        FAULTS.into_iter().flat_map(|fault| {
            Arm::ALL.into_iter().flat_map(move |arm| {
                methods(fault).flat_map(move |method| {
                    [false, true].map(|is_http2| Self {
                        fault,
                        arm,
                        method,
                        is_http2,
                    })
                })
            })
        })
    }

    /// Whether legacy answers instead.
    fn is_rescued(self) -> bool {
        let may_repeat = self.method != "POST" || !self.fault.is_sent;
        self.arm == Arm::New && self.fault.reason.is_some() && may_repeat
    }

    fn expected(self) -> Seen {
        match self.fault.expected {
            _ if self.is_rescued() => Seen::Whole(200),
            Expected::Status(status) => Seen::Whole(status),
            Expected::Truncated => Seen::Truncated,
        }
    }

    async fn check(self, address: SocketAddr, number: usize) {
        let mut client = match self.is_http2 {
            true => Client::http2(address).await,
            false => Client::http1(address).await,
        };
        let target = format!("/{}", split(self.fault, self.arm));
        let key = format!("user-{number}");
        let body = if self.method == "POST" { "a body" } else { "" };
        let asked = request(self.method, &target, &key, body);
        assert_eq!(see(&mut client, asked).await, self.expected(), "{self:?}");
    }
}

fn split(fault: Fault, arm: Arm) -> String {
    format!("{}-{arm}", fault.name)
}

fn configuration(servers: &Servers) -> String {
    let well = servers.well.address();
    let mut text = format!("backends:\n  well: {{endpoints: ['{well}'], {POOL}}}\n");
    let (mut splits, mut routes) = (String::new(), String::new());
    for fault in FAULTS {
        let (name, endpoint) = (fault.name, servers.endpoint(fault));
        let timeouts = fault.timeouts;
        text +=
            &format!("  {name}: {{endpoints: ['{endpoint}'], timeouts: {{{timeouts}}}, {POOL}}}\n");
        for arm in Arm::ALL {
            let split = split(fault, arm);
            let (legacy, new, share) = match arm {
                Arm::Legacy => (name, "well", "0%"),
                Arm::New => ("well", name, "100%"),
            };
            splits += &format!(
                "  {split}: {{legacy: {legacy}, new: {new}, share: {share}, key: [{{header: X-User}}], \
                 keyless: legacy, rollback: off, analysis: {{hard_fail: 1000000}}, \
                 fallback: {{budget_floor: 1000000, breaker: false}}}}\n"
            );
            routes += &format!("  - {{path_prefix: /{split}, split: {split}}}\n");
        }
    }
    format!("{text}splits:\n{splits}routes:\n{routes}")
}

/// So that at the end of a round no connection rests either.
const POOL: &str = "pool: {idle_timeout: 100ms}";

/// Checks that a split counted each of its requests where it belongs, once, and nowhere else.
fn check_counters(metrics: &Metrics, fault: Fault, arm: Arm) {
    let name = split(fault, arm);
    let cells = || Cell::all().filter(|cell| cell.fault.name == fault.name && cell.arm == arm);
    let times = |count: usize| (count * ROUNDS) as f64;
    let of = |metric, labels: &[(&str, &str)]| {
        let labels = [&[("split", name.as_str())], labels].concat();
        metrics.sum(metric, &labels)
    };
    let all = times(cells().count());
    let booked = [("arm", arm.as_str()), ("class", fault.class)];
    assert_eq!(of("cutover_requests_total", &booked), all, "{name}");
    assert_eq!(of("cutover_requests_total", &[]), all, "{name}");

    let rescued = times(cells().filter(|cell| cell.is_rescued()).count());
    let reason = [
        ("reason", fault.reason.unwrap_or("")),
        ("result", "rescued"),
    ];
    assert_eq!(of("cutover_fallbacks_total", &reason), rescued, "{name}");
    assert_eq!(of("cutover_fallbacks_total", &[]), rescued, "{name}");

    let is_failure = arm == Arm::New && fault.reason.is_some();
    let refused = if is_failure { all - rescued } else { 0.0 };
    let reason = [("reason", "method")];
    let metric = "cutover_fallback_refused_total";
    assert_eq!(of(metric, &reason), refused, "{name}");
    assert_eq!(of(metric, &[]), refused, "{name}");
    assert_eq!(of("cutover_diverted_total", &[]), 0.0, "{name}");
}

/// Checks that each try at the server with the fault was counted as what it was.
fn check_attempts(metrics: &Metrics, fault: Fault) {
    let tries = Cell::all().filter(|cell| cell.fault.name == fault.name);
    let tries = (tries.count() * ROUNDS) as f64;
    let of = |labels: &[(&str, &str)]| {
        let labels = [&[("backend", fault.name)], labels].concat();
        metrics.sum("cutover_attempts_total", &labels)
    };
    let result = fault.reason.unwrap_or("success");
    assert_eq!(of(&[("result", result)]), tries, "{}", fault.name);
    assert_eq!(of(&[]), tries, "{}", fault.name);
}

/// Waits until nothing of any request is left, neither in the counts nor in the process, nor at the
/// servers.
async fn nothing_is_left(proxy: &Proxy, servers: &Servers) {
    for gauge in [
        "cutover_requests_in_flight",
        "cutover_client_connections",
        "cutover_endpoint_pending_requests",
        "cutover_endpoint_connections",
    ] {
        proxy.counts(0.0, gauge, &[]).await;
    }
    eventually("the servers have no connection open", async || {
        servers.open_connections() == 0
    })
    .await;
}

#[tokio::test]
async fn whatever_an_upstream_does_clients_see_the_least_harm_and_nothing_is_left() {
    let servers = Servers::start();
    let proxy = Site::new().start(&configuration(&servers)).await;
    let mut before = None;
    for round in 0..ROUNDS {
        let address = proxy.address();
        let cells = Cell::all().enumerate();
        let checks: JoinSet<()> = cells
            .map(|(number, cell)| cell.check(address, number))
            .collect();
        checks.join_all().await;
        nothing_is_left(&proxy, &servers).await;
        let (files, memory) = *before.get_or_insert((proxy.open_files(), proxy.memory()));
        eventually(&format!("{files} files are open again"), async || {
            proxy.open_files() <= files
        })
        .await;
        let more = proxy.memory().saturating_sub(memory);
        assert!(more < MEMORY, "round {round} costs {more} bytes");
    }
    let metrics = proxy.metrics().await;
    for fault in FAULTS {
        for arm in Arm::ALL {
            check_counters(&metrics, fault, arm);
        }
        check_attempts(&metrics, fault);
    }
}
