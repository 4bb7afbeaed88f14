use std::convert::Infallible;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Empty;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::*;
use crate::config::model;
use crate::config::model::{Balance, PoolLimits, Protocol, Timeouts};

const LONG: Duration = Duration::from_secs(10);

/// A server whose answer a test chooses; status 0 is none at all.
struct Server {
    address: String,
    status: AtomicU16,
    asked: AtomicUsize,
}

impl Server {
    async fn start() -> Arc<Server> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Arc::new(Server {
            address: listener.local_addr().unwrap().to_string(),
            status: AtomicU16::new(200),
            asked: AtomicUsize::new(0),
        });
        let serving = Arc::clone(&server);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let server = Arc::clone(&serving);
                let service = service_fn(move |request| {
                    let server = Arc::clone(&server);
                    async move { Ok::<_, Infallible>(server.answer(&request).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(tcp), service);
                tokio::spawn(connection);
            }
        });
        server
    }

    async fn answer(&self, request: &Request<hyper::body::Incoming>) -> Response<Empty<Bytes>> {
        assert_eq!(request.headers()[header::HOST], self.address);
        self.asked.fetch_add(1, Ordering::Relaxed);
        let status = match (request.uri().path(), self.status.load(Ordering::Relaxed)) {
            (_, 0) => std::future::pending().await,
            ("/health", status) => status,
            _ => 404,
        };
        Response::builder()
            .status(status)
            .body(Empty::new())
            .unwrap()
    }

    fn answers(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }

    async fn is_asked_again(&self) {
        let before = self.asked.load(Ordering::Relaxed);
        eventually(|| self.asked.load(Ordering::Relaxed) > before).await;
    }
}

async fn eventually(condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(LONG, holds).await.unwrap();
}

fn check() -> HealthCheck {
    HealthCheck {
        path: "/health".to_owned(),
        interval: Duration::from_millis(2),
        timeout: Duration::from_secs(1),
        healthy_after: 2,
        unhealthy_after: 3,
    }
}

fn settings(address: &str, health_check: Option<HealthCheck>) -> model::Backend {
    model::Backend {
        name: "api".to_owned(),
        endpoints: vec![address.to_owned()],
        balance: Balance::LeastPending,
        protocol: Protocol::Http1,
        tls: None,
        timeouts: Timeouts {
            connect: Duration::from_secs(1),
            first_byte: None,
            body_idle: LONG,
            upgrade_idle: LONG,
            total: None,
        },
        pool: PoolLimits {
            max_connections: 1_024,
            max_idle: 128,
            idle_timeout: Duration::from_secs(4),
            max_lifetime: LONG,
            warm: 0,
        },
        health_check,
        ejection: None,
    }
}

fn backend(address: &str, health_check: Option<HealthCheck>) -> Arc<Backend> {
    Arc::new(Backend::new(settings(address, health_check), None).unwrap())
}

/// `before` after a reload with other checks.
fn reloaded(before: &Backend, health_check: Option<HealthCheck>) -> Arc<Backend> {
    let settings = settings(before.endpoints[0].address(), health_check);
    Arc::new(Backend::new(settings, Some(before)).unwrap())
}

async fn ask(address: &str, check: HealthCheck) -> Result<(), CheckFailure> {
    let backend = backend(address, Some(check.clone()));
    Subject::new(&backend, &backend.endpoints[0])
        .ask(&check)
        .await
}

#[test]
fn only_checks_in_a_row_turn_the_verdict() {
    let mut progress = Progress::new(true);
    let mut turns = |passed| progress.turns(Passed(passed), &check());
    for passed in [false, false, true, false, false] {
        assert!(!turns(passed));
    }
    assert!(turns(false), "third failure in a row");
    for passed in [false, true, false, true] {
        assert!(!turns(passed));
    }
    assert!(turns(true), "second pass in a row");
}

#[tokio::test]
async fn an_endpoint_goes_out_when_its_checks_fail_and_comes_back_when_they_pass() {
    let server = Server::start().await;
    let backend = backend(&server.address, Some(check()));
    let mut checks = HealthChecks::default();
    checks.reconcile(&[Arc::clone(&backend)]);
    server.is_asked_again().await;
    assert!(backend.endpoints[0].passes_checks());
    server.answers(503);
    eventually(|| !backend.endpoints[0].passes_checks()).await;
    server.answers(204);
    eventually(|| backend.endpoints[0].passes_checks()).await;
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_goes_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let backend = backend(&address, Some(check()));
    assert!(backend.endpoints[0].passes_checks(), "presumed healthy");
    let mut checks = HealthChecks::default();
    checks.reconcile(&[Arc::clone(&backend)]);
    eventually(|| !backend.endpoints[0].passes_checks()).await;
}

#[tokio::test]
async fn successes_and_redirects_pass_and_everything_else_fails() {
    let server = Server::start().await;
    for (status, passes) in [(200, true), (302, true), (404, false), (500, false)] {
        server.answers(status);
        let result = ask(&server.address, check()).await;
        assert_eq!(result.is_ok(), passes, "{status}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_fails_in_time() {
    let server = Server::start().await;
    server.answers(0);
    let impatient = HealthCheck {
        timeout: Duration::from_millis(20),
        ..check()
    };
    let result = ask(&server.address, impatient).await;
    assert!(
        matches!(result, Err(CheckFailure::Timeout(_))),
        "{result:?}"
    );
}

#[tokio::test]
async fn a_path_that_cannot_be_asked_for_fails_without_a_panic() {
    let server = Server::start().await;
    let odd = HealthCheck {
        path: "/a b\r\n".to_owned(),
        ..check()
    };
    let result = ask(&server.address, odd).await;
    assert!(
        matches!(result, Err(CheckFailure::Answer(ProbeFailure::Request(_)))),
        "{result:?}"
    );
}

#[tokio::test]
async fn a_reload_keeps_the_checks_that_did_not_change() {
    let server = Server::start().await;
    let before = backend(&server.address, Some(check()));
    let mut checks = HealthChecks::default();
    checks.reconcile(&[Arc::clone(&before)]);
    let task = |checks: &HealthChecks| checks.running.values().next().map(|it| it.task.id());
    let first = task(&checks);
    checks.reconcile(&[reloaded(&before, Some(check()))]);
    assert_eq!(task(&checks), first);
    let faster = HealthCheck {
        interval: Duration::from_millis(1),
        ..check()
    };
    checks.reconcile(&[reloaded(&before, Some(faster))]);
    assert_ne!(task(&checks), first);
    assert_eq!(checks.running.len(), 1);
}

#[tokio::test]
async fn an_endpoint_whose_checks_are_dropped_is_healthy_again() {
    let server = Server::start().await;
    server.answers(500);
    let before = backend(&server.address, Some(check()));
    let mut checks = HealthChecks::default();
    checks.reconcile(&[Arc::clone(&before)]);
    eventually(|| !before.endpoints[0].passes_checks()).await;
    checks.reconcile(&[reloaded(&before, None)]);
    eventually(|| before.endpoints[0].passes_checks()).await;
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_asked_no_more() {
    let server = Server::start().await;
    let mut checks = HealthChecks::default();
    checks.reconcile(&[backend(&server.address, Some(check()))]);
    server.is_asked_again().await;
    let task = checks.running.values().next().unwrap().task.abort_handle();
    checks.reconcile(&[]);
    eventually(|| task.is_finished()).await;
}

#[tokio::test]
async fn without_checks_an_endpoint_is_reachable_if_somebody_can_connect() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let backend = backend(&address, None);
    assert!(backend.endpoints[0].is_reachable(), "nobody has tried yet");
    let mut checks = HealthChecks::default();
    checks.reconcile(&[Arc::clone(&backend)]);
    eventually(|| !backend.endpoints[0].is_reachable()).await;
    assert!(
        backend.endpoints[0].passes_checks(),
        "one refused connection keeps no request away"
    );
    let _listener = TcpListener::bind(&address).await.unwrap();
    eventually(|| backend.endpoints[0].is_reachable()).await;
}
