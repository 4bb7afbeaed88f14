//! What a recording must tell of a judge besides the windows.
//!
//! Evidence depends on more than counts: a stage that began, a rollout that was judged afresh, other
//! criteria. Whoever wrote these down from outside would have to know every path that leads here,
//! and a recording would go wrong on the day that somebody adds one. So the judge itself remembers
//! what was done to it, from one window to the next.

use serde::{Deserialize, Serialize};

use super::stage::Aim;
use super::verdict::Verdict;
use super::watch::Watch;
use super::window::Slower;
use super::{Gate, Judge};
use crate::policy::criteria::Criteria;

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

/// How a judge took in its last window.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// What was done to the judge since the window before.
    pub marks: Vec<Mark>,
    /// What was slower than legacy in the window.
    pub slower: Slower,
    /// What was found; none where the window was only learnt from.
    pub verdict: Option<Verdict>,
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

    pub(super) fn look(&mut self, slower: Slower, verdict: Option<Verdict>) {
        self.last = Look {
            marks: std::mem::take(&mut self.since),
            slower,
            verdict,
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

    /// The dispersion by which the evidence about each criterion is divided, in their order.
    pub fn overdispersion_of_harm(&self) -> impl Iterator<Item = f64> {
        let bench = self.bench();
        let watches = self.evidence.watches.iter();
        watches.map(move |watch: &Watch| watch.phi(bench))
    }

    /// The same of each requirement.
    pub fn overdispersion_of_health(&self) -> impl Iterator<Item = f64> {
        let bench = self.bench();
        let gates = self.evidence.gates.iter();
        gates.map(move |gate: &Gate| bench.learnt.phi(gate.event(), bench.criteria))
    }
}
