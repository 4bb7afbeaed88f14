//! What operators and their scripts are told, over the real binary's admin port.

use std::net::SocketAddr;
use std::process::{Command, Output};

use bytes::Bytes;
use cutover::policy::arm::Arm;
use http::Request;
use http_body_util::Full;
use serde_json::Value;

use crate::harness::client::{Answer, Client};
use crate::harness::keys::keys;
use crate::harness::migration;
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::{Refusing, Upstream};

/// Everything that can be read, and everything that changes something.
const READABLE: [&str; 5] = [
    "/metrics",
    "/api/v1/status",
    "/api/v1/splits/api",
    "/api/v1/explain?split=api&key=alice",
    "/api/v1/history",
];
const CHANGES: [(&str, &str); 6] = [
    ("/api/v1/splits/api/share", r#"{"share": "20%"}"#),
    ("/api/v1/splits/api/rollback", ""),
    ("/api/v1/splits/api/resume", ""),
    ("/api/v1/emergency", r#"{"reason": "a drill"}"#),
    ("/api/v1/emergency", r#"{"clear": true}"#),
    ("/api/v1/reload", ""),
];

/// A beginning of a configuration whose admin API knows a reader and an operator.
fn with_tokens(address: &str) -> String {
    format!(
        "listeners: [{{address: '127.0.0.1:0'}}]
admin:
  address: '{address}'
  tokens:
    - {{name: dashboard, role: read, token: reads}}
    - {{name: release-bot, role: operate, token: operates}}
state: {{directory: state}}
workers: 2
"
    )
}

/// A split whose share is the operator's.
async fn start(site: Site, legacy: &Upstream, new: &Upstream) -> Proxy {
    let configuration = migration(legacy.address(), new.address(), "rollback: off");
    site.start(&configuration).await
}

async fn ask(admin: SocketAddr, token: Option<&str>, path: &str, change: Option<&str>) -> Answer {
    let method = if change.is_some() { "POST" } else { "GET" };
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", admin.to_string())
        .header("content-type", "application/json");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let body = Bytes::copy_from_slice(change.unwrap_or_default().as_bytes());
    let request = request.body(Full::new(body)).expect("a valid request");
    Client::http1(admin).await.send(request).await
}

fn message(answer: &Answer) -> String {
    let body: Value = serde_json::from_slice(&answer.body).expect("errors are JSON");
    let message = body["error"]["message"].as_str();
    message.expect("an error has a message").to_owned()
}

fn said(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("it speaks UTF-8")
}

fn json(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", said(output));
    serde_json::from_slice(&output.stdout).expect("what -o json prints")
}

#[tokio::test]
async fn where_there_are_tokens_a_stranger_sees_the_probes_alone() {
    let (legacy, new) = (Upstream::ok("legacy"), Upstream::ok("new"));
    let site = Site::new().beginning(&with_tokens("127.0.0.1:0"));
    let proxy = start(site, &legacy, &new).await;
    for token in [None, Some("guessed"), Some("")] {
        for path in READABLE {
            let answer = ask(proxy.admin(), token, path, None).await;
            assert_eq!(answer.status, 401, "{path} with {token:?}");
        }
        for (path, change) in CHANGES {
            let answer = ask(proxy.admin(), token, path, Some(change)).await;
            assert_eq!(answer.status, 401, "{path} with {token:?}");
        }
        for path in ["/livez", "/readyz"] {
            let answer = ask(proxy.admin(), token, path, None).await;
            assert_eq!(answer.status, 200, "{path} with {token:?}");
        }
    }
}

#[tokio::test]
async fn a_reader_reads_and_an_operator_changes_in_its_own_name() {
    let (legacy, new) = (Upstream::ok("legacy"), Upstream::ok("new"));
    let site = Site::new().beginning(&with_tokens("127.0.0.1:0"));
    let proxy = start(site, &legacy, &new).await;
    let admin = proxy.admin();
    let split = async || {
        let answer = ask(admin, Some("reads"), "/api/v1/splits/api", None).await;
        serde_json::from_slice::<Value>(&answer.body).expect("a split")
    };
    for path in READABLE {
        for token in ["reads", "operates"] {
            let answer = ask(admin, Some(token), path, None).await;
            assert_eq!(answer.status, 200, "{path}, {token}");
        }
    }
    let before = split().await;
    for (path, change) in CHANGES {
        let answer = ask(admin, Some("reads"), path, Some(change)).await;
        assert_eq!(answer.status, 403, "{path}");
        assert!(message(&answer).contains("operate"), "{path}");
    }
    assert_eq!(split().await, before, "a reader changes nothing");
    for (path, change) in CHANGES {
        let answer = ask(admin, Some("operates"), path, Some(change)).await;
        assert_eq!(answer.status, 200, "{path}: {}", message(&answer));
    }
    let change = r#"{"share": "30%", "reason": "week 2"}"#;
    let path = "/api/v1/splits/api/share";
    let answer = ask(admin, Some("operates"), path, Some(change)).await;
    assert_eq!(answer.status, 200);
    let decision = &split().await["last_decision"];
    assert_eq!(decision["actor"], "release-bot");
    assert_eq!(decision["reason"], "week 2");

    let words = ["set", "api", "40%", "--token"];
    let refused = proxy.cutover(&[&words[..], &["reads"]].concat()).await;
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    let set = proxy.cutover(&[&words[..], &["operates"]].concat()).await;
    assert_eq!(set.status.code(), Some(0), "{}", said(&set));
    assert_eq!(split().await["share"], "40%");
}

#[tokio::test]
async fn an_address_that_others_reach_needs_a_token() {
    let (legacy, new) = (Upstream::ok("legacy"), Upstream::ok("new"));
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let open =
            format!("listeners: [{{address: '127.0.0.1:0'}}]\nadmin: {{address: '{address}'}}\n");
        let site = Site::new().beginning(&open);
        site.configure(&migration(legacy.address(), new.address(), "share: 1%"));
        let output = site.refusal(&[]).await;
        assert_eq!(output.status.code(), Some(3), "{}", said(&output));
        assert!(said(&output).contains("admin"), "{}", said(&output));
        assert!(said(&output).contains("token"), "{}", said(&output));
    }
    let site = Site::new().beginning(&with_tokens("0.0.0.0:0"));
    let proxy = start(site, &legacy, &new).await;
    let admin = SocketAddr::from(([127, 0, 0, 1], proxy.admin().port()));
    let status = async |token| ask(admin, token, "/api/v1/status", None).await.status;
    assert_eq!(status(Some("reads")).await, 200);
    assert_eq!(status(None).await, 401);
}

#[tokio::test]
async fn without_tokens_a_page_in_a_browser_gets_nothing() {
    let (legacy, new) = (Upstream::ok("legacy"), Upstream::ok("new"));
    let proxy = start(Site::new(), &legacy, &new).await;
    let admin = proxy.admin();
    let send = async |request: http::request::Builder, body: &'static str| {
        let request = request.body(Full::new(Bytes::from_static(body.as_bytes())));
        let request = request.expect("a valid request");
        Client::http1(admin).await.send(request).await.status
    };
    // A name that a foreign site has made to point here.
    let rebound = Request::get("/api/v1/status").header("host", "evil.example:9900");
    assert_eq!(send(rebound, "").await, 403);
    // What a form can send to another site without asking.
    let form = Request::post("/api/v1/splits/api/rollback").header("host", admin.to_string());
    let form = form.header("content-type", "text/plain");
    assert_eq!(send(form, "{}").await, 415);
    assert_eq!(proxy.split("api").await.last_decision, None);
}

#[tokio::test]
async fn every_command_answers_in_json_what_the_instance_says() {
    let (legacy, new) = (Upstream::ok("legacy"), Upstream::ok("new"));
    let proxy = start(Site::new(), &legacy, &new).await;
    let key = keys("api", "50%", Arm::New).next().expect("there is one");
    for (words, word) in [
        (
            &["set", "api", "50%", "--reason", "week 2"] as &[&str],
            "50%",
        ),
        (&["rollback", "api"], "Rolled back"),
        (&["resume", "api"], "Resumed"),
        (&["emergency", "--reason", "orders are lost"], "Emergency"),
        (&["emergency", "--clear"], "cleared"),
        (&["emergency", "api", "--reason", "again"], "Emergency"),
        (&["emergency", "api", "--clear"], "cleared"),
        (&["reload"], "loaded"),
    ] {
        let answer = json(&proxy.cutover(&[words, &["-o", "json"]].concat()).await);
        let sentence = answer["sentence"].as_str().expect("a sentence");
        assert!(sentence.contains(word), "{words:?}: {sentence}");
        if words[0] != "reload" {
            let decision = proxy.split("api").await.last_decision;
            assert_eq!(decision.expect("it is one").sentence, sentence);
        }
    }
    let status = json(&proxy.cutover(&["status", "-o", "json"]).await);
    assert_eq!(status["splits"][0]["name"], "api");
    assert_eq!(status["splits"][0]["share"], "50%");
    assert_eq!(status["backends"][1]["endpoints"][0]["health"], "healthy");
    let words = ["explain", "--split", "api", "--key", &key, "-o", "json"];
    let explained = json(&proxy.cutover(&words).await);
    assert_eq!(explained["arm"], "new");
    assert_eq!(explained["cause"], "hash");
    assert!(explained["bucket"].as_u64().expect("a number") < 5_000);
    let answer = proxy.client().await.get("/", &key).await;
    assert_eq!(answer.served_by(), Some("new"), "as it was explained");
}

#[tokio::test]
async fn exit_codes_tell_scripts_what_kind_of_failure_it_was() {
    let (legacy, new) = (Upstream::ok("legacy"), Upstream::ok("new"));
    let settings = "share: 50%, rollback: off";
    let configuration = migration(legacy.address(), new.address(), settings);
    let proxy = Site::new().start(&configuration).await;
    for (words, code, word) in [
        (&["status"] as &[&str], 0, ""),
        (&["set", "checkout", "10%"], 2, "the splits are: api"),
        (&["explain", "--split", "checkout", "--key", "a"], 2, "api"),
        (&["set", "api", "1000%"], 2, "1000%"),
        (&["set", "api", "10%"], 5, "--override"),
        (&["resume", "api"], 5, "neither rolled back nor paused"),
    ] {
        let output = proxy.cutover(words).await;
        assert_eq!(output.status.code(), Some(code), "{words:?}");
        assert!(said(&output).contains(word), "{words:?}: {}", said(&output));
        assert_eq!(output.stdout.is_empty(), code != 0, "{words:?}");
    }
    let nobody = Refusing::new();
    let unreachable = Command::new(env!("CARGO_BIN_EXE_cutover"))
        .args(["status", "--admin", &format!("http://{}", nobody.address())])
        .output()
        .expect("the binary was built for this test");
    assert_eq!(unreachable.status.code(), Some(4));
    assert!(said(&unreachable).contains("cannot reach the admin API"));
}

#[tokio::test]
async fn a_smoke_test_fails_where_an_arm_is_dead() {
    let legacy = Upstream::ok("legacy");
    let (new, dead) = (Upstream::ok("new"), Refusing::new());
    let site = Site::new();
    for (address, code) in [(new.address(), 0), (dead.address(), 1)] {
        site.configure(&migration(legacy.address(), address, "share: 50%"));
        let output = Command::new(env!("CARGO_BIN_EXE_cutover"))
            .args(["test", "-o", "json", "--config"])
            .arg(site.configuration_path())
            .output()
            .expect("the binary was built for this test");
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        let trials: Value = serde_json::from_slice(&output.stdout).expect("JSON all the same");
        let text = trials.to_string();
        assert!(text.contains(&address.to_string()), "{text}");
    }
}
