//! One split's rollout, and what was last read of its counters.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use super::attention::{Attention, Circumstances, Closed, Span};
use crate::control::traffic::Traffic;
use crate::policy::arm::Arm;
use crate::policy::judge::window::{ArmCounts, StreakReading, Window};
use crate::policy::rollout::Rollout;
use crate::policy::time::{Elapsed, Timestamp};
use crate::telemetry::histogram::Histogram;
use crate::telemetry::tally::{SplitReading, SplitTally};
use crate::upstream::budget::Budget;

/// One split's rollout, and what was last read of its counters.
#[derive(Clone, Debug)]
pub struct SplitState {
    /// Decides.
    pub rollout: Rollout,
    pub(super) tally: Arc<SplitTally>,
    /// The last reading; none before anything was counted.
    reading: Option<Box<SplitReading>>,
    /// What the tally told of its changes before that reading.
    changes: u64,
    attention: Attention,
    /// Whether something was counted, or became of the arms, that may not have been saved.
    is_stirred: bool,
    refilled: Refill,
    pub(super) traffic: Traffic,
    /// When the split left `new`, if it is rolled back or under an emergency.
    pub(super) left_new_at: Option<Elapsed>,
}

/// The last refill of a budget.
#[derive(Clone, Copy, Debug)]
struct Refill {
    requests: u64,
    changes: u64,
    at: Elapsed,
}

impl SplitState {
    /// A rollout that is judged by what `tally` counts from `now` on; `before` is the split as it
    /// was with another one.
    pub(super) fn new(
        rollout: Rollout,
        tally: &Arc<SplitTally>,
        before: Option<&Self>,
        now: Elapsed,
    ) -> Self {
        let changes = tally.changes();
        let reading = (changes > 0).then(|| Box::new(tally.reading()));
        Self {
            rollout,
            tally: Arc::clone(tally),
            attention: Attention::begin(now),
            is_stirred: true,
            refilled: Refill {
                requests: reading.as_deref().map_or(0, requests),
                changes,
                at: now,
            },
            reading,
            changes,
            traffic: before.map(|state| state.traffic).unwrap_or_default(),
            left_new_at: before.and_then(|state| state.left_new_at),
        }
    }

    /// The same counts, judged by another rollout.
    pub(super) fn with(&self, rollout: Rollout) -> Self {
        Self {
            rollout,
            ..self.clone()
        }
    }

    /// Refills the budget, and leaves what was counted to be judged later.
    pub(super) fn refill(&mut self, budget: &Budget, now: Elapsed) {
        let changes = self.tally.changes();
        let counted = (changes != self.refilled.changes).then(|| requests(&self.tally.reading()));
        self.pay(budget, changes, counted, now);
    }

    /// Reads what was counted since the last time, refills the budget, and closes the windows that
    /// are to be judged now: with the points at which they end, in order.
    pub(super) fn tick(
        &mut self,
        budget: &Budget,
        found: Circumstances,
        now: Elapsed,
    ) -> impl Iterator<Item = (Window, Elapsed)> + use<> {
        // Before the reading: what is counted in between is found by the next tick.
        let changes = self.tally.changes();
        let has_counted = changes != self.changes;
        let Closed { quiet, news } = self.attention.tick(has_counted, found, now);
        self.is_stirred |= news.is_some();
        let quiet = quiet.map(|span| {
            self.traffic.observe(0, span.duration());
            (self.quiet_window(span), span.end)
        });
        let mut counted = None;
        let news = news.map(|span| {
            if !has_counted {
                self.traffic.observe(0, span.duration());
                return (self.quiet_window(span), span.end);
            }
            let reading = Box::new(self.tally.reading());
            let before = self.reading.replace(reading);
            self.changes = changes;
            let all = self.reading.as_deref().map_or(0, requests);
            counted = Some(all);
            let earlier = before.as_deref().map_or(0, requests);
            self.traffic
                .observe(all.saturating_sub(earlier), span.duration());
            (self.window_since(before.as_deref(), span), span.end)
        });
        self.pay(budget, changes, counted, now);
        quiet.into_iter().chain(news)
    }

    /// After the windows of a tick were judged: the rollout may say that it can do without for a
    /// while.
    pub(super) fn rest(&mut self, wall: Timestamp) {
        self.attention.rest(self.rollout.lull(wall));
    }

    /// The next tick closes a window, whatever it finds.
    pub(super) fn wake(&mut self) {
        self.attention.wake();
    }

    /// Whether time alone decides nothing at present.
    pub(super) fn is_resting(&self) -> bool {
        self.attention.is_resting()
    }

    /// Whether more than silence has passed since this was last asked, or silence itself matters.
    pub(super) fn take_stirred(&mut self) -> bool {
        std::mem::take(&mut self.is_stirred) || !self.is_resting() || self.rollout.ripens()
    }

    /// `counted` are the requests of all time, where they may be others than at the last refill.
    fn pay(&mut self, budget: &Budget, changes: u64, counted: Option<u64>, now: Elapsed) {
        let Refill { requests, at, .. } = self.refilled;
        let counted = counted.unwrap_or(requests);
        budget.refill(counted.saturating_sub(requests), now.since(at));
        self.refilled = Refill {
            requests: counted,
            changes,
            at: now,
        };
    }

    fn quiet_window(&self, span: Span) -> Window {
        let streak = self.reading.as_deref().map(|reading| &reading.streak);
        let nothing = self.tally.nothing();
        window(span, nothing.clone(), nothing, streak)
    }

    fn window_since(&self, before: Option<&SplitReading>, span: Span) -> Window {
        let counts = |arm| match (self.reading.as_deref(), before) {
            (Some(reading), Some(before)) => evidence_since(reading, before, arm),
            (Some(reading), None) => evidence(reading, arm),
            (None, _) => self.tally.nothing(),
        };
        let streak = self.reading.as_deref().map(|reading| &reading.streak);
        window(span, counts(Arm::New), counts(Arm::Legacy), streak)
    }
}

impl Span {
    fn duration(self) -> Duration {
        self.end.since(self.begin)
    }
}

fn window(span: Span, new: ArmCounts, legacy: ArmCounts, streak: Option<&StreakReading>) -> Window {
    Window {
        seconds: span.duration().as_secs_f64(),
        new,
        legacy,
        slower: None,
        streak: streak.cloned().unwrap_or_default(),
        legacy_available: span.available.legacy,
        new_available: span.available.new,
    }
}

fn evidence(reading: &SplitReading, arm: Arm) -> ArmCounts {
    let figures = &reading.figures[arm];
    let latencies = |durations: &Histogram| durations.since(&Histogram::default());
    ArmCounts {
        first_byte: latencies(&figures.first_byte),
        total: latencies(&figures.total),
        ..reading.evidence[arm].clone()
    }
}

fn evidence_since(now: &SplitReading, before: &SplitReading, arm: Arm) -> ArmCounts {
    let (figures, figures_before) = (&now.figures[arm], &before.figures[arm]);
    ArmCounts {
        first_byte: figures.first_byte.since(&figures_before.first_byte),
        total: figures.total.since(&figures_before.total),
        ..now.evidence[arm].since(&before.evidence[arm])
    }
}

/// Requests of both arms since the start, whatever became of them.
fn requests(reading: &SplitReading) -> u64 {
    let arms = Arm::ALL.iter().map(|arm| {
        let figures = &reading.figures[*arm];
        figures.classes.iter().sum::<u64>() + figures.overridden.iter().sum::<u64>()
    });
    arms.sum()
}
