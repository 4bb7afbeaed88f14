//! Listening sockets, each with a worker that accepts on it.
//!
//! The socket is not blocking, and so for every process that has it: an upgrade has two accept on one
//! queue, and whoever finds it empty must not wait there.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::sync::{oneshot, watch};

use crate::config::model::Opening;

use super::acceptor::{Acceptor, Order};
use super::thread::WorkerThread;

/// Connections that may wait in the kernel; it cuts this to its own maximum.
const BACKLOG: i32 = 4096;

/// Where what a listener accepts goes.
#[derive(Debug)]
pub struct Reception {
    /// Index of the listener in the configuration.
    pub index: usize,
    /// What its connections begin with.
    pub opening: Opening,
    /// Who serves them.
    pub workers: Arc<[WorkerThread]>,
    /// How many may be open in any case.
    pub bearable_connections: usize,
}

/// An address on which a worker accepts.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    socket: Arc<TcpListener>,
    orders: watch::Sender<Order>,
}

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// What the system says.
    pub source: io::Error,
}

/// Binds an address; connections queue in the kernel from now on.
///
/// # Errors
/// [`BindError`], most often because another process has the port.
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let bind = || {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        // A restart must not wait for the connections of its predecessor to time out.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(TcpListener::from(socket))
    };
    bind().map_err(|source| BindError { address, source })
}

impl Listener {
    /// Makes all ready to accept on `socket`; what arrives waits until [`Listener::open`]. One that
    /// is dropped before has accepted nothing.
    ///
    /// # Errors
    /// Those of the socket, and that there is no worker to accept.
    pub async fn prepare(socket: TcpListener, reception: Reception) -> io::Result<Self> {
        let address = socket.local_addr()?;
        socket.set_nonblocking(true)?;
        // Answers are written whole; waiting to fill a segment only adds delay. What is accepted
        // inherits it, which saves each connection a system call.
        SockRef::from(&socket).set_tcp_nodelay(true)?;
        let socket = Arc::new(socket);
        let (orders, ordered) = watch::channel(Order::Wait);
        // Listeners take turns, so that no worker accepts for all of them.
        let workers = Arc::clone(&reception.workers);
        let host = reception.index % workers.len().max(1);
        let acceptor = Acceptor::new(socket.try_clone()?, reception, host, ordered);
        let (ready, is_ready) = oneshot::channel();
        if let Some(worker) = workers.get(host) {
            worker.receive(acceptor, ready);
        }
        let no_worker = |_| Err(io::Error::other("the worker that is to accept has ended"));
        is_ready.await.unwrap_or_else(no_worker)?;
        Ok(Self {
            address,
            socket,
            orders,
        })
    }

    /// Begins to accept.
    pub fn open(&self) {
        self.order(Order::Accept);
    }

    /// The address bound, its port known even where the configuration left it to the system.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The socket, for another process to accept on as well.
    pub fn socket(&self) -> Arc<TcpListener> {
        Arc::clone(&self.socket)
    }

    /// Has it take no further connections, soon, and leave what is queued to another process, which
    /// accepts on the same socket.
    pub fn leave_queue(&self) {
        self.order(Order::Leave);
    }

    /// Has it hand over what is queued already, unless that is left to another process, and take no
    /// further connections, soon. The socket is closed when this has stopped and is dropped.
    pub fn begin_to_stop(&self) {
        self.order(Order::Empty);
    }

    /// Whether it has stopped.
    pub fn has_stopped(&self) -> bool {
        self.orders.is_closed()
    }

    /// Orders come in their order: what has left its queue does not empty it, and what stops does
    /// not begin.
    fn order(&self, order: Order) {
        self.orders.send_if_modified(|current| {
            let is_news = *current < order;
            *current = order.max(*current);
            is_news
        });
    }
}
