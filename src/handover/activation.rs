//! Sockets that systemd has bound for us.
//!
//! They outlive us: what arrives between our end and our next start waits in their queue. A socket
//! that no listener of the configuration claims is an error, because clients would wait in it for
//! ever.

use std::io;

use listenfd::ListenFd;

use super::inherited::Inherited;

/// Takes the sockets that `LISTEN_FDS` tells of; none without it.
///
/// # Errors
/// What was passed is no TCP socket.
pub fn sockets() -> io::Result<Inherited> {
    let mut passed = ListenFd::from_env();
    let mut inherited = Inherited::default();
    for index in 0..passed.len() {
        if let Some(socket) = passed.take_tcp_listener(index)? {
            // `NonBlocking=` in the unit would have the acceptor spin.
            socket.set_nonblocking(false)?;
            inherited.add(None, socket)?;
        }
    }
    Ok(inherited)
}
