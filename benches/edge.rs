//! What the request's edge costs a request that is not refused.
//!
//! The claim: less than 100 ns for all layers together. Measured is a request through the layers
//! around a service that answers at once, less the same without the layers. The service's future
//! is as large as the real one's, because a layer that moves it pays for its size.
//!
//! `cargo bench --bench edge`

use std::convert::Infallible;
use std::hint::black_box;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use cutover::clock::Clock;
use cutover::config;
use cutover::edge::{Entrance, Shared};
use cutover::message::name::{CACHE_CONTROL, CONTENT_TYPE, VIA};
use cutover::message::{Request, Response};
use cutover::proxy::body::ResponseBody;
use cutover::proxy::course::Course;
use cutover::proxy::forward;
use cutover::proxy::peer::{Caller, Peer};
use cutover::proxy::worker::{View, Worker};
use cutover::snapshot::Snapshot;
use cutover::snapshot::registry::Registry;
use cutover::telemetry::WorkerId;
use cutover::upstream::inflow::Arriving;
use http::{HeaderValue, StatusCode, header};
use http_body_util::Empty;
use tower::Service;

/// Requests timed together.
const BATCH: u32 = 100;
/// Batches; the fastest counts, since everything else that the machine does only adds.
const BATCHES: u32 = 20_000;

fn main() {
    let size = size_of_answer(forward::handle);
    println!("the future of an answer has {size} bytes");
    let bare = bare();
    println!("without layers: {bare:>4} ns");
    let many: Vec<String> = (0..10_000_u32)
        .map(|n| format!("10.{}.{}.0/28", n / 256, n % 256))
        .collect();
    for (name, edge) in [
        ("nothing configured", String::new()),
        ("one denied network", "deny: [192.0.2.0/24]".to_owned()),
        (
            "10 000 denied networks",
            format!("deny: [{}]", many.join(", ")),
        ),
        (
            "a rate limit",
            "rate_limit: {requests_per_second: 1000000, burst: 1000000}".to_owned(),
        ),
    ] {
        let cost = layered(&edge).saturating_sub(bare);
        println!("{name:>22}: {cost:>4} ns");
    }
}

fn worker(edge: &str) -> Rc<Worker> {
    let text = format!(
        "{{listeners: [{{address: '127.0.0.1:0'}}], backends: {{api: {{endpoints: ['127.0.0.1:1']}}}}, \
         routes: [{{backend: api}}], edge: {{{edge}}}}}"
    );
    let config = config::load_text(&text, Path::new("."), &|_| None).expect("it is valid");
    let routing = Registry::new(1).build(&config).expect("it can be built");
    let published = Arc::new(ArcSwap::new(Arc::new(Snapshot {
        generation: 1,
        access: Arc::new(routing.access.clone()),
        denials: Arc::default(),
        routing: Arc::new(routing),
        standings: Box::new([]),
        streams_end: Box::new([]),
    })));
    Worker::new(WorkerId(0), 1, Clock::start(), &published, Arc::default())
}

/// Answers at once, with a future of about the real size.
async fn answer() -> Response<ResponseBody> {
    let ballast = [0_u8; 8192];
    std::future::ready(()).await;
    black_box(&ballast);
    let mut response = Response::new(StatusCode::OK, ResponseBody::own("hello"));
    for name in [&VIA, &CONTENT_TYPE, &CACHE_CONTROL] {
        response.fields.append(name, b"value");
    }
    response
}

fn request() -> Request<Empty<Bytes>> {
    let mut request = http::Request::new(Empty::new());
    for name in [
        header::HOST,
        header::USER_AGENT,
        header::ACCEPT,
        header::COOKIE,
    ] {
        let value = HeaderValue::from_static("value");
        request.headers_mut().insert(name, value);
    }
    Request::from(request)
}

/// Nanoseconds per request without layers: what a connection's service cannot do without.
fn bare() -> u64 {
    let worker = worker("");
    measure(tower::service_fn(move |request| {
        let view = worker.view();
        async move {
            black_box((view, request));
            Ok::<_, Infallible>(answer().await)
        }
    }))
}

/// Nanoseconds per request with layers.
fn layered(edge: &str) -> u64 {
    let entrance = Entrance::new(worker(edge), Arc::new(Shared::default()));
    let peer = Peer {
        address: "198.51.100.7:1234".parse().expect("an address"),
        secure: false,
    };
    let service = entrance.around(peer, |view, caller, request, course| {
        black_box((view, caller, request, course));
        answer()
    });
    measure(service)
}

fn measure<S, B>(service: S) -> u64
where
    S: Service<Request<Empty<Bytes>>, Response = Response<B>, Error = Infallible> + Clone,
{
    let mut fastest = Duration::MAX;
    for _ in 0..BATCHES {
        let requests: Vec<Request<Empty<Bytes>>> = (0..BATCH).map(|_| request()).collect();
        let started = Instant::now();
        for request in requests {
            // Each request of a connection gets a clone of its service.
            let answered = poll_once(service.clone().call(request));
            assert!(black_box(answered).is_some(), "the service answers at once");
        }
        fastest = fastest.min(started.elapsed());
    }
    u64::try_from(fastest.as_nanos()).unwrap_or(u64::MAX) / u64::from(BATCH)
}

fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    let future = pin!(future);
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

fn size_of_answer<F, A>(_: F) -> usize
where
    F: Fn(Rc<Worker>, Rc<View>, Caller, Request<Arriving>, Option<Rc<Course>>) -> A,
{
    size_of::<A>()
}
