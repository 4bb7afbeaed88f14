//! Orders of operators: which are carried out, and what is answered.
//!
//! An order is worked out on copies of the rollouts that it concerns. A rehearsal ends there, so it
//! is refused exactly when the order would be; and an order over several splits is carried out for
//! all of them or for none. What only the disk can refuse, a rehearsal cannot know.

use tokio::sync::oneshot;

use crate::policy::rollout::{By, Decision, Event, Rollout};
use crate::policy::signal::Reading;

use super::command::{Command, Order, Outcome, Proviso};
use super::controller::{Controller, Done, sentences};
use super::protocol::Refused;
use super::reload::Asker;
use super::world::decisions;

/// What an order is about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scope {
    /// The split with this index.
    One(usize),
    /// Everything.
    All,
}

/// An order as far as it can be worked out without anything being done.
struct Rehearsal {
    /// The rollouts that it changes, by the index of their split.
    rollouts: Vec<(usize, Rollout)>,
    decisions: Vec<Decision>,
    /// Whether more may reach the new arm of any split.
    rises: bool,
}

impl Controller {
    /// Carries out an order, or refuses it, and answers.
    pub(super) async fn carry_out(
        &mut self,
        order: Order,
        reply: oneshot::Sender<Result<Outcome, Refused>>,
    ) {
        if let Some(refused) = self.charge.refusal() {
            let _ = reply.send(Err(refused));
            return;
        }
        // What was counted until now is judged by what held until now: failures from before a
        // resume are not held against what it begins.
        self.catch_up();
        let proviso = order.proviso;
        let by = By {
            actor: order.author.actor,
            reason: order.author.reason,
        };
        let decided = match order.command {
            Command::Reload => return self.reloads.ask(Asker::Operator(proviso, reply)),
            Command::Change { split, change } => {
                self.decide_one(&split, &change.event(by), proviso).await
            }
            Command::Signal {
                split,
                name,
                reading,
            } => self.take_told(&split, name, reading, proviso),
            Command::Emergency { split, clear } => {
                self.declare(split.as_deref(), clear, by, proviso).await
            }
            Command::Deny { network, span } => self.deny(network, span, by, proviso),
            Command::EndDenial { network } => self.end_denial(network, by, proviso),
            Command::Record { split, span } => self.find(&split).and_then(|index| {
                let world = &mut self.world;
                let now = world.clock.now();
                let rollout = &world.splits[index].rollout;
                let begun = world.recorder.begin(rollout, span, now);
                begun.map(|sentence| self.done(Scope::One(index), sentence))
            }),
            Command::EndRecording { split } => self.find(&split).and_then(|index| {
                let ended = self.world.recorder.end(&split);
                ended.map(|sentence| self.done(Scope::One(index), sentence))
            }),
        };
        match decided {
            Ok(done) => self.tell(done, vec![reply]),
            Err(refused) => {
                if matches!(refused, Refused::StoreFailed(_)) {
                    // The refused state may still reach the disk, where it must not stay.
                    self.remember();
                }
                let _ = reply.send(Err(refused));
            }
        }
    }

    /// Declares or clears an emergency, of one split or of all.
    pub(super) async fn declare(
        &mut self,
        split: Option<&str>,
        clear: bool,
        by: By,
        proviso: Proviso,
    ) -> Result<Done, Refused> {
        let active = !clear;
        let event = Event::Emergency { active, by };
        let Some(split) = split else {
            self.check(Scope::All, proviso)?;
            // Clearing concerns those under an emergency; for the others nothing happens.
            let concerned = self.world.splits.iter().enumerate();
            let concerned: Vec<usize> = concerned
                .filter(|(_, state)| active || state.rollout.standing().emergency)
                .map(|(index, _)| index)
                .collect();
            if clear && concerned.is_empty() && !self.world.emergency {
                return Ok(self.done(Scope::All, "no emergency is declared".to_owned()));
            }
            let rehearsal = self.rehearse(&concerned, &event)?;
            if proviso.dry_run {
                return Ok(self.rehearsed(Scope::All, &rehearsal.decisions));
            }
            let before = std::mem::replace(&mut self.world.emergency, active);
            let decided = self.put_in_force(Scope::All, rehearsal).await;
            if decided.is_err() {
                self.world.emergency = before;
            }
            return decided;
        };
        let index = self.find(split)?;
        self.check(Scope::One(index), proviso)?;
        if clear && self.world.emergency {
            return Err(Refused::Precondition(
                "the emergency covers all splits and ends for all of them: clear it without \
                 naming one"
                    .to_owned(),
            ));
        }
        self.decide(index, &event, proviso).await
    }

    /// Has one split's rollout decide about an operator's wish.
    pub(super) async fn decide_one(
        &mut self,
        split: &str,
        event: &Event,
        proviso: Proviso,
    ) -> Result<Done, Refused> {
        let index = self.find(split)?;
        self.check(Scope::One(index), proviso)?;
        self.decide(index, event, proviso).await
    }

    async fn decide(
        &mut self,
        index: usize,
        event: &Event,
        proviso: Proviso,
    ) -> Result<Done, Refused> {
        let scope = Scope::One(index);
        let rehearsal = self.rehearse(&[index], event)?;
        if proviso.dry_run {
            return Ok(self.rehearsed(scope, &rehearsal.decisions));
        }
        self.put_in_force(scope, rehearsal).await
    }

    /// Takes in the value of a signal that somebody tells.
    fn take_told(
        &mut self,
        split: &str,
        name: String,
        reading: Reading,
        proviso: Proviso,
    ) -> Result<Done, Refused> {
        let index = self.find(split)?;
        self.check(Scope::One(index), proviso)?;
        let signals = &self.world.config.splits[index].signals;
        let Some(signal) = signals.iter().find(|signal| signal.terms.name == name) else {
            let names = signals.iter().map(|signal| signal.terms.name.as_str());
            let names = names.collect::<Vec<_>>();
            let others = match names.as_slice() {
                [] => "it has none".to_owned(),
                names => format!("its signals are: {}", names.join(", ")),
            };
            return Err(Refused::NoSuchSignal(format!(
                "{split} has no signal `{name}`; {others}"
            )));
        };
        if signal.poll.is_some() {
            return Err(Refused::Precondition(format!(
                "the signal {name} of {split} is asked of its source: nobody can tell it, unless \
                 the file says `pushed: true`"
            )));
        }
        let sentence = format!("the signal {name} of {split} is told");
        if proviso.dry_run {
            let revision = self.revision(Scope::One(index));
            return Ok(Done::new(Outcome::of(&[], sentence, revision).rehearsed()));
        }
        self.world.take_signal(split, name, reading);
        // What was told by somebody is not asked for again after a restart.
        let saved = self.keeper.save(self.memory(), Vec::new());
        Ok(self.done(Scope::One(index), sentence).after(saved))
    }

    /// Works out what a wish leads to.
    fn rehearse(&self, splits: &[usize], event: &Event) -> Result<Rehearsal, Refused> {
        let now = self.world.clock.now();
        let mut rollouts = Vec::with_capacity(splits.len());
        let mut effects = Vec::new();
        let mut rises = false;
        for index in splits {
            let mut rollout = self.world.splits[*index].rollout.clone();
            let standing = rollout.standing();
            let wanted = rollout.handle(event.clone(), now);
            effects.extend(wanted.map_err(|refusal| Refused::Precondition(refusal.message))?);
            rises |= rollout.standing().exceeds(standing);
            rollouts.push((*index, rollout));
        }
        Ok(Rehearsal {
            rollouts,
            decisions: decisions(effects),
            rises,
        })
    }

    /// Carries out what was worked out.
    async fn put_in_force(&mut self, scope: Scope, rehearsal: Rehearsal) -> Result<Done, Refused> {
        let mut before = Vec::with_capacity(rehearsal.rollouts.len());
        for (index, rollout) in rehearsal.rollouts {
            let present = &mut self.world.splits[index].rollout;
            before.push((index, std::mem::replace(present, rollout)));
        }
        let decisions = rehearsal.decisions;
        if rehearsal.rises {
            let promised = self.keeper.promise(self.memory(), decisions.clone());
            if let Err(error) = promised.await {
                for (index, rollout) in before {
                    self.world.splits[index].rollout = rollout;
                }
                return Err(Refused::StoreFailed(format!(
                    "nothing changed, because it could not be saved: {error}"
                )));
            }
            self.publish();
            let warmed = self.warm_ups.settled();
            let said = self.announce(&decisions);
            let done = self.decided(scope, &decisions, said);
            return Ok(done.after(async {
                warmed.await;
                Ok(())
            }));
        }
        self.publish();
        let said = self.announce(&decisions);
        let done = self.decided(scope, &decisions, said);
        let saved = self.keeper.save(self.memory(), decisions);
        Ok(done.after(saved))
    }

    /// Whether whoever asks has seen what was decided last.
    ///
    /// # Errors
    /// [`Refused::RevisionMismatch`], with what has happened since.
    pub(super) fn check(&self, scope: Scope, proviso: Proviso) -> Result<(), Refused> {
        let present = self.revision(scope);
        let Some(expected) = proviso
            .expected_revision
            .filter(|expected| *expected != present)
        else {
            return Ok(());
        };
        let what = match scope {
            Scope::One(index) => format!("the revision of {}", self.name(index)),
            Scope::All => "the sum of the splits' revisions".to_owned(),
        };
        let latest = match scope {
            Scope::One(index) => {
                let latest = self.world.splits[index].rollout.last_decision();
                latest.filter(|decision| decision.revision > expected)
            }
            Scope::All => {
                let rollouts = self.world.splits.iter().map(|state| &state.rollout);
                let latest = rollouts.filter_map(Rollout::last_decision);
                latest.max_by(|one, other| one.at.cmp(&other.at))
            }
        };
        let since = match latest {
            _ if present < expected => {
                "It has never been that one: is this another instance?".to_owned()
            }
            Some(decision) => format!("The latest decision: {}", decision.sentence),
            None => "What was decided since has changed nothing.".to_owned(),
        };
        Err(Refused::RevisionMismatch(format!(
            "nothing changed, because {what} is {present}, not {expected}. {since}"
        )))
    }

    /// Done without a decision.
    pub(super) fn done(&self, scope: Scope, sentence: String) -> Done {
        self.decided(scope, &[], sentence)
    }

    /// Done by these decisions.
    pub(super) fn decided(&self, scope: Scope, decisions: &[Decision], sentence: String) -> Done {
        let revision = self.revision(scope);
        Done::new(Outcome::of(decisions, sentence, revision))
    }

    fn rehearsed(&self, scope: Scope, decisions: &[Decision]) -> Done {
        let sentence = sentences(decisions);
        let revision = self.revision(scope);
        Done::new(Outcome::of(decisions, sentence, revision).rehearsed())
    }

    fn revision(&self, scope: Scope) -> u64 {
        match scope {
            Scope::One(index) => self.world.splits[index].rollout.revision(),
            Scope::All => self.world.revision(),
        }
    }

    fn name(&self, index: usize) -> &str {
        self.world.splits[index].rollout.split()
    }
}
