//! How an HTTP/2 client is told that its connection ends.
//!
//! A connection has several reasons to end, and each could tell it on its own: twice, or when it is
//! too late to be heard. So they come together here, and it is told once.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::proxy::connections::Open;
use crate::proxy::worker::Worker;
use crate::telemetry::edge::Closure;

use super::last_call::LastCall;
use super::quiet::Quiet;

/// Time that a client gets to see that its quiet connection is being closed.
const FAREWELL: Duration = Duration::from_secs(1);

/// Drives a connection to its end, and tells it once: when the worker drains and nothing more may be
/// on its way, or it was quiet for too long, or was asked for as much as it may be.
pub(super) async fn drive<C, E>(
    worker: &Rc<Worker>,
    mut connection: Pin<&mut C>,
    quiet: &Quiet,
    shut_down: impl Fn(Pin<&mut C>),
) -> Result<(), E>
where
    C: Future<Output = Result<(), E>>,
{
    let mut farewell = Farewell::new(worker, quiet);
    std::future::poll_fn(|cx| {
        if farewell.is_due(cx) {
            // What has come is taken in first: hyper closes a connection of which it has read nothing,
            // even if a request lies there.
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            shut_down(connection.as_mut());
            farewell.is_said();
        }
        match farewell.silence(cx) {
            Silence::Bearable => {}
            Silence::TooLong => {
                shut_down(connection.as_mut());
                quiet.wait(FAREWELL);
                // Whoever polls is woken, and this was not ready to wake.
                let _ = quiet.poll_passed(cx);
            }
            Silence::Final => return Poll::Ready(Ok(())),
        }
        let polled = connection.as_mut().poll(cx);
        if polled.is_pending() && farewell.is_spent() {
            shut_down(connection.as_mut());
            return connection.as_mut().poll(cx);
        }
        polled
    })
    .await
}

/// Whether a connection was told that it ends, and what may lead to that.
struct Farewell<'connection> {
    worker: &'connection Worker,
    open: Open,
    quiet: &'connection Quiet,
    last_call: LastCall,
    is_told: bool,
}

/// What the silence of a client leads to.
enum Silence {
    /// Nothing.
    Bearable,
    /// It is to be told that its connection ends.
    TooLong,
    /// The connection ends now.
    Final,
}

impl<'connection> Farewell<'connection> {
    fn new(worker: &'connection Rc<Worker>, quiet: &'connection Quiet) -> Self {
        Self {
            worker,
            open: worker.connections.add(),
            quiet,
            last_call: LastCall::default(),
            is_told: false,
        }
    }

    /// Whether the worker's end is the connection's, which is to be told now.
    fn is_due(&mut self, cx: &mut Context<'_>) -> bool {
        if self.is_told {
            return false;
        }
        let is_draining = self.open.poll_draining(cx).is_ready();
        // A client can be told to leave between two requests, but not before its first.
        if self.quiet.was_asked() {
            return is_draining || self.worker.connections.is_leaving();
        }
        let deadlines = &self.worker.deadlines;
        is_draining && self.last_call.poll_over(deadlines, cx).is_ready()
    }

    /// It was told.
    fn is_said(&mut self) {
        self.is_told = true;
        self.quiet.tell(FAREWELL);
    }

    /// What the client's silence leads to by now; who is to be told counts as told.
    fn silence(&mut self, cx: &mut Context<'_>) -> Silence {
        let quiet = self.quiet;
        if quiet.poll_passed(cx).is_pending() {
            return Silence::Bearable;
        }
        if quiet.is_abused() {
            self.worker.edge.closed(Closure::AbandonedRequests);
            return Silence::Final;
        }
        if std::mem::replace(&mut self.is_told, true) {
            // Before its preface a client hears no farewell; later it had the time to go along
            // with it and to take what was left for it.
            return Silence::Final;
        }
        if !quiet.was_asked() {
            self.worker.edge.closed(Closure::NoRequest);
        }
        Silence::TooLong
    }

    /// Whether it was asked for as much as it may be, and is to be told now, which counts as done.
    fn is_spent(&mut self) -> bool {
        let is_news = !self.is_told && self.quiet.is_spent();
        self.is_told |= is_news;
        is_news
    }
}
