//! A worker's idle connections to one endpoint.
//!
//! Last in, first out, so that a quiet hour lets the surplus grow old and go. Nothing is shared
//! and nothing is locked; only the number of open connections is global, held by each
//! connection's permit. So one worker's idle connections could keep another out of a small pool,
//! which cannot reach in here to take them: whoever sees that somebody was refused makes room.
//!
//! Where requests wait for a connection, one that becomes free goes to the request of the same
//! worker that has waited longest. If only others' wait it is closed, for they can use no more of it
//! than the right to open one; and where others' wait too so is one of many, lest a worker whose
//! requests come all the time keep every connection from another's.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use super::deadline::TICK;
use super::endpoint::{ConnectionPermit, Endpoint};
use super::http1::connection::Connection;
use super::http2::connections::Connections;
use super::queue::Line;
use crate::config::model::PoolLimits;
use crate::policy::time::Elapsed;

/// Of so many connections that become free while others' requests wait, one is closed, and the right to open
/// another goes to whoever has waited longest on any worker. A smaller number would be fairer and
/// open more connections just when there is much to do.
const PASSED_ON_FOR_ONE_CLOSED: u32 = 16;

/// Idle connections to one endpoint.
#[derive(Debug)]
pub struct Pool {
    endpoint: Arc<Endpoint>,
    limits: PoolLimits,
    /// This worker's part of the idle connections allowed.
    max_idle: usize,
    idle: RefCell<Vec<Idle>>,
    /// Those over HTTP/2, busy or idle.
    shared: Connections,
    /// Requests of this worker that wait for a connection, in the order in which they came.
    waiting: RefCell<Line<Connection>>,
    /// How many these are, those included who have their connection and took no note of it yet: so
    /// does the endpoint count, and what it counts beyond them are others.
    takers: Cell<usize>,
    /// Connections that became free while others waited, counted up to the one that is closed.
    passed_on: Cell<u32>,
    /// The endpoint's refusals at the last look.
    refusals: Cell<u64>,
}

/// What a request has waited for.
#[derive(Debug)]
pub enum Freed {
    /// A connection that another request is done with.
    Connection(Connection),
    /// The right to open one.
    Right(ConnectionPermit),
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Elapsed,
}

impl Pool {
    /// An empty pool. The idle connections allowed are divided among `workers`, so that a pool per
    /// worker does not multiply them.
    pub fn new(endpoint: Arc<Endpoint>, limits: PoolLimits, workers: usize) -> Self {
        Self {
            refusals: Cell::new(endpoint.refusals()),
            endpoint,
            max_idle: limits.max_idle.div_ceil(workers.max(1)),
            limits,
            idle: RefCell::new(Vec::new()),
            shared: Connections::default(),
            waiting: RefCell::default(),
            takers: Cell::new(0),
            passed_on: Cell::new(0),
        }
    }

    /// The endpoint that it connects to.
    pub const fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// The bounds in force.
    pub const fn limits(&self) -> &PoolLimits {
        &self.limits
    }

    /// How many connections are ready for requests: resting, or shared.
    pub fn ready_count(&self) -> usize {
        self.idle.borrow().len() + self.shared.count()
    }

    /// The connections over HTTP/2.
    pub const fn shared(&self) -> &Connections {
        &self.shared
    }

    /// The right to open a connection, unless there are as many as may be.
    pub fn acquire(&self) -> Option<ConnectionPermit> {
        self.endpoint.try_acquire(self.limits.max_connections)
    }

    /// The most recently used connection that is still fit for a request.
    pub fn take(&self, now: Elapsed) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        while let Some(mut candidate) = idle.pop() {
            if self.is_fresh(&candidate, now) && candidate.connection.is_quiet() {
                return Some(candidate.connection);
            }
        }
        None
    }

    /// Waits for what the pool has none of at present, behind all who wait already. `None` if too
    /// many do. Without a time limit of its own.
    pub async fn freed(&self) -> Option<Freed> {
        let max = self.limits.max_connections;
        let mut right = self.endpoint.wait(max)?;
        let _taker = Taker::new(&self.takers);
        let mut connection = self.waiting.borrow_mut().join(max);
        poll_fn(|cx| {
            if let Poll::Ready(connection) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(connection.ok().map(Freed::Connection));
            }
            right.poll_right(cx).map(|right| right.map(Freed::Right))
        })
        .await
    }

    /// Waits like [`freed`](Self::freed), but for nothing else than the right to open a connection.
    pub async fn permitted(&self) -> Option<ConnectionPermit> {
        let mut right = self.endpoint.wait(self.limits.max_connections)?;
        poll_fn(|cx| right.poll_right(cx)).await
    }

    /// Keeps a connection for later, or closes it if there are enough or it is too old; unless
    /// somebody waits for it.
    pub fn put(&self, connection: Connection, now: Elapsed) {
        let mut candidate = Idle {
            connection,
            since: now,
        };
        if !self.is_fresh(&candidate, now) {
            return;
        }
        if self.endpoint.is_waited_for() {
            if !candidate.connection.is_quiet() {
                return;
            }
            let Some(connection) = self.pass_on(candidate.connection) else {
                return;
            };
            candidate.connection = connection;
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.max_idle {
            idle.push(candidate);
        }
    }

    /// Closes what has rested too long, was closed by the peer, or is too old; what has rested for a
    /// whole tick gives its memory back.
    pub fn sweep(&self, now: Elapsed) {
        self.idle.borrow_mut().retain_mut(|idle| {
            let stays = self.is_fresh(idle, now) && idle.connection.is_quiet();
            if stays && now.since(idle.since) >= TICK {
                idle.connection.shrink();
            }
            stays
        });
        let (limits, max_idle) = (&self.limits, self.max_idle);
        let patience = limits.idle_timeout;
        self.shared
            .sweep(now, limits.max_lifetime, patience, max_idle);
    }

    /// Hands a connection to whoever of this worker has waited for one longest, or closes it for
    /// others. It comes back if nobody waits but who has been served and took no note of it yet.
    fn pass_on(&self, mut connection: Connection) -> Option<Connection> {
        let others_wait = self.endpoint.waiting() > self.takers.get();
        if others_wait {
            let passed_on = (self.passed_on.get() + 1) % PASSED_ON_FOR_ONE_CLOSED;
            self.passed_on.set(passed_on);
            if passed_on == 0 {
                return None;
            }
        }
        let next = || self.waiting.borrow_mut().next(|_| Some(()));
        while let Some((give, ())) = next() {
            match give.send(connection) {
                Ok(()) => return None,
                Err(refused) => connection = refused,
            }
        }
        (!others_wait).then_some(connection)
    }

    /// Closes what has rested for a whole tick, if anybody was refused a connection since the last
    /// look, or waits for one. What is in use from one request to the next stays: closing it would
    /// help nobody.
    pub fn make_room(&self, now: Elapsed) {
        let refusals = self.endpoint.refusals();
        if self.refusals.replace(refusals) != refusals || self.endpoint.is_waited_for() {
            self.idle
                .borrow_mut()
                .retain(|idle| now.since(idle.since) < TICK);
            self.shared.make_room(now, TICK);
        }
    }

    fn is_fresh(&self, idle: &Idle, now: Elapsed) -> bool {
        now.since(idle.since) < self.limits.idle_timeout
            && now.since(idle.connection.opened()) < self.limits.max_lifetime
    }
}

/// A request of this worker that takes a connection too; counted until dropped.
#[derive(Debug)]
struct Taker<'pool>(&'pool Cell<usize>);

impl<'pool> Taker<'pool> {
    fn new(takers: &'pool Cell<usize>) -> Self {
        takers.set(takers.get() + 1);
        Self(takers)
    }
}

impl Drop for Taker<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
