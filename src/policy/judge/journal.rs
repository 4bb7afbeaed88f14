//! What a recording must tell of a judge besides the windows.
//!
//! Evidence depends on more than counts: a stage that began, a rollout that was judged afresh, other
//! criteria. Whoever wrote these down from outside would have to know every path that leads here,
//! and a recording would go wrong on the day that somebody adds one. So the judge itself remembers
//! what was done to it, from one window to the next.

use serde::{Deserialize, Serialize};

use super::Judge;
use super::stage::Aim;
use super::verdict::Verdict;
use super::window::Slower;
use crate::policy::criteria::{Criteria, Criterion, Requirement};

/// Something that was done to a judge between two windows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// [`Judge::begin_stage`].
    Stage(Aim),
    /// [`Judge::refresh`].
    Afresh,
    /// [`Judge::forget`].
    Forgotten,
    /// [`Judge::reconfigure`], with other criteria than before.
    Criteria(Box<Criteria>),
}

/// How a judge took in its last window, and what it found then: a stage that the verdict begins
/// changes the judge, not this.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// What was done to the judge since the window before.
    pub marks: Vec<Mark>,
    /// What was slower than legacy in the window.
    pub slower: Slower,
    /// What was found; none where the window was only learnt from.
    pub verdict: Option<Verdict>,
    /// Of each criterion, in their order.
    pub harm: Vec<Figures<Criterion>>,
    /// Of each requirement, in their order.
    pub health: Vec<Figures<Requirement>>,
}

/// How much evidence there is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures<T> {
    /// Of what.
    pub of: T,
    /// As odds.
    pub evidence: f64,
    /// By which it was divided.
    pub overdispersion: f64,
}

/// What was done since the last window, and that window. Windows come ten times a second, so the
/// list stays as short as what people and plans do in between.
#[derive(Clone, Debug, Default)]
pub(super) struct Journal {
    since: Vec<Mark>,
    last: Look,
}

impl Journal {
    pub(super) fn mark(&mut self, mark: Mark) {
        self.since.push(mark);
    }

    fn end(&mut self, look: Look) {
        self.last = Look {
            marks: std::mem::take(&mut self.since),
            ..look
        };
    }
}

impl Judge {
    /// How the last window was taken in.
    pub const fn last_look(&self) -> &Look {
        &self.journal.last
    }

    /// How many [`Mark`]s were made since then.
    pub fn marks_since(&self) -> usize {
        self.journal.since.len()
    }

    /// Notes how a window was judged.
    pub(super) fn note(&mut self, slower: Slower, verdict: Verdict) {
        let bench = self.bench();
        let harm = self.evidence.watches.iter().map(|watch| Figures {
            of: watch.criterion(),
            evidence: watch.evidence(),
            overdispersion: watch.phi(bench),
        });
        let health = self.evidence.gates.iter().map(|gate| Figures {
            of: gate.requirement(),
            evidence: gate.evidence(),
            overdispersion: bench.learnt.phi(gate.event(), bench.criteria),
        });
        let look = Look {
            slower,
            verdict: Some(verdict),
            harm: harm.collect(),
            health: health.collect(),
            ..Look::default()
        };
        self.journal.end(look);
    }

    /// Notes that a window was only learnt from.
    pub(super) fn note_idle(&mut self) {
        self.journal.end(Look::default());
    }
}
