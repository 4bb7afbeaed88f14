//! Criteria on signals as people write them, in the form of those on metrics.
//!
//! Unlike a metric, a signal does not tell which of its directions is the bad one, so both signs are
//! accepted in both lists, and `worse` means higher. Everything that is printed here is read back as
//! the same thing.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;
use std::time::Duration;

use super::{
    Quantity, SignalCriterion, SignalHarm, SignalProof, SignalRequirement, is_signal_name,
};
use crate::policy::criteria::Action;
use crate::policy::duration;

/// The text is no rollback criterion on a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a rollback criterion on a signal is `lag > 5`, `throughput < 100`, `memory > 2GiB` or `memory \
     worse than legacy by 20%`, with `for 30s`, `then hold` or `then notify` after it if wanted"
)]
pub struct InvalidSignalCriterion;

/// The text is no requirement on a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an advance criterion on a signal is `lag < 5`, `throughput > 100`, `memory < 2GiB` or `memory \
     not worse than legacy by 10%`"
)]
pub struct InvalidSignalRequirement;

const WORSE: &str = " worse than legacy by ";
const NOT_WORSE: &str = " not worse than legacy by ";
/// A hundred times as bad as legacy: beyond that a comparison says nothing.
const LARGEST_MARGIN: f64 = 99.0;

/// Reads a sentence such as `lag > 5 for 1m then hold` or `memory worse than legacy by 20%`.
impl FromStr for SignalCriterion {
    type Err = InvalidSignalCriterion;

    fn from_str(text: &str) -> Result<Self, InvalidSignalCriterion> {
        criterion(text).ok_or(InvalidSignalCriterion)
    }
}

/// Writes the sentence that [`FromStr`] reads.
impl Display for SignalCriterion {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.signal)?;
        match self.harm {
            SignalHarm::Above(limit) => write!(f, " > {limit}")?,
            SignalHarm::Below(limit) => write!(f, " < {limit}")?,
            SignalHarm::WorseThanLegacy(margin) => write!(f, "{WORSE}{margin}")?,
        }
        if !self.sustained.is_zero() {
            write!(f, " for {}", duration::print(self.sustained))?;
        }
        match self.action {
            Action::Rollback => Ok(()),
            action => write!(f, " then {action}"),
        }
    }
}

/// Reads a sentence such as `lag < 5` or `memory not worse than legacy by 10%`.
impl FromStr for SignalRequirement {
    type Err = InvalidSignalRequirement;

    fn from_str(text: &str) -> Result<Self, InvalidSignalRequirement> {
        requirement(text).ok_or(InvalidSignalRequirement)
    }
}

/// Writes the sentence that [`FromStr`] reads.
impl Display for SignalRequirement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.signal)?;
        match self.proof {
            SignalProof::Below(limit) => write!(f, " < {limit}"),
            SignalProof::Above(limit) => write!(f, " > {limit}"),
            SignalProof::NotWorseThanLegacy(margin) => write!(f, "{NOT_WORSE}{margin}"),
        }
    }
}

fn criterion(text: &str) -> Option<SignalCriterion> {
    let (text, action) = match text.split_once(" then ") {
        Some((text, action)) => (text, action.trim().parse().ok()?),
        None => (text, Action::default()),
    };
    let (text, sustained) = match text.split_once(" for ") {
        Some((text, span)) => (
            text,
            duration::parse(span).ok().filter(|span| !span.is_zero())?,
        ),
        None => (text, Duration::ZERO),
    };
    let (signal, harm) = match text.split_once(WORSE) {
        // ` not worse than legacy by ` contains the other; `x not` is no name.
        Some((signal, by)) => (signal, SignalHarm::WorseThanLegacy(margin(by)?)),
        None => {
            let (signal, sign, limit) = limit(text)?;
            let harm = match sign {
                Sign::Above => SignalHarm::Above(limit),
                Sign::Below => SignalHarm::Below(limit),
            };
            (signal, harm)
        }
    };
    Some(SignalCriterion {
        signal: name(signal)?,
        harm,
        sustained,
        action,
    })
}

fn requirement(text: &str) -> Option<SignalRequirement> {
    let (signal, proof) = match text.split_once(NOT_WORSE) {
        Some((signal, by)) => (signal, SignalProof::NotWorseThanLegacy(margin(by)?)),
        None => {
            let (signal, sign, limit) = limit(text)?;
            let proof = match sign {
                Sign::Above => SignalProof::Above(limit),
                Sign::Below => SignalProof::Below(limit),
            };
            (signal, proof)
        }
    };
    Some(SignalRequirement {
        signal: name(signal)?,
        proof,
    })
}

enum Sign {
    Above,
    Below,
}

fn limit(text: &str) -> Option<(&str, Sign, Quantity)> {
    let place = text.find(['<', '>'])?;
    let sign = match &text[place..=place] {
        "<" => Sign::Below,
        _ => Sign::Above,
    };
    Some((&text[..place], sign, text[place + 1..].parse().ok()?))
}

fn margin(text: &str) -> Option<Quantity> {
    let margin: Quantity = text.parse().ok()?;
    let is_sensible = margin.value() > 0.0 && margin.value() <= LARGEST_MARGIN;
    (margin.is_percentage() && is_sensible).then_some(margin)
}

fn name(text: &str) -> Option<String> {
    let name = text.trim();
    is_signal_name(name).then(|| name.to_owned())
}
