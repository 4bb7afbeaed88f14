//! Numbers that no request can tell: memory, CPU, data lag, complaints.
//!
//! A signal is asked of somebody else, and somebody else may be down, late or talking nonsense. The
//! mistake to avoid is to take silence for health: what is not fresh is no value, and a rollout that
//! needs it stands still and says so, unless the configuration gives absence another meaning. Nor
//! may silence be fatal: nothing here fails, and each answer is shown as it came.
//!
//! There is no statistics in it. A signal is one number and not a count of requests, so a criterion
//! is a plain limit, perhaps with a time for which it must be passed. Ages grow by measured time
//! ([`Board::pass`]), so a clock that jumps makes nothing fresh and nothing stale.

mod board;
mod lack;
mod quantity;
mod sentence;
#[cfg(test)]
mod tests;

use std::mem::discriminant;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::board::{Board, SignalCondition, SignalState, bounded};
pub use self::lack::{Comparison, SignalBreach, SignalCause, SignalLack, Silence};
pub use self::quantity::{InvalidQuantity, Quantity};
pub use self::sentence::{InvalidSignalCriterion, InvalidSignalRequirement};

use super::criteria::{Action, Metric};

/// A name longer than this is no good as a label.
const LONGEST_NAME: usize = 64;

/// Harm that a signal tells of, and what is done about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SignalCriterion {
    /// The signal's name.
    pub signal: String,
    /// When it counts as harm.
    pub harm: SignalHarm,
    /// For how long without a break it must have been so; zero acts at once.
    pub sustained: Duration,
    /// What is done.
    pub action: Action,
}

/// When a signal counts as harm.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalHarm {
    /// It is higher than this.
    Above(Quantity),
    /// It is lower than this.
    Below(Quantity),
    /// It is higher than legacy's by more than this part of legacy's, written in percent.
    WorseThanLegacy(Quantity),
}

/// What an advance needs of a signal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SignalRequirement {
    /// The signal's name.
    pub signal: String,
    /// How good it must be.
    pub proof: SignalProof,
}

/// How good a signal must be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalProof {
    /// Lower than this.
    Below(Quantity),
    /// Higher than this.
    Above(Quantity),
    /// Not higher than legacy's by more than this part of legacy's, written in percent.
    NotWorseThanLegacy(Quantity),
}

/// What it means that a signal has no fresh value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Absence {
    /// Nobody knows: nothing advances, nothing rolls back.
    #[default]
    Inconclusive,
    /// All is well, as with a count that is only reported when there is something to count.
    Healthy,
    /// As bad as a breach of every criterion on it.
    Harm,
}

/// What the configuration says of a signal, as far as judging it goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SignalTerms {
    /// Its name.
    pub name: String,
    /// How old a value may be.
    pub fresh_for: Duration,
    /// What it means that there is none.
    pub absent: Absence,
    /// Whether its source tells a value of legacy as well.
    pub has_legacy: bool,
    /// What is asked of whom, as a hash: values of another source are no values of this one. Absent
    /// in what older programs wrote.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
}

/// What a source of a signal has answered: a value, or why there is none.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// About `new`.
    pub new: Result<f64, String>,
    /// About legacy, where it was asked about legacy.
    pub legacy: Option<Result<f64, String>>,
}

impl Reading {
    /// Both values, as somebody has told them.
    pub const fn of(new: f64, legacy: Option<f64>) -> Self {
        let legacy = match legacy {
            Some(value) => Some(Ok(value)),
            None => None,
        };
        Self {
            new: Ok(new),
            legacy,
        }
    }
}

impl SignalCriterion {
    /// Whether legacy's value is needed to tell.
    pub const fn compares(&self) -> bool {
        matches!(self.harm, SignalHarm::WorseThanLegacy(_))
    }

    /// Whether both limit the same signal on the same side.
    pub fn is_like(&self, other: &Self) -> bool {
        self.signal == other.signal && discriminant(&self.harm) == discriminant(&other.harm)
    }

    /// Whether it is breached whenever `other` is, and not later.
    pub fn forestalls(&self, other: &Self) -> bool {
        let is_stricter = match (self.harm, other.harm) {
            (SignalHarm::Above(own), SignalHarm::Above(other))
            | (SignalHarm::WorseThanLegacy(own), SignalHarm::WorseThanLegacy(other)) => {
                own.value() <= other.value()
            }
            (SignalHarm::Below(own), SignalHarm::Below(other)) => own.value() >= other.value(),
            _ => false,
        };
        self.signal == other.signal && is_stricter && self.sustained <= other.sustained
    }
}

impl SignalHarm {
    fn limit(self, legacy: f64) -> f64 {
        match self {
            SignalHarm::Above(limit) | SignalHarm::Below(limit) => limit.value(),
            SignalHarm::WorseThanLegacy(margin) => raised(legacy, margin),
        }
    }

    fn is_done_by(self, found: Comparison) -> bool {
        match self {
            SignalHarm::Above(_) | SignalHarm::WorseThanLegacy(_) => found.value > found.limit,
            SignalHarm::Below(_) => found.value < found.limit,
        }
    }
}

impl SignalRequirement {
    /// Whether legacy's value is needed to tell.
    pub const fn compares(&self) -> bool {
        matches!(self.proof, SignalProof::NotWorseThanLegacy(_))
    }

    /// Whether both limit the same signal on the same side.
    pub fn is_like(&self, other: &Self) -> bool {
        self.signal == other.signal && discriminant(&self.proof) == discriminant(&other.proof)
    }

    /// Whether a value that meets it can be the harm that `criterion` names: some value of those on
    /// the other side of two limits, every value of those on the same side.
    pub fn contradicts(&self, criterion: &SignalCriterion) -> bool {
        let could_be_harm = match (self.proof, criterion.harm) {
            (SignalProof::Below(ceiling), SignalHarm::Above(floor))
            | (SignalProof::Above(floor), SignalHarm::Below(ceiling)) => {
                floor.value() < ceiling.value()
            }
            (SignalProof::NotWorseThanLegacy(needed), SignalHarm::WorseThanLegacy(harm)) => {
                needed.value() > harm.value()
            }
            (SignalProof::Above(needed), SignalHarm::Above(harm)) => needed.value() >= harm.value(),
            (SignalProof::Below(needed), SignalHarm::Below(harm)) => needed.value() <= harm.value(),
            _ => false,
        };
        self.signal == criterion.signal && could_be_harm
    }
}

impl SignalProof {
    fn limit(self, legacy: f64) -> f64 {
        match self {
            SignalProof::Above(limit) | SignalProof::Below(limit) => limit.value(),
            SignalProof::NotWorseThanLegacy(margin) => raised(legacy, margin),
        }
    }

    fn is_met_by(self, found: Comparison) -> bool {
        match self {
            SignalProof::Below(_) => found.value < found.limit,
            SignalProof::NotWorseThanLegacy(_) => found.value <= found.limit,
            SignalProof::Above(_) => found.value > found.limit,
        }
    }
}

/// Legacy's value, raised by a part of its size: one of -10 may rise by 10 % to -9.
fn raised(legacy: f64, margin: Quantity) -> f64 {
    legacy + legacy.abs() * margin.value()
}

impl Absence {
    /// The word in configuration and status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Absence::Inconclusive => "inconclusive",
            Absence::Healthy => "healthy",
            Absence::Harm => "harm",
        }
    }
}

/// Whether a signal may be called so: lower-case letters, digits and `_`, not a digit first, at most
/// 64 of them, and nothing that is or reads like a name of what cutover measures itself.
pub fn is_signal_name(name: &str) -> bool {
    let is_word = name
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    let begins = name.bytes().next();
    is_word
        && begins.is_some_and(|byte| !byte.is_ascii_digit())
        && name.len() <= LONGEST_NAME
        && !is_measured(name)
}

/// Whether a criterion that names this means a metric of cutover's own. `p85` is none, but whoever
/// writes it means one.
fn is_measured(name: &str) -> bool {
    let measured = [
        Metric::ErrorRate,
        Metric::ClientErrorRate,
        Metric::Availability,
        Metric::FallbackRate,
        Metric::LatencyProfile,
    ];
    let quantile = name.strip_prefix("total_").unwrap_or(name);
    let hundredths = quantile.strip_prefix('p').unwrap_or_default();
    let is_quantile =
        !hundredths.is_empty() && hundredths.bytes().all(|byte| byte.is_ascii_digit());
    is_quantile
        || matches!(name, "inconsistency" | "shadow_failure_rate")
        || measured.iter().any(|metric| metric.to_string() == name)
}
