//! The client connections open on one worker, so that a drain can reach each of them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

/// The client connections open on one worker.
#[derive(Debug, Default)]
pub struct Connections {
    wakers: RefCell<Slab<Option<Waker>>>,
    is_leaving: Cell<bool>,
    is_draining: Cell<bool>,
}

impl Connections {
    /// A connection begins.
    pub fn add(self: &Rc<Self>) -> Open {
        Open {
            slot: self.wakers.borrow_mut().insert(None),
            connections: Rc::clone(self),
        }
    }

    /// From now on, clients are asked to come back over another connection: a connection that is
    /// closed between two requests may cross with the second, and whose client was told cannot.
    pub fn leave(&self) {
        self.is_leaving.set(true);
        self.wake_all();
    }

    /// Whether clients are asked to come back over another connection.
    pub fn is_leaving(&self) -> bool {
        self.is_leaving.get()
    }

    /// From now on, connections end after the request they are busy with.
    pub fn drain(&self) {
        self.is_draining.set(true);
        self.wake_all();
    }

    fn wake_all(&self) {
        for (_, waker) in self.wakers.borrow_mut().iter_mut() {
            if let Some(waker) = waker.take() {
                waker.wake();
            }
        }
    }
}

/// An open connection; it is forgotten when dropped.
#[derive(Debug)]
pub struct Open {
    connections: Rc<Connections>,
    slot: usize,
}

impl Open {
    /// Ready once the worker drains.
    pub fn poll_draining(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.connections.is_draining.get() {
            return Poll::Ready(());
        }
        let mut wakers = self.connections.wakers.borrow_mut();
        let waker = &mut wakers[self.slot];
        if !waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connections.wakers.borrow_mut().remove(self.slot);
    }
}
