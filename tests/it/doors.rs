//! The client's connections: who is introduced by whom, how many, how long, and what happens when
//! there are more than the machine can hold.

mod exhaustion;
mod introductions;
mod numbers;
mod pace;
mod silence;

use crate::harness::proxy::Proxy;

/// Waits until no connection of a client is open any more.
async fn nobody_is_left(proxy: &Proxy) {
    proxy.counts(0.0, "cutover_client_connections", &[]).await;
}
