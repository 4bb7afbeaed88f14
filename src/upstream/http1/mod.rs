//! The HTTP/1.1 client that faces the upstreams.
//!
//! It runs inside the request's own future: no task per connection, no channel between the two
//! sides of the proxy, no wake-up that the sockets did not ask for. That is where a bare proxy
//! built from general parts spends a fifth of its time, and it is also what makes one fact exact
//! that the fallback depends on: whether any byte of a request left this process.
//!
//! Reading order: [`exchange`] is one request and its answer on one connection; [`request`] writes
//! heads; [`response`] reads them; [`decode`] finds the end of an answer's body; [`upload`] sends
//! the request's.

pub mod connection;
pub mod decode;
pub mod excess;
pub mod exchange;
pub mod outgoing;
pub mod request;
pub mod reserved;
pub mod response;
pub mod upload;
