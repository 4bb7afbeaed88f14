//! The time of day as HTTP says it, written once a second and not for each answer.

use std::cell::Cell;

use jiff::fmt::rfc2822::DateTimePrinter;

use crate::policy::time::Timestamp;

/// Bytes of a date: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub const DATE_LENGTH: usize = 29;

/// The date last asked for.
#[derive(Debug, Default)]
pub struct Date {
    second: Cell<Option<u64>>,
    text: Cell<[u8; DATE_LENGTH]>,
}

impl Date {
    /// The date at `now` (RFC 9110 §5.6.7).
    pub fn at(&self, now: Timestamp) -> [u8; DATE_LENGTH] {
        let second = now.seconds();
        if self.second.replace(Some(second)) != Some(second) {
            self.text.set(written(now));
        }
        self.text.get()
    }
}

fn written(now: Timestamp) -> [u8; DATE_LENGTH] {
    let mut written = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    // A clock beyond the calendar is set wrongly, and any date is.
    let text = jiff::Timestamp::from_millisecond(now.milliseconds())
        .and_then(|now| DateTimePrinter::new().timestamp_to_rfc9110_string(&now));
    if let Ok(text) = text
        && text.len() == DATE_LENGTH
    {
        written.copy_from_slice(text.as_bytes());
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_that_of_its_second() {
        let date = Date::default();
        let at = |milliseconds| date.at(Timestamp::from_milliseconds(milliseconds));
        assert_eq!(&at(784_111_777_999), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(&at(784_111_778_000), b"Sun, 06 Nov 1994 08:49:38 GMT");
        assert_eq!(&at(784_111_777_000), b"Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
