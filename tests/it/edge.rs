//! The client's side of the proxy: names for requests, who is let in, how much, and that nothing a
//! stranger sends brings it out of step.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use cutover::policy::arm::Arm;
use http::Request;
use http_body_util::Full;

use crate::harness::client::{Answer, Client, Raw, get};
use crate::harness::keys::{Population, keys};
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::{Gate, Script, Step, Upstream};

/// One split at 50 % between two servers, behind this edge. Whoever is on this machine may say for
/// whom it asks.
struct Scene {
    proxy: Proxy,
    legacy: Upstream,
    new: Upstream,
}

impl Scene {
    async fn start(edge: &str) -> Self {
        Self::with_servers(edge, Upstream::ok("legacy"), Upstream::ok("new")).await
    }

    async fn with_servers(edge: &str, legacy: Upstream, new: Upstream) -> Self {
        let configuration = configuration(edge, legacy.address(), new.address());
        Self {
            proxy: Site::new().start(&configuration).await,
            legacy,
            new,
        }
    }

    async fn reload(&self, edge: &str) {
        let configuration = configuration(edge, self.legacy.address(), self.new.address());
        self.proxy.reconfigure(&configuration).await;
    }

    /// What the proxy counts as turned away.
    async fn refused(&self, reason: &str, count: f64) {
        self.proxy.refused(reason, count).await;
        self.proxy.counts(count, "cutover_refused_total", &[]).await;
    }

    fn received(&self) -> usize {
        self.legacy.received().len() + self.new.received().len()
    }
}

fn configuration(edge: &str, legacy: SocketAddr, new: SocketAddr) -> String {
    format!(
        "edge: {{{edge}}}
backends:
  legacy: {{endpoints: ['{legacy}']}}
  new: {{endpoints: ['{new}']}}
splits:
  api: {{legacy: legacy, new: new, share: 50%, key: [{{cookie: session}}, {{header: X-User}}]}}
routes:
  - {{path_prefix: /api, split: api}}
"
    )
}

const BELIEVED: &str = "trusted_proxies: [127.0.0.0/8]";

/// Asks for `/api` as a trusted proxy would for `address`.
async fn ask_for(client: &mut Client, address: &str) -> Answer {
    let request = Request::get("/api")
        .header("x-forwarded-for", address)
        .body(Full::new(Bytes::new()))
        .expect("tests write valid requests");
    client.send(request).await
}

#[tokio::test]
async fn every_request_has_an_id_which_its_upstream_and_its_client_see_alike() {
    let scene = Scene::start("").await;
    let mut clients = [scene.proxy.client().await, scene.proxy.client().await];
    let mut seen = HashSet::new();
    for number in 0..40 {
        let mut request = get("/api", &format!("user-{number}"));
        // What a stranger calls himself is not believed.
        let claim = "repeated".parse().expect("it is a value");
        request.headers_mut().insert("x-request-id", claim);
        let answer = clients[number % 2].send(request).await;
        let id = answer.field("x-request-id").expect("an answer has an id");
        assert!(
            id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{id}"
        );
        assert!(seen.insert(id.to_owned()), "{id} came twice");
    }
    let received = [scene.legacy.received(), scene.new.received()].concat();
    let forwarded: HashSet<_> = received
        .iter()
        .filter_map(|request| request.field("x-request-id").map(str::to_owned))
        .collect();
    assert_eq!(forwarded, seen);
    let refusal = clients[0].get("/elsewhere", "").await;
    assert_eq!(refusal.status, 404);
    assert!(
        refusal.field("x-request-id").is_some(),
        "refusals have one too"
    );
}

#[tokio::test]
async fn a_trusted_proxy_names_its_requests_itself() {
    let scene = Scene::start(BELIEVED).await;
    let mut request = get("/api", "alice");
    let name = "edge-7/42".parse().expect("it is a value");
    request.headers_mut().insert("x-request-id", name);
    let answer = scene.proxy.client().await.send(request).await;
    assert_eq!(answer.field("x-request-id"), Some("edge-7/42"));
    let received = [scene.legacy.received(), scene.new.received()].concat();
    assert_eq!(received[0].field("x-request-id"), Some("edge-7/42"));
}

#[tokio::test]
async fn lists_decide_by_the_most_specific_entry_and_a_reload_changes_them_at_once() {
    let lists = |lists: &str| format!("{BELIEVED}, {lists}");
    let first = lists("deny: [192.0.2.0/24, 2001:db8::/32], allow: [0.0.0.0/0, '::/0', 192.0.2.7]");
    let scene = Scene::start(&first).await;
    let mut client = scene.proxy.client().await;
    for (address, status) in [
        ("198.51.100.1", 200),
        ("192.0.2.8", 403),
        ("192.0.2.7", 200),
        ("2001:db8::1", 403),
        ("2001:db9::1", 200),
    ] {
        assert_eq!(
            ask_for(&mut client, address).await.status,
            status,
            "{address}"
        );
    }
    scene.refused("denied", 2.0).await;
    assert_eq!(scene.received(), 3, "who is denied reaches nobody");

    // The connection stays: a reload drops nobody.
    scene.reload(&lists("deny: [192.0.2.7]")).await;
    assert_eq!(ask_for(&mut client, "192.0.2.7").await.status, 403);
    assert_eq!(ask_for(&mut client, "192.0.2.8").await.status, 200);
    scene.reload(&lists("allow: [192.0.2.7]")).await;
    assert_eq!(ask_for(&mut client, "192.0.2.7").await.status, 200);
    let answer = ask_for(&mut client, "192.0.2.8").await;
    assert_eq!((answer.status, answer.served_by()), (403, None));
    scene.refused("denied", 4.0).await;
}

#[tokio::test]
async fn a_stranger_cannot_ask_for_another_address() {
    let scene = Scene::start("deny: [127.0.0.1]").await;
    let answer = ask_for(&mut scene.proxy.client().await, "198.51.100.1").await;
    assert_eq!(answer.status, 403);
    assert_eq!(scene.received(), 0);
}

/// Asks `count` times and counts how often it was let in.
async fn admitted(client: &mut Client, address: &str, count: usize) -> usize {
    let mut admitted = 0;
    for _ in 0..count {
        match ask_for(client, address).await {
            answer if answer.status == 200 => admitted += 1,
            answer => {
                assert_eq!(answer.status, 429);
                assert_eq!(answer.field("retry-after"), Some("1"));
            }
        }
    }
    admitted
}

/// What a limit of one per second adds to a burst since `started`, at most.
fn added_since(started: Instant) -> usize {
    started.elapsed().as_secs() as usize + 1
}

#[tokio::test]
async fn too_many_requests_from_one_address_are_answered_429_and_cost_the_others_nothing() {
    let limit = "rate_limit: {requests_per_second: 1, burst: 5}";
    let scene = Scene::start(&format!("{BELIEVED}, {limit}")).await;
    let mut clients = [scene.proxy.client().await, scene.proxy.client().await];
    let started = Instant::now();
    // Both workers count together.
    let mut sum = 0;
    for client in &mut clients {
        sum += admitted(client, "192.0.2.1", 20).await;
    }
    assert!((5..=5 + added_since(started)).contains(&sum), "{sum}");
    assert_eq!(admitted(&mut clients[0], "192.0.2.2", 5).await, 5);
    assert_eq!(admitted(&mut clients[0], "2001:db8::1", 5).await, 5);
    let twin = admitted(&mut clients[0], "2001:db8::2", 5).await;
    assert!(twin <= added_since(started), "a /64 is one address: {twin}");
    let refused = 40 - sum + 5 - twin;
    scene.refused("rate_limited", refused as f64).await;
}

#[tokio::test]
async fn addresses_beyond_the_cap_share_one_allowance_and_those_remembered_keep_theirs() {
    let limit = "rate_limit: {requests_per_second: 1, burst: 30, max_keys: 2}";
    let scene = Scene::start(&format!("{BELIEVED}, {limit}")).await;
    let mut client = scene.proxy.client().await;
    // So many that they are not forgotten as idle for as long as this test lasts.
    for address in ["192.0.2.1", "192.0.2.2"] {
        assert_eq!(admitted(&mut client, address, 25).await, 25);
    }
    let started = Instant::now();
    let mut strangers = 0;
    for last in 10..30 {
        strangers += admitted(&mut client, &format!("192.0.2.{last}"), 3).await;
    }
    assert!(
        (30..=30 + added_since(started)).contains(&strangers),
        "{strangers}"
    );
    for address in ["192.0.2.1", "192.0.2.2"] {
        assert_eq!(admitted(&mut client, address, 5).await, 5);
    }
    let metrics = scene.proxy.metrics().await;
    assert_eq!(metrics.sum("cutover_rate_limit_addresses", &[]), 2.0);
    let common = metrics.sum("cutover_rate_limit_common_allowance_total", &[]);
    assert_eq!(common, 60.0);
    scene.refused("rate_limited", (60 - strangers) as f64).await;
}

#[tokio::test]
async fn too_many_requests_at_once_are_answered_503_until_one_has_ended() {
    let gate = Gate::new();
    let held = gate.clone();
    let legacy = Upstream::start("legacy", move |_| {
        // The head is out, so the request is in flight until its body ends.
        Script::write("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nfirst")
            .then(Step::Wait(held.clone()))
            .then(Step::Write("!".into()))
    });
    let scene = Scene::with_servers("max_requests: 1", legacy, Upstream::ok("new")).await;
    let key = |arm| keys("api", "50%", arm).next().expect("there are enough");
    let (mine, other) = (key(Arm::Legacy), key(Arm::New));
    let mut first = scene.proxy.client().await;
    let begun = first.begin(get("/api", &mine)).await.expect("it is let in");
    let mut second = scene.proxy.client().await;
    let answer = second.get("/api", &other).await;
    assert_eq!((answer.status, answer.served_by()), (503, None));
    assert_eq!(answer.field("retry-after"), Some("1"));
    scene.refused("overloaded", 1.0).await;
    let in_flight = scene
        .proxy
        .metrics()
        .await
        .sum("cutover_requests_in_flight", &[]);
    assert_eq!(in_flight, 1.0);
    gate.open();
    assert!(Answer::read(begun).await.is_whole);
    scene
        .proxy
        .counts(0.0, "cutover_requests_in_flight", &[])
        .await;
    let answer = second.get("/api", &other).await;
    assert_eq!((answer.status, answer.served_by()), (200, Some("new")));
}

#[tokio::test]
async fn an_enormous_key_is_a_key_like_any_other() {
    let scene = Scene::start("max_head: 128KiB").await;
    let population = Population::new("api", "50%");
    let mut client = scene.proxy.client().await;
    for length in [1_000, 10_000, 100_000] {
        for letter in ["a", "b", "c", "d"] {
            let key = letter.repeat(length);
            let answer = client.get("/api", &key).await;
            assert_eq!(
                answer.served_by(),
                Some(population.arm(&key).as_str()),
                "{length}"
            );
        }
    }
}

#[tokio::test]
async fn hostile_cookies_are_keys_or_the_absence_of_one_and_never_an_error() {
    let scene = Scene::start("").await;
    let population = Population::new("api", "50%");
    let by_address = population.arm("127.0.0.1");
    let mut client = Raw::connect(scene.proxy.address()).await;
    for (cookie, arm) in [
        ("session=a; session=b", population.arm("a")),
        ("session=\"quoted\"", population.arm("\"quoted\"")),
        ("session=a=b=c", population.arm("a=b=c")),
        ("=;;; ;=x; session=ok;;", population.arm("ok")),
        ("session=\u{e9}\u{4e16}", population.arm("\u{e9}\u{4e16}")),
        (
            "session=%00%0d%0aSet-Cookie:x",
            population.arm("%00%0d%0aSet-Cookie:x"),
        ),
        ("session=", by_address),
        ("session", by_address),
        ("sessionx=a; xsession=b", by_address),
        ("", by_address),
    ] {
        let head = format!("GET /api HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n");
        client.write(head).await;
        let answer = client.read_head().await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{cookie}: {answer}");
        let served_by = format!("\r\nServed-By: {arm}\r\n");
        assert!(answer.contains(&served_by), "{cookie}: {answer}");
        client.read(arm.as_str().len()).await;
    }
}

#[tokio::test]
async fn an_http_1_0_request_without_a_host_or_a_key_is_served_and_its_connection_ends() {
    let scene = Scene::start("").await;
    let mut client = Raw::connect(scene.proxy.address()).await;
    client.write("GET /api HTTP/1.0\r\n\r\n").await;
    let answer = String::from_utf8(client.read_to_end().await).expect("it is text");
    assert!(answer.contains(" 200 OK\r\n"), "{answer}");
    let arm = Population::new("api", "50%").arm("127.0.0.1");
    assert!(answer.ends_with(arm.as_str()), "{answer}");
    let received = [scene.legacy.received(), scene.new.received()].concat();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].field("x-forwarded-for"), Some("127.0.0.1"));
}

#[tokio::test]
async fn who_names_no_host_or_two_or_nonsense_is_answered_400_and_reaches_nobody() {
    let scene = Scene::start("").await;
    let heads = [
        "GET /api HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET /api HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET /api HTTP/1.1\r\n\r\n",
        "GET /api HTTP/1.1\r\nHost: a, b\r\n\r\n",
        "GET /api HTTP/1.1\r\nHost: a/../b\r\n\r\n",
    ];
    for head in heads {
        let mut client = Raw::connect(scene.proxy.address()).await;
        client.write(head).await;
        let answer = client.read_head().await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{head}: {answer}");
    }
    scene.refused("invalid_host", heads.len() as f64).await;
    assert_eq!(scene.received(), 0);
}

#[tokio::test]
async fn what_is_no_http_is_answered_400_and_reaches_nobody() {
    let scene = Scene::start("").await;
    for head in [
        "GET /api HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET /api HTTP/1.1\r\nHost: a\r\nX-User: a\x00b\r\n\r\n",
        "GET /api HTTP/1.1\r\nHost: a\r\nCookie: session=\x01\r\n\r\n",
        "GET /a pi HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /api HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "POST /api HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        "\x16\x03\x01\x02\x00\r\n\r\n",
    ] {
        let mut client = Raw::connect(scene.proxy.address()).await;
        client.write(head).await;
        let answer = client.read_to_end().await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{head:?}: {answer}");
    }
    let mut client = Raw::connect(scene.proxy.address()).await;
    let endless = "X-User: aaaaaaaaaaaaaaaaaaaaaaaa\r\n".repeat(1_100);
    client
        .write(format!("GET /api HTTP/1.1\r\n{endless}"))
        .await;
    let answer = client.read_head().await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert_eq!(scene.received(), 0);
    let answer = scene.proxy.client().await.get("/api", "alice").await;
    assert_eq!(answer.status, 200, "the others do not notice");
}

#[tokio::test]
async fn a_target_that_names_its_host_wins_over_the_field() {
    let scene = Scene::start("").await;
    let mut client = Raw::connect(scene.proxy.address()).await;
    client
        .write("GET http://b.example/api?x HTTP/1.1\r\nHost: a.example\r\n\r\n")
        .await;
    assert!(client.read_head().await.starts_with("HTTP/1.1 200 "));
    let received = [scene.legacy.received(), scene.new.received()].concat();
    assert_eq!(received[0].target, "/api?x");
    assert_eq!(received[0].field("host"), Some("b.example"));
}

#[tokio::test]
async fn an_answer_of_the_proxys_own_is_never_stored() {
    let scene = Scene::start("deny: [192.0.2.0/24], trusted_proxies: [127.0.0.1]").await;
    let mut client = scene.proxy.client().await;
    for answer in [
        client.get("/elsewhere", "").await,
        ask_for(&mut client, "192.0.2.1").await,
    ] {
        assert_eq!(
            answer.field("cache-control"),
            Some("no-store"),
            "{}",
            answer.status
        );
    }
}
