//! The two sides of a migration, and a pair of anything that exists once per side.

use serde::{Deserialize, Serialize};

/// One side of a split. The same two words stand in code, configuration, labels and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arm {
    /// The API that is being replaced. It is the refuge: it never falls back to `new`.
    Legacy,
    /// The replacement, on trial.
    New,
}

impl Arm {
    /// Both arms, in the order in which tables and labels list them.
    pub const ALL: [Arm; 2] = [Arm::Legacy, Arm::New];

    /// The word used in configuration, labels, headers and pages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Arm::Legacy => "legacy",
            Arm::New => "new",
        }
    }
}

impl std::fmt::Display for Arm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for Arm {
    type Err = UnknownArm;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "legacy" => Ok(Arm::Legacy),
            "new" => Ok(Arm::New),
            _ => Err(UnknownArm),
        }
    }
}

/// The text names neither arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an arm is `legacy` or `new`")]
pub struct UnknownArm;

/// A pair of values, one per arm, indexed by [`Arm`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerArm<T> {
    /// The value that belongs to [`Arm::Legacy`].
    pub legacy: T,
    /// The value that belongs to [`Arm::New`].
    pub new: T,
}

impl<T> PerArm<T> {
    /// Builds both values with one function.
    pub fn from_fn(mut make: impl FnMut(Arm) -> T) -> Self {
        Self {
            legacy: make(Arm::Legacy),
            new: make(Arm::New),
        }
    }
}

impl<T> std::ops::Index<Arm> for PerArm<T> {
    type Output = T;

    fn index(&self, arm: Arm) -> &T {
        match arm {
            Arm::Legacy => &self.legacy,
            Arm::New => &self.new,
        }
    }
}

impl<T> std::ops::IndexMut<Arm> for PerArm<T> {
    fn index_mut(&mut self, arm: Arm) -> &mut T {
        match arm {
            Arm::Legacy => &mut self.legacy,
            Arm::New => &mut self.new,
        }
    }
}
