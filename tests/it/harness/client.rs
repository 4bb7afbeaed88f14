//! Whoever is in front of the proxy: a well-behaved client over one kept-alive connection, and a
//! raw one that says whatever the test writes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::certificate::Certificate;
use super::in_time;

/// When a write that is not taken counts as stuck. Too short under load, it only makes a test find
/// less than is there.
const STUCK: Duration = Duration::from_millis(300);

/// A client with one connection.
pub(crate) enum Client {
    /// HTTP/1.1.
    Http1(http1::SendRequest<Full<Bytes>>),
    /// HTTP/2.
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: u16,
    /// The fields.
    pub(crate) headers: HeaderMap,
    /// What came of the body.
    pub(crate) body: Bytes,
    /// What followed the body.
    pub(crate) trailers: HeaderMap,
    /// Whether the body ended as it should.
    pub(crate) is_whole: bool,
}

impl Client {
    /// HTTP/1.1 in clear.
    pub(crate) async fn http1(address: SocketAddr) -> Self {
        Self::over_http1(connect(address).await).await
    }

    /// HTTP/2 in clear, without asking first.
    pub(crate) async fn http2(address: SocketAddr) -> Self {
        Self::over_http2(connect(address).await).await
    }

    /// TLS, with whatever protocol the server picks of those offered.
    pub(crate) async fn tls(
        address: SocketAddr,
        certificate: &Certificate,
        offer: &[&str],
    ) -> Self {
        Self::over_tls(address, &certificate.connector(offer)).await
    }

    /// TLS by this connector, with whatever protocol the server picks of those it offers.
    pub(crate) async fn over_tls(address: SocketAddr, connector: &TlsConnector) -> Self {
        Self::shaking_hands(connect(address).await, connector).await
    }

    /// The same, over a connection that was opened earlier.
    pub(crate) async fn shaking_hands(stream: TcpStream, connector: &TlsConnector) -> Self {
        let connecting = connector.connect(Certificate::name(), stream);
        let stream = in_time("a TLS handshake", connecting)
            .await
            .expect("TLS is spoken");
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            Self::over_http2(stream).await
        } else {
            Self::over_http1(stream).await
        }
    }

    async fn over_http1(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (sender, connection) = http1::Builder::new()
            .title_case_headers(true)
            .handshake(TokioIo::new(stream))
            .await
            .expect("nothing is exchanged yet");
        tokio::spawn(connection);
        Client::Http1(sender)
    }

    async fn over_http2(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("the preface can be written");
        tokio::spawn(connection);
        Client::Http2(sender)
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// # Errors
    /// The connection ended before there was one.
    pub(crate) async fn begin(
        &mut self,
        mut request: Request<Full<Bytes>>,
    ) -> hyper::Result<Response<Incoming>> {
        match self {
            Client::Http1(sender) => {
                let headers = request.headers_mut();
                headers
                    .entry(http::header::HOST)
                    .or_insert(http::HeaderValue::from_static("api.example"));
                in_time("the connection is free", sender.ready()).await?;
                in_time("an answer", sender.send_request(request)).await
            }
            Client::Http2(sender) => {
                let target = request.uri().to_string();
                if target.starts_with('/') {
                    let absolute = format!("http://api.example{target}");
                    *request.uri_mut() = absolute.parse().expect("a path follows a host");
                }
                in_time("the connection is free", sender.ready()).await?;
                in_time("an answer", sender.send_request(request)).await
            }
        }
    }

    /// Sends a request and reads its answer to the end.
    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> Answer {
        let response = self.begin(request).await.expect("the proxy always answers");
        Answer::read(response).await
    }

    /// GET of `target` with the session key `key` in `X-User`.
    pub(crate) async fn get(&mut self, target: &str, key: &str) -> Answer {
        self.send(get(target, key)).await
    }
}

impl Answer {
    /// Reads an answer to its end.
    pub(crate) async fn read(response: Response<Incoming>) -> Self {
        let (head, mut incoming) = response.into_parts();
        let mut answer = Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: Bytes::new(),
            trailers: HeaderMap::new(),
            is_whole: true,
        };
        let mut body = Vec::new();
        while let Some(frame) = in_time("the body goes on", incoming.frame()).await {
            let Ok(frame) = frame else {
                answer.is_whole = false;
                break;
            };
            match frame.into_data() {
                Ok(data) => body.extend_from_slice(&data),
                Err(frame) => answer.trailers = frame.into_trailers().unwrap_or_default(),
            }
        }
        answer.body = body.into();
        answer
    }

    /// The first field of this name, as text.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The server that answered, if one of the test's did.
    pub(crate) fn served_by(&self) -> Option<&str> {
        self.field("served-by")
    }
}

/// A GET of `target` with the session key `key` in `X-User`.
pub(crate) fn get(target: &str, key: &str) -> Request<Full<Bytes>> {
    request("GET", target, key, Bytes::new())
}

/// A request for `target` with the session key `key` in `X-User`.
pub(crate) fn request(
    method: &str,
    target: &str,
    key: &str,
    body: impl Into<Bytes>,
) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(target)
        .header("x-user", key)
        .body(Full::new(body.into()))
        .expect("tests write valid requests")
}

/// A client that says whatever the test writes.
pub(crate) struct Raw {
    stream: TcpStream,
    ahead: Vec<u8>,
}

impl Raw {
    /// Connects.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self {
            stream: connect(address).await,
            ahead: Vec::new(),
        }
    }

    /// Says that it will say no more, and goes on listening.
    pub(crate) async fn finish(&mut self) {
        let finished = self.stream.shutdown().await;
        finished.expect("the proxy is there");
    }

    /// Leaves without a word.
    pub(crate) fn reset(self) {
        let linger = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        linger.expect("TCP has this option");
    }

    /// Says this.
    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let writing = self.stream.write_all(bytes.as_ref());
        let written = in_time("the proxy reads", writing).await;
        written.expect("the proxy is there");
    }

    /// Says this, and reads as much meanwhile.
    pub(crate) async fn exchange(&mut self, bytes: &[u8]) -> Vec<u8> {
        let (mut reading, mut writing) = self.stream.split();
        let mut heard = vec![0; bytes.len()];
        let both =
            async { tokio::try_join!(writing.write_all(bytes), reading.read_exact(&mut heard)) };
        let exchanged = in_time("the proxy reads and writes", both).await;
        exchanged.expect("the proxy is there");
        heard
    }

    /// Says this, and whether it was taken: not if the other side has left.
    pub(crate) async fn try_write(&mut self, bytes: &[u8]) -> bool {
        let writing = self.stream.write_all(bytes);
        in_time("the proxy reads", writing).await.is_ok()
    }

    /// Says this again and again, byte by byte and fifty bytes a second, until the other side has
    /// had enough; how long that took.
    pub(crate) async fn trickle(&mut self, bytes: &[u8]) -> Duration {
        let began = Instant::now();
        let trickling = async {
            for byte in bytes.iter().cycle() {
                if !self.try_write(&[*byte]).await || self.has_ended() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        in_time("the other side has had enough", trickling).await;
        began.elapsed()
    }

    /// Whether the other side has ended the connection, as far as is known by now.
    pub(crate) fn has_ended(&mut self) -> bool {
        match self.stream.try_read_buf(&mut self.ahead) {
            Ok(count) => count == 0,
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }

    /// Whether the other side has said anything, or ended, as far as is known by now.
    pub(crate) fn has_heard(&mut self) -> bool {
        self.has_ended() || !self.ahead.is_empty()
    }

    /// Says as much of this as is taken until nothing more is for a while.
    pub(crate) async fn write_until_stuck(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while taken < bytes.len() {
            let writing = self.stream.write(&bytes[taken..]);
            match tokio::time::timeout(STUCK, writing).await {
                Ok(Ok(count)) => taken += count,
                Ok(Err(_)) | Err(_) => break,
            }
        }
        taken
    }

    /// The next head, its last empty line included.
    pub(crate) async fn read_head(&mut self) -> String {
        let end = |ahead: &[u8]| ahead.windows(4).position(|window| window == b"\r\n\r\n");
        let length = loop {
            match end(&self.ahead) {
                Some(end) => break end + 4,
                None if self.read_more().await => {}
                None => break self.ahead.len(),
            }
        };
        let head = self.ahead.drain(..length).collect();
        String::from_utf8(head).expect("heads in tests are ASCII")
    }

    /// The next `length` bytes, fewer only if the connection ends.
    pub(crate) async fn read(&mut self, length: usize) -> Vec<u8> {
        while self.ahead.len() < length && self.read_more().await {}
        let length = length.min(self.ahead.len());
        self.ahead.drain(..length).collect()
    }

    /// Everything until the connection ends.
    pub(crate) async fn read_to_end(&mut self) -> Vec<u8> {
        self.read(usize::MAX).await
    }

    /// Reads until the connection ends and keeps nothing.
    pub(crate) async fn skip_to_end(&mut self) {
        while self.read_more().await {
            self.ahead.clear();
        }
    }

    async fn read_more(&mut self) -> bool {
        let reading = self.stream.read_buf(&mut self.ahead);
        // A reset ends a connection as well as anything.
        in_time("the proxy writes", reading).await.unwrap_or(0) > 0
    }
}

async fn connect(address: SocketAddr) -> TcpStream {
    let stream = in_time("the connection is accepted", TcpStream::connect(address))
        .await
        .expect("somebody listens");
    stream.set_nodelay(true).expect("TCP has this option");
    stream
}
