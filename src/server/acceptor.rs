//! Accepting connections and giving each to the worker that has the fewest.
//!
//! An acceptor is a task of one of the workers. As a thread of its own it would be woken for nearly
//! every connection, taking the processor from the worker that it hands over to: a third of what a
//! connection with one request costs. Here a worker with much to do finds the queue as full as it has
//! become meanwhile, and what stays with it changes no thread at all.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::config::model::Opening;

use super::listener::Reception;
use super::stream::UNSENT;
use super::thread::{Host, WorkerThread};

/// Pause after a failure that will not go away by itself at once, such as having no more file
/// descriptors: long enough not to spin, short enough not to be noticed.
const PAUSE: Duration = Duration::from_millis(20);
/// Without a failure for as long as this, the next one is news. Each connection that ends lets one in,
/// so what lacks descriptors succeeds and fails in turn, and would fill the log.
const OVER: Duration = Duration::from_secs(60);
/// For emptying the queue at the end. Who still comes then comes as often as the queue is emptied.
const EMPTYING: Duration = Duration::from_secs(1);
/// Connections accepted in one turn of the thread meanwhile.
const BETWEEN_TURNS: u32 = 64;

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

/// What an acceptor is to do; a later one overrules those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Order {
    /// Nothing yet.
    Wait,
    Accept,
    /// Hand over the connections whose clients think they are connected, and end. Closing the socket
    /// with them in its queue would reset them.
    Empty,
    /// End, with whatever is queued.
    Leave,
}

/// Who accepts on one socket.
#[derive(Debug)]
pub(super) struct Acceptor {
    socket: TcpListener,
    reception: Reception,
    /// Index of the worker whose task this is.
    host: usize,
    orders: watch::Receiver<Order>,
}

impl Acceptor {
    /// Accepts for `reception` on `socket`, which is not blocking, at the worker with index `host`.
    pub(super) const fn new(
        socket: TcpListener,
        reception: Reception,
        host: usize,
        orders: watch::Receiver<Order>,
    ) -> Self {
        Self {
            socket,
            reception,
            host,
            orders,
        }
    }

    /// Makes ready to accept on a worker's runtime, which is the current one.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn settle(self, host: Rc<Host>) -> io::Result<Settled> {
        // The runtime's own listener would bind to this worker what goes to another, at two system
        // calls a connection. Of its sockets a stream is the one on which others may act.
        let queue = TcpStream::from(OwnedFd::from(self.socket));
        Ok(Settled {
            queue: net::TcpStream::from_std(queue)?,
            dealer: Dealer {
                reception: self.reception,
                index: self.host,
                host,
                last_failure: Cell::new(None),
                is_bounded: Cell::new(None),
                is_queue_mixed: Cell::new(true),
            },
            orders: self.orders,
        })
    }
}

/// An acceptor at its worker.
pub(super) struct Settled {
    /// The listening socket.
    queue: net::TcpStream,
    dealer: Dealer,
    /// Whoever gives orders sees by this that it has ended; hence dropped last, when the socket is
    /// not held here any more.
    orders: watch::Receiver<Order>,
}

impl Settled {
    /// Does as ordered, until it is to end or nobody is left to give orders.
    pub(super) async fn run(mut self) {
        loop {
            let order = *self.orders.borrow_and_update();
            let next = self.orders.changed();
            let next = match order {
                Order::Wait => next.await,
                Order::Accept => tokio::select! {
                    next = next => next,
                    never = self.dealer.accept_all(&self.queue) => match never {},
                },
                Order::Empty => return self.dealer.empty(&self.queue).await,
                Order::Leave => return,
            };
            if next.is_err() {
                return;
            }
        }
    }
}

/// Deals out what comes in.
struct Dealer {
    reception: Reception,
    index: usize,
    host: Rc<Host>,
    last_failure: Cell<Option<Instant>>,
    /// Whether connections inherit a bound to what lies in the kernel unsent; not known of a socket
    /// that comes from another process.
    is_bounded: Cell<Option<bool>>,
    /// Whether connections may be queued that came before the bound was as it is.
    is_queue_mixed: Cell<bool>,
}

impl Dealer {
    async fn accept_all(&self, queue: &net::TcpStream) -> Infallible {
        loop {
            self.wait_for_room(queue).await;
            // The runtime has a task yield that has found something ready often enough, so those who
            // are served already are not kept waiting by any flood of new ones.
            let accepted = queue.async_io(Interest::READABLE, || self.accept(queue));
            match accepted.await {
                Ok(()) => {}
                // The client gave up before it was its turn.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    self.fail(&error);
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn empty(&self, queue: &net::TcpStream) {
        let begun = Instant::now();
        let mut accepted = 0_u32;
        while begun.elapsed() < EMPTYING && self.accept(queue).is_ok() {
            accepted += 1;
            if accepted.is_multiple_of(BETWEEN_TURNS) {
                // Those who are served already are not to wait for a crowd at the door.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Takes one connection from the queue and gives it to a worker.
    fn accept(&self, queue: &net::TcpStream) -> io::Result<()> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (stream, peer) = match acceptfrom_with(queue, flags) {
            Ok(accepted) => accepted,
            Err(error) => {
                if error == rustix::io::Errno::AGAIN {
                    self.is_queue_mixed.set(false);
                }
                return Err(error.into());
            }
        };
        let Some(Ok(peer)) = peer.map(SocketAddr::try_from) else {
            return Err(io::ErrorKind::ConnectionAborted.into());
        };
        if self.is_queue_mixed.get()
            && let Some(is_bounded) = self.is_bounded.get()
        {
            bound_unsent(&stream, is_bounded);
        }
        self.deal(Accepted {
            stream: TcpStream::from(stream),
            peer,
            listener: self.reception.index,
            opening: self.reception.opening,
        });
        Ok(())
    }

    fn deal(&self, accepted: Accepted) {
        match idlest(&self.reception.workers, self.index) {
            Some((index, _)) if index == self.index => self.host.take(accepted),
            Some((_, worker)) => worker.take(accepted),
            None => {}
        }
    }

    /// Waits while as many connections are open as are allowed; more wait in the kernel.
    async fn wait_for_room(&self, queue: &net::TcpStream) {
        let workers = &self.reception.workers;
        while {
            let view = self.host.worker.view();
            let edge = &view.snapshot.routing.edge;
            self.bound_all(queue, edge.min_rate.is_some());
            let allowed = edge
                .max_connections
                .min(self.reception.bearable_connections);
            workers.iter().map(WorkerThread::load).sum::<usize>() >= allowed
        } {
            sleep(PAUSE).await;
        }
    }

    /// Has all connections from now on inherit whether what lies unsent is bounded, which saves each
    /// of them a system call.
    fn bound_all(&self, queue: &net::TcpStream, is_bounded: bool) {
        if self.is_bounded.replace(Some(is_bounded)) != Some(is_bounded) {
            bound_unsent(queue, is_bounded);
            self.is_queue_mixed.set(true);
        }
    }

    fn fail(&self, error: &io::Error) {
        self.host.worker.edge.failed_accept();
        let last_failure = self.last_failure.replace(Some(Instant::now()));
        if last_failure.is_none_or(|last| last.elapsed() > OVER) {
            tracing::error!(%error, "cannot accept connections; trying on");
        }
    }
}

fn bound_unsent(socket: &impl AsFd, is_bounded: bool) {
    // The system's own bound, which is none.
    let most = if is_bounded { UNSENT } else { 0 };
    // Where this fails, a reader's rate is only judged more coarsely.
    let _ = SockRef::from(socket).set_tcp_notsent_lowat(most);
}

/// The worker that has the fewest connections, and its index; among several that of `host`, where no
/// thread has to be woken. One that has ended has none, and would get all.
fn idlest(workers: &[WorkerThread], host: usize) -> Option<(usize, &WorkerThread)> {
    let workers = workers.iter().enumerate();
    let serving = workers.filter(|(_, worker)| !worker.has_ended());
    serving.min_by_key(|(index, worker)| (worker.load(), *index != host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_has_ended_gets_no_connection() {
        let (idle, thread) = WorkerThread::pretended(0);
        let (busy, _thread) = WorkerThread::pretended(5);
        let workers = [idle, busy];
        let load = || idlest(&workers, 1).map(|(_, worker)| worker.load());
        assert_eq!(load(), Some(0));
        drop(thread);
        assert_eq!(load(), Some(5));
    }

    #[test]
    fn of_workers_with_as_many_connections_the_one_that_accepts_gets_the_next() {
        let [first, second, third] = [4, 3, 3].map(WorkerThread::pretended);
        let _threads = (first.1, second.1, third.1);
        let workers = [first.0, second.0, third.0];
        let chosen = |host| idlest(&workers, host).map(|(index, _)| index);
        assert_eq!([0, 1, 2].map(chosen), [Some(1), Some(1), Some(2)]);
    }

    #[test]
    fn what_is_accepted_has_the_settings_of_its_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        SockRef::from(&listener).set_tcp_nodelay(true).unwrap();
        for (is_bounded, expected) in [(true, UNSENT), (false, 0)] {
            bound_unsent(&listener, is_bounded);
            let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (stream, _) = acceptfrom_with(&listener, SocketFlags::NONBLOCK).unwrap();
            let accepted = SockRef::from(&stream);
            assert!(accepted.tcp_nodelay().unwrap());
            assert_eq!(accepted.tcp_notsent_lowat().unwrap(), expected);
        }
    }
}
