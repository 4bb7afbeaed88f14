//! What signals say against a rollout, and what they fail to say, in words.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::quantity::digits;
use super::{Quantity, SignalCriterion, SignalHarm, SignalProof, SignalRequirement};
use crate::policy::arm::Arm;
use crate::policy::duration;

/// A criterion on a signal that is breached.
#[derive(Clone, Debug, PartialEq)]
pub struct SignalBreach {
    /// The criterion.
    pub criterion: SignalCriterion,
    /// What breaches it.
    pub cause: SignalCause,
    /// For how long it has been so.
    pub lasted: Duration,
}

/// What breaches a criterion.
#[derive(Clone, Debug, PartialEq)]
pub enum SignalCause {
    /// A value.
    Value(Comparison),
    /// That there is none, where this counts as harm.
    Absent(Silence),
}

/// A fresh value beside its limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// The value of `new`.
    pub value: f64,
    /// Legacy's, where it is the measure.
    pub legacy: Option<f64>,
    /// What the value must not pass; where legacy is the measure, as `legacy` has it.
    pub limit: f64,
}

/// What signals lack of an advance.
#[derive(Clone, Debug, PartialEq)]
pub enum SignalLack {
    /// There is no fresh value.
    Value(Silence),
    /// A criterion is breached, but not yet for as long as it asks.
    Calm(SignalBreach),
    /// A requirement is not met.
    Requirement {
        /// The requirement.
        requirement: SignalRequirement,
        /// The value that does not meet it.
        found: Comparison,
    },
}

/// A signal without a fresh value.
#[derive(Clone, Debug, PartialEq)]
pub struct Silence {
    /// Its name.
    pub signal: String,
    /// Whose value is missing.
    pub arm: Arm,
    /// How old its last value is; absent if there never was one.
    pub age: Option<Duration>,
    /// Whether that was taken before everything was judged afresh, so that it counts no more.
    pub is_spent: bool,
    /// How old it may be.
    pub fresh_for: Duration,
    /// What its source has said last.
    pub error: Option<String>,
}

impl Display for SignalBreach {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let criterion = &self.criterion;
        write!(f, "{criterion}: ")?;
        match &self.cause {
            SignalCause::Value(found) => found.write(f, criterion.harm.scale())?,
            SignalCause::Absent(silence) => {
                write!(f, "{}, which counts as harm", silence.what())?;
                silence.write_error(f)?;
            }
        }
        if !criterion.sustained.is_zero() {
            write!(f, ", for {}", whole_seconds(self.lasted))?;
        }
        if self.lasted < criterion.sustained {
            write!(f, " of {}", duration::print(criterion.sustained))?;
        }
        f.write_str(".")
    }
}

impl Display for SignalLack {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            SignalLack::Value(silence) => {
                write!(
                    f,
                    "{}: {}, fresh for {} is needed",
                    silence.signal,
                    silence.what(),
                    duration::print(silence.fresh_for)
                )?;
                silence.write_error(f)?;
                f.write_str(".")
            }
            SignalLack::Calm(breach) => breach.fmt(f),
            SignalLack::Requirement { requirement, found } => {
                write!(f, "{requirement} is not met: ")?;
                found.write(f, requirement.proof.scale())?;
                f.write_str(".")
            }
        }
    }
}

impl Comparison {
    /// The limit is part of the sentence before, unless it depends on legacy's value.
    fn write(self, f: &mut Formatter<'_>, scale: Option<Quantity>) -> fmt::Result {
        if let Some(scale) = scale {
            return write!(f, "it is {}", scale.show(self.value));
        }
        write!(f, "it is {}", digits(self.value))?;
        if let Some(legacy) = self.legacy {
            let (legacy, limit) = (digits(legacy), digits(self.limit));
            write!(f, ", legacy's is {legacy}, the limit {limit}")?;
        }
        Ok(())
    }
}

impl Silence {
    fn what(&self) -> String {
        let whose = match self.arm {
            Arm::New => "",
            Arm::Legacy => " of legacy",
        };
        match self.age {
            Some(_) if self.is_spent => format!("no reading{whose} since it is judged afresh"),
            Some(age) => format!("no reading{whose} for {}", whole_seconds(age)),
            None => format!("no reading{whose} yet"),
        }
    }

    fn write_error(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.error {
            Some(error) => write!(f, " ({error})"),
            None => Ok(()),
        }
    }
}

impl SignalHarm {
    /// The limit whose unit suits values of the signal.
    pub(super) fn scale(self) -> Option<Quantity> {
        match self {
            SignalHarm::Above(limit) | SignalHarm::Below(limit) => Some(limit),
            SignalHarm::WorseThanLegacy(_) => None,
        }
    }
}

impl SignalProof {
    /// The limit whose unit suits values of the signal.
    pub(super) fn scale(self) -> Option<Quantity> {
        match self {
            SignalProof::Above(limit) | SignalProof::Below(limit) => Some(limit),
            SignalProof::NotWorseThanLegacy(_) => None,
        }
    }
}

fn whole_seconds(span: Duration) -> String {
    duration::print(Duration::from_secs(span.as_secs()))
}
