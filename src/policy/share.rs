//! How much of the key space goes to `new`, in basis points.
//!
//! A percentage held in a float cannot be compared exactly, and exact comparison is what makes
//! assignment reproducible by anyone; so a share is a whole number of hundredths of a percent.

use serde::{Deserialize, Serialize};

/// The part of keys sent to `new`, in basis points: `0` is none, `10_000` is all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Share(u16);

impl Share {
    /// No key goes to `new`.
    pub const ZERO: Share = Share(0);
    /// Every key goes to `new`.
    pub const ALL: Share = Share(Bucket::COUNT);

    /// A share of `basis_points` hundredths of a percent.
    ///
    /// # Errors
    /// [`InvalidShare`] above 10 000.
    pub const fn from_basis_points(basis_points: u16) -> Result<Self, InvalidShare> {
        if basis_points <= Bucket::COUNT {
            Ok(Share(basis_points))
        } else {
            Err(InvalidShare)
        }
    }

    /// Hundredths of a percent, `0..=10_000`.
    pub const fn basis_points(self) -> u16 {
        self.0
    }

    /// The share as a ratio in `0.0..=1.0`, for gauges.
    pub fn ratio(self) -> f64 {
        f64::from(self.0) / f64::from(Bucket::COUNT)
    }

    /// Whether a key in `bucket` belongs to `new` at this share.
    ///
    /// Raising the share only adds buckets and lowering it only removes them, which is the whole
    /// reason for comparing with a threshold instead of drawing anew.
    pub const fn contains(self, bucket: Bucket) -> bool {
        bucket.0 < self.0
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let basis_points = u16::deserialize(deserializer)?;
        Share::from_basis_points(basis_points).map_err(serde::de::Error::custom)
    }
}

/// Reads `10%`, `0.25%` or `100 %`: at most two decimals, the percent sign obligatory, so that
/// `0.1` can never be taken for a tenth of everything by one reader and a thousandth by another.
impl std::str::FromStr for Share {
    type Err = InvalidShare;

    fn from_str(text: &str) -> Result<Self, InvalidShare> {
        let digits = text
            .trim()
            .strip_suffix('%')
            .ok_or(InvalidShare)?
            .trim_end();
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !is_number(whole) || !is_number(fraction) || whole.len() > 3 || fraction.len() > 2 {
            return Err(InvalidShare);
        }
        let whole: u16 = whole.parse().map_err(|_| InvalidShare)?;
        let hundredths: u16 = format!("{fraction:0<2}")
            .parse()
            .map_err(|_| InvalidShare)?;
        // Three digits and two do not fit into sixteen bits: `700%` must not come out as 44.64 %.
        let basis_points = whole.checked_mul(100).ok_or(InvalidShare)?;
        Share::from_basis_points(basis_points.saturating_add(hundredths))
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, hundredths) = (self.0 / 100, self.0 % 100);
        let text = match (hundredths, hundredths % 10) {
            (0, _) => format!("{whole}%"),
            (_, 0) => format!("{whole}.{}%", hundredths / 10),
            _ => format!("{whole}.{hundredths:02}%"),
        };
        f.pad(&text)
    }
}

/// The text or number is no share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a share is a percentage from 0% to 100% with at most two decimals, such as `12.5%`")]
pub struct InvalidShare;

/// A slot of the key space, `0..10_000`; see [`crate::policy::key::KeyHash::bucket`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Bucket(u16);

impl Bucket {
    /// How many buckets there are: one per basis point.
    pub const COUNT: u16 = 10_000;

    /// Maps a uniform 64-bit hash to a bucket by multiplication, which uses the high bits and so
    /// leaves the low ones independent (they choose the [`crate::policy::key::Cluster`]).
    pub const fn from_hash(hash: u64) -> Self {
        // The product of a u64 and 10_000 shifted right by 64 is below 10_000.
        Bucket(((hash as u128 * Bucket::COUNT as u128) >> 64) as u16)
    }

    /// The slot's number.
    pub const fn index(self) -> u16 {
        self.0
    }

    /// The smallest share that contains this slot.
    pub const fn first_share(self) -> Share {
        Share(self.0 + 1)
    }
}

/// A share in what people read and write, `25%`, where records hold basis points: for
/// `#[serde(with = "percentage")]`.
pub mod percentage {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::Share;

    /// Writes `25%`.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(share: &Share, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(share)
    }

    /// Reads what a share is read from.
    ///
    /// # Errors
    /// The deserializer's, and [`InvalidShare`](super::InvalidShare).
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Share, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_percentages_with_two_decimals_and_nothing_else() {
        for (text, basis_points) in [("0%", 0), ("0.01%", 1), ("2.5 %", 250), ("100%", 10_000)] {
            assert_eq!(
                text.parse(),
                Share::from_basis_points(basis_points),
                "{text}"
            );
        }
        for text in [
            "10", "100.01%", "-1%", "1.234%", "%", ".5%", "1e1%", "101%", "656%", "700%", "999%",
        ] {
            assert_eq!(text.parse::<Share>(), Err(InvalidShare), "{text}");
        }
    }

    #[test]
    fn prints_what_it_reads() {
        for basis_points in 0..=Bucket::COUNT {
            let share = Share::from_basis_points(basis_points).expect("in range");
            assert_eq!(share.to_string().parse(), Ok(share));
        }
    }
}
