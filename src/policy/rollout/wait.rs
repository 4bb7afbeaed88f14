//! What a plan's next step waits for, in words.
//!
//! A rollout that stands still without saying why is overridden by hand. So the very list that
//! keeps the engine from advancing is the one that status shows.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::{Phase, Rollout};
use crate::policy::calendar::Calendar;
use crate::policy::criteria::Action;
use crate::policy::duration;
use crate::policy::judge::Lack;
use crate::policy::plan::{LARGEST_BLIND_STEP, OnTimeout};
use crate::policy::share::Share;
use crate::policy::signal::{SignalBreach, SignalLack};
use crate::policy::time::Timestamp;

/// Something that the next step waits for.
#[derive(Clone, Debug, PartialEq)]
pub enum Wait {
    /// The end of an emergency.
    Emergency,
    /// Somebody who ends the latch of a rollback.
    Latch,
    /// Somebody who ends a pause.
    Pause,
    /// Somebody who ends an operator's share.
    OperatorShare(Share),
    /// A first look at the counters.
    Look,
    /// An endpoint of `new` that could take requests.
    Health,
    /// A breach that is held has to end.
    Hold,
    /// Something is not proven.
    Judge(Lack),
    /// A signal is silent, or tells too little good.
    Signal(SignalLack),
    /// A criterion on a signal is breached.
    SignalBreach(SignalBreach),
    /// A person's approval of this share.
    Approval(Share),
    /// A window of the calendar; with the next time it opens.
    Calendar(Option<Timestamp>),
    /// The end of the cool-down after the last change.
    CoolDown(Duration),
    /// Fewer changes of the share within a day.
    Flapping {
        /// How many there were.
        changes: usize,
        /// How many may be.
        most: usize,
    },
    /// The engine only says what it would do.
    Advising,
}

impl Rollout {
    /// All that the next step of the plan waits for, or its completion in the last stage; the
    /// weightiest first. Empty without a plan, and once it is completed.
    pub fn waits(&self, now: Timestamp) -> Vec<Wait> {
        let mut waits = self.hindrances(now);
        for wait in &mut waits {
            if let Wait::Calendar(opens) = wait {
                *opens = self.calendar().and_then(|it| it.next_opening(now));
            }
        }
        waits
    }

    /// The same without the time at which the calendar opens, which nobody needs after every
    /// window.
    pub(super) fn hindrances(&self, now: Timestamp) -> Vec<Wait> {
        if self.plan().is_none() || self.phase() == Phase::Completed {
            return Vec::new();
        }
        let state = &self.state;
        let mut waits = Vec::new();
        let mut wait_if = |applies: bool, wait: Wait| {
            if applies {
                waits.push(wait);
            }
        };
        wait_if(state.emergency, Wait::Emergency);
        wait_if(state.latch.is_some(), Wait::Latch);
        wait_if(state.is_paused, Wait::Pause);
        if let Some(share) = state.operator_share {
            wait_if(true, Wait::OperatorShare(share));
        }
        wait_if(!self.glance.is_taken, Wait::Look);
        waits.extend(self.proof_to_come());
        if let Some(next) = self.next_stage() {
            waits.extend(self.permission_to_come(next.share, now));
        }
        waits
    }

    /// What time and traffic may bring.
    fn proof_to_come(&self) -> Vec<Wait> {
        let mut waits = self.signals_to_come();
        let time = self.time_to_come();
        if self.is_idle() {
            if self.glance.is_taken && !self.glance.is_new_available {
                waits.push(Wait::Health);
            }
            let time = time.filter(|_| self.state.position.is_some());
            waits.extend(time.map(Wait::Judge));
            return waits;
        }
        if self.glance.is_held {
            waits.push(Wait::Hold);
        }
        let takes_it_unproven = self.is_late_and_goes_on();
        let is_time = |lack: &Lack| matches!(lack, Lack::Time { .. });
        // The judge's own time is longer than ours by what signals speak against.
        let mut lacking: Vec<Lack> = self.judge.lacking().filter(|it| !is_time(it)).collect();
        let is_proof = |lack: &Lack| matches!(lack, Lack::Requests { .. } | Lack::Proof { .. });
        let place = lacking.iter().position(is_proof).unwrap_or(lacking.len());
        lacking.splice(place..place, time);
        lacking.retain(|lack| !(takes_it_unproven && is_time_or_proof(lack)));
        waits.extend(lacking.into_iter().map(Wait::Judge));
        waits
    }

    /// What the stage lacks that its plan goes on without.
    pub(super) fn unproven(&self) -> impl Iterator<Item = Lack> {
        let goes_on = !self.is_idle() && self.is_late_and_goes_on();
        let time = self.time_to_come();
        let is_time = |lack: &Lack| matches!(lack, Lack::Time { .. });
        let lacking = self.judge.lacking().filter(move |lack| !is_time(lack));
        time.into_iter()
            .chain(lacking)
            .filter(move |lack| goes_on && is_time_or_proof(lack))
    }

    /// Whether something speaks against `new`, be it held, doubted or too little to act.
    pub(super) fn is_suspected(&self) -> bool {
        let mut lacking = self.judge.lacking();
        self.glance.is_held
            || lacking.any(|lack| matches!(lack, Lack::Calm { .. } | Lack::Support(_)))
    }

    /// The time in good health that the stage still has to have.
    fn time_to_come(&self) -> Option<Lack> {
        let (healthy, _) = self.progress();
        let needed = self.criteria().observe;
        (healthy < needed.as_secs_f64()).then(|| Lack::Time {
            healthy: Duration::try_from_secs_f64(healthy).unwrap_or_default(),
            needed,
        })
    }

    fn signals_to_come(&self) -> Vec<Wait> {
        let board = &self.state.board;
        let breached = board.breached();
        let breached = breached.filter(|breach| breach.criterion.action != Action::Notify);
        let lacking = board.lacking().into_iter();
        breached
            .map(Wait::SignalBreach)
            .chain(lacking.map(Wait::Signal))
            .collect()
    }

    /// What people and their rules may bring.
    fn permission_to_come(&self, next: Share, now: Timestamp) -> Vec<Wait> {
        let mut waits = Vec::new();
        let rules = &self.terms.rules;
        if self.needs_approval() && self.state.approved_by.is_none() {
            waits.push(Wait::Approval(next));
        }
        if self.calendar().is_some_and(|it| !it.is_open(now)) {
            waits.push(Wait::Calendar(None));
        }
        let since_change = self.state.times.since_change().unwrap_or(f64::INFINITY);
        let left = rules.cool_down.as_secs_f64() - since_change;
        if left > 0.0 {
            let left = Duration::try_from_secs_f64(left).unwrap_or_default();
            waits.push(Wait::CoolDown(left));
        }
        let (changes, most) = (self.state.times.changes(), rules.max_changes_per_day);
        if changes >= most {
            waits.push(Wait::Flapping { changes, most });
        }
        if rules.advise {
            waits.push(Wait::Advising);
        }
        waits
    }

    /// When the next step may be taken, if not at any time.
    pub(super) fn calendar(&self) -> Option<&Calendar> {
        let stage = self.stage().or_else(|| self.next_stage());
        stage.and_then(|stage| stage.calendar.as_ref())
    }

    /// Whether the present stage is only left with a person's approval.
    pub fn needs_approval(&self) -> bool {
        let Some(next) = self.next_stage() else {
            return false;
        };
        let is_asked_for = self.stage().is_some_and(|stage| stage.approval);
        let is_blind = self.filed_share() == Share::ZERO && next.share > LARGEST_BLIND_STEP;
        is_asked_for || is_blind
    }

    /// Whether the stage has lasted so long that its plan goes on without proof.
    fn is_late_and_goes_on(&self) -> bool {
        let then = self.stage().map(|stage| stage.on_timeout);
        self.is_late() && then == Some(OnTimeout::Advance)
    }

    /// Whether the stage has lasted for as long as it may.
    pub(super) fn is_late(&self) -> bool {
        let timeout = self.stage().and_then(|stage| stage.timeout);
        timeout.is_some_and(|timeout| self.state.times.stage >= timeout.as_secs_f64())
    }
}

/// What a plan may go on without once its stage has lasted too long: never without any traffic,
/// and never while something speaks against `new`.
const fn is_time_or_proof(lack: &Lack) -> bool {
    match lack {
        Lack::Time { .. } | Lack::Proof { .. } => true,
        Lack::Requests { counted, .. } => *counted > 0,
        _ => false,
    }
}

impl Wait {
    /// Whether nobody but `new` can bring it.
    pub const fn is_of_proof(&self) -> bool {
        matches!(
            self,
            Wait::Health | Wait::Hold | Wait::Judge(_) | Wait::Signal(_) | Wait::SignalBreach(_)
        )
    }
}

impl Display for Wait {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Wait::Emergency => f.write_str("An emergency is declared; clear it to go on."),
            Wait::Latch => f.write_str("It is rolled back; resume it to go on."),
            Wait::Pause => f.write_str("It is paused; resume it to go on."),
            Wait::OperatorShare(share) => {
                write!(f, "An operator's share of {share} stands; resume to go on.")
            }
            Wait::Look => f.write_str("Nothing was measured yet since the start."),
            Wait::Health => f.write_str("No endpoint of new could take requests."),
            Wait::Hold => f.write_str(
                "A breach is held until its evidence has faded; `resume` judges it afresh at once.",
            ),
            Wait::Judge(lack) => lack.fmt(f),
            Wait::Signal(lack) => lack.fmt(f),
            Wait::SignalBreach(breach) => breach.fmt(f),
            Wait::Approval(next) => write!(f, "Somebody has to approve {next}."),
            Wait::Calendar(Some(opens)) => {
                write!(f, "The calendar is closed until {}.", opens.minute())
            }
            Wait::Calendar(None) => f.write_str("The calendar is closed."),
            Wait::CoolDown(left) => {
                let seconds = Duration::from_secs(left.as_secs() + 1);
                write!(f, "Cooling down for {} more.", duration::print(seconds))
            }
            Wait::Flapping { changes, most } => write!(
                f,
                "The share changed {changes} times within a day, and `max_changes_per_day` is \
                 {most}; a person still may, with `promote`."
            ),
            Wait::Advising => f.write_str("With `advise` the engine only says what it would do."),
        }
    }
}
