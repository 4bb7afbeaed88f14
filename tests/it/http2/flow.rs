//! Streams of one connection wait for nobody but themselves, and hold no more than is stated.

use std::time::Duration;

use crate::harness::client::{Answer, Client, get as ask, request};
use crate::harness::eventually;
use crate::harness::frames::{
    DATA, END_STREAM, Frames, Outcome, REFUSED_STREAM, RST_STREAM, asking, data, get, headers,
};
use crate::harness::proxy::{Proxy, Site};
use crate::harness::traffic::halted;
use crate::harness::upstream::{Gate, Reply, Script, Step, Upstream};

/// More than all buffers on the way.
const LARGE: usize = 32 << 20;
/// What one HTTP/2 connection may cost at worst, and what a test build adds to it.
const KEPT: usize = 48 << 20;
/// Streams that a client may have open.
const STREAMS: u32 = 128;

async fn start(upstream: &Upstream) -> Proxy {
    let address = upstream.address();
    let configuration =
        format!("backends: {{api: {{endpoints: ['{address}']}}}}\nroutes: [{{backend: api}}]\n");
    Site::new().start(&configuration).await
}

/// Floods whoever asks for `/large`, waits at the gate for `/held`, and answers all else.
fn upstream(gate: &Gate) -> Upstream {
    let gate = gate.clone();
    Upstream::start("api", move |request| match request.target.as_str() {
        "/large" => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n");
            Script::write(head).then(Step::Flood(LARGE))
        }
        "/held" => Script::of([Step::Wait(gate.clone()), Step::Answer(Reply::new(200))]),
        _ => Script::status(200),
    })
}

#[tokio::test]
async fn a_stream_that_is_not_read_delays_no_other_and_ends_whole_once_it_is() {
    let upstream = upstream(&Gate::new());
    let proxy = start(&upstream).await;
    let mut client = Client::http2(proxy.address()).await;
    let mut unread = Vec::new();
    for _ in 0..2 {
        let response = client.begin(ask("/large", "alice")).await;
        unread.push(response.expect("the proxy answers"));
    }
    for _ in 0..50 {
        assert_eq!(client.get("/beside", "alice").await.status, 200);
    }
    assert!(upstream.flooded() < 2 * LARGE, "it was not waited for");
    for response in unread {
        let answer = Answer::read(response).await;
        assert!(answer.is_whole);
        assert_eq!(answer.body.len(), LARGE);
    }
}

#[tokio::test]
async fn uploads_that_their_server_does_not_read_delay_no_other_stream() {
    let gate = Gate::new();
    let upstream = upstream(&gate);
    let proxy = start(&upstream).await;
    let Client::Http2(sender) = Client::http2(proxy.address()).await else {
        panic!("it is HTTP/2");
    };
    let stalled: Vec<_> = (0..4)
        .map(|_| {
            let mut sender = sender.clone();
            let body = vec![b'y'; LARGE];
            let upload = request("POST", "http://api.example/held", "alice", body);
            tokio::spawn(async move {
                let response = sender.send_request(upload).await;
                Answer::read(response.expect("the proxy answers")).await
            })
        })
        .collect();
    eventually("all uploads have begun", async || {
        upstream.received_for("/held").len() == stalled.len()
    })
    .await;
    let mut client = Client::Http2(sender);
    for _ in 0..20 {
        assert_eq!(client.send(ask("/beside", "alice")).await.status, 200);
        let upload = request("POST", "/beside", "alice", vec![b'z'; 20_000]);
        assert_eq!(client.send(upload).await.status, 200);
    }
    assert_eq!(upstream.count(|received| received.body.len() == LARGE), 0);
    gate.open();
    for upload in stalled {
        assert_eq!(upload.await.expect("it did not panic").status, 200);
    }
    assert_eq!(upstream.count(|received| received.body.len() == LARGE), 4);
}

#[tokio::test]
async fn a_stream_of_tiny_messages_that_its_server_does_not_read_ends_no_other_stream() {
    let gate = Gate::new();
    let upstream = upstream(&gate);
    let proxy = start(&upstream).await;
    let mut client = Frames::connect(proxy.address()).await;
    client.write(headers(1, 0, &asking("POST", "/held"))).await;
    upstream.has_received("/held").await;
    // As many as a gRPC client may send ahead, with a message of one byte in each.
    let message = data(1, 0, &[0, 0, 0, 0, 1, b'a']);
    client.write(message.repeat(128 * 1024 / 6)).await;
    for stream in [3, 5] {
        client.ask(stream, &get("/beside")).await;
        let outcome = client.outcome(stream).await;
        assert!(matches!(outcome, Outcome::Answered(200, _)), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_client_that_grants_everything_and_reads_nothing_costs_what_is_stated() {
    let upstream = upstream(&Gate::new());
    let proxy = start(&upstream).await;
    let mut other = Client::http1(proxy.address()).await;
    assert_eq!(other.get("/warm", "alice").await.status, 200);
    let before = proxy.peak_memory();
    let mut client = Frames::connect(proxy.address()).await;
    for stream in 0..STREAMS {
        client.ask(2 * stream + 1, &get("/large")).await;
    }
    eventually("all streams are asked for", async || {
        upstream.received_for("/large").len() == STREAMS as usize
    })
    .await;
    halted(&proxy, &upstream).await;
    let kept = proxy.peak_memory() - before;
    assert!(kept < KEPT, "{kept} bytes of memory");
    assert_eq!(other.get("/beside", "alice").await.status, 200);
}

#[tokio::test]
async fn a_stream_too_many_is_refused_unprocessed_and_the_others_go_on() {
    let gate = Gate::new();
    let upstream = upstream(&gate);
    let proxy = start(&upstream).await;
    let mut client = Frames::connect(proxy.address()).await;
    let mut asked = Vec::new();
    for stream in 0..=STREAMS {
        asked.extend(headers(2 * stream + 1, END_STREAM, &get("/held")));
    }
    client.write(asked).await;
    let last = 2 * STREAMS + 1;
    assert_eq!(client.outcome(last).await, Outcome::Reset(REFUSED_STREAM));
    gate.open();
    let outcome = client.outcome(1).await;
    assert!(matches!(outcome, Outcome::Answered(200, _)), "{outcome:?}");
    client.goes_on(last + 2, "a stream too many").await;
    assert_eq!(upstream.received_for("/held").len(), STREAMS as usize);
}

#[tokio::test]
async fn an_answer_of_which_nothing_is_taken_is_given_up_and_one_taken_slowly_is_not() {
    let upstream = upstream(&Gate::new());
    let address = upstream.address();
    let configuration = format!(
        "backends: {{api: {{endpoints: ['{address}']}}}}\nroutes: [{{backend: api}}]\n\
         edge: {{header_timeout: 400ms}}\n"
    );
    let proxy = Site::new().start(&configuration).await;
    // It reads its socket and answers whatever it is asked, but its windows are closed.
    let mut client = Frames::with_window(proxy.address(), 0).await;
    client.grant(0, 1 << 30).await;
    for stream in [1, 3] {
        client.ask(stream, &get("/large")).await;
    }
    client.ask(5, &get("/beside")).await;
    let (mut granted, mut taken, mut given_up) = (0, 0, Vec::new());
    while taken < LARGE {
        if taken == granted {
            // The client is slow while the others are waited for; each piece is taken in time.
            if given_up.len() < 2 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            client.grant(3, 1 << 18).await;
            granted += 1 << 18;
        }
        let frame = client.next().await.expect("the connection goes on");
        match (frame.kind, frame.stream) {
            (DATA, stream) => {
                assert_eq!(stream, 3);
                taken += frame.payload.len();
            }
            (RST_STREAM, stream) => given_up.push(stream),
            _ => {}
        }
    }
    given_up.sort_unstable();
    assert_eq!(given_up, [1, 5]);
    assert_eq!(taken, LARGE);
    upstream.was_departed("/large").await;
}
