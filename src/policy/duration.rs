//! Durations as people write them: `500ms`, `1.5s`, `2m`.
//!
//! The unit is obligatory, since a bare `30` is seconds to one reader and milliseconds to another.

use std::time::Duration;

/// Units from the largest to the smallest, with their length in nanoseconds.
const UNITS: [(&str, u64); 6] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
];

/// Nothing that is configured lasts longer, and sums of a few of these never overflow a clock.
const LONGEST: Duration = Duration::from_secs(3650 * 86_400);

/// The text is no duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a duration is a number with one of the units us, ms, s, m, h, d, such as `1.5s`")]
pub struct InvalidDuration;

/// Reads a number and its unit; at most six decimals, at most ten years.
///
/// # Errors
/// [`InvalidDuration`] for anything else, a missing unit included.
pub fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    let text = text.trim();
    let unit_start = text
        .find(|c: char| c.is_ascii_alphabetic())
        .ok_or(InvalidDuration)?;
    let (number, unit) = text.split_at(unit_start);
    let (_, nanoseconds) = UNITS
        .into_iter()
        .find(|(name, _)| *name == unit)
        .ok_or(InvalidDuration)?;
    let number = number.trim_end();
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || decimals.len() > 6 {
        return Err(InvalidDuration);
    }
    // Integers throughout: a float would turn 0.3s into 299 999 999 ns.
    let millionths: u128 = format!("{whole}{decimals:0<6}")
        .parse()
        .map_err(|_| InvalidDuration)?;
    let nanoseconds = millionths
        .checked_mul(u128::from(nanoseconds))
        .ok_or(InvalidDuration)?
        / 1_000_000;
    let duration = u64::try_from(nanoseconds)
        .map(Duration::from_nanos)
        .map_err(|_| InvalidDuration)?;
    if duration > LONGEST {
        return Err(InvalidDuration);
    }
    Ok(duration)
}

/// Writes a duration in the largest unit that needs no decimals; [`parse`] reads it back. Parts of
/// a microsecond are dropped.
pub fn print(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    if nanoseconds == 0 {
        return "0s".to_owned();
    }
    for (name, length) in UNITS {
        if nanoseconds.is_multiple_of(u128::from(length)) {
            return format!("{}{name}", nanoseconds / u128::from(length));
        }
    }
    format!("{}us", duration.as_micros())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_a_number_with_a_unit() {
        for (text, milliseconds) in [
            ("0s", 0),
            ("500ms", 500),
            ("1.5s", 1500),
            ("0.3s", 300),
            ("2m", 120_000),
            ("1 h", 3_600_000),
            ("365d", 31_536_000_000),
        ] {
            assert_eq!(
                parse(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
    }

    #[test]
    fn refuses_a_missing_or_unknown_unit_and_what_no_clock_can_hold() {
        for text in [
            "",
            "5",
            "s",
            "-1s",
            ".5s",
            "1e3s",
            "5 parsecs",
            "99999d",
            "1.s",
            "1s2",
            "inf s",
        ] {
            assert_eq!(parse(text), Err(InvalidDuration), "{text}");
        }
        let endless = format!("{}d", "9".repeat(60));
        assert_eq!(parse(&endless), Err(InvalidDuration));
    }

    proptest! {
        #[test]
        fn reads_what_it_prints(microseconds in 0u64..315_360_000_000_000) {
            let duration = Duration::from_micros(microseconds);
            prop_assert_eq!(parse(&print(duration)), Ok(duration));
        }
    }
}
