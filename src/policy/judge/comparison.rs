//! Legacy as the yardstick: blocks that can be compared, and what its rate is thought to be.
//!
//! A window in which either arm had no request compares nothing, and at a share of 1 % most are
//! such. Consecutive windows are therefore merged until both arms have at least one request, and
//! the kernel is applied to the block as a whole.
//!
//! The guess of legacy's rate is made of *earlier* blocks only: one that had seen the block would
//! choose the hypothesis to suit the data, and evidence would grow out of nothing.

use serde::{Deserialize, Serialize};

use super::detector::Step;
use super::trail::{Batch, Tally};
use super::window::Pair;
use crate::policy::time::Timestamp;

/// Old counts of legacy lose half their weight in this time.
const HALF_LIFE_SECONDS: f64 = 600.0;
/// What is believed of legacy before anything was seen: half an error in five hundred requests.
const PRIOR_EVENTS: f64 = 0.5;
const PRIOR_REQUESTS: f64 = 500.0;
/// A rate of zero has no odds, and above one half a comparison has little to say.
const RANGE: (f64, f64) = (1e-6, 0.5);

/// Legacy's rate as it was lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Baseline {
    events: f64,
    requests: f64,
}

impl Baseline {
    pub(super) fn guess(self) -> f64 {
        let guess = (self.events + PRIOR_EVENTS) / (self.requests + PRIOR_REQUESTS);
        guess.clamp(RANGE.0, RANGE.1)
    }

    /// Takes in legacy's counts over `seconds`.
    pub(super) fn learn(&mut self, legacy: Pair, seconds: f64) {
        let fade = (-seconds.max(0.0) / HALF_LIFE_SECONDS).exp2();
        self.events = self.events * fade + legacy.e as f64;
        self.requests = self.requests * fade + legacy.n as f64;
    }
}

/// Consecutive windows, merged until both arms have a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Block {
    tally: Tally,
    seconds: f64,
    begin: Option<Timestamp>,
}

impl Block {
    /// Adds a window.
    pub(super) fn add(&mut self, batch: Batch<'_>, step: Step) {
        self.begin.get_or_insert(step.begin);
        self.seconds += step.seconds;
        self.tally.add(batch);
    }

    /// The last window's step, stretched over the block.
    pub(super) fn step(&self, last: Step) -> Step {
        Step {
            seconds: self.seconds,
            begin: self.begin.unwrap_or(last.begin),
            ..last
        }
    }

    /// Whether both arms have a request.
    pub(super) fn is_comparable(&self) -> bool {
        let counts = self.tally.counts;
        counts.new.n > 0 && counts.legacy.n > 0
    }

    pub(super) const fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.begin.is_none()
    }

    pub(super) fn clear(&mut self) {
        self.tally.clear();
        self.seconds = 0.0;
        self.begin = None;
    }
}

/// Compares one rate of the two arms, block by block.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Comparison {
    baseline: Baseline,
    block: Block,
}

impl Comparison {
    /// A comparison that knows of legacy what another has learnt.
    pub(super) fn with_baseline(baseline: Baseline) -> Self {
        Self {
            baseline,
            block: Block::default(),
        }
    }

    pub(super) const fn baseline(&self) -> Baseline {
        self.baseline
    }

    /// Takes in a window. Once a block is complete, `judge` gets it together with the guess of
    /// legacy's rate from before it, and with the window's step stretched over all of it.
    pub(super) fn observe(
        &mut self,
        batch: Batch<'_>,
        step: Step,
        judge: impl FnOnce(&Tally, f64, Step),
    ) {
        self.block.add(batch, step);
        if self.block.is_comparable() {
            let step = self.block.step(step);
            judge(self.block.tally(), self.baseline.guess(), step);
            self.abandon();
        }
    }

    /// Takes in a window in which nothing is judged.
    pub(super) fn learn(&mut self, legacy: Pair, seconds: f64) {
        self.abandon();
        self.baseline.learn(legacy, seconds);
    }

    /// Ends the present block; its requests of legacy are a yardstick for later ones.
    pub(super) fn abandon(&mut self) {
        if !self.block.is_empty() {
            let legacy = self.block.tally().counts.legacy;
            self.baseline.learn(legacy, self.block.seconds);
            self.block.clear();
        }
    }
}
