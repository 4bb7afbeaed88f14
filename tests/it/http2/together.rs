//! Answers that are ready together leave in one write, and no answer waits for another.
//!
//! Over TLS a write can be told from two: each is a record of its own, and the client's library hands
//! out one at a time.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::harness::certificate::Certificate;
use crate::harness::frames::{ACK, DATA, END_STREAM, HEADERS, SETTINGS, frame, get, headers};
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::{Gate, Script, Step, Upstream};
use crate::harness::{eventually, in_time};

/// Bytes of one answer, more than a library copies to have them with their head.
const LENGTH: usize = 1024;
/// Streams that are answered together: less than one record in all.
const STREAMS: usize = 8;
/// Of a frame's head.
const HEAD: usize = 9;
/// What one record can carry.
const RECORD: usize = 16 * 1024;
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
        while !client.record().await.contains(&(SETTINGS, ACK)) {}
        client
    }

    async fn write(&mut self, bytes: &[u8]) {
        let written = self.stream.write_all(bytes).await;
        written.expect("the connection works");
        self.stream.flush().await.expect("the connection works");
    }

    /// The types and flags of the frames that end in the next record.
    async fn record(&mut self) -> Vec<(u8, u8)> {
        let mut record = vec![0; RECORD];
        let read = in_time("a record", self.stream.read(&mut record)).await;
        let count = read.expect("the connection works");
        assert!(count > 0, "the connection has ended");
        self.rest.extend_from_slice(&record[..count]);
        let mut frames = Vec::new();
        while let [a, b, c, kind, flags, ..] = self.rest[..] {
            let end = HEAD + u32::from_be_bytes([0, a, b, c]) as usize;
            if self.rest.len() < end {
                break;
            }
            frames.push((kind, flags));
            self.rest.drain(..end);
        }
        frames
    }
}

/// How many answers end with these frames.
fn ends(frames: &[(u8, u8)]) -> usize {
    let is_end =
        |(kind, flags): &&(u8, u8)| matches!(*kind, DATA | HEADERS) && flags & END_STREAM != 0;
    frames.iter().filter(is_end).count()
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
