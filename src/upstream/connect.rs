//! Opening a connection to an endpoint: TCP, then TLS where the backend asks for it.
//!
//! The caller owns the time limit. A failure here is always before the first byte of a request, so
//! it may be replayed whatever its method; the error says which phase failed and why.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::model::{self, Protocol};
use crate::policy::class::Failure;
use crate::upstream::endpoint::Endpoint;

/// When the kernel starts asking a silent peer whether it is still there. Idle connections are
/// closed long before; this ends the ones that wait for an answer from a host that lost power.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// The name of HTTP/2 over TLS.
const HTTP2: &[u8] = b"h2";

/// How long one address of a name is waited for before the next one is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);

/// ENFILE and EMFILE: no file descriptor, of the machine and of the process. ENOBUFS and ENOMEM: no
/// memory for a socket. EADDRNOTAVAIL: no port left towards this address, or no address of our own
/// to connect from. The numbers are Linux's, on every architecture that we are built for.
const OWN_EXHAUSTION: [i32; 5] = [23, 24, 105, 12, 99];

/// How a backend's connections are secured.
#[derive(Clone, Debug)]
pub struct UpstreamTls {
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
    protocol: Protocol,
}

/// The TLS settings of a backend cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidTls {
    /// The given roots are no PEM certificates.
    #[error("the root certificates cannot be read: {0}")]
    UnreadableRoots(String),
    /// There is no root at all.
    #[error("there is no root certificate to trust; give a file of PEM certificates")]
    NoRoots,
    /// The name to verify is neither a host name nor an address.
    #[error("`{0}` is not a server name; write a host name or an IP address")]
    ServerName(String),
    /// The TLS library refuses.
    #[error("TLS cannot be set up: {0}")]
    Refused(#[from] rustls::Error),
}

impl UpstreamTls {
    /// Verification as `settings` say, `protocol` by ALPN. Reads the system's roots where none are
    /// given.
    ///
    /// # Errors
    /// [`InvalidTls`] where roots or server name cannot be used.
    pub fn new(settings: &model::ClientTls, protocol: Protocol) -> Result<UpstreamTls, InvalidTls> {
        let mut roots = RootCertStore::empty();
        match &settings.roots_pem {
            Some(pem) => {
                for certificate in CertificateDer::pem_slice_iter(pem) {
                    let certificate = certificate
                        .map_err(|error| InvalidTls::UnreadableRoots(error.to_string()))?;
                    roots
                        .add(certificate)
                        .map_err(|error| InvalidTls::UnreadableRoots(error.to_string()))?;
                }
            }
            // A few odd certificates in a system's store are common, and none of our business.
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        if roots.is_empty() {
            return Err(InvalidTls::NoRoots);
        }
        // The provider is named, because a process-wide default is whichever crate comes first.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![match protocol {
            Protocol::Http1 => b"http/1.1".to_vec(),
            Protocol::Http2 => HTTP2.to_vec(),
        }];
        let server_name = settings.server_name.as_deref().map(server_name);
        Ok(UpstreamTls {
            config: Arc::new(config),
            server_name: server_name.transpose()?,
            protocol,
        })
    }

    /// The name that the certificate of `endpoint` must bear.
    ///
    /// # Errors
    /// [`InvalidTls::ServerName`] where none is configured and the endpoint's host cannot be one.
    pub fn name_to_verify(&self, endpoint: &Endpoint) -> Result<ServerName<'static>, InvalidTls> {
        match &self.server_name {
            Some(name) => Ok(name.clone()),
            None => server_name(&endpoint.location().host()),
        }
    }
}

fn server_name(host: &str) -> Result<ServerName<'static>, InvalidTls> {
    ServerName::try_from(host.to_owned()).map_err(|_| InvalidTls::ServerName(host.to_owned()))
}

/// Why there is no connection. Nothing of any request was sent.
#[derive(Debug, thiserror::Error)]
pub enum ConnectFailure {
    /// Not found, refused or unreachable.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// The peer did not prove who it is, or does not speak TLS.
    #[error("TLS handshake failed: {0}")]
    Tls(#[source] io::Error),
    /// The peer did not choose HTTP/2, which is configured.
    #[error("the upstream does not offer HTTP/2: ALPN chose no `h2`")]
    NoHttp2,
    /// This machine has no file descriptor, port or memory left for a connection. No endpoint was
    /// asked, so none is to blame.
    #[error("no socket left to connect with: {0}")]
    NoSocket(#[source] io::Error),
}

impl ConnectFailure {
    /// What the attempt is booked as; `None` where there was none.
    pub const fn failure(&self) -> Option<Failure> {
        match self {
            ConnectFailure::Connect(_) => Some(Failure::Connect),
            ConnectFailure::Tls(_) | ConnectFailure::NoHttp2 => Some(Failure::Tls),
            ConnectFailure::NoSocket(_) => None,
        }
    }

    fn connect(error: io::Error) -> Self {
        if is_own_exhaustion(&error) {
            ConnectFailure::NoSocket(error)
        } else {
            ConnectFailure::Connect(error)
        }
    }

    /// The resolver needs files and sockets too, and hides what it lacked behind an error of its
    /// own. So the system is asked whether a socket can be had.
    fn look_up(error: io::Error) -> Self {
        match Socket::new(Domain::IPV4, Type::STREAM, None) {
            Err(own) if is_own_exhaustion(&own) => ConnectFailure::NoSocket(own),
            _ => ConnectFailure::connect(error),
        }
    }
}

/// Whether `error` says that this process or machine has run out of something, whoever was to be
/// connected to.
fn is_own_exhaustion(error: &io::Error) -> bool {
    match error.raw_os_error() {
        Some(code) => OWN_EXHAUSTION.contains(&code),
        None => false,
    }
}

/// Opens a connection to `endpoint`, secured if `tls` is given. The addresses of a name
/// are tried in order, each a moment after the one before. Without a time limit of its own.
///
/// # Errors
/// [`ConnectFailure`] says which phase failed.
pub async fn connect(
    endpoint: &Endpoint,
    tls: Option<&UpstreamTls>,
) -> Result<Stream, ConnectFailure> {
    let addresses = endpoint.addresses().await;
    let addresses = addresses.map_err(ConnectFailure::look_up)?;
    let tcp = connect_any(&addresses).await;
    let tcp = tcp.map_err(ConnectFailure::connect)?;
    prepare(&tcp).map_err(ConnectFailure::connect)?;
    let Some(tls) = tls else {
        return Ok(Stream::Tcp(tcp));
    };
    let name = tls
        .name_to_verify(endpoint)
        .map_err(|error| ConnectFailure::Tls(io::Error::other(error)))?;
    let stream = TlsConnector::from(Arc::clone(&tls.config))
        .connect(name, tcp)
        .await
        .map_err(ConnectFailure::Tls)?;
    // A server that does not know the extension answers nothing, and speaks HTTP/1.
    if tls.protocol == Protocol::Http2 && stream.get_ref().1.alpn_protocol() != Some(HTTP2) {
        return Err(ConnectFailure::NoHttp2);
    }
    Ok(Stream::Tls(Box::new(stream)))
}

/// Connects to the first of the addresses that accepts. An address where nothing happens must not
/// take all the time that there is: the next one is tried a moment later, beside it (RFC 8305).
async fn connect_any(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    if let [only] = addresses {
        return TcpStream::connect(*only).await;
    }
    let mut untried = addresses.iter().copied();
    let mut attempts = JoinSet::new();
    let mut failure: Option<io::Error> = None;
    loop {
        if let Some(address) = untried.next() {
            attempts.spawn(TcpStream::connect(address));
        } else if attempts.is_empty() {
            let unknown = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            return Err(failure.unwrap_or_else(unknown));
        }
        let ended = match untried.len() {
            0 => attempts.join_next().await,
            _ => timeout(HEAD_START, attempts.join_next())
                .await
                .unwrap_or(None),
        };
        match ended {
            Some(Ok(Ok(tcp))) => return Ok(tcp),
            Some(Ok(Err(error))) => failure = Some(telling(failure, error)),
            // Nothing has happened yet. That an attempt panics is not foreseen; it is none.
            Some(Err(_)) | None => {}
        }
    }
}

/// Which of two addresses' errors tells more. An address of a family that this machine does not have
/// must not excuse a peer that refused us at another.
fn telling(before: Option<io::Error>, error: io::Error) -> io::Error {
    match before {
        Some(before) if is_own_exhaustion(&error) => before,
        _ => error,
    }
}

fn prepare(tcp: &TcpStream) -> io::Result<()> {
    // A request goes out in one or two writes; waiting to fill a segment only adds delay.
    tcp.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE_INTERVAL);
    SockRef::from(tcp).set_tcp_keepalive(&keepalive)
}

/// A connection to an endpoint. It belongs to the runtime that opened it.
#[derive(Debug)]
pub enum Stream {
    /// Plain.
    Tcp(TcpStream),
    /// Secured; boxed, for its state is a kilobyte.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Whether an idle connection may be used again: the peer has neither closed it nor sent
    /// anything unasked. While nothing has arrived this asks the runtime's readiness and makes no
    /// system call. A session ticket is taken in and does not count as unasked.
    ///
    /// A byte read here is lost, so a connection that is not quiet must be dropped.
    pub fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        // Nobody waits: the next real read registers its own waker.
        let mut context = Context::from_waker(Waker::noop());
        Pin::new(self)
            .poll_read(&mut context, &mut buffer)
            .is_pending()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Stream::Tcp(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests;
