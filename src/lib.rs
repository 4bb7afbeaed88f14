//! cutover moves live traffic from a legacy API to its replacement, in stages, on evidence, and
//! back at the first sign of harm.
//!
//! Modules in reading order: [`policy`] decides and is pure; [`config`] says what the user wants;
//! [`upstream`] reaches the servers behind; [`telemetry`] counts what happens; [`proxy`] is the
//! path of a request; [`control`] is the single writer and [`state`] its memory; [`admin`] is the
//! door through which it is asked, and [`cli`] the one who knocks. `demo` shows all of it.

pub mod admin;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
mod demo;
pub mod edge;
pub mod identity;
pub mod policy;
pub mod proxy;
pub mod server;
pub mod snapshot;
pub mod state;
pub mod telemetry;
mod terminal;
pub mod upstream;
