//! The path of a request: who sends it, where it goes, what comes back.

mod cookie;
pub mod identify;
pub mod jwt;
pub mod pin;
