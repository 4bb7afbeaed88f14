//! The admin API from its socket to its end.
//!
//! axum stops accepting and ends what is open in one step, and so closes a connection in the face
//! of whoever has connected and is about to ask. Here the door is closed first, and a little later
//! the connections.

use std::future::pending;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::admin::{self, AdminState};

/// Time for the first request of whoever has just connected.
const LAST_CALL: Duration = Duration::from_millis(500);

/// A socket on which the admin API can be served, and nothing about it can fail any more.
pub(super) struct AdminSocket {
    address: SocketAddr,
    socket: tokio::net::TcpListener,
    /// The same, for a successor.
    shared: Arc<TcpListener>,
}

/// The admin API, at work.
pub(super) struct Admin {
    pub(super) address: SocketAddr,
    latch: Latch,
    served: tokio::task::JoinHandle<()>,
}

impl AdminSocket {
    pub(super) fn prepare(socket: TcpListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            address: socket.local_addr()?,
            shared: Arc::new(socket.try_clone()?),
            socket: tokio::net::TcpListener::from_std(socket)?,
        })
    }

    /// The socket, for another process to serve on as well.
    pub(super) fn shared(&self) -> Arc<TcpListener> {
        Arc::clone(&self.shared)
    }
}

impl Admin {
    pub(super) fn serve(socket: AdminSocket, state: AdminState) -> Self {
        let AdminSocket {
            address, socket, ..
        } = socket;
        let (is_closed, mut closing) = watch::channel(false);
        let door = Door {
            socket,
            is_closed: closing.clone(),
        };
        let last_call = async move {
            // Whoever never ends it drops it only at the end of the process.
            let _ = closing.wait_for(|is_closed| *is_closed).await;
            sleep(LAST_CALL).await;
        };
        let serving = axum::serve(door, admin::service(state)).with_graceful_shutdown(last_call);
        let served = tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "the admin API has ended");
            }
        });
        Self {
            address,
            latch: Latch(is_closed),
            served,
        }
    }

    /// What closes its door.
    pub(super) fn latch(&self) -> Latch {
        self.latch.clone()
    }

    /// Takes no further connections; resolves when what was asked is answered.
    pub(super) async fn end(self) {
        self.latch.close();
        // It may have ended already.
        let _ = self.served.await;
    }
}

/// Closes the door of an admin API, also for others than who ends it.
#[derive(Clone)]
pub(super) struct Latch(watch::Sender<bool>);

impl Latch {
    /// From now on whoever connects finds the process that holds the socket as well, if there is one.
    pub(super) fn close(&self) {
        // The API may have ended already.
        let _ = self.0.send(true);
    }
}

/// Where the admin API takes connections, until it is closed.
struct Door {
    socket: tokio::net::TcpListener,
    is_closed: watch::Receiver<bool>,
}

impl Listener for Door {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        tokio::select! {
            biased;
            _ = self.is_closed.wait_for(|is_closed| *is_closed) => {}
            accepted = Listener::accept(&mut self.socket) => return accepted,
        }
        // axum gives this up once it ends the connections.
        pending().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}
