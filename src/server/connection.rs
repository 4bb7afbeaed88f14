//! One client connection, from its first byte to its end.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tower::Service;

use crate::config::model::{Edge, Opening};
use crate::edge::Entrance;
use crate::proxy::peer::Peer;
use crate::proxy::worker::Worker;
use crate::telemetry::edge::{Closure, EdgeRefusal};
use crate::upstream::inflow::Arriving;

use super::farewell::drive;
use super::frames::Counted;
use super::gather::{Gathering, Sending};
use super::http1;
use super::http2;
use super::introduction::read_introduction;
use super::last_call::LAST_CALL;
use super::listener::Accepted;
use super::quiet::{Awaited, Quiet};
use super::reader::Readers;
use super::stream::ClientStream;

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
        http1::serve(worker, entrance, peer, stream)
            .await
            .map_err(ConnectionError::Io)
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
        http1::serve(worker, entrance, peer, stream)
            .await
            .map_err(ConnectionError::Io)
    }
}

/// Requests after which a client is asked to connect anew.
fn most_requests(edge: &Edge) -> u64 {
    edge.max_requests_per_connection.unwrap_or(u64::MAX)
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
        let (answering, reader) = (asked.begin(), begun.begin());
        let answer = service.clone().call(request.map(Arriving::Http2));
        Awaited::new(answer, answering, reader)
    });
    let stream = Gathering::new(stream);
    let outgoing = stream.share();
    let stream = TokioIo::new(Counted::new(stream, worker));
    let connection = http2::builder(readers, max_head).serve_connection(stream, service);
    let connection = pin!(connection);
    let sending = pin!(Sending::new(connection, outgoing));
    drive(worker, sending, &quiet, |sending| {
        sending.connection().graceful_shutdown();
    })
    .await
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
pub(super) enum ConnectionError {
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
