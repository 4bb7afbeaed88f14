//! The naive twin: plain fields, and what each step does to them.

use super::super::*;
use super::steps::{CourseSketch, Edit, Sketch, StageSketch, Weather};
use super::{SECOND, Ticks};
use crate::policy::judge::{Lack, Verdict};
use crate::policy::plan::{OnTimeout, Retreat};

/// All that a rollout is, but for the judge's evidence.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Twin {
    pub(super) file: Sketch,
    pub(super) position: Option<usize>,
    pub(super) latch: Option<Descent>,
    pub(super) operator: Option<Share>,
    pub(super) is_paused: bool,
    pub(super) is_completed: bool,
    pub(super) is_approved: bool,
    pub(super) emergency: bool,
    pub(super) time: Times,
    /// What the last window has shown; none since a restart.
    pub(super) look: Option<Look>,
}

/// A latch that may still come down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Descent {
    pub(super) from: Share,
    pub(super) target: Share,
    pub(super) now: Share,
    ticks: Ticks,
}

/// Watched time, and what was seen in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Times {
    pub(super) watched: Ticks,
    pub(super) changes: Vec<Ticks>,
    /// Of the stage.
    pub(super) stage: Ticks,
    pub(super) judged: Ticks,
    pub(super) available: Ticks,
    pub(super) requests: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Look {
    is_held: bool,
    is_available: bool,
    is_legacy_available: bool,
}

/// What the judge says of a window, and what it lacks after it.
pub(super) type Word = (Verdict, Vec<Lack>);

impl Twin {
    pub(super) fn new(file: Sketch) -> Self {
        let mut twin = Self {
            file,
            position: None,
            latch: None,
            operator: None,
            is_paused: false,
            is_completed: false,
            is_approved: false,
            emergency: false,
            time: Times::default(),
            look: None,
        };
        twin.position = twin.start();
        twin
    }

    // What can be asked.

    pub(super) fn standing(&self) -> Standing {
        let share = if self.emergency {
            Share::ZERO
        } else {
            self.without_emergency()
        };
        Standing {
            share,
            emergency: self.emergency,
        }
    }

    fn without_emergency(&self) -> Share {
        let most = self.latch.map_or(Share::ALL, |latch| latch.now);
        most.min(self.intended())
    }

    pub(super) fn intended(&self) -> Share {
        self.operator.unwrap_or(self.filed())
    }

    fn filed(&self) -> Share {
        match &self.file.course {
            CourseSketch::ByHand(share) => share.unwrap_or(Share::ZERO),
            CourseSketch::Plan(_) => self.stage().map_or(Share::ZERO, |stage| stage.share),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        if self.latch.is_some() {
            Phase::RolledBack
        } else if self.stages().is_empty() {
            Phase::Progressing
        } else if self.is_paused || self.operator.is_some() {
            Phase::Paused
        } else if self.is_completed {
            Phase::Completed
        } else if self.position.is_none() {
            Phase::Pending
        } else {
            Phase::Progressing
        }
    }

    /// None without a plan.
    pub(super) fn stages(&self) -> &[StageSketch] {
        match &self.file.course {
            CourseSketch::ByHand(_) => &[],
            CourseSketch::Plan(stages) => stages,
        }
    }

    pub(super) fn stage(&self) -> Option<&StageSketch> {
        self.stages().get(self.position?)
    }

    pub(super) fn next(&self) -> Option<&StageSketch> {
        self.stages()
            .get(self.position.map_or(0, |index| index + 1))
    }

    fn start(&self) -> Option<usize> {
        let first = self.stages().first()?;
        (first.share == Share::ZERO).then_some(0)
    }

    pub(super) fn needs_approval(&self) -> bool {
        let Some(next) = self.next() else {
            return false;
        };
        let is_blind = self.filed() == Share::ZERO && next.share > share(10);
        is_blind || self.stage().is_some_and(|stage| stage.approval)
    }

    pub(super) fn is_late(&self) -> bool {
        let timeout = self.stage().and_then(|stage| stage.timeout);
        timeout.is_some_and(|timeout| self.time.stage >= timeout)
    }

    pub(super) fn goes_on_unproven(&self) -> bool {
        let then = self.stage().map(|stage| stage.on_timeout);
        self.is_late() && then == Some(OnTimeout::Advance)
    }

    pub(super) fn is_closed(&self, now: Timestamp) -> bool {
        let stage = self.stage().or(self.next());
        stage.is_some_and(|stage| stage.mornings_only) && now.seconds() / 3_600 % 24 >= 12
    }

    pub(super) fn is_cooling_down(&self) -> bool {
        let last = self.time.changes.last();
        last.is_some_and(|at| self.time.watched - at < self.file.rules.cool_down)
    }

    pub(super) fn changes_of_a_day(&self) -> usize {
        let is_recent = |at: &&Ticks| self.time.watched - **at < 86_400 * SECOND;
        self.time.changes.iter().filter(is_recent).count()
    }

    /// What the next step waits for, by kind; `lacks` is the judge's word.
    pub(super) fn waits(&self, lacks: &[Lack], now: Timestamp) -> Vec<&'static str> {
        if self.stages().is_empty() || self.phase() == Phase::Completed {
            return Vec::new();
        }
        let is_idle = self.intended() == Share::ZERO;
        let look = self.look;
        let observe = self.stage().map_or(0, |stage| stage.observe);
        let is_excused = |lack: &&Lack| {
            let may_be_excused = match lack {
                Lack::Requests { .. } => self.time.requests > 0,
                lack => matches!(lack, Lack::Time { .. } | Lack::Proof { .. }),
            };
            may_be_excused && self.goes_on_unproven()
        };
        let lacks = lacks.iter().filter(|lack| !is_excused(lack)).count();
        let lacks = match is_idle {
            true => usize::from(self.time.available < observe),
            false => lacks,
        };
        let has_next = self.next().is_some();
        let rules = &self.file.rules;
        let mut waits = Vec::new();
        let mut add = |count: usize, what| waits.extend(std::iter::repeat_n(what, count));
        add(self.emergency.into(), "Emergency");
        add(self.latch.is_some().into(), "Latch");
        add(self.is_paused.into(), "Pause");
        add(self.operator.is_some().into(), "OperatorShare");
        add(look.is_none().into(), "Look");
        let is_away = is_idle && look.is_some_and(|look| !look.is_available);
        add(is_away.into(), "Health");
        let is_held = !is_idle && look.is_some_and(|look| look.is_held);
        add(is_held.into(), "Hold");
        add(lacks, "Judge");
        if has_next {
            let must_ask = self.needs_approval() && !self.is_approved;
            add(must_ask.into(), "Approval");
            add(self.is_closed(now).into(), "Calendar");
            add(self.is_cooling_down().into(), "CoolDown");
            let is_flapping = self.changes_of_a_day() >= rules.max_changes;
            add(is_flapping.into(), "Flapping");
            add(rules.advise.into(), "Advising");
        }
        waits
    }

    pub(super) fn may_advance(&self, lacks: &[Lack], now: Timestamp) -> bool {
        let is_over = self.phase() == Phase::Completed;
        !is_over && self.next().is_some() && self.waits(lacks, now).is_empty()
    }

    // What time brings.

    /// A window passes; whether it will be judged.
    pub(super) fn pass(&mut self, length: Ticks, weather: Weather) -> bool {
        let is_under_way = self.phase() == Phase::Progressing && !self.emergency;
        let time = &mut self.time;
        time.watched += length;
        if is_under_way {
            time.stage += length;
        }
        let ramp = self.file.rules.ramp;
        if let Some(latch) = &mut self.latch {
            latch.fall(length, ramp);
        }
        let is_available = weather != Weather::Unavailable;
        self.look = Some(Look {
            is_held: false,
            is_available,
            is_legacy_available: weather != Weather::LegacyGone,
        });
        let is_judged = self.standing().share > Share::ZERO;
        if is_judged {
            self.time.judged += length;
            self.time.requests += if weather == Weather::Silent { 0 } else { 64 };
        } else if is_under_way && is_available && self.intended() == Share::ZERO {
            self.time.available += length;
        }
        is_judged
    }

    /// What the engine does about a window; `word` is none if it was not judged.
    pub(super) fn decide(&mut self, word: Option<Word>, now: Timestamp) {
        let advise = self.file.rules.advise;
        let lacks = match word {
            None => Vec::new(),
            Some((Verdict::Fail(_), _)) if !advise => return self.roll_back(),
            Some((verdict, lacks)) => {
                if let Some(look) = &mut self.look {
                    look.is_held = matches!(verdict, Verdict::Fail(_) | Verdict::Hold(..));
                }
                if matches!(verdict, Verdict::Hold(_, Some(_))) {
                    return;
                }
                lacks
            }
        };
        if self.phase() != Phase::Progressing || self.emergency {
            return;
        }
        let Some(on_timeout) = self.stage().map(|stage| stage.on_timeout) else {
            return;
        };
        let waits = self.waits(&lacks, now);
        let is_undecided = ["Health", "Hold", "Judge"];
        let is_undecided = waits.iter().any(|wait| is_undecided.contains(wait));
        if self.next().is_none() && waits.is_empty() {
            self.is_completed = true;
        } else if self.is_late() && is_undecided && !advise {
            match on_timeout {
                OnTimeout::Hold => self.is_paused = true,
                // Nobody is sent to an arm that can take nobody.
                OnTimeout::Rollback if !self.sees_legacy() => {}
                OnTimeout::Rollback => self.roll_back(),
                OnTimeout::Advance => {}
            }
        }
    }

    fn sees_legacy(&self) -> bool {
        self.look.is_some_and(|look| look.is_legacy_available)
    }

    fn roll_back(&mut self) {
        let from = self.without_emergency();
        let target = match self.file.rules.retreat {
            Retreat::PreviousStage if self.latch.is_none() => self.stage_below(),
            Retreat::Zero | Retreat::PreviousStage => Share::ZERO,
        };
        let ramp = self.file.rules.ramp;
        if self.latch.is_some() || ramp == 0 {
            self.begin_latch(Descent::at_once(target));
        } else {
            let mut latch = Descent {
                from,
                ..Descent::at_once(target)
            };
            latch.now = from;
            latch.fall(0, ramp);
            self.begin_latch(latch);
        }
    }

    fn stage_below(&self) -> Share {
        let share = self.without_emergency();
        let below = self.stages().iter().map(|stage| stage.share);
        let below = below.filter(|stage| *stage < share);
        below.max().unwrap_or(Share::ZERO)
    }

    fn begin_latch(&mut self, latch: Descent) {
        self.latch = Some(latch);
        self.is_approved = false;
        self.is_completed = false;
        if latch.now > Share::ZERO {
            self.forget_proof();
        }
    }

    fn forget_proof(&mut self) {
        self.time.judged = 0;
        self.time.available = 0;
        self.time.requests = 0;
    }

    fn enter(&mut self, position: Option<usize>) {
        self.position = position;
        self.is_completed = false;
        self.is_approved = false;
        self.time.stage = 0;
        self.forget_proof();
    }

    // What people and files want; whether they may.

    pub(super) fn advance(&mut self, lacks: &[Lack], now: Timestamp) -> bool {
        let may = self.may_advance(lacks, now);
        if may {
            self.enter(Some(self.position.map_or(0, |index| index + 1)));
        }
        may
    }

    pub(super) fn set(&mut self, share: Share, override_file: bool) -> bool {
        let file = match self.file.course {
            CourseSketch::ByHand(share) => share,
            CourseSketch::Plan(_) => None,
        };
        let raises = self.latch.is_some_and(|latch| share > latch.now);
        if raises || (file.is_some() && !override_file) {
            return false;
        }
        self.operator = (file != Some(share)).then_some(share);
        self.is_completed = false;
        true
    }

    pub(super) fn go_to(&mut self, number: usize) -> bool {
        let may = (1..=self.stages().len()).contains(&number) && self.latch.is_none();
        if may {
            self.operator = None;
            self.is_paused = false;
            self.enter(Some(number - 1));
        }
        may
    }

    pub(super) fn promote(&mut self) -> bool {
        self.go_to(self.position.map_or(1, |index| index + 2))
    }

    pub(super) fn pause(&mut self) -> bool {
        let is_over = matches!(self.phase(), Phase::RolledBack | Phase::Completed);
        let may = !self.stages().is_empty() && !is_over;
        self.is_paused |= may;
        may
    }

    pub(super) fn approve(&mut self) -> bool {
        let may = self.latch.is_none() && self.needs_approval();
        self.is_approved |= may;
        may
    }

    pub(super) fn rolled_back_by(&mut self, to: Option<Retreat>) {
        let target = match (to.unwrap_or(self.file.rules.retreat), to, self.latch) {
            (Retreat::Zero, _, _) | (Retreat::PreviousStage, None, Some(_)) => Share::ZERO,
            (Retreat::PreviousStage, _, _) => self.stage_below(),
        };
        let most = self.latch.map_or(Share::ALL, |latch| latch.target);
        self.begin_latch(Descent::at_once(target.min(most)));
    }

    pub(super) fn resume(&mut self, is_suspected: bool) -> bool {
        let is_planned = !self.stages().is_empty();
        let stands_still = is_planned && (self.is_paused || self.operator.is_some());
        if self.latch.is_none() && !stands_still && !is_suspected {
            return false;
        }
        self.latch = None;
        self.is_paused = false;
        if is_planned {
            self.operator = None;
        }
        self.enter(self.position);
        true
    }

    /// The file says something else.
    pub(super) fn configure(&mut self, edit: &Edit) {
        let before = self.clone();
        self.file = before.file.edited(edit);
        let shares = |twin: &Twin| match &twin.file.course {
            CourseSketch::ByHand(share) => (true, share.iter().copied().collect::<Vec<_>>()),
            CourseSketch::Plan(stages) => (false, stages.iter().map(|it| it.share).collect()),
        };
        if shares(self) != shares(&before) {
            self.take_up(&before);
        }
        if self.file.id != before.file.id {
            self.latch = None;
            self.is_paused = false;
            if !self.stages().is_empty() {
                self.operator = None;
            }
            self.enter(self.start());
        } else if self.file.backend != before.file.backend {
            self.forget_proof();
        }
    }

    fn take_up(&mut self, before: &Twin) {
        if self.stages().is_empty() || before.stages().is_empty() {
            self.operator = None;
            self.is_paused = false;
        }
        let share = before.intended();
        self.position = self.stages().iter().rposition(|it| it.share <= share);
        let place = |twin: &Twin| {
            let here = twin.stage().map(|stage| stage.share)?;
            let next = twin.next().map(|stage| stage.share);
            Some((here, next == Some(Share::ALL)))
        };
        if place(self).is_none() || place(self) != place(before) {
            return self.enter(self.position);
        }
        // The same stage. But it may lead further now, or somewhere nobody has approved.
        let next = |twin: &Twin| twin.next().map(|stage| stage.share);
        self.is_completed &= self.next().is_none();
        self.is_approved &= next(self) == next(before);
    }

    /// A change of what is in effect is remembered.
    pub(super) fn note_change(&mut self, before: Standing) {
        if self.standing().share != before.share {
            self.time.changes.push(self.time.watched);
        }
    }
}

impl Descent {
    fn at_once(target: Share) -> Self {
        Self {
            from: target,
            target,
            now: target,
            ticks: 0,
        }
    }

    /// Ten steps, the first one at once.
    fn fall(&mut self, ticks: Ticks, ramp: Ticks) {
        if self.now <= self.target {
            return;
        }
        self.ticks += ticks;
        let tenths = (10 * self.ticks)
            .checked_div(ramp)
            .map_or(10, |it| (it + 1).min(10));
        let (from, target) = (self.from.basis_points(), self.target.basis_points());
        let fallen = u32::from(from - target) * tenths / 10;
        let fallen = u16::try_from(fallen).expect("less than a share");
        let now = Share::from_basis_points(from - fallen).expect("a share");
        self.now = self.now.min(now);
    }
}
