//! Sockets and threads: from an accepted connection to requests, and the way out.
//!
//! One socket per address and one worker that accepts on it; connections go to the worker that
//! has the fewest. (A socket per worker, with the kernel choosing, balances badly and loses what
//! is queued on a socket that closes.) Each worker is a thread with a runtime of its own, and a
//! connection never leaves it.

pub mod acceptor;
pub mod connection;
mod farewell;
mod frames;
mod gather;
mod http1;
mod http2;
mod introduction;
mod last_call;
pub mod listener;
pub mod proxy_protocol;
mod quiet;
mod reader;
pub mod stream;
pub mod thread;
pub mod tls;
