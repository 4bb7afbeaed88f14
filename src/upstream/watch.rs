//! Keeps an eye on a client that is waited for: whether it moves bytes as fast as it must.
//!
//! The rule is [`Pace`]; here it gets a clock, and somebody who wakes the one that waits. It is kept in
//! a box, and only where a rate is configured.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::policy::pace::Pace;

use super::deadline::Deadline;

/// Time of waiting after which it is judged whether a client is too slow: long enough for a telephone
/// that changes its cell.
pub const SPAN: Duration = Duration::from_secs(10);

/// A client that must move so many bytes a second while it is waited for.
#[derive(Debug)]
pub struct Watch {
    pace: Pace,
    deadline: Deadline,
}

impl Watch {
    /// At least so many bytes a second, judged over each `span` of waiting.
    pub const fn new(bytes_per_second: u64, span: Duration, deadline: Deadline) -> Self {
        Self {
            pace: Pace::new(bytes_per_second, span),
            deadline,
        }
    }

    /// The client has moved so many bytes.
    pub fn moved(&mut self, bytes: usize) {
        self.pace.moved(bytes, self.deadline.now());
    }

    /// Ready once the client, which is waited for, has been too slow for a whole span.
    pub fn poll_too_slow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = self.deadline.now();
            if let Some(left) = self.pace.wait(now) {
                self.deadline.set(left);
            }
            ready!(self.deadline.poll_passed(cx));
            if self.pace.is_too_slow(now) {
                return Poll::Ready(());
            }
        }
    }
}
