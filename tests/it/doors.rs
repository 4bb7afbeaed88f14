//! The client's connections: who is introduced by whom, how many, how long, and what happens when
//! there are more than the machine can hold.

mod exhaustion;
mod introductions;
mod numbers;
mod pace;
mod silence;

use crate::harness::proxy::Proxy;

/// What of connections and requests was turned away for this reason.
async fn refused(proxy: &Proxy, reason: &str, count: f64) {
    let labels = [("reason", reason)];
    proxy.counts(count, "cutover_refused_total", &labels).await;
}

/// Waits until no connection of a client is open any more.
async fn nobody_is_left(proxy: &Proxy) {
    proxy.counts(0.0, "cutover_client_connections", &[]).await;
}
