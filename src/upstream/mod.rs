//! The servers behind the proxy: which of them may be tried, and how to reach them.
//!
//! Workers own their connections; what must hold over all of them (caps, health, ejection, the
//! breaker, the budget) is a handful of atomics here. Nothing in this module reads a clock on the
//! request path: time is an argument.

pub mod backend;
pub mod breaker;
pub mod budget;
pub mod connect;
pub mod deadline;
pub mod endpoint;
pub mod exchange;
pub mod health;
pub mod http1;
pub mod http2;
pub mod inflow;
pub mod list;
mod lookup;
pub mod names;
pub mod pool;
pub mod probe;
mod queue;
pub mod watch;
