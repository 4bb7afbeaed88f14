//! How answers leave: together where they are ready together, none later for another, and with
//! nothing to be remembered that does not come again.
//!
//! Over TLS a write can be told from two: each is a record of its own.

use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::harness::certificate::Certificate;
use crate::harness::frames::{
    ACK, DATA, END_STREAM, Frame, HEADERS, SETTINGS, frame, get, headers,
};
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::{Gate, Script, Step, Upstream};
use crate::harness::{eventually, in_time};

/// Bytes of one answer, more than a library copies to have them with their head.
const LENGTH: usize = 1024;
/// Streams that are answered together: less than one record in all.
const STREAMS: usize = 8;
/// Of a frame's head.
const HEAD: usize = 9;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Waits at the gate with whoever asks for `/held`, and answers each request at length.
fn upstream(gate: &Gate) -> Upstream {
    let gate = gate.clone();
    Upstream::start("api", move |request| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
        let answer = [Step::Write(head.into()), Step::Flood(LENGTH)];
        match request.target.as_str() {
            "/held" => Script::of([Step::Wait(gate.clone())].into_iter().chain(answer)),
            _ => Script::of(answer),
        }
    })
}

/// A client over TLS that sees what comes in one record.
struct Client {
    stream: TlsStream<TcpStream>,
    /// The beginning of a frame.
    rest: Vec<u8>,
}

impl Client {
    async fn connect(proxy: &Proxy, certificate: &Certificate) -> Self {
        let tcp = TcpStream::connect(proxy.address()).await;
        let connector = certificate.connector(&["h2"]);
        let connecting = connector.connect(Certificate::name(), tcp.expect("it listens"));
        let stream = in_time("a handshake", connecting).await;
        let mut client = Self {
            stream: stream.expect("TLS is spoken"),
            rest: Vec::new(),
        };
        client
            .write(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat())
            .await;
        // Behind the acknowledgement nothing comes unasked.
        let is_known = |frame: &Frame| (frame.kind, frame.flags) == (SETTINGS, ACK);
        while !client.record().await.iter().any(is_known) {}
        client
    }

    async fn write(&mut self, bytes: &[u8]) {
        let written = self.stream.write_all(bytes).await;
        written.expect("the connection works");
        self.stream.flush().await.expect("the connection works");
    }

    /// The frames that end in the next record.
    async fn record(&mut self) -> Vec<Frame> {
        // A read would go on with the records behind it.
        let record = in_time("a record", self.stream.fill_buf()).await;
        let record = record.expect("the connection works");
        assert!(!record.is_empty(), "the connection has ended");
        self.rest.extend_from_slice(record);
        let count = record.len();
        self.stream.consume(count);
        let mut frames = Vec::new();
        while let [a, b, c, kind, flags, s, t, u, v, ..] = self.rest[..] {
            let end = HEAD + u32::from_be_bytes([0, a, b, c]) as usize;
            if self.rest.len() < end {
                break;
            }
            frames.push(Frame {
                kind,
                flags,
                stream: u32::from_be_bytes([s, t, u, v]),
                payload: self.rest.drain(..end).skip(HEAD).collect(),
            });
        }
        frames
    }
}

/// How many answers end with these frames.
fn ends(frames: &[Frame]) -> usize {
    let is_end =
        |frame: &&Frame| matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0;
    frames.iter().filter(is_end).count()
}

/// How many fields of a header block are to be remembered (RFC 7541 §6).
fn remembered(mut block: &[u8]) -> usize {
    let mut count = 0;
    while let Some(&first) = block.first() {
        let is_news = first & 0xc0 == 0x40;
        count += usize::from(is_news);
        let (bits, has_value) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let has_name = integer(&mut block, bits) == 0 && has_value;
        for _ in 0..usize::from(has_name) + usize::from(has_value) {
            let length = integer(&mut block, 7);
            block = &block[length..];
        }
    }
    count
}

/// The integer in the lower `bits` of a block's first byte and what follows it (RFC 7541 §5.1).
fn integer(block: &mut &[u8], bits: u32) -> usize {
    let mut next = || {
        let (&first, rest) = block.split_first().expect("the block is whole");
        *block = rest;
        usize::from(first)
    };
    let limit = (1 << bits) - 1;
    let mut value = next() & limit;
    let mut shift = 0;
    let mut goes_on = value == limit;
    while goes_on {
        let byte = next();
        value += (byte & 0x7f) << shift;
        shift += 7;
        goes_on = byte & 0x80 != 0;
    }
    value
}

async fn start(upstream: &Upstream, certificate: &Certificate) -> Proxy {
    let address = upstream.address();
    let listener = "[{address: 127.0.0.1:0, tls: {certificate: first.pem, key: first.key}}]";
    let configuration =
        format!("backends: {{api: {{endpoints: ['{address}']}}}}\nroutes: [{{backend: api}}]\n");
    let site = Site::new()
        .file("first.pem", &certificate.certificate_pem)
        .file("first.key", &certificate.key_pem);
    site.start_on(listener, &configuration).await
}

/// A request on the connection's stream of this number, beginning with 0.
fn ask(number: usize, target: &str) -> Vec<u8> {
    let stream = u32::try_from(2 * number + 1).expect("streams are few");
    headers(stream, END_STREAM, &get(target))
}

#[tokio::test]
async fn answers_that_are_ready_together_leave_in_one_write() {
    let (gate, certificate) = (Gate::new(), Certificate::new());
    let upstream = upstream(&gate);
    let proxy = start(&upstream, &certificate).await;
    let mut client = Client::connect(&proxy, &certificate).await;
    let asked: Vec<_> = (0..STREAMS)
        .flat_map(|number| ask(number, "/held"))
        .collect();
    client.write(&asked).await;
    eventually("all requests have come", async || {
        upstream.received_for("/held").len() == STREAMS
    })
    .await;
    // Whatever comes meanwhile, the proxy finds it together.
    proxy.freeze().await;
    gate.open();
    eventually("all answers were written", async || {
        upstream.flooded() == STREAMS * LENGTH
    })
    .await;
    proxy.signal("CONT");
    let frames = client.record().await;
    assert_eq!(ends(&frames), STREAMS, "{frames:?}");
}

#[tokio::test]
async fn an_answer_leaves_at_once_while_others_are_waited_for() {
    let (gate, certificate) = (Gate::new(), Certificate::new());
    let upstream = upstream(&gate);
    let proxy = start(&upstream, &certificate).await;
    let mut client = Client::connect(&proxy, &certificate).await;
    let asked = [ask(0, "/held"), ask(1, "/beside"), ask(2, "/held")];
    client.write(&asked.concat()).await;
    // Nothing happens at the proxy that could push it out.
    let mut ended = 0;
    while ended == 0 {
        ended = ends(&client.record().await);
    }
    gate.open();
    while ended < asked.len() {
        ended += ends(&client.record().await);
    }
}

#[tokio::test]
async fn what_does_not_come_again_is_not_to_be_remembered() {
    let certificate = Certificate::new();
    let upstream = upstream(&Gate::new());
    let proxy = start(&upstream, &certificate).await;
    let mut client = Client::connect(&proxy, &certificate).await;
    let mut news = Vec::new();
    for number in 0..5 {
        client.write(&ask(number, "/beside")).await;
        let mut is_ended = false;
        while !is_ended {
            let frames = client.record().await;
            is_ended = ends(&frames) > 0;
            let heads = frames.iter().filter(|frame| frame.kind == HEADERS);
            news.extend(heads.map(|frame| remembered(&frame.payload)));
        }
    }
    // A second may end between two answers, so that the date is another.
    assert!(news[1..].contains(&0), "{news:?}");
}
