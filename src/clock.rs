//! The one place that asks what time it is.
//!
//! Everything else is given a time. The wall clock is read once, at start; afterwards a timestamp
//! is that reading plus what the monotonic clock says has passed. So time never goes backwards
//! within a process, whatever is done to the machine's clock. The calendar of a plan alone asks
//! what the clock on the wall shows now.

use std::time::{Duration, Instant, SystemTime};

use crate::policy::time::{Elapsed, Timestamp};

/// The process's clock. Copies agree with each other.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    wall: Timestamp,
}

impl Clock {
    /// Starts counting now.
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
            wall: wall(),
        }
    }

    /// Time since the start of the process, as finely as the machine knows it.
    pub fn uptime(self) -> Duration {
        self.start.elapsed()
    }

    /// Time since the start of the process.
    pub fn elapsed(self) -> Elapsed {
        let milliseconds = self.start.elapsed().as_millis();
        Elapsed::from_milliseconds(u64::try_from(milliseconds).unwrap_or(u64::MAX))
    }

    /// The point in time that was `elapsed` after the start.
    pub fn at(self, elapsed: Elapsed) -> Timestamp {
        self.wall
            .plus(Duration::from_millis(elapsed.milliseconds()))
    }

    /// What the machine's clock shows at this moment, though it may have been set: for questions
    /// about the working hours of people. A machine that was suspended has slept through
    /// [`Clock::now`].
    pub fn wall(self) -> Timestamp {
        wall()
    }

    /// The present point in time.
    pub fn now(self) -> Timestamp {
        self.wall.plus(self.start.elapsed())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the module that the ban points to"
)]
fn wall() -> Timestamp {
    let since_epoch = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_milliseconds(i64::try_from(since_epoch.as_millis()).unwrap_or(0))
}
