//! The listening sockets: whose they are at the start, and what becomes of them.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use tokio::time::sleep;

use super::{LOOK, ServeError};
use crate::config::model::Config;
use crate::handover::inherited::Inherited;
use crate::handover::successor::{Described, Door, Doorstep};
use crate::server::listener::{self, Listener};

/// The sockets of the listeners, and the admin API's: those that others have bound where there are
/// any, else our own.
pub(super) fn listen(
    config: &Config,
    mut given: Inherited,
    mut passed: Inherited,
) -> Result<(Vec<TcpListener>, TcpListener), ServeError> {
    let mut claim = |door, address| {
        let claimed = given.claim(door, address);
        let claimed = claimed.or_else(|| passed.claim(door, address));
        claimed.map_or_else(|| listener::bind(address), Ok)
    };
    let addresses = config.listeners.iter().map(|listener| listener.address);
    let sockets = addresses.map(|address| claim(Door::Traffic, address));
    let sockets = sockets.collect::<Result<_, _>>()?;
    let admin = claim(Door::Admin, config.process.admin.address)?;
    for address in given.unclaimed() {
        tracing::info!(%address, "no longer listened on");
    }
    let unclaimed: Vec<SocketAddr> = passed.unclaimed().collect();
    if unclaimed.is_empty() {
        return Ok((sockets, admin));
    }
    Err(ServeError::Unclaimed(unclaimed))
}

/// What each socket is for, the admin API's last.
pub(super) fn describe(config: &Config) -> Vec<Described> {
    let listeners = config.listeners.iter().map(|listener| Described {
        door: Door::Traffic,
        configured: listener.address,
    });
    let admin = Described {
        door: Door::Admin,
        configured: config.process.admin.address,
    };
    listeners.chain([admin]).collect()
}

pub(super) fn doorstep(state_directory: &Path) -> Option<Doorstep> {
    let opened = Doorstep::open(state_directory);
    opened
        .inspect_err(|error| {
            let directory = state_directory.display();
            tracing::warn!(
                %directory, %error,
                "no socket for a successor: an upgrade needs a stop and a start"
            );
        })
        .ok()
}

/// Takes no further connections; returns when the sockets are closed.
pub(super) async fn stop_all(listeners: Vec<Listener>) {
    listeners.iter().for_each(Listener::begin_to_stop);
    while !listeners.iter().all(Listener::has_stopped) {
        sleep(LOOK).await;
    }
}
