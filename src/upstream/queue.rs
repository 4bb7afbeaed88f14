//! Those who wait for the right to open a connection to an endpoint, over all workers.
//!
//! A burst, such as what the kernel has kept during a restart, finds all connections in use that
//! will be free some milliseconds later. To refuse it would make errors of a short wait. But whoever
//! comes later must not be served first, or the first would wait for ever: so the rights that become
//! free go to those who wait, one after the other, and to others only if nobody does.
//!
//! Who waits may leave at any time and is not taken out of the line then, for that would mean to
//! look for it. Whoever serves the line passes over those who have left, and so that they take up no
//! room for ever, a line as long as may be is rid of them before somebody else joins it.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::oneshot;

/// Requests that may wait for each connection that an endpoint may have.
const WAITING_PER_CONNECTION: usize = 4;

/// Those who wait for a right of this kind.
#[derive(Debug)]
pub(super) struct Queue<R> {
    /// How many wait, so that nobody needs to look who knows of none.
    count: AtomicUsize,
    line: Mutex<Line<R>>,
}

/// Those who wait for one of these each, in the order in which they came.
#[derive(Debug)]
pub(super) struct Line<R> {
    turns: VecDeque<Turn<R>>,
    /// The largest number of connections that any of them is allowed, or was.
    largest: usize,
}

/// Somebody in a line.
#[derive(Debug)]
struct Turn<R> {
    /// Connections that the configuration of whoever waits allows. After a reload there may be
    /// different ones in one line.
    max: usize,
    give: oneshot::Sender<R>,
}

impl<R> Default for Queue<R> {
    fn default() -> Self {
        Self {
            count: AtomicUsize::new(0),
            line: Mutex::default(),
        }
    }
}

impl<R> Queue<R> {
    /// How many wait, those included who have their right and took no note of it yet.
    pub(super) fn count(&self) -> usize {
        // In one order with the count of connections: whoever begins to wait after this was asked
        // sees what had become free before.
        self.count.load(Ordering::SeqCst)
    }

    /// The place behind all others, unless there are too many for `max` connections. It is to be
    /// followed by [`grant`](Self::grant), since a right may have become free meanwhile.
    pub(super) fn join(&self, max: usize) -> Option<oneshot::Receiver<R>> {
        let one_more = |count| (count < most_waiting(max)).then_some(count + 1);
        self.count
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more)
            .ok()?;
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        Some(line.join(max))
    }

    /// Somebody waits no longer, whatever came of it, and has closed or dropped its end. It is to be
    /// followed by [`grant`](Self::grant), as it may have stood before somebody else.
    pub(super) fn leave(&self) {
        self.count.fetch_sub(1, Ordering::SeqCst);
    }

    /// Gives rights to those who wait, as many as `acquire` finds.
    pub(super) fn grant(&self, acquire: impl Fn(usize) -> Option<R>) {
        let next = || {
            let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
            line.next(&acquire)
        };
        while let Some((give, right)) = next() {
            // Whoever has left at this moment gives it back by dropping it, and for that the lock
            // must be free.
            drop(give.send(right));
        }
    }
}

impl<R> Default for Line<R> {
    fn default() -> Self {
        Self {
            turns: VecDeque::new(),
            largest: 0,
        }
    }
}

impl<R> Line<R> {
    /// The place behind all others. Who is allowed `max` connections sees to it that no more than
    /// [`most_waiting`] are here at once.
    pub(super) fn join(&mut self, max: usize) -> oneshot::Receiver<R> {
        if self.turns.len() >= most_waiting(max) {
            self.turns.retain(|turn| !turn.give.is_closed());
        }
        self.largest = match self.turns.is_empty() {
            true => max,
            false => self.largest.max(max),
        };
        let (give, right) = oneshot::channel();
        self.turns.push_back(Turn { max, give });
        right
    }

    /// Takes the first one out for whom `find` has something, given the connections that it is
    /// allowed: where there is nothing for few there may be for more.
    pub(super) fn next<T>(
        &mut self,
        find: impl Fn(usize) -> Option<T>,
    ) -> Option<(oneshot::Sender<R>, T)> {
        while self.turns.front().is_some_and(|it| it.give.is_closed()) {
            self.turns.pop_front();
        }
        let mut tried = 0;
        let mut index = 0;
        let found = loop {
            // Nearly always all are allowed as many, and nobody behind the first is looked at.
            if tried >= self.largest {
                return None;
            }
            let turn = self.turns.get(index)?;
            if turn.max > tried && !turn.give.is_closed() {
                tried = turn.max;
                if let Some(found) = find(turn.max) {
                    break found;
                }
            }
            index += 1;
        };
        self.turns.remove(index).map(|turn| (turn.give, found))
    }
}

/// How many may wait for so many connections.
const fn most_waiting(max: usize) -> usize {
    max.saturating_mul(WAITING_PER_CONNECTION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_leaves_behind_somebody_who_stays_takes_up_no_room_for_ever() {
        let queue = Queue::<()>::default();
        let _stays = queue.join(1).unwrap();
        for _ in 0..100 {
            drop(queue.join(1).unwrap());
            queue.leave();
        }
        assert!(queue.line.lock().unwrap().turns.len() <= 4);
    }
}
