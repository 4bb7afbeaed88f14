//! The threads of the data plane: one runtime each, and nothing shared on a request's path.

use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{LocalSet, spawn_local};

use crate::clock::Clock;
use crate::config::model::BackendId;
use crate::edge::{self, Entrance};
use crate::proxy::warm;
use crate::proxy::worker::Worker;
use crate::snapshot::Published;
use crate::telemetry::WorkerId;
use crate::telemetry::edge::EdgeTally;
use crate::upstream::deadline::TICK;

use super::acceptor::{Accepted, Acceptor};
use super::connection::{self, ServerTlsConfigs};

/// Time between two looks for idle connections that are too old.
const POOL_SWEEP: Duration = Duration::from_secs(1);

/// A data-plane thread, as the rest of the program sees it.
#[derive(Debug)]
pub struct WorkerThread {
    jobs: mpsc::UnboundedSender<Job>,
    /// Connections handed over and not yet ended.
    connections: Arc<AtomicUsize>,
}

/// What all workers share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The process's clock.
    pub clock: Clock,
    /// The published snapshot.
    pub published: Published,
    /// What the edges of all workers share.
    pub entrance: Arc<edge::Shared>,
    /// Counts what the edge refused.
    pub edge: Arc<EdgeTally>,
    /// Certificates by listener.
    pub tls: Arc<ArcSwap<ServerTlsConfigs>>,
}

/// What a worker can be asked.
#[derive(Debug)]
enum Job {
    Serve(Accepted),
    /// Accept connections, for all workers.
    Receive {
        acceptor: Acceptor,
        ready: oneshot::Sender<io::Result<()>>,
    },
    /// Open connections of this backend before traffic comes.
    Warm {
        backend: BackendId,
        done: oneshot::Sender<()>,
    },
    /// Ask clients to come back over another connection.
    Leave,
    /// End each connection after the request it is busy with.
    Drain,
}

impl WorkerThread {
    /// Starts `count` workers.
    ///
    /// # Errors
    /// Those of making a thread or a runtime.
    pub fn start_all(count: usize, shared: &Shared) -> io::Result<Vec<(Self, JoinHandle<()>)>> {
        (0..count)
            .map(|index| Self::start(WorkerId(index), count, shared.clone()))
            .collect()
    }

    fn start(id: WorkerId, count: usize, shared: Shared) -> io::Result<(Self, JoinHandle<()>)> {
        // Unbounded, but what it holds is bounded by the limit on connections.
        let (jobs, queue) = mpsc::unbounded_channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let open = Arc::clone(&connections);
        let thread = thread::Builder::new()
            .name(format!("worker-{}", id.0))
            .spawn(move || {
                let local = LocalSet::new();
                runtime.block_on(local.run_until(run(id, count, shared, queue, open)));
            })?;
        Ok((Self { jobs, connections }, thread))
    }

    /// Connections handed over and not yet ended.
    pub fn load(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Whether it takes no connections any more.
    pub fn has_ended(&self) -> bool {
        self.jobs.is_closed()
    }

    /// Resolves when it takes no connections any more, be it by the drain or by a panic.
    pub async fn ended(&self) {
        self.jobs.closed().await;
    }

    /// One without a thread, which lives as long as the other value.
    #[cfg(test)]
    pub(super) fn pretended(load: usize) -> (Self, impl std::any::Any + use<>) {
        let (jobs, queue) = mpsc::unbounded_channel();
        let connections = Arc::new(AtomicUsize::new(load));
        (Self { jobs, connections }, queue)
    }

    /// Gives it a connection to serve.
    pub fn take(&self, accepted: Accepted) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        if self.jobs.send(Job::Serve(accepted)).is_err() {
            self.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Has it accept connections, for all workers; `ready` is told whether it can, and dropped if it
    /// has ended.
    pub(super) fn receive(&self, acceptor: Acceptor, ready: oneshot::Sender<io::Result<()>>) {
        let _ = self.jobs.send(Job::Receive { acceptor, ready });
    }

    /// Asks for connections of `backend` to be opened; resolves when they are, or when that has
    /// failed.
    pub fn warm(&self, backend: BackendId) -> impl Future<Output = ()> + use<> {
        let (done, finished) = oneshot::channel();
        let _ = self.jobs.send(Job::Warm { backend, done });
        async {
            let _ = finished.await;
        }
    }

    /// Has it ask its clients to come back over another connection, while it goes on serving.
    pub fn leave(&self) {
        let _ = self.jobs.send(Job::Leave);
    }

    /// Asks it to end each connection after the request it is busy with, and then itself.
    pub fn drain(&self) {
        let _ = self.jobs.send(Job::Drain);
    }
}

async fn run(
    id: WorkerId,
    count: usize,
    shared: Shared,
    queue: mpsc::UnboundedReceiver<Job>,
    connections: Arc<AtomicUsize>,
) {
    let edge = Arc::clone(&shared.edge);
    let worker = Worker::new(id, count, shared.clock, &shared.published, edge);
    // Without the sweep the worker's clock stands still and no deadline is kept: as a task of its
    // own it could die unnoticed, here it takes the thread with it.
    let entrance = Entrance::new(Rc::clone(&worker), shared.entrance);
    tokio::select! {
        never = sweep(Rc::clone(&worker), entrance.clone()) => match never {},
        () = work(worker, entrance, shared.tls, queue, connections) => {}
    }
}

/// Does what it is asked until it is to drain and all connections have ended.
async fn work(
    worker: Rc<Worker>,
    entrance: Entrance,
    certificates: Arc<ArcSwap<ServerTlsConfigs>>,
    mut queue: mpsc::UnboundedReceiver<Job>,
    connections: Arc<AtomicUsize>,
) {
    let host = Rc::new(Host {
        worker,
        entrance,
        certificates,
        connections,
    });
    let worker = &host.worker;
    loop {
        match queue.recv().await {
            Some(Job::Serve(accepted)) => host.serve(accepted),
            Some(Job::Receive { acceptor, ready }) => {
                let settled = acceptor.settle(Rc::clone(&host));
                // Whoever does not wait any more has dropped what gives the orders, too.
                let _ = ready.send(settled.map(|settled| {
                    spawn_local(settled.run());
                }));
            }
            Some(Job::Warm { backend, done }) => {
                let worker = Rc::clone(worker);
                spawn_local(async move {
                    warm::warm(&worker, backend).await;
                    // Nobody may be waiting any more.
                    let _ = done.send(());
                });
            }
            Some(Job::Leave) => worker.connections.leave(),
            Some(Job::Drain) | None => break,
        }
    }
    worker.connections.drain();
    // What was accepted before the drain is still served.
    while let Ok(job) = queue.try_recv() {
        if let Job::Serve(accepted) = job {
            host.serve(accepted);
        }
    }
    while host.connections.load(Ordering::Relaxed) > 0 {
        tokio::time::sleep(TICK).await;
    }
}

/// What serves connections on a worker's thread.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) worker: Rc<Worker>,
    entrance: Entrance,
    certificates: Arc<ArcSwap<ServerTlsConfigs>>,
    connections: Arc<AtomicUsize>,
}

impl Host {
    /// Serves a connection that was accepted here.
    pub(super) fn take(&self, accepted: Accepted) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.serve(accepted);
    }

    /// Serves a connection that is counted.
    fn serve(&self, accepted: Accepted) {
        let worker = Rc::clone(&self.worker);
        let entrance = self.entrance.clone();
        let tls = self.certificates.load().for_listener(accepted.listener);
        let guard = ConnectionGuard(Arc::clone(&self.connections));
        spawn_local(async move {
            connection::serve(worker, entrance, accepted, tls).await;
            drop(guard);
        });
    }
}

/// Counts a connection as ended, however it ends.
struct ConnectionGuard(Arc<AtomicUsize>);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn sweep(worker: Rc<Worker>, entrance: Entrance) -> Infallible {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut pools_due = worker.deadlines.now().plus(POOL_SWEEP);
    loop {
        ticks.tick().await;
        worker.sweep();
        entrance.hand_on_log();
        if worker.deadlines.now() >= pools_due {
            worker.sweep_pools();
            pools_due = worker.deadlines.now().plus(POOL_SWEEP);
        }
    }
}
