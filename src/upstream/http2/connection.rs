//! One HTTP/2 connection to an upstream, and the task that keeps it going.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{Ping, PingPong};
use tokio::task::spawn_local;

use crate::policy::class::Failure;
use crate::policy::time::Elapsed;
use crate::upstream::connect::Stream;
use crate::upstream::deadline::{Deadline, Deadlines};
use crate::upstream::endpoint::ConnectionPermit;
use crate::upstream::http1::response::MAX_HEAD;

/// Requests on one connection at most, even where the upstream would take more: a connection that
/// breaks takes all of them along.
pub const MAX_STREAMS: usize = 128;
/// Bytes of one answer that may wait here for the client to read. It bounds the speed of one answer
/// to this much per round trip.
const STREAM_WINDOW: u32 = 128 * 1024;
/// Enough for every stream to have its whole window full: readers that are slow, however many, then
/// take nothing from their neighbours.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MAX_STREAMS as u32;
/// Bytes of one request that may wait here for the upstream to take them.
const SEND_BUFFER: usize = 64 * 1024;
/// Requests that we cancel on one connection before no new one is put on it. Servers count them,
/// because they look like an attack (some give up at 100, many at 200), and then end the connection
/// with all that is on it.
const MAX_CANCELLED: u32 = 64;
/// Time that a doubted connection has for a sign of life.
const DOUBT: Duration = Duration::from_secs(2);

/// A connection that several requests share.
#[derive(Debug)]
pub struct Connection {
    sender: RefCell<SendRequest<Bytes>>,
    opened: Elapsed,
    active: Cell<usize>,
    cancelled: Cell<u32>,
    /// Whether it takes no further requests.
    is_retired: Cell<bool>,
    /// Since when it has had none, as far as the last look tells.
    idle_since: Cell<Option<Elapsed>>,
    has_served: Cell<bool>,
    doubt: Rc<Doubt>,
}

/// A place for one request on a connection; given back when dropped.
#[derive(Debug)]
pub struct Place {
    connection: Rc<Connection>,
    has_rested: bool,
    has_ended: bool,
}

/// Whether the peer is thought to be gone, which the connection's task finds out.
#[derive(Debug, Default)]
struct Doubt {
    is_doubted: Cell<bool>,
    is_closed: Cell<bool>,
    driver: RefCell<Option<Waker>>,
}

impl Connection {
    /// Takes over a stream and waits until the upstream has shown that it speaks HTTP/2. Without a
    /// time limit of its own. To be called on a worker.
    ///
    /// # Errors
    /// What came instead of HTTP/2.
    pub async fn open(
        stream: Stream,
        permit: ConnectionPermit,
        deadlines: &Rc<Deadlines>,
    ) -> Result<Rc<Connection>, NotHttp2> {
        let Greeted {
            sender,
            connection,
            ping_pong,
        } = greet(stream).await?;
        let doubt = Rc::<Doubt>::default();
        let driver = Driver {
            connection,
            ping_pong,
            is_asked: false,
            patience: deadlines.add(),
            doubt: Rc::clone(&doubt),
            _permit: permit,
        };
        spawn_local(driver.run());
        Ok(Rc::new(Connection {
            sender: RefCell::new(sender),
            opened: deadlines.now(),
            active: Cell::new(0),
            cancelled: Cell::new(0),
            is_retired: Cell::new(false),
            idle_since: Cell::new(None),
            has_served: Cell::new(false),
            doubt,
        }))
    }

    /// When it was opened.
    pub const fn opened(&self) -> Elapsed {
        self.opened
    }

    /// Requests on it.
    pub const fn active(&self) -> usize {
        self.active.get()
    }

    /// How many requests the upstream and we allow at once.
    pub fn capacity(&self) -> usize {
        self.sender
            .borrow()
            .current_max_send_streams()
            .min(MAX_STREAMS)
    }

    /// Whether it has served requests and has none now, so that the upstream may be about to close
    /// it.
    pub fn is_resting(&self) -> bool {
        self.active.get() == 0 && self.has_served.get()
    }

    /// Whether another request may go over it.
    pub fn has_room(&self) -> bool {
        self.is_open() && self.active.get() < self.capacity()
    }

    /// Whether it is neither closed nor closing nor in doubt.
    pub fn is_open(&self) -> bool {
        if self.is_retired.get() || self.doubt.is_closed.get() || self.doubt.is_doubted.get() {
            return false;
        }
        // This one sends nothing itself, so it tells only whether the upstream has said goodbye.
        let mut sender = self.sender.borrow_mut();
        let mut context = Context::from_waker(Waker::noop());
        matches!(sender.poll_ready(&mut context), Poll::Ready(Ok(())))
    }

    /// How long it has had no request at `now`, as far as the last looks tell; this is one.
    pub fn idle_for(&self, now: Elapsed) -> Option<Duration> {
        if self.active.get() > 0 {
            return None;
        }
        let since = self.idle_since.get().unwrap_or(now);
        self.idle_since.set(Some(since));
        Some(now.since(since))
    }

    /// A place for one more request.
    pub fn enter(self: &Rc<Self>) -> Place {
        let has_rested = self.is_resting();
        self.active.set(self.active.get() + 1);
        self.idle_since.set(None);
        self.has_served.set(true);
        Place {
            connection: Rc::clone(self),
            has_rested,
            has_ended: false,
        }
    }
}

impl Place {
    /// What sends a request.
    pub fn sender(&self) -> SendRequest<Bytes> {
        self.connection.sender.borrow().clone()
    }

    /// Whether the connection had been idle before this request.
    pub const fn has_rested(&self) -> bool {
        self.has_rested
    }

    /// Request and answer are complete: leaving now cancels nothing.
    pub const fn ended(&mut self) {
        self.has_ended = true;
    }

    /// The upstream wants no more requests on this connection.
    pub fn retire(&self) {
        self.connection.is_retired.set(true);
    }

    /// Nothing came in time. The upstream may be slow, or the connection dead: until it is known to
    /// be alive, no other request is put on it.
    pub fn doubt(&self) {
        self.connection.doubt.raise();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let connection = &self.connection;
        connection.active.set(connection.active.get() - 1);
        if !self.has_ended {
            let cancelled = connection.cancelled.get() + 1;
            connection.cancelled.set(cancelled);
            if cancelled >= MAX_CANCELLED {
                connection.is_retired.set(true);
            }
        }
    }
}

impl Doubt {
    fn raise(&self) {
        self.is_doubted.set(true);
        if let Some(driver) = self.driver.borrow_mut().take() {
            driver.wake();
        }
    }
}

/// The upstream does not speak HTTP/2, or broke the connection before it could show it.
#[derive(Debug, thiserror::Error)]
#[error("the upstream does not speak HTTP/2: {0}")]
pub struct NotHttp2(#[from] h2::Error);

impl NotHttp2 {
    /// What the attempt is booked as. Nothing of a request was sent.
    pub fn failure(&self) -> Failure {
        failure_of(&self.0)
    }
}

/// What an attempt is booked as that ended with `error`.
pub fn failure_of(error: &h2::Error) -> Failure {
    // What the library complains about is what the upstream sent.
    if error.is_library() {
        Failure::InvalidResponse
    } else {
        Failure::Reset
    }
}

/// A connection whose two ends have agreed.
#[derive(Debug)]
pub struct Greeted {
    sender: SendRequest<Bytes>,
    connection: h2::client::Connection<Stream, Bytes>,
    ping_pong: PingPong,
}

/// Begins HTTP/2 on `stream` and waits for a sign that the upstream speaks it too: what is sent
/// before that may be read by anything, and would have to be taken as executed.
///
/// # Errors
/// What came instead.
pub async fn greet(stream: Stream) -> Result<Greeted, NotHttp2> {
    let head = u32::try_from(MAX_HEAD).unwrap_or(u32::MAX);
    let (sender, mut connection) = Builder::new()
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(head)
        .max_send_buffer_size(SEND_BUFFER)
        .handshake(stream)
        .await?;
    let mut ping_pong = connection.ping_pong().expect("nobody has taken it before");
    ping_pong.send_ping(Ping::opaque())?;
    poll_fn(|cx| {
        let ended = Pin::new(&mut connection).poll(cx);
        if let Poll::Ready(answer) = ping_pong.poll_pong(cx) {
            return Poll::Ready(answer.map(drop));
        }
        ended.map(|result| match result {
            Ok(()) => Err(h2::Reason::NO_ERROR.into()),
            Err(error) => Err(error),
        })
    })
    .await?;
    Ok(Greeted {
        sender,
        connection,
        ping_pong,
    })
}

/// Reads and writes for all requests on a connection, until it ends.
struct Driver {
    connection: h2::client::Connection<Stream, Bytes>,
    ping_pong: PingPong,
    /// Whether a sign of life is awaited.
    is_asked: bool,
    patience: Deadline,
    doubt: Rc<Doubt>,
    /// Held for as long as the connection is open: counts against the endpoint's limit.
    _permit: ConnectionPermit,
}

impl Driver {
    async fn run(mut self) {
        poll_fn(|cx| self.poll(cx)).await;
        // Whoever still waits on this connection is told when it is dropped.
        self.doubt.is_closed.set(true);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        *self.doubt.driver.borrow_mut() = Some(cx.waker().clone());
        // Asking all the time would be simpler, but servers of gRPC end connections whose clients
        // ask more often than every five minutes.
        if self.doubt.is_doubted.get() && !self.is_asked {
            if self.ping_pong.send_ping(Ping::opaque()).is_err() {
                return Poll::Ready(());
            }
            self.is_asked = true;
            self.patience.set(DOUBT);
        }
        // What goes wrong with the connection reaches its requests as well.
        if Pin::new(&mut self.connection).poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if !self.is_asked {
            return Poll::Pending;
        }
        match self.ping_pong.poll_pong(cx) {
            Poll::Ready(Ok(_)) => {
                self.is_asked = false;
                self.doubt.is_doubted.set(false);
                Poll::Pending
            }
            Poll::Ready(Err(_)) => Poll::Ready(()),
            Poll::Pending => self.patience.poll_passed(cx),
        }
    }
}
