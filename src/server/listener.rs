//! Accepting connections and handing each to the worker that has the fewest.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::config::model::Opening;
use crate::snapshot::Published;
use crate::telemetry::edge::EdgeTally;

use super::thread::WorkerThread;

/// Connections that may wait in the kernel; it cuts this to its own maximum.
const BACKLOG: i32 = 4096;
/// Pause after a failure that will not go away by itself at once, such as having no more file
/// descriptors: long enough not to spin, short enough not to be noticed.
const PAUSE: Duration = Duration::from_millis(20);
/// Without a failure for as long as this, the next one is news. Each connection that ends lets one in,
/// so what lacks descriptors succeeds and fails in turn, and would fill the log.
const OVER: Duration = Duration::from_secs(60);

/// Time between two looks at whether to stop.
const LOOK: Duration = Duration::from_millis(100);
/// For emptying the queue at the end. Who still comes then comes as often as the queue is emptied.
const EMPTYING: Duration = Duration::from_secs(1);

/// A connection and where it came in.
#[derive(Debug)]
pub struct Accepted {
    /// The socket, not blocking.
    pub stream: TcpStream,
    /// The other end.
    pub peer: SocketAddr,
    /// Index of the listener in the configuration.
    pub listener: usize,
    /// What it begins with.
    pub opening: Opening,
}

/// Where what a listener accepts goes.
#[derive(Debug)]
pub struct Reception {
    /// Index of the listener in the configuration.
    pub index: usize,
    /// What its connections begin with.
    pub opening: Opening,
    /// Who serves them.
    pub workers: Arc<[WorkerThread]>,
    /// Says how many may be open.
    pub published: Published,
    /// Counts what could not be accepted.
    pub edge: Arc<EdgeTally>,
    /// How many may be open in any case.
    pub bearable_connections: usize,
}

/// A thread that accepts on one address.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    socket: Arc<TcpListener>,
    is_stopping: Arc<AtomicBool>,
    leaves_queue: Arc<AtomicBool>,
    opened: SyncSender<()>,
    acceptor: JoinHandle<()>,
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
    /// Those of making a thread.
    pub fn prepare(socket: TcpListener, reception: Reception) -> io::Result<Self> {
        let address = socket.local_addr()?;
        let is_stopping = Arc::new(AtomicBool::new(false));
        let leaves_queue = Arc::new(AtomicBool::new(false));
        // A shutdown of the socket would wake the thread too, but reset what is queued on it.
        SockRef::from(&socket).set_read_timeout(Some(LOOK))?;
        let name = format!("accept-{}", reception.index);
        let socket = Arc::new(socket);
        let acceptor = Acceptor {
            socket: Arc::clone(&socket),
            reception,
            is_stopping: Arc::clone(&is_stopping),
            leaves_queue: Arc::clone(&leaves_queue),
        };
        let (opened, opening) = mpsc::sync_channel(1);
        let acceptor = thread::Builder::new().name(name).spawn(move || {
            if opening.recv().is_ok() {
                acceptor.run();
            }
        })?;
        Ok(Self {
            address,
            socket,
            is_stopping,
            leaves_queue,
            opened,
            acceptor,
        })
    }

    /// Begins to accept.
    pub fn open(&self) {
        // There is room for one; a second call, or a thread that has ended, changes nothing.
        let _ = self.opened.try_send(());
    }

    /// The address bound, its port known even where the configuration left it to the system.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The socket, for another process to accept on as well.
    pub fn socket(&self) -> Arc<TcpListener> {
        Arc::clone(&self.socket)
    }

    /// Leaves what is queued when it stops to another process, which accepts on the same socket.
    pub fn leave_queue(&self) {
        self.leaves_queue.store(true, Ordering::Release);
    }

    /// Has it hand over what is queued already and take no further connections, soon. The socket is
    /// closed when this has stopped and is dropped.
    pub fn begin_to_stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
    }

    /// Whether it has stopped.
    pub fn has_stopped(&self) -> bool {
        self.acceptor.is_finished()
    }
}

struct Acceptor {
    socket: Arc<TcpListener>,
    reception: Reception,
    is_stopping: Arc<AtomicBool>,
    leaves_queue: Arc<AtomicBool>,
}

impl Acceptor {
    fn run(self) {
        let mut last_failure = None::<Instant>;
        loop {
            self.wait_for_room();
            if self.is_stopping.load(Ordering::Acquire) {
                return self.empty_queue();
            }
            match self.socket.accept() {
                Ok((stream, peer)) => self.hand_over(stream, peer),
                // The client gave up before it was its turn.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                // Time to see whether to stop.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    self.reception.edge.failed_accept();
                    let is_news = last_failure.is_none_or(|last| last.elapsed() > OVER);
                    last_failure = Some(Instant::now());
                    if is_news {
                        tracing::error!(%error, "cannot accept connections; trying on");
                    }
                    thread::sleep(PAUSE);
                }
            }
        }
    }

    /// Hands over the connections whose clients think they are connected. Closing the socket with
    /// them in its queue would reset them.
    ///
    /// Another process may accept on the same socket. So it is not made non-blocking, which would
    /// have that process spin; if it is quicker, this waits as long as for any other look.
    fn empty_queue(&self) {
        let begun = Instant::now();
        while !self.leaves_queue.load(Ordering::Acquire)
            && begun.elapsed() < EMPTYING
            && self.is_anyone_queued()
            && let Ok((stream, peer)) = self.socket.accept()
        {
            self.hand_over(stream, peer);
        }
    }

    fn is_anyone_queued(&self) -> bool {
        let mut asked = [PollFd::new(&*self.socket, PollFlags::IN)];
        poll(&mut asked, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// Waits while as many connections are open as are allowed; more wait in the kernel.
    fn wait_for_room(&self) {
        let workers = &self.reception.workers;
        let open = || workers.iter().map(WorkerThread::load).sum::<usize>();
        let bearable = self.reception.bearable_connections;
        let allowed = || {
            let snapshot = self.reception.published.load();
            snapshot.routing.edge.max_connections.min(bearable)
        };
        while open() >= allowed() && !self.is_stopping.load(Ordering::Acquire) {
            thread::sleep(PAUSE);
        }
    }

    fn hand_over(&self, stream: TcpStream, peer: SocketAddr) {
        // Answers are written whole; waiting to fill a segment only adds delay.
        if stream.set_nonblocking(true).is_err() || stream.set_nodelay(true).is_err() {
            return;
        }
        let accepted = Accepted {
            stream,
            peer,
            listener: self.reception.index,
            opening: self.reception.opening,
        };
        if let Some(worker) = idlest(&self.reception.workers) {
            worker.take(accepted);
        }
    }
}

/// The worker that has the fewest connections. One that has ended has none, and would get all.
fn idlest(workers: &[WorkerThread]) -> Option<&WorkerThread> {
    let serving = workers.iter().filter(|worker| !worker.has_ended());
    serving.min_by_key(|worker| worker.load())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_has_ended_gets_no_connection() {
        let (idle, thread) = WorkerThread::pretended(0);
        let (busy, _thread) = WorkerThread::pretended(5);
        let workers = [idle, busy];
        let load = || idlest(&workers).map(WorkerThread::load);
        assert_eq!(load(), Some(0));
        drop(thread);
        assert_eq!(load(), Some(5));
    }
}
