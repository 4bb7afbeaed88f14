//! Telling systemd where the process stands (`Type=notify`).
//!
//! A datagram to the socket that `NOTIFY_SOCKET` names, nothing more; without the variable nobody
//! wants to know.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::{env, io};

/// Clients are served.
pub const READY: &str = "READY=1";
/// The process leaves.
pub const STOPPING: &str = "STOPPING=1";

/// Tells systemd this, if it listens.
pub fn notify(state: &str) {
    if let Err(error) = try_notify(state) {
        tracing::warn!(%error, state, "systemd was not told");
    }
}

/// That another process is the service now.
pub fn main_process(process: u32) -> String {
    format!("MAINPID={process}")
}

fn try_notify(state: &str) -> io::Result<()> {
    let Some(path) = env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
        return Ok(());
    };
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(&path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}
