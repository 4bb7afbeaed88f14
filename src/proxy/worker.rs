//! What one data-plane thread keeps between requests.
//!
//! Everything here belongs to one thread, so it is counted with plain reference counts and changed
//! through cells; a request that needs it holds an `Rc`. The one thing that arrives from outside
//! is the snapshot, and looking for a newer one costs a single load.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::Cache;

use crate::clock::Clock;
use crate::config::model::{BackendId, PoolLimits};
use crate::policy::time::Elapsed;
use crate::snapshot::{Published, Routing, Snapshot};
use crate::telemetry::WorkerId;
use crate::telemetry::edge::EdgeTally;
use crate::upstream::deadline::Deadlines;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::pool::Pool;

use super::connections::Connections;
use super::date::{DATE_LENGTH, Date};
use super::flights::Flights;

/// What one data-plane thread keeps between requests.
#[derive(Debug)]
pub struct Worker {
    /// Which of the workers this is.
    pub id: WorkerId,
    /// How many there are.
    pub count: usize,
    /// The process's clock.
    pub clock: Clock,
    /// Coarse deadlines.
    pub deadlines: Rc<Deadlines>,
    /// Ages of requests in flight.
    pub flights: Flights,
    /// Client connections.
    pub connections: Rc<Connections>,
    /// Counts what the edge refused, shared by all workers.
    pub edge: Arc<EdgeTally>,
    date: Date,
    published: RefCell<Cache<Published, Arc<Snapshot>>>,
    view: RefCell<Rc<View>>,
    /// Whether any split's streams of `new` have had their time.
    ends_streams: Cell<bool>,
    /// The snapshot that the last sweep saw.
    swept_generation: Cell<u64>,
}

/// One snapshot as this worker sees it: with its own pools.
#[derive(Debug)]
pub struct View {
    /// What the control plane published.
    pub snapshot: Arc<Snapshot>,
    /// Indexed by backend, then by endpoint.
    pools: Rc<Vec<Vec<Rc<Pool>>>>,
}

impl View {
    /// The pools of a backend, one per endpoint.
    pub fn pools(&self, backend: BackendId) -> &[Rc<Pool>] {
        &self.pools[usize::from(backend.0)]
    }
}

impl Worker {
    /// A worker that sees the snapshot published now.
    pub fn new(
        id: WorkerId,
        count: usize,
        clock: Clock,
        published: &Published,
        edge: Arc<EdgeTally>,
    ) -> Rc<Self> {
        let snapshot = published.load_full();
        let pools = Rc::new(build_pools(&snapshot.routing, &[], count));
        Rc::new(Self {
            id,
            count,
            clock,
            deadlines: Deadlines::new(clock),
            flights: Flights::default(),
            connections: Rc::default(),
            date: Date::default(),
            edge,
            published: RefCell::new(Cache::new(Arc::clone(published))),
            view: RefCell::new(Rc::new(View { snapshot, pools })),
            ends_streams: Cell::new(false),
            swept_generation: Cell::new(0),
        })
    }

    /// The time of day as HTTP says it, to the second.
    pub fn date(&self) -> [u8; DATE_LENGTH] {
        self.date.at(self.clock.at(self.deadlines.now()))
    }

    /// The newest snapshot. A request calls this once.
    pub fn view(&self) -> Rc<View> {
        let mut published = self.published.borrow_mut();
        let newest = published.load();
        let mut view = self.view.borrow_mut();
        if !Arc::ptr_eq(newest, &view.snapshot) {
            *view = Rc::new(self.see(newest, &view));
        }
        Rc::clone(&view)
    }

    /// Whether any split's streams of `new` have had their time. Streams look here first, since
    /// usually none have.
    pub const fn ends_streams(&self) -> bool {
        self.ends_streams.get()
    }

    /// Books what age has decided, wakes whoever waited long enough, and makes room in pools that
    /// were found full. To be called every [`TICK`](crate::upstream::deadline::TICK).
    pub fn sweep(&self) {
        let before = self.deadlines.now();
        self.deadlines.sweep();
        let now = self.deadlines.now();
        let view = self.view();
        let mut ends = view.snapshot.streams_end.iter().flatten();
        let generation = view.snapshot.generation;
        let is_news = self.swept_generation.replace(generation) != generation;
        let has_ended = |end: &Elapsed| *end <= now;
        let any_ended = view.snapshot.streams_end.iter().flatten().any(has_ended);
        self.ends_streams.set(any_ended);
        if ends.any(|end| has_ended(end) && (is_news || before < *end)) {
            // Silent streams of a split that was rolled back must notice that their time is up.
            self.deadlines.wake_all();
        }
        self.flights.sweep(std::time::Instant::now());
        let now = self.deadlines.now();
        for pool in self.view.borrow().pools.iter().flatten() {
            pool.make_room(now);
        }
    }

    /// Closes idle connections that are too old, and moves to the newest snapshot even if no
    /// request comes, so that pools of removed endpoints do not linger.
    pub fn sweep_pools(&self) {
        let now = self.deadlines.now();
        for pool in self.view().pools.iter().flatten() {
            pool.sweep(now);
        }
    }

    fn see(&self, snapshot: &Arc<Snapshot>, previous: &View) -> View {
        let is_same_routing = Arc::ptr_eq(&snapshot.routing, &previous.snapshot.routing);
        let pools = if is_same_routing {
            Rc::clone(&previous.pools)
        } else {
            let flat: Vec<Rc<Pool>> = previous.pools.iter().flatten().map(Rc::clone).collect();
            Rc::new(build_pools(&snapshot.routing, &flat, self.count))
        };
        View {
            snapshot: Arc::clone(snapshot),
            pools,
        }
    }
}

/// A pool for every endpoint; those of unchanged endpoints and limits are taken over.
fn build_pools(routing: &Routing, previous: &[Rc<Pool>], workers: usize) -> Vec<Vec<Rc<Pool>>> {
    // By the endpoint's place in memory, which its pool keeps from being used again. A search
    // through the pools would take a worker many milliseconds where there are thousands.
    let kept: HashMap<*const Endpoint, &Rc<Pool>> = previous
        .iter()
        .map(|pool| (Arc::as_ptr(pool.endpoint()), pool))
        .collect();
    let pool_of = |endpoint: &Arc<Endpoint>, limits: &PoolLimits| {
        kept.get(&Arc::as_ptr(endpoint))
            .filter(|pool| pool.limits() == limits)
            .map_or_else(
                || Rc::new(Pool::new(Arc::clone(endpoint), limits.clone(), workers)),
                |pool| Rc::clone(pool),
            )
    };
    routing
        .backends
        .iter()
        .map(|plan| {
            let limits = &plan.backend.settings.pool;
            let endpoints = plan.backend.endpoints.iter();
            endpoints
                .map(|endpoint| pool_of(endpoint, limits))
                .collect()
        })
        .collect()
}
