//! How many connections each client address has open.
//!
//! One client that opens thousands of connections and says nothing on them would take every place
//! below `max_connections` from all the others. An address is counted only while it has a connection
//! open, so what is kept is bounded by the connections themselves; and nothing is kept where there
//! is no limit.

use std::net::IpAddr;
use std::rc::Rc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::policy::address_key::household;
use crate::proxy::peer::Peer;

use super::{Entrance, Local};

/// Connections open by client address, those of IPv6 by their /64.
///
/// The map hashes with a random seed, since strangers choose what goes into it.
#[derive(Debug, Default)]
pub(super) struct Places(DashMap<IpAddr, usize>);

impl Places {
    fn try_enter(&self, address: IpAddr, limit: usize) -> bool {
        match self.0.entry(address) {
            Entry::Occupied(mut open) => {
                let has_room = *open.get() < limit;
                if has_room {
                    *open.get_mut() += 1;
                }
                has_room
            }
            Entry::Vacant(first) => {
                first.insert(1);
                true
            }
        }
    }

    fn leave(&self, address: IpAddr) {
        self.0.remove_if_mut(&address, |_, open| {
            *open -= 1;
            *open == 0
        });
    }
}

/// A connection's place among those of its address; given back when dropped.
#[derive(Debug)]
pub struct Place {
    local: Rc<Local>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.local.shared.places.leave(self.address);
    }
}

/// The address has as many connections open as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its address has too many connections open")]
pub struct NoPlace;

impl Entrance {
    /// A place for a connection of `peer`, where places are limited. A trusted proxy needs none: it
    /// comes for many.
    ///
    /// # Errors
    /// [`NoPlace`] where the address has as many connections open as it may.
    pub fn place(&self, peer: Peer) -> Result<Option<Box<Place>>, NoPlace> {
        let view = self.0.worker.view();
        let edge = &view.snapshot.routing.edge;
        let Some(limit) = edge.max_connections_per_address else {
            return Ok(None);
        };
        if peer.is_trusted(&edge.trusted_proxies) {
            return Ok(None);
        }
        let address = household(peer.ip());
        if !self.0.shared.places.try_enter(address, limit) {
            return Err(NoPlace);
        }
        Ok(Some(Box::new(Place {
            local: Rc::clone(&self.0),
            address,
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_left_makes_room_and_nothing_is_kept_of_him() {
        let places = Places::default();
        let address = IpAddr::from([192, 0, 2, 7]);
        assert!(places.try_enter(address, 2));
        assert!(places.try_enter(address, 2));
        assert!(!places.try_enter(address, 2));
        assert!(places.try_enter(IpAddr::from([192, 0, 2, 8]), 2));
        places.leave(address);
        assert!(places.try_enter(address, 2));
        for _ in 0..2 {
            places.leave(address);
        }
        assert_eq!(places.0.len(), 1);
    }
}
