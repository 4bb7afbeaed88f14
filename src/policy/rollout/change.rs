//! How a change becomes a decision and its effects.

use super::record::State;
use super::{By, Condition, Decision, Effect, Need, Rollout, Standing};
use crate::policy::time::Timestamp;

impl Rollout {
    pub(super) fn before(&self, now: Timestamp) -> Before {
        Before {
            now,
            standing: self.standing(),
            state: self.state.clone(),
            conditions: self.conditions(),
            needs: self.needs(),
        }
    }

    /// Records a change and lists its effects in the order that is safe for its direction.
    pub(super) fn conclude(&mut self, before: Before, change: Change) -> Vec<Effect> {
        self.conclude_as(before, change, None)
    }

    /// The same with the record that was promised, if one was: what is on the disk already.
    pub(super) fn conclude_as(
        &mut self,
        before: Before,
        change: Change,
        promised: Option<Box<Decision>>,
    ) -> Vec<Effect> {
        let standing = self.standing();
        let changes_something = standing != before.standing || self.state != before.state;
        if standing.share != before.standing.share {
            self.state.times.change();
        }
        if promised.is_none() {
            self.state.revision += 1;
        }
        let decision = promised.map_or_else(
            || Decision {
                at: before.now.rfc3339(),
                split: self.split.clone(),
                actor: change.actor,
                action: change.action.to_owned(),
                reason: change.reason,
                from: before.standing.share,
                to: standing.share,
                revision: self.state.revision,
                phase: Some(self.phase()),
                stage: self.state.position.map(|index| index + 1),
                conditions: before.conditions,
                needs: before.needs,
                sentence: change.sentence,
            },
            |promised| *promised,
        );
        // A command that changes nothing must not hide why the share is what it is.
        if changes_something || change.by == Author::Engine {
            self.state.last_decision = Some(decision.clone());
        }
        let announce = Effect::Announce(Box::new(decision));
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
pub(super) struct Before {
    now: Timestamp,
    pub(super) standing: Standing,
    state: State,
    conditions: Vec<Condition>,
    needs: Vec<Need>,
}

/// Who changed what, and why.
pub(super) struct Change {
    by: Author,
    actor: String,
    action: &'static str,
    reason: String,
    sentence: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Author {
    Engine,
    Person,
    File,
}

impl Change {
    pub(super) fn by_person(action: &'static str, by: By, sentence: String) -> Self {
        Self {
            by: Author::Person,
            actor: by.actor,
            action,
            reason: by.reason,
            sentence,
        }
    }

    pub(super) fn by_engine(action: &'static str, reason: String, sentence: String) -> Self {
        Self {
            by: Author::Engine,
            actor: "engine".to_owned(),
            action,
            reason,
            sentence,
        }
    }

    pub(super) fn by_file(reason: String, sentence: String) -> Self {
        Self {
            by: Author::File,
            actor: "file".to_owned(),
            action: "configured",
            reason,
            sentence,
        }
    }
}
