//! A rollout on its way, and the plans that it goes by.

use super::*;
use crate::policy::plan::{OnTimeout, Plan, Stage};

/// Half a second in good health proves a stage; nothing else is asked.
pub(super) fn quick() -> Criteria {
    Criteria {
        advance: Vec::new(),
        observe: Duration::from_millis(500),
        min_requests: 64,
        ..Criteria::default()
    }
}

pub(super) fn stage(percent: u16) -> Stage {
    Stage {
        share: share(percent),
        criteria: quick(),
        approval: false,
        calendar: None,
        timeout: None,
        on_timeout: OnTimeout::Hold,
    }
}

pub(super) fn planned(stages: Vec<Stage>) -> Terms {
    Terms {
        course: Course::Planned(Plan::new(stages).expect("a plan")),
        ..terms(None)
    }
}

pub(super) fn stages(percentages: &[u16]) -> Vec<Stage> {
    percentages.iter().map(|percent| stage(*percent)).collect()
}

/// A rollout and its time, which moves on by a tenth of a second with each window.
pub(super) struct Journey {
    pub(super) rollout: Rollout,
    pub(super) now: Timestamp,
    pub(super) decisions: Vec<Decision>,
}

impl Journey {
    pub(super) fn of(terms: Terms) -> Self {
        Self {
            rollout: Rollout::new("shop", terms, at(0)),
            now: at(0),
            decisions: Vec::new(),
        }
    }

    /// One window, and the step that is wished for afterwards.
    pub(super) fn tick(&mut self, event: Event) {
        self.now = self.now.plus(Duration::from_millis(100));
        self.tell(event);
        if let Some(wish) = self.rollout.wish(self.now) {
            self.tell(wish);
        }
    }

    pub(super) fn tell(&mut self, event: Event) {
        let effects = self.rollout.handle(event, self.now).expect("not refused");
        self.decisions
            .extend(effects.into_iter().filter_map(|effect| match effect {
                Effect::Announce(decision) => Some(*decision),
                Effect::Publish(_) | Effect::Persist => None,
            }));
    }

    pub(super) fn refusal(&mut self, event: Event) -> String {
        let before = self.rollout.record();
        let refusal = self.rollout.handle(event, self.now).expect_err("refused");
        assert_eq!(self.rollout.record(), before, "a refusal changes nothing");
        refusal.message
    }

    /// Good windows until the share is `percent`.
    pub(super) fn reach(&mut self, percent: u16) {
        for _ in 0..100 {
            if self.percent() == percent {
                return;
            }
            self.tick(good());
        }
        panic!("still at {}: {:?}", self.percent(), self.waits());
    }

    pub(super) fn good_ticks(&mut self, count: usize) {
        for _ in 0..count {
            self.tick(good());
        }
    }

    pub(super) fn percent(&self) -> u16 {
        self.rollout.standing().share.basis_points() / 100
    }

    pub(super) fn waits(&self) -> Vec<String> {
        let waits = self.rollout.waits(self.now);
        waits.iter().map(ToString::to_string).collect()
    }

    pub(super) fn last(&self) -> &Decision {
        self.decisions.last().expect("a decision")
    }
}

pub(super) fn promote() -> Event {
    Event::Promote { by: alice() }
}

pub(super) fn pause() -> Event {
    Event::Pause { by: alice() }
}

pub(super) fn approve() -> Event {
    Event::Approve { by: alice() }
}

pub(super) fn go_to(number: usize) -> Event {
    Event::Stage {
        number,
        by: alice(),
    }
}

pub(super) fn quiet_window() -> Window {
    let Event::Observed(window) = good() else {
        unreachable!("a window")
    };
    *window
}
