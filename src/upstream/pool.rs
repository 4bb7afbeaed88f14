//! A worker's idle connections to one endpoint.
//!
//! Last in, first out, so that a quiet hour lets the surplus grow old and go. Nothing is shared
//! and nothing is locked; only the number of open connections is global, held by each
//! connection's permit. So one worker's idle connections could keep another out of a small pool,
//! which cannot reach in here to take them: whoever sees that somebody was refused makes room.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use super::deadline::TICK;
use super::endpoint::Endpoint;
use super::http1::connection::Connection;
use super::http2::connections::Connections;
use crate::config::model::PoolLimits;
use crate::policy::time::Elapsed;

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
    /// The endpoint's refusals at the last look.
    refusals: Cell<u64>,
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

    /// Keeps a connection for later, or closes it if there are enough or it is too old.
    pub fn put(&self, connection: Connection, now: Elapsed) {
        let mut idle = self.idle.borrow_mut();
        let candidate = Idle {
            connection,
            since: now,
        };
        if idle.len() < self.max_idle && self.is_fresh(&candidate, now) {
            idle.push(candidate);
        }
    }

    /// Closes what has rested too long, was closed by the peer, or is too old.
    pub fn sweep(&self, now: Elapsed) {
        self.idle
            .borrow_mut()
            .retain_mut(|idle| self.is_fresh(idle, now) && idle.connection.is_quiet());
        let (limits, max_idle) = (&self.limits, self.max_idle);
        let patience = limits.idle_timeout;
        self.shared
            .sweep(now, limits.max_lifetime, patience, max_idle);
    }

    /// Closes what has rested for a whole tick, if anybody was refused a connection since the last
    /// look. What is in use from one request to the next stays: closing it would help nobody.
    pub fn make_room(&self, now: Elapsed) {
        let refusals = self.endpoint.refusals();
        if self.refusals.replace(refusals) != refusals {
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
