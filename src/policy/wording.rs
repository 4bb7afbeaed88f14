//! Figures as sentences show them: as many digits as are known, and no more.

/// About two significant digits: `51%`, `5.1%`, `0.10%`.
pub fn percent(ratio: f64) -> String {
    let percent = ratio * 100.0;
    let decimals = match percent {
        _ if percent == 0.0 || percent >= 9.95 => 0,
        _ if percent >= 0.995 => 1,
        _ if percent >= 0.05 => 2,
        _ => 3,
    };
    format!("{percent:.decimals$}%")
}

/// Evidence as odds, without the `: 1`. Small odds keep a digit, since 0.4 : 1 is not 0 : 1.
pub fn odds(odds: f64) -> String {
    if odds < 0.95 {
        format!("{odds:.1}")
    } else {
        grouped(two_digits(odds))
    }
}

/// Rounded to two significant digits: evidence of 4 098 : 1 is not known to the unit.
pub fn two_digits(number: f64) -> u64 {
    let unit = 10_f64.powf((number.max(1.0).log10().floor() - 1.0).max(0.0));
    ((number / unit).round() * unit) as u64
}

/// Thousands apart: `4 050`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// An estimated time in a unit that suits it: `40 s`, `65 minutes`, `5 hours`, `3 days`.
pub fn span(seconds: f64) -> String {
    const MINUTE: f64 = 60.0;
    const HOUR: f64 = 3_600.0;
    const DAY: f64 = 86_400.0;
    let (number, unit) = match seconds {
        _ if seconds < 2.0 * MINUTE => (seconds.max(1.0), "s"),
        _ if seconds < 2.0 * HOUR => (seconds / MINUTE, "minutes"),
        _ if seconds < 2.0 * DAY => (seconds / HOUR, "hours"),
        _ => (seconds / DAY, "days"),
    };
    format!("{} {unit}", grouped(two_digits(number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_two_digits_and_thousands_apart() {
        for (ratio, text) in [
            (0.0, "0%"),
            (1.0, "100%"),
            (0.0512, "5.1%"),
            (0.00099, "0.10%"),
            (0.00012, "0.012%"),
        ] {
            assert_eq!(percent(ratio), text);
        }
        for (ratio, text) in [
            (0.37, "0.4"),
            (7.4, "7"),
            (821.4, "820"),
            (17_316.0, "17 000"),
            (1e6, "1 000 000"),
        ] {
            assert_eq!(odds(ratio), text);
        }
    }

    #[test]
    fn times_have_the_unit_that_suits_them() {
        for (seconds, text) in [
            (0.2, "1 s"),
            (39.6, "40 s"),
            (3_900.0, "65 minutes"),
            (18_000.0, "5 hours"),
            (345_600.0, "4 days"),
            (1e9, "12 000 days"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }
}
