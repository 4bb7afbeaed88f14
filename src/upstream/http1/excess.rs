//! What a client goes on sending after it has been answered.
//!
//! A connection that is closed with unread bytes on it is reset, and a reset can overtake the answer
//! that says why. So what still comes is read and thrown away, within bounds: a client that reads
//! will have stopped by then, and one that never stops is not waited for.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::task::spawn_local;
use tokio::time::timeout;

/// Bytes thrown away: more than is on its way at any moment.
const MOST: usize = 16 * 1024 * 1024;
/// Time for a client to notice its answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Reads and throws away what still comes of a body, beside everything else.
pub fn discard(incoming: Incoming) {
    spawn_local(async {
        // However it ends, there is nothing left to do.
        let _ = timeout(PATIENCE, read_some(incoming)).await;
    });
}

async fn read_some(mut incoming: Incoming) {
    let mut left = MOST;
    while let Some(Ok(frame)) = incoming.frame().await {
        let length = frame.data_ref().map_or(0, |data| data.len());
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}
