//! `cutover serve`: the only place where the parts are wired together, in the order in which a
//! process lives: configuration, sockets, state, threads, service, drain.

mod admin;
mod descriptors;
mod memory;
mod running;
mod signals;
mod sockets;
mod succession;

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::signal::unix::Signal;
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local};

use self::admin::{Admin, AdminSocket};
use self::running::Running;
use self::signals::Signals;
use self::sockets::{describe, doorstep, listen};
use self::succession::Succession;
use crate::admin::{AdminState, Readiness, Stage};
use crate::clock::Clock;
use crate::config::model::Config;
use crate::config::{self, Problems, certificate};
use crate::control::controller::Controller;
use crate::control::data_plane::{DataPlane, Warmed};
use crate::control::keeper::Keeper;
use crate::control::protocol::ControlHandle;
use crate::control::watch::Watcher;
use crate::control::world::World;
use crate::edge;
use crate::handover::inherited::Inherited;
use crate::handover::predecessor::{NotRelieved, Parting, Predecessor};
use crate::handover::program::Program;
use crate::handover::upgrade::Upgrades;
use crate::handover::{activation, notify};
use crate::policy::rollout::Effect;
use crate::policy::share::Share;
use crate::server::connection::ServerTlsConfigs;
use crate::server::listener::{BindError, Listener, Reception};
use crate::server::thread::{Shared, WorkerThread};
use crate::server::tls;
use crate::state::{OpenError, Store};
use crate::telemetry::access_log::{AccessLog, LogReading, Output};
use crate::telemetry::edge::{EdgeLoad, EdgeTally};
use crate::telemetry::handover::HandoverTally;
use crate::telemetry::log::{self, Format};

/// Between two looks at what ends.
const LOOK: Duration = Duration::from_millis(10);
/// How the process is to run.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// The configuration file.
    pub config: PathBuf,
    /// What to do where the state store cannot be used; refuse to start if absent.
    pub recover: Option<Recover>,
    /// Whether to relieve the process that works with the same state, if there is one.
    pub take_over: bool,
    /// How the log looks.
    pub log_format: Format,
}

/// With which share to start where the state store cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recover {
    /// Everyone on legacy, latched as after a rollback.
    Legacy,
    /// This share for every split, as an operator's override.
    Share(Share),
}

/// Why the process did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration is not valid; all problems are listed.
    #[error("{0}")]
    Config(Problems),
    /// The configuration reads well but cannot be put in force.
    #[error("{0}")]
    Unusable(String),
    /// The state store cannot be used.
    #[error(transparent)]
    State(#[from] OpenError),
    /// The running process goes on.
    #[error(transparent)]
    NotRelieved(#[from] NotRelieved),
    /// systemd passes sockets of another kind.
    #[error(transparent)]
    Activation(#[from] activation::NotTaken),
    /// systemd has bound sockets in which clients would wait for ever; all of them.
    #[error(
        "systemd passes a socket for {}, and the configuration has no listener there: add it to \
         `listeners` or make it `admin.address`, or remove its `ListenStream=` from the socket unit",
        .0.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" and one for ")
    )]
    Unclaimed(Vec<SocketAddr>),
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The log cannot be started.
    #[error(transparent)]
    Log(#[from] log::NoLog),
    /// A part of the program that runs for ever has ended; what is left must not seem to work.
    #[error("{0}: the process must be started again")]
    Broken(String),
    /// The system refuses something that it never refuses.
    #[error("the system refuses to go on: {0}")]
    System(#[from] io::Error),
}

/// Runs the proxy until a signal ends it.
///
/// # Errors
/// [`ServeError`] says what to mend, in one sentence (or a list of problems).
pub fn serve(options: ServeOptions) -> Result<(), ServeError> {
    log::start(options.log_format)?;
    // Before there is a second thread, since it changes the environment.
    let passed = activation::sockets()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = LocalSet::new();
    let ended = runtime.block_on(local.run_until(run(options, passed)));
    // A look-up or a file that hangs on another thread must not keep the process.
    runtime.shutdown_background();
    ended
}

async fn run(options: ServeOptions, passed: Inherited) -> Result<(), ServeError> {
    // Before anything slow: a signal that comes early must not find the default handler.
    let mut signals = Signals::install()?;
    let upgrade_signal = Signals::upgrades()?;
    // An upgrade may replace the file any moment.
    let program = Program::of_this_process();
    let (mut running, succession) =
        start(options, passed, &mut signals, upgrade_signal, program).await?;
    let heir = running.until_the_end(succession, &mut signals).await?;
    let patience = running.leave(heir, &mut signals).await;
    running.drain(patience, signals).await
}

/// Reads, prepares, takes over and opens, in the order in which the least is disturbed by what
/// fails.
async fn start(
    options: ServeOptions,
    passed: Inherited,
    signals: &mut Signals,
    upgrade_signal: Signal,
    program: io::Result<Program>,
) -> Result<(Running, Succession), ServeError> {
    let clock = Clock::start();
    // From before the file is read: an edit in between would be missed.
    let watcher = Watcher::new(vec![options.config.clone()]);
    let config = read(&options.config, clock)?;
    let certificates = Arc::new(ArcSwap::from_pointee(
        certify(&config).map_err(ServeError::Unusable)?,
    ));
    let access_log = AccessLog::start()?;
    access_log.output(log_output(&config).map_err(ServeError::Unusable)?);
    let state_directory = config.process.state_directory.clone();
    // Only now that the configuration is known to be sound is anyone disturbed.
    let (mut predecessor, given) = match options.take_over {
        true => Predecessor::ask(&state_directory).await?.unzip(),
        false => (None, None),
    };
    let (sockets, admin_socket) = listen(&config, given.unwrap_or_default(), passed)?;
    let (store, mut world, effects) =
        restore(config, options.recover, clock, predecessor.as_mut()).await?;
    let published = Controller::first_snapshot(&mut world);

    let edge = Arc::new(EdgeTally::default());
    let entrance = Arc::new(edge::Shared::with_log(access_log));
    let shared = Shared {
        clock,
        published: Arc::clone(&published),
        edge: Arc::clone(&edge),
        entrance: Arc::clone(&entrance),
        tls: Arc::clone(&certificates),
    };
    let started = WorkerThread::start_all(world.config.process.workers, &shared)?;
    let (workers, threads): (Vec<WorkerThread>, Vec<JoinHandle<()>>) = started.into_iter().unzip();
    let workers: Arc<[WorkerThread]> = workers.into();
    warm_all(&world, &workers).await;

    let bearable_connections = bearable_connections(&world.config);
    let listeners = receive(sockets, &world, &workers, &shared, bearable_connections)?;
    let admin_socket = AdminSocket::prepare(admin_socket)?;
    let drain = world.config.process.drain.clone();
    let tokens = world.config.process.admin.tokens.clone().into();
    let described = describe(&world.config);
    let handovers = Arc::new(HandoverTally::default());
    spawn_local(signals.reopening(Arc::clone(&entrance)));
    let data_plane = DataPlane {
        bearable_connections,
        handovers: Arc::clone(&handovers),
        ..data_plane(
            &workers,
            &certificates,
            Arc::clone(&entrance),
            Arc::clone(&edge),
            clock,
        )
    };
    let keeper = Keeper::start(store)?;
    let mut controller = Controller::new(
        world,
        Arc::clone(&published),
        data_plane,
        keeper,
        options.config,
        watcher,
    );
    // From here on nothing can fail any more but what ends a process; until here the old one can
    // still go on, and nothing is written that it did not decide. What arrives before we accept
    // waits in the queue that we share with it.
    if let Some(predecessor) = predecessor {
        if let Parting::Leaves(old) = predecessor.relieve().await? {
            controller.guide(old.obedience());
            spawn_local(old.guide(published, clock));
        }
        handovers.took_over();
        tracing::info!("taken over from the old process");
    }
    controller.settle(effects).await;

    let (control, messages) = ControlHandle::channel();
    let (upgrades, wishes) = Upgrades::channel();
    let readiness = Readiness::starting();
    let sockets_of_admin = admin_socket.shared();
    let admin = Admin::serve(
        admin_socket,
        AdminState {
            control: control.clone(),
            tokens,
            readiness: readiness.clone(),
            upgrades,
        },
    );
    let (stop, stopped) = oneshot::channel();
    let controller = spawn_local(controller.run(messages, stopped));
    listeners.iter().for_each(Listener::open);
    announce(&listeners, &certificates.load(), admin.address);
    readiness.advance(Stage::Ready);
    notify::notify(&format!(
        "{}\n{}",
        notify::READY,
        notify::main_process(std::process::id())
    ));
    let sockets = listeners.iter().map(Listener::socket);
    let sockets = sockets.chain([sockets_of_admin]);
    let succession = Succession {
        doorstep: doorstep(&state_directory),
        sockets: described.into_iter().zip(sockets).collect(),
        program,
        control: control.clone(),
        signal: upgrade_signal,
        wishes,
        tally: handovers,
    };
    let running = Running {
        workers,
        threads,
        listeners,
        admin: Some(admin),
        readiness,
        entrance,
        edge,
        drain,
        control,
        controller,
        stop,
    };
    Ok((running, succession))
}

/// Reads the configuration, and tells the log what to think of it.
fn read(path: &Path, clock: Clock) -> Result<Config, ServeError> {
    let config = config::load(path).map_err(ServeError::Config)?;
    let ending = certificate::ending(&config, clock.now());
    for warning in config.warnings.iter().chain(&ending) {
        tracing::warn!(file = %path.display(), "{warning}");
    }
    Ok(config)
}

/// Opens the state store, once an old process has closed it, and goes on from what it holds.
async fn restore(
    config: Config,
    recover: Option<Recover>,
    clock: Clock,
    predecessor: Option<&mut Predecessor>,
) -> Result<(Option<Store>, World, Vec<Effect>), ServeError> {
    let (store, saved) = match predecessor {
        Some(predecessor) => {
            predecessor.release().await?;
            memory::open_after(&config, recover, clock).await?
        }
        None => memory::open(&config, recover, clock)?,
    };
    let is_recovering = saved.is_none();
    let (mut world, mut effects) = World::new(clock, config, saved.unwrap_or_default())
        .map_err(|error| ServeError::Unusable(error.to_string()))?;
    if let Some(recover) = recover.filter(|_| is_recovering) {
        effects.extend(memory::recover_shares(&mut world, recover));
    }
    Ok((store, world, effects))
}

/// Has the workers serve these sockets, once they are opened.
fn receive(
    sockets: Vec<TcpListener>,
    world: &World,
    workers: &Arc<[WorkerThread]>,
    shared: &Shared,
    bearable_connections: usize,
) -> io::Result<Vec<Listener>> {
    let openings = world.config.listeners.iter();
    let openings = openings.map(|listener| listener.opening).enumerate();
    let listeners = sockets.into_iter().zip(openings);
    let listeners = listeners.map(|(socket, (index, opening))| {
        let reception = Reception {
            index,
            opening,
            workers: Arc::clone(workers),
            published: Arc::clone(&shared.published),
            edge: Arc::clone(&shared.edge),
            bearable_connections,
        };
        Listener::prepare(socket, reception)
    });
    listeners.collect()
}

/// The listeners' certificates, ready for use.
///
/// # Errors
/// A sentence that names the listener and what is wrong.
pub fn certify(config: &Config) -> Result<ServerTlsConfigs, String> {
    let listeners = config.listeners.iter().map(|listener| {
        let prepared = listener.tls.as_ref().map(tls::server_config).transpose();
        prepared.map_err(|error| format!("listener {}: {error}", listener.address))
    });
    listeners.collect::<Result<_, _>>().map(ServerTlsConfigs)
}

/// Where the lines of the access log go, opened; none where there is no such log.
fn log_output(config: &Config) -> Result<Option<Output>, String> {
    config.access_log.as_ref().map(Output::open).transpose()
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

/// The data plane, as the control plane sees it.
fn data_plane(
    workers: &Arc<[WorkerThread]>,
    certificates: &Arc<ArcSwap<ServerTlsConfigs>>,
    entrance: Arc<edge::Shared>,
    edge: Arc<EdgeTally>,
    clock: Clock,
) -> DataPlane {
    let swept = Arc::clone(&entrance);
    let counted = Arc::clone(workers);
    let warmed = Arc::clone(workers);
    let logged = Arc::clone(&entrance);
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
            requests_in_flight: entrance.requests_in_flight() as u64,
            remembered_addresses: entrance.remembered_addresses() as u64,
            requests_on_common_allowance: entrance.requests_on_common_allowance(),
            log: entrance
                .access_log()
                .map_or_else(LogReading::default, AccessLog::reading),
        }),
        edge,
        bearable_connections: usize::MAX,
        handovers: Arc::default(),
    }
}

/// Tells on standard output where to connect: the ports are the system's choice where the
/// configuration says 0.
fn announce(listeners: &[Listener], tls: &ServerTlsConfigs, admin: SocketAddr) {
    let mut out = io::stdout().lock();
    for (index, listener) in listeners.iter().enumerate() {
        let scheme = if tls.for_listener(index).is_some() {
            "https"
        } else {
            "http"
        };
        let address = listener.address();
        tracing::info!(%address, scheme, "listening");
        // Nobody may be reading.
        let _ = writeln!(out, "listening on {scheme}://{address}");
    }
    tracing::info!(address = %admin, "admin API listening");
    let _ = writeln!(out, "admin on http://{admin}");
    let _ = out.flush();
}
