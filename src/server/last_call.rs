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
pub(super) const LAST_CALL: Duration = Duration::from_millis(500);

/// How far a connection is with its requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// It has had none.
    #[default]
    Unasked,
    /// One is being answered, and the client will be told that it is the last, or was.
    Asked,
    /// One is being answered, and the client may send another behind it.
    Untold,
    /// All have been answered.
    Rest,
}

/// Whether a connection of a worker that drains gets time for another request.
#[derive(Debug, Default)]
pub(super) struct LastCall(Option<Deadline>);

impl LastCall {
    /// Ready once the connection may be told to end; asked from the beginning of the drain.
    pub(super) fn poll_over(
        &mut self,
        phase: Phase,
        deadlines: &Rc<Deadlines>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let begin = || {
            let deadline = deadlines.add();
            deadline.set(LAST_CALL);
            deadline
        };
        let deadline = match phase {
            Phase::Asked => return Poll::Ready(()),
            Phase::Unasked | Phase::Rest => self.0.get_or_insert_with(begin),
            // The end of the answer is not seen from here. Its last piece is.
            Phase::Untold => {
                let deadline = self.0.get_or_insert_with(begin);
                deadline.set(LAST_CALL);
                deadline
            }
        };
        deadline.poll_passed(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use crate::clock::Clock;

    use super::*;

    fn is_over(call: &mut LastCall, phase: Phase, deadlines: &Rc<Deadlines>) -> bool {
        deadlines.sweep();
        let mut cx = Context::from_waker(Waker::noop());
        call.poll_over(phase, deadlines, &mut cx).is_ready()
    }

    #[test]
    fn whoever_has_not_asked_or_was_not_told_or_rests_is_called_until_it_asks() {
        let deadlines = Deadlines::new(Clock::start());
        for phase in [Phase::Unasked, Phase::Untold, Phase::Rest] {
            let mut call = LastCall::default();
            assert!(!is_over(&mut call, phase, &deadlines));
            assert!(is_over(&mut call, Phase::Asked, &deadlines));
        }
    }

    #[test]
    fn the_call_of_whoever_rests_ends() {
        let deadlines = Deadlines::new(Clock::start());
        let mut call = LastCall::default();
        while !is_over(&mut call, Phase::Rest, &deadlines) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_call_after_an_answer_ends() {
        let deadlines = Deadlines::new(Clock::start());
        let mut call = LastCall::default();
        assert!(!is_over(&mut call, Phase::Untold, &deadlines));
        while !is_over(&mut call, Phase::Rest, &deadlines) {
            std::thread::yield_now();
        }
    }
}
