//! From counts to a verdict.

pub mod window;
