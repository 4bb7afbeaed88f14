//! Limits on signals as people write them: `5`, `1.5e9`, `2GiB`, `80%`.
//!
//! The unit is kept beside the number, because `memory > 2GiB` shall stand in the log as it stands
//! in the file, and the value that passed it shall be in the same unit.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Units, and what one of them is. The empty one comes last: every text ends with it.
const UNITS: [(&str, f64); 9] = [
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("KB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("B", 1.0),
    ("%", 0.01),
    ("", 1.0),
];

/// A number with the unit it was written in. Always finite.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Quantity {
    amount: f64,
    /// An index of [`UNITS`].
    unit: usize,
}

/// The text is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a limit is a number such as `5`, `0.8`, `1.5e9`, `2GiB` (B, KiB, MiB, GiB, KB, MB, GB) or `80%`"
)]
pub struct InvalidQuantity;

impl Quantity {
    /// What is meant, in the signal's own unit: `2KiB` is 2048, `80%` is 0.8.
    pub fn value(self) -> f64 {
        // A percentage is divided, since 0.01 is not one hundredth: 7% shall be 0.07.
        if UNITS[self.unit].0 == "%" {
            self.amount / 100.0
        } else {
            self.amount * UNITS[self.unit].1
        }
    }

    /// Whether it is written in percent.
    pub fn is_percentage(self) -> bool {
        UNITS[self.unit].0 == "%"
    }

    /// `value`, in the unit of this quantity and with the digits that matter.
    pub fn show(self, value: f64) -> String {
        let (unit, size) = UNITS[self.unit];
        format!("{}{unit}", digits(value / size))
    }
}

impl FromStr for Quantity {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        let text = text.trim();
        let named = UNITS.iter().enumerate();
        let mut split =
            named.filter_map(|(unit, (name, _))| Some((unit, text.strip_suffix(name)?)));
        let (unit, number) = split.next().ok_or(InvalidQuantity)?;
        let number = number.trim_end();
        // `f64::from_str` would also read `inf`, `nan`, `+5`, `.5` and `5.`.
        let unsigned = number.strip_prefix('-').unwrap_or(number);
        let is_number = unsigned.starts_with(|c: char| c.is_ascii_digit())
            && unsigned
                .bytes()
                .all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte))
            && !unsigned.contains(".e")
            && !unsigned.contains(".E")
            && !unsigned.ends_with('.');
        let amount: f64 = is_number
            .then(|| number.parse().ok())
            .flatten()
            .ok_or(InvalidQuantity)?;
        let quantity = Quantity { amount, unit };
        quantity
            .value()
            .is_finite()
            .then_some(quantity)
            .ok_or(InvalidQuantity)
    }
}

/// Writes what [`FromStr`] reads back as the same.
impl Display for Quantity {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let unit = UNITS[self.unit].0;
        let amount = self.amount;
        // Nobody reads three hundred digits.
        if amount == 0.0 || (1e-6..1e15).contains(&amount.abs()) {
            write!(f, "{amount}{unit}")
        } else {
            write!(f, "{amount:e}{unit}")
        }
    }
}

impl TryFrom<String> for Quantity {
    type Error = InvalidQuantity;

    fn try_from(text: String) -> Result<Self, InvalidQuantity> {
        text.parse()
    }
}

impl From<Quantity> for String {
    fn from(quantity: Quantity) -> Self {
        quantity.to_string()
    }
}

/// A measured number: whole where it is large, else five significant digits without idle zeros.
pub(super) fn digits(value: f64) -> String {
    const SIGNIFICANT: i32 = 5;
    let size = value.abs();
    if size != 0.0 && !(1e-6..1e15).contains(&size) {
        return format!("{value:.3e}");
    }
    let leading = if size == 0.0 {
        0
    } else {
        size.log10().floor() as i32
    };
    let decimals = usize::try_from(SIGNIFICANT - 1 - leading).unwrap_or(0);
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_has_a_unit_if_it_wants() {
        for (text, value) in [
            ("5", 5.0),
            ("-0.25", -0.25),
            ("1.5e9", 1.5e9),
            ("2E-3", 0.002),
            ("2000000000", 2e9),
            ("2GiB", 2_147_483_648.0),
            (" 1.5 MiB ", 1_572_864.0),
            ("3KiB", 3072.0),
            ("3KB", 3e3),
            ("3MB", 3e6),
            ("3GB", 3e9),
            ("512B", 512.0),
            ("7%", 0.07),
        ] {
            let quantity: Quantity = text.parse().expect(text);
            assert_eq!(quantity.value(), value, "{text}");
        }
    }

    #[test]
    fn anything_else_is_no_number() {
        for text in [
            "", "GiB", "inf", "-inf", "NaN", "nan%", "+5", ".5", "5.", "5.e3", "1e999", "1e308GiB",
            "5s", "2 G iB", "1_000", "0x10", "5%%", "--5", "e5", "1e", "five",
        ] {
            assert_eq!(text.parse::<Quantity>(), Err(InvalidQuantity), "{text}");
        }
    }

    #[test]
    fn a_value_is_shown_in_the_unit_of_its_limit() {
        for (limit, value, shown) in [
            ("2GiB", 2_480_343_613.0, "2.31GiB"),
            ("80%", 0.835, "83.5%"),
            ("5", 7.25, "7.25"),
            ("5", 5.00013, "5.0001"),
            ("2000000000", 2_147_483_648.0, "2147483648"),
            ("5", 0.0, "0"),
            ("5", 1e-9, "1.000e-9"),
            ("5", -3.5e20, "-3.500e20"),
            ("5", 100.0, "100"),
        ] {
            let limit: Quantity = limit.parse().expect(limit);
            assert_eq!(limit.show(value), shown);
        }
    }

    proptest! {
        #[test]
        fn reads_what_it_prints(amount in prop::num::f64::NORMAL | prop::num::f64::ZERO, unit in 0..UNITS.len()) {
            let quantity = Quantity { amount, unit };
            prop_assume!(quantity.value().is_finite());
            prop_assert_eq!(quantity.to_string().parse(), Ok(quantity));
        }

        #[test]
        fn whatever_is_read_is_finite(text in "\\PC{0,12}|-?[0-9.eE+-]{1,8}(%|[KMG]i?B|B)?") {
            if let Ok(quantity) = text.parse::<Quantity>() {
                prop_assert!(quantity.value().is_finite());
            }
        }
    }
}
