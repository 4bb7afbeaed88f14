//! A server behind the proxy that does as it is told and remembers what it was asked.
//!
//! It speaks HTTP/1.1 by hand, because a library would refuse to misbehave. It has a thread of its
//! own, so that a busy test does not make it slow. Whoever claims that a request was executed once
//! asks [`Upstream::received`].

mod script;
mod wire;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use super::certificate::Certificate;
use super::eventually;

pub(crate) use self::script::{Gate, Reply, Script, Step};
use self::wire::{Reader, Rest};

/// A server behind the proxy. It stops, and refuses connections, when dropped.
pub(crate) struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A request that a server received.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// Counts the server's connections from 0.
    pub(crate) connection: usize,
    /// Such as `GET`.
    pub(crate) method: String,
    /// The request target, byte for byte.
    pub(crate) target: String,
    /// Names as they were written, in their order.
    pub(crate) fields: Vec<(String, String)>,
    /// What was read of it.
    pub(crate) body: Vec<u8>,
    /// Whether the body was read to its end.
    pub(crate) is_whole: bool,
    /// Whether the other side left before the exchange was over.
    pub(crate) was_departed: bool,
    /// The name that the TLS handshake asked for (SNI).
    pub(crate) server_name: Option<String>,
}

impl Received {
    /// The first field of this name.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        fields
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

type Director = dyn Fn(&Received) -> Script + Send + Sync;

struct Shared {
    name: String,
    director: Box<Director>,
    received: Mutex<Vec<Received>>,
    connections: AtomicUsize,
    open_connections: AtomicUsize,
    /// Bytes of floods that the sockets have taken.
    flooded: AtomicUsize,
    tls: Option<TlsAcceptor>,
}

impl Upstream {
    /// A server that does with each request what `director` says once its head has come.
    pub(crate) fn start(
        name: &str,
        director: impl Fn(&Received) -> Script + Send + Sync + 'static,
    ) -> Self {
        Self::begin(loopback(), name, Box::new(director), None)
    }

    /// The same behind TLS.
    pub(crate) fn start_tls(
        name: &str,
        certificate: &Certificate,
        director: impl Fn(&Received) -> Script + Send + Sync + 'static,
    ) -> Self {
        let tls = Some(certificate.acceptor());
        Self::begin(loopback(), name, Box::new(director), tls)
    }

    /// A server that answers everything with 200 and its name.
    pub(crate) fn ok(name: &str) -> Self {
        Self::start(name, answer_all(name))
    }

    fn begin(
        listener: TcpListener,
        name: &str,
        director: Box<Director>,
        tls: Option<TlsAcceptor>,
    ) -> Self {
        listener
            .set_nonblocking(true)
            .expect("a listener can be made non-blocking");
        let address = listener
            .local_addr()
            .expect("a bound listener has an address");
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            director,
            received: Mutex::default(),
            connections: AtomicUsize::new(0),
            open_connections: AtomicUsize::new(0),
            flooded: AtomicUsize::new(0),
            tls,
        });
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || serve(listener, &shared, stopped)
        });
        Self {
            address,
            shared,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Everything received so far, in order of arrival.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.shared.received().clone()
    }

    /// What was received for `target`.
    pub(crate) fn received_for(&self, target: &str) -> Vec<Received> {
        let received = self.shared.received();
        let matching = received.iter().filter(|request| request.target == target);
        matching.cloned().collect()
    }

    /// How many requests there were for which `condition` holds.
    pub(crate) fn count(&self, condition: impl Fn(&Received) -> bool) -> usize {
        self.shared
            .received()
            .iter()
            .filter(|request| condition(request))
            .count()
    }

    /// How many connections were accepted.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many connections are open now, as far as the server has noticed.
    pub(crate) fn open_connections(&self) -> usize {
        self.shared.open_connections.load(Ordering::SeqCst)
    }

    /// How many bytes of floods the sockets have taken.
    pub(crate) fn flooded(&self) -> usize {
        self.shared.flooded.load(Ordering::SeqCst)
    }

    /// Waits until a request for `target` was received, whole or not.
    pub(crate) async fn has_received(&self, target: &str) {
        let what = format!("{} receives {target}", self.shared.name);
        eventually(&what, async || {
            self.count(|request| request.target == target) > 0
        })
        .await;
    }

    /// Waits until the other side has closed the connection on which a request for `target` was
    /// waiting.
    pub(crate) async fn was_departed(&self, target: &str) {
        let what = format!("the connection of {target} closes");
        eventually(&what, async || {
            self.count(|request| request.target == target && request.was_departed) > 0
        })
        .await;
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // The thread may have ended by itself.
        let _ = self.stop.take().map(|stop| stop.send(()));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn received(&self) -> MutexGuard<'_, Vec<Received>> {
        self.received
            .lock()
            .expect("nobody panics while holding this lock")
    }
}

fn serve(listener: TcpListener, shared: &Arc<Shared>, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be built");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).expect("it is non-blocking");
        let accept = async {
            while let Ok((stream, _)) = listener.accept().await {
                let number = shared.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(greet(stream, number, Arc::clone(shared)));
            }
        };
        tokio::select! {
            () = accept => {}
            _ = stopped => {}
        }
    });
}

async fn greet(stream: TcpStream, number: usize, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    shared.open_connections.fetch_add(1, Ordering::SeqCst);
    // A connection that drops is a reset only where a script says so.
    match shared.tls.clone() {
        None => converse(stream, number, None, &shared, set_reset).await,
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream).await {
                let server_name = stream.get_ref().1.server_name().map(str::to_owned);
                converse(stream, number, server_name, &shared, |stream| {
                    set_reset(stream.get_ref().0)
                })
                .await;
            }
        }
    }
    shared.open_connections.fetch_sub(1, Ordering::SeqCst);
}

/// Makes the coming close a reset.
fn set_reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO));
}

/// Why a conversation goes no further.
enum End {
    Close,
    Reset,
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    number: usize,
    server_name: Option<String>,
    shared: &Shared,
    reset: impl Fn(&S),
) {
    let (reading, mut writer) = tokio::io::split(stream);
    let mut reader = Reader::new(reading);
    let end = loop {
        match one_request(
            &mut reader,
            &mut writer,
            number,
            server_name.clone(),
            shared,
        )
        .await
        {
            Ok(None) => {}
            Ok(Some(end)) => break end,
            Err(_) => break End::Close,
        }
    };
    let stream = reader.into_inner().unsplit(writer);
    if matches!(end, End::Reset) {
        reset(&stream);
    }
}

async fn one_request<S: AsyncRead + AsyncWrite>(
    reader: &mut Reader<S>,
    writer: &mut WriteHalf<S>,
    number: usize,
    server_name: Option<String>,
    shared: &Shared,
) -> io::Result<Option<End>> {
    let Some(head) = reader.head().await? else {
        return Ok(Some(End::Close));
    };
    let rest = head.rest();
    let request = Received {
        connection: number,
        method: head.method,
        target: head.target,
        fields: head.fields,
        body: Vec::new(),
        is_whole: rest == Rest::Nothing,
        was_departed: false,
        server_name,
    };
    let script = (shared.director)(&request);
    let method = request.method.clone();
    let index = {
        let mut received = shared.received();
        received.push(request);
        received.len() - 1
    };
    let mut performance = Performance {
        reader,
        writer,
        shared,
        index,
        method,
        rest,
    };
    let performed = performance.perform_all(script.0).await;
    if performed.is_err() {
        shared.received()[index].was_departed = true;
    }
    performed
}

/// A script being followed.
struct Performance<'conversation, S> {
    reader: &'conversation mut Reader<S>,
    writer: &'conversation mut WriteHalf<S>,
    shared: &'conversation Shared,
    /// Where the request stands among those received.
    index: usize,
    method: String,
    rest: Rest,
}

impl<S: AsyncRead + AsyncWrite> Performance<'_, S> {
    async fn perform_all(&mut self, steps: Vec<Step>) -> io::Result<Option<End>> {
        for step in steps {
            if let Some(end) = self.perform(step).await? {
                return Ok(Some(end));
            }
        }
        self.read_body().await?;
        Ok(None)
    }

    async fn perform(&mut self, step: Step) -> io::Result<Option<End>> {
        match step {
            Step::ReadBody => self.read_body().await?,
            Step::ReadSome => self.read_some().await?,
            Step::Answer(reply) => {
                self.read_body().await?;
                let wire = reply.render(&self.shared.name, &self.method);
                self.write(&wire).await?;
            }
            Step::Write(bytes) => self.write(&bytes).await?,
            Step::Flood(length) => self.flood(length).await?,
            Step::Pause(duration) => tokio::time::sleep(duration).await,
            Step::Wait(gate) => gate.passed().await,
            Step::Echo => {
                while self.reader.has_more().await? {
                    let bytes = self.reader.take();
                    self.write(&bytes).await?;
                }
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Step::AwaitDeparture => {
                while self.reader.has_more().await? {
                    self.reader.forget();
                }
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Step::CloseAtNextRequest => {
                self.reader.has_more().await?;
                return Ok(Some(End::Reset));
            }
            Step::Close => return Ok(Some(End::Close)),
            Step::Reset => return Ok(Some(End::Reset)),
        }
        Ok(None)
    }

    async fn read_body(&mut self) -> io::Result<()> {
        while self.rest != Rest::Nothing {
            self.read_some().await?;
        }
        Ok(())
    }

    async fn read_some(&mut self) -> io::Result<()> {
        let mut news = Vec::new();
        self.reader.some(&mut self.rest, &mut news).await?;
        let request = &mut self.shared.received()[self.index];
        request.body.append(&mut news);
        request.is_whole = self.rest == Rest::Nothing;
        Ok(())
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes).await?;
        self.writer.flush().await
    }

    async fn flood(&mut self, length: usize) -> io::Result<()> {
        let piece = vec![b'x'; 64 * 1024];
        let mut left = length;
        while left > 0 {
            let count = self.writer.write(&piece[..piece.len().min(left)]).await?;
            self.shared.flooded.fetch_add(count, Ordering::SeqCst);
            left -= count;
        }
        self.writer.flush().await
    }
}

/// An address where every connection is refused, for as long as this lives: the port is taken, but
/// nobody listens.
pub(crate) struct Refusing {
    socket: Socket,
}

impl Refusing {
    /// Takes a port.
    pub(crate) fn new() -> Self {
        Self { socket: bound() }
    }

    /// Where nobody listens.
    pub(crate) fn address(&self) -> SocketAddr {
        address_of(&self.socket)
    }

    /// Somebody begins to listen there, like [`Upstream::ok`].
    pub(crate) fn repaired(self, name: &str) -> Upstream {
        self.socket.listen(128).expect("a bound socket can listen");
        let director = answer_all(name);
        Upstream::begin(self.socket.into(), name, Box::new(director), None)
    }
}

/// An address of which nobody else can take hold, where a server comes and goes.
pub(crate) struct Place {
    socket: Socket,
}

impl Place {
    /// Takes a port.
    pub(crate) fn new() -> Self {
        let socket = sharing();
        bind(&socket, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        Self { socket }
    }

    /// The same port at another address of this machine.
    pub(crate) fn beside(&self, address: Ipv4Addr) -> Self {
        let socket = sharing();
        bind(&socket, SocketAddr::from((address, self.address().port())));
        Self { socket }
    }

    /// Where nobody listens, unless a server was started here.
    pub(crate) fn address(&self) -> SocketAddr {
        address_of(&self.socket)
    }

    /// Starts a server here, like [`Upstream::start`]. At most one at a time.
    pub(crate) fn start(
        &self,
        name: &str,
        director: impl Fn(&Received) -> Script + Send + Sync + 'static,
    ) -> Upstream {
        let socket = sharing();
        bind(&socket, self.address());
        socket.listen(128).expect("a bound socket can listen");
        Upstream::begin(socket.into(), name, Box::new(director), None)
    }
}

/// An address where connections are neither accepted nor refused, like a host behind a firewall
/// that drops packets: its queue of connections to accept is full, and nobody ever accepts one.
pub(crate) struct Silent {
    socket: Socket,
    _waiting: Vec<std::net::TcpStream>,
}

impl Silent {
    /// Listens, and fills the queue.
    pub(crate) fn new() -> Self {
        let socket = bound();
        socket.listen(0).expect("a bound socket can listen");
        let address = address_of(&socket);
        let mut waiting = Vec::new();
        let fill = std::time::Duration::from_millis(100);
        while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, fill) {
            waiting.push(stream);
            assert!(waiting.len() < 100, "the queue of connections has no end");
        }
        Self {
            socket,
            _waiting: waiting,
        }
    }

    /// Where nothing happens.
    pub(crate) fn address(&self) -> SocketAddr {
        address_of(&self.socket)
    }
}

fn loopback() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports")
}

fn answer_all(name: &str) -> impl Fn(&Received) -> Script + Send + Sync + 'static {
    let body = name.to_owned();
    move |_| Script::answer(Reply::new(200).body(body.clone()))
}

fn bound() -> Socket {
    let socket =
        Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket can be made");
    bind(&socket, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    socket
}

/// A socket that shares its address with others, as long as only one of them listens.
fn sharing() -> Socket {
    let socket =
        Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket can be made");
    socket.set_reuse_address(true).expect("TCP has this option");
    socket
}

fn bind(socket: &Socket, address: SocketAddr) {
    let bound = socket.bind(&SockAddr::from(address));
    bound.expect("the address is free");
}

fn address_of(socket: &Socket) -> SocketAddr {
    let address = socket.local_addr().expect("a bound socket has an address");
    address.as_socket().expect("it is an IPv4 address")
}
