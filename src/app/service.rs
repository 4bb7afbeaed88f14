//! What serves clients: the threads, the listeners before them, and what the control plane sees of
//! both.
//!
//! All of it is made before an old process is relieved, for that one can go on if it fails; and no
//! listener is opened here, for two would serve then.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::{certify, descriptors, log_output};
use crate::config::model::Config;
use crate::control::data_plane::{DataPlane, Warmed};
use crate::control::world::World;
use crate::policy::share::Share;
use crate::server::listener::{Listener, Reception};
use crate::server::thread::{Shared, WorkerThread};
use crate::telemetry::access_log::{AccessLog, LogReading};
use crate::telemetry::edge::EdgeLoad;
use crate::telemetry::handover::HandoverTally;

/// Ready to serve.
pub(super) struct Service {
    pub(super) shared: Shared,
    pub(super) workers: Arc<[WorkerThread]>,
    pub(super) threads: Vec<JoinHandle<()>>,
    pub(super) listeners: Vec<Listener>,
    /// Client connections that the process's file descriptors bear.
    bearable_connections: usize,
}

impl Service {
    /// Starts the threads, has them open what is wanted beforehand, and puts them behind these
    /// sockets.
    pub(super) async fn prepare(
        world: &World,
        shared: Shared,
        sockets: Vec<TcpListener>,
    ) -> io::Result<Self> {
        let started = WorkerThread::start_all(world.config.process.workers, &shared)?;
        let (workers, threads): (Vec<_>, Vec<_>) = started.into_iter().unzip();
        let workers: Arc<[WorkerThread]> = workers.into();
        warm_all(world, &workers).await;
        let bearable_connections = bearable_connections(&world.config);
        let listeners = receive(sockets, world, &workers, bearable_connections).await?;
        Ok(Self {
            shared,
            workers,
            threads,
            listeners,
            bearable_connections,
        })
    }

    /// What the control plane sees of it.
    pub(super) fn data_plane(&self, handovers: Arc<HandoverTally>) -> DataPlane {
        let Shared {
            clock,
            entrance,
            edge,
            tls: certificates,
            ..
        } = &self.shared;
        let swept = Arc::clone(entrance);
        let counted = Arc::clone(&self.workers);
        let warmed = Arc::clone(&self.workers);
        let logged = Arc::clone(entrance);
        let measured = Arc::clone(entrance);
        let clock = *clock;
        let certificates = Arc::clone(certificates);
        DataPlane {
            connections: Box::new(move || {
                let loads = counted.iter().map(WorkerThread::load);
                loads.map(|load| load as u64).collect()
            }),
            warm: Box::new(move |backend| {
                let asked: Vec<_> = warmed.iter().map(|worker| worker.warm(backend)).collect();
                let all: Warmed = Box::pin(async {
                    for worker in asked {
                        worker.await;
                    }
                });
                all
            }),
            prepare: Box::new(move |config| {
                let prepared = Arc::new(certify(config)?);
                let output = log_output(config)?;
                let certificates = Arc::clone(&certificates);
                let logged = Arc::clone(&logged);
                Ok(Box::new(move || {
                    certificates.store(prepared);
                    if let Some(log) = logged.access_log() {
                        log.output(output);
                    }
                }))
            }),
            sweep_edge: Box::new(move || swept.sweep(clock.uptime())),
            edge_load: Box::new(move || EdgeLoad {
                requests_in_flight: measured.requests_in_flight() as u64,
                remembered_addresses: measured.remembered_addresses() as u64,
                requests_on_common_allowance: measured.requests_on_common_allowance(),
                log: measured
                    .access_log()
                    .map_or_else(LogReading::default, AccessLog::reading),
            }),
            edge: Arc::clone(edge),
            bearable_connections: self.bearable_connections,
            handovers,
        }
    }
}

/// Has the workers serve these sockets, once they are opened.
async fn receive(
    sockets: Vec<TcpListener>,
    world: &World,
    workers: &Arc<[WorkerThread]>,
    bearable_connections: usize,
) -> io::Result<Vec<Listener>> {
    let openings = world.config.listeners.iter();
    let openings = openings.map(|listener| listener.opening).enumerate();
    let mut listeners = Vec::new();
    for (socket, (index, opening)) in sockets.into_iter().zip(openings) {
        let reception = Reception {
            index,
            opening,
            workers: Arc::clone(workers),
            bearable_connections,
        };
        listeners.push(Listener::prepare(socket, reception).await?);
    }
    Ok(listeners)
}

/// Opens the connections that the splits in motion want beforehand.
async fn warm_all(world: &World, workers: &[WorkerThread]) {
    let mut asked = Vec::new();
    for (plan, standing) in world.routing.splits.iter().zip(world.standings()) {
        let backend = world.routing.backend(plan.arms.new);
        if standing.share > Share::ZERO && backend.backend.settings.pool.warm > 0 {
            asked.extend(workers.iter().map(|worker| worker.warm(plan.arms.new)));
        }
    }
    // All are under way by now; waiting for one after the other takes as long as the slowest.
    for warmed in asked {
        warmed.await;
    }
}

/// Client connections that the process's file descriptors bear.
fn bearable_connections(config: &Config) -> usize {
    let endpoints = config
        .backends
        .iter()
        .map(|backend| backend.endpoints.len());
    let bearable = descriptors::bearable_connections(endpoints.sum());
    let configured = config.edge.max_connections;
    if bearable < configured {
        // As a rule nobody has asked for so many: it is the default that is more.
        tracing::info!(
            bearable,
            configured,
            "fewer clients than `edge.max_connections` are let in, since the file descriptors bear no \
             more; raise their hard limit (`LimitNOFILE=`, `ulimit -Hn`)"
        );
    }
    bearable
}
