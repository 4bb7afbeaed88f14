//! One attempt at moving a split: what its share is, and what changes it.
//!
//! A state machine held as data: [`Rollout::handle`] takes an event and the time and returns what
//! must be done, in order. It touches no clock, no socket and no file, so every decision can be
//! replayed, stored and compared.
//!
//! The mistake to avoid is a share that comes back by itself. So what is in effect is never a value
//! that somebody last wrote, but always the first that applies of: an emergency, the latch of a
//! rollback, an operator's share, the file's share. And what raises the share is persisted before it
//! is published, while what lowers it is published first: whenever the process dies, it never comes
//! back at a share that nobody has been promised, and harm never waits for a disk.

mod decision;
mod event;
mod sentence;

#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::decision::{Condition, Decision, Need, Observed, Phase};
pub use self::event::{By, Effect, Event, Refusal, Standing, Terms};

use super::arm::PerArm;
use super::judge::guards::Guard;
use super::judge::window::Window;
use super::judge::{Breach, Evidence, Judge, Verdict};
use super::share::Share;
use super::time::Timestamp;

/// A hold that pauses for less than this is one episode and is announced once.
const HOLD_EPISODE: Duration = Duration::from_secs(60);

/// All that is kept of a rollout across restarts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`Record::VERSION`] of the program that wrote it.
    pub version: u32,
    rollout_id: String,
    file_share: Option<Share>,
    phase: Phase,
    operator_share: Option<Share>,
    emergency: bool,
    last_hold: Option<Timestamp>,
    last_decision: Option<Decision>,
    evidence: Evidence,
    /// Absent in what older programs wrote.
    #[serde(default)]
    backends: Option<PerArm<String>>,
}

impl Record {
    /// Rises whenever an older program could misread a record.
    pub const VERSION: u32 = 2;

    /// What a program of version 1 wrote, without its evidence: that was counted otherwise, and is
    /// gathered afresh. A latch and the shares stand as they stood.
    ///
    /// # Errors
    /// The first field that is missing, or is not what version 1 wrote.
    pub fn from_version_1(mut written: serde_json::Value) -> Result<Record, serde_json::Error> {
        if let Some(fields) = written.as_object_mut() {
            fields.insert("version".to_owned(), Record::VERSION.into());
            let nothing = serde_json::to_value(Evidence::default())?;
            fields.insert("evidence".to_owned(), nothing);
        }
        serde_json::from_value(written)
    }
}

/// One attempt at moving a split.
///
/// Inputs: [`Rollout::handle`]. Outputs: the effects it returns, and [`Rollout::standing`].
#[derive(Clone, Debug)]
pub struct Rollout {
    split: String,
    terms: Terms,
    phase: Phase,
    operator_share: Option<Share>,
    emergency: bool,
    judge: Judge,
    /// When a rollback was last held.
    last_hold: Option<Timestamp>,
    last_decision: Option<Decision>,
}

impl Rollout {
    /// A rollout that has never run.
    pub fn new(split: &str, terms: Terms, now: Timestamp) -> Self {
        Self {
            split: split.to_owned(),
            phase: Phase::Progressing,
            operator_share: None,
            emergency: false,
            judge: Judge::new(terms.criteria.clone(), now),
            last_hold: None,
            last_decision: None,
            terms,
        }
    }

    /// Goes on from what was stored. The effects are those of what the configuration changed
    /// meanwhile; none if it is the same.
    pub fn restore(
        split: &str,
        record: Record,
        terms: Terms,
        now: Timestamp,
    ) -> (Self, Vec<Effect>) {
        let judge = Judge::restore(terms.criteria.clone(), record.evidence, now);
        let mut rollout = Self {
            split: split.to_owned(),
            terms: Terms {
                share: record.file_share,
                rollout_id: record.rollout_id,
                criteria: terms.criteria.clone(),
                backends: record.backends.unwrap_or_else(|| terms.backends.clone()),
            },
            phase: record.phase,
            operator_share: record.operator_share,
            emergency: record.emergency,
            judge,
            last_hold: record.last_hold,
            last_decision: record.last_decision,
        };
        let effects = rollout.configured(terms, now);
        (rollout, effects)
    }

    /// Takes in what happened; returns what must be done, in order. An operator's command that is
    /// not refused is always announced.
    ///
    /// # Errors
    /// [`Refusal`] of an operator's wish, with what would allow it; nothing changed.
    pub fn handle(&mut self, event: Event, now: Timestamp) -> Result<Vec<Effect>, Refusal> {
        match event {
            Event::Observed(window) => Ok(self.observed(&window, now)),
            Event::Set {
                share,
                override_file,
                by,
            } => self.set(share, override_file, by, now),
            Event::Rollback { by } => Ok(self.rolled_back_by(by, now)),
            Event::Resume { by } => self.resume(by, now),
            Event::Emergency { active, by } => Ok(self.declare(active, by, now)),
            Event::Configured(terms) => Ok(self.configured(*terms, now)),
        }
    }

    /// What the data plane obeys.
    pub fn standing(&self) -> Standing {
        let share = if self.emergency || self.phase == Phase::RolledBack {
            Share::ZERO
        } else {
            self.intended_share()
        };
        Standing {
            share,
            emergency: self.emergency,
        }
    }

    /// What to keep for [`Rollout::restore`].
    pub fn record(&self) -> Record {
        Record {
            version: Record::VERSION,
            rollout_id: self.terms.rollout_id.clone(),
            file_share: self.terms.share,
            phase: self.phase,
            operator_share: self.operator_share,
            emergency: self.emergency,
            last_hold: self.last_hold,
            last_decision: self.last_decision.clone(),
            evidence: self.judge.evidence().clone(),
            backends: Some(self.terms.backends.clone()),
        }
    }

    /// Name of the split.
    pub fn split(&self) -> &str {
        &self.split
    }

    /// Where the rollout stands.
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// What the configuration says.
    pub const fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The operator's share, if one is set; where the file fixes a share, it differs from it.
    pub const fn override_share(&self) -> Option<Share> {
        self.operator_share
    }

    /// The most recent decision, if there was one.
    pub const fn last_decision(&self) -> Option<&Decision> {
        self.last_decision.as_ref()
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

    fn observed(&mut self, window: &Window, now: Timestamp) -> Vec<Effect> {
        // Nothing is sent to `new` but pinned keys, which are no evidence; what still ends there
        // was sent before, and has been decided about.
        if self.standing().share == Share::ZERO {
            self.judge.learn(window);
            return Vec::new();
        }
        match self.judge.observe(window, now) {
            Verdict::Fail(breach) => self.rolled_back_for(&breach, now),
            Verdict::Hold(breach, guard) => self.held(&breach, guard, now),
            Verdict::Pass | Verdict::Inconclusive(_) => Vec::new(),
        }
    }

    fn rolled_back_for(&mut self, breach: &Breach, now: Timestamp) -> Vec<Effect> {
        let before = self.before(now);
        self.phase = Phase::RolledBack;
        self.last_hold = None;
        let sentence = sentence::rolled_back(&self.split, now, breach, &self.terms.criteria);
        let change = Change::by_engine("rollback", sentence::reason(breach), sentence);
        self.conclude(before, change)
    }

    fn held(&mut self, breach: &Breach, guard: Option<Guard>, now: Timestamp) -> Vec<Effect> {
        let since_last = self.last_hold.replace(now).map(|last| now.since(last));
        if since_last.is_some_and(|gap| gap < HOLD_EPISODE) {
            return Vec::new();
        }
        let before = self.before(now);
        let share = before.standing.share;
        let sentence = sentence::held(&self.split, now, share, breach, guard);
        let change = Change::by_engine("hold", sentence::reason(breach), sentence);
        self.conclude(before, change)
    }

    fn set(
        &mut self,
        share: Share,
        override_file: bool,
        by: By,
        now: Timestamp,
    ) -> Result<Vec<Effect>, Refusal> {
        let split = &self.split;
        if self.phase == Phase::RolledBack && share > Share::ZERO {
            return Err(Refusal {
                message: format!(
                    "{split} is rolled back: resume it first, then its share may rise above 0%"
                ),
            });
        }
        if let Some(file) = self.terms.share
            && !override_file
        {
            return Err(Refusal {
                message: format!(
                    "the file fixes the share of {split} at {file}: change it there, or use \
                     --override"
                ),
            });
        }
        let before = self.before(now);
        // Back at the file's own share there is nothing left to override.
        self.operator_share = Some(share).filter(|share| self.terms.share != Some(*share));
        let was = before.standing.share;
        let sentence = sentence::set(split, now, share, was, self.obstacle(), &by);
        Ok(self.conclude(before, Change::by_person("set", by, sentence)))
    }

    fn rolled_back_by(&mut self, by: By, now: Timestamp) -> Vec<Effect> {
        let before = self.before(now);
        let again = self.phase == Phase::RolledBack;
        self.phase = Phase::RolledBack;
        self.last_hold = None;
        let was = before.standing.share;
        let sentence = sentence::rolled_back_by(&self.split, now, was, again, &by);
        self.conclude(before, Change::by_person("rollback", by, sentence))
    }

    fn resume(&mut self, by: By, now: Timestamp) -> Result<Vec<Effect>, Refusal> {
        if self.phase != Phase::RolledBack {
            return Err(Refusal {
                message: format!(
                    "{} is not rolled back: there is nothing to resume",
                    self.split
                ),
            });
        }
        let before = self.before(now);
        self.begin_afresh(now);
        let share = self.intended_share();
        let sentence = sentence::resumed(&self.split, now, share, self.obstacle(), &by);
        Ok(self.conclude(before, Change::by_person("resume", by, sentence)))
    }

    fn declare(&mut self, active: bool, by: By, now: Timestamp) -> Vec<Effect> {
        let before = self.before(now);
        let again = self.emergency == active;
        self.emergency = active;
        let (action, sentence) = if active {
            let was = before.standing.share;
            let sentence = sentence::emergency(&self.split, now, was, again, &by);
            ("emergency", sentence)
        } else {
            let share = self.standing().share;
            let sentence = sentence::emergency_cleared(&self.split, now, share, again, &by);
            ("emergency_cleared", sentence)
        };
        self.conclude(before, Change::by_person(action, by, sentence))
    }

    fn configured(&mut self, terms: Terms, now: Timestamp) -> Vec<Effect> {
        let is_new_rollout = terms.rollout_id != self.terms.rollout_id;
        let moves_share = terms.share != self.terms.share;
        let other_criteria = terms.criteria != self.terms.criteria;
        let other_backends = terms.backends != self.terms.backends;
        let other_legacy = terms.backends.legacy != self.terms.backends.legacy;
        if !is_new_rollout && !moves_share && !other_criteria && !other_backends {
            return Vec::new();
        }
        let before = self.before(now);
        let was_latched = self.phase == Phase::RolledBack;
        if moves_share {
            self.operator_share = None;
        }
        if other_criteria {
            self.judge.reconfigure(terms.criteria.clone(), now);
        }
        if other_legacy {
            self.judge.forget(now);
        }
        self.terms = terms;
        if is_new_rollout {
            self.begin_afresh(now);
        } else if other_backends {
            // Nobody is rolled back for what another did. A latch stays, as ever.
            self.last_hold = None;
            self.judge.refresh(now);
        }
        let share = self.standing().share;
        let id = &self.terms.rollout_id;
        let (reason, sentence) = if is_new_rollout {
            let sentence = sentence::new_rollout(&self.split, now, id, share, was_latched);
            (format!("rollout.id is now {id}"), sentence)
        } else if share != before.standing.share {
            let was = before.standing.share;
            let sentence = sentence::moved_by_file(&self.split, now, was, share);
            ("the file's share changed".to_owned(), sentence)
        } else {
            return vec![Effect::Persist];
        };
        let change = Change {
            actor: "file".to_owned(),
            action: "configured",
            reason,
            sentence,
        };
        self.conclude(before, change)
    }

    /// The share if neither an emergency nor a latch stood against it.
    fn intended_share(&self) -> Share {
        let share = self.operator_share.or(self.terms.share);
        share.unwrap_or(Share::ZERO)
    }

    /// What keeps the intended share from taking effect.
    fn obstacle(&self) -> Option<&'static str> {
        if self.emergency {
            Some("an emergency")
        } else if self.phase == Phase::RolledBack {
            Some("the rollback")
        } else {
            None
        }
    }

    fn begin_afresh(&mut self, now: Timestamp) {
        self.phase = Phase::Progressing;
        self.last_hold = None;
        self.judge.refresh(now);
    }

    fn before(&self, now: Timestamp) -> Before {
        Before {
            now,
            standing: self.standing(),
            conditions: self.conditions(),
        }
    }

    /// Records a change and lists its effects in the order that is safe for its direction.
    fn conclude(&mut self, before: Before, change: Change) -> Vec<Effect> {
        let standing = self.standing();
        let decision = Decision {
            at: before.now.rfc3339(),
            split: self.split.clone(),
            actor: change.actor,
            action: change.action.to_owned(),
            reason: change.reason,
            from: before.standing.share,
            to: standing.share,
            conditions: before.conditions,
            sentence: change.sentence,
        };
        self.last_decision = Some(decision.clone());
        let announce = Effect::Announce(decision);
        if standing == before.standing {
            vec![Effect::Persist, announce]
        } else if standing.exceeds(before.standing) {
            vec![Effect::Persist, Effect::Publish(standing), announce]
        } else {
            vec![Effect::Publish(standing), Effect::Persist, announce]
        }
    }
}

/// How things stood before a change.
struct Before {
    now: Timestamp,
    standing: Standing,
    conditions: Vec<Condition>,
}

/// Who changed what, and why.
struct Change {
    actor: String,
    action: &'static str,
    reason: String,
    sentence: String,
}

impl Change {
    fn by_person(action: &'static str, by: By, sentence: String) -> Self {
        Self {
            actor: by.actor,
            action,
            reason: by.reason,
            sentence,
        }
    }

    fn by_engine(action: &'static str, reason: String, sentence: String) -> Self {
        Self {
            actor: "engine".to_owned(),
            action,
            reason,
            sentence,
        }
    }
}
