//! What the control plane says of itself: status, and the scene that metrics are rendered from.

use std::path::Path;

use crate::config::model::BackendId;
use crate::policy::arm::{Arm, PerArm};
use crate::policy::class::Class;
use crate::policy::time::Elapsed;
use crate::telemetry::edge::{Closure, EdgeReading, EdgeRefusal};
use crate::telemetry::metrics::{
    BackendScene, CertificateScene, EndpointScene, Metrics, ProcessScene, RouteScene, Scene,
    SplitScene,
};
use crate::telemetry::tally::SplitReading;
use crate::upstream::endpoint::{Endpoint, Health};

use super::announced::Announced;
use super::data_plane::DataPlane;
use super::keeper::Keeper;
use super::protocol::{
    ArmStatus, BackendStatus, ConfigStatus, EndpointStatus, SplitStatus, Status,
};
use super::reload::LastReload;
use super::world::World;

/// The state of everything.
pub fn status(world: &World, keeper: &Keeper, path: &Path, last_reload: &LastReload) -> Status {
    let clock = world.clock;
    let started_at = clock.at(Elapsed::default());
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        process: std::process::id(),
        generation: world.generation(),
        revision: world.revision(),
        started_at: started_at.rfc3339(),
        config: ConfigStatus {
            path: path.display().to_string(),
            loaded_at: last_reload.loaded_at.rfc3339(),
            last_reload_successful: last_reload.problems.is_empty(),
            problems: last_reload.problems.clone(),
        },
        emergency: world.emergency,
        store_healthy: keeper.is_healthy(),
        splits: (0..world.splits.len())
            .map(|index| split(world, index))
            .collect(),
        backends: world
            .routing
            .backends
            .iter()
            .map(|plan| {
                let endpoints = plan.backend.endpoints.iter();
                BackendStatus {
                    name: plan.backend.name().to_owned(),
                    endpoints: endpoints
                        .map(|endpoint| EndpointStatus {
                            address: endpoint.address().to_owned(),
                            health: health(endpoint, clock.elapsed()).to_owned(),
                            pending: endpoint.pending(),
                            connections: endpoint.connections() as u64,
                        })
                        .collect(),
                }
            })
            .collect(),
    }
}

/// The state of the split with this index.
pub fn split(world: &World, index: usize) -> SplitStatus {
    let settings = &world.config.splits[index];
    let rollout = &world.splits[index].rollout;
    let standing = rollout.standing();
    // Read afresh, as a scrape does: two surfaces must not tell two stories.
    let reading = &world.routing.splits[index].tally.reading();
    let name_of = |id: BackendId| world.routing.backend(id).backend.name().to_owned();
    let breaker = world.routing.splits[index].breaker.as_ref();
    SplitStatus {
        name: settings.name.clone(),
        revision: rollout.revision(),
        phase: rollout.phase(),
        rest: rollout.rest(world.clock.wall()),
        share: standing.share.to_string(),
        file_share: settings.course.file_share().map(|share| share.to_string()),
        override_share: rollout.override_share().map(|share| share.to_string()),
        emergency: standing.emergency,
        rollout_id: settings.rollout_id.clone(),
        backends: PerArm::from_fn(|arm| name_of(settings.arms[arm])),
        signals: rollout.signals(),
        conditions: rollout.conditions(),
        outlook: rollout.outlook(world.clock.wall()),
        arms: PerArm::from_fn(|side| arm(reading, side)),
        rescued: reading.rescued.iter().sum(),
        diverted: reading
            .diverted
            .iter()
            .chain(&reading.diverted_overridden)
            .sum(),
        breaker: breaker
            .map_or("off", |breaker| breaker.state(world.clock.elapsed()))
            .to_owned(),
        last_decision: rollout.last_decision().cloned(),
        recording: world.recorder.status(&settings.name),
    }
}

/// What is said of an endpoint: who keeps requests away, else whether it can be reached.
fn health(endpoint: &Endpoint, now: Elapsed) -> &'static str {
    match endpoint.health(now) {
        Health::Healthy if !endpoint.is_reachable() => "unreachable",
        health => health.as_str(),
    }
}

fn arm(reading: &SplitReading, arm: Arm) -> ArmStatus {
    let evidence = &reading.evidence[arm];
    let figures = &reading.figures[arm];
    let quantile = |probability| {
        let value = figures.first_byte.quantile(probability);
        value.map(|value| value.as_secs_f64())
    };
    ArmStatus {
        requests: evidence.errors.total.n,
        errors: evidence.errors.total.e,
        client_errors: evidence.client_errors.total.e,
        cancelled: figures.classes[Class::Cancelled.index()],
        p50_seconds: quantile(0.5),
        p95_seconds: quantile(0.95),
        p99_seconds: quantile(0.99),
    }
}

/// Everything measured, in the Prometheus text format.
pub(super) fn metrics(
    metrics: &Metrics,
    world: &World,
    keeper: &Keeper,
    announced: &Announced,
    data_plane: &DataPlane,
    last_reload: &LastReload,
) -> String {
    let elapsed = world.clock.elapsed();
    // Read afresh: a scrape must not lag behind the tick.
    let plans = &world.routing.splits;
    let readings: Vec<SplitReading> = plans.iter().map(|plan| plan.tally.reading()).collect();
    let now = world.clock.wall();
    let rollouts = world.splits.iter().map(|state| &state.rollout);
    let evidence: Vec<_> = rollouts
        .map(|rollout| {
            (
                rollout.conditions(),
                rollout.signals(),
                rollout.outlook(now),
            )
        })
        .collect();
    let splits = plans
        .iter()
        .zip(&world.splits)
        .zip(&readings)
        .zip(&evidence);
    let splits = splits.map(
        |(((plan, state), reading), (conditions, signals, outlook))| {
            let standing = state.rollout.standing();
            SplitScene {
                name: &plan.name,
                phase: state.rollout.phase(),
                share: standing.share,
                emergency: standing.emergency,
                breaker: plan.breaker.as_ref().map(|breaker| breaker.state(elapsed)),
                conditions,
                signals,
                outlook,
                announced: announced.of(&plan.name),
                reading,
            }
        },
    );
    let attempts: Vec<_> = world
        .routing
        .backends
        .iter()
        .map(|plan| plan.attempts.reading())
        .collect();
    let backends = world.routing.backends.iter().zip(&attempts);
    let backends = backends.map(|(plan, attempts)| BackendScene {
        name: plan.backend.name(),
        attempts,
        endpoints: plan
            .backend
            .endpoints
            .iter()
            .map(|endpoint| EndpointScene {
                address: endpoint.address(),
                healthy: endpoint.health(elapsed) == Health::Healthy,
                reachable: endpoint.is_reachable(),
                pending: endpoint.pending(),
                connections: endpoint.connections() as u64,
            })
            .collect(),
    });
    let listeners = world.config.listeners.iter();
    let certificates = listeners.flat_map(|listener| {
        let pairs = listener.tls.iter().flat_map(|tls| &tls.pairs);
        pairs.map(|pair| CertificateScene {
            listener: listener.address,
            file: &pair.file,
            not_after: pair.not_after,
        })
    });
    let routes = world.routing.routes.iter();
    let limits = routes.filter_map(|route| route.limits.as_ref());
    let routes = limits.map(|limits| {
        let reading = limits.reading();
        RouteScene {
            name: &limits.name,
            limits_requests: limits.max_requests.is_some(),
            limits_rate: limits.rate.is_some(),
            in_flight: reading.in_flight as u64,
            overloaded: reading.overloaded,
            rate_limited: reading.rate_limited,
            keys: reading.keys as u64,
            on_common_allowance: reading.on_common_allowance,
        }
    });
    let edge = data_plane.edge.reading();
    metrics.render(&Scene {
        process: ProcessScene {
            generation: world.generation(),
            last_reload_successful: last_reload.problems.is_empty(),
            last_reload_at: last_reload.loaded_at,
            store_healthy: keeper.is_healthy(),
            audit_dropped: keeper.dropped_decisions(),
            worker_connections: &(data_plane.connections)(),
            max_client_connections: (world.config.edge.max_connections)
                .min(data_plane.bearable_connections),
            connections_accepted: edge.accepted,
            denied_networks: world.denials().len(),
            denials_dropped: world.denials_dropped(),
            failed_accepts: edge.failed_accepts,
            untold: edge.untold,
            edge_load: (data_plane.edge_load)(),
            tunnels: edge.tunnels,
            tunnels_ended: edge.tunnels_ended,
            refused: &refusals(&edge),
            certificates: &certificates.collect::<Vec<_>>(),
            handovers: &data_plane.handovers.reading(),
        },
        splits: splits.collect(),
        backends: backends.collect(),
        routes: routes.collect(),
    })
}

fn refusals(edge: &EdgeReading) -> Vec<(&'static str, u64)> {
    let requests = EdgeRefusal::LABELS.into_iter().zip(edge.refused);
    let connections = Closure::LABELS.into_iter().zip(edge.closed);
    requests.chain(connections).collect()
}
