//! `cutover serve`: the only place where the parts are wired together, in the order in which a
//! process lives: configuration, sockets, state, threads, service, drain.

mod admin;
mod descriptors;
mod memory;
mod running;
mod service;
mod signals;
mod sockets;
mod succession;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::signal::unix::Signal;
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local};

use self::admin::{Admin, AdminSocket};
use self::running::Running;
use self::service::Service;
use self::signals::Signals;
use self::sockets::{describe, doorstep, listen};
use self::succession::Succession;
use crate::admin::{AdminState, Readiness, Stage};
use crate::clock::Clock;
use crate::config::model::{Config, Process};
use crate::config::{self, Problems, certificate};
use crate::control::controller::Controller;
use crate::control::keeper::Keeper;
use crate::control::protocol::ControlHandle;
use crate::control::watch::Watcher;
use crate::control::world::World;
use crate::edge;
use crate::handover::inherited::Inherited;
use crate::handover::predecessor::{NotRelieved, Parting, Predecessor};
use crate::handover::program::Program;
use crate::handover::successor::Described;
use crate::handover::upgrade::Upgrades;
use crate::handover::{activation, notify};
use crate::policy::rollout::Effect;
use crate::policy::share::Share;
use crate::server::connection::ServerTlsConfigs;
use crate::server::listener::{BindError, Listener};
use crate::server::thread::Shared;
use crate::server::tls;
use crate::state::{OpenError, Store};
use crate::telemetry::access_log::{AccessLog, Output};
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

/// What it takes, besides a service, to let anyone in.
struct Household {
    admin_socket: AdminSocket,
    process: Process,
    /// What each socket is for.
    described: Vec<Described>,
    program: io::Result<Program>,
    upgrade_signal: Signal,
    handovers: Arc<HandoverTally>,
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
    let certificates = certify(&config).map_err(ServeError::Unusable)?;
    let access_log = AccessLog::start()?;
    access_log.output(log_output(&config).map_err(ServeError::Unusable)?);
    // Only now that the configuration is known to be sound is anyone disturbed.
    let (mut predecessor, given) = match options.take_over {
        true => Predecessor::ask(&config.process.state_directory)
            .await?
            .unzip(),
        false => (None, None),
    };
    let (sockets, admin_socket) = listen(&config, given.unwrap_or_default(), passed)?;
    let (store, mut world, effects) =
        restore(config, options.recover, clock, predecessor.as_mut()).await?;

    let shared = Shared {
        clock,
        published: Controller::first_snapshot(&mut world),
        edge: Arc::default(),
        entrance: Arc::new(edge::Shared::with_log(access_log)),
        tls: Arc::new(ArcSwap::from_pointee(certificates)),
    };
    let service = Service::prepare(&world, shared, sockets).await?;
    spawn_local(signals.reopening(Arc::clone(&service.shared.entrance)));
    let household = Household {
        admin_socket: AdminSocket::prepare(admin_socket)?,
        process: world.config.process.clone(),
        described: describe(&world.config),
        program,
        upgrade_signal,
        handovers: Arc::default(),
    };
    let mut controller = Controller::new(
        world,
        Arc::clone(&service.shared.published),
        service.data_plane(Arc::clone(&household.handovers)),
        Keeper::start(store)?,
        options.config,
        watcher,
    );
    if let Some(predecessor) = predecessor {
        relieve(predecessor, &mut controller, &service.shared).await?;
        household.handovers.took_over();
    }
    controller.settle(effects).await;
    Ok(open(service, controller, household))
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

/// Takes over. From here on nothing can fail any more but what ends a process; until here the old
/// one can still go on, and nothing is written that it did not decide. What arrives before we accept
/// waits in the queue that we share with it.
async fn relieve(
    predecessor: Predecessor,
    controller: &mut Controller,
    shared: &Shared,
) -> Result<(), ServeError> {
    if let Parting::Leaves(old) = predecessor.relieve().await? {
        controller.guide(old.obedience());
        spawn_local(old.guide(Arc::clone(&shared.published), shared.clock));
    }
    tracing::info!("taken over from the old process");
    Ok(())
}

/// Lets clients, operators and successors in, and says so.
fn open(service: Service, controller: Controller, household: Household) -> (Running, Succession) {
    let (control, messages) = ControlHandle::channel();
    let (upgrades, wishes) = Upgrades::channel();
    let readiness = Readiness::starting();
    let process = household.process;
    let sockets = service.listeners.iter().map(Listener::socket);
    let sockets: Vec<_> = sockets.chain([household.admin_socket.shared()]).collect();
    let admin = Admin::serve(
        household.admin_socket,
        AdminState {
            control: control.clone(),
            tokens: process.admin.tokens.into(),
            readiness: readiness.clone(),
            upgrades,
        },
    );
    let (stop, stopped) = oneshot::channel();
    let controller = spawn_local(controller.run(messages, stopped));
    service.listeners.iter().for_each(Listener::open);
    announce(
        &service.listeners,
        &service.shared.tls.load(),
        admin.address,
    );
    readiness.advance(Stage::Ready);
    let main_process = notify::main_process(std::process::id());
    notify::notify(&format!("{}\n{main_process}", notify::READY));
    let succession = Succession {
        doorstep: doorstep(&process.state_directory),
        sockets: household.described.into_iter().zip(sockets).collect(),
        program: household.program,
        control: control.clone(),
        signal: household.upgrade_signal,
        wishes,
        latch: admin.latch(),
        tally: household.handovers,
    };
    let running = Running {
        workers: service.workers,
        threads: service.threads,
        listeners: service.listeners,
        admin: Some(admin),
        readiness,
        entrance: service.shared.entrance,
        edge: service.shared.edge,
        drain: process.drain,
        control,
        controller,
        stop,
    };
    (running, succession)
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
