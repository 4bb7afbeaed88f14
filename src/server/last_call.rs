//! What may still come over a connection when the worker drains.
//!
//! A connection that is closed while its client writes loses a request, and the client cannot know
//! whether it was served. Three kinds of clients were not told. One has connected and not asked yet,
//! its request on the way behind the handshake. Another was at an answer whose head had gone before.
//! The third rests between two requests, and `drain.delay` may be too short to have met it at one.
//! All get a last call; whoever misses it has nothing on the way that is not older than a network is
//! slow.

use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::upstream::deadline::{Deadline, Deadlines};

/// Time that a client who could not know of the drain gets for a request.
const LAST_CALL: Duration = Duration::from_millis(500);

/// The time that a connection of a worker that drains gets for another request.
#[derive(Debug, Default)]
pub(super) struct LastCall(Option<Deadline>);

impl LastCall {
    /// Ready once the connection may be told to end; asked while it rests, from the beginning of the
    /// drain.
    pub(super) fn poll_over(
        &mut self,
        deadlines: &Rc<Deadlines>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let deadline = self.0.get_or_insert_with(|| {
            let deadline = deadlines.add();
            deadline.set(LAST_CALL);
            deadline
        });
        deadline.poll_passed(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use crate::clock::Clock;

    use super::*;

    #[test]
    fn a_last_call_has_its_time_and_ends() {
        let deadlines = Deadlines::new(Clock::start());
        let mut call = LastCall::default();
        let mut cx = Context::from_waker(Waker::noop());
        let begun = deadlines.now();
        while call.poll_over(&deadlines, &mut cx).is_pending() {
            std::thread::yield_now();
            deadlines.sweep();
        }
        assert!(deadlines.now() >= begun.plus(LAST_CALL));
    }
}
