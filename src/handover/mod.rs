//! Replacing the running program by a newer one, without a request that notices.
//!
//! The old process passes its listening sockets to its successor, stops deciding, and leaves when
//! its connections have ended. Both accept for a moment, which is harmless: it is one queue in the
//! kernel, and a socket that is held by anyone loses nothing that waits in it.
//!
//! The mistake to avoid is to have two deciders, or none. So the state store's lock says who
//! decides, and the old process has the last word: until it has said [`wire::FromOld::Yours`] it is
//! in charge, and whatever goes wrong before that has it open its store again and go on. A
//! successor whose predecessor dies on the way takes what is left lying.
//!
//! [`predecessor`] is what the successor sees of the old process and [`successor`] the other way
//! round; [`wire`] is what they say. [`activation`] takes sockets from systemd instead, [`notify`]
//! tells it where we stand, [`program`] knows how to start ourselves again, and [`last_words`] what
//! such a process says if it fails. [`restraint`] is what an old process obeys to the end. Why all
//! this is so is in docs/adr/0007-handover.md.

pub mod activation;
pub mod inherited;
pub mod last_words;
pub mod notify;
pub mod predecessor;
pub mod program;
pub mod restraint;
pub mod successor;
pub mod upgrade;
mod wire;

use std::time::Duration;

/// Name of the socket within the state directory.
const SOCKET: &str = "handover.sock";
/// For a started successor to read its configuration and ask.
pub const START: Duration = Duration::from_secs(10);
/// For the other to answer what needs no more than an address bound.
const ANSWER: Duration = Duration::from_secs(5);
/// For a successor to open the state store and the connections that its splits want beforehand. So
/// long nobody judges.
const SERVE: Duration = Duration::from_secs(10);
/// A share can sink long after the last one did; no drain takes this long.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// For an old process to confirm that it obeys, before an order's answer goes without that.
pub const CONFIRM: Duration = Duration::from_secs(1);
/// For a still older process to confirm, before the old one says that it has not. Shorter, so that
/// an order's answer names the one that hangs.
pub const CONFIRM_FURTHER: Duration = Duration::from_millis(500);
/// For an old process that is busy with another successor, or with its last save.
const TURN: Duration = Duration::from_secs(30);
