//! Answers that come in pieces over a long time: server-sent events and long polls. What the
//! upstream has said is with the client before the upstream says more.

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::harness::certificate::Certificate;
use crate::harness::client::{Answer, Client, get};
use crate::harness::in_time;
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::{Gate, Reply, Script, Step, Upstream};

const EVENTS: [&str; 3] = ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"];

/// Sends the head and then each event when its gate opens. Where the length is not known, the end of
/// the connection ends the answer.
fn speaking(gates: &[Gate], is_chunked: bool) -> Script {
    let framing = if is_chunked {
        "Transfer-Encoding: chunked\r\n"
    } else {
        ""
    };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{framing}\r\n");
    let said = EVENTS.iter().zip(gates).flat_map(|(event, gate)| {
        let piece = if is_chunked {
            format!("{:x}\r\n{event}\r\n", event.len())
        } else {
            (*event).to_owned()
        };
        [Step::Wait(gate.clone()), Step::Write(piece.into())]
    });
    let script = Script::of(std::iter::once(Step::Write(head.into())).chain(said));
    if is_chunked {
        script.then(Step::Write("0\r\n\r\n".into()))
    } else {
        script.then(Step::Close)
    }
}

fn gates() -> Vec<Gate> {
    EVENTS.iter().map(|_| Gate::new()).collect()
}

/// Opens one gate after the other, each only when the event before has come.
async fn hears_each_before_the_next(client: &mut Client, gates: &[Gate]) {
    let mut response = client.begin(get("/", "")).await.expect("the head passes");
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    for (event, gate) in EVENTS.iter().zip(gates) {
        gate.open();
        assert_eq!(next(&mut response).await.expect("an event"), event);
    }
    // Over HTTP/2 the end may be an empty piece.
    assert_eq!(next(&mut response).await.unwrap_or_default(), "");
}

async fn next(response: &mut Response<Incoming>) -> Option<Bytes> {
    let frame = in_time("a piece of the body", response.frame()).await?;
    let data = frame.expect("the body is whole").into_data();
    Some(data.expect("there are no trailers"))
}

async fn before(site: Site, listeners: &str, backend: &str) -> Proxy {
    let configuration = format!("backends: {{api: {backend}}}\nroutes: [{{backend: api}}]\n");
    site.start_on(listeners, &configuration).await
}

#[tokio::test]
async fn each_event_is_passed_before_the_next_is_sent() {
    for is_chunked in [true, false] {
        for http2 in [false, true] {
            let gates = gates();
            let held = gates.clone();
            let upstream = Upstream::start("api", move |_| speaking(&held, is_chunked));
            let backend = format!("{{endpoints: ['{}']}}", upstream.address());
            let proxy = before(Site::new(), "[{address: 127.0.0.1:0}]", &backend).await;
            let mut client = match http2 {
                false => proxy.client().await,
                true => Client::http2(proxy.address()).await,
            };
            hears_each_before_the_next(&mut client, &gates).await;
        }
    }
}

#[tokio::test]
async fn encryption_at_both_ends_holds_no_event_back() {
    for protocol in ["http/1.1", "h2"] {
        let gates = gates();
        let held = gates.clone();
        let certificate = Certificate::new();
        let upstream = Upstream::start_tls("api", &certificate, move |_| speaking(&held, true));
        let site = Site::new()
            .file("certificate.pem", &certificate.certificate_pem)
            .file("key.pem", &certificate.key_pem);
        let tls = "tls: {roots: certificate.pem, server_name: localhost}";
        let backend = format!("{{endpoints: ['{}'], {tls}}}", upstream.address());
        let listeners =
            "[{address: 127.0.0.1:0, tls: {certificate: certificate.pem, key: key.pem}}]";
        let proxy = before(site, listeners, &backend).await;
        let mut client = Client::tls(proxy.address(), &certificate, &[protocol]).await;
        hears_each_before_the_next(&mut client, &gates).await;
    }
}

#[tokio::test]
async fn a_long_poll_has_the_patience_of_its_own_backend() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::start("api", move |_| {
        Script::of([Step::Wait(held.clone()), Step::Answer(Reply::new(200))])
    });
    let address = upstream.address();
    let proxy = Site::new()
        .start(&format!(
            "backends:
  patient: {{endpoints: ['{address}'], timeouts: {{first_byte: 10m}}}}
  hasty: {{endpoints: ['{address}'], timeouts: {{first_byte: 500ms}}}}
routes:
  - {{path_prefix: /poll, backend: patient}}
  - {{backend: hasty}}
"
        ))
        .await;
    let mut polling = proxy.client().await;
    let poll = tokio::spawn(async move { polling.get("/poll", "").await });
    upstream.has_received("/poll").await;
    let answer: Answer = proxy.client().await.get("/other", "").await;
    assert_eq!(answer.status, 504);
    assert!(!poll.is_finished());
    gate.open();
    let answer = poll.await.expect("it is answered");
    assert_eq!((answer.status, &answer.body[..]), (200, &b"status 200"[..]));
}
