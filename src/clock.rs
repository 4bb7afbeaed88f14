//! The one place that asks what time it is.
//!
//! Everything else is given a time. The wall clock is read once, at start; afterwards a timestamp
//! is that reading plus what the monotonic clock says has passed. So time never goes backwards
//! within a process, whatever is done to the machine's clock.

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
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the module that the ban points to"
    )]
    pub fn start() -> Self {
        let wall = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            start: Instant::now(),
            wall: Timestamp::from_milliseconds(i64::try_from(wall.as_millis()).unwrap_or(0)),
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

    /// The present point in time.
    pub fn now(self) -> Timestamp {
        self.wall.plus(self.start.elapsed())
    }
}
