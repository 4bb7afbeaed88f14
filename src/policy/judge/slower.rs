//! Slower than legacy, at one quantile or at several.
//!
//! "Is p95 higher?" cannot be asked of a window: with twenty requests a 95th percentile is whoever
//! came last. Asked the other way round it is a rate: of legacy's requests one in twenty is beyond
//! legacy's 95th percentile by definition, so of `new`'s no more may be beyond that time and the
//! margin. That is the comparison of two rates again, exact for any two distributions.

use serde::{Deserialize, Serialize};

use super::comparison::Block;
use super::detector::{Prior, Step};
use super::kernels::{self, Contrast};
use super::latencies::{Cut, Latencies, Yardstick};
use super::trail::{Batch, Clusters, Trail};
use super::window::Pair;
use crate::policy::arm::PerArm;
use crate::policy::time::Timestamp;

/// The comparison of one measure of latency at some quantiles.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct SlowerTest {
    /// The margin as a factor: 1.1 tolerates a tenth more.
    ratio: f64,
    lanes: Vec<Lane>,
    yardstick: Yardstick,
    /// Where the present blocks are cut, which all begin with the same window; none while legacy
    /// has too few requests.
    cuts: Option<Vec<Cut>>,
    /// Legacy's durations in the present blocks, a part of the yardstick from the next ones on.
    durations: Latencies,
    seconds: f64,
}

/// One quantile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Lane {
    /// The share of legacy's requests beyond the quantile.
    tail: f64,
    trail: Trail,
    block: Block,
}

impl SlowerTest {
    pub(super) fn new(
        tails: impl Iterator<Item = f64>,
        ratio: f64,
        yardstick: Yardstick,
        prior: Prior,
        now: Timestamp,
    ) -> Self {
        let lanes = tails.map(|tail| Lane {
            tail,
            trail: Trail::new(prior, now),
            block: Block::default(),
        });
        let mut test = Self {
            ratio,
            lanes: lanes.collect(),
            yardstick,
            cuts: None,
            durations: Latencies::default(),
            seconds: 0.0,
        };
        test.cut();
        test
    }

    /// How many quantiles are compared.
    pub(super) fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// The shares of legacy's requests beyond the quantiles.
    pub(super) fn tails(&self) -> impl Iterator<Item = f64> {
        self.lanes.iter().map(|lane| lane.tail)
    }

    /// What was learnt of legacy's durations, the present blocks left out.
    pub(super) const fn yardstick(&self) -> &Yardstick {
        &self.yardstick
    }

    /// What is slow in a window, per quantile.
    pub(super) fn count(
        &self,
        latencies: PerArm<&Latencies>,
    ) -> impl Iterator<Item = Option<PerArm<Pair>>> {
        (0..self.lanes.len()).map(move |lane| {
            let cut = self.cuts.as_ref()?.get(lane)?;
            Some(PerArm {
                legacy: pair(latencies.legacy, cut.legacy),
                new: pair(latencies.new, cut.new),
            })
        })
    }

    /// Takes in a window: what was slow in it, per quantile, and legacy's durations as the
    /// yardstick for later ones. `requests` are those of `new` per cluster.
    pub(super) fn observe(
        &mut self,
        counted: &[Option<PerArm<Pair>>],
        durations: &Latencies,
        requests: &[Pair],
        step: Step,
    ) {
        let mut is_pending = false;
        for (lane, counted) in self.lanes.iter_mut().zip(counted) {
            let Some(counted) = counted else { continue };
            let batch = Batch {
                counts: Contrast {
                    new: counted.new,
                    legacy: counted.legacy,
                },
                clusters: Clusters::Requests(requests),
            };
            lane.block.add(batch, step);
            if lane.block.is_comparable() {
                lane.judge(step);
            }
            is_pending |= !lane.block.is_empty();
        }
        self.durations.add(durations);
        self.seconds += step.seconds;
        if !is_pending {
            self.settle();
        }
    }

    /// Takes in a window in which nothing is judged.
    pub(super) fn learn(&mut self, durations: &Latencies, seconds: f64) {
        self.durations.add(durations);
        self.seconds += seconds;
        self.abandon();
    }

    /// Ends the present blocks; legacy's durations in them are a yardstick for later ones.
    pub(super) fn abandon(&mut self) {
        for lane in &mut self.lanes {
            lane.block.clear();
        }
        self.settle();
    }

    /// The evidence, averaged over the quantiles: as valid as each of them.
    pub(super) fn evidence(&self) -> f64 {
        let sum: f64 = self.lanes.iter().map(|lane| lane.trail.evidence()).sum();
        sum / self.lanes.len().max(1) as f64
    }

    /// The quantile with the most evidence.
    pub(super) fn leading(&self) -> &Trail {
        let mut leading = &self.lanes[0].trail;
        for lane in &self.lanes {
            if lane.trail.evidence() > leading.evidence() {
                leading = &lane.trail;
            }
        }
        leading
    }

    /// The present blocks are over.
    fn settle(&mut self) {
        self.yardstick.learn(&self.durations, self.seconds);
        self.durations = Latencies::default();
        self.seconds = 0.0;
        self.cut();
    }

    fn cut(&mut self) {
        let tails = self.lanes.iter().map(|lane| lane.tail);
        self.cuts = self.yardstick.cuts(tails, self.ratio);
    }
}

impl Lane {
    fn judge(&mut self, step: Step) {
        let tally = self.block.tally();
        // The margin lies in the cut, so the rates themselves are compared as they are.
        let factors = kernels::worse(1.0, self.tail, tally.counts);
        let step = self.block.step(step);
        self.trail.step(&factors, step, tally.batch());
        self.block.clear();
    }
}

/// Requests, and those beyond the upper edge of a bucket.
fn pair(latencies: &Latencies, cut: usize) -> Pair {
    Pair {
        n: latencies.count(),
        e: latencies.beyond(cut),
    }
}
