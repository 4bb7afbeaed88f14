//! Points in time that policy code is given. It never asks for one.

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, UTC.
///
/// The control plane derives it from a monotonic clock anchored at start, so within one process it
/// never goes backwards; across restarts it may.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// A point `milliseconds` after the Unix epoch.
    pub const fn from_milliseconds(milliseconds: i64) -> Self {
        Timestamp(milliseconds)
    }

    /// Reads `2026-11-20T14:03:27.123Z`, any other offset of RFC 3339, or a date with or without a
    /// time; where no offset is given it is UTC, since records are.
    ///
    /// # Errors
    /// [`InvalidTime`] for anything else.
    pub fn parse(text: &str) -> Result<Self, InvalidTime> {
        let text = text.trim();
        let point = text.parse::<jiff::Timestamp>().or_else(|_| {
            let civil: jiff::civil::DateTime = text.parse()?;
            let point = civil.to_zoned(jiff::tz::TimeZone::UTC)?;
            Ok::<_, jiff::Error>(point.timestamp())
        });
        let point = point.map_err(|_| InvalidTime)?;
        Ok(Timestamp(point.as_millisecond()))
    }

    /// Milliseconds since the Unix epoch.
    pub const fn milliseconds(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, zero before it.
    pub fn seconds(self) -> u64 {
        u64::try_from(self.0 / 1000).unwrap_or(0)
    }

    /// The time from `earlier` to this point, zero if `earlier` is later.
    pub fn since(self, earlier: Timestamp) -> std::time::Duration {
        let milliseconds = self.0.saturating_sub(earlier.0);
        std::time::Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0))
    }

    /// This point moved forward by `span`.
    #[must_use]
    pub fn plus(self, span: std::time::Duration) -> Timestamp {
        let milliseconds = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        Timestamp(self.0.saturating_add(milliseconds))
    }

    /// `14:03:27`, the form used in sentences; UTC, since logs and dashboards are.
    pub fn clock(self) -> String {
        self.format("%H:%M:%S")
    }

    /// `2026-11-20T14:03:27.123Z`, the form used in records.
    pub fn rfc3339(self) -> String {
        self.format("%Y-%m-%dT%H:%M:%S%.3fZ")
    }

    /// `2026-11-20 14:03 UTC`, for what lies days away.
    pub fn minute(self) -> String {
        self.format("%Y-%m-%d %H:%M UTC")
    }

    /// `20/Nov/2026:14:03:27 +0000`, the form of web servers' access logs.
    pub fn common_log(self) -> String {
        self.format("%d/%b/%Y:%H:%M:%S +0000")
    }

    fn format(self, format: &str) -> String {
        jiff::Timestamp::from_millisecond(self.0)
            .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
            .strftime(format)
            .to_string()
    }
}

/// The text is no point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a time is written like `2026-11-20T14:03:27Z` or `2026-11-20`, in UTC")]
pub struct InvalidTime;

/// Whole milliseconds since the process started.
///
/// What workers share as atomics (ejections, the breaker) must fit a machine word and never go
/// backwards, which rules out both `Instant` and [`Timestamp`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Elapsed(u64);

impl Elapsed {
    /// A point `milliseconds` after the start of the process.
    pub const fn from_milliseconds(milliseconds: u64) -> Self {
        Elapsed(milliseconds)
    }

    /// Milliseconds since the start of the process.
    pub const fn milliseconds(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to this point, zero if `earlier` is later.
    pub const fn since(self, earlier: Elapsed) -> std::time::Duration {
        std::time::Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// This point moved forward by `span`, cut to whole milliseconds.
    #[must_use]
    pub fn plus(self, span: std::time::Duration) -> Elapsed {
        let milliseconds = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Elapsed(self.0.saturating_add(milliseconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_it_is_printed_and_as_people_write_it() {
        let at = Timestamp::from_milliseconds(1_795_183_407_123);
        assert_eq!(Timestamp::parse(&at.rfc3339()), Ok(at));
        let midnight = Timestamp::parse("2026-11-20T00:00:00Z");
        for text in [
            "2026-11-20",
            "2026-11-20T00:00",
            "2026-11-20T01:00:00+01:00",
        ] {
            assert_eq!(Timestamp::parse(text), midnight, "{text}");
        }
        for text in ["", "yesterday", "14:00", "2026-13-01", "1h"] {
            assert_eq!(Timestamp::parse(text), Err(InvalidTime), "{text}");
        }
    }
}
