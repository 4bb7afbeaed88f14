//! Who goes where, as clients and servers see it: the share is met, a session keeps its arm, and
//! what an operator fixes by hand goes first.

use std::collections::BTreeMap;

use bytes::Bytes;
use cutover::policy::arm::Arm;
use http::Request;
use http_body_util::Full;
use serde_json::Value;

use crate::harness::certificate::Certificate;
use crate::harness::client::{Client, get};
use crate::harness::keys::{Population, keys};
use crate::harness::proxy::{PLAIN_AND_TLS, Proxy, Site};
use crate::harness::upstream::Upstream;

/// Two servers that answer everything, and splits in front of them.
struct Scene {
    proxy: Proxy,
    _servers: [Upstream; 2],
}

impl Scene {
    async fn start(splits: &str, routes: &str) -> Self {
        Self::start_on(Site::new(), "[{address: 127.0.0.1:0}]", splits, routes).await
    }

    async fn start_on(site: Site, listeners: &str, splits: &str, routes: &str) -> Self {
        let servers = [Upstream::ok("legacy"), Upstream::ok("new")];
        let [legacy, new] = servers.each_ref().map(Upstream::address);
        let configuration = format!(
            "backends:
  legacy: {{endpoints: ['{legacy}']}}
  new: {{endpoints: ['{new}']}}
splits:
{splits}
routes:
{routes}
"
        );
        Self {
            proxy: site.start_on(listeners, &configuration).await,
            _servers: servers,
        }
    }

    /// Which arm answers each of `keys`, over several connections and so over both workers.
    async fn arms(&self, target: &str, keys: &[String]) -> BTreeMap<String, Arm> {
        let mut clients = Vec::new();
        for _ in 0..4 {
            clients.push(self.proxy.client().await);
        }
        let mut arms = BTreeMap::new();
        for (number, key) in keys.iter().enumerate() {
            let count = clients.len();
            let answer = clients[number % count].get(target, key).await;
            let arm = answer.served_by().expect("one of them answered");
            arms.insert(key.clone(), arm.parse().expect("they bear the arms' names"));
        }
        arms
    }
}

const BY_HEADER: &str = "key: [{header: X-User}], keyless: legacy";

fn share_of_new(arms: &BTreeMap<String, Arm>) -> f64 {
    let new = arms.values().filter(|arm| **arm == Arm::New).count();
    new as f64 / arms.len() as f64
}

fn sessions(count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("session-{number}"))
        .collect()
}

#[tokio::test]
async fn the_share_of_sessions_is_met_and_each_is_where_anyone_can_compute_it() {
    let split = format!("  api: {{legacy: legacy, new: new, share: 10%, {BY_HEADER}}}");
    let scene = Scene::start(&split, "  - {split: api}").await;
    let sessions = sessions(3000);
    let arms = scene.arms("/", &sessions).await;
    // Four standard deviations of a fair draw are 2.2 %.
    let share = share_of_new(&arms);
    assert!((0.078..=0.122).contains(&share), "{share}");
    let population = Population::new("api", "10%");
    for (key, arm) in &arms {
        assert_eq!(*arm, population.arm(key), "{key}");
    }
    let metrics = scene.proxy.metrics().await;
    for arm in Arm::ALL {
        let labels = [
            ("split", "api"),
            ("arm", arm.as_str()),
            ("class", "success"),
        ];
        let expected = arms.values().filter(|found| **found == arm).count();
        assert_eq!(
            metrics.sum("cutover_requests_total", &labels),
            expected as f64
        );
    }
}

#[tokio::test]
async fn raising_the_share_only_moves_sessions_to_new_and_lowering_it_only_back() {
    let split = format!("  api: {{legacy: legacy, new: new, {BY_HEADER}}}");
    let scene = Scene::start(&split, "  - {split: api}").await;
    let sessions = sessions(600);
    let mut before = scene.arms("/", &sessions).await;
    assert_eq!(share_of_new(&before), 0.0, "nobody asked for a share yet");
    for (share, forbidden) in [
        ("5%", Arm::Legacy),
        ("25%", Arm::Legacy),
        ("60%", Arm::Legacy),
        ("60%", Arm::Legacy),
        ("20%", Arm::New),
        ("0%", Arm::New),
    ] {
        let set = scene.proxy.cutover(&["set", "api", share]).await;
        assert!(set.status.success(), "{set:?}");
        let after = scene.arms("/", &sessions).await;
        let population = Population::new("api", share);
        for (key, arm) in &after {
            assert_eq!(
                *arm,
                population.arm(key),
                "at once, on every worker: {share} {key}"
            );
            let moved = before[key] != *arm;
            assert!(
                !moved || *arm != forbidden,
                "{key} moved to {arm} at {share}"
            );
        }
        before = after;
    }
}

#[tokio::test]
async fn splits_side_by_side_assign_independently_unless_they_share_a_salt() {
    let splits = format!(
        "  first: {{legacy: legacy, new: new, share: 50%, {BY_HEADER}}}
  second: {{legacy: legacy, new: new, share: 50%, {BY_HEADER}}}
  twin: {{legacy: legacy, new: new, share: 50%, salt: first, {BY_HEADER}}}"
    );
    let routes = "  - {path_prefix: /first, split: first}
  - {path_prefix: /second, split: second}
  - {path_prefix: /twin, split: twin}";
    let scene = Scene::start(&splits, routes).await;
    let sessions = sessions(1000);
    let first = scene.arms("/first", &sessions).await;
    let second = scene.arms("/second/deeper", &sessions).await;
    let both = sessions
        .iter()
        .filter(|key| first[*key] == Arm::New && second[*key] == Arm::New)
        .count();
    // A quarter, give or take four standard deviations.
    assert!((195..=305).contains(&both), "{both} of 1000");
    let half = sessions[..200].to_vec();
    let twin = scene.arms("/twin", &half).await;
    assert!(half.iter().all(|key| twin[key] == first[key]));
}

#[tokio::test]
async fn a_session_without_a_key_is_given_a_cookie_and_keeps_its_arm_by_it() {
    let certificate = Certificate::new();
    let site = Site::new().certified(&certificate);
    let split = "  api: {legacy: legacy, new: new, share: 50%, key: [{cookie: session}], \
                 keyless: {issue_cookie: {}}}";
    let scene = Scene::start_on(site, PLAIN_AND_TLS, split, "  - {split: api}").await;
    let mut client = scene.proxy.client().await;
    let mut seen = BTreeMap::new();
    for _ in 0..30 {
        let first = client.send(get("/", "")).await;
        let issued = first.field("set-cookie").expect("a cookie is issued");
        for attribute in [
            "; Path=/",
            "; HttpOnly",
            "; SameSite=Lax",
            "; Max-Age=31536000",
        ] {
            assert!(issued.contains(attribute), "{issued}");
        }
        assert!(!issued.contains("Secure"), "{issued}");
        assert_eq!(first.field("cache-control"), Some("private"));
        let cookie = issued.split(';').next().expect("a name and a value");
        let arm = first.served_by().expect("one of them answered");
        for _ in 0..3 {
            let mut again = get("/", "");
            let value = format!("other=1; {cookie}")
                .parse()
                .expect("it is a cookie");
            again.headers_mut().insert("cookie", value);
            let answer = client.send(again).await;
            assert_eq!(answer.served_by(), Some(arm), "{cookie}");
            assert_eq!(answer.field("set-cookie"), None, "one is enough");
            assert_eq!(answer.field("cache-control"), None);
        }
        seen.insert(cookie.to_owned(), arm.to_owned());
    }
    assert_eq!(seen.len(), 30, "no two sessions share a cookie");
    assert!(seen.values().any(|arm| arm == "new") && seen.values().any(|arm| arm == "legacy"));

    let secure = scene.proxy.addresses()[1];
    let mut client = Client::tls(secure, &certificate, &["http/1.1"]).await;
    let issued = client.send(get("/", "")).await;
    let issued = issued.field("set-cookie").expect("a cookie is issued");
    assert!(issued.contains("; Secure"), "{issued}");
}

#[tokio::test]
async fn pins_hold_at_share_zero_and_yield_to_an_emergency() {
    let split = format!(
        "  api: {{legacy: legacy, new: new, {BY_HEADER}, pins: {{keys: {{alice: new}}, file: pins.txt}}, \
         pin_secret: 0123456789abcdef0123456789abcdef}}"
    );
    let site = Site::new().file("pins.txt", "# testers\nbob new\ncarol legacy\n");
    let listeners = "[{address: 127.0.0.1:0}]";
    let scene = Scene::start_on(site, listeners, &split, "  - {split: api}").await;
    let proxy = &scene.proxy;
    let words = [
        "pin",
        "--config",
        "cutover.yaml",
        "--split",
        "api",
        "--arm",
        "new",
    ];
    let pin = proxy.cutover(&words).await;
    assert!(pin.status.success(), "{pin:?}");
    let token = String::from_utf8(pin.stdout).expect("tokens are ASCII");
    let with_token = || {
        Request::get("/")
            .header("x-user", "dave")
            .header("cutover-pin", token.trim())
            .body(Full::new(Bytes::new()))
            .expect("it is a valid request")
    };
    let mut client = proxy.client().await;
    let expected = [
        ("alice", "new"),
        ("bob", "new"),
        ("carol", "legacy"),
        ("dave", "legacy"),
    ];
    for (key, arm) in expected {
        assert_eq!(client.get("/", key).await.served_by(), Some(arm), "{key}");
    }
    assert_eq!(client.send(with_token()).await.served_by(), Some("new"));
    let overridden = [("split", "api"), ("evidence", "false")];
    proxy
        .counts(4.0, "cutover_requests_total", &overridden)
        .await;

    let body = r#"{"reason": "orders are lost"}"#;
    assert_eq!(proxy.change("/api/v1/emergency", body).await.status, 200);
    for (key, _) in expected {
        assert_eq!(
            client.get("/", key).await.served_by(),
            Some("legacy"),
            "{key}"
        );
    }
    assert_eq!(client.send(with_token()).await.served_by(), Some("legacy"));
}

#[tokio::test]
async fn the_explanation_of_a_key_is_what_happens_to_it() {
    let split = format!("  api: {{legacy: legacy, new: new, share: 30%, {BY_HEADER}}}");
    let scene = Scene::start(&split, "  - {split: api}").await;
    for arm in Arm::ALL {
        let key = keys("api", "30%", arm)
            .next()
            .expect("there are enough of both");
        let served = scene.proxy.client().await.get("/", &key).await;
        assert_eq!(served.served_by(), Some(arm.as_str()));
        let words = ["explain", "--split", "api", "--key", &key, "-o", "json"];
        let running = scene.proxy.cutover(&words).await;
        let offline = [&words[..], &["--config", "cutover.yaml"]].concat();
        let offline = scene.proxy.cutover(&offline).await;
        for output in [running, offline] {
            assert!(output.status.success(), "{output:?}");
            let explained: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
            assert_eq!(explained["arm"], arm.as_str(), "{explained}");
            assert_eq!(explained["cause"], "hash", "{explained}");
            assert!(explained["bucket"].is_u64(), "{explained}");
        }
    }
}
