//! When a share may rise by itself: not on a Friday afternoon.
//!
//! Windows are written in the local time of the people who would have to get up, so a day may have
//! 23 or 25 hours. What is asked is always "what does the clock on the wall show now?", which has
//! one answer even then; no window is ever computed in UTC and stretched.

mod sentence;
#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;

pub use self::sentence::InvalidWindow;

use super::time::Timestamp;

/// Further than this nobody looks for an opening: two weeks hold every weekly window, whatever the
/// clocks do.
const HORIZON: Duration = Duration::from_secs(15 * 86_400);
/// Windows begin and end at whole minutes.
const STEP: Duration = Duration::from_secs(60);

/// Weekly windows in one time zone.
#[derive(Clone, Debug, PartialEq)]
pub struct Calendar {
    zone: TimeZone,
    windows: Vec<WeeklyWindow>,
}

/// A time of day on some days of the week.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeeklyWindow {
    /// The days on which it begins.
    pub days: Vec<Weekday>,
    /// When it begins.
    pub from: Time,
    /// When it ends, itself not within it; at or before `from` on the next day; none for midnight.
    pub to: Option<Time>,
}

impl Calendar {
    /// Open whenever one of `windows` is.
    pub const fn new(zone: TimeZone, windows: Vec<WeeklyWindow>) -> Self {
        Self { zone, windows }
    }

    /// Whether a share may rise at `now`.
    pub fn is_open(&self, now: Timestamp) -> bool {
        let at = jiff::Timestamp::from_millisecond(now.milliseconds());
        let Ok(at) = at else { return false };
        let local = at.to_zoned(self.zone.clone()).datetime();
        self.windows
            .iter()
            .any(|window| window.contains(local.weekday(), local.time()))
    }

    /// The minute in which it opens next; none if it is open, or does not open within two weeks.
    pub fn next_opening(&self, now: Timestamp) -> Option<Timestamp> {
        if self.is_open(now) {
            return None;
        }
        let whole_minute = now.milliseconds() - now.milliseconds().rem_euclid(60_000);
        let steps = u32::try_from(HORIZON.as_secs() / STEP.as_secs()).unwrap_or(u32::MAX);
        let first = Timestamp::from_milliseconds(whole_minute);
        (1..=steps)
            .map(|step| first.plus(STEP * step))
            .find(|minute| self.is_open(*minute))
    }
}

impl WeeklyWindow {
    /// Whether it has no times of day.
    pub fn is_whole_day(&self) -> bool {
        self.from == Time::midnight() && self.to.is_none()
    }

    fn contains(&self, day: Weekday, time: Time) -> bool {
        let begins = |day| self.days.contains(&day);
        match self.to {
            None => begins(day) && time >= self.from,
            Some(to) if self.from < to => begins(day) && self.from <= time && time < to,
            Some(to) => begins(day) && time >= self.from || begins(day.previous()) && time < to,
        }
    }
}
