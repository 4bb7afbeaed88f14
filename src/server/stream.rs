//! A client's stream: its first bytes read ahead, and a limit to its patience with our answers.
//!
//! A client that asks for much and takes nothing would hold an upstream's connection, a permit and
//! the kernel's buffers for ever, and nobody would notice: while the socket takes no more, the
//! answer's body is not polled, so its own deadline has nobody to strike. So the time is kept
//! where the waiting is, in the writes; and below TLS, since what TLS has taken to encrypt, the
//! client has not. One that takes a little now and then is found by the rate, where there is one.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::proxy::worker::Worker;
use crate::telemetry::edge::Closure;
use crate::upstream::deadline::Deadline;
use crate::upstream::watch::{self, Watch};

/// Bytes that may lie in the kernel unsent, where a rate is to be kept. Without a bound the kernel
/// takes megabytes at once and then nothing for minutes, and a slow client looks like a dead one.
pub(super) const UNSENT: u32 = 32 * 1024;

/// A stream that leads to a client, through TLS or not.
pub trait ToClient {
    /// From now on the client need not keep any rate.
    fn stop_watching(&mut self);

    /// Has the connection end with a reset, because an end could pass for the answer's.
    fn reset_when_closed(&self);

    /// Asks the socket itself whether it works, even while nobody reads or writes.
    ///
    /// # Errors
    /// Why it does not, such as a reset that has come; the socket says so once.
    fn check(&self) -> io::Result<()>;

    /// Whether the client will say nothing more than what lies there unread.
    fn has_said_all(&self) -> bool;

    /// Whether it may just be closed: its end needs no words, and nothing lies there unread, which
    /// would make a reset of the end.
    fn may_be_dropped(&self) -> bool;
}

impl ToClient for ClientStream {
    fn stop_watching(&mut self) {
        self.watch = None;
    }

    fn reset_when_closed(&self) {
        // Where this fails, the connection does not lead anywhere any more.
        let _ = SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO));
    }

    fn check(&self) -> io::Result<()> {
        self.tcp.take_error()?.map_or(Ok(()), Err)
    }

    fn has_said_all(&self) -> bool {
        matches!(readable(&self.tcp), Poll::Ready(Ok(ready)) if ready.is_read_closed())
    }

    fn may_be_dropped(&self) -> bool {
        self.ahead.is_empty() && readable(&self.tcp).is_pending()
    }
}

/// What there is to read, as far as it is known; asks nobody.
fn readable(tcp: &TcpStream) -> Poll<io::Result<Ready>> {
    let mut cx = Context::from_waker(Waker::noop());
    pin!(tcp.ready(Interest::READABLE)).poll(&mut cx)
}

impl ToClient for TlsStream<ClientStream> {
    fn stop_watching(&mut self) {
        self.get_mut().0.stop_watching();
    }

    fn reset_when_closed(&self) {
        self.get_ref().0.reset_when_closed();
    }

    fn check(&self) -> io::Result<()> {
        self.get_ref().0.check()
    }

    fn has_said_all(&self) -> bool {
        self.get_ref().0.has_said_all()
    }

    fn may_be_dropped(&self) -> bool {
        // TLS says that it ends.
        false
    }
}

/// A client's stream.
#[derive(Debug)]
pub struct ClientStream {
    /// Read already, to find out what is spoken.
    ahead: BytesMut,
    tcp: TcpStream,
    worker: Rc<Worker>,
    /// How long a write may wait for the client to take something.
    deadline: Deadline,
    is_stuck: bool,
    is_cut: bool,
    watch: Option<Box<Watch>>,
}

impl ClientStream {
    /// The stream of a client that must take something of an answer within `header_timeout`, and at
    /// `min_rate`.
    pub fn new(tcp: TcpStream, worker: &Rc<Worker>) -> Self {
        let view = worker.view();
        let watch = view.snapshot.routing.edge.min_rate.map(|rate| {
            let deadline = worker.deadlines.add();
            Box::new(Watch::new(rate, span(rate), deadline))
        });
        Self {
            ahead: BytesMut::new(),
            tcp,
            worker: Rc::clone(worker),
            deadline: worker.deadlines.add(),
            is_stuck: false,
            is_cut: false,
            watch,
        }
    }

    /// Has `bytes`, which were read from it, read once more.
    pub fn unread(&mut self, bytes: BytesMut) {
        self.ahead = bytes;
    }

    /// What a write has come to, unless the client takes too long with it.
    fn in_time(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(result) = &written {
            self.is_stuck = false;
            if let (Some(watch), Ok(count)) = (&mut self.watch, result) {
                watch.moved(*count);
            }
            return written;
        }
        if !std::mem::replace(&mut self.is_stuck, true) {
            let view = self.worker.view();
            self.deadline.set(view.snapshot.routing.edge.header_timeout);
        }
        let is_stuck = self.deadline.poll_passed(cx).is_ready();
        let is_too_slow = match &mut self.watch {
            Some(watch) => watch.poll_too_slow(cx).is_ready(),
            None => false,
        };
        if is_stuck || is_too_slow {
            return Poll::Ready(Err(self.cut()));
        }
        Poll::Pending
    }

    fn cut(&mut self) -> io::Error {
        if !std::mem::replace(&mut self.is_cut, true) {
            self.worker.edge.closed(Closure::SlowReader);
            // An end could pass for the answer's, and the kernel would keep what it has for a client
            // that does not take it.
            self.reset_when_closed();
        }
        io::ErrorKind::TimedOut.into()
    }
}

/// Time of waiting over which a reader is judged: no shorter than it takes to empty the kernel's
/// buffer twice, or somebody who keeps the rate could seem to take nothing.
fn span(bytes_per_second: u64) -> Duration {
    let twice = 2 * u64::from(UNSENT);
    let seconds = twice.checked_div(bytes_per_second).unwrap_or_default();
    watch::SPAN.max(Duration::from_secs(seconds))
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.tcp).poll_read(cx, buffer);
        }
        let count = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.ahead.split_to(count));
        if self.ahead.is_empty() {
            // The connection may live for hours; its first bytes need not.
            self.ahead = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(cx, bytes);
        self.in_time(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(cx, slices);
        self.in_time(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    // A socket has nothing to flush and waits for nobody when it is shut down.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
