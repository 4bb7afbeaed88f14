//! When a split is looked at, and when it is left alone.
//!
//! Every tick asks whether anything was counted, which costs a few loads. Where nothing was, and the
//! rollout has said that time alone will decide nothing for a while ([`Rollout::lull`]), the split is
//! left alone, and the ticks until then become one window. The mistake to avoid is to mix that time
//! with what ends it: requests after a second of silence are not requests spread over a second. So
//! whatever ends a lull first closes the window of silence where silence was last seen, and then has
//! a window of its own, as if every tick had had one.
//!
//! [`Rollout::lull`]: crate::policy::rollout::Rollout::lull

use crate::policy::arm::PerArm;
use crate::policy::time::Elapsed;

/// What is remembered of the looks at one split.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attention {
    /// The end of the last window.
    judged_until: Elapsed,
    /// When a tick last found that nothing was new.
    quiet_until: Elapsed,
    /// When the rollout wants its next window at the latest.
    lull_until: Elapsed,
    /// What the tick before found beside the counts.
    last: Circumstances,
}

/// What else than counts ends a lull.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Circumstances {
    /// Which arms have an endpoint that could take requests.
    pub(super) available: PerArm<bool>,
    /// Counts what was decided about the rollout.
    pub(super) revision: u64,
    /// Whether somebody wants every window.
    pub(super) is_recorded: bool,
}

/// A window to be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) begin: Elapsed,
    pub(super) end: Elapsed,
    pub(super) available: PerArm<bool>,
}

/// The windows that a tick closes, in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Closed {
    /// Nothing was counted in it.
    pub(super) quiet: Option<Span>,
    /// All that is new was counted in it.
    pub(super) news: Option<Span>,
}

impl Attention {
    /// Nothing was looked at before `now`.
    pub(super) fn begin(now: Elapsed) -> Self {
        Self {
            judged_until: now,
            quiet_until: now,
            lull_until: now,
            last: Circumstances::default(),
        }
    }

    /// A tick, which has found this; `has_counted` tells whether the counts have changed.
    pub(super) fn tick(&mut self, has_counted: bool, found: Circumstances, now: Elapsed) -> Closed {
        let before = std::mem::replace(&mut self.last, found);
        let is_other = found.available != before.available;
        let was_quiet_until = std::mem::replace(&mut self.quiet_until, now);
        let span = |begin, end, available| Span {
            begin,
            end,
            available,
        };
        if has_counted || is_other {
            let begin = std::mem::replace(&mut self.judged_until, now);
            let quiet = span(begin, was_quiet_until, before.available);
            return Closed {
                quiet: (begin < was_quiet_until).then_some(quiet),
                news: Some(span(was_quiet_until, now, found.available)),
            };
        }
        let goes_on = found == before && !found.is_recorded && now < self.lull_until;
        if goes_on {
            return Closed::default();
        }
        let begin = std::mem::replace(&mut self.judged_until, now);
        Closed {
            quiet: Some(span(begin, now, found.available)),
            news: None,
        }
    }

    /// From the last window on the rollout can do without one for so long.
    pub(super) fn rest(&mut self, lull: std::time::Duration) {
        self.lull_until = self.judged_until.plus(lull);
    }

    /// The next tick closes a window, whatever it finds.
    pub(super) fn wake(&mut self) {
        self.lull_until = self.judged_until;
    }

    /// Whether the rollout can do without another window for now.
    pub(super) fn is_resting(&self) -> bool {
        self.judged_until < self.lull_until
    }
}
