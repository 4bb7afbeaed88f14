//! What the engine decides by itself: back at the first sign of harm, on when all is proven.

use super::change::Change;
use super::latch::Latch;
use super::sentence::Cause;
use super::telling::Ending;
use super::{Decision, Effect, Glance, Phase, Refusal, Rollout, Wait, refused, sentence, telling};
use crate::policy::criteria::Action;
use crate::policy::duration;
use crate::policy::judge::guards::Guard;
use crate::policy::judge::window::Window;
use crate::policy::judge::{Breach, Verdict};
use crate::policy::plan::{OnTimeout, Plan, Retreat};
use crate::policy::share::Share;
use crate::policy::time::Timestamp;

/// Something that pauses for less than this many watched seconds is one episode, told of once.
const EPISODE: f64 = 60.0;

/// What is to be done about a cause.
#[derive(Clone, Copy, PartialEq)]
enum Finding {
    Rollback,
    /// Not to be raised, and why it is not rolled back if it should be.
    Hold(Option<Guard>),
}

impl Rollout {
    pub(super) fn observed(&mut self, window: &Window, now: Timestamp) -> Vec<Effect> {
        self.pass(window.seconds);
        self.state.seen_at = Some(now);
        let mut effects = self.descend(window.seconds);
        self.glance = Glance {
            is_taken: true,
            is_held: false,
            is_new_available: window.new_available,
        };
        let mut is_withheld = false;
        // Nothing is sent to `new` but pinned keys, which are no evidence; what still ends there
        // was sent before, and has been decided about.
        if self.standing().share == Share::ZERO {
            self.judge.learn(window);
            let is_ripening = self.is_under_way() && self.is_idle() && window.new_available;
            if is_ripening && self.state.board.is_calm() {
                self.state.times.healthy += window.seconds.max(0.0);
            }
        } else {
            let (healthy, _) = self.judge.progress();
            let verdict = self.judge.observe(window, now);
            // The judge knows nothing of signals: what they speak against is no good health.
            if self.judge.progress().0 > healthy && self.state.board.is_calm() {
                self.state.times.calm += window.seconds.max(0.0);
            }
            let findings = self.findings(verdict, window.legacy_available);
            let mut rollbacks = findings.iter().filter(|(_, it)| *it == Finding::Rollback);
            let rollback = rollbacks.next().filter(|_| !self.terms.rules.advise);
            if let Some((cause, _)) = rollback {
                // Where this leads is lower than any step of a ramp, which need not be told first.
                return self.rolled_back_for(cause, now);
            }
            self.glance.is_held = !findings.is_empty();
            for (cause, finding) in &findings {
                effects.extend(match finding {
                    Finding::Rollback => self.advised(cause, now),
                    Finding::Hold(guard) => self.held(cause, *guard, now),
                });
            }
            let mut guarded = findings.iter();
            is_withheld = guarded.any(|(_, finding)| matches!(finding, Finding::Hold(Some(_))));
        }
        // After a rollback to 0 nothing is judged.
        if self.state.latch.is_none() || self.standing().share > Share::ZERO {
            effects.extend(self.notices(now));
        }
        // A stage that lasts too long must not undo what a guard has withheld.
        if !is_withheld {
            effects.extend(self.end_of_stage(window.legacy_available, now));
        }
        // A window never raises a share, so what it changes waits for nothing that is kept or told.
        effects.sort_by_key(|effect| !matches!(effect, Effect::Publish(_)));
        effects
    }

    /// All that speaks against `new` and what is to be done about it, what the verdict names first.
    /// Some come twice, which their episodes make one.
    fn findings(&self, verdict: Verdict, legacy_available: bool) -> Vec<(Cause, Finding)> {
        let judged = |breach| Cause::Judged(Breach::Limit(breach));
        let mut findings = Vec::new();
        match verdict {
            Verdict::Fail(breach) => findings.push((Cause::Judged(breach), Finding::Rollback)),
            Verdict::Hold(breach, guard) => {
                findings.push((Cause::Judged(breach), Finding::Hold(guard)));
            }
            Verdict::Pass | Verdict::Inconclusive(_) => {}
        }
        if !findings.is_empty() {
            // The gravest one must not hide the others: it may end, and they go on.
            let breaches = self.judge.breaches();
            let rollbacks = breaches.filter(|it| it.criterion.action == Action::Rollback);
            findings.extend(rollbacks.map(|breach| (judged(breach), Finding::Rollback)));
            let held = self.judge.held();
            findings.extend(held.map(|(breach, guard)| (judged(breach), Finding::Hold(guard))));
        }
        findings.extend(self.signalled(legacy_available));
        findings
    }

    fn signalled(&self, legacy_available: bool) -> impl Iterator<Item = (Cause, Finding)> {
        let rollback = match legacy_available {
            true => Finding::Rollback,
            false => Finding::Hold(Some(Guard::LegacyUnavailable)),
        };
        let breached = self.state.board.breached();
        breached.filter_map(move |breach| {
            let finding = match breach.criterion.action {
                Action::Rollback => rollback,
                Action::Hold => Finding::Hold(None),
                Action::Notify => return None,
            };
            Some((Cause::Signal(breach), finding))
        })
    }

    fn pass(&mut self, seconds: f64) {
        let seconds = seconds.max(0.0);
        self.state.board.pass(seconds);
        let is_under_way = self.is_under_way();
        let times = &mut self.state.times;
        times.watched += seconds;
        if is_under_way {
            times.stage += seconds;
        }
    }

    /// Whether the present stage is the one that people are in.
    pub(super) fn is_under_way(&self) -> bool {
        !self.state.emergency && self.phase() == Phase::Progressing
    }

    /// A ramp goes on. It has been announced when it began.
    fn descend(&mut self, seconds: f64) -> Vec<Effect> {
        let before = self.standing();
        let over = self.terms.rules.ramp;
        let latch = self.state.latch.as_mut();
        let falls = latch.is_some_and(|latch| latch.pass(seconds, over));
        let standing = self.standing();
        if falls && standing != before {
            vec![Effect::Publish(standing), Effect::Persist]
        } else {
            Vec::new()
        }
    }

    fn rolled_back_for(&mut self, cause: &Cause, now: Timestamp) -> Vec<Effect> {
        let before = self.before(now);
        let target = self.retreat(self.terms.rules.retreat);
        self.latch_at(target, now);
        let criteria = self.judge.criteria();
        let destination = self.destination(target);
        let sentence = sentence::rolled_back(&self.split, now, cause, criteria, &destination);
        let change = Change::by_engine("rollback", sentence::reason(cause), sentence);
        self.conclude(before, change)
    }

    /// Where a rollback to `retreat` leads. The second one in a row always leads to 0.
    pub(super) fn retreat(&self, retreat: Retreat) -> Share {
        match retreat {
            Retreat::PreviousStage if self.state.latch.is_none() => self.stage_below(),
            Retreat::Zero | Retreat::PreviousStage => Share::ZERO,
        }
    }

    /// The share of the last stage below what is in effect.
    pub(super) fn stage_below(&self) -> Share {
        let share = self.share_within_latch();
        let stages = self.plan().into_iter().flat_map(Plan::shares);
        let below = stages.take_while(|stage| *stage < share);
        below.last().unwrap_or(Share::ZERO)
    }

    /// Latches the share, by a ramp if there is one and nothing has been rolled back before.
    fn latch_at(&mut self, target: Share, now: Timestamp) {
        let from = self.share_within_latch();
        let ramp = self.terms.rules.ramp;
        let latch = if self.state.latch.is_some() || ramp.is_zero() {
            Latch::at_once(target)
        } else {
            Latch::ramp(from, target, ramp)
        };
        self.begin_latch(latch, now);
    }

    pub(super) fn begin_latch(&mut self, latch: Latch, now: Timestamp) {
        let goes_on = latch.share() > Share::ZERO;
        self.state.latch = Some(latch);
        self.state.approved_by = None;
        self.state.is_completed = false;
        self.state.episodes.clear();
        if goes_on {
            // The same failures must not take the share to 0 in the next tick.
            self.refresh(now);
        }
    }

    /// What is said of where a rollback leads, where that is not at once to 0.
    fn destination(&self, target: Share) -> String {
        let share = self.share_within_latch();
        if share > target {
            let over = duration::print(self.terms.rules.ramp);
            format!(" to {target} by a ramp of {over}")
        } else if target > Share::ZERO {
            format!(" to {target}")
        } else {
            String::new()
        }
    }

    fn held(&mut self, cause: &Cause, guard: Option<Guard>, now: Timestamp) -> Vec<Effect> {
        let guarded_by = guard.map_or("", Guard::as_str);
        if !self.begins_episode(&format!("hold {} {guarded_by}", sentence::condition(cause))) {
            return Vec::new();
        }
        let before = self.before(now);
        let share = before.standing.share;
        let sentence = sentence::held(&self.split, now, share, cause, guard);
        let change = Change::by_engine("hold", sentence::reason(cause), sentence);
        self.conclude(before, change)
    }

    /// The engine would have rolled back, but may only say so.
    fn advised(&mut self, cause: &Cause, now: Timestamp) -> Vec<Effect> {
        self.glance.is_held = true;
        if !self.begins_episode(&format!("advise {}", sentence::condition(cause))) {
            return Vec::new();
        }
        let before = self.before(now);
        let sentence = sentence::advised(&self.split, now, cause);
        let change = Change::by_engine("advise", sentence::reason(cause), sentence);
        self.conclude(before, change)
    }

    /// Tells of breached criteria that ask for no more.
    fn notices(&mut self, now: Timestamp) -> Vec<Effect> {
        let judged = self.judge.breaches();
        let judged = judged.filter(|breach| breach.criterion.action == Action::Notify);
        let told = self.state.board.breached();
        let told = told.filter(|breach| breach.criterion.action == Action::Notify);
        let causes: Vec<Cause> = judged
            .map(|breach| Cause::Judged(Breach::Limit(breach)))
            .chain(told.map(Cause::Signal))
            .collect();
        let mut effects = Vec::new();
        for cause in causes {
            let reason = sentence::reason(&cause);
            if self.begins_episode(&reason) {
                let before = self.before(now);
                let sentence = sentence::noticed(&self.split, now, &cause);
                let change = Change::by_engine("notify", reason, sentence);
                effects.extend(self.conclude(before, change));
            }
        }
        effects
    }

    /// Whether something that lasts was not told of within the last minute.
    fn begins_episode(&mut self, what: &str) -> bool {
        let watched = self.state.times.watched;
        let episodes = &mut self.state.episodes;
        episodes.retain(|_, at| watched - *at < EPISODE);
        episodes.insert(what.to_owned(), watched).is_none()
    }

    /// The last stage is proven, or a stage has lasted too long.
    fn end_of_stage(&mut self, legacy_available: bool, now: Timestamp) -> Vec<Effect> {
        if !self.is_under_way() {
            return Vec::new();
        }
        let Some(stage) = self.stage() else {
            return Vec::new();
        };
        let on_timeout = stage.on_timeout;
        let waits = self.hindrances(now);
        let is_undecided = waits.iter().any(Wait::is_of_proof);
        let is_timed_out = self.is_late() && is_undecided && on_timeout != OnTimeout::Advance;
        if self.next_position().is_none() && waits.is_empty() {
            self.completed(now)
        } else if is_timed_out {
            let ending = if on_timeout == OnTimeout::Rollback && !legacy_available {
                Ending::Withheld
            } else if self.terms.rules.advise {
                Ending::Advised(on_timeout)
            } else {
                Ending::Done(on_timeout)
            };
            let lacking = waits.first().map(ToString::to_string).unwrap_or_default();
            self.timed_out(ending, lacking, now)
        } else if self.terms.rules.advise {
            self.advised_advance(&waits, now)
        } else {
            self.flapping(&waits, now)
        }
    }

    fn completed(&mut self, now: Timestamp) -> Vec<Effect> {
        let before = self.before(now);
        self.state.is_completed = true;
        let sentence = telling::completed(self, now);
        let change = Change::by_engine("complete", "every stage is proven".to_owned(), sentence);
        self.conclude(before, change)
    }

    fn timed_out(&mut self, ending: Ending, lacking: String, now: Timestamp) -> Vec<Effect> {
        let action = match ending {
            Ending::Done(_) => "timeout",
            Ending::Advised(_) => "advise",
            Ending::Withheld => "hold",
        };
        let is_done = matches!(ending, Ending::Done(_));
        if !is_done && !self.begins_episode(&format!("{action} timeout")) {
            return Vec::new();
        }
        let before = self.before(now);
        let sentence = telling::timed_out(self, ending, &lacking, now);
        match ending {
            Ending::Done(OnTimeout::Rollback) => {
                let target = self.retreat(self.terms.rules.retreat);
                self.latch_at(target, now);
            }
            Ending::Done(_) => self.state.is_paused = true,
            Ending::Advised(_) | Ending::Withheld => {}
        }
        self.conclude(before, Change::by_engine(action, lacking, sentence))
    }

    /// Tells that nothing but too many changes keeps the engine from raising the share.
    fn flapping(&mut self, waits: &[Wait], now: Timestamp) -> Vec<Effect> {
        let [wait @ Wait::Flapping { .. }] = waits else {
            return Vec::new();
        };
        if !self.begins_episode("flapping") {
            return Vec::new();
        }
        let before = self.before(now);
        let sentence = telling::holding(self, &wait.to_string(), now);
        let change = Change::by_engine("hold", "max_changes_per_day".to_owned(), sentence);
        self.conclude(before, change)
    }

    /// Tells that nothing but `advise` keeps the engine from raising the share.
    fn advised_advance(&mut self, waits: &[Wait], now: Timestamp) -> Vec<Effect> {
        let next = self.next_stage().map(|stage| stage.share);
        let (Some(next), [Wait::Advising]) = (next, waits) else {
            return Vec::new();
        };
        if !self.begins_episode(&format!("advise an advance to {next}")) {
            return Vec::new();
        }
        let before = self.before(now);
        let sentence = telling::advised_advance(self, now);
        let change = Change::by_engine("advise", "every requirement is met".to_owned(), sentence);
        self.conclude(before, change)
    }

    pub(super) fn advance(
        &mut self,
        promised: Option<Box<Decision>>,
        now: Timestamp,
    ) -> Result<Vec<Effect>, Refusal> {
        let Some(next) = self.next_position() else {
            return Err(refused(format!("{} has no further stage", self.split)));
        };
        if let Some(wait) = self.waits(now).first() {
            return Err(refused(format!("{}: {wait}", self.split)));
        }
        let is_another = |promised: &Decision| {
            let to = self.next_stage().map(|stage| stage.share);
            promised.revision != self.state.revision || Some(promised.to) != to
        };
        if promised.as_deref().is_some_and(is_another) {
            return Err(refused(format!(
                "{}: something else was decided since this step was promised",
                self.split
            )));
        }
        let before = self.before(now);
        let was = before.standing.share;
        let (proof, lasted) = (telling::proof(self), self.stage_seconds());
        let unproven = self.unproven().map(|lack| lack.to_string());
        let unproven: Vec<String> = unproven.collect();
        self.enter(Some(next), now);
        let (reason, sentence) = if unproven.is_empty() {
            let sentence = telling::advanced(self, was, &proof, now);
            ("every requirement is met".to_owned(), sentence)
        } else {
            let lacking = unproven.join(" ");
            let sentence = telling::advanced_late(self, was, lasted, &lacking, now);
            ("on_timeout: advance".to_owned(), sentence)
        };
        let change = Change::by_engine("advance", reason, sentence);
        Ok(self.conclude_as(before, change, promised))
    }
}
