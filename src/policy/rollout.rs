//! One attempt at moving a split: what its share is, and what changes it.
//!
//! A state machine held as data: [`Rollout::handle`] takes an event and the time and returns what
//! must be done, in order. It touches no clock, no socket and no file, so every decision can be
//! replayed, stored and compared.
//!
//! The mistake to avoid is a share that comes back by itself. So what is in effect is never a value
//! that somebody last wrote, but always the first that applies of: an emergency, the latch of a
//! rollback, an operator's share, the plan's stage, the file's share. And what raises the share is
//! persisted before it is published, while what lowers it is published first: whenever the process
//! dies, it never comes back at a share that nobody has been promised, and harm never waits for a
//! disk.
//!
//! The engine lowers a share on its own ([`Event::Observed`]), but it only asks to raise one
//! ([`Rollout::wish`]): whoever has seen to it that the risen state is kept answers with
//! [`Event::Advance`], and harm seen in between wins.

mod change;
mod commands;
mod configured;
mod decision;
mod engine;
mod event;
mod latch;
mod lull;
mod outlook;
mod record;
mod rest;
mod sentence;
mod telling;
mod times;
mod wait;

#[cfg(test)]
mod tests;

pub use self::decision::{Condition, Decision, Need, Observed, Phase};
pub use self::event::{By, Effect, Event, Refusal, Standing, Terms};
pub use self::outlook::{Outlook, PlannedStage, StageProgress, TimeoutAhead};
pub use self::record::{InvalidRecord, Record};
pub use self::rest::Rest;
pub use self::wait::Wait;

use self::record::{Outline, State};
use super::criteria::Criteria;
use super::judge::{Aim, Judge};
use super::plan::{Plan, Stage};
use super::share::Share;
use super::signal::SignalState;
use super::time::Timestamp;

/// One attempt at moving a split.
///
/// Inputs: [`Rollout::handle`]. Outputs: the effects it returns, [`Rollout::standing`], and what the
/// engine would do next, [`Rollout::wish`].
#[derive(Clone, Debug)]
pub struct Rollout {
    split: String,
    terms: Terms,
    state: State,
    judge: Judge,
    glance: Glance,
}

/// What the last window has shown; a restart waits for the next one.
#[derive(Clone, Copy, Debug, Default)]
struct Glance {
    /// Whether there was one.
    is_taken: bool,
    /// Whether a breach was held.
    is_held: bool,
    /// Whether `new` has an endpoint that could take requests.
    is_new_available: bool,
}

impl Rollout {
    /// A rollout that has never run.
    pub fn new(split: &str, terms: Terms, now: Timestamp) -> Self {
        let state = State {
            outline: Outline::of(&terms.course),
            backends: Some(terms.backends.clone()),
            ..State::new(terms.rollout_id.clone())
        };
        let criteria = terms.course.criteria(None).clone();
        let mut rollout = Self {
            split: split.to_owned(),
            judge: Judge::new(criteria, now),
            state,
            glance: Glance::default(),
            terms,
        };
        rollout.enter(rollout.start(), now);
        rollout
    }

    /// Goes on from what was stored. The effects are those of what the configuration changed
    /// meanwhile; none if it is the same.
    pub fn restore(
        split: &str,
        record: Record,
        terms: Terms,
        now: Timestamp,
    ) -> (Self, Vec<Effect>) {
        // Judged as where an edited plan goes on, or evidence would be lost on the way there.
        let is_edited = Outline::of(&terms.course) != record.state.outline;
        let position = match terms.course.plan().filter(|_| is_edited) {
            Some(plan) => plan.highest_within(record.state.intended_share()),
            None => record.state.position,
        };
        let criteria = terms.course.criteria(position).clone();
        let mut rollout = Self {
            split: split.to_owned(),
            judge: Judge::restore(criteria, record.evidence, now),
            state: record.state,
            glance: Glance::default(),
            terms: terms.clone(),
        };
        rollout.read_signals_by_terms();
        if let Some(seen_at) = rollout.state.seen_at {
            rollout.state.board.sleep(now.since(seen_at).as_secs_f64());
        }
        let effects = rollout.configured(terms, now);
        (rollout, effects)
    }

    /// Takes in what happened; returns what must be done, in order. An operator's command that is
    /// not refused is always announced.
    ///
    /// # Errors
    /// [`Refusal`] of a wish, with what would allow it; nothing changed.
    pub fn handle(&mut self, event: Event, now: Timestamp) -> Result<Vec<Effect>, Refusal> {
        match event {
            Event::Observed(window) => Ok(self.observed(&window, now)),
            Event::Signal { name, reading } => {
                self.state.board.take(&name, reading, now);
                Ok(Vec::new())
            }
            Event::Advance(promised) => self.advance(promised, now),
            Event::Set {
                share,
                override_file,
                by,
            } => self.set(share, override_file, by, now),
            Event::Stage { number, by } => self.go_to_stage(number, by, now),
            Event::Promote { by } => self.promote(by, now),
            Event::Pause { by } => self.pause(by, now),
            Event::Approve { by } => self.approve(by, now),
            Event::Rollback { to, by } => Ok(self.rolled_back_by(to, by, now)),
            Event::Resume { stage, by } => self.resume(stage, by, now),
            Event::Emergency { active, by } => Ok(self.declare(active, by, now)),
            Event::Configured(terms) => Ok(self.configured(*terms, now)),
        }
    }

    /// What the engine would do next that needs the state to be kept first: the next step of the
    /// plan, if everything allows it.
    pub fn wish(&self, now: Timestamp) -> Option<Event> {
        let may = self.next_stage().is_some() && self.hindrances(now).is_empty();
        may.then_some(Event::Advance(None))
    }

    /// What the next step of the plan will announce, if everything allows it. Its number is taken:
    /// what is decided before the step is taken, or instead of it, has a later one.
    pub fn promise(&mut self, now: Timestamp) -> Option<Decision> {
        let mut ahead = self.clone();
        let effects = ahead.handle(Event::Advance(None), now).ok()?;
        let decision = effects.into_iter().find_map(|effect| match effect {
            Effect::Announce(decision) => Some(*decision),
            Effect::Publish(_) | Effect::Persist => None,
        })?;
        self.state.revision = decision.revision;
        Some(decision)
    }

    /// Takes a promise back that has been written down: the record that follows it.
    pub fn withdraw(&mut self, promised: Decision, because: &str, now: Timestamp) -> Decision {
        self.state.revision += 1;
        let share = self.standing().share;
        Decision {
            at: now.rfc3339(),
            action: "withdrawn".to_owned(),
            reason: because.to_owned(),
            from: share,
            to: share,
            revision: self.state.revision,
            phase: Some(self.phase()),
            stage: self.state.position.map(|index| index + 1),
            sentence: format!(
                "Not carried out: {} Since then: {because}",
                promised.sentence
            ),
            ..promised
        }
    }

    /// What the data plane obeys.
    pub fn standing(&self) -> Standing {
        let share = if self.state.emergency {
            Share::ZERO
        } else {
            self.share_within_latch()
        };
        Standing {
            share,
            emergency: self.state.emergency,
        }
    }

    /// What to keep for [`Rollout::restore`].
    pub fn record(&self) -> Record {
        Record {
            version: Record::VERSION,
            state: self.state.clone(),
            evidence: self.judge.evidence().clone(),
        }
    }

    /// Name of the split.
    pub fn split(&self) -> &str {
        &self.split
    }

    /// Where the rollout stands.
    pub fn phase(&self) -> Phase {
        let state = &self.state;
        if state.latch.is_some() {
            Phase::RolledBack
        } else if self.plan().is_none() {
            Phase::Progressing
        } else if state.is_paused || state.operator_share.is_some() {
            Phase::Paused
        } else if state.is_completed {
            Phase::Completed
        } else if state.position.is_none() {
            Phase::Pending
        } else {
            Phase::Progressing
        }
    }

    /// What the configuration says.
    pub const fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The index of the plan's stage; none before the first one, and without a plan.
    pub const fn position(&self) -> Option<usize> {
        self.state.position
    }

    /// Who has approved that the present stage is left.
    pub fn approved_by(&self) -> Option<&str> {
        self.state.approved_by.as_deref()
    }

    /// Counts decisions: who changes something may ask that it is still this one.
    pub const fn revision(&self) -> u64 {
        self.state.revision
    }

    /// Watched seconds since the stage began, pauses left out.
    pub const fn stage_seconds(&self) -> f64 {
        self.state.times.stage
    }

    /// Healthy seconds and requests of `new` that the stage has had.
    pub fn progress(&self) -> (f64, u64) {
        if self.is_idle() {
            (self.state.times.healthy, 0)
        } else {
            let (_, requests) = self.judge.progress();
            (self.state.times.calm, requests)
        }
    }

    /// Watched seconds since the share last changed; none if it did not within a watched day.
    pub fn seconds_since_change(&self) -> Option<f64> {
        self.state.times.since_recent_change()
    }

    /// The operator's share, if one is set; where the file fixes a share, it differs from it.
    pub const fn override_share(&self) -> Option<Share> {
        self.state.operator_share
    }

    /// The most recent decision that changed something, or was the engine's.
    pub const fn last_decision(&self) -> Option<&Decision> {
        self.state.last_decision.as_ref()
    }

    /// Each signal as it stands.
    pub fn signals(&self) -> Vec<SignalState> {
        self.state.board.states()
    }

    /// What watches it.
    pub const fn judge(&self) -> &Judge {
        &self.judge
    }

    /// Each rollback criterion as it stands.
    pub fn conditions(&self) -> Vec<Condition> {
        self.judge.conditions()
    }

    /// Each requirement of an advance as it stands.
    pub fn needs(&self) -> Vec<Need> {
        self.judge.needs()
    }

    fn plan(&self) -> Option<&Plan> {
        self.terms.course.plan()
    }

    fn stage(&self) -> Option<&Stage> {
        self.plan()?.stages().get(self.state.position?)
    }

    /// The index of the stage that follows.
    fn next_position(&self) -> Option<usize> {
        let next = self.state.position.map_or(0, |position| position + 1);
        (next < self.plan()?.stages().len()).then_some(next)
    }

    fn next_stage(&self) -> Option<&Stage> {
        self.plan()?.stages().get(self.next_position()?)
    }

    /// The stage before the first advance: one at 0, or none.
    fn start(&self) -> Option<usize> {
        let first = self.plan()?.stages().first()?;
        (first.share == Share::ZERO).then_some(0)
    }

    fn criteria(&self) -> &Criteria {
        self.terms.course.criteria(self.state.position)
    }

    /// The share if nothing but the file and its plan counted.
    fn filed_share(&self) -> Share {
        self.state.filed_share()
    }

    /// The share if neither an emergency nor a latch stood against it.
    fn intended_share(&self) -> Share {
        self.state.intended_share()
    }

    /// The share if no emergency stood against it.
    fn share_within_latch(&self) -> Share {
        match &self.state.latch {
            Some(latch) => latch.share().min(self.intended_share()),
            None => self.intended_share(),
        }
    }

    /// Nobody is sent to `new` by what is intended, so that nothing can be proven.
    fn is_idle(&self) -> bool {
        self.intended_share() == Share::ZERO
    }

    /// Where the stage at `position` would lead.
    fn aim(&self, position: Option<usize>) -> Aim {
        self.plan().map_or(Aim::Raise, |plan| plan.aim(position))
    }

    /// A stage begins, or begins anew: what leaves it must be proven in it.
    fn enter(&mut self, position: Option<usize>, now: Timestamp) {
        self.state.position = position;
        self.state.is_completed = false;
        self.state.approved_by = None;
        self.state.times.begin_stage();
        self.judge_by_terms(now);
        self.judge.begin_stage(self.aim(position), now);
    }

    /// Forgets what speaks for or against `new`: requests, signals, good health.
    fn refresh(&mut self, now: Timestamp) {
        self.judge.refresh(now);
        self.state.board.refresh();
        self.state.times.forget_health();
    }

    /// Judges by what the terms say for the present stage.
    fn judge_by_terms(&mut self, now: Timestamp) {
        let criteria = self.criteria();
        if *criteria != *self.judge.criteria() {
            let criteria = criteria.clone();
            self.judge.reconfigure(criteria, now);
        }
        self.read_signals_by_terms();
    }

    fn read_signals_by_terms(&mut self) {
        let criteria = self.terms.course.criteria(self.state.position);
        let (rollback, advance) = (&criteria.signal_rollback, &criteria.signal_advance);
        let board = &mut self.state.board;
        board.reconfigure(&self.terms.signals, rollback, advance);
    }

    /// What keeps the intended share from taking effect.
    fn obstacle(&self) -> Option<&'static str> {
        if self.state.emergency {
            Some("an emergency")
        } else if self.state.latch.is_some() {
            Some("the rollback")
        } else {
            None
        }
    }
}

fn refused(message: String) -> Refusal {
    Refusal { message }
}
