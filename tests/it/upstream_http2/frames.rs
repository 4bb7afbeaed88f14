//! An HTTP/2 server that says, frame by frame, what the test tells it to.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Kinds of frames (RFC 9113 §6).
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const CONTINUATION: u8 = 9;

/// Flags.
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// Reasons (RFC 9113 §7).
pub(super) const NO_ERROR: u32 = 0;
pub(super) const INTERNAL_ERROR: u32 = 2;
pub(super) const REFUSED_STREAM: u32 = 7;
pub(super) const CANCEL: u32 = 8;

/// A head that says `:status: 200`, by the static table.
pub(super) const OK: &[u8] = &[0x88];

/// One frame.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

/// The server's end of one connection.
pub(super) struct Connection {
    stream: TcpStream,
    /// Read before the play began.
    first: Option<Frame>,
    /// Whether PING frames are answered.
    pub(super) is_alive: bool,
}

/// A server whose every connection is played by a function of the test.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
}

impl Server {
    /// Starts it. `play` gets each connection and its number, from 0. Settings are exchanged.
    pub(super) async fn start<F>(
        play: impl Fn(usize, Connection) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::start_with(&[], play).await
    }

    /// Starts it with these settings of its own: each an identifier and a value.
    pub(super) async fn start_with<F>(
        settings: &[(u16, u32)],
        play: impl Fn(usize, Connection) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let accepted = Arc::<AtomicUsize>::default();
        let mut payload = Vec::new();
        for (identifier, value) in settings {
            payload.extend_from_slice(&identifier.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        let (play, count) = (Arc::new(play), Arc::clone(&accepted));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut connection = Connection {
                    stream,
                    first: None,
                    is_alive: true,
                };
                // Who only looks whether somebody is there greets and leaves, and does not count.
                let Some(()) = connection.greet(&payload).await else {
                    continue;
                };
                let (play, count) = (Arc::clone(&play), Arc::clone(&count));
                tokio::spawn(async move {
                    connection.first = connection.next().await;
                    if connection.first.is_some() {
                        play(count.fetch_add(1, Ordering::Relaxed), connection).await;
                    }
                });
            }
        });
        Self { address, accepted }
    }

    /// How many connections have carried a request.
    pub(super) fn connections(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Connection {
    async fn greet(&mut self, settings: &[u8]) -> Option<()> {
        let mut preface = [0; 24];
        self.stream.read_exact(&mut preface).await.ok()?;
        self.send(SETTINGS, 0, 0, settings).await;
        Some(())
    }

    /// The next frame that is not SETTINGS, PING or a window's; `None` when the proxy is gone.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        const WINDOW_UPDATE: u8 = 8;
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        loop {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            self.stream.read_exact(&mut payload).await.ok()?;
            let frame = Frame {
                kind: head[3],
                flags: head[4],
                stream: u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]),
                payload,
            };
            match frame.kind {
                SETTINGS if frame.flags & ACK == 0 => self.send(SETTINGS, ACK, 0, &[]).await,
                PING if frame.flags & ACK == 0 && self.is_alive => {
                    self.send(PING, ACK, 0, &frame.payload).await;
                }
                SETTINGS | PING | WINDOW_UPDATE => {}
                _ => return Some(frame),
            }
        }
    }

    /// The stream of the next request, once its head is here.
    pub(super) async fn request(&mut self) -> Option<u32> {
        loop {
            let frame = self.next().await?;
            if frame.kind == HEADERS {
                return Some(frame.stream);
            }
        }
    }

    /// Reads until the proxy is gone.
    pub(super) async fn read_to_end(&mut self) {
        while self.next().await.is_some() {}
    }

    /// Sends a frame. A proxy that is gone does not matter.
    pub(super) async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("tests write small frames");
        let mut bytes = length.to_be_bytes()[1..].to_vec();
        bytes.extend_from_slice(&[kind, flags]);
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(payload);
        let _ = self.stream.write_all(&bytes).await;
    }

    /// Answers 200 with this body.
    pub(super) async fn answer(&mut self, stream: u32, body: &str) {
        self.send(HEADERS, END_HEADERS, stream, OK).await;
        self.send(DATA, END_STREAM, stream, body.as_bytes()).await;
    }

    /// Answers every request, its number as the body, until the proxy is gone.
    pub(super) async fn answer_all(&mut self, body: &str) {
        while let Some(stream) = self.request().await {
            self.answer(stream, body).await;
        }
    }

    /// Resets a stream.
    pub(super) async fn reset(&mut self, stream: u32, reason: u32) {
        self.send(RST_STREAM, 0, stream, &reason.to_be_bytes())
            .await;
    }

    /// Says goodbye, naming the last stream that was looked at.
    pub(super) async fn go_away(&mut self, last: u32, reason: u32) {
        let mut payload = last.to_be_bytes().to_vec();
        payload.extend_from_slice(&reason.to_be_bytes());
        self.send(GOAWAY, 0, 0, &payload).await;
    }
}

/// A field that is not indexed, as HPACK writes it.
pub(super) fn field(name: &str, value: &str) -> Vec<u8> {
    let mut block = vec![0];
    for text in [name, value] {
        block.push(u8::try_from(text.len()).expect("tests write short fields"));
        assert!(text.len() < 127, "longer ones need another form");
        block.extend_from_slice(text.as_bytes());
    }
    block
}
