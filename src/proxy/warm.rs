//! Opening connections before traffic needs them.
//!
//! The first requests of a raised share would otherwise all pay for a connect and a TLS handshake
//! at once, and be judged for it.

use std::time::Duration;

use tokio::time::timeout;

use crate::config::model::{BackendId, Protocol};
use crate::upstream::connect::connect;
use crate::upstream::http1::connection::Connection;
use crate::upstream::http2::connection as shared;

use super::worker::Worker;

/// Beyond this, traffic is not kept waiting for connections that do not come.
const PATIENCE: Duration = Duration::from_secs(1);

/// Opens the connections that the backend's `pool.warm` asks for, on this worker. Failures are
/// left to the requests to find.
pub async fn warm(worker: &Worker, backend: BackendId) {
    let view = worker.view();
    let plan = view.snapshot.routing.backend(backend);
    let open_all = async {
        for pool in view.pools(backend) {
            for _ in pool.ready_count()..pool.limits().warm {
                let endpoint = pool.endpoint();
                let Some(permit) = pool.acquire() else {
                    break;
                };
                let Ok(stream) = connect(endpoint, plan.backend.tls.as_ref()).await else {
                    break;
                };
                if plan.backend.settings.protocol == Protocol::Http2 {
                    let opener = pool.shared().begin();
                    let opening = shared::Connection::open(stream, permit, &worker.deadlines);
                    let Ok(connection) = opening.await else { break };
                    opener.share(&connection);
                    continue;
                }
                let now = worker.deadlines.now();
                let mut connection = Connection::new(stream, permit, now);
                connection.rest();
                pool.put(connection, now);
            }
        }
    };
    // Running out of time is as good an end as any.
    let _ = timeout(PATIENCE, open_all).await;
}
