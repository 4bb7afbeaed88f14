//! For how long a rollout need not be given windows in which nothing happens.
//!
//! What time alone decides is decided to the tick all the same, because a lull ends where it would
//! be: a stage that has been healthy for long enough or has lasted too long, the end of a cool-down
//! or of a day's changes, the minute in which a calendar may open. Where time is already at work (a
//! ramp comes down, a breach is held, signals grow old, a step is wished for) there is no lull. What
//! remains, and what anybody reads off a rollout, is at most [`LONGEST`] old.

use std::time::Duration;

use super::Rollout;
use crate::policy::share::Share;
use crate::policy::time::Timestamp;

/// Within it a status looks up to date, and what lasts is still one episode.
const LONGEST: f64 = 1.0;
/// Calendars open and close with a minute.
const MINUTE: i64 = 60_000;

impl Rollout {
    /// For how long at most windows without requests may be given as one, as long as nothing else
    /// happens to the rollout and the arms stay as available as they are. Zero where each window has
    /// to be given. `now` is what the clock on the wall shows.
    pub fn lull(&self, now: Timestamp) -> Duration {
        let falls = self
            .state
            .latch
            .as_ref()
            .is_some_and(|latch| latch.share() > latch.target());
        let is_stirred = !self.glance.is_taken || self.glance.is_held || falls;
        if is_stirred || !self.terms.signals.is_empty() || self.wish(now).is_some() {
            return Duration::ZERO;
        }
        let judge = match self.standing().share {
            Share::ZERO => self.judge.lull_of_learning(),
            _ => self.judge.lull(),
        };
        let left = self.due_in(now).fold(judge.min(LONGEST), f64::min);
        // Windows last whole milliseconds, whose sum may miss the moment by a rounding.
        Duration::from_millis((left.max(0.0) * 1_000.0).round() as u64)
    }

    /// Whether time that passes in silence brings the plan's next step nearer, so that it is worth
    /// being kept.
    pub fn ripens(&self) -> bool {
        self.plan().is_some() && self.is_under_way()
    }

    /// Seconds until each of the moments at which the passing of time changes something.
    fn due_in(&self, now: Timestamp) -> impl Iterator<Item = f64> {
        let times = &self.state.times;
        let timeout = self.stage().and_then(|stage| stage.timeout);
        let timeout = timeout.map(|timeout| timeout.as_secs_f64() - times.stage);
        let (healthy, _) = self.progress();
        let health = Some(self.criteria().observe.as_secs_f64() - healthy);
        let cool_down = self.terms.rules.cool_down.as_secs_f64();
        let cool_down = times.since_change().map(|since| cool_down - since);
        let fewer_changes = times.oldest_change_ends();
        let calendar = self
            .calendar()
            .map(|_| (MINUTE - now.milliseconds().rem_euclid(MINUTE)) as f64 / 1_000.0);
        let moments = [timeout, health, cool_down, fewer_changes, calendar];
        moments.into_iter().flatten().filter(|left| *left > 0.0)
    }
}
