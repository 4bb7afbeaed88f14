//! Sockets that systemd has bound for us.
//!
//! They outlive us: what arrives between our end and our next start waits in their queue. A socket
//! that no listener of the configuration claims is an error, because clients would wait in it for
//! ever; so is one of another kind, and the error says of all of them what to write instead.

use std::io;
use std::net::TcpListener;

use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;

use super::inherited::Inherited;

/// What systemd passes cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// Sockets of kinds that nothing here listens on; all of them.
    #[error(
        "systemd passes {}; only TCP listeners are taken: in the socket unit, write each as \
         `ListenStream=ADDRESS:PORT`, leave `Accept=` out, and remove what is of another kind",
        .0.join(" and ")
    )]
    Foreign(Vec<String>),
    /// The system refuses something that it never refuses.
    #[error("a socket of systemd cannot be used: {0}")]
    System(#[from] io::Error),
}

/// Takes the sockets that `LISTEN_FDS` tells of; none without it.
///
/// # Errors
/// [`NotTaken`].
pub fn sockets() -> Result<Inherited, NotTaken> {
    let mut passed = ListenFd::from_env();
    let mut inherited = Inherited::default();
    let mut foreign = Vec::new();
    for index in 0..passed.len() {
        match passed.take_tcp_listener(index) {
            Ok(Some(socket)) if socket_acceptconn(&socket).map_err(io::Error::from)? => {
                // `NonBlocking=` in the unit would have the acceptor spin.
                socket.set_nonblocking(false)?;
                inherited.add(None, socket)?;
            }
            Ok(Some(connection)) => foreign.push(connected(&connection)),
            Ok(None) => {}
            Err(_) => foreign.push(kind(&mut passed, index)),
        }
    }
    if foreign.is_empty() {
        return Ok(inherited);
    }
    Err(NotTaken::Foreign(foreign))
}

/// What `Accept=yes` passes.
fn connected(connection: &TcpListener) -> String {
    match connection.local_addr() {
        Ok(address) => format!("one connection to {address} instead of its listener"),
        Err(_) => "one connection instead of its listener".to_owned(),
    }
}

/// What a socket is that is no TCP socket.
fn kind(passed: &mut ListenFd, index: usize) -> String {
    let path = |address: io::Result<std::os::unix::net::SocketAddr>| {
        let address = address.ok();
        let path = address.as_ref().and_then(|address| address.as_pathname());
        path.map_or_else(String::new, |path| format!(" {}", path.display()))
    };
    if let Ok(Some(socket)) = passed.take_unix_listener(index) {
        return format!("the Unix socket{}", path(socket.local_addr()));
    }
    if let Ok(Some(socket)) = passed.take_unix_datagram(index) {
        return format!("the Unix datagram socket{}", path(socket.local_addr()));
    }
    if let Ok(Some(socket)) = passed.take_udp_socket(index) {
        let address = socket.local_addr();
        let address = address.map_or_else(|_| String::new(), |address| format!(" {address}"));
        return format!("the datagram socket{address}");
    }
    // systemd passes them from the descriptor 3 on.
    format!("something else as its socket number {}", index + 1)
}
