//! Reading the configuration file while everything else goes on.
//!
//! A file may lie on a disk that hangs, and the judge must not hang with it: files are read on a
//! thread of their own, one reading at a time. Who asks during a reading gets the next one, because
//! the file may have changed since.

use std::future::pending;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until};

use crate::config::model::Config;
use crate::config::{self, Problems};
use crate::policy::time::Timestamp;

use super::controller::{Controller, Done, announce, backends};
use super::protocol::Refused;
use super::world::decisions;

/// Time until what could not be saved is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// What became of the last reading of the configuration file.
#[derive(Clone, Debug)]
pub struct LastReload {
    /// When the configuration in force was loaded.
    pub loaded_at: Timestamp,
    /// Why the last reading was refused; empty if it was not.
    pub problems: Vec<String>,
}

/// Who wants the file to be read.
#[derive(Debug)]
pub(super) enum Asker {
    /// Something that happened.
    Event(&'static str),
    /// Somebody who waits for the answer.
    Operator(oneshot::Sender<Result<String, Refused>>),
}

/// The readings that were asked for, and the one under way.
#[derive(Debug)]
pub(super) struct Reloads {
    path: PathBuf,
    waiting: Vec<Asker>,
    under_way: Option<Reading>,
    /// When to try again by itself.
    again: Option<Instant>,
}

#[derive(Debug)]
struct Reading {
    askers: Vec<Asker>,
    task: JoinHandle<Result<Config, Problems>>,
}

/// A reading that has ended.
#[derive(Debug)]
pub(super) struct Loaded {
    askers: Vec<Asker>,
    outcome: Result<Config, Unread>,
}

/// There is no configuration.
#[derive(Debug)]
enum Unread {
    Problems(Problems),
    Failed(String),
}

impl Reloads {
    /// None yet of the file at `path`.
    pub(super) const fn new(path: PathBuf) -> Self {
        Self {
            path,
            waiting: Vec::new(),
            under_way: None,
            again: None,
        }
    }

    /// The configuration file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Asks for a reading that begins from now on.
    pub(super) fn ask(&mut self, asker: Asker) {
        self.waiting.push(asker);
    }

    /// Whether the last reading is tried again by itself.
    #[cfg(test)]
    pub(super) const fn is_due_again(&self) -> bool {
        self.again.is_some()
    }

    /// The next reading that ends. Nothing is lost if this is dropped.
    pub(super) async fn next(&mut self) -> Loaded {
        loop {
            if let Some(reading) = &mut self.under_way {
                let outcome = match (&mut reading.task).await {
                    Ok(Ok(config)) => Ok(config),
                    Ok(Err(problems)) => Err(Unread::Problems(problems)),
                    Err(error) => Err(Unread::Failed(error.to_string())),
                };
                let askers = std::mem::take(&mut reading.askers);
                self.under_way = None;
                return Loaded { askers, outcome };
            }
            if self.waiting.is_empty() {
                match self.again {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
                self.ask(Asker::Event("it could not be saved before"));
            }
            self.again = None;
            let path = self.path.clone();
            self.under_way = Some(Reading {
                askers: std::mem::take(&mut self.waiting),
                task: spawn_blocking(move || config::load(&path)),
            });
        }
    }
}

impl Controller {
    /// Puts what was read in force, or refuses it, and tells whoever asked.
    pub(super) async fn conclude_reload(&mut self, loaded: Loaded) {
        // As before a command: a new `rollout.id` begins with nothing that was counted before.
        self.tick();
        let outcome = match loaded.outcome {
            Ok(config) => self.put_in_force(config).await,
            Err(Unread::Problems(problems)) => {
                self.watcher.watch(problems.files.clone());
                Err(Refused::InvalidConfig(problems.to_string()))
            }
            Err(Unread::Failed(reason)) => Err(Refused::InvalidConfig(format!(
                "reading {} has failed: {reason}",
                self.reloads.path.display()
            ))),
        };
        match &outcome {
            Ok(_) => {
                self.last_reload = LastReload {
                    loaded_at: self.world.clock.now(),
                    problems: Vec::new(),
                };
            }
            Err(refused) => {
                self.last_reload.problems =
                    refused.to_string().lines().map(str::to_owned).collect();
                if matches!(refused, Refused::StoreFailed(_)) {
                    // The file will not change again, and the watcher has told of it already.
                    self.reloads.again = Some(Instant::now() + AGAIN);
                    self.remember();
                }
            }
        }
        let mut replies = Vec::new();
        for asker in loaded.askers {
            match (asker, &outcome) {
                (Asker::Event(cause), Ok(done)) => tracing::info!(cause, "{}", done.sentence),
                (Asker::Event(cause), Err(refused)) => tracing::error!(
                    cause,
                    "the configuration is refused and the old one stays in force: {refused}"
                ),
                (Asker::Operator(reply), Err(refused)) => {
                    let _ = reply.send(Err(refused.clone()));
                }
                (Asker::Operator(reply), Ok(_)) => replies.push(reply),
            }
        }
        if let Ok(done) = outcome {
            let warmed = self.warm_ups.settled();
            let done = done.after(async {
                warmed.await;
                Ok(())
            });
            done.tell(replies);
        }
    }

    async fn put_in_force(&mut self, config: Config) -> Result<Done, Refused> {
        self.watcher.watch(config.files.clone());
        let restart_only = self.world.config.restart_only_changes(&config);
        if !restart_only.is_empty() {
            return Err(Refused::InvalidConfig(format!(
                "{}: only a restart can change {}; put the old value back, or restart",
                self.reloads.path.display(),
                restart_only.join(", ")
            )));
        }
        let invalid = |reason: String| Refused::InvalidConfig(reason);
        let commit = (self.data_plane.certify)(&config).map_err(invalid)?;
        let plan = |controller: &Self, config: Config| {
            let plan = controller.world.plan(config);
            plan.map_err(|error| invalid(error.to_string()))
        };
        let mut planned = plan(self, config.clone())?;
        for problem in planned.warnings() {
            tracing::warn!(file = %self.reloads.path.display(), "{problem}");
        }
        let mut sentences = vec![format!("loaded {}", self.reloads.path.display())];
        for doubt in planned.doubts() {
            tracing::warn!(file = %self.reloads.path.display(), "{doubt}");
            sentences.push(doubt);
        }
        let is_promised = planned.rises;
        if is_promised {
            // What falls in the same file must not wait for the disk.
            let lowered = decisions(self.world.lower(&config));
            if !lowered.is_empty() {
                self.publish();
                sentences.push(announce(&lowered));
                self.keeper.save_in_passing(self.world.memory(), lowered);
                planned = plan(self, config)?;
            }
            let memory = planned.memory(self.world.emergency);
            let promised = decisions(planned.effects().iter().cloned());
            self.keeper.promise(memory, promised).await.map_err(|error| {
                Refused::StoreFailed(format!(
                    "a share would rise, but that could not be saved: {error}; what falls is in \
                     force, and the file is tried again"
                ))
            })?;
        }
        let effects = self.world.adopt(planned);
        commit();
        // The backends may be others now.
        self.warm_ups.keep(|_| false);
        self.publish();
        let is_changed = !effects.is_empty();
        let decided = decisions(effects);
        self.health.reconcile(&backends(&self.world));
        self.signals.reconcile(&self.world.config.splits);
        sentences.push(announce(&decided));
        sentences.retain(|sentence| !sentence.is_empty());
        let done = Done::new(sentences.join(": "));
        if is_promised || !is_changed {
            return Ok(done);
        }
        let saved = self.keeper.save(self.world.memory(), decided);
        Ok(done.after(saved))
    }
}

impl Loaded {
    #[cfg(test)]
    pub(super) fn of(config: Config) -> Self {
        Self {
            askers: Vec::new(),
            outcome: Ok(config),
        }
    }
}
