//! The admin API from its socket to its end.

use std::io;
use std::net::{SocketAddr, TcpListener};

use tokio::sync::oneshot;

use crate::admin::{self, AdminState};

/// The admin API, at work.
pub(super) struct Admin {
    pub(super) address: SocketAddr,
    end: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<()>,
}

impl Admin {
    pub(super) fn serve(socket: TcpListener, state: AdminState) -> io::Result<Self> {
        let address = socket.local_addr()?;
        socket.set_nonblocking(true)?;
        let socket = tokio::net::TcpListener::from_std(socket)?;
        let (end, ended) = oneshot::channel();
        let serving = axum::serve(socket, admin::service(state)).with_graceful_shutdown(async {
            // Whoever never ends it drops it only at the end of the process.
            let _ = ended.await;
        });
        let served = tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "the admin API has ended");
            }
        });
        Ok(Self {
            address,
            end,
            served,
        })
    }

    /// Takes no further connections; resolves when what was asked is answered.
    pub(super) async fn end(self) {
        // It may have ended already.
        let _ = self.end.send(());
        let _ = self.served.await;
    }
}
