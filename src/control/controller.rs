//! The loop of the control plane: one event, handled whole, then the next.
//!
//! Everything that changes, changes here, so there is never a question of who wins. What raises a
//! share is on the disk before the data plane hears of it; what lowers one, or nothing, is in force
//! at once and never refused for the disk's sake. Which of the two it is, the standings before and
//! after say. Either way a decision and what it led to reach the disk in one step, and whoever asked
//! for it is told so only then.
//!
//! The mistake to avoid is a judge that waits. Only a rising share does, and not for long: answers
//! wait in tasks of their own, files are read on another thread, and connections are opened beside
//! the loop.

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;
use tokio::time::{MissedTickBehavior, interval};

use crate::handover::CONFIRM;
use crate::handover::predecessor::{Obedience, Unconfirmed};
use crate::policy::address_key::TypedKey;
use crate::policy::assign::{Explanation, Question, explain};
use crate::policy::key::Salt;
use crate::policy::rollout::{Decision, Effect};
use crate::policy::share::Share;
use crate::snapshot::Published;
use crate::telemetry::metrics::Metrics;
use crate::upstream::backend::Backend;
use crate::upstream::health::HealthChecks;

use super::advance::Advances;
use super::announced::Announced;
use super::command::Outcome;
use super::data_plane::DataPlane;
use super::keeper::{Keeper, Memory, NotKept};
use super::protocol::{Message, Refused, no_such_split};
use super::reload::{Asker, LastReload, Reloads};
use super::report;
use super::signals::Signals;
use super::succession::Charge;
use super::warm_up::WarmUps;
use super::watch::Watcher;
use super::world::{TICK, World, decisions};

/// Time between two savings of the evidence: what a kill -9 may cost.
const SAVE: Duration = Duration::from_secs(5);
/// The same for splits where nothing happens and nothing ripens: what has only grown older.
const SAVE_ALL: Duration = Duration::from_secs(60);
/// Time between two tidyings of what the edge remembers of clients.
const SWEEP: Duration = Duration::from_secs(1);

/// The single writer.
#[derive(Debug)]
pub struct Controller {
    pub(super) world: World,
    published: Published,
    pub(super) data_plane: DataPlane,
    pub(super) keeper: Keeper,
    pub(super) reloads: Reloads,
    pub(super) watcher: Watcher,
    pub(super) warm_ups: WarmUps,
    pub(super) advances: Advances,
    pub(super) signals: Signals,
    announced: Announced,
    pub(super) health: HealthChecks,
    metrics: Metrics,
    pub(super) last_reload: LastReload,
    pub(super) charge: Charge,
    /// The process that was relieved by this one, while it obeys what is published.
    pub(super) old: Option<Obedience>,
}

/// What was carried out, and what its answer waits for.
pub(super) struct Done {
    pub(super) outcome: Outcome,
    settled: Pin<Box<dyn Future<Output = Result<(), NotKept>>>>,
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
        let mut signals = Signals::default();
        signals.reconcile(&world.config.splits);
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
            reloads: Reloads::new(path),
            warm_ups: WarmUps::default(),
            advances: Advances::default(),
            announced: Announced::default(),
            signals,
            charge: Charge::default(),
            old: None,
        }
    }

    /// Carries out what was decided while the world was made, such as a latch that a new
    /// `rollout.id` has cleared. The first snapshot shows it already.
    pub async fn settle(&mut self, effects: Vec<Effect>) {
        if effects.is_empty() {
            return;
        }
        let decisions = decisions(effects);
        self.announce(&decisions);
        if let Err(error) = self.keeper.save(self.memory(), decisions).await {
            tracing::error!(%error, "the state at the start is not saved");
        }
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
        let mut saves_of_all = interval(SAVE_ALL);
        saves_of_all.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // Harm first: a flood of questions must not delay the judge.
                biased;
                _ = &mut stop => break,
                _ = ticks.tick() => self.tick(),
                () = self.advances.next(), if self.charge.is_held() => self.conclude_advances(),
                (split, signal, reading) = self.signals.next() => {
                    self.world.take_signal(&split, signal, reading);
                }
                split = self.warm_ups.next_end() => self.publish_warmed(&split),
                Some(message) = messages.recv() => self.answer(message).await,
                () = self.watcher.changed() => {
                    self.reloads.ask(Asker::Event("the file has changed"));
                }
                Some(()) = hangup.recv() => self.reloads.ask(Asker::Event("SIGHUP")),
                // What is read while another process may be in charge waits for who is.
                loaded = self.reloads.next(), if self.charge.is_held() => {
                    self.conclude_reload(loaded).await;
                }
                _ = sweeps.tick() => self.sweep(),
                _ = saves.tick(), if self.charge.is_held() => {
                    if let Err(error) = self.keeper.reopen() {
                        tracing::error!(%error, "nothing can be saved yet; trying on");
                    }
                    self.remember_what_stirred();
                }
                _ = saves_of_all.tick(), if self.charge.is_held() => self.remember(),
            }
        }
        if !self.charge.is_held() {
            return Ok(());
        }
        match self.keeper.save(self.memory(), Vec::new()).await {
            Ok(()) => self.keeper.finish().await,
            Err(error) => tracing::error!(%error, "the last state is not saved"),
        }
        Ok(())
    }

    /// Forgets what need no longer be remembered of clients.
    fn sweep(&self) {
        (self.data_plane.sweep_edge)();
        let now = self.world.clock.uptime();
        let routes = self.world.routing.routes.iter();
        for limits in routes.filter_map(|route| route.limits.as_ref()) {
            limits.sweep(now);
        }
    }

    /// Has everything judged up to this moment, as before whatever else changes a rollout: time that
    /// has passed belongs to what held until now.
    pub(super) fn catch_up(&mut self) {
        self.world.wake();
        self.tick();
    }

    /// Lets everything be judged that was counted since the last time.
    pub(super) fn tick(&mut self) {
        if !self.charge.is_held() {
            return self.world.refill();
        }
        self.look();
        self.begin_advances();
        self.end_old_denials();
    }

    /// Judges what was counted since the last time.
    pub(super) fn look(&mut self) {
        let effects = self.world.observe();
        if effects.is_empty() {
            return;
        }
        // What a window decides only ever lowers a share: publish, then persist.
        if effects
            .iter()
            .any(|effect| matches!(effect, Effect::Publish(_)))
        {
            self.publish();
        }
        let decisions = decisions(effects);
        self.announce(&decisions);
        self.keeper.save_in_passing(self.memory(), decisions);
    }

    /// Has the steps saved that plans are ready for.
    fn begin_advances(&mut self) {
        let wishes = self.world.wishes();
        let ready: Vec<String> = wishes
            .filter(|split| self.advances.has_room_for(split))
            .map(str::to_owned)
            .collect();
        for split in ready {
            let Some(decision) = self.world.promise_advance(&split) else {
                continue;
            };
            let memory = self.world.memory(self.advances.steps().chain([&decision]));
            let kept = self.keeper.promise(memory, vec![decision.clone()]);
            self.advances.begin(decision, kept);
        }
    }

    /// Takes the steps that are on the disk, unless something has been decided against them
    /// meanwhile.
    pub(super) fn conclude_advances(&mut self) {
        // What was counted until now belongs to the stage that ends.
        self.look();
        while let Some((decision, kept)) = self.advances.take() {
            let split = &*decision.split;
            if let Err(error) = kept {
                if self.advances.fail() {
                    tracing::error!(split, %error, "an advance is not saved, and not made");
                }
                // The disk may yet write it, late.
                self.remember();
                continue;
            }
            match self.world.advance(&decision) {
                Ok(()) => {
                    self.advances.succeed();
                    self.publish();
                    self.announce(&[decision]);
                }
                Err(because) => {
                    self.advances.wait_a_moment();
                    let withdrawn = self.world.withdraw_advance(decision, &because);
                    let withdrawn = Vec::from_iter(withdrawn);
                    self.announce(&withdrawn);
                    self.keeper.save_in_passing(self.memory(), withdrawn);
                }
            }
        }
    }

    /// Everything that a restart needs, with the steps that are about to be taken.
    pub(super) fn memory(&self) -> Memory {
        self.world.memory(self.advances.steps())
    }

    /// Has everything saved, after what was sent to be saved before. The keeper tells of a failure.
    pub(super) fn remember(&self) {
        self.keeper.save_in_passing(self.memory(), Vec::new());
    }

    /// Has that saved in which more has changed than the time; everything, if anything that was to be
    /// saved has not reached the keeper.
    fn remember_what_stirred(&mut self) {
        if self.keeper.has_missed_something() {
            return self.remember();
        }
        let memory = self.world.memory_of_stirred(self.advances.steps());
        self.keeper.save_in_passing(memory, Vec::new());
    }

    async fn answer(&mut self, message: Message) {
        // Whoever asked may have gone; the answers are dropped then.
        match message {
            Message::Split { split, reply } => {
                let found = self.find(&split);
                let _ = reply.send(found.map(|index| report::split(&self.world, index)));
            }
            Message::Status { reply } => {
                let _ = reply.send(report::status(
                    &self.world,
                    &self.keeper,
                    self.reloads.path(),
                    &self.last_reload,
                ));
            }
            Message::Metrics { reply } => {
                let _ = reply.send(report::metrics(
                    &self.metrics,
                    &self.world,
                    &self.keeper,
                    &self.announced,
                    &self.data_plane,
                    &self.last_reload,
                ));
            }
            Message::Denied { reply } => {
                let _ = reply.send(self.denied());
            }
            Message::History { query, reply } => self.tell_history(query, reply),
            Message::State { reply } => self.tell_state(reply),
            Message::Explain { split, key, reply } => {
                let _ = reply.send(self.explain(&split, &key));
            }
            Message::Recording { split, reply } => {
                let found = self.find(&split);
                let _ = reply.send(found.and_then(|_| self.world.recorder.export(&split)));
            }
            Message::Command { order, reply } => self.carry_out(order, reply).await,
            Message::Release { reply } => {
                let _ = reply.send(self.release().await);
            }
            Message::Resume { reply } => {
                let _ = reply.send(self.resume().await);
            }
            Message::Obey { restraint, reply } => {
                let obeyed = self.obey(restraint);
                spawn_local(async {
                    let _ = reply.send(obeyed.await);
                });
            }
        }
    }

    fn explain(&self, split: &str, key: &str) -> Result<Explanation, Refused> {
        let index = self.find(split)?;
        let settings = &self.world.config.splits[index];
        let key = TypedKey::new(key, settings.addresses());
        let standing = self.world.splits[index].rollout.standing();
        Ok(explain(Question {
            split,
            salt: Salt::new(&settings.salt),
            key,
            pinned: settings.pinned(&key),
            share: standing.share,
            emergency: standing.emergency,
        }))
    }

    /// Publishes; but a share that rises from nothing begins with a closed breaker, and takes
    /// effect only when the connections that its backend wants beforehand are open.
    pub(super) fn publish(&mut self) {
        self.publish_but_for(None);
    }

    /// Publishes what waited for this split's connections.
    fn publish_warmed(&mut self, split: &str) {
        self.publish_but_for(Some(split));
    }

    fn publish_but_for(&mut self, warmed: Option<&str>) {
        let mut snapshot = self.world.snapshot();
        self.charge.hold(&mut snapshot);
        let rising = World::rising_splits(&self.published.load(), &snapshot);
        let routing = Arc::clone(&snapshot.routing);
        let mut cold = Vec::new();
        for split in rising {
            let plan = routing.split(split);
            if warmed == Some(&*plan.name) {
                continue;
            }
            let waits = self.warm_ups.is_running(&plan.name);
            if let Some(breaker) = plan.breaker.as_ref().filter(|_| !waits) {
                breaker.reset();
            }
            if self.world.is_warmed(split) {
                snapshot.standings[usize::from(split.0)].share = Share::ZERO;
                cold.push(plan);
            }
        }
        // The workers find the backends by this snapshot.
        self.published.store(Arc::new(snapshot));
        if let Some(old) = &self.old {
            old.look();
        }
        self.warm_ups
            .keep(|split| cold.iter().any(|plan| plan.name == split));
        for plan in cold {
            if !self.warm_ups.is_running(&plan.name) {
                let warmed = (self.data_plane.warm)(plan.arms.new);
                self.warm_ups.begin(&plan.name, warmed);
            }
        }
    }

    /// Tells the log and the counters; returns the decisions' sentences. The audit learns of them
    /// with what they led to.
    pub(super) fn announce(&mut self, decisions: &[Decision]) -> String {
        for decision in decisions {
            log(decision);
            self.announced.count(decision);
        }
        sentences(decisions)
    }

    /// Answers when what was done is saved, and obeyed by the old process too if there is one.
    pub(super) fn tell(&self, done: Done, replies: Vec<oneshot::Sender<Result<Outcome, Refused>>>) {
        let obeyed = self.obeyed(CONFIRM);
        done.tell(obeyed, replies);
    }

    /// Forgets what was announced of splits that left the configuration.
    pub(super) fn forget_announced(&mut self) {
        let world = &self.world;
        self.announced.keep(|split| world.split(split).is_some());
    }

    pub(super) fn find(&self, split: &str) -> Result<usize, Refused> {
        self.world.split(split).ok_or_else(|| {
            let names = self.world.config.splits.iter();
            let names = names.map(|split| split.name.as_str());
            Refused::NoSuchSplit(no_such_split(split, names))
        })
    }
}

impl Done {
    /// Carried out; the answer waits for nothing.
    pub(super) fn new(outcome: Outcome) -> Self {
        Self {
            outcome,
            settled: Box::pin(std::future::ready(Ok(()))),
        }
    }

    /// Carried out; but the answer waits, as the promise that it is.
    pub(super) fn after(
        self,
        settled: impl Future<Output = Result<(), NotKept>> + 'static,
    ) -> Self {
        let earlier = self.settled;
        Self {
            outcome: self.outcome,
            settled: Box::pin(async {
                earlier.await?;
                settled.await
            }),
        }
    }

    /// Answers in time, without keeping the judge. Whoever asked may have gone.
    fn tell(
        self,
        obeyed: impl Future<Output = Result<(), Unconfirmed>> + 'static,
        replies: Vec<oneshot::Sender<Result<Outcome, Refused>>>,
    ) {
        spawn_local(async move {
            let mut outcome = self.outcome;
            let (kept, obeyed) = tokio::join!(self.settled, async {
                match outcome.dry_run {
                    true => Ok(()),
                    false => obeyed.await,
                }
            });
            if let Err(error) = kept {
                let forgotten = "\nThis is in force, but a restart may forget it: ";
                outcome.sentence.push_str(forgotten);
                outcome.sentence.push_str(&error.to_string());
            }
            if let Err(error) = obeyed {
                tracing::warn!("{error}");
                outcome
                    .sentence
                    .push_str("\nThis is in force in this process, but ");
                outcome.sentence.push_str(&error.to_string());
                outcome.sentence.push('.');
            }
            for reply in replies {
                let _ = reply.send(Ok(outcome.clone()));
            }
        });
    }
}

pub(super) fn backends(world: &World) -> Vec<Arc<Backend>> {
    let plans = world.routing.backends.iter();
    plans.map(|plan| Arc::clone(&plan.backend)).collect()
}

/// What decisions say, a line each.
pub(super) fn sentences(decisions: &[Decision]) -> String {
    let sentences = decisions.iter().map(|decision| decision.sentence.as_str());
    sentences.collect::<Vec<_>>().join("\n")
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
