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
use crate::config::{self, Problems, certificate};
use crate::policy::time::Timestamp;

use super::command::{Outcome, Proviso};
use super::controller::{Controller, Done, backends, sentences};
use super::data_plane::Commit;
use super::operate::Scope;
use super::protocol::Refused;
use super::world::{Plan, decisions};

/// Operators who may wait for one reading. They type; more come from a script that goes wrong while
/// a disk hangs.
const OPERATORS: usize = 64;

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
    Operator(Proviso, oneshot::Sender<Result<Outcome, Refused>>),
}

/// The readings that were asked for, and the one under way.
#[derive(Debug)]
pub(super) struct Reloads {
    path: PathBuf,
    /// At most one event, and at most [`OPERATORS`].
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

    /// Asks for a reading that begins from now on, unless too many wait for it already.
    pub(super) fn ask(&mut self, asker: Asker) {
        self.waiting.retain(|waiting| !waiting.has_gone());
        let is_event = |asker: &Asker| matches!(asker, Asker::Event(_));
        match asker {
            // One reading tells of everything that has happened before it.
            Asker::Event(_) if self.waiting.iter().any(is_event) => {}
            Asker::Operator(_, reply)
                if self.waiting.iter().filter(|asker| !is_event(asker)).count() == OPERATORS =>
            {
                let path = self.path.display();
                let refused = format!(
                    "{OPERATORS} others wait for {path} to be read: wait until that has ended, or \
                     look at the disk on which it lies"
                );
                // Whoever asked may have gone.
                let _ = reply.send(Err(Refused::Precondition(refused)));
            }
            asker => self.waiting.push(asker),
        }
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
        self.catch_up();
        let outcome = loaded.outcome;
        let askers = self.sift(loaded.askers, &outcome);
        if askers.is_empty() {
            return;
        }
        let outcome = match outcome {
            Ok(config) => self.put_file_in_force(config).await,
            Err(Unread::Problems(problems)) => {
                self.watcher.watch(problems.files.clone());
                Err(Refused::InvalidConfig(problems.to_string()))
            }
            Err(Unread::Failed(reason)) => Err(self.unread(&reason)),
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
        for asker in askers {
            match (asker, &outcome) {
                (Asker::Event(cause), Ok(done)) => {
                    tracing::info!(cause, "{}", done.outcome.sentence);
                }
                (Asker::Event(cause), Err(refused)) => tracing::error!(
                    cause,
                    "the configuration is refused and the old one stays in force: {refused}"
                ),
                (Asker::Operator(_, reply), Err(refused)) => {
                    let _ = reply.send(Err(refused.clone()));
                }
                (Asker::Operator(_, reply), Ok(_)) => replies.push(reply),
            }
        }
        if let Ok(done) = outcome {
            let warmed = self.warm_ups.settled();
            let done = done.after(async {
                warmed.await;
                Ok(())
            });
            self.tell(done, replies);
        }
    }

    /// Answers those who do not want the file in force: because something was decided that they
    /// have not seen, or because they only rehearse. Returns the others.
    fn sift(&self, askers: Vec<Asker>, outcome: &Result<Config, Unread>) -> Vec<Asker> {
        let mut others = Vec::new();
        for asker in askers {
            match asker {
                Asker::Operator(proviso, reply) => match self.check(Scope::All, proviso) {
                    // Whoever asked may have gone.
                    Err(refused) => drop(reply.send(Err(refused))),
                    Ok(()) if proviso.dry_run => drop(reply.send(self.rehearse_reload(outcome))),
                    Ok(()) => others.push(Asker::Operator(proviso, reply)),
                },
                Asker::Event(cause) => others.push(Asker::Event(cause)),
            }
        }
        others
    }

    fn rehearse_reload(&self, outcome: &Result<Config, Unread>) -> Result<Outcome, Refused> {
        let config = match outcome {
            Ok(config) => config.clone(),
            Err(Unread::Problems(problems)) => {
                return Err(Refused::InvalidConfig(problems.to_string()));
            }
            Err(Unread::Failed(reason)) => return Err(self.unread(reason)),
        };
        let (planned, _) = self.prepare(config)?;
        let decisions = decisions(planned.effects().iter().cloned());
        let mut said: Vec<String> = planned.doubts().into_iter().collect();
        said.push(sentences(&decisions));
        let sentence = self.loaded(&said);
        let outcome = Outcome::of(&decisions, sentence, self.world.revision());
        Ok(outcome.rehearsed())
    }

    fn unread(&self, reason: &str) -> Refused {
        Refused::InvalidConfig(format!(
            "reading {} has failed: {reason}",
            self.reloads.path.display()
        ))
    }

    fn loaded(&self, decided: &[String]) -> String {
        let mut sentence = format!("loaded {}", self.reloads.path.display());
        for decided in decided.iter().filter(|decided| !decided.is_empty()) {
            sentence.push_str(": ");
            sentence.push_str(decided);
        }
        sentence
    }

    /// Works a configuration out without putting anything of it in force.
    fn prepare(&self, config: Config) -> Result<(Plan, Commit), Refused> {
        let restart_only = self.world.config.restart_only_changes(&config);
        if !restart_only.is_empty() {
            // A successor looks for its predecessor in the state directory.
            let way = match restart_only.iter().any(|key| key.starts_with("state")) {
                true => "a restart",
                false => "a restart or `cutover upgrade`",
            };
            return Err(Refused::InvalidConfig(format!(
                "{}: only {way} can change {}; put the old value back until then",
                self.reloads.path.display(),
                restart_only.join(", ")
            )));
        }
        let commit = (self.data_plane.prepare)(&config).map_err(Refused::InvalidConfig)?;
        Ok((self.plan(config)?, commit))
    }

    fn plan(&self, config: Config) -> Result<Plan, Refused> {
        let plan = self.world.plan(config);
        plan.map_err(|error| Refused::InvalidConfig(error.to_string()))
    }

    async fn put_file_in_force(&mut self, config: Config) -> Result<Done, Refused> {
        self.watcher.watch(config.files.clone());
        let (mut planned, commit) = self.prepare(config.clone())?;
        let ending = certificate::ending(&config, self.world.clock.now());
        for problem in planned.warnings().iter().chain(&ending) {
            tracing::warn!(file = %self.reloads.path.display(), "{problem}");
        }
        let mut said = Vec::new();
        let mut decided = Vec::new();
        for doubt in planned.doubts() {
            tracing::warn!(file = %self.reloads.path.display(), "{doubt}");
            said.push(doubt);
        }
        let is_promised = planned.rises;
        if is_promised {
            // What falls in the same file must not wait for the disk.
            let lowered = decisions(self.world.lower(&config));
            if !lowered.is_empty() {
                self.publish();
                said.push(self.announce(&lowered));
                decided.extend_from_slice(&lowered);
                self.keeper.save_in_passing(self.memory(), lowered);
                planned = self.plan(config)?;
            }
            // A step that is about to be taken must not be missing from what is saved after it.
            let memory = planned.memory(&self.world, self.advances.steps());
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
        let adopted = decisions(effects);
        self.health.reconcile(&backends(&self.world));
        self.signals.reconcile(&self.world.config.splits);
        said.push(self.announce(&adopted));
        self.forget_announced();
        decided.extend_from_slice(&adopted);
        let done = self.decided(Scope::All, &decided, self.loaded(&said));
        if is_promised || !is_changed {
            return Ok(done);
        }
        let saved = self.keeper.save(self.memory(), adopted);
        Ok(done.after(saved))
    }
}

impl Asker {
    /// Whether nobody waits for the answer any more.
    fn has_gone(&self) -> bool {
        matches!(self, Asker::Operator(_, reply) if reply.is_closed())
    }
}

impl Loaded {
    #[cfg(test)]
    pub(super) fn of(config: Config) -> Self {
        Self {
            askers: vec![Asker::Event("a test has changed the file")],
            outcome: Ok(config),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_a_file_hangs_one_event_and_a_bounded_number_of_operators_wait() {
        let mut reloads = Reloads::new(PathBuf::from("cutover.yaml"));
        let mut ask = |asker| {
            reloads.ask(asker);
            reloads.waiting.len()
        };
        for _ in 0..3 {
            assert_eq!(ask(Asker::Event("SIGHUP")), 1);
        }
        let mut answers = Vec::new();
        let mut operator = || {
            let (reply, answer) = oneshot::channel();
            answers.push(answer);
            Asker::Operator(Proviso::default(), reply)
        };
        for number in 1..=OPERATORS {
            assert_eq!(ask(operator()), 1 + number);
        }
        assert_eq!(ask(operator()), 1 + OPERATORS, "one too many");
        let refused = answers.pop().and_then(|mut answer| answer.try_recv().ok());
        let refused = refused.expect("an answer at once").expect_err("no place");
        assert!(refused.to_string().contains("cutover.yaml"), "{refused}");
        // Those who have gone make room.
        answers.truncate(1);
        let (reply, _answer) = oneshot::channel();
        assert_eq!(ask(Asker::Operator(Proviso::default(), reply)), 3);
    }
}
