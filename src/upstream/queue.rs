//! Those who wait for the right to open a connection to an endpoint, over all workers.
//!
//! A burst, such as what the kernel has kept during a restart, finds all connections in use that
//! will be free some milliseconds later. To refuse it would make errors of a short wait. But whoever
//! comes later must not be served first, or the first would wait for ever: so the rights that become
//! free go to those who wait, one after the other, and to others only if nobody does.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::oneshot;

/// Requests that may wait for each connection that an endpoint may have.
const WAITING_PER_CONNECTION: usize = 4;

/// Those who wait for a right of this kind, in the order in which they came.
#[derive(Debug)]
pub(super) struct Queue<R> {
    /// How many wait, so that nobody needs to look who knows of none.
    count: AtomicUsize,
    places: Mutex<VecDeque<Place<R>>>,
}

#[derive(Debug)]
struct Place<R> {
    /// Connections that the waiting one's configuration allows.
    max: usize,
    give: oneshot::Sender<R>,
}

impl<R> Default for Queue<R> {
    fn default() -> Self {
        Self {
            count: AtomicUsize::new(0),
            places: Mutex::default(),
        }
    }
}

impl<R> Queue<R> {
    /// Whether anybody waits.
    pub(super) fn is_waited_for(&self) -> bool {
        // In one order with the count of connections: whoever begins to wait after this was asked
        // sees what had become free before.
        self.count.load(Ordering::SeqCst) > 0
    }

    /// The place behind all others, unless there are too many for `max` connections. It is to be
    /// followed by [`grant`](Self::grant), since a right may have become free meanwhile.
    pub(super) fn join(&self, max: usize) -> Option<oneshot::Receiver<R>> {
        let most = max.saturating_mul(WAITING_PER_CONNECTION);
        let one_more = |count| (count < most).then_some(count + 1);
        self.count
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more)
            .ok()?;
        let (give, right) = oneshot::channel();
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.push_back(Place { max, give });
        Some(right)
    }

    /// Somebody waits no longer, whatever came of it.
    pub(super) fn leave(&self) {
        self.count.fetch_sub(1, Ordering::SeqCst);
    }

    /// Gives rights to those who wait, as many as `acquire` finds.
    pub(super) fn grant(&self, acquire: impl Fn(usize) -> Option<R>) {
        while let Some((give, right)) = self.next(&acquire) {
            // Whoever has left at this moment gives it back by dropping it, and for that the lock
            // must be free.
            drop(give.send(right));
        }
    }

    fn next(&self, acquire: impl Fn(usize) -> Option<R>) -> Option<(oneshot::Sender<R>, R)> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        while places.front().is_some_and(|place| place.give.is_closed()) {
            places.pop_front();
        }
        let right = acquire(places.front()?.max)?;
        places.pop_front().map(|place| (place.give, right))
    }
}
