//! The control plane: one task that owns everything that changes.
//!
//! [`controller`] is the loop: it takes one event at a time (a tick, a command, a changed file),
//! lets the pure state machines decide, and carries out their effects in order. [`world`] is what
//! it knows; [`keeper`] is the thread that writes to the disk for it, and [`history`] what is read
//! of it; [`watch`] notices that a file has changed; [`recorder`] writes down what the judges see;
//! [`succession`] lets another process take its place; [`signals`] asks for the numbers that no
//! request tells; [`protocol`] is how everyone else reaches it, [`command`] what they may ask for,
//! and [`report`] what it says of itself.

mod advance;
mod announced;
pub mod command;
pub mod controller;
pub mod data_plane;
pub mod denied;
pub mod history;
pub mod keeper;
mod operate;
pub mod protocol;
pub mod recorder;
pub mod reload;
pub mod report;
pub mod signals;
mod succession;
mod traffic;
mod warm_up;
pub mod watch;
pub mod world;
