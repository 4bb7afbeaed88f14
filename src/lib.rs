//! cutover moves live traffic from a legacy API to its replacement, in stages, on evidence, and
//! back at the first sign of harm.
//!
//! Modules in reading order: [`policy`] decides and is pure; [`config`] says what the user wants;
//! [`identity`] finds out who asks; [`upstream`] reaches the servers behind; [`telemetry`] counts
//! what happens; [`snapshot`] is the one view that a request sees; [`proxy`] is its path, [`edge`]
//! the door before it and [`server`] the threads that carry it; [`control`] is the single writer and
//! [`state`] its memory; [`admin`] is where it is asked, [`cli`] who asks, and [`app`] where the
//! parts are wired together.
//!
//! docs/architecture.md has the life of a request, the layers and the invariants.

pub mod admin;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
mod demo;
pub mod edge;
pub mod handover;
pub mod identity;
pub mod message;
pub mod policy;
pub mod proxy;
pub mod server;
pub mod snapshot;
pub mod state;
pub mod telemetry;
mod terminal;
pub mod upstream;
