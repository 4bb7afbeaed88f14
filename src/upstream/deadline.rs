//! Coarse deadlines of one worker.
//!
//! A timer of the runtime costs 300 ns to arm and disarm, more than everything else that is done
//! for a request; and nobody needs a timeout to be exact to a millisecond. So a worker keeps its
//! deadlines in a slab, which costs two nanoseconds, and looks through it every [`TICK`].
//! A deadline never strikes early and at most two ticks late.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slab::Slab;

use crate::clock::Clock;
use crate::policy::time::Elapsed;

/// Time between two looks at the deadlines.
pub const TICK: Duration = Duration::from_millis(20);

/// All deadlines of one worker, and its coarse clock.
#[derive(Debug)]
pub struct Deadlines {
    entries: RefCell<Slab<Entry>>,
    now: Cell<Elapsed>,
    clock: Clock,
}

#[derive(Debug)]
struct Entry {
    at: Option<Elapsed>,
    /// No phase may last beyond this.
    limit: Option<Elapsed>,
    waker: Option<Waker>,
}

impl Deadlines {
    /// No deadlines yet.
    pub fn new(clock: Clock) -> Rc<Self> {
        Rc::new(Self {
            entries: RefCell::new(Slab::new()),
            now: Cell::new(clock.elapsed()),
            clock,
        })
    }

    /// The coarse time: at most one tick behind, more only while the worker is stalled.
    pub fn now(&self) -> Elapsed {
        self.now.get()
    }

    /// A new deadline, not set.
    pub fn add(self: &Rc<Self>) -> Deadline {
        let slot = self.entries.borrow_mut().insert(Entry {
            at: None,
            limit: None,
            waker: None,
        });
        Deadline {
            deadlines: Rc::clone(self),
            slot,
        }
    }

    /// Wakes everyone who waits, to look at the world anew.
    pub fn wake_all(&self) {
        for (_, entry) in self.entries.borrow_mut().iter_mut() {
            if let Some(waker) = entry.waker.take() {
                waker.wake();
            }
        }
    }

    /// Advances the coarse clock and wakes whoever waits for a deadline that has passed.
    pub fn sweep(&self) {
        let now = self.clock.elapsed();
        self.now.set(now);
        for (_, entry) in self.entries.borrow_mut().iter_mut() {
            if entry.at.is_some_and(|at| at <= now)
                && let Some(waker) = entry.waker.take()
            {
                waker.wake();
            }
        }
    }
}

/// One deadline; it is forgotten when dropped.
#[derive(Debug)]
pub struct Deadline {
    deadlines: Rc<Deadlines>,
    slot: usize,
}

impl Deadline {
    /// Another deadline with the same limit, not set: for what outlives the one who holds this.
    pub fn renewed(&self) -> Deadline {
        let deadline = self.deadlines.add();
        let limit = self.deadlines.entries.borrow()[self.slot].limit;
        deadline.limit_at(limit);
        deadline
    }

    /// Sets it to `span` from now, replacing what was set.
    pub fn set(&self, span: Duration) {
        // The coarse clock may be one tick behind; striking early would be a lie.
        let at = self.deadlines.now().plus(span + TICK);
        let mut entries = self.deadlines.entries.borrow_mut();
        let entry = &mut entries[self.slot];
        entry.at = Some(entry.limit.map_or(at, |limit| limit.min(at)));
    }

    /// From now on it is never set beyond `span` from now, if one is given; and it is not set now.
    pub fn limit(&self, span: Option<Duration>) {
        let limit = span.map(|span| self.deadlines.now().plus(span + TICK));
        self.limit_at(limit);
    }

    fn limit_at(&self, limit: Option<Elapsed>) {
        let mut entries = self.deadlines.entries.borrow_mut();
        let entry = &mut entries[self.slot];
        (entry.limit, entry.at) = (limit, None);
    }

    /// The coarse time.
    pub fn now(&self) -> Elapsed {
        self.deadlines.now()
    }

    /// Ready once the deadline has passed.
    pub fn poll_passed(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut entries = self.deadlines.entries.borrow_mut();
        let entry = &mut entries[self.slot];
        if entry.at.is_some_and(|at| at <= self.deadlines.now()) {
            return Poll::Ready(());
        }
        if !entry
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            entry.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.deadlines.entries.borrow_mut().remove(self.slot);
    }
}
