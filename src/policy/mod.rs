//! Everything that can be wrong in an interesting way, as pure functions of their arguments.
//!
//! Nothing here is async, opens a socket, reads a file, draws a random number or asks what time it
//! is; `tests/it/architecture.rs` fails when a module tries. Time comes in as an argument.

pub mod address_key;
pub mod addresses;
pub mod arm;
pub mod assign;
pub mod calendar;
pub mod class;
pub mod criteria;
pub mod denials;
pub mod duration;
pub mod fallback;
pub mod judge;
pub mod key;
pub mod pace;
pub mod plan;
pub mod rate;
pub mod rollout;
pub mod route;
pub mod share;
pub mod signal;
pub mod time;
pub mod wording;
