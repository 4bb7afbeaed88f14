//! `cutover serve`: the only place where the parts are wired together, in the order in which a
//! process lives: configuration, state, sockets, threads, service, drain.

use std::future::poll_fn;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::{JoinError, LocalSet, spawn_local};
use tokio::time::{sleep, timeout};

use crate::admin::{self, AdminState, Readiness, Stage};
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
use crate::policy::plan::Retreat;
use crate::policy::rollout::{By, Effect, Event};
use crate::policy::share::Share;
use crate::server::connection::ServerTlsConfigs;
use crate::server::listener::{self, BindError, Listener};
use crate::server::thread::{Shared, WorkerThread};
use crate::server::tls;
use crate::state::{OpenError, Saved, Store};
use crate::telemetry::access_log::{AccessLog, LogReading, Output};
use crate::telemetry::edge::{EdgeLoad, EdgeTally};
use crate::telemetry::log::{self, Format};

/// Time for the last lines of the access log.
const LAST_LINES: Duration = Duration::from_secs(1);
/// Time for the control plane to save what it knows and to end.
const LAST_SAVE: Duration = Duration::from_secs(5);

/// How the process is to run.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// The configuration file.
    pub config: PathBuf,
    /// What to do where the state store cannot be used; refuse to start if absent.
    pub recover: Option<Recover>,
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
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = LocalSet::new();
    let ended = runtime.block_on(local.run_until(run(options)));
    // A look-up or a file that hangs on another thread must not keep the process.
    runtime.shutdown_background();
    ended
}

async fn run(options: ServeOptions) -> Result<(), ServeError> {
    // Before anything slow: a signal that comes early must not find the default handler.
    let mut signals = Signals::install()?;
    let clock = Clock::start();
    // From before the file is read: an edit in between would be missed.
    let watcher = Watcher::new(vec![options.config.clone()]);
    let config = config::load(&options.config).map_err(ServeError::Config)?;
    let ending = certificate::ending(&config, clock.now());
    for warning in config.warnings.iter().chain(&ending) {
        tracing::warn!(file = %options.config.display(), "{warning}");
    }
    let certificates = Arc::new(ArcSwap::from_pointee(
        certify(&config).map_err(ServeError::Unusable)?,
    ));
    let access_log = AccessLog::start()?;
    access_log.output(log_output(&config).map_err(ServeError::Unusable)?);
    let sockets = bind_all(&config)?;
    let admin_socket = listener::bind(config.process.admin.address)?;
    let (store, saved) = open_store(&config, options.recover, clock)?;
    let is_recovering = saved.is_none();
    let (mut world, mut effects) = World::new(clock, config, saved.unwrap_or_default())
        .map_err(|error| ServeError::Unusable(error.to_string()))?;
    if let Some(recover) = options.recover.filter(|_| is_recovering) {
        effects.extend(recover_shares(&mut world, recover));
    }
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

    let drain = world.config.process.drain.clone();
    let readiness = Readiness::starting();
    let (control, messages) = ControlHandle::channel();
    let admin_address = serve_admin(admin_socket, &world, control, &readiness)?;
    spawn_local(signals.reopening(Arc::clone(&entrance)));
    let counted = Arc::clone(&edge);
    let data_plane = data_plane(&workers, &certificates, Arc::clone(&entrance), edge, clock);
    let keeper = Keeper::start(store)?;
    let mut controller = Controller::new(
        world,
        Arc::clone(&published),
        data_plane,
        keeper,
        options.config,
        watcher,
    );
    controller.settle(effects).await;
    let (stop, stopped) = oneshot::channel();
    let mut controller = spawn_local(controller.run(messages, stopped));

    let listeners = sockets.into_iter().enumerate().map(|(index, socket)| {
        let workers = Arc::clone(&workers);
        Listener::start(socket, index, workers, Arc::clone(&published))
    });
    let listeners: Vec<Listener> = listeners.collect::<io::Result<_>>()?;
    announce(&listeners, &certificates.load(), admin_address);
    readiness.advance(Stage::Ready);

    tokio::select! {
        () = signals.stop_asked() => {}
        ended = &mut controller => {
            return Err(ended.map_err(broken)?.err().map_or_else(
                || ServeError::Broken("the control plane has ended".to_owned()),
                ServeError::System,
            ));
        }
        () = any_ended(&workers) => {
            return Err(ServeError::Broken("a worker thread has ended".to_owned()));
        }
    }
    readiness.advance(Stage::Draining);
    tracing::info!("draining: no longer ready");
    for worker in workers.iter() {
        worker.leave();
    }
    let is_asked_again =
        !signals.is_hasty && signals.unless_again(sleep(drain.delay)).await.is_none();
    for listener in listeners {
        listener.stop();
    }
    for worker in workers.iter() {
        worker.drain();
    }
    let patience = if is_asked_again {
        Duration::ZERO
    } else {
        drain.deadline
    };
    let finished = signals
        .unless_again(timeout(patience, all_ended(threads)))
        .await;
    if finished.is_none_or(|finished| finished.is_err()) {
        let cut = workers.iter().map(WorkerThread::load).sum::<usize>();
        tracing::warn!(
            connections = cut,
            tunnels = counted.tunnels(),
            "the drain's time is up; cutting what is left"
        );
    }
    if let Some(log) = entrance.access_log() {
        log.flush(LAST_LINES);
    }
    // The controller may have ended by itself only by failing; its result says so.
    let _ = stop.send(());
    match signals
        .unless_again(timeout(LAST_SAVE, &mut controller))
        .await
    {
        Some(Ok(ended)) => ended.map_err(broken)??,
        Some(Err(_)) | None => tracing::error!("the last state may not be saved"),
    }
    tracing::info!("stopped");
    Ok(())
}

/// The signals that end the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Taken by what it wakes.
    reopen: Option<Signal>,
    is_hasty: bool,
}

impl Signals {
    fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reopen: Some(signal(SignalKind::user_defined1())?),
            is_hasty: false,
        })
    }

    /// Resolves when the process is asked to end. A person at a terminal wants no delay.
    async fn stop_asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => self.is_hasty = true,
        }
    }

    /// Opens the access log anew whenever it was rotated.
    fn reopening(&mut self, entrance: Arc<edge::Shared>) -> impl Future<Output = ()> + use<> {
        let reopen = self.reopen.take();
        async move {
            let (Some(mut reopen), Some(log)) = (reopen, entrance.access_log()) else {
                return;
            };
            while reopen.recv().await.is_some() {
                log.reopen();
            }
        }
    }

    /// What `future` returns, unless the process is asked again to end.
    async fn unless_again<F: Future>(&mut self, future: F) -> Option<F::Output> {
        tokio::select! {
            output = future => Some(output),
            _ = self.terminate.recv() => None,
            _ = self.interrupt.recv() => None,
        }
    }
}

fn bind_all(config: &Config) -> Result<Vec<TcpListener>, BindError> {
    let addresses = config.listeners.iter().map(|listener| listener.address);
    addresses.map(listener::bind).collect()
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

/// Opens the state store and reads what an earlier process left; `None` where it cannot be used
/// and the operator has said how to start all the same.
fn open_store(
    config: &Config,
    recover: Option<Recover>,
    clock: Clock,
) -> Result<(Option<Store>, Option<Saved>), ServeError> {
    let directory = &config.process.state_directory;
    let opened = Store::open(directory).and_then(|store| store.load().map(|saved| (store, saved)));
    let error = match opened {
        Ok((store, saved)) => {
            if recover.is_some() {
                tracing::warn!("--recover-share is ignored: the state store is in order");
            }
            if store.is_new() {
                let file = store.file().display();
                tracing::warn!(%file, "no state file: beginning without earlier decisions");
            }
            return Ok((Some(store), Some(saved)));
        }
        // Another process decides there; two deciders are worse than none.
        Err(error @ OpenError::Locked { .. }) => return Err(error.into()),
        Err(error) if recover.is_none() => return Err(error.into()),
        Err(error) => error,
    };
    tracing::error!(%error, "starting without the earlier state, as --recover-share asks");
    let fresh = Store::set_aside(directory, clock.now()).and_then(|aside| {
        tracing::warn!(file = %aside.display(), "the unusable state file is kept here");
        Store::open(directory).map_err(io::Error::other)
    });
    match fresh {
        Ok(store) => Ok((Some(store), None)),
        Err(error) => {
            tracing::error!(%error, "there is no state store: nothing survives a restart");
            Ok((None, None))
        }
    }
}

/// Gives every split the share that the operator named for a start without memory.
fn recover_shares(world: &mut World, recover: Recover) -> Vec<Effect> {
    let now = world.clock.now();
    let by = By {
        actor: "operator".to_owned(),
        reason: "--recover-share".to_owned(),
    };
    let event = match recover {
        Recover::Legacy => Event::Rollback {
            to: Some(Retreat::Zero),
            by,
        },
        Recover::Share(share) => Event::Set {
            share,
            override_file: true,
            by,
        },
    };
    let splits = world.splits.iter_mut();
    splits
        .flat_map(|state| match state.rollout.handle(event.clone(), now) {
            Ok(effects) => effects,
            Err(refusal) => {
                tracing::error!(split = state.rollout.split(), %refusal, "not recovered");
                Vec::new()
            }
        })
        .collect()
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

fn serve_admin(
    socket: TcpListener,
    world: &World,
    control: ControlHandle,
    readiness: &Readiness,
) -> io::Result<SocketAddr> {
    let address = socket.local_addr()?;
    socket.set_nonblocking(true)?;
    let socket = tokio::net::TcpListener::from_std(socket)?;
    let service = admin::service(AdminState {
        control,
        tokens: world.config.process.admin.tokens.clone().into(),
        readiness: readiness.clone(),
    });
    tokio::spawn(async move { axum::serve(socket, service).await });
    Ok(address)
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

fn broken(error: JoinError) -> ServeError {
    ServeError::Broken(format!("the control plane has failed: {error}"))
}

/// Resolves when a worker takes no more connections.
async fn any_ended(workers: &[WorkerThread]) {
    let mut ends: Vec<_> = workers
        .iter()
        .map(|worker| Box::pin(worker.ended()))
        .collect();
    poll_fn(|context| {
        match ends
            .iter_mut()
            .any(|end| end.as_mut().poll(context).is_ready())
        {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
}

/// Resolves when all threads have ended.
async fn all_ended(threads: Vec<JoinHandle<()>>) {
    const LOOK: Duration = Duration::from_millis(10);
    while !threads.iter().all(JoinHandle::is_finished) {
        sleep(LOOK).await;
    }
}
