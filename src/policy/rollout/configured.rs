//! What another configuration changes.
//!
//! A file is edited for many reasons, and only two of its lines may move people to `new`: a fixed
//! share, and a new `rollout.id` (which begins the plan anew). A plan that is edited goes on where
//! it is, or lower.

use super::change::Change;
use super::record::Outline;
use super::{Effect, Rollout, Terms, sentence};
use crate::policy::criteria::Criteria;
use crate::policy::plan::{Course, Plan};
use crate::policy::share::Share;
use crate::policy::time::Timestamp;

impl Rollout {
    pub(super) fn configured(&mut self, terms: Terms, now: Timestamp) -> Vec<Effect> {
        let outline = Outline::of(&terms.course);
        let known = self.state.backends.as_ref();
        let other_backends = known.is_some_and(|known| *known != terms.backends);
        let other_legacy = known.is_some_and(|known| known.legacy != terms.backends.legacy);
        let is_new_rollout = terms.rollout_id != self.state.rollout_id;
        let moves = outline != self.state.outline;
        let other_terms = terms.course != self.terms.course
            || terms.rules != self.terms.rules
            || terms.signals != self.terms.signals;
        if !is_new_rollout && !moves && !other_terms && !other_backends {
            self.state.backends = Some(terms.backends);
            return Vec::new();
        }
        let changed = self.what_changes(&terms, moves, other_backends);
        let before = self.before(now);
        let was_latched = self.state.latch.is_some();
        self.state.backends = Some(terms.backends.clone());
        self.state.rollout_id.clone_from(&terms.rollout_id);
        let share = self.intended_share();
        let old_outline = std::mem::replace(&mut self.state.outline, outline);
        if moves {
            self.take_up(&terms, &old_outline, share, now);
        } else {
            self.terms = terms;
            self.judge_by_terms(now);
        }
        if other_legacy {
            self.judge.forget(now);
        }
        if is_new_rollout {
            self.begin_rollout(now);
        } else if other_backends {
            // Nobody is rolled back for what another did. A latch stays, as ever.
            self.state.episodes.clear();
            self.refresh(now);
        }
        let share = self.standing().share;
        let id = &self.state.rollout_id;
        if is_new_rollout {
            let sentence = sentence::new_rollout(&self.split, now, id, share, was_latched);
            let reason = format!("rollout.id is now {id}");
            self.conclude(before, Change::by_file(reason, sentence))
        } else if share != before.standing.share {
            let was = before.standing.share;
            let sentence = sentence::moved_by_file(&self.split, now, was, share);
            let reason = "the file's share changed".to_owned();
            self.conclude(before, Change::by_file(reason, sentence))
        } else {
            let told = self.state.last_decision.clone();
            let sentence = sentence::changed_by_file(&self.split, now, &changed, share);
            let reason = format!("the file's {changed} changed");
            let effects = self.conclude(before, Change::by_file(reason, sentence));
            if self.state.latch.is_some() {
                // What status has to tell is still why it was rolled back.
                self.state.last_decision = told;
            }
            effects
        }
    }

    /// What the file says otherwise, in words: `plan and rules`.
    fn what_changes(&self, terms: &Terms, moves: bool, other_backends: bool) -> String {
        let (old, new) = (&self.terms.course, &terms.course);
        let any = Criteria::default();
        let is_otherwise_planned = moves || old.judged_by(&any) != new.judged_by(&any);
        let course = match new {
            Course::ByHand { .. } => "share",
            Course::Planned(_) => "plan",
        };
        let parts = [
            (is_otherwise_planned, course),
            (is_judged_otherwise(old, new), "criteria"),
            (self.terms.rules != terms.rules, "rules"),
            (self.terms.signals != terms.signals, "signals"),
            (other_backends, "backends"),
        ];
        let parts = parts.into_iter().filter(|(changes, _)| *changes);
        let parts: Vec<&str> = parts.map(|(_, part)| part).collect();
        match &parts[..] {
            [parts @ .., last] if !parts.is_empty() => format!("{} and {last}", parts.join(", ")),
            parts => parts.concat(),
        }
    }

    /// Takes up another course. A plan goes on at its highest stage not above the present share.
    fn take_up(&mut self, terms: &Terms, old: &Outline, share: Share, now: Timestamp) {
        let (old_position, old_aim) = (self.state.position, self.judge.aim());
        let stages = match old {
            Outline::Stages(shares) => &shares[..],
            Outline::ByHand(_) => &[],
        };
        let stood_at = old_position.and_then(|index| stages.get(index)).copied();
        let old_next = stages.get(old_position.map_or(0, |index| index + 1));
        let old_next = old_next.copied();
        let is_plan_after_plan = matches!(old, Outline::Stages(_)) && terms.course.plan().is_some();
        if !is_plan_after_plan {
            self.state.operator_share = None;
            self.state.is_paused = false;
        }
        self.terms = terms.clone();
        let position = self.plan().and_then(|plan| plan.highest_within(share));
        let stands_at = position.and_then(|index| self.share_of_stage(index));
        if stands_at.is_some() && stands_at == stood_at && self.aim(position) == old_aim {
            // The same stage with the same end: what is proven stays proven.
            self.state.position = position;
            let next = self.next_stage().map(|stage| stage.share);
            // A plan that is longer now is not at its end, and nobody has approved another share.
            self.state.is_completed &= next.is_none();
            if next != old_next {
                self.state.approved_by = None;
            }
            self.judge_by_terms(now);
        } else {
            self.enter(position, now);
        }
    }

    fn share_of_stage(&self, index: usize) -> Option<Share> {
        let stages = self.plan().map(Plan::stages)?;
        stages.get(index).map(|stage| stage.share)
    }

    /// Another attempt, from the beginning.
    fn begin_rollout(&mut self, now: Timestamp) {
        self.state.latch = None;
        self.state.is_paused = false;
        self.state.episodes.clear();
        if self.plan().is_some() {
            self.state.operator_share = None;
        }
        self.enter(self.start(), now);
        self.refresh(now);
    }
}

/// Whether a share that stays is judged by something else.
fn is_judged_otherwise(old: &Course, new: &Course) -> bool {
    match (old.plan(), new.plan()) {
        (Some(old), Some(new)) => new.stages().iter().any(|stage| {
            let mut same = old.stages().iter().filter(|it| it.share == stage.share);
            same.any(|it| it.criteria != stage.criteria)
        }),
        (None, None) => old.criteria(None) != new.criteria(None),
        _ => false,
    }
}
