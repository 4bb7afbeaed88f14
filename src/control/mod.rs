//! The control plane: one task that owns everything that changes.

pub mod protocol;
pub mod watch;
