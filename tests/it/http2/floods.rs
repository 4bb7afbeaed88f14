//! Cheap frames that make a server work or remember: each kind has an end, and costs its sender's
//! connection only.

use std::time::Duration;

use crate::harness::client::Client;
use crate::harness::eventually;
use crate::harness::frames::{
    CONTINUATION, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frames, HEADERS, Outcome, PING,
    PRIORITY, SETTINGS, WINDOW_UPDATE, asking, block, data, frame, get, headers, integer, reset,
};
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::{Script, Upstream};

/// More than any flood may make the proxy keep, in a test build.
const KEPT: usize = 24 << 20;

/// A proxy in front of a server that answers nothing but `/beside`, and what it held before.
struct Flooded {
    proxy: Proxy,
    upstream: Upstream,
    other: Client,
    before: usize,
}

impl Flooded {
    async fn start() -> Self {
        let upstream = Upstream::start("api", |request| match request.target.as_str() {
            "/beside" => Script::status(200),
            _ => Script::hang(),
        });
        let address = upstream.address();
        let configuration = format!(
            "backends: {{api: {{endpoints: ['{address}']}}}}\nroutes: [{{backend: api}}]\n"
        );
        let proxy = Site::new().start(&configuration).await;
        let mut other = Client::http2(proxy.address()).await;
        assert_eq!(other.get("/beside", "alice").await.status, 200);
        Self {
            before: proxy.peak_memory(),
            proxy,
            upstream,
            other,
        }
    }

    async fn client(&self) -> Frames {
        Frames::connect(self.proxy.address()).await
    }

    /// Others are served as before, nothing is left at the upstream and little was kept.
    async fn has_passed(mut self, flood: &str) {
        assert_eq!(
            self.other.get("/beside", "alice").await.status,
            200,
            "{flood}"
        );
        // One for each of the two workers may be idle.
        eventually("the upstream is left alone", async || {
            self.upstream.open_connections() <= 2
        })
        .await;
        let kept = self.proxy.peak_memory() - self.before;
        assert!(kept < KEPT, "{flood}: {kept} bytes of memory");
    }
}

/// Waits for the end of a connection, and says whether the proxy named the reason. What it said
/// is lost if the client was still talking when the socket closed.
async fn is_turned_away(client: &mut Frames) {
    let outcome = client.outcome(0).await;
    let is_named = matches!(outcome, Outcome::Gone(None | Some(ENHANCE_YOUR_CALM)));
    assert!(is_named, "{outcome:?}");
}

#[tokio::test]
async fn requests_that_are_withdrawn_at_once_end_their_connection() {
    let flooded = Flooded::start().await;
    let mut client = flooded.client().await;
    let mut flood = Vec::new();
    for stream in (1..20_000).step_by(2) {
        flood.extend(headers(stream, END_STREAM, &get("/withdrawn")));
        flood.extend(reset(stream));
    }
    client.write_until_stuck(&flood).await;
    is_turned_away(&mut client).await;
    assert!(flooded.upstream.received_for("/withdrawn").len() < 1000);
    flooded.has_passed("rapid reset").await;
}

#[tokio::test]
async fn requests_that_are_withdrawn_once_they_cost_something_end_their_connection() {
    let flooded = Flooded::start().await;
    let mut client = flooded.client().await;
    let asked = || flooded.upstream.received_for("/withdrawn").len();
    let mut stream = 1;
    let is_refused = async || {
        let metrics = flooded.proxy.metrics().await;
        metrics.sum("cutover_refused_total", &[("reason", "abandoned_requests")]) > 0.0
    };
    while !is_refused().await {
        let before = asked();
        assert!(before < 1000, "it goes on for ever");
        // In tens, since each wait costs the test more than the proxy.
        let streams: Vec<u32> = (stream..).step_by(2).take(10).collect();
        let ask = |stream: &u32| headers(*stream, END_STREAM, &get("/withdrawn"));
        let asks: Vec<u8> = streams.iter().flat_map(ask).collect();
        client.write_until_stuck(&asks).await;
        eventually("they cost something", async || {
            asked() == before + 10 || is_refused().await
        })
        .await;
        let resets: Vec<u8> = streams.iter().flat_map(|stream| reset(*stream)).collect();
        client.write_until_stuck(&resets).await;
        stream += 20;
    }
    let outcome = client.outcome(0).await;
    assert!(matches!(outcome, Outcome::Gone(_)), "{outcome:?}");
    flooded.has_passed("slow reset").await;
}

/// A deadline as gRPC clients set one, at which a client under test gives its requests up; longer would
/// do as well.
const DEADLINE: Duration = Duration::from_millis(300);

#[tokio::test]
async fn requests_that_are_withdrawn_when_their_time_is_up_end_no_connection() {
    let flooded = Flooded::start().await;
    let mut client = flooded.client().await;
    let asked = || flooded.upstream.received_for("/withdrawn").len();
    let mut streams: Vec<u32> = Vec::new();
    // Were they counted, the third round would be the last.
    for round in 1..=4 {
        let next = streams.last().map_or(1, |last| last + 2);
        streams = (next..).step_by(2).take(100).collect();
        let ask = |stream: &u32| headers(*stream, END_STREAM, &get("/withdrawn"));
        let asks: Vec<u8> = streams.iter().flat_map(ask).collect();
        client.write_until_stuck(&asks).await;
        eventually("all have begun", async || asked() == round * 100).await;
        tokio::time::sleep(DEADLINE).await;
        let resets: Vec<u8> = streams.iter().flat_map(|stream| reset(*stream)).collect();
        client.write_until_stuck(&resets).await;
        eventually("the upstream is left alone", async || {
            flooded.upstream.open_connections() <= 2
        })
        .await;
    }
    let last = streams.last().expect("there were some") + 2;
    client.ask(last, &get("/beside")).await;
    let outcome = client.outcome(last).await;
    assert!(matches!(outcome, Outcome::Answered(200, _)), "{outcome:?}");
}

#[tokio::test]
async fn a_head_without_end_ends_its_connection() {
    let field = block(&[("x-filler", &[b'x'; 1000])]);
    for (flood, piece) in [
        ("empty continuations", Vec::new()),
        ("full continuations", field.repeat(16)),
        ("one field without end", vec![b'x'; 16_000]),
    ] {
        let flooded = Flooded::start().await;
        let mut client = flooded.client().await;
        let mut begin = block(&get("/endless"));
        if flood == "one field without end" {
            begin.push(0);
            integer(&mut begin, 0, 7, 1 << 24);
        }
        client.write(frame(HEADERS, END_STREAM, 1, &begin)).await;
        client
            .write_until_stuck(&frame(CONTINUATION, 0, 1, &piece).repeat(2000))
            .await;
        let outcome = client.outcome(1).await;
        assert!(matches!(outcome, Outcome::Gone(_)), "{flood}: {outcome:?}");
        assert_eq!(flooded.upstream.received_for("/endless").len(), 0);
        flooded.has_passed(flood).await;
    }
}

#[tokio::test]
async fn a_small_head_that_unpacks_to_a_large_one_ends_its_connection() {
    let flooded = Flooded::start().await;
    let mut client = flooded.client().await;
    let mut bomb = block(&get("/bomb"));
    // A field that is remembered, and named by one byte ever after.
    bomb.push(0x40);
    integer(&mut bomb, 0, 7, 1);
    bomb.push(b'x');
    integer(&mut bomb, 0, 7, 4000);
    bomb.extend([b'x'; 4000]);
    bomb.extend([0xbe; 10_000]);
    client
        .write(frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb))
        .await;
    let outcome = client.outcome(1).await;
    assert_eq!(outcome, Outcome::Gone(Some(ENHANCE_YOUR_CALM)));
    assert_eq!(flooded.upstream.received_for("/bomb").len(), 0);
    flooded.has_passed("HPACK bomb").await;
}

#[tokio::test]
async fn frames_that_want_an_answer_are_read_no_faster_than_their_sender_reads() {
    let window = 1_u32.to_be_bytes();
    for (flood, frame) in [
        ("pings", frame(PING, 0, 0, &[7; 8])),
        ("settings", frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])),
        ("empty settings", frame(SETTINGS, 0, 0, &[])),
        ("priorities", frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 7])),
        ("unknown frames", frame(0xfa, 0, 0, &[7; 8])),
        ("window updates", frame(WINDOW_UPDATE, 0, 0, &window)),
    ] {
        let flooded = Flooded::start().await;
        // Its windows are small, so that the updates do not overflow them.
        let mut client = Frames::with_window(flooded.proxy.address(), 65_535).await;
        client.write_until_stuck(&frame.repeat(500_000)).await;
        flooded.has_passed(flood).await;
    }
}

#[tokio::test]
async fn frames_that_ask_for_nothing_end_their_connection_when_they_are_many() {
    let flooded = Flooded::start().await;
    for (number, frame) in [
        frame(PING, 0, 0, &[7; 8]),
        frame(SETTINGS, 0, 0, &[]),
        frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 7]),
        frame(0xfa, 0, 0, &[7; 8]),
        reset(1),
        // An honest client opens windows more often than it asks for anything else.
        frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()).repeat(4),
    ]
    .into_iter()
    .enumerate()
    {
        // Its windows are small, so that the updates do not overflow them.
        let mut client = Frames::with_window(flooded.proxy.address(), 65_535).await;
        client.ask(1, &get("/beside")).await;
        let outcome = client.outcome(1).await;
        assert!(matches!(outcome, Outcome::Answered(200, _)), "{outcome:?}");
        client.write(frame.repeat(900)).await;
        client.ask(3, &get("/beside")).await;
        let outcome = client.outcome(3).await;
        assert!(matches!(outcome, Outcome::Answered(200, _)), "{outcome:?}");
        client.write_until_stuck(&frame.repeat(200)).await;
        is_turned_away(&mut client).await;
        let ended = [("reason", "control_frames")];
        let count = number as f64 + 1.0;
        flooded
            .proxy
            .counts(count, "cutover_refused_total", &ended)
            .await;
    }
    flooded.has_passed("frames for nothing").await;
}

#[tokio::test]
async fn frames_beside_requests_and_answers_end_no_connection() {
    let flooded = Flooded::start().await;
    let mut client = flooded.client().await;
    // As many as would be a flood twice over by themselves.
    for stream in (1..1001).step_by(2) {
        client.write(frame(PING, 0, 0, &[7; 8]).repeat(4)).await;
        client.ask(stream, &get("/beside")).await;
        let outcome = client.outcome(stream).await;
        assert!(matches!(outcome, Outcome::Answered(200, _)), "{outcome:?}");
    }
    flooded.has_passed("pings beside requests").await;
}

#[tokio::test]
async fn requests_malformed_one_after_the_other_end_their_connection() {
    let flooded = Flooded::start().await;
    let mut client = flooded.client().await;
    let mut fields = get("/malformed");
    fields.push(("connection", b"close"));
    let flood: Vec<u8> = (1..20_000)
        .step_by(2)
        .flat_map(|stream| headers(stream, END_STREAM, &fields))
        .collect();
    client.write_until_stuck(&flood).await;
    is_turned_away(&mut client).await;
    flooded.has_passed("malformed requests").await;
}

#[tokio::test]
async fn data_in_pieces_of_nothing_is_not_kept() {
    for (flood, piece) in [("empty data", &b""[..]), ("single bytes", b"x")] {
        let flooded = Flooded::start().await;
        let mut client = flooded.client().await;
        client
            .write(headers(1, 0, &asking("POST", "/pieces")))
            .await;
        client
            .write_until_stuck(&data(1, 0, piece).repeat(100_000))
            .await;
        drop(client);
        flooded.has_passed(flood).await;
    }
}
