//! A client that has said everything: it may be waiting for its answer, or it may have left.
//!
//! TCP says the same in both cases until something is written: a closed socket answers with a reset,
//! one that is closed on one side only takes it. A proxy that believes the worse at once (nginx,
//! Envoy) denies scripts their answers; one that believes the better (HAProxy, as it comes) works on
//! for clients that are gone. Here the client is waited for: whoever has taken something since is
//! there and may go on, whoever is silent together with the answer for `grace` is taken to have left.
//! A reset always ends the connection at once.
//!
//! Only for HTTP/1: in HTTP/2 a request ends without its connection, and a client that closes that
//! has left.

use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::server::stream::ToClient;
use crate::upstream::deadline::{Deadline, Deadlines};

/// Between two looks at a client that has said everything: how soon its reset is noticed while
/// nothing is written.
const LOOK: Duration = Duration::from_millis(250);

/// Whether a client is still there, having said everything.
#[derive(Debug)]
pub(super) struct Presence {
    next_look: Deadline,
    grace: Duration,
    /// From the last look to the next.
    span: Duration,
    silent_for: Duration,
}

impl Presence {
    /// A client that has said everything, or may soon have, and may then be silent for `grace`.
    pub(super) fn new(deadlines: &Rc<Deadlines>, grace: Duration, has_said_all: bool) -> Self {
        let mut presence = Self {
            next_look: deadlines.add(),
            grace,
            span: Duration::ZERO,
            silent_for: Duration::ZERO,
        };
        presence.wait(has_said_all);
        presence
    }

    /// Ready once the client is to be believed gone. `has_moved` says, and forgets, whether anything
    /// has moved since the last look, or the client is slow to take it.
    pub(super) fn poll_gone(
        &mut self,
        cx: &mut Context<'_>,
        stream: &impl ToClient,
        is_ended: bool,
        has_moved: &mut bool,
    ) -> Poll<()> {
        loop {
            // What lies unread hides the end behind it from whoever reads, and not from the system.
            let has_said_all = is_ended || stream.has_said_all();
            if has_said_all && self.silent_for >= self.grace {
                return Poll::Ready(());
            }
            ready!(self.next_look.poll_passed(cx));
            self.silent_for += self.span;
            // A socket that takes no more at present belongs to somebody slow: one that is closed
            // would have answered what it was sent with a reset.
            if std::mem::take(has_moved) || !has_said_all {
                self.silent_for = Duration::ZERO;
            }
            // A write of nothing would not do: TLS would not pass it on, and where it is passed on, it
            // would look like something that the client has taken.
            if stream.check().is_err() {
                return Poll::Ready(());
            }
            self.wait(has_said_all);
        }
    }

    /// Until the next look, or until the grace is over.
    fn wait(&mut self, has_said_all: bool) {
        self.span = match has_said_all {
            true => LOOK.min(self.grace.saturating_sub(self.silent_for)),
            false => LOOK,
        };
        self.next_look.set(self.span);
    }
}
