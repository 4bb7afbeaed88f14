//! A worker's HTTP/2 connections to one endpoint.
//!
//! The oldest connection with room takes the next request, so that in a quiet hour the surplus has
//! none and goes. Who finds no room opens another connection; who finds somebody opening one waits
//! for that, because otherwise the hundred requests that meet a closed connection would open a
//! hundred.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::policy::class::Failure;
use crate::policy::time::Elapsed;

use super::connection::{Connection, MAX_STREAMS, Place};

/// HTTP/2 connections to one endpoint.
#[derive(Debug, Default)]
pub struct Connections {
    open: RefCell<Vec<Rc<Connection>>>,
    opening: RefCell<Vec<Rc<Opening>>>,
    /// How many requests the last connection could take.
    capacity: Cell<Option<usize>>,
}

/// A connection that is being opened, for whoever waits for it.
#[derive(Debug, Default)]
pub struct Opening {
    waiting: Cell<usize>,
    failure: Cell<Option<Failure>>,
    ended: Notify,
}

/// The right and duty to open a connection. Dropped without a word, it lets somebody else try.
#[derive(Debug)]
pub struct Opener<'connections> {
    connections: &'connections Connections,
    opening: Rc<Opening>,
}

/// Which connections will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Any with room.
    Any,
    /// None that has rested: the upstream had closed one of those.
    Busy,
}

impl Connections {
    /// A place on a connection that has room and is younger than `lifetime`.
    pub fn enter(&self, demand: Demand, now: Elapsed, lifetime: Duration) -> Option<Place> {
        let open = self.open.borrow();
        let mut fit = open.iter().filter(|connection| {
            (demand == Demand::Any || !connection.is_resting())
                && now.since(connection.opened()) < lifetime
                && connection.has_room()
        });
        fit.next().map(Connection::enter)
    }

    /// The opening to wait for, if one is under way that others do not wait for already.
    pub fn opening(&self) -> Option<Rc<Opening>> {
        let capacity = self.capacity.get().unwrap_or(MAX_STREAMS);
        let opening = self.opening.borrow();
        let mut fit = opening
            .iter()
            // One place is its opener's.
            .filter(|opening| opening.waiting.get() + 1 < capacity);
        fit.next().map(Rc::clone)
    }

    /// Announces that the caller opens a connection.
    pub fn begin(&self) -> Opener<'_> {
        let opening = Rc::<Opening>::default();
        self.opening.borrow_mut().push(Rc::clone(&opening));
        Opener {
            connections: self,
            opening,
        }
    }

    /// How many connections are open or being opened.
    pub fn count(&self) -> usize {
        self.open.borrow().len() + self.opening.borrow().len()
    }

    /// Lets go of connections that are closing or closed, older than `lifetime`, or idle for
    /// `patience`, and of more than `max_idle` idle ones. Requests on them end undisturbed.
    pub fn sweep(&self, now: Elapsed, lifetime: Duration, patience: Duration, max_idle: usize) {
        let mut idle_count = 0;
        self.open.borrow_mut().retain(|connection| {
            let idle = connection.idle_for(now);
            if idle.is_some() {
                idle_count += 1;
            }
            let is_young = now.since(connection.opened()) < lifetime;
            let is_wanted = idle.is_none_or(|idle| idle < patience && idle_count <= max_idle);
            let is_usable = connection.active() > 0 || connection.is_open();
            is_young && is_wanted && is_usable
        });
    }

    /// Lets go of connections that have been idle for `patience` or are closed.
    pub fn make_room(&self, now: Elapsed, patience: Duration) {
        self.open.borrow_mut().retain(|connection| {
            let idle = connection.idle_for(now);
            idle.is_none_or(|idle| idle < patience)
        });
    }
}

impl Opening {
    /// Waits until it has ended. Without a time limit of its own.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn ended(&self) -> Result<(), Failure> {
        self.waiting.set(self.waiting.get() + 1);
        self.ended.notified().await;
        self.failure.get().map_or(Ok(()), Err)
    }
}

impl Opener<'_> {
    /// Shares the connection, and takes the first place on it.
    pub fn succeeded(self, connection: &Rc<Connection>) -> Place {
        let place = connection.enter();
        self.share(connection);
        place
    }

    /// Shares the connection.
    pub fn share(self, connection: &Rc<Connection>) {
        self.connections.capacity.set(Some(connection.capacity()));
        let mut open = self.connections.open.borrow_mut();
        open.push(Rc::clone(connection));
    }

    /// Tells whoever waits that it was in vain.
    pub fn failed(self, failure: Failure) {
        self.opening.failure.set(Some(failure));
    }
}

impl Drop for Opener<'_> {
    fn drop(&mut self) {
        let is_other = |other: &Rc<Opening>| !Rc::ptr_eq(other, &self.opening);
        self.connections.opening.borrow_mut().retain(is_other);
        self.opening.ended.notify_waiters();
    }
}
