//! One client connection, from its first byte to its end.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tower::Service;

use crate::config::model::{Edge, Opening};
use crate::edge::Entrance;
use crate::proxy::peer::Peer;
use crate::proxy::worker::Worker;
use crate::telemetry::edge::{Closure, EdgeRefusal};
use crate::upstream::inflow::Arriving;

use super::acceptor::Accepted;
use super::farewell::drive;
use super::frames::Counted;
use super::gather::{Gathering, Sending};
use super::http1;
use super::http2;
use super::introduction::read_introduction;
use super::last_call::LastCall;
use super::quiet::{Awaited, Quiet};
use super::reader::Readers;
use super::stream::ClientStream;

/// How an HTTP/2 connection begins when the client knows beforehand (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes read at first: as much as nearly every head takes, so that one system call is enough.
const FIRST_READ: usize = 4 * 1024;

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
///
/// What rests in here, rests thousands of times. Hence no `async fn`, which keeps room for its
/// arguments beside what becomes of them; and what is rare or short is boxed, so that an idle
/// connection has room for what it is, and not for the largest of what it could have been.
pub fn serve(
    worker: Rc<Worker>,
    entrance: Entrance,
    accepted: Accepted,
    tls: Option<Arc<rustls::ServerConfig>>,
) -> impl Future<Output = ()> {
    worker.edge.accepted();
    let Accepted {
        stream, opening, ..
    } = accepted;
    let mut peer = Peer {
        address: accepted.peer,
        secure: tls.is_some(),
    };
    async move {
        let Ok(mut stream) = TcpStream::from_std(stream) else {
            return;
        };
        if opening == Opening::ProxyProtocol {
            let introduced = Box::pin(introduced(&worker, peer, stream)).await;
            (peer.address, stream) = match introduced {
                Ok(introduced) => introduced,
                Err(Uninvited(None)) => return,
                Err(Uninvited(Some(closure))) => return close(&worker, peer, closure),
            };
        }
        let Ok(_place) = entrance.place(peer) else {
            return close(&worker, peer, Closure::AddressConnections);
        };
        let stream = ClientStream::new(stream, &worker);
        let ended = match tls {
            Some(tls) => Box::pin(serve_tls(&worker, &entrance, peer, stream, tls)).await,
            None => {
                let sniffed = Box::pin(sniff(&worker, peer, stream)).await;
                match sniffed.spoken {
                    Ok(Spoken::Http1) => {
                        let served = serve_http1(&worker, &entrance, peer, sniffed).await;
                        served.map_err(ConnectionError::Io)
                    }
                    Ok(Spoken::Http2) => {
                        Box::pin(serve_http2(&worker, &entrance, peer, sniffed.again())).await
                    }
                    Ok(Spoken::Nothing) => Ok(()),
                    Err(kind) => Err(ConnectionError::Io(kind.into())),
                }
            }
        };
        if let Err(error) = ended {
            if let ConnectionError::Http(error) = &error {
                count_refused(&worker, error);
            }
            // Clients break off all the time; that is their right and no news.
            tracing::debug!(peer = %peer.address, %error, "connection ended early");
        }
    }
}

/// Leaves a connection to be closed, and counts why.
fn close(worker: &Worker, peer: Peer, closure: Closure) {
    worker.edge.closed(closure);
    tracing::debug!(peer = %peer.address, reason = closure.as_str(), "connection closed");
}

/// The address of the client that `balancer` speaks for, its own where it names none; and the stream
/// behind the introduction.
async fn introduced(
    worker: &Rc<Worker>,
    balancer: Peer,
    mut stream: TcpStream,
) -> Result<(SocketAddr, TcpStream), Uninvited> {
    let view = worker.view();
    if !balancer.is_trusted(&view.snapshot.routing.edge.trusted_proxies) {
        return Err(Uninvited(Some(Closure::ProxyProtocolStranger)));
    }
    match in_time(worker, read_introduction(&mut stream)).await {
        Ok(Ok(client)) => Ok((client.unwrap_or(balancer.address), stream)),
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
    let deadline = worker.deadlines.add();
    deadline.set(worker.view().snapshot.routing.edge.handshake_timeout);
    let mut handshake = pin!(TlsAcceptor::from(tls).accept(stream));
    let handshake = poll_fn(|cx| match handshake.as_mut().poll(cx) {
        Poll::Pending => {
            let passed = deadline.poll_passed(cx);
            passed.map(|()| Err(io::ErrorKind::TimedOut.into()))
        }
        finished => finished,
    });
    let stream = handshake.await.map_err(|error| {
        worker.edge.closed(Closure::TlsHandshake);
        ConnectionError::Io(error)
    })?;
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    if is_http2 {
        Box::pin(serve_http2(worker, entrance, peer, stream)).await
    } else {
        http1::serve(worker, entrance, peer, stream, BytesMut::new())
            .await
            .map_err(ConnectionError::Io)
    }
}

fn serve_http1(
    worker: &Rc<Worker>,
    entrance: &Entrance,
    peer: Peer,
    sniffed: Sniffed,
) -> impl Future<Output = io::Result<()>> + use<> {
    let Sniffed { stream, read, .. } = sniffed;
    http1::serve(worker, entrance, peer, stream, read)
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
        let request: http::Request<Incoming> = request;
        let answer = service.clone().call(request.map(Arriving::Http2).into());
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
    let open = worker.connections.add();
    let deadline = worker.deadlines.add();
    deadline.set(worker.view().snapshot.routing.edge.header_timeout);
    // It may have connected a moment before the drain, its request on the way.
    let mut last_call = LastCall::default();
    let mut future = pin!(future);
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            Poll::Ready(Ok(output))
        } else if open.poll_draining(cx).is_ready() {
            let over = last_call.poll_over(&worker.deadlines, cx);
            over.map(|()| Err(Late::Draining))
        } else {
            deadline.poll_passed(cx).map(|()| Err(Late::Timeout))
        }
    })
    .await
}

/// A client did not say in time what was waited for.
enum Late {
    /// The worker drains.
    Draining,
    Timeout,
}

/// Why a connection ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error(transparent)]
    Io(io::Error),
    #[error(transparent)]
    Http(hyper::Error),
}

/// A plain connection, what was read from it, and what that is.
struct Sniffed {
    stream: ClientStream,
    read: BytesMut,
    /// The kind of error is all that is of interest.
    spoken: Result<Spoken, io::ErrorKind>,
}

/// What is spoken on a plain connection.
#[derive(Clone, Copy)]
enum Spoken {
    Http1,
    Http2,
    /// Nothing, in time.
    Nothing,
}

impl Sniffed {
    /// The stream as if nothing had been read from it.
    fn again(mut self) -> ClientStream {
        self.stream.unread(self.read);
        self.stream
    }
}

async fn sniff(worker: &Rc<Worker>, peer: Peer, mut stream: ClientStream) -> Sniffed {
    let mut read = BytesMut::new();
    let spoken = in_time(worker, poll_fn(|cx| poll_sniff(&mut stream, &mut read, cx))).await;
    let spoken = match spoken {
        Ok(spoken) => spoken.map_err(|error| error.kind()),
        Err(Late::Draining) => Ok(Spoken::Nothing),
        Err(Late::Timeout) => {
            close(worker, peer, Closure::NoRequest);
            Ok(Spoken::Nothing)
        }
    };
    Sniffed {
        stream,
        read,
        spoken,
    }
}

/// Reads until it is clear whether the client speaks HTTP/2: for all but `P…`, one byte tells.
fn poll_sniff(
    stream: &mut ClientStream,
    read: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Spoken>> {
    loop {
        let mut room = [MaybeUninit::uninit(); FIRST_READ];
        let mut first = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut first))?;
        let is_end = first.filled().is_empty();
        read.extend_from_slice(first.filled());
        let compared = read.len().min(PREFACE.len());
        let is_prefix = read[..compared] == PREFACE[..compared];
        if is_prefix && compared == PREFACE.len() {
            return Poll::Ready(Ok(Spoken::Http2));
        }
        if is_end || !is_prefix {
            return Poll::Ready(Ok(Spoken::Http1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of what a function of these arguments returns.
    const fn size_of_result<W, E, A, T, F>(_: fn(W, E, A, T) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_that_rests_is_small() {
        // Thousands rest at any moment. What is rare or short belongs into a box of its own.
        let bytes = size_of_result(serve);
        assert!(bytes <= 512, "{bytes}");
    }
}
