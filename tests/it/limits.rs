//! Limits of single routes and of bodies: what is too much is answered at once, the client can read
//! why, and no arm is blamed.

use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;

use crate::harness::client::{Answer, Client, Raw, get};
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::{Gate, Reply, Script, Step, Upstream};

/// A split with everything on new, and routes that are as written. Whoever is on this machine may
/// say for whom it asks.
struct Scene {
    proxy: Proxy,
    new: Upstream,
    _legacy: Upstream,
}

impl Scene {
    async fn start(new: Upstream, edge: &str, routes: &str) -> Self {
        let legacy = Upstream::ok("legacy");
        let configuration = configuration(&new, &legacy, edge, routes);
        Self {
            proxy: Site::new().start(&configuration).await,
            new,
            _legacy: legacy,
        }
    }

    async fn reload(&self, routes: &str) {
        let configuration = configuration(&self.new, &self._legacy, "", routes);
        self.proxy.reconfigure(&configuration).await;
    }

    /// Nobody counts against an arm what its clients did.
    async fn nobody_is_blamed(&self) {
        let metrics = self.proxy.metrics().await;
        for class in ["transport", "server_error"] {
            let labels = [("class", class)];
            let count = metrics.sum("cutover_requests_total", &labels);
            assert_eq!(count, 0.0, "{class}");
        }
        assert_eq!(metrics.sum("cutover_fallbacks_total", &[]), 0.0);
    }
}

fn configuration(new: &Upstream, legacy: &Upstream, edge: &str, routes: &str) -> String {
    let (new, legacy) = (new.address(), legacy.address());
    format!(
        "edge: {{trusted_proxies: [127.0.0.0/8], {edge}}}
backends: {{new: {{endpoints: ['{new}']}}, legacy: {{endpoints: ['{legacy}']}}}}
splits: {{api: {{legacy: legacy, new: new, share: 100%}}}}
routes:
{routes}
"
    )
}

/// Asks with an API key, as a trusted proxy for an address.
async fn ask(client: &mut Client, path: &str, key: &str, address: &str) -> Answer {
    let request = Request::get(path)
        .header("x-api-key", key)
        .header("x-forwarded-for", address)
        .body(Full::new(Bytes::new()))
        .expect("tests write valid requests");
    client.send(request).await
}

fn seconds_to_wait(answer: &Answer) -> u64 {
    assert_eq!(answer.status, 429);
    let wait = answer.field("retry-after").expect("it says when to come");
    wait.parse().expect("it is a number of seconds")
}

/// A client that does what `Retry-After` says, and no more: what it says is under test.
async fn wait_as_told(answer: &Answer) {
    tokio::time::sleep(Duration::from_secs(seconds_to_wait(answer))).await;
}

#[tokio::test]
async fn each_key_has_its_own_rate_and_whoever_waits_as_told_is_let_in() {
    let routes = "  - {path: /login, split: api, name: login, \
                  rate_limit: {key: {header: X-Api-Key}, requests_per_second: 1, burst: 2}}
  - {path: /rare, split: api, rate_limit: {requests_per_minute: 2, burst: 1}}
  - {split: api}";
    let scene = Scene::start(Upstream::ok("new"), "", routes).await;
    // Both workers count together.
    let mut clients = [
        Client::http1(scene.proxy.address()).await,
        Client::http2(scene.proxy.address()).await,
    ];
    let mut answers = Vec::new();
    for number in 0..6 {
        let client = &mut clients[number % 2];
        answers.push(ask(client, "/login", "a", "192.0.2.1").await);
    }
    let refused = answers.iter().filter(|answer| answer.status == 429);
    let refused = refused.count();
    assert!((1..=4).contains(&refused), "{refused}");
    let last = answers.last().expect("there were six");
    let client = &mut clients[0];
    if last.status == 429 {
        assert_eq!(seconds_to_wait(last), 1);
        wait_as_told(last).await;
        let answer = ask(client, "/login", "a", "192.0.2.1").await;
        assert_eq!(answer.status, 200, "the wait was true");
    }
    assert_eq!(ask(client, "/login", "b", "192.0.2.1").await.status, 200);
    assert_eq!(
        ask(client, "/", "a", "192.0.2.1").await.status,
        200,
        "another route"
    );
    scene
        .proxy
        .refused("route_rate_limited", refused as f64)
        .await;
    let labels = [("route", "login"), ("reason", "rate_limited")];
    let metrics = scene.proxy.metrics().await;
    let counted = metrics.sum("cutover_route_refused_total", &labels);
    assert_eq!(counted, refused as f64);

    // Without a key the address counts; and a rate per minute tells the seconds that it takes.
    let address = "198.51.100.7";
    assert_eq!(ask(client, "/rare", "", address).await.status, 200);
    let wait = seconds_to_wait(&ask(client, "/rare", "x", address).await);
    assert!((25..=30).contains(&wait), "{wait}");
    assert_eq!(ask(client, "/rare", "", "198.51.100.8").await.status, 200);
    scene.nobody_is_blamed().await;
}

#[tokio::test]
async fn allowances_outlive_a_reload_of_something_else_and_begin_anew_with_another_limit() {
    let limited = |per_minute: u32| {
        format!(
            "  - {{path: /rare, split: api, rate_limit: {{requests_per_minute: {per_minute}, burst: 1}}}}"
        )
    };
    let scene = Scene::start(Upstream::ok("new"), "", &limited(1)).await;
    let mut client = scene.proxy.client().await;
    assert_eq!(ask(&mut client, "/rare", "", "192.0.2.1").await.status, 200);
    // Its place among the routes is another now, and its name.
    let elsewhere = format!("  - {{path: /new, backend: new}}\n{}", limited(1));
    scene
        .reload(&elsewhere.replace("/rare,", "/rare, name: rare,"))
        .await;
    assert_eq!(ask(&mut client, "/new", "", "192.0.2.1").await.status, 200);
    let wait = seconds_to_wait(&ask(&mut client, "/rare", "", "192.0.2.1").await);
    assert!((50..=60).contains(&wait), "{wait}");
    scene.reload(&limited(2)).await;
    assert_eq!(ask(&mut client, "/rare", "", "192.0.2.1").await.status, 200);
}

#[tokio::test]
async fn keys_beyond_the_bound_share_one_allowance() {
    let routes = "  - {split: api, rate_limit: \
                  {key: {header: X-Api-Key}, requests_per_minute: 1, burst: 3, max_keys: 2}}";
    let scene = Scene::start(Upstream::ok("new"), "", routes).await;
    let mut client = scene.proxy.client().await;
    for key in ["a", "b"] {
        assert_eq!(ask(&mut client, "/", key, "192.0.2.1").await.status, 200);
    }
    let mut strangers = 0;
    for number in 0..20 {
        let answer = ask(&mut client, "/", &format!("made-up-{number}"), "192.0.2.1").await;
        strangers += usize::from(answer.status == 200);
    }
    assert_eq!(strangers, 3, "all of them together");
    for key in ["a", "b"] {
        assert_eq!(ask(&mut client, "/", key, "192.0.2.1").await.status, 200);
    }
    let metrics = scene.proxy.metrics().await;
    assert_eq!(metrics.sum("cutover_route_rate_limit_keys", &[]), 2.0);
    let common = metrics.sum("cutover_route_rate_limit_common_allowance_total", &[]);
    assert_eq!(common, 20.0);
}

#[tokio::test]
async fn a_full_route_sheds_until_an_answer_has_ended_or_its_client_has_left() {
    let gate = Gate::new();
    let held = gate.clone();
    let new = Upstream::start("new", move |request| match request.target.as_str() {
        "/slow" => Script::write("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nfirst")
            .then(Step::Wait(held.clone()))
            .then(Step::Write("!".into())),
        _ => Script::answer(Reply::new(200)),
    });
    let routes = "  - {path: /slow, split: api, name: slow, max_requests: 2}\n  - {split: api}";
    let scene = Scene::start(new, "", routes).await;
    let in_flight = "cutover_route_requests_in_flight";
    let mut clients = [
        Client::http1(scene.proxy.address()).await,
        Client::http2(scene.proxy.address()).await,
        Client::http1(scene.proxy.address()).await,
    ];
    let [first, second, third] = &mut clients;
    let begun = first.begin(get("/slow", "a")).await.expect("it is let in");
    let departing = second.begin(get("/slow", "b")).await.expect("it is let in");
    scene
        .proxy
        .counts(2.0, in_flight, &[("route", "slow")])
        .await;
    let answer = third.get("/slow", "c").await;
    assert_eq!((answer.status, answer.served_by()), (503, None));
    assert_eq!(answer.field("retry-after"), Some("1"));
    assert_eq!(third.get("/", "c").await.status, 200, "another route");
    scene.proxy.refused("route_overloaded", 1.0).await;
    drop(departing);
    scene
        .proxy
        .counts(1.0, in_flight, &[("route", "slow")])
        .await;
    // A reload does not forget who is in flight.
    scene
        .reload(&format!("  - {{path: /new, backend: new}}\n{routes}"))
        .await;
    scene
        .proxy
        .counts(1.0, in_flight, &[("route", "slow")])
        .await;
    gate.open();
    assert!(Answer::read(begun).await.is_whole);
    scene
        .proxy
        .counts(0.0, in_flight, &[("route", "slow")])
        .await;
    assert_eq!(third.get("/slow", "c").await.status, 200);
    let labels = [("route", "slow"), ("reason", "overloaded")];
    scene
        .proxy
        .counts(1.0, "cutover_route_refused_total", &labels)
        .await;
    scene.nobody_is_blamed().await;
}

/// Reads an answer whose connection ends with it.
async fn last_answer(client: &mut Raw) -> String {
    let answer = client.read_to_end().await;
    String::from_utf8(answer).expect("it is text")
}

const LIMITED: &str = "  - {path: /large, split: api, max_body: 1MiB}\n  - {split: api}";

#[tokio::test]
async fn a_body_that_is_announced_too_large_is_refused_before_any_of_it_is_read() {
    let scene = Scene::start(Upstream::ok("new"), "max_body: 1KiB", LIMITED).await;
    let address = scene.proxy.address();
    // A client that sends all of it before it reads can read the answer all the same.
    let mut client = Raw::connect(address).await;
    client
        .write("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1048576\r\n\r\n")
        .await;
    client.write(vec![b'x'; 1024 * 1024]).await;
    let answer = last_answer(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(
        answer.to_lowercase().contains("connection: close"),
        "{answer}"
    );
    assert!(
        answer.ends_with("the request's body is too large\n"),
        "{answer}"
    );
    // Whoever asks for leave is told before he sends anything.
    let mut client = Raw::connect(address).await;
    client
        .write(
            "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\nExpect: 100-continue\r\n\r\n",
        )
        .await;
    let answer = last_answer(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    // Over HTTP/2 the connection goes on.
    let mut client = Client::http2(address).await;
    let post = |path: &str, length: usize| {
        Request::post(path)
            .body(Full::new(Bytes::from(vec![b'x'; length])))
            .expect("tests write valid requests")
    };
    assert_eq!(client.send(post("/a", 1025)).await.status, 413);
    assert_eq!(client.send(post("/a", 1024)).await.status, 200);
    assert_eq!(client.send(post("/large", 1024 * 1024)).await.status, 200);
    assert_eq!(
        client.send(post("/large", 1024 * 1024 + 1)).await.status,
        413
    );
    assert_eq!(
        scene.new.received().len(),
        2,
        "what is refused reaches nobody"
    );
    scene.proxy.refused("body_too_large", 4.0).await;
    scene.nobody_is_blamed().await;
}

#[tokio::test]
async fn a_body_that_turns_out_too_large_is_refused_and_its_upstream_is_let_go() {
    let new = Upstream::start("new", |_| Script::answer(Reply::new(200)));
    let scene = Scene::start(new, "max_body: 64KiB", LIMITED).await;
    let address = scene.proxy.address();
    let mut client = Raw::connect(address).await;
    client
        .write("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    let chunk = [b"8000\r\n".to_vec(), vec![b'x'; 0x8000], b"\r\n".to_vec()].concat();
    for _ in 0..40 {
        client.write(&chunk).await;
    }
    client.write("0\r\n\r\n").await;
    let answer = last_answer(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(
        answer.ends_with("the request's body is too large\n"),
        "{answer}"
    );
    scene.new.was_departed("/a").await;
    let received = scene.new.received_for("/a");
    assert!(received[0].body.len() <= 64 * 1024 && !received[0].is_whole);
    scene.proxy.refused("body_too_large", 1.0).await;

    // One that fits, to the byte, is a request like any other.
    let mut client = Raw::connect(address).await;
    client
        .write("POST /b HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    client
        .write([&chunk[..], &chunk[..], b"0\r\n\r\n"].concat())
        .await;
    let answer = last_answer(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    scene.nobody_is_blamed().await;
}

#[tokio::test]
async fn curl_reads_why_over_http_2_too_when_it_uploads_without_a_length() {
    let scene = Scene::start(Upstream::ok("new"), "max_body: 64KiB", LIMITED).await;
    let address = scene.proxy.address();
    for (protocol, bytes, expected) in [
        ("--http2-prior-knowledge", 3_000_000, "413"),
        ("--http2-prior-knowledge", 65_536, "200"),
        ("--http1.1", 3_000_000, "413"),
        ("--http1.1", 65_536, "200"),
    ] {
        let words = format!(
            "head -c {bytes} /dev/zero | curl -s {protocol} -o /dev/null -w '%{{http_code}}' \
             -T - http://{address}/up"
        );
        let running =
            tokio::task::spawn_blocking(move || Command::new("sh").args(["-c", &words]).output());
        let output = running.await.expect("waiting does not panic");
        let output = output.expect("there is a shell, and curl");
        let status = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(status, expected, "{protocol} {bytes}: {output:?}");
    }
    scene.proxy.refused("body_too_large", 2.0).await;
    scene.nobody_is_blamed().await;
}

#[tokio::test]
async fn a_body_that_turns_out_too_large_after_the_answer_began_ends_both_and_blames_nobody() {
    let new = Upstream::start("new", |_| {
        Script::of([
            Step::Write("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nfirst".into()),
            Step::AwaitDeparture,
        ])
    });
    let scene = Scene::start(new, "max_body: 64KiB", LIMITED).await;
    let mut client = Raw::connect(scene.proxy.address()).await;
    client
        .write("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    let head = client.read_head().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let chunk = [b"8000\r\n".to_vec(), vec![b'x'; 0x8000], b"\r\n".to_vec()].concat();
    for _ in 0..3 {
        client.write(&chunk).await;
    }
    let rest = client.read_to_end().await;
    assert!(rest.len() < 1000, "the answer is visibly not whole");
    scene.new.was_departed("/a").await;
    scene.proxy.refused("body_too_large", 1.0).await;
    scene.nobody_is_blamed().await;
}
