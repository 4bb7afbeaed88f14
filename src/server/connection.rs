//! One client connection, from its first byte to its end.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue};
use http::{Response, StatusCode};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tower::{Service, ServiceExt};

use crate::config::model::{Edge, Opening};
use crate::edge::Entrance;
use crate::edge::overload::CountedBody;
use crate::proxy::peer::Peer;
use crate::proxy::worker::Worker;
use crate::telemetry::edge::{Closure, EdgeRefusal};

use super::farewell::drive;
use super::frames::Counted;
use super::half_close::{Answering, HalfClosing};
use super::http2;
use super::introduction::read_introduction;
use super::last_call::LAST_CALL;
use super::listener::Accepted;
use super::patience::{Patience, answer_late_head};
use super::quiet::{Answer, Quiet};
use super::reader::Readers;
use super::stream::{ClientStream, ToClient};

/// Fields for which hyper has room without being told. Any other number costs it more.
const HYPERS_FIELDS: usize = 100;
/// How an HTTP/2 connection begins when the client knows beforehand (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The TLS settings of each listener, in the configuration's order; replaced on reload.
#[derive(Debug, Default)]
pub struct ServerTlsConfigs(pub Vec<Option<Arc<rustls::ServerConfig>>>);

impl ServerTlsConfigs {
    /// Those of a listener; none for plain HTTP.
    pub fn for_listener(&self, index: usize) -> Option<Arc<rustls::ServerConfig>> {
        self.0.get(index).cloned().flatten()
    }
}

/// Serves a connection until it ends.
pub async fn serve(
    worker: Rc<Worker>,
    entrance: Entrance,
    accepted: Accepted,
    tls: Option<Arc<rustls::ServerConfig>>,
) {
    worker.edge.accepted();
    let mut peer = Peer {
        address: accepted.peer,
        secure: tls.is_some(),
    };
    let Ok(mut stream) = TcpStream::from_std(accepted.stream) else {
        return;
    };
    if accepted.opening == Opening::ProxyProtocol {
        match Box::pin(introduced(&worker, peer, &mut stream)).await {
            Ok(address) => peer.address = address,
            Err(Uninvited(closure)) => {
                if let Some(closure) = closure {
                    close(&worker, peer, closure);
                }
                return;
            }
        }
    }
    let Ok(_place) = entrance.place(peer) else {
        return close(&worker, peer, Closure::AddressConnections);
    };
    let stream = ClientStream::new(stream, &worker);
    let ended = match tls {
        // Boxed, here and below, so that an idle connection has room for what it is, and not for
        // the largest of what it could have been.
        Some(tls) => Box::pin(serve_tls(&worker, &entrance, peer, stream, tls)).await,
        None => serve_plain(&worker, &entrance, peer, stream).await,
    };
    if let Err(error) = ended {
        if let ConnectionError::Http(error) = &error {
            count_refused(&worker, error);
        }
        // Clients break off all the time; that is their right and no news.
        tracing::debug!(peer = %peer.address, %error, "connection ended early");
    }
}

/// Leaves a connection to be closed, and counts why.
fn close(worker: &Worker, peer: Peer, closure: Closure) {
    worker.edge.closed(closure);
    tracing::debug!(peer = %peer.address, reason = closure.as_str(), "connection closed");
}

/// The address of the client that `balancer` speaks for; its own where it names none.
async fn introduced(
    worker: &Rc<Worker>,
    balancer: Peer,
    stream: &mut TcpStream,
) -> Result<SocketAddr, Uninvited> {
    let view = worker.view();
    if !balancer.is_trusted(&view.snapshot.routing.edge.trusted_proxies) {
        return Err(Uninvited(Some(Closure::ProxyProtocolStranger)));
    }
    match in_time(worker, read_introduction(stream)).await {
        Ok(Ok(client)) => Ok(client.unwrap_or(balancer.address)),
        Err(Late::Draining) => Err(Uninvited(None)),
        Ok(Err(error)) => {
            tracing::debug!(balancer = %balancer.address, %error, "nobody was introduced");
            Err(Uninvited(Some(Closure::ProxyProtocolInvalid)))
        }
        Err(Late::Timeout) => Err(Uninvited(Some(Closure::ProxyProtocolInvalid))),
    }
}

/// Nobody is let in, for a reason that counts; none where the worker drains.
struct Uninvited(Option<Closure>);

/// Counts what hyper has refused by itself, since no service has seen it.
fn count_refused(worker: &Worker, error: &hyper::Error) {
    if error.is_parse_too_large() {
        worker.edge.refused(EdgeRefusal::HeadTooLarge);
    } else if error.is_parse() {
        worker.edge.refused(EdgeRefusal::Malformed);
    }
}

async fn serve_tls(
    worker: &Rc<Worker>,
    entrance: &Entrance,
    peer: Peer,
    stream: ClientStream,
    tls: Arc<rustls::ServerConfig>,
) -> Result<(), ConnectionError> {
    let patience = worker.view().snapshot.routing.edge.handshake_timeout;
    let handshake = timeout(patience, TlsAcceptor::from(tls).accept(stream)).await;
    let stream = match handshake {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            worker.edge.closed(Closure::TlsHandshake);
            return Err(ConnectionError::Io(error));
        }
        Err(_) => {
            worker.edge.closed(Closure::TlsHandshake);
            return Err(ConnectionError::Io(io::ErrorKind::TimedOut.into()));
        }
    };
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    if is_http2 {
        Box::pin(serve_http2(worker, entrance, peer, stream)).await
    } else {
        serve_http1(worker, entrance, peer, stream).await
    }
}

async fn serve_plain(
    worker: &Rc<Worker>,
    entrance: &Entrance,
    peer: Peer,
    mut stream: ClientStream,
) -> Result<(), ConnectionError> {
    let sniffed = match in_time(worker, sniff(&mut stream)).await {
        Ok(sniffed) => sniffed,
        Err(Late::Draining) => return Ok(()),
        Err(Late::Timeout) => {
            close(worker, peer, Closure::NoRequest);
            return Ok(());
        }
    };
    let Sniffed { is_http2, read } = sniffed.map_err(ConnectionError::Io)?;
    stream.unread(read);
    if is_http2 {
        Box::pin(serve_http2(worker, entrance, peer, stream)).await
    } else {
        serve_http1(worker, entrance, peer, stream).await
    }
}

async fn serve_http1<S>(
    worker: &Rc<Worker>,
    entrance: &Entrance,
    peer: Peer,
    stream: S,
) -> Result<(), ConnectionError>
where
    S: AsyncRead + AsyncWrite + ToClient + Unpin + 'static,
{
    let most = most_requests(&worker.view().snapshot.routing.edge);
    let connections = Rc::clone(&worker.connections);
    let answering = Answering::default();
    let asked = answering.clone();
    let switched = Cell::new(None);
    let left = &switched;
    let answered = Cell::new(0);
    let answered = &answered;
    // HTTP/2 has frames for both, which are sent by `drive`.
    let service =
        entrance
            .service(peer)
            .map_response(move |mut response: Response<CountedBody>| {
                answered.set(answered.get() + 1);
                let is_last = connections.is_leaving() || answered.get() >= most;
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    left.set(Some(response.body_mut().take()));
                } else if is_last {
                    let headers = response.headers_mut();
                    headers.insert(CONNECTION, HeaderValue::from_static("close"));
                }
                response.map(|body| asked.until_end_of(body, is_last))
            });
    let stream = half_closing(worker, stream, answering.clone());
    let phase = answering.clone();
    let service = Ready { service, answering };
    let mut connection = http1_builder(worker).serve_connection(TokioIo::new(stream), service);
    let ended = drive(
        worker,
        Pin::new(&mut connection),
        None,
        || phase.phase(),
        |connection| connection.graceful_shutdown(),
    )
    .await;
    if phase.is_late() {
        // With an empty buffer the end is an orderly one to hyper.
        let head = connection.into_parts();
        let has_begun = ended.is_err() && !head.read_buf.is_empty();
        if has_begun || answered.get() == 0 {
            close(worker, peer, Closure::NoRequest);
        }
        if has_begun {
            let stream = head.io.into_inner().into_inner();
            Box::pin(answer_late_head(stream, worker.clock.wall())).await;
        }
        return Ok(());
    }
    ended.map_err(ConnectionError::Http)?;
    if let Some(body) = switched.take() {
        let parts = connection.into_parts();
        let stream = parts.io.into_inner().into_inner();
        Box::pin(pass_through(body, stream, parts.read_buf)).await;
    }
    Ok(())
}

/// The stream of an HTTP/1 client, with the patience that is configured now.
fn half_closing<S>(worker: &Worker, stream: S, answering: Answering) -> HalfClosing<S> {
    let view = worker.view();
    let edge = &view.snapshot.routing.edge;
    let deadlines = &worker.deadlines;
    let patience = Patience::new(deadlines, edge.header_timeout);
    HalfClosing::new(
        stream,
        answering,
        patience,
        deadlines,
        edge.half_close_grace,
    )
}

/// Serves a client whose connection has switched protocols; `body` is what came with the 101.
async fn pass_through<S>(mut body: CountedBody, mut stream: S, ahead: Bytes)
where
    S: AsyncRead + AsyncWrite + ToClient + Unpin,
{
    if let Some(tunnel) = body.take_tunnel() {
        // What is said there, and when, is no matter of ours.
        stream.stop_watching();
        tunnel.run(stream, ahead).await;
    }
}

/// Requests after which a client is asked to connect anew.
fn most_requests(edge: &Edge) -> u64 {
    edge.max_requests_per_connection.unwrap_or(u64::MAX)
}

/// How HTTP/1 is spoken now. A connection that kept what this looks at would keep a whole snapshot.
fn http1_builder(worker: &Worker) -> http1::Builder {
    let view = worker.view();
    let edge = &view.snapshot.routing.edge;
    let mut builder = http1::Builder::new();
    builder
        .header_read_timeout(None)
        .max_header_size(edge.max_head)
        .title_case_headers(true);
    if edge.max_fields != HYPERS_FIELDS {
        builder.max_headers(edge.max_fields);
    }
    builder
}

async fn serve_http2<S>(
    worker: &Rc<Worker>,
    entrance: &Entrance,
    peer: Peer,
    stream: S,
) -> Result<(), ConnectionError>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let view = worker.view();
    let edge = &view.snapshot.routing.edge;
    let (patience, max_head) = (edge.header_timeout, edge.max_head);
    let quiet = Quiet::new(&worker.deadlines, patience, most_requests(edge));
    drop(view);
    let service = entrance.service(peer);
    let asked = Rc::clone(&quiet);
    let readers = Readers::new(&worker.deadlines, patience);
    let begun = Rc::clone(&readers);
    let service = hyper::service::service_fn(move |request| {
        let mut answering = asked.begin();
        let reader = begun.begin();
        let answer = service.clone().call(request);
        async move {
            let response = answer.await?;
            answering.is_answered();
            Ok::<_, Infallible>(response.map(|body| Answer {
                body,
                _answering: answering,
                reader,
            }))
        }
    });
    let stream = TokioIo::new(Counted::new(stream, worker));
    let connection = http2::builder(readers, max_head).serve_connection(stream, service);
    let connection = pin!(connection);
    drive(
        worker,
        connection,
        Some(&quiet),
        || quiet.phase(),
        |connection| connection.graceful_shutdown(),
    )
    .await
    .map_err(ConnectionError::Http)
}

/// A tower service as hyper calls one.
///
/// The edge's layers turn away what is too much instead of making it wait, so they are always
/// ready; asking would cost every request a move of its future.
struct Ready<S> {
    service: S,
    answering: Answering,
}

impl<S, B> hyper::service::Service<B> for Ready<S>
where
    S: Service<B> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn call(&self, request: B) -> S::Future {
        self.answering.begin();
        self.service.clone().call(request)
    }
}

/// What `future` returns, unless a client takes longer with it than with a head, or the worker
/// drains.
async fn in_time<F: Future>(worker: &Rc<Worker>, future: F) -> Result<F::Output, Late> {
    let patience = worker.view().snapshot.routing.edge.header_timeout;
    let mut future = pin!(future);
    match timeout(patience, until_draining(worker, future.as_mut())).await {
        Ok(Some(output)) => Ok(output),
        // It may have connected a moment before the drain, its request on the way.
        Ok(None) => timeout(LAST_CALL, future).await.map_err(|_| Late::Draining),
        Err(_) => Err(Late::Timeout),
    }
}

/// A client did not say in time what was waited for.
enum Late {
    /// The worker drains.
    Draining,
    Timeout,
}

/// What `future` returns, unless the worker drains first.
async fn until_draining<F: Future>(worker: &Rc<Worker>, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let open = worker.connections.add();
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => open.poll_draining(cx).map(|()| None),
    })
    .await
}

/// Why a connection ended early.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error(transparent)]
    Io(io::Error),
    #[error(transparent)]
    Http(hyper::Error),
}

/// The first bytes of a plain connection, and what they say.
struct Sniffed {
    is_http2: bool,
    read: Vec<u8>,
}

/// Reads until it is clear whether the client speaks HTTP/2: for all but `P…`, one byte tells.
async fn sniff(stream: &mut ClientStream) -> io::Result<Sniffed> {
    let mut read = Vec::with_capacity(PREFACE.len());
    loop {
        let is_end = stream.read_buf(&mut read).await? == 0;
        let compared = read.len().min(PREFACE.len());
        let is_prefix = read[..compared] == PREFACE[..compared];
        if is_end || !is_prefix || compared == PREFACE.len() {
            return Ok(Sniffed {
                is_http2: is_prefix && compared == PREFACE.len(),
                read,
            });
        }
    }
}
