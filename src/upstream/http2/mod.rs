//! The HTTP/2 client that faces the upstreams which ask for it.
//!
//! Many requests share a connection here, so unlike with HTTP/1 somebody must read it while no
//! request does: each connection has a task of its own on the worker. All else stays as it is in
//! [`http1`](super::http1): a request's future drives its own upload and reads its own answer,
//! keeps its body for a replay, and knows what of it may have been executed. That is also why this
//! is built on the frames of `h2` and not on hyper's client, which would take the body away into a
//! task of its own and tell afterwards only that something failed.
//!
//! The mistakes to avoid are those of sharing. A slow reader must not stall its neighbours, so a
//! connection's window holds every stream's. A connection that went silent must not swallow one
//! request after the other, so it is asked for a sign of life when one has waited in vain. And a
//! burst of requests must not open a connection each.
//!
//! Reading order: [`exchange`] is one request and its answer; [`connection`] is what they share;
//! [`connections`] chooses between several.

pub mod connection;
pub mod connections;
pub mod exchange;
mod upload;
