//! What a client may cost over HTTP/2, where one connection carries many requests.
//!
//! The libraries' defaults suit a server with a few good clients: 400 KiB for what is sent on each
//! stream alone would let one connection hold 100 MiB by granting every window and reading
//! nothing. With the limits below, the worst that one connection can make the proxy keep is
//!
//! - 12 MiB of request bodies, and half as much again where they come in tiny frames,
//! - 128 heads of the 32 KiB that `edge.max_head` is by default, 4 MiB,
//! - 128 answers of which 64 KiB and one read of at most 64 KiB wait to be sent, 16 MiB,
//!
//! so 38 MiB (what `gather.rs` holds back is one record); a stream whose client takes nothing is reset
//! after `header_timeout`. What a client does to the streams of others is nothing, and to its own no
//! more than the protocol forces: a hundred uploads that their servers do not read fill the window of
//! the connection, not one.

use std::rc::Rc;
use std::time::Duration;

use http::{HeaderName, Response};
use hyper::server::conn::http2::Builder;
use hyper_util::rt::TokioTimer;
use tokio::task::spawn_local;

use super::reader::Readers;

/// Streams that a client may have open; what it opens beyond is refused unprocessed.
const MAX_STREAMS: u32 = 128;
/// Bytes of one request's body that may be on their way or wait for its upstream.
const STREAM_WINDOW: u32 = 128 * 1024;
/// The same for all requests of a connection.
///
/// The library ends a connection on which more small frames wait than half of this bears, each counted
/// as 256 bytes: a gRPC client whose messages have six bytes fills its stream's window with 5.3 MiB
/// of these, and must not lose its other streams because one server is slow.
const CONNECTION_WINDOW: u32 = 12 * 1024 * 1024;
/// Bytes of one answer that may wait for its client, besides what was read at once.
const SEND_BUFFER: usize = 64 * 1024;
/// Largest frame that a client may send: the smallest that the protocol allows.
const MAX_FRAME: u32 = 16 * 1024;
/// Bytes of fields that a client may have remembered instead of repeating them.
const HEADER_TABLE: u32 = 4096;
/// Requests that may be withdrawn before we have seen them (the rapid reset of 2023).
const MAX_UNSEEN_RESETS: usize = 20;
/// Malformed requests for which a connection is not given up.
const MAX_MALFORMED: usize = 256;
/// Time between two questions whether a silent client is there at all.
const PING: Duration = Duration::from_secs(30);
/// Time for its answer.
const PONG: Duration = Duration::from_secs(20);

/// How a connection with these readers is spoken with. `max_head` is the largest head, uncompressed;
/// 431 beyond. It bounds a head's CONTINUATION frames, too.
pub(super) fn builder(readers: Rc<Readers>, max_head: usize) -> Builder<LocalExecutor> {
    let mut builder = Builder::new(LocalExecutor(readers));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(u32::try_from(max_head).unwrap_or(u32::MAX))
        .header_table_size(HEADER_TABLE)
        .max_pending_accept_reset_streams(MAX_UNSEEN_RESETS)
        .max_local_error_reset_streams(MAX_MALFORMED)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG);
    builder
}

/// The field of an answer whose value never comes again.
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Has neither side remember what no other answer will repeat. Remembered, the ids push out of the
/// table what does repeat, and the library compares each with all before it: 5 % of what a
/// request cost.
pub(super) fn spare_memory<B>(response: &mut Response<B>) {
    if let Some(id) = response.headers_mut().get_mut(&REQUEST_ID) {
        // What is sensitive is never remembered; the rest of its meaning does no harm.
        id.set_sensitive(true);
    }
}

/// Runs a connection's streams on the worker's own thread.
#[derive(Clone, Debug)]
pub(super) struct LocalExecutor(Rc<Readers>);

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + Unpin + 'static,
{
    fn execute(&self, future: F) {
        spawn_local(self.0.watch(future));
    }
}
