use std::path::Path;

use arc_swap::ArcSwap;
use http::StatusCode;
use http_body_util::{BodyExt, Empty};
use tower::ServiceExt;

use super::*;
use crate::clock::Clock;
use crate::config;
use crate::message::Name;
use crate::snapshot::registry::Registry;
use crate::snapshot::{Published, Snapshot};
use crate::telemetry::WorkerId;
use crate::telemetry::edge::{EdgeRefusal, EdgeTally};

/// Workers with their edges, all of one process.
struct Scene {
    published: Published,
    tally: Arc<EdgeTally>,
    shared: Arc<Shared>,
    clock: Clock,
}

/// A snapshot of a configuration whose edge is as written.
fn snapshot(edge: &str) -> Arc<Snapshot> {
    let text = format!(
        "{{listeners: [{{address: '127.0.0.1:0'}}], backends: {{api: {{endpoints: ['127.0.0.1:1']}}}}, \
         routes: [{{backend: api}}], edge: {{{edge}}}}}"
    );
    let config = config::load_text(&text, Path::new("."), &|_| None).unwrap();
    let routing = Registry::new(2).build(&config).unwrap();
    Arc::new(Snapshot {
        generation: 1,
        access: Arc::new(routing.access.clone()),
        denials: Arc::default(),
        routing: Arc::new(routing),
        standings: Box::new([]),
        streams_end: Box::new([]),
    })
}

impl Scene {
    fn new(edge: &str) -> Self {
        Self {
            published: Arc::new(ArcSwap::new(snapshot(edge))),
            tally: Arc::default(),
            shared: Arc::default(),
            clock: Clock::start(),
        }
    }

    fn reload(&self, edge: &str) {
        self.published.store(snapshot(edge));
    }

    fn worker(&self, index: usize) -> Entrance {
        let tally = Arc::clone(&self.tally);
        let id = WorkerId(index);
        let worker = Worker::new(id, 2, self.clock, &self.published, tally);
        Entrance::new(worker, Arc::clone(&self.shared))
    }

    fn refused(&self, refusal: EdgeRefusal) -> u64 {
        self.tally.reading().refused[refusal as usize]
    }
}

/// A client's address and the request it sends.
struct Client<'a> {
    worker: &'a Entrance,
    address: &'a str,
    fields: Vec<(&'a str, &'a str)>,
}

impl Entrance {
    fn client<'a>(&'a self, address: &'a str) -> Client<'a> {
        Client {
            worker: self,
            address,
            fields: Vec::new(),
        }
    }
}

impl<'a> Client<'a> {
    fn with(mut self, name: &'a str, value: &'a str) -> Self {
        self.fields.push((name, value));
        self
    }

    /// Sends the request to a service that answers with the fields that it was sent, each under
    /// its name and `seen-`.
    async fn sends(&self) -> Response<CountedBody> {
        let upstream = async |_: Rc<View>,
                              _: Caller,
                              request: Request<Empty<Bytes>>,
                              _: Option<Rc<Course>>| {
            let mut response = Response::new(StatusCode::OK, ResponseBody::own("hello"));
            for (name, value) in &request.head.fields.into_map() {
                response
                    .fields
                    .append(&named(&format!("seen-{name}")), value.as_bytes());
            }
            response.fields.insert(&X_REQUEST_ID, b"upstream");
            response
        };
        let peer = Peer {
            address: std::net::SocketAddr::new(self.address.parse().unwrap(), 1),
            secure: false,
        };
        let mut request = empty_request();
        for (name, value) in &self.fields {
            request.head.fields.append(&named(name), value.as_bytes());
        }
        let service = self.worker.around(peer, upstream);
        service.oneshot(request).await.unwrap()
    }

    async fn gets(&self) -> StatusCode {
        self.sends().await.status
    }
}

fn fields<'a, B>(response: &'a Response<B>, name: &str) -> Vec<&'a str> {
    let fields = response.fields.iter();
    let fields = fields.filter(|field| field.name.eq_ignore_ascii_case(name.as_bytes()));
    let text = |value| std::str::from_utf8(value).unwrap();
    fields.map(|field| text(field.value)).collect()
}

fn named(name: &str) -> Name {
    Name::from(&name.parse::<http::HeaderName>().unwrap())
}

fn empty_request() -> Request<Empty<Bytes>> {
    Request::from(http::Request::new(Empty::new()))
}

#[tokio::test]
async fn upstream_and_client_see_one_new_id() {
    let scene = Scene::new("");
    let worker = scene.worker(0);
    let response = worker.client("192.0.2.1").sends().await;
    let [id] = fields(&response, "x-request-id")[..] else {
        panic!("one id")
    };
    assert_eq!(id.len(), 32);
    assert_eq!(fields(&response, "seen-x-request-id"), [id]);
    let another = worker.client("192.0.2.1").sends().await;
    assert_ne!(fields(&another, "x-request-id"), [id]);
}

#[tokio::test]
async fn only_a_trusted_proxys_id_is_kept() {
    let scene = Scene::new("trusted_proxies: [10.0.0.0/8]");
    let worker = scene.worker(0);
    let proxy = worker.client("10.0.0.1").with("x-request-id", "kept-1");
    let response = proxy.sends().await;
    assert_eq!(fields(&response, "x-request-id"), ["kept-1"]);
    assert_eq!(fields(&response, "seen-x-request-id"), ["kept-1"]);

    let long = "x".repeat(129);
    for client in [
        worker.client("192.0.2.1").with("x-request-id", "claimed"),
        worker.client("10.0.0.1").with("x-request-id", ""),
        worker.client("10.0.0.1").with("x-request-id", "two words"),
        worker.client("10.0.0.1").with("x-request-id", &long),
        (worker.client("10.0.0.1"))
            .with("x-request-id", "one")
            .with("x-request-id", "two"),
    ] {
        let response = client.sends().await;
        let [id] = fields(&response, "seen-x-request-id")[..] else {
            panic!("one id goes to the upstream")
        };
        assert_eq!(id.len(), 32, "{:?} is replaced", client.fields);
    }
}

#[tokio::test]
async fn trace_context_passes_untouched() {
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let scene = Scene::new("");
    let worker = scene.worker(0);
    let client = worker.client("192.0.2.1").with("traceparent", traceparent);
    let response = client.with("tracestate", "vendor=1").sends().await;
    assert_eq!(fields(&response, "seen-traceparent"), [traceparent]);
    assert_eq!(fields(&response, "seen-tracestate"), ["vendor=1"]);
}

#[tokio::test]
async fn a_denied_address_gets_403_an_id_and_is_counted() {
    let scene = Scene::new("deny: [192.0.2.0/24], allow: [192.0.2.7, 0.0.0.0/0]");
    let worker = scene.worker(0);
    let response = worker.client("192.0.2.1").sends().await;
    assert_eq!(response.status, StatusCode::FORBIDDEN);
    assert_eq!(fields(&response, "x-request-id").len(), 1);
    assert_eq!(worker.client("192.0.2.7").gets().await, StatusCode::OK);
    assert_eq!(worker.client("198.51.100.1").gets().await, StatusCode::OK);
    assert_eq!(
        worker.client("::ffff:192.0.2.1").gets().await,
        StatusCode::FORBIDDEN,
        "a mapped address is the address it maps"
    );
    assert_eq!(scene.refused(EdgeRefusal::Denied), 2);
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_client_is_who_the_proxy_says() {
    let scene = Scene::new("trusted_proxies: [10.0.0.0/8], deny: [192.0.2.1]");
    let worker = scene.worker(0);
    let through = |worker, address| Client {
        worker,
        address,
        fields: vec![("x-forwarded-for", "192.0.2.1")],
    };
    let denied = through(&worker, "10.0.0.1").gets().await;
    assert_eq!(denied, StatusCode::FORBIDDEN);
    let stranger = through(&worker, "198.51.100.1").gets().await;
    assert_eq!(stranger, StatusCode::OK);
}

#[tokio::test]
async fn lists_and_limits_change_with_the_next_request() {
    let scene = Scene::new("");
    let worker = scene.worker(0);
    let client = worker.client("192.0.2.1");
    assert_eq!(client.gets().await, StatusCode::OK);
    scene.reload("deny: [192.0.2.1]");
    assert_eq!(client.gets().await, StatusCode::FORBIDDEN);
    scene.reload("rate_limit: {requests_per_second: 1}");
    assert_eq!(client.gets().await, StatusCode::OK);
    assert_eq!(client.gets().await, StatusCode::TOO_MANY_REQUESTS);
    scene.reload("");
    assert_eq!(client.gets().await, StatusCode::OK);
}

#[tokio::test]
async fn a_request_is_in_flight_until_its_body_ends_on_whichever_worker() {
    let scene = Scene::new("max_requests: 2");
    let [one, other] = [scene.worker(0), scene.worker(1)];
    let first = one.client("192.0.2.1").sends().await;
    let second = other.client("192.0.2.1").sends().await;
    assert_eq!(scene.shared.requests_in_flight(), 2);

    let refused = one.client("192.0.2.1").sends().await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(fields(&refused, "retry-after"), ["1"]);
    assert_eq!(scene.refused(EdgeRefusal::Overloaded), 1);
    assert_eq!(
        scene.shared.requests_in_flight(),
        2,
        "a refusal takes no place"
    );

    assert_eq!(first.body.size_hint().exact(), Some(5));
    drop(first);
    assert_eq!(scene.shared.requests_in_flight(), 1, "dropped unread");
    let text = second.body.collect().await.unwrap().to_bytes();
    assert_eq!(text, "hello");
    assert_eq!(scene.shared.requests_in_flight(), 0, "read to its end");
    assert_eq!(one.client("192.0.2.1").gets().await, StatusCode::OK);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_gives_its_place_back() {
    let scene = Scene::new("max_requests: 1");
    let worker = scene.worker(0);
    let peer = Peer {
        address: "192.0.2.1:1".parse().unwrap(),
        secure: false,
    };
    let silent = |_, _, _: Request<Empty<Bytes>>, _| std::future::pending();
    let waiting = worker.around(peer, silent).call(empty_request());
    assert_eq!(
        worker.client("192.0.2.1").gets().await,
        StatusCode::SERVICE_UNAVAILABLE
    );
    drop(waiting);
    assert_eq!(worker.client("192.0.2.1").gets().await, StatusCode::OK);
    assert_eq!(scene.shared.requests_in_flight(), 0);
}

#[tokio::test]
async fn the_rate_of_an_address_is_limited_over_all_workers_and_reloads() {
    let limit = "rate_limit: {requests_per_second: 1, burst: 2}";
    let scene = Scene::new(limit);
    let [one, other] = [scene.worker(0), scene.worker(1)];
    assert_eq!(one.client("192.0.2.1").gets().await, StatusCode::OK);
    assert_eq!(other.client("192.0.2.1").gets().await, StatusCode::OK);
    scene.reload(limit);
    let refused = one.client("192.0.2.1").sends().await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(fields(&refused, "retry-after"), ["1"]);
    assert_eq!(one.client("192.0.2.2").gets().await, StatusCode::OK);
    assert_eq!(scene.refused(EdgeRefusal::RateLimited), 1);
    assert_eq!(scene.shared.remembered_addresses(), 2);
    let later = scene.clock.uptime() + Duration::from_secs(10);
    scene.shared.sweep(later);
    assert_eq!(scene.shared.remembered_addresses(), 0);
}
