//! Ends HTTP/2 streams whose client takes nothing of their answers.
//!
//! An HTTP/1 client that reads nothing blocks its socket, where `stream.rs` keeps the time. Over
//! HTTP/2 a client can read its socket, answer pings, and never open the window of a stream. hyper
//! waits for that with a piece of the answer in its hand and does not ask the body for more, so
//! nobody else would ever let go of the upstream's connection behind it.
//!
//! What counts as taken is a whole piece, as it came from the upstream: at most 64 KiB, so a client
//! must read about 1 KiB/s with the default of a minute. HTTP/1 asks less, for it sees every byte.
//!
//! hyper gives no handle on a stream, but has its future spawned right after it has called the
//! service with its request. So the executor watches for whom the service began a moment before.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::upstream::deadline::{Deadline, Deadlines};

/// Who reads the answers of one connection.
#[derive(Debug)]
pub(super) struct Readers {
    deadlines: Rc<Deadlines>,
    patience: Duration,
    /// Of the request that came last, until its stream is spawned.
    newest: RefCell<Option<Rc<Reader>>>,
}

impl Readers {
    /// Readers that must take something of an answer within `patience`.
    pub(super) fn new(deadlines: &Rc<Deadlines>, patience: Duration) -> Rc<Self> {
        Rc::new(Self {
            deadlines: Rc::clone(deadlines),
            patience,
            newest: RefCell::new(None),
        })
    }

    /// A request came, whose stream is spawned next.
    pub(super) fn begin(&self) -> Rc<Reader> {
        let reader = Rc::new(Reader {
            deadline: self.deadlines.add(),
            patience: self.patience,
        });
        self.newest.replace(Some(Rc::clone(&reader)));
        reader
    }

    /// Drives the stream of the newest request to its end, or until its reader takes nothing for
    /// too long; dropped, it is reset.
    pub(super) fn watch<F>(&self, stream: F) -> Watched<F> {
        Watched {
            stream,
            reader: self.newest.take(),
        }
    }
}

/// A stream that is driven for as long as its reader takes something. No `async` block, which would
/// have room for the stream twice.
#[derive(Debug)]
pub(super) struct Watched<F> {
    stream: F,
    reader: Option<Rc<Reader>>,
}

impl<F: Future + Unpin> Future for Watched<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if Pin::new(&mut self.stream).poll(cx).is_ready() {
            return Poll::Ready(());
        }
        match &self.reader {
            Some(reader) => reader.poll_stalled(cx),
            None => Poll::Pending,
        }
    }
}

/// Who reads one answer.
#[derive(Debug)]
pub(super) struct Reader {
    /// Set while a piece of the answer waits to be taken.
    deadline: Deadline,
    patience: Duration,
}

impl Reader {
    /// There is something to take.
    pub(super) fn is_given(&self) {
        self.deadline.set(self.patience);
    }

    /// It was taken, and more is asked for.
    pub(super) fn asks_for_more(&self) {
        self.deadline.limit(None);
    }

    fn poll_stalled(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.deadline.poll_passed(cx)
    }
}
