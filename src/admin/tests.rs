//! The service over a real socket, with a stand-in for the single writer behind it.

use std::net::SocketAddr;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::config::model::Role;
use crate::control::command::{Author, Command, Order, Outcome};
use crate::control::denied::Denied;
use crate::control::protocol::{ConfigStatus, Message, Refused, Status};
use crate::control::recorder::Export;
use crate::handover::upgrade::Upgrades;
use crate::policy::address_key::{Addresses, TypedKey};
use crate::policy::assign::{Explanation, Question, explain};
use crate::policy::key::Salt;
use crate::policy::share::Share;

use super::*;

mod changes;

/// An admin service on a port of its own, and what reached the control plane behind it.
struct Service {
    address: SocketAddr,
    readiness: Readiness,
    orders: mpsc::UnboundedReceiver<Order>,
}

impl Service {
    async fn open() -> Self {
        Self::with_tokens(Vec::new()).await
    }

    async fn guarded() -> Self {
        let token = |name: &str, role, secret: &str| Token {
            name: name.to_owned(),
            role,
            secret: secret.to_owned(),
        };
        Self::with_tokens(vec![
            token("dashboard", Role::Read, "look"),
            token("alice", Role::Operate, "touch"),
        ])
        .await
    }

    async fn with_tokens(tokens: Vec<Token>) -> Self {
        let (control, messages) = ControlHandle::channel();
        let (seen, orders) = mpsc::unbounded_channel();
        tokio::spawn(stand_in(messages, seen));
        let readiness = Readiness::starting();
        let state = AdminState {
            control,
            tokens: tokens.into(),
            readiness: readiness.clone(),
            upgrades: Upgrades::channel().0,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, service(state)).await });
        Self {
            address,
            readiness,
            orders,
        }
    }

    fn get(&self, path: &str) -> Asking {
        self.asking(Method::GET, path)
    }

    /// A change with the right content type.
    fn post(&self, path: &str, body: &Value) -> Asking {
        let mut asking = self.asking(Method::POST, path);
        asking.body = body.to_string();
        asking.with("content-type", "application/json")
    }

    fn asking(&self, method: Method, path: &str) -> Asking {
        Asking {
            address: self.address,
            method,
            path: path.to_owned(),
            headers: vec![("host", self.address.to_string())],
            body: String::new(),
        }
    }

    /// What reached the control plane by now.
    fn carried_out(&mut self) -> Option<Order> {
        self.orders.try_recv().ok()
    }
}

/// Answers as the single writer would: the split's name chooses the refusal.
async fn stand_in(mut messages: mpsc::Receiver<Message>, seen: mpsc::UnboundedSender<Order>) {
    while let Some(message) = messages.recv().await {
        match message {
            Message::Status { reply } => drop(reply.send(empty_status())),
            Message::Split { split, reply } => {
                drop(reply.send(Err(Refused::NoSuchSplit(format!("no split `{split}`")))));
            }
            Message::Denied { reply } => drop(reply.send(Denied { denied: Vec::new() })),
            Message::Metrics { reply } => drop(reply.send("cutover_up 1\n".to_owned())),
            Message::History { query, reply } => {
                drop(reply.send(Ok(json!(format!("{query:?}")).to_string())));
            }
            Message::Recording { reply, .. } => {
                let pieces = [
                    Bytes::from_static(b"{\"traces\":"),
                    Bytes::from_static(b"[]}"),
                ];
                drop(reply.send(Ok(Export {
                    pieces: pieces.into(),
                })));
            }
            Message::State { reply } => drop(reply.send(Ok("{}".to_owned()))),
            Message::Explain { split, key, reply } => {
                let answer = match split.as_str() {
                    "checkout" => Ok(explain(Question {
                        split: &split,
                        salt: Salt::new(&split),
                        key: TypedKey::new(&key, Addresses::Never),
                        pinned: None,
                        share: Share::ALL,
                        emergency: false,
                    })),
                    _ => Err(Refused::NoSuchSplit(format!("no split `{split}`"))),
                };
                drop(reply.send(answer));
            }
            Message::Command { order, reply } => {
                let split = match &order.command {
                    Command::Change { split, .. } => split.as_str(),
                    _ => "",
                };
                let answer = match split {
                    "unknown" => Err(Refused::NoSuchSplit("the splits are: a".into())),
                    "latched" => Err(Refused::Precondition("resume it first".into())),
                    "moved" => Err(Refused::RevisionMismatch("alice was faster".into())),
                    "broken" => Err(Refused::InvalidConfig("line 1".into())),
                    "unwritable" => Err(Refused::StoreFailed("disk full".into())),
                    _ => Ok(Outcome {
                        sentence: "done".into(),
                        revision: 8,
                        splits: Vec::new(),
                        dry_run: order.proviso.dry_run,
                    }),
                };
                let _ = seen.send(order);
                let _ = reply.send(answer);
            }
            Message::Release { .. } | Message::Resume { .. } | Message::Obey { .. } => {
                unreachable!("the admin API does not ask for this")
            }
        }
    }
}

fn empty_status() -> Status {
    Status {
        version: "1".into(),
        process: 7,
        generation: 3,
        revision: 0,
        started_at: "2026-11-20T00:00:00Z".into(),
        config: ConfigStatus {
            path: "cutover.yaml".into(),
            loaded_at: "2026-11-20T00:00:00Z".into(),
            last_reload_successful: true,
            problems: Vec::new(),
        },
        emergency: false,
        store_healthy: true,
        splits: Vec::new(),
        backends: Vec::new(),
    }
}

struct Asking {
    address: SocketAddr,
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Asking {
    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.retain(|(present, _)| *present != name);
        self.headers.push((name, value.into()));
        self
    }

    fn bearer(self, secret: Option<&str>) -> Self {
        match secret {
            Some(secret) => self.with("authorization", format!("Bearer {secret}")),
            None => self,
        }
    }

    async fn send(self) -> Answer {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder().method(self.method).uri(self.path);
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::from(self.body))).unwrap();
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        let text = body.collect().await.unwrap().to_bytes();
        Answer {
            status: head.status,
            headers: head.headers,
            text: String::from_utf8(text.to_vec()).unwrap(),
        }
    }
}

struct Answer {
    status: StatusCode,
    headers: hyper::HeaderMap,
    text: String,
}

impl Answer {
    fn kind(&self) -> String {
        let body: Value = serde_json::from_str(&self.text).unwrap();
        assert_ne!(body["error"]["message"], "", "an error says what is wrong");
        body["error"]["kind"].as_str().unwrap().to_owned()
    }

    fn header(&self, name: header::HeaderName) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

#[tokio::test]
async fn a_token_opens_what_its_role_allows_and_nothing_more() {
    let mut service = Service::guarded().await;
    for (secret, read, change) in [
        (None, 401, 401),
        (Some("wrong"), 401, 401),
        (Some(""), 401, 401),
        (Some("look"), 200, 403),
        (Some("touch"), 200, 200),
    ] {
        for path in [
            "/metrics",
            "/api/v1/status",
            "/api/v1/explain?split=checkout&key=a",
            "/api/v1/splits/a/recording",
        ] {
            let answer = service.get(path).bearer(secret).send().await;
            assert_eq!(answer.status, read, "GET {path} with {secret:?}");
        }
        let recording = "/api/v1/splits/a/recording";
        for asking in [
            service.post(recording, &json!({"for": "5m"})),
            service.asking(Method::DELETE, recording),
        ] {
            let answer = asking.bearer(secret).send().await;
            assert_eq!(answer.status, change, "with {secret:?}");
            assert_eq!(service.carried_out().is_some(), change == 200);
        }
        let everything = service.get("/api/v1/state").bearer(secret).send().await;
        assert_eq!(everything.status, change, "the state with {secret:?}");
        for path in ["/api/v1/splits/a/rollback", "/api/v1/reload", "/-/reload"] {
            let answer = service.post(path, &json!({})).bearer(secret).send().await;
            assert_eq!(answer.status, change, "POST {path} with {secret:?}");
            assert_eq!(service.carried_out().is_some(), change == 200, "{path}");
        }
    }
}

#[tokio::test]
async fn a_history_is_asked_for_within_bounds() {
    let service = Service::open().await;
    for (query, asked) in [
        ("", "split: None, since: None, limit: 20"),
        (
            "?split=a%20b&limit=1000",
            r#"split: Some("a b"), since: None, limit: 1000"#,
        ),
        ("?since=90m", "since: Some(Ago(5400s))"),
        (
            "?since=1970-01-01T00:00:01Z",
            "since: Some(At(Timestamp(1000)))",
        ),
    ] {
        let answer = service.get(&format!("/api/v1/history{query}")).send().await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.text);
        let text: String = serde_json::from_str(&answer.text).unwrap();
        assert!(text.contains(asked), "{query}: {text}");
        assert_eq!(answer.header(header::CONTENT_TYPE), "application/json");
    }
    for query in [
        "?limit=0",
        "?limit=1001",
        "?limit=-1",
        "?since=soon",
        "?splt=a",
    ] {
        let answer = service.get(&format!("/api/v1/history{query}")).send().await;
        assert_eq!(answer.kind(), "bad_request", "{query}");
    }
}

#[tokio::test]
async fn an_unknown_bearer_learns_nothing_but_the_scheme() {
    let service = Service::guarded().await;
    for path in ["/api/v1/status", "/api/v1/splits/a", "/nowhere"] {
        let answer = service.get(path).send().await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert_eq!(
            answer.header(header::WWW_AUTHENTICATE),
            "Bearer realm=\"cutover\""
        );
        assert_eq!(answer.kind(), "unauthenticated");
    }
}

#[tokio::test]
async fn probes_need_no_token_and_any_host_may_ask() {
    let service = Service::guarded().await;
    let live = service
        .get("/livez")
        .with("host", "pod.example")
        .send()
        .await;
    assert_eq!(live.status, StatusCode::OK);
    let ready = service.get("/readyz").send().await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn readiness_is_503_before_the_first_snapshot_and_while_draining() {
    let service = Service::open().await;
    for (stage, status, word) in [
        (Stage::Starting, 503, "starting\n"),
        (Stage::Ready, 200, "ready\n"),
        (Stage::Draining, 503, "draining\n"),
    ] {
        service.readiness.advance(stage);
        let answer = service.get("/readyz").send().await;
        assert_eq!(
            (answer.status.as_u16(), answer.text.as_str()),
            (status, word)
        );
        assert_eq!(service.get("/livez").send().await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn each_refusal_has_its_status_and_its_kind() {
    let service = Service::open().await;
    for (split, status, kind) in [
        ("unknown", 404, "no_such_split"),
        ("latched", 409, "precondition"),
        ("moved", 409, "revision_mismatch"),
        ("broken", 422, "invalid_config"),
        ("unwritable", 503, "store_failed"),
    ] {
        let path = format!("/api/v1/splits/{split}/rollback");
        let answer = service.post(&path, &json!({})).send().await;
        assert_eq!(
            (answer.status.as_u16(), answer.kind().as_str()),
            (status, kind)
        );
    }
    let unknown = service.get("/api/v1/splits/nope").send().await;
    assert_eq!(
        (unknown.status.as_u16(), unknown.kind().as_str()),
        (404, "no_such_split")
    );
    let unknown = service.get("/api/v1/explain?split=nope&key=a").send().await;
    assert_eq!(
        (unknown.status.as_u16(), unknown.kind().as_str()),
        (404, "no_such_split")
    );
}

#[tokio::test]
async fn a_change_that_a_web_page_could_forge_is_refused() {
    let mut service = Service::open().await;
    for content_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonx",
        "",
    ] {
        let asking = service.post("/api/v1/emergency", &json!({"reason": "forged"}));
        let answer = asking.with("content-type", content_type).send().await;
        assert_eq!(
            answer.status,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "{content_type}"
        );
        assert_eq!(answer.kind(), "content_type");
    }
    let bare = service.asking(Method::POST, "/-/reload").send().await;
    assert_eq!(bare.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let preflight = service
        .asking(Method::OPTIONS, "/api/v1/emergency")
        .send()
        .await;
    assert_eq!(preflight.status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(
        !preflight
            .headers
            .contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN)
    );
    assert_eq!(service.carried_out(), None);

    let honest = service.post("/-/reload", &json!({}));
    let honest = honest.with("content-type", "Application/JSON; charset=utf-8");
    assert_eq!(honest.send().await.status, StatusCode::OK);
}

#[tokio::test]
async fn without_tokens_a_foreign_host_is_refused_and_with_them_it_is_not() {
    let service = Service::open().await;
    for (host, status) in [
        ("rebound.example:9900", 403),
        ("127.0.0.1.rebound.example", 403),
        ("localhost:9900", 200),
        ("[::1]:9900", 200),
    ] {
        let answer = service
            .get("/api/v1/status")
            .with("host", host)
            .send()
            .await;
        assert_eq!(answer.status, status, "{host}");
    }
    let guarded = Service::guarded().await;
    let asking = guarded
        .get("/api/v1/status")
        .with("host", "cutover.internal");
    assert_eq!(
        asking.bearer(Some("look")).send().await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn what_cannot_be_understood_changes_nothing_and_says_so_in_json() {
    let mut service = Service::open().await;
    let share = "/api/v1/splits/a/share";
    for (path, body) in [
        (share, json!({"share": "25%", "overide": true})),
        (share, json!({"share": "25"})),
        (share, json!({"share": 25})),
        (share, json!({"share": "101%"})),
        (share, json!({})),
        ("/api/v1/splits/a/rollback", json!({"reason": "two\nlines"})),
        (
            "/api/v1/splits/a/rollback",
            json!({"reason": "x".repeat(2000)}),
        ),
        ("/api/v1/splits/a/rollback", json!({"to": "50%"})),
        ("/api/v1/splits/a/stage", json!({})),
        ("/api/v1/splits/a/stage", json!({"stage": -1})),
        ("/api/v1/splits/a/promote", json!({"dry_runn": true})),
        ("/api/v1/splits/a/pause", json!({"expected_revision": "7"})),
        ("/api/v1/splits/a/approve", json!({"share": "25%"})),
        ("/api/v1/splits/a/signals/lag", json!({"value": null})),
        ("/api/v1/splits/a/signals/lag", json!({"value": "12"})),
        ("/api/v1/splits/a/signals/%ff", json!({"value": 12})),
        ("/api/v1/emergency", json!({"reason": "  "})),
        ("/api/v1/emergency", json!([])),
    ] {
        let answer = service.post(path, &body).send().await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path} {body}");
        assert_eq!(answer.kind(), "bad_request");
    }
    for path in [
        "/api/v1/explain",
        "/api/v1/explain?split=checkout&key=",
        "/api/v1/splits/%ff",
    ] {
        let answer = service.get(path).send().await;
        assert_eq!(answer.kind(), "bad_request", "{path}");
    }
    assert_eq!(service.carried_out(), None);
}

#[tokio::test]
async fn an_overlong_body_is_413_an_unknown_path_404_and_a_wrong_method_405() {
    let service = Service::open().await;
    let long = json!({"reason": "x".repeat(64 * 1024)});
    let answer = service.post("/api/v1/reload", &long).send().await;
    assert_eq!(
        (answer.status.as_u16(), answer.kind().as_str()),
        (413, "body_too_large")
    );
    let answer = service.get("/api/v2/status").send().await;
    assert_eq!(
        (answer.status.as_u16(), answer.kind().as_str()),
        (404, "not_found")
    );
    for (asking, allowed) in [
        (service.get("/api/v1/reload"), "POST"),
        (service.post("/api/v1/status", &json!({})), "GET,HEAD"),
        (service.post("/livez", &json!({})), "GET,HEAD"),
    ] {
        let answer = asking.send().await;
        assert_eq!(
            (answer.status.as_u16(), answer.kind().as_str()),
            (405, "method_not_allowed")
        );
        assert_eq!(answer.header(header::ALLOW), allowed);
    }
}

#[tokio::test]
async fn a_scrape_is_text_and_a_status_is_json_that_no_cache_keeps() {
    let service = Service::open().await;
    let scrape = service.get("/metrics").send().await;
    assert_eq!(
        scrape.header(header::CONTENT_TYPE),
        "text/plain; version=0.0.4; charset=utf-8"
    );
    assert_eq!(scrape.text, "cutover_up 1\n");
    let status = service.get("/api/v1/status").send().await;
    assert_eq!(status.header(header::CACHE_CONTROL), "no-store");
    let read: Status = serde_json::from_str(&status.text).unwrap();
    assert_eq!(read.generation, 3);
}

#[tokio::test]
async fn an_explanation_is_of_the_key_as_it_was_before_it_was_escaped() {
    let service = Service::open().await;
    let path = "/api/v1/explain?split=checkout&key=a%20b%2B%26";
    let answer = service.get(path).send().await;
    let explanation: Explanation = serde_json::from_str(&answer.text).unwrap();
    assert_eq!(
        (explanation.split.as_str(), explanation.key.as_str()),
        ("checkout", "a b+&")
    );
}

#[tokio::test]
async fn a_stopped_control_plane_is_503() {
    let (control, messages) = ControlHandle::channel();
    drop(messages);
    let mut service = Service::open().await;
    let state = AdminState {
        control,
        tokens: Arc::new([]),
        readiness: Readiness::starting(),
        upgrades: Upgrades::channel().0,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    service.address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, super::service(state)).await });
    let answer = service.get("/api/v1/status").send().await;
    assert_eq!(
        (answer.status.as_u16(), answer.kind().as_str()),
        (503, "stopping")
    );
}
