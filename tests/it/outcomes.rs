//! What is booked: one outcome for every request, however it ends, on the arm it was assigned to,
//! and what the verdict makes of it.

use std::time::Duration;

use bytes::Bytes;
use cutover::policy::arm::Arm;
use cutover::policy::rollout::Phase;
use tokio::task::JoinSet;

use crate::harness::client::{Client, Raw, get};
use crate::harness::keys::keys;
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::{Gate, Received, Reply, Script, Step, Upstream};
use crate::harness::{PATIENCE, eventually};

/// Two servers behind one split, called `api`.
async fn start(legacy: &Upstream, new: &Upstream, timeouts: &str, split: &str) -> Proxy {
    let [legacy, new] = [legacy, new].map(Upstream::address);
    Site::new()
        .start(&format!(
            "backends:
  legacy: {{endpoints: ['{legacy}'], timeouts: {timeouts}}}
  new: {{endpoints: ['{new}'], timeouts: {timeouts}}}
splits:
  api:
    legacy: legacy
    new: new
    share: 50%
    key: [{{header: X-User}}]
    keyless: legacy
    {split}
routes:
  - {{split: api}}
"
        ))
        .await
}

/// Ends in the way that the target names, whatever that takes.
fn end(request: &Received) -> Script {
    let grpc = |code| {
        let reply = Reply::new(200).field("Content-Type", "application/grpc");
        Script::answer(reply.field("Grpc-Status", code).body(""))
    };
    let unfinished = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun";
    match request.target.as_str() {
        "/ok" => Script::status(200),
        "/redirect" => Script::status(302),
        "/not-found" => Script::status(404),
        "/broken" => Script::status(500),
        "/grpc-blames-caller" => grpc("5"),
        "/grpc-blames-server" => grpc("13"),
        "/grpc-fails-late" => Script::write(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
             2\r\nok\r\n0\r\nGrpc-Status: 14\r\n\r\n",
        ),
        "/reset" => Script::reset(),
        "/garbage" => Script::write("nonsense\r\n\r\n"),
        "/truncated" => Script::write(unfinished).then(Step::Close),
        "/bad-chunk" => {
            Script::write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n")
        }
        "/stalls" | "/left-while-reading" => Script::write(unfinished).then(Step::AwaitDeparture),
        // As long as the body trickles, only the limit on the whole ends it.
        "/trickles" => {
            let trickle = [
                Step::Pause(Duration::from_millis(50)),
                Step::Write(Bytes::from("x")),
            ];
            let head = Script::write("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
            trickle
                .into_iter()
                .cycle()
                .take(100_000)
                .fold(head, Script::then)
        }
        _ => Script::hang(),
    }
}

/// Requests that run until they end, and what they are booked as.
const ENDINGS: [(&str, &str); 13] = [
    ("/ok", "success"),
    ("/redirect", "success"),
    ("/not-found", "client_error"),
    ("/grpc-blames-caller", "client_error"),
    ("/broken", "server_error"),
    ("/grpc-blames-server", "grpc_error"),
    ("/grpc-fails-late", "grpc_error"),
    ("/reset", "transport"),
    ("/garbage", "transport"),
    ("/truncated", "transport"),
    ("/bad-chunk", "transport"),
    ("/hangs", "transport"),
    ("/stalls", "transport"),
];

/// Requests whose client goes away.
const DEPARTURES: [&str; 2] = ["/left-while-waiting", "/left-while-reading"];

const CLASSES: [&str; 6] = [
    "success",
    "client_error",
    "server_error",
    "grpc_error",
    "transport",
    "cancelled",
];

#[tokio::test]
async fn however_a_request_ends_it_is_one_outcome_of_its_arm() {
    let (legacy, new) = (Upstream::start("legacy", end), Upstream::start("new", end));
    let timeouts = "{first_byte: 1s, body_idle: 1s}";
    let quiet = "fallback: {enabled: false}
    rollback: off
    analysis: {hard_fail: 1000000}";
    let proxy = start(&legacy, &new, timeouts, quiet).await;
    let mut endings = JoinSet::new();
    for arm in Arm::ALL {
        let mut keys = keys("api", "50%", arm);
        for (target, _) in ENDINGS {
            let (address, key) = (proxy.address(), keys.next().expect("there is no end"));
            endings.spawn(async move {
                let answer = Client::http1(address).await.begin(get(target, &key)).await;
                if let Ok(answer) = answer {
                    crate::harness::client::Answer::read(answer).await;
                }
            });
        }
        for target in DEPARTURES {
            let key = keys.next().expect("there is no end");
            let mut client = Raw::connect(proxy.address()).await;
            client
                .write(format!(
                    "GET {target} HTTP/1.1\r\nHost: a\r\nX-User: {key}\r\n\r\n"
                ))
                .await;
            let server = if arm == Arm::New { &new } else { &legacy };
            server.has_received(target).await;
            if target == "/left-while-reading" {
                client.read_head().await;
            }
            // An end alone could be that of a client who still listens.
            client.reset();
            server.was_departed(target).await;
        }
    }
    endings.join_all().await;
    let total = 2 * (ENDINGS.len() + DEPARTURES.len());
    let split = [("split", "api"), ("evidence", "true")];
    proxy
        .counts(total as f64, "cutover_requests_total", &split)
        .await;
    let metrics = proxy.metrics().await;
    for arm in Arm::ALL {
        for class in CLASSES {
            let ended = ENDINGS.iter().filter(|ending| ending.1 == class).count();
            let left = if class == "cancelled" {
                DEPARTURES.len()
            } else {
                0
            };
            let labels = [("split", "api"), ("arm", arm.as_str()), ("class", class)];
            let booked = metrics.sum("cutover_requests_total", &labels);
            assert_eq!(booked, (ended + left) as f64, "{labels:?}");
        }
    }
    eventually("the status says the same", async || {
        let arms = proxy.split("api").await.arms;
        [arms.legacy, arms.new].iter().all(|arm| {
            (arm.requests, arm.cancelled, arm.errors, arm.client_errors) == (13, 2, 9, 2)
        })
    })
    .await;
}

#[tokio::test]
async fn the_limit_on_the_whole_ends_an_answer_that_trickles() {
    let (legacy, new) = (Upstream::start("legacy", end), Upstream::start("new", end));
    let proxy = start(&legacy, &new, "{total: 500ms}", "rollback: off").await;
    let key = keys("api", "50%", Arm::New)
        .next()
        .expect("there is no end");
    let answer = proxy.client().await.get("/trickles", &key).await;
    assert_eq!((answer.status, answer.is_whole), (200, false));
    new.was_departed("/trickles").await;
    let labels = [("split", "api"), ("arm", "new"), ("class", "transport")];
    proxy.counts(1.0, "cutover_requests_total", &labels).await;
}

#[tokio::test]
async fn a_request_that_hangs_counts_as_slow_long_before_it_ends() {
    const HANGING: usize = 40;
    let legacy = Upstream::ok("legacy");
    let gate = Gate::new();
    let held = gate.clone();
    let new = Upstream::start("new", move |_| {
        Script::of([Step::Wait(held.clone()), Step::Answer(Reply::new(200))])
    });
    let proxy = start(&legacy, &new, "{first_byte: 1m}", "rollback: [p95 > 200ms]").await;
    let mut hanging = JoinSet::new();
    for key in keys("api", "50%", Arm::New).take(HANGING) {
        let address = proxy.address();
        hanging.spawn(async move { Client::http1(address).await.get("/", &key).await });
    }
    eventually("the split rolls back", async || {
        proxy.split("api").await.share == "0%"
    })
    .await;
    assert_eq!(new.received().len(), HANGING);
    let split = proxy.split("api").await;
    assert_eq!(split.arms.new.requests, 0, "not one of them has ended");
    let decision = split.last_decision.expect("it was decided");
    let slow = &decision.conditions[0];
    assert_eq!(
        (slow.criterion.as_str(), slow.verdict.as_str()),
        ("p95 > 200ms", "fail")
    );
    assert!(slow.events >= 20, "{slow:?}");

    gate.open();
    for answer in hanging.join_all().await {
        // What is in flight is not moved, rollback or not.
        assert_eq!((answer.status, answer.served_by()), (200, Some("new")));
    }
    let labels = [("split", "api"), ("arm", "new"), ("class", "success")];
    proxy
        .counts(HANGING as f64, "cutover_requests_total", &labels)
        .await;
}

#[tokio::test]
async fn clients_that_never_see_a_failure_do_not_hide_it_from_the_verdict() {
    let legacy = Upstream::ok("legacy");
    let new = Upstream::start("new", |_| Script::status(503));
    let split = "fallback: {budget_floor: 1000}
    analysis: {hard_fail: 1000000}";
    let proxy = start(&legacy, &new, "{}", split).await;
    let mut client = proxy.client().await;
    let started = std::time::Instant::now();
    for number in 0.. {
        let answer = client.get("/", &format!("user-{number}")).await;
        assert_eq!(answer.status, 200, "{number}");
        if number % 10 == 9 && proxy.split("api").await.share == "0%" {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "it never rolled back");
    }
    let failed = new.received().len();
    let legacys_own = legacy.received().len() - failed;
    let metrics = proxy.metrics().await;
    let booked = |labels: [(&str, &str); 2]| metrics.sum("cutover_requests_total", &labels);
    assert_eq!(
        booked([("arm", "new"), ("class", "server_error")]),
        failed as f64
    );
    let rescues = "a rescue is no request of legacy's";
    assert_eq!(
        booked([("arm", "legacy"), ("class", "success")]),
        legacys_own as f64,
        "{rescues}"
    );
    let rescued = [
        ("split", "api"),
        ("reason", "status"),
        ("result", "rescued"),
    ];
    assert_eq!(
        metrics.sum("cutover_fallbacks_total", &rescued),
        failed as f64
    );
    let split = proxy.split("api").await;
    assert_eq!(split.phase, Phase::RolledBack);
    let decision = split.last_decision.expect("it was decided");
    assert!(
        decision.sentence.contains("error_rate"),
        "{}",
        decision.sentence
    );
}

#[tokio::test]
async fn a_new_that_is_no_worse_than_a_sick_legacy_is_held_and_not_rolled_back() {
    let legacy = Upstream::start("legacy", |_| Script::status(503));
    let new = Upstream::start("new", |_| Script::status(503));
    let split = "analysis: {hard_fail: 1000000}";
    let proxy = start(&legacy, &new, "{}", split).await;
    let mut client = proxy.client().await;
    let started = std::time::Instant::now();
    for number in 0.. {
        client.get("/", &format!("user-{number}")).await;
        if number % 10 == 9 {
            let split = proxy.split("api").await;
            assert_eq!(
                split.share, "50%",
                "moving everyone to legacy would help nobody"
            );
            let mut conditions = split.conditions.iter();
            if conditions.any(|condition| condition.withheld_by.is_some()) {
                break;
            }
        }
        assert!(started.elapsed() < PATIENCE, "nothing was held back");
    }
}
