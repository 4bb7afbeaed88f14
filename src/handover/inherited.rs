//! Listening sockets that somebody else has bound, until a listener of ours claims them.

use std::net::{SocketAddr, TcpListener};

use super::wire::{Described, Door};

/// Listening sockets that somebody else has bound.
#[derive(Debug, Default)]
pub struct Inherited(Vec<Socket>);

#[derive(Debug)]
struct Socket {
    /// What a predecessor said of it; systemd says nothing.
    described: Option<Described>,
    bound: SocketAddr,
    socket: TcpListener,
}

impl Inherited {
    /// Adds one.
    ///
    /// # Errors
    /// The system's, where it is no socket with an address.
    pub(super) fn add(
        &mut self,
        described: Option<Described>,
        socket: TcpListener,
    ) -> std::io::Result<()> {
        self.0.push(Socket {
            described,
            bound: socket.local_addr()?,
            socket,
        });
        Ok(())
    }

    /// Hands out the socket for this address of the configuration, if there is one. A predecessor
    /// may have had its port chosen by the system: then the address in its configuration tells.
    pub fn claim(&mut self, door: Door, address: SocketAddr) -> Option<TcpListener> {
        let fits = |socket: &Socket| match socket.described {
            Some(described) => {
                described
                    == Described {
                        door,
                        configured: address,
                    }
            }
            None => socket.bound == address,
        };
        let index = self.0.iter().position(fits)?;
        Some(self.0.remove(index).socket)
    }

    /// The addresses of those that nobody has claimed.
    pub fn unclaimed(&self) -> impl Iterator<Item = SocketAddr> {
        self.0.iter().map(|socket| socket.bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_claimed_once_by_its_address_and_for_what_it_was() {
        let configured: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let mut inherited = Inherited::default();
        let mut add = |door: Option<Door>| {
            let socket = TcpListener::bind(configured).unwrap();
            let bound = socket.local_addr().unwrap();
            let described = door.map(|door| Described { door, configured });
            inherited.add(described, socket).unwrap();
            bound
        };
        let of_systemd = add(None);
        let admin = add(Some(Door::Admin));
        let traffic = add(Some(Door::Traffic));
        let mut claim = |door, address| {
            let socket = inherited.claim(door, address);
            socket.map(|socket| socket.local_addr().unwrap())
        };
        assert_eq!(claim(Door::Traffic, configured), Some(traffic));
        assert_eq!(claim(Door::Traffic, configured), None);
        assert_eq!(claim(Door::Admin, of_systemd), Some(of_systemd));
        assert_eq!(inherited.unclaimed().collect::<Vec<_>>(), [admin]);
    }
}
