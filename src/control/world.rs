//! All that the control plane knows: the configuration in force, and each split's rollout.
//!
//! A change of the configuration is planned completely before anything of it is put in force, so a
//! plan that cannot be carried out leaves no trace.

mod access;
mod attention;
mod split;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::config::Problem;
use crate::config::model::{self, Config, SplitId};
use crate::policy::addresses::AddressRules;
use crate::policy::arm::PerArm;
use crate::policy::denials::Denials;
use crate::policy::rollout::{
    By, Decision, Effect, Event, Phase, Record, Rollout, Standing, Terms,
};
use crate::policy::share::Share;
use crate::policy::signal::Reading;
use crate::policy::time::Timestamp;
use crate::snapshot::registry::{BuildError, Registry};
use crate::snapshot::{Routing, Snapshot};
use crate::state::Saved;

use self::attention::Circumstances;
pub use self::split::SplitState;
use super::keeper::Memory;
use super::recorder::Recorder;

/// Time between two looks at the counters.
pub const TICK: Duration = Duration::from_millis(100);

/// All that the control plane knows.
#[derive(Debug)]
pub struct World {
    /// The process's clock.
    pub clock: Clock,
    /// The configuration in force.
    pub config: Config,
    /// What it was made into.
    pub routing: Arc<Routing>,
    /// Indexed by [`SplitId`].
    pub splits: Vec<SplitState>,
    /// Whether an emergency covers all splits.
    pub emergency: bool,
    /// What is being recorded of the splits.
    pub recorder: Recorder,
    denials: Arc<Denials>,
    /// How many were in the store beyond what may be.
    denials_dropped: u64,
    /// Kept apart, because it is asked for ten times a second.
    next_end_of_denial: Option<Timestamp>,
    /// Who may come in, by the file's lists and by the denials.
    access: Arc<AddressRules>,
    registry: Registry,
    generation: u64,
    /// Records of splits that the configuration no longer names: a split that returns must not
    /// have forgotten that it was rolled back.
    absent: BTreeMap<String, Record>,
}

/// A change of configuration, worked out but not in force.
#[derive(Debug)]
pub struct Plan {
    config: Config,
    routing: Arc<Routing>,
    splits: Vec<SplitState>,
    registry: Registry,
    absent: BTreeMap<String, Record>,
    effects: Vec<Effect>,
    /// Whether more may reach the new arm of any split.
    pub rises: bool,
}

/// What obeys nothing yet is as good as nothing.
const NOTHING: Standing = Standing {
    share: Share::ZERO,
    emergency: false,
};

impl World {
    /// The world at the start: a configuration, and what an earlier process left behind.
    ///
    /// # Errors
    /// [`BuildError`] where the configuration cannot be put in force.
    pub fn new(
        clock: Clock,
        config: Config,
        saved: Saved,
    ) -> Result<(Self, Vec<Effect>), BuildError> {
        if saved.denials_dropped > 0 {
            tracing::warn!(
                dropped = saved.denials_dropped,
                "the store holds more denied networks than the {} that may be; the oldest are let \
                 in again: list them in `edge.deny_file`",
                Denials::MAX
            );
        }
        let mut registry = Registry::new(config.process.workers);
        let routing = Arc::new(registry.build(&config)?);
        let mut world = Self {
            clock,
            routing: Arc::clone(&routing),
            splits: Vec::new(),
            emergency: saved.emergency,
            recorder: Recorder::default(),
            next_end_of_denial: saved.denials.next_end(),
            denials: Arc::new(saved.denials),
            denials_dropped: saved.denials_dropped,
            access: Arc::default(),
            registry,
            generation: 0,
            absent: saved.rollouts,
            config,
        };
        let config = world.config.clone();
        let plan = world.plan(config)?;
        let effects = world.adopt(plan);
        Ok((world, effects))
    }

    /// Works out what `config` would change.
    ///
    /// # Errors
    /// [`BuildError`] where it cannot be put in force.
    pub fn plan(&self, config: Config) -> Result<Plan, BuildError> {
        let mut registry = self.registry.clone();
        let routing = Arc::new(registry.build(&config)?);
        let mut absent = self.absent.clone();
        for state in &self.splits {
            absent.insert(state.rollout.split().to_owned(), state.rollout.record());
        }
        let now = self.clock.now();
        let mut effects = Vec::new();
        let mut rises = false;
        let mut splits = Vec::with_capacity(config.splits.len());
        for (index, settings) in config.splits.iter().enumerate() {
            let tally = &routing.splits[index].tally;
            absent.remove(&settings.name);
            let present = self.split(&settings.name).map(|index| &self.splits[index]);
            let (rollout, wanted) = match present {
                Some(state) => configured(&state.rollout, terms(&config, settings), now),
                None => self.begin(&settings.name, terms(&config, settings), now),
            };
            effects.extend(wanted);
            let before = present.map_or(NOTHING, |state| state.rollout.standing());
            rises |= rollout.standing().exceeds(before);
            let same_tally = present.filter(|state| Arc::ptr_eq(&state.tally, tally));
            splits.push(match same_tally {
                Some(state) => state.with(rollout),
                None => SplitState::new(rollout, tally, present, self.clock.elapsed()),
            });
        }
        Ok(Plan {
            config,
            routing,
            splits,
            registry,
            absent,
            effects,
            rises,
        })
    }

    /// Puts only that in force of `config` which takes share from a new arm. Returns what the
    /// rollouts concerned want done; planned afterwards, the same configuration wants it no more.
    pub fn lower(&mut self, config: &Config) -> Vec<Effect> {
        let now = self.clock.now();
        let mut effects = Vec::new();
        for settings in &config.splits {
            let Some(index) = self.split(&settings.name) else {
                continue;
            };
            let state = &mut self.splits[index];
            // The shares alone: all else of the file may yet be refused.
            let criteria = state.rollout.judge().criteria();
            let terms = Terms {
                course: settings.course.judged_by(criteria),
                ..state.rollout.terms().clone()
            };
            let mut rollout = state.rollout.clone();
            let wanted = rollout.handle(Event::Configured(Box::new(terms)), now);
            if state.rollout.standing().exceeds(rollout.standing()) {
                state.rollout = rollout;
                effects.extend(wanted.unwrap_or_default());
            }
        }
        effects
    }

    /// Puts a plan in force; returns what its rollouts want done.
    pub fn adopt(&mut self, plan: Plan) -> Vec<Effect> {
        self.config = plan.config;
        self.routing = plan.routing;
        self.splits = plan.splits;
        self.registry = plan.registry;
        self.absent = plan.absent;
        self.lay_out_access();
        let splits = &self.splits;
        self.recorder
            .keep(|name| splits.iter().any(|state| state.rollout.split() == name));
        plan.effects
    }

    /// The next snapshot.
    pub fn snapshot(&mut self) -> Snapshot {
        self.generation += 1;
        let now = self.clock.elapsed();
        for state in &mut self.splits {
            let has_left =
                state.rollout.phase() == Phase::RolledBack || state.rollout.standing().emergency;
            state.left_new_at = has_left.then(|| state.left_new_at.unwrap_or(now));
        }
        let settings = self.config.splits.iter();
        let streams_end = settings.zip(&self.splits).map(|(settings, state)| {
            let left = state.left_new_at;
            left.map(|left| left.plus(settings.stream_grace))
        });
        Snapshot {
            streams_end: streams_end.collect(),
            generation: self.generation,
            routing: Arc::clone(&self.routing),
            access: Arc::clone(&self.access),
            denials: Arc::clone(&self.denials),
            standings: self.standings().collect(),
        }
    }

    /// Snapshots made so far.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// The sum of the splits' revisions, those included that the file names no more: it rises with
    /// every decision and never falls.
    pub fn revision(&self) -> u64 {
        let present = self.rollouts().map(Rollout::revision);
        present
            .chain(self.absent.values().map(Record::revision))
            .sum()
    }

    /// What each split obeys.
    pub fn standings(&self) -> impl Iterator<Item = Standing> {
        self.splits.iter().map(|state| state.rollout.standing())
    }

    /// The index of the split with this name.
    pub fn split(&self, name: &str) -> Option<usize> {
        self.splits
            .iter()
            .position(|state| state.rollout.split() == name)
    }

    /// Everything that a restart needs once these steps of plans have been taken. One that may not
    /// be taken any more is left out.
    pub fn memory<'a>(&self, advancing: impl IntoIterator<Item = &'a Decision>) -> Memory {
        let advancing = Vec::from_iter(advancing);
        let now = self.clock.wall();
        memory(
            self.rollouts(),
            &advancing,
            now,
            &self.absent,
            self.emergency,
            &self.denials,
        )
    }

    /// The part of [`World::memory`] that has changed since this was last asked for, splits left out
    /// for which nothing but time has passed that brings them nothing.
    pub fn memory_of_stirred<'a>(
        &mut self,
        advancing: impl IntoIterator<Item = &'a Decision>,
    ) -> Memory {
        let advancing = Vec::from_iter(advancing);
        let now = self.clock.wall();
        let stirred = self.splits.iter_mut().filter_map(|state| {
            let is_stirred = state.take_stirred();
            is_stirred.then_some(&state.rollout)
        });
        let absent = BTreeMap::new();
        memory(
            stirred,
            &advancing,
            now,
            &absent,
            self.emergency,
            &self.denials,
        )
    }

    /// Takes in what the source of a signal has answered. It is judged with the next window.
    pub fn take_signal(&mut self, split: &str, name: String, reading: Reading) {
        let now = self.clock.now();
        if let Some(index) = self.split(split) {
            let rollout = &mut self.splits[index].rollout;
            // Readings are never refused, and nothing follows from them by themselves.
            let _ = rollout.handle(Event::Signal { name, reading }, now);
        }
    }

    /// Splits whose next step nothing but the disk stands against.
    pub fn wishes(&self) -> impl Iterator<Item = &str> {
        let now = self.clock.wall();
        let awake = self.splits.iter().filter(|state| !state.is_resting());
        let rollouts = awake.map(|state| &state.rollout);
        let ready = rollouts.filter(move |rollout| rollout.wish(now).is_some());
        ready.map(Rollout::split)
    }

    /// Promises the next step of a split's plan: what it will announce; none if it may not be taken.
    pub fn promise_advance(&mut self, split: &str) -> Option<Decision> {
        let now = self.clock.wall();
        let index = self.split(split)?;
        self.splits[index].rollout.promise(now)
    }

    /// Takes a promised step back; the record that follows the promise, unless the split is gone.
    pub fn withdraw_advance(&mut self, promised: Decision, because: &str) -> Option<Decision> {
        let now = self.clock.now();
        let index = self.split(&promised.split)?;
        Some(self.splits[index].rollout.withdraw(promised, because, now))
    }

    /// Takes the next step of a split's plan, as it was promised.
    ///
    /// # Errors
    /// A sentence that says what stands against it by now; nothing changed.
    pub fn advance(&mut self, promised: &Decision) -> Result<(), String> {
        let now = self.clock.wall();
        let index = self.split(&promised.split);
        let index = index.ok_or_else(|| format!("{} is gone", promised.split))?;
        let rollout = &mut self.splits[index].rollout;
        let event = Event::Advance(Some(Box::new(promised.clone())));
        let taken = rollout.handle(event, now);
        taken.map(drop).map_err(|refusal| refusal.message)
    }

    fn rollouts(&self) -> impl Iterator<Item = &Rollout> {
        self.splits.iter().map(|state| &state.rollout)
    }

    /// Reads what was counted since the last time, lets the rollouts judge it, and refills the
    /// budgets. Where nothing was counted and time alone decides nothing, a split is left alone.
    /// Returns what the rollouts want done.
    pub fn observe(&mut self) -> Vec<Effect> {
        let elapsed = self.clock.elapsed();
        let wall = self.clock.wall();
        let mut effects = Vec::new();
        for (state, plan) in self.splits.iter_mut().zip(&self.routing.splits) {
            let is_available =
                |arm| (self.routing.backend(plan.arms[arm]).backend).has_available(elapsed);
            let found = Circumstances {
                available: PerArm::from_fn(is_available),
                revision: state.rollout.revision(),
                is_recorded: self.recorder.is_recording(state.rollout.split()),
            };
            let mut is_judged = false;
            for (window, end) in state.tick(&plan.budget, found, elapsed) {
                is_judged = true;
                let now = self.clock.at(end);
                let recorded = self.recorder.copy(state.rollout.split(), &window);
                // Observations are never refused; only operators' wishes are.
                let wanted = state.rollout.handle(Event::Observed(Box::new(window)), now);
                effects.extend(wanted.unwrap_or_default());
                if let Some(window) = recorded {
                    self.recorder.take_in(&state.rollout, window, now);
                }
            }
            if is_judged {
                state.rest(wall);
            }
        }
        effects
    }

    /// Has the next look judge every split up to its moment: to be called before something else
    /// than a window changes what is judged, or asks for it to the tick.
    pub fn wake(&mut self) {
        self.splits.iter_mut().for_each(SplitState::wake);
    }

    /// Refills the budgets, and judges nothing: what is counted meanwhile is judged later, should
    /// this process decide again.
    pub fn refill(&mut self) {
        let elapsed = self.clock.elapsed();
        for (state, plan) in self.splits.iter_mut().zip(&self.routing.splits) {
            state.refill(&plan.budget, elapsed);
        }
    }

    /// Splits whose share rises from nothing, as `after` has it: it may be held to less than was
    /// decided here.
    pub fn rising_splits(before: &Snapshot, after: &Snapshot) -> Vec<SplitId> {
        let share_before = |split: &str| {
            let plans = &before.routing.splits;
            let index = plans.iter().position(|plan| plan.name == split);
            index.map_or(Share::ZERO, |index| before.standings[index].share)
        };
        (0_u16..)
            .zip(after.routing.splits.iter().zip(&after.standings))
            .filter(|(_, (plan, standing))| {
                standing.share > Share::ZERO && share_before(&plan.name) == Share::ZERO
            })
            .map(|(index, _)| SplitId(index))
            .collect()
    }

    /// Whether the new arm of a split wants connections before it is asked.
    pub fn is_warmed(&self, split: SplitId) -> bool {
        let new = self.routing.split(split).arms.new;
        self.routing.backend(new).backend.settings.pool.warm > 0
    }

    /// A rollout that is new to this process, as an earlier one left it if there was one.
    fn begin(&self, split: &str, terms: Terms, now: Timestamp) -> (Rollout, Vec<Effect>) {
        let (mut rollout, mut effects) = match self.absent.get(split) {
            Some(record) => Rollout::restore(split, record.clone(), terms, now),
            None => (Rollout::new(split, terms, now), Vec::new()),
        };
        if self.emergency && !rollout.standing().emergency {
            let by = By {
                actor: "engine".to_owned(),
                reason: "an emergency covers all splits".to_owned(),
            };
            // Declaring an emergency is never refused.
            let declared = rollout.handle(Event::Emergency { active: true, by }, now);
            effects.extend(declared.unwrap_or_default());
        }
        (rollout, effects)
    }
}

impl Plan {
    /// What the new configuration warns of.
    pub fn warnings(&self) -> &[Problem] {
        &self.config.warnings
    }

    /// Stages that cannot prove what they must at the traffic of late, each in a sentence.
    pub fn doubts(&self) -> Vec<String> {
        let splits = self.config.splits.iter().zip(&self.splits);
        let doubts = splits.filter_map(|(settings, state)| {
            let doubts = settings.course.plan()?.doubts(state.traffic.rate()?);
            Some(
                doubts
                    .into_iter()
                    .map(|doubt| format!("{}: {doubt}", settings.name)),
            )
        });
        doubts.flatten().collect()
    }

    /// What its rollouts want done once it is in force.
    pub fn effects(&self) -> &[Effect] {
        &self.effects
    }

    /// Everything that a restart would need if this plan were in force in `world`, and these steps
    /// had been taken.
    pub fn memory<'a>(
        &self,
        world: &World,
        advancing: impl IntoIterator<Item = &'a Decision>,
    ) -> Memory {
        let advancing = Vec::from_iter(advancing);
        let rollouts = self.splits.iter().map(|state| &state.rollout);
        let now = world.clock.wall();
        memory(
            rollouts,
            &advancing,
            now,
            &self.absent,
            world.emergency,
            &world.denials,
        )
    }
}

/// What is to be announced of these effects.
pub(super) fn decisions(effects: impl IntoIterator<Item = Effect>) -> Vec<Decision> {
    let effects = effects.into_iter();
    effects
        .filter_map(|effect| match effect {
            Effect::Announce(decision) => Some(*decision),
            Effect::Publish(_) | Effect::Persist => None,
        })
        .collect()
}

fn memory<'a>(
    present: impl Iterator<Item = &'a Rollout>,
    advancing: &[&Decision],
    now: Timestamp,
    absent: &BTreeMap<String, Record>,
    emergency: bool,
    denials: &Arc<Denials>,
) -> Memory {
    let present = present.map(|rollout| {
        let split = rollout.split().to_owned();
        let mut steps = advancing.iter();
        if let Some(step) = steps.find(|step| step.split == split) {
            let mut ahead = rollout.clone();
            let event = Event::Advance(Some(Box::new(Decision::clone(step))));
            if ahead.handle(event, now).is_ok() {
                return (split, ahead.record());
            }
        }
        (split, rollout.record())
    });
    let absent = absent.iter();
    let absent = absent.map(|(split, record)| (split.clone(), record.clone()));
    Memory {
        rollouts: present.chain(absent).collect(),
        emergency,
        denials: Arc::clone(denials),
    }
}

fn configured(rollout: &Rollout, terms: Terms, now: Timestamp) -> (Rollout, Vec<Effect>) {
    let mut rollout = rollout.clone();
    // A configuration is never refused by a rollout; it decides what of it takes effect.
    let effects = rollout.handle(Event::Configured(Box::new(terms)), now);
    (rollout, effects.unwrap_or_default())
}

fn terms(config: &Config, settings: &model::Split) -> Terms {
    Terms {
        course: settings.course.clone(),
        rules: settings.rules,
        signals: settings
            .signals
            .iter()
            .map(|signal| signal.terms.clone())
            .collect(),
        rollout_id: settings.rollout_id.clone(),
        backends: config.names_of_arms(settings),
    }
}
