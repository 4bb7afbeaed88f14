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
/// The days of the horizon, the present one and those before and after it.
const DAYS_LOOKED_AT: usize = 18;
/// More often no clock was ever set within the horizon: Morocco does it twice around Ramadan.
const CHANGES_LOOKED_AT: usize = 4;

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

    /// When it opens next; none if it is open, or does not open within two weeks.
    pub fn next_opening(&self, now: Timestamp) -> Option<Timestamp> {
        if self.is_open(now) {
            return None;
        }
        let at = jiff::Timestamp::from_millisecond(now.milliseconds()).ok()?;
        let within_horizon = |point: &Timestamp| now < *point && point.since(now) <= HORIZON;
        let candidates = self.beginnings(at).chain(self.changes(at));
        candidates
            .filter(|point| within_horizon(point) && self.is_open(*point))
            .min()
    }

    /// When a window may begin from `at` on, in no order: by the clock on the wall, which may show
    /// a time twice. Where it shows none these points mean nothing, and may be closed.
    fn beginnings(&self, at: jiff::Timestamp) -> impl Iterator<Item = Timestamp> {
        // A clock that is set back at midnight shows the end of yesterday again.
        let today = at.to_zoned(self.zone.clone()).date();
        let first = today.yesterday().unwrap_or(today);
        let days = first.series(jiff::Span::new().days(1)).take(DAYS_LOOKED_AT);
        let starts = days.flat_map(|day| {
            let windows = self.windows.iter();
            let beginning = windows.filter(move |window| window.days.contains(&day.weekday()));
            beginning.map(move |window| day.to_datetime(window.from))
        });
        starts.flat_map(|start| {
            let shown = self.zone.to_ambiguous_timestamp(start);
            let points = [shown.earlier(), shown.later()];
            points.into_iter().flatten().map(timestamp)
        })
    }

    /// When the clock on the wall is set after `at`: it may then show the middle of a window.
    fn changes(&self, at: jiff::Timestamp) -> impl Iterator<Item = Timestamp> {
        let changes = self.zone.following(at).take(CHANGES_LOOKED_AT);
        changes.map(|change| timestamp(change.timestamp()))
    }
}

fn timestamp(point: jiff::Timestamp) -> Timestamp {
    Timestamp::from_milliseconds(point.as_millisecond())
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
