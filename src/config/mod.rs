//! The configuration file: what was written, what is meant, and every way it can be wrong.

pub mod model;

/// One thing that is wrong with a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1; 0 where none applies.
    pub line: usize,
    /// Column, from 1; 0 where none applies.
    pub column: usize,
    /// Path of the key, such as `splits.checkout.new`.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What would mend it.
    pub remedy: String,
}
