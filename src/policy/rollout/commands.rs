//! What people want. They always may lower a share; what raises it must not undo a rollback or an
//! emergency by the way.

use super::change::Change;
use super::latch::Latch;
use super::{By, Effect, Phase, Refusal, Rollout, refused, sentence, telling};
use crate::policy::plan::{Plan, Retreat};
use crate::policy::share::Share;
use crate::policy::time::Timestamp;

impl Rollout {
    pub(super) fn set(
        &mut self,
        share: Share,
        override_file: bool,
        by: By,
        now: Timestamp,
    ) -> Result<Vec<Effect>, Refusal> {
        let split = &self.split;
        let most = self.state.latch.as_ref().map(Latch::share);
        if let Some(most) = most.filter(|most| share > *most) {
            return Err(refused(format!(
                "{split} is rolled back: resume it first, then its share may rise above {most}"
            )));
        }
        let file = self.terms.course.file_share();
        if let Some(file) = file.filter(|_| !override_file) {
            return Err(refused(format!(
                "the file fixes the share of {split} at {file}: change it there, or use \
                 --override"
            )));
        }
        let before = self.before(now);
        // Back at the file's own share there is nothing left to override.
        self.state.operator_share = Some(share).filter(|share| file != Some(*share));
        self.state.is_completed = false;
        let was = before.standing.share;
        let sentence = sentence::set(&self.split, now, share, was, self.obstacle(), &by);
        Ok(self.conclude(before, Change::by_person("set", by, sentence)))
    }

    pub(super) fn go_to_stage(
        &mut self,
        number: usize,
        by: By,
        now: Timestamp,
    ) -> Result<Vec<Effect>, Refusal> {
        let count = self.plan_or_refusal()?.stages().len();
        let Some(position) = number.checked_sub(1).filter(|index| *index < count) else {
            let split = &self.split;
            return Err(refused(format!("{split} has the stages 1 to {count}")));
        };
        self.move_to(position, "stage", by, now)
    }

    pub(super) fn promote(&mut self, by: By, now: Timestamp) -> Result<Vec<Effect>, Refusal> {
        self.plan_or_refusal()?;
        let Some(next) = self.next_position() else {
            let way_on = match self.state.operator_share {
                Some(share) => format!(", but for an operator's share of {share}: resume it"),
                None => String::new(),
            };
            return Err(refused(format!(
                "{} is at the last stage of its plan{way_on}",
                self.split
            )));
        };
        self.move_to(next, "promote", by, now)
    }

    fn move_to(
        &mut self,
        position: usize,
        action: &'static str,
        by: By,
        now: Timestamp,
    ) -> Result<Vec<Effect>, Refusal> {
        if self.state.latch.is_some() {
            return Err(refused(format!(
                "{} is rolled back: resume it first",
                self.split
            )));
        }
        let before = self.before(now);
        let was_paused = self.phase() == Phase::Paused;
        self.state.operator_share = None;
        self.state.is_paused = false;
        self.enter(Some(position), now);
        let was = before.standing.share;
        let obstacle = self.obstacle();
        let sentence = telling::moved(self, was, was_paused, obstacle, &by, now);
        Ok(self.conclude(before, Change::by_person(action, by, sentence)))
    }

    pub(super) fn pause(&mut self, by: By, now: Timestamp) -> Result<Vec<Effect>, Refusal> {
        self.plan_or_refusal()?;
        let split = &self.split;
        match self.phase() {
            Phase::RolledBack => {
                let message = format!("{split} is rolled back: nothing raises its share anyhow");
                return Err(refused(message));
            }
            Phase::Completed => return Err(refused(format!("{split} is completed"))),
            Phase::Pending | Phase::Progressing | Phase::Paused => {}
        }
        let before = self.before(now);
        let again = self.state.is_paused;
        self.state.is_paused = true;
        let sentence = telling::paused(self, again, &by, now);
        Ok(self.conclude(before, Change::by_person("pause", by, sentence)))
    }

    pub(super) fn approve(&mut self, by: By, now: Timestamp) -> Result<Vec<Effect>, Refusal> {
        self.plan_or_refusal()?;
        let split = &self.split;
        if self.state.latch.is_some() {
            return Err(refused(format!("{split} is rolled back: resume it first")));
        }
        let Some(next) = self.next_stage().map(|stage| stage.share) else {
            return Err(refused(format!(
                "{split} is at the last stage of its plan: there is nothing to approve"
            )));
        };
        if !self.needs_approval() {
            return Err(refused(format!(
                "{split} goes to {next} without approval; `promote` takes it there now"
            )));
        }
        let before = self.before(now);
        let again = self.state.approved_by.replace(by.actor.clone()).is_some();
        let sentence = telling::approved(self, next, again, &by, now);
        Ok(self.conclude(before, Change::by_person("approve", by, sentence)))
    }

    pub(super) fn rolled_back_by(
        &mut self,
        to: Option<Retreat>,
        by: By,
        now: Timestamp,
    ) -> Vec<Effect> {
        let before = self.before(now);
        let was = before.standing.share;
        let again = self.state.latch.is_some();
        let target = match to {
            // Who says it a second time means it.
            Some(Retreat::PreviousStage) => self.stage_below(),
            Some(Retreat::Zero) => Share::ZERO,
            None => self.retreat(self.terms.rules.retreat),
        };
        // Somewhere half way down a ramp, one stage back may be above where it leads.
        let most = self.state.latch.as_ref().map(Latch::target);
        let target = most.map_or(target, |most| target.min(most));
        self.begin_latch(Latch::at_once(target), now);
        let to = self.standing().share;
        let sentence = sentence::rolled_back_by(&self.split, now, was, to, again, &by);
        self.conclude(before, Change::by_person("rollback", by, sentence))
    }

    pub(super) fn resume(
        &mut self,
        stage: Option<usize>,
        by: By,
        now: Timestamp,
    ) -> Result<Vec<Effect>, Refusal> {
        let is_planned = self.plan().is_some();
        let stands_still =
            is_planned && (self.state.is_paused || self.state.operator_share.is_some());
        let was_latched = self.state.latch.is_some();
        if !was_latched && !stands_still && !self.is_suspected() {
            let split = &self.split;
            return Err(refused(format!(
                "{split} is neither rolled back nor paused, and nothing speaks against it: there is \
                 nothing to resume"
            )));
        }
        let position = match stage {
            None => self.state.position,
            Some(number) => Some(self.stage_to_resume(number)?),
        };
        let before = self.before(now);
        self.state.latch = None;
        self.state.is_paused = false;
        self.state.episodes.clear();
        if is_planned {
            self.state.operator_share = None;
        }
        self.enter(position, now);
        // A person has seen what spoke against it, and wants to go on all the same.
        self.refresh(now);
        let share = self.intended_share();
        let sentence = sentence::resumed(&self.split, now, share, self.obstacle(), &by);
        Ok(self.conclude(before, Change::by_person("resume", by, sentence)))
    }

    /// The index of the stage with this number, if a resume may begin there.
    fn stage_to_resume(&self, number: usize) -> Result<usize, Refusal> {
        let count = self.plan_or_refusal()?.stages().len();
        let split = &self.split;
        let most = self.state.position.map_or(0, |index| index + 1);
        if (1..=most).contains(&number) {
            Ok(number - 1)
        } else if number > count || number == 0 {
            Err(refused(format!("{split} has the stages 1 to {count}")))
        } else {
            Err(refused(format!(
                "{split} was interrupted in stage {most}: resume there or below, and raise it then"
            )))
        }
    }

    pub(super) fn declare(&mut self, active: bool, by: By, now: Timestamp) -> Vec<Effect> {
        let before = self.before(now);
        let again = self.state.emergency == active;
        self.state.emergency = active;
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

    fn plan_or_refusal(&self) -> Result<&Plan, Refusal> {
        self.plan().ok_or_else(|| {
            refused(format!(
                "{} has no plan: give it `stages` in the file, or move its share with `set`",
                self.split
            ))
        })
    }
}
