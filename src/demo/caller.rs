//! One HTTP client with one kept-alive connection, as a browser tab or a dashboard has.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{COOKIE, HOST};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Longer than any answer may take in the demonstration, a failed one included.
const PATIENCE: Duration = Duration::from_secs(10);

/// The metrics of one split are far below this.
const BODY_LIMIT: usize = 4 * 1024 * 1024;

/// One client. It asks one thing at a time and never asks twice: what fails, fails.
pub(super) struct Caller {
    address: SocketAddr,
    host: String,
    connection: Option<SendRequest<Empty<Bytes>>>,
}

/// What came back.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Caller {
    /// A client of the server at `address`; it connects when it first asks.
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            host: address.to_string(),
            connection: None,
        }
    }

    /// Asks for `path`. After an error, the next question is asked on a new connection.
    pub(super) async fn get(
        &mut self,
        path: &str,
        cookie: Option<&str>,
    ) -> Result<Answer, Box<dyn Error + Send + Sync>> {
        let mut request = Request::get(path).header(HOST, &self.host);
        if let Some(cookie) = cookie {
            request = request.header(COOKIE, cookie);
        }
        let request = request.body(Empty::new())?;
        let kept = self.connection.take();
        let exchange = async {
            let mut connection = match kept.filter(|connection| !connection.is_closed()) {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            connection.ready().await?;
            let (head, body) = connection.send_request(request).await?.into_parts();
            let body = Limited::new(body, BODY_LIMIT).collect().await?.to_bytes();
            let answer = Answer {
                status: head.status,
                headers: head.headers,
                body,
            };
            Ok::<_, Box<dyn Error + Send + Sync>>((connection, answer))
        };
        let (connection, answer) = tokio::time::timeout(PATIENCE, exchange).await??;
        self.connection = Some(connection);
        Ok(answer)
    }

    async fn connect(&self) -> Result<SendRequest<Empty<Bytes>>, Box<dyn Error + Send + Sync>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // Ends by itself when the sender is dropped; an error of it is an error of the exchange.
        tokio::spawn(connection);
        Ok(sender)
    }
}
