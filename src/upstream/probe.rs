//! One GET to an endpoint, asked by us and not by a client: for health checks and smoke tests.
//!
//! It takes no part in pools, counts and ejection: a question of ours is no evidence about requests.

use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinSet;

use crate::config::model::Protocol;
use crate::upstream::connect::Stream;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Probe<'a> {
    /// Path and query.
    pub path: &'a str,
    /// The `Host`.
    pub host: &'a str,
    /// The `User-Agent`, so that a server's log tells who asks.
    pub user_agent: &'a str,
    /// The `Authorization`, where the server wants one.
    pub authorization: Option<&'a HeaderValue>,
}

/// The head of an answer; what is left of it comes while this is kept.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Incoming,
    /// Drives the connection; ended by drop.
    _connection: JoinSet<()>,
}

/// There is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ProbeFailure {
    /// The connection ended, or what came is no HTTP.
    #[error("no valid answer: {0}")]
    Answer(#[from] hyper::Error),
    /// Path or host cannot stand in a request.
    #[error("this cannot be asked for: {0}")]
    Request(#[from] http::Error),
}

/// Asks over `stream`, and waits for the head of the answer. Without a time limit of its own.
///
/// # Errors
/// [`ProbeFailure`] where none comes.
pub async fn get(
    stream: Stream,
    protocol: Protocol,
    probe: Probe<'_>,
) -> Result<Answer, ProbeFailure> {
    let request = match protocol {
        Protocol::Http1 => Request::get(probe.path)
            .header(header::HOST, probe.host)
            .header(header::CONNECTION, "close"),
        Protocol::Http2 => {
            let scheme = match stream {
                Stream::Tcp(_) => Scheme::HTTP,
                Stream::Tls(_) => Scheme::HTTPS,
            };
            let uri = Uri::builder().scheme(scheme).authority(probe.host);
            Request::get(uri.path_and_query(probe.path).build()?)
        }
    };
    let request = request.header(header::USER_AGENT, probe.user_agent);
    let mut request = request.body(Empty::<Bytes>::new())?;
    if let Some(authorization) = probe.authorization {
        let authorization = authorization.clone();
        request
            .headers_mut()
            .insert(header::AUTHORIZATION, authorization);
    }
    let stream = TokioIo::new(stream);
    let mut driven = JoinSet::new();
    // What goes wrong with the connection reaches the sender as well.
    let answer = match protocol {
        Protocol::Http1 => {
            let (mut sender, connection) = http1::handshake(stream).await?;
            driven.spawn(async { drop(connection.await) });
            sender.send_request(request).await?
        }
        Protocol::Http2 => {
            let executor = TokioExecutor::new();
            let (mut sender, connection) = http2::handshake(executor, stream).await?;
            driven.spawn(async { drop(connection.await) });
            sender.send_request(request).await?
        }
    };
    let (head, body) = answer.into_parts();
    Ok(Answer {
        status: head.status,
        body,
        _connection: driven,
    })
}
