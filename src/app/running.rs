//! A process that serves, to its end: whatever ends it, nobody is cut who could still be answered.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::{self, JoinError, spawn_local};
use tokio::time::{sleep, timeout};

use super::admin::Admin;
use super::signals::Signals;
use super::sockets::stop_all;
use super::succession::Succession;
use super::{LOOK, ServeError};
use crate::admin::{Readiness, Stage};
use crate::config::model::Drain;
use crate::control::protocol::ControlHandle;
use crate::edge;
use crate::handover::notify;
use crate::handover::successor::{Heir, Unheard};
use crate::server::listener::Listener;
use crate::server::thread::WorkerThread;
use crate::telemetry::edge::EdgeTally;

/// Time for the last lines of the access log.
const LAST_LINES: Duration = Duration::from_secs(1);
/// The part of the drain's deadline in which an old process closes no connection by itself: each
/// request is still answered, with the wish that the next one goes elsewhere. A connection that is
/// closed while nothing is asked may cross with a request.
const QUIET: u32 = 3;
/// Time for the control plane to save what it knows and to end.
const LAST_SAVE: Duration = Duration::from_secs(5);

/// A process that serves.
pub(super) struct Running {
    pub(super) workers: Arc<[WorkerThread]>,
    pub(super) threads: Vec<JoinHandle<()>>,
    pub(super) listeners: Vec<Listener>,
    pub(super) admin: Option<Admin>,
    pub(super) readiness: Readiness,
    pub(super) entrance: Arc<edge::Shared>,
    pub(super) edge: Arc<EdgeTally>,
    pub(super) drain: Drain,
    pub(super) control: ControlHandle,
    pub(super) controller: task::JoinHandle<io::Result<()>>,
    pub(super) stop: oneshot::Sender<()>,
}

impl Running {
    /// Serves until the process is to end, or another one has taken over.
    ///
    /// # Errors
    /// A part that runs for ever has ended.
    pub(super) async fn until_the_end(
        &mut self,
        succession: Succession,
        signals: &mut Signals,
    ) -> Result<Option<Heir>, ServeError> {
        tokio::select! {
            heir = succession.heir(signals.stop_asked()) => Ok(heir),
            ended = &mut self.controller => {
                Err(ended.map_err(broken)?.err().map_or_else(
                    || ServeError::Broken("the control plane has ended".to_owned()),
                    ServeError::System,
                ))
            }
            () = any_ended(&self.workers) => {
                Err(ServeError::Broken("a worker thread has ended".to_owned()))
            }
        }
    }

    /// Takes no more connections; returns how long those that are open may still take.
    pub(super) async fn leave(&mut self, heir: Option<Heir>, signals: &mut Signals) -> Duration {
        self.readiness.advance(Stage::Draining);
        let listeners = std::mem::take(&mut self.listeners);
        let deadline = self.drain.deadline;
        let Some(heir) = heir else {
            tracing::info!("draining: no longer ready");
            notify::notify(notify::STOPPING);
            self.ask_to_leave();
            let delay = sleep(self.drain.delay);
            let is_asked_again = !signals.is_hasty && signals.unless_again(delay).await.is_none();
            stop_all(listeners).await;
            return if is_asked_again {
                Duration::ZERO
            } else {
                deadline
            };
        };
        signals.ends_by_itself();
        self.ask_to_leave();
        let successor = heir.process();
        tracing::info!(successor, "draining: another process serves");
        if let Some(process) = successor {
            notify::notify(&notify::main_process(process));
        }
        spawn_local(obey(heir, self.control.clone()));
        listeners.iter().for_each(Listener::leave_queue);
        stop_all(listeners).await;
        let quiet = deadline / QUIET;
        let admin = self.admin.take();
        let admin_ends = async {
            if let Some(admin) = admin {
                admin.end().await;
            }
        };
        let farewell = async { tokio::join!(admin_ends, all_left(&self.workers)) };
        match signals.unless_again(timeout(quiet, farewell)).await {
            Some(_) => deadline.saturating_sub(quiet),
            None => Duration::ZERO,
        }
    }

    fn ask_to_leave(&self) {
        for worker in self.workers.iter() {
            worker.leave();
        }
    }

    /// Ends what is open when it has been answered, or when there is no more patience, and saves.
    pub(super) async fn drain(
        mut self,
        patience: Duration,
        mut signals: Signals,
    ) -> Result<(), ServeError> {
        for worker in self.workers.iter() {
            worker.drain();
        }
        let ends = timeout(patience, all_ended(self.threads));
        let finished = signals.unless_again(ends).await;
        if finished.is_none_or(|finished| finished.is_err()) {
            let cut = self.workers.iter().map(WorkerThread::load).sum::<usize>();
            tracing::warn!(
                connections = cut,
                tunnels = self.edge.tunnels(),
                "the drain's time is up; cutting what is left"
            );
        }
        if let Some(log) = self.entrance.access_log() {
            log.flush(LAST_LINES);
        }
        // The controller may have ended by itself only by failing; its result says so.
        let _ = self.stop.send(());
        let saved = timeout(LAST_SAVE, &mut self.controller);
        match signals.unless_again(saved).await {
            Some(Ok(ended)) => ended.map_err(broken)??,
            Some(Err(_)) | None => tracing::error!("the last state may not be saved"),
        }
        tracing::info!("stopped");
        Ok(())
    }
}

/// Does what our successor says, to its end or ours.
async fn obey(mut heir: Heir, control: ControlHandle) {
    if let Err(because) = obey_all(&mut heir, &control).await {
        tracing::error!(
            because,
            "the successor is obeyed no more; the answers to its orders say so"
        );
        // Where it cannot see our process, it takes a closed connection for our end.
        heir.ended().await;
    }
}

async fn obey_all(heir: &mut Heir, control: &ControlHandle) -> Result<(), String> {
    let failed = |error: Unheard| error.to_string();
    while let Some(restraint) = heir.orders().await.map_err(failed)? {
        let obeyed = control.obey(restraint).await;
        let obeyed = obeyed.map_err(|error| error.to_string())?;
        heir.confirm(obeyed.err()).await.map_err(failed)?;
    }
    Ok(())
}

/// Resolves when no client is connected any more.
async fn all_left(workers: &[WorkerThread]) {
    while workers.iter().any(|worker| worker.load() > 0) {
        sleep(LOOK).await;
    }
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
    while !threads.iter().all(JoinHandle::is_finished) {
        sleep(LOOK).await;
    }
}
