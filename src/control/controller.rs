//! The loop of the control plane: one event, handled whole, then the next.
//!
//! Everything that changes, changes here, so there is never a question of who wins. The order of
//! effects is the rollouts': what raises a share is on the disk before the data plane hears of it,
//! what lowers one is heard first.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};

use crate::config;
use crate::policy::assign::{Explanation, Question, explain};
use crate::policy::key::Salt;
use crate::policy::rollout::{By, Decision, Effect, Event};
use crate::policy::share::Share;
use crate::policy::time::Timestamp;
use crate::snapshot::{Published, Snapshot};
use crate::telemetry::metrics::Metrics;
use crate::upstream::backend::Backend;
use crate::upstream::health::HealthChecks;

use super::data_plane::DataPlane;
use super::keeper::Keeper;
use super::protocol::{Author, Command, Message, Refused};
use super::report;
use super::watch::Watcher;
use super::world::{TICK, World};

/// Time between two savings of the evidence: what a kill -9 may cost.
const SAVE: Duration = Duration::from_secs(5);
/// Time between two tidyings of what the edge remembers of clients.
const SWEEP: Duration = Duration::from_secs(1);

/// What became of the last reading of the configuration file.
#[derive(Clone, Debug)]
pub struct LastReload {
    /// When the configuration in force was loaded.
    pub loaded_at: Timestamp,
    /// Why the last reading was refused; empty if it was not.
    pub problems: Vec<String>,
}

/// The single writer.
#[derive(Debug)]
pub struct Controller {
    world: World,
    published: Published,
    data_plane: DataPlane,
    keeper: Keeper,
    path: PathBuf,
    watcher: Watcher,
    health: HealthChecks,
    metrics: Metrics,
    last_reload: LastReload,
}

impl Controller {
    /// Makes the first snapshot of a world. Workers start from it.
    pub fn first_snapshot(world: &mut World) -> Published {
        Arc::new(ArcSwap::from_pointee(world.snapshot()))
    }

    /// Takes charge. `published` is the world's first snapshot, `path` its configuration file,
    /// and `watcher` has watched that since before it was read.
    pub fn new(
        world: World,
        published: Published,
        data_plane: DataPlane,
        keeper: Keeper,
        path: PathBuf,
        mut watcher: Watcher,
    ) -> Self {
        watcher.watch(world.config.files.clone());
        let now = world.clock.now();
        let mut health = HealthChecks::default();
        health.reconcile(&backends(&world));
        Self {
            watcher,
            health,
            metrics: Metrics::new(now),
            last_reload: LastReload {
                loaded_at: now,
                problems: Vec::new(),
            },
            world,
            published,
            data_plane,
            keeper,
            path,
        }
    }

    /// Carries out what was decided while the world was made, such as a latch that a new
    /// `rollout.id` has cleared. The first snapshot shows it already.
    pub async fn settle(&mut self, effects: Vec<Effect>) {
        if effects.is_empty() {
            return;
        }
        if let Err(error) = self.keeper.save(self.world.memory()).await {
            tracing::error!(%error, "the state at the start is not saved");
        }
        self.announce(effects);
    }

    /// Handles events until `stop` resolves; then saves what is known.
    ///
    /// # Errors
    /// Those of installing the signal handler.
    pub async fn run(
        mut self,
        mut messages: mpsc::Receiver<Message>,
        mut stop: oneshot::Receiver<()>,
    ) -> std::io::Result<()> {
        let mut hangup: Signal = signal(SignalKind::hangup())?;
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sweeps = interval(SWEEP);
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut saves = interval(SAVE);
        saves.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // Harm first: a flood of questions must not delay the judge.
                biased;
                _ = &mut stop => break,
                _ = ticks.tick() => self.tick().await,
                Some(message) = messages.recv() => self.answer(message).await,
                () = self.watcher.changed() => self.reload_and_log("the file has changed").await,
                Some(()) = hangup.recv() => self.reload_and_log("SIGHUP").await,
                _ = sweeps.tick() => (self.data_plane.sweep_edge)(),
                _ = saves.tick() => self.keeper.save_evidence(self.world.memory()),
            }
        }
        if let Err(error) = self.keeper.save(self.world.memory()).await {
            tracing::error!(%error, "the last state is not saved");
        }
        self.keeper.finish();
        Ok(())
    }

    async fn tick(&mut self) {
        let effects = self.world.observe();
        if effects.is_empty() {
            return;
        }
        // An engine's decision only ever lowers a share: publish, then persist.
        if effects
            .iter()
            .any(|effect| matches!(effect, Effect::Publish(_)))
        {
            self.publish();
        }
        if let Err(error) = self.keeper.save(self.world.memory()).await {
            tracing::error!(%error, "a decision is in force but not saved");
        }
        self.announce(effects);
    }

    async fn answer(&mut self, message: Message) {
        // Whoever asked may have gone; the answers are dropped then.
        match message {
            Message::Status { reply } => {
                let _ = reply.send(report::status(
                    &self.world,
                    &self.keeper,
                    &self.path,
                    &self.last_reload,
                ));
            }
            Message::Metrics { reply } => {
                let _ = reply.send(report::metrics(
                    &self.metrics,
                    &self.world,
                    &self.keeper,
                    &self.data_plane,
                    &self.last_reload,
                ));
            }
            Message::Explain { split, key, reply } => {
                let _ = reply.send(self.explain(&split, &key));
            }
            Message::Command {
                command,
                author,
                reply,
            } => {
                let answer = self.carry_out(command, author).await;
                let _ = reply.send(answer);
            }
        }
    }

    fn explain(&self, split: &str, key: &str) -> Result<Explanation, Refused> {
        let index = self.find(split)?;
        let settings = &self.world.config.splits[index];
        let standing = self.world.splits[index].rollout.standing();
        Ok(explain(Question {
            split,
            salt: Salt::new(&settings.salt),
            key,
            pinned: settings.pins.get(key).copied(),
            share: standing.share,
            emergency: standing.emergency,
        }))
    }

    async fn carry_out(&mut self, command: Command, author: Author) -> Result<String, Refused> {
        let by = By {
            actor: author.actor,
            reason: author.reason,
        };
        match command {
            Command::Reload => self.reload().await,
            Command::Set {
                split,
                share,
                override_file,
            } => {
                let index = self.find(&split)?;
                let event = Event::Set {
                    share,
                    override_file,
                    by,
                };
                self.decide(&[index], &event).await
            }
            Command::Rollback { split } => {
                let index = self.find(&split)?;
                self.decide(&[index], &Event::Rollback { by }).await
            }
            Command::Resume { split } => {
                let index = self.find(&split)?;
                self.decide(&[index], &Event::Resume { by }).await
            }
            Command::Emergency {
                split: Some(split),
                clear,
            } => {
                let index = self.find(&split)?;
                if clear && self.world.emergency {
                    return Err(Refused::Precondition(
                        "the emergency covers all splits and ends for all of them: clear it \
                         without naming one"
                            .to_owned(),
                    ));
                }
                let active = !clear;
                self.decide(&[index], &Event::Emergency { active, by })
                    .await
            }
            Command::Emergency { split: None, clear } => {
                let active = !clear;
                // Clearing concerns those under an emergency; for the others nothing happens.
                let concerned = self.world.splits.iter().enumerate();
                let concerned: Vec<usize> = concerned
                    .filter(|(_, state)| active || state.rollout.standing().emergency)
                    .map(|(index, _)| index)
                    .collect();
                if !active && concerned.is_empty() && !self.world.emergency {
                    return Ok("no emergency is declared".to_owned());
                }
                let before = std::mem::replace(&mut self.world.emergency, active);
                let event = Event::Emergency { active, by };
                let decided = self.decide(&concerned, &event).await;
                if decided.is_err() {
                    self.world.emergency = before;
                }
                decided
            }
        }
    }

    /// Gives an operator's wish to the rollouts it concerns, and carries out what they decide.
    async fn decide(&mut self, splits: &[usize], event: &Event) -> Result<String, Refused> {
        let now = self.world.clock.now();
        let before = self.world.splits.clone();
        let mut effects = Vec::new();
        for index in splits {
            let rollout = &mut self.world.splits[*index].rollout;
            match rollout.handle(event.clone(), now) {
                Ok(wanted) => effects.extend(wanted),
                Err(refusal) => {
                    self.world.splits = before;
                    return Err(Refused::Precondition(refusal.message));
                }
            }
        }
        if is_persisted_first(&effects) {
            if let Err(error) = self.keeper.save(self.world.memory()).await {
                self.world.splits = before;
                return Err(Refused::StoreFailed(format!(
                    "nothing changed, because it could not be saved: {error}"
                )));
            }
            self.warm_and_publish().await;
        } else {
            self.publish();
            if let Err(error) = self.keeper.save(self.world.memory()).await {
                tracing::error!(%error, "a decision is in force but not saved");
            }
        }
        Ok(self.announce(effects))
    }

    async fn reload_and_log(&mut self, cause: &str) {
        match self.reload().await {
            Ok(sentence) => tracing::info!(cause, "{sentence}"),
            Err(refused) => tracing::error!(
                cause,
                "the configuration is refused and the old one stays in force: {refused}"
            ),
        }
    }

    async fn reload(&mut self) -> Result<String, Refused> {
        let outcome = self.try_reload().await;
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
            }
        }
        outcome
    }

    async fn try_reload(&mut self) -> Result<String, Refused> {
        let config = match config::load(&self.path) {
            Ok(config) => config,
            Err(problems) => {
                self.watcher.watch(problems.files.clone());
                return Err(Refused::InvalidConfig(problems.to_string()));
            }
        };
        self.watcher.watch(config.files.clone());
        let restart_only = self.world.config.restart_only_changes(&config);
        if !restart_only.is_empty() {
            return Err(Refused::InvalidConfig(format!(
                "{}: only a restart can change {}; put the old value back, or restart",
                self.path.display(),
                restart_only.join(", ")
            )));
        }
        let invalid = |reason: String| Refused::InvalidConfig(reason);
        let commit = (self.data_plane.certify)(&config).map_err(invalid)?;
        let plan = self
            .world
            .plan(config)
            .map_err(|error| invalid(error.to_string()))?;
        for problem in plan.warnings() {
            tracing::warn!(file = %self.path.display(), "{problem}");
        }
        let persist_first = is_persisted_first(&plan.effects);
        if persist_first
            && let Err(error) = self.keeper.save(plan.memory(self.world.emergency)).await
        {
            return Err(Refused::StoreFailed(format!(
                "a share would rise, but that could not be saved: {error}"
            )));
        }
        let effects = self.world.adopt(plan);
        commit();
        self.warm_and_publish().await;
        if !persist_first
            && !effects.is_empty()
            && let Err(error) = self.keeper.save(self.world.memory()).await
        {
            tracing::error!(%error, "a decision is in force but not saved");
        }
        self.health.reconcile(&backends(&self.world));
        let mut sentence = format!("loaded {}", self.path.display());
        if !effects.is_empty() {
            sentence.push_str(": ");
            sentence.push_str(&self.announce(effects));
        }
        Ok(sentence)
    }

    fn publish(&mut self) {
        let snapshot = self.world.snapshot();
        self.published.store(Arc::new(snapshot));
    }

    /// Publishes; but a share that rises from nothing begins with a closed breaker, and takes
    /// effect only when the connections that its backend wants beforehand are open.
    async fn warm_and_publish(&mut self) {
        let before = self.published.load_full();
        let mut cold = self.world.rising_splits(&before);
        for split in &cold {
            if let Some(breaker) = &self.world.routing.split(*split).breaker {
                breaker.reset();
            }
        }
        cold.retain(|split| self.world.is_warmed(*split));
        if !cold.is_empty() {
            let mut interim: Snapshot = self.world.snapshot();
            for split in &cold {
                interim.standings[usize::from(split.0)].share = Share::ZERO;
            }
            self.published.store(Arc::new(interim));
            for split in cold {
                let backend = self.world.routing.split(split).arms.new;
                (self.data_plane.warm)(backend).await;
            }
        }
        self.publish();
    }

    /// Tells log and audit; returns the decisions' sentences.
    fn announce(&self, effects: Vec<Effect>) -> String {
        let mut sentences = Vec::new();
        for effect in effects {
            if let Effect::Announce(decision) = effect {
                log(&decision);
                sentences.push(decision.sentence.clone());
                self.keeper.audit(decision);
            }
        }
        sentences.join("\n")
    }

    fn find(&self, split: &str) -> Result<usize, Refused> {
        self.world.split(split).ok_or_else(|| {
            let names = self.world.config.splits.iter();
            let names: Vec<&str> = names.map(|split| split.name.as_str()).collect();
            Refused::NoSuchSplit(match names.as_slice() {
                [] => format!("no split `{split}`: the configuration has none"),
                names => format!("no split `{split}`; the splits are: {}", names.join(", ")),
            })
        })
    }
}

fn backends(world: &World) -> Vec<Arc<Backend>> {
    let plans = world.routing.backends.iter();
    plans.map(|plan| Arc::clone(&plan.backend)).collect()
}

/// Whether the rollouts want to be saved before the data plane hears of it: a share rises.
fn is_persisted_first(effects: &[Effect]) -> bool {
    let mut wanted = effects
        .iter()
        .filter(|effect| !matches!(effect, Effect::Announce(_)));
    // Where several splits speak, one that rises is enough to wait for the disk.
    let mut previous_is_publish = false;
    wanted.any(|effect| {
        let rises = matches!(effect, Effect::Persist) && !previous_is_publish;
        previous_is_publish = matches!(effect, Effect::Publish(_));
        rises
    })
}

fn log(decision: &Decision) {
    // One field that programs can read, instead of a tree that only people could.
    let conditions = serde_json::to_string(&decision.conditions).unwrap_or_default();
    tracing::info!(
        split = %decision.split,
        action = %decision.action,
        actor = %decision.actor,
        reason = %decision.reason,
        from = %decision.from,
        to = %decision.to,
        %conditions,
        "{}",
        decision.sentence
    );
}
