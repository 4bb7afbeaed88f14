//! From counts to a verdict.
//!
//! Looking at an error rate ten times a second and acting when it exceeds a limit cries wolf within
//! the hour. So [`kernels`] turns each window into evidence that stays valid however often one
//! looks, [`detector`] adds it up without letting good hours hide a bad minute, [`overdispersion`]
//! discounts failures that come in bunches, and [`guards`] asks whether acting would be just.
//! Legacy is the yardstick where one is wanted ([`comparison`], [`slower`]); what an advance needs
//! is proven by the same means the other way round ([`gate`]).
//!
//! [`Judge`] puts them together; what it knows is plain data, [`Evidence`], and the same windows
//! always give the same evidence, bit for bit. [`replay`] feeds it from a recording.

mod by_cluster;
mod comparison;
mod detector;
mod gate;
pub mod guards;
mod interval;
mod journal;
mod kernels;
mod lack;
mod latencies;
mod learnt;
mod lull;
pub mod outlook;
mod overdispersion;
mod pace;
pub mod replay;
mod report;
mod slower;
mod source;
mod stage;
mod streak;
mod trail;
mod verdict;
mod watch;
pub mod window;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::journal::{Figures, Look, Mark};
pub use self::lack::Lack;
pub use self::latencies::BUCKETS as LATENCY_BUCKETS;
pub use self::pace::Estimate;
pub use self::stage::Aim;
pub use self::verdict::{Breach, LimitBreach, Verdict};

use self::gate::Gate;
use self::guards::Guard;
use self::journal::Journal;
use self::learnt::Learnt;
use self::stage::Stage;
use self::streak::Streak;
use self::watch::{Bench, Finding, Legacy, Sheet, Watch};
use self::window::{Slower, Window};
use super::criteria::{Action, Criteria, Criterion, Harm, LatencyLimits, Metric};
use super::key::Cluster;
use super::rollout::{Condition, Need};
use super::time::Timestamp;

/// An advance is not made while the evidence of harm exceeds this part of what would act.
const CALM: f64 = 0.1;

/// Watches the criteria of one split. Give it every window: [`Judge::observe`] while `new` is on
/// trial, [`Judge::learn`] while it is not. Tell it of every new stage: [`Judge::begin_stage`].
#[derive(Clone, Debug)]
pub struct Judge {
    criteria: Criteria,
    limits: LatencyLimits,
    evidence: Evidence,
    streak: Streak,
    journal: Journal,
}

/// All a judge knows; persisted, so that a restart neither forgets nor spends the false-rollback
/// budget again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    watches: Vec<Watch>,
    gates: Vec<Gate>,
    learnt: Learnt,
    stage: Stage,
    /// Since the first request of `new`; none before it.
    seconds_since_first_request: Option<f64>,
    /// One bit per cluster that sent anything to `new` since the evidence was fresh.
    clusters_seen: u64,
    /// As of the last window.
    legacy_available: bool,
}

/// Nothing is known yet.
impl Default for Evidence {
    fn default() -> Self {
        Self {
            watches: Vec::new(),
            gates: Vec::new(),
            learnt: Learnt::default(),
            stage: Stage::default(),
            seconds_since_first_request: None,
            clusters_seen: 0,
            legacy_available: true,
        }
    }
}

impl Judge {
    /// A judge without any evidence.
    pub fn new(criteria: Criteria, now: Timestamp) -> Self {
        Self::restore(criteria, Evidence::default(), now)
    }

    /// A judge that goes on from `evidence`. Criteria it says nothing about begin afresh.
    pub fn restore(criteria: Criteria, evidence: Evidence, now: Timestamp) -> Self {
        let mut judge = Self {
            criteria: Criteria::default(),
            limits: LatencyLimits::default(),
            evidence,
            streak: Streak::default(),
            journal: Journal::default(),
        };
        judge.adopt(criteria, now);
        judge
    }

    /// Judges by other criteria from now on. Criteria that stay keep their evidence, others begin
    /// afresh, and what was learnt of legacy is kept wherever it applies.
    pub fn reconfigure(&mut self, criteria: Criteria, now: Timestamp) {
        if criteria != self.criteria {
            let criteria = Box::new(criteria.clone());
            self.journal.mark(Mark::Criteria(criteria));
        }
        self.adopt(criteria, now);
    }

    fn adopt(&mut self, criteria: Criteria, now: Timestamp) {
        let watches = std::mem::take(&mut self.evidence.watches);
        let gates = std::mem::take(&mut self.evidence.gates);
        let legacy = |metric: Metric| {
            let mut of_watches = watches.iter().map(|watch| watch.baseline_of(metric));
            let mut of_gates = gates.iter().map(|gate| gate.baseline_of(metric));
            let mut yardsticks = watches.iter().map(|watch| watch.yardstick_of(metric));
            Legacy {
                baseline: of_watches.find_map(|it| it).or(of_gates.find_map(|it| it)),
                yardstick: yardsticks.find_map(|it| it),
            }
        };
        let watch = |criterion: &Criterion| {
            let same = watches
                .iter()
                .find(|watch| watch.is_of(*criterion, &criteria));
            same.cloned()
                .unwrap_or_else(|| Watch::new(*criterion, &criteria, legacy(criterion.metric), now))
        };
        self.evidence.watches = criteria.rollback.iter().map(watch).collect();
        self.evidence.gates = criteria
            .advance
            .iter()
            .map(|requirement| {
                let same = gates.iter().find(|gate| gate.requirement() == *requirement);
                same.cloned().unwrap_or_else(|| {
                    let baseline = legacy(requirement.metric).baseline;
                    Gate::new(*requirement, &criteria, baseline, now)
                })
            })
            .collect();
        self.evidence.learnt.reconfigure(&criteria);
        self.limits = criteria.latency_limits();
        self.criteria = criteria;
    }

    /// Forgets all evidence about `new`; what was learnt of legacy stays.
    pub fn refresh(&mut self, now: Timestamp) {
        self.journal.mark(Mark::Afresh);
        for watch in &mut self.evidence.watches {
            watch.refresh(&self.criteria, now);
        }
        self.evidence.seconds_since_first_request = None;
        self.evidence.clusters_seen = 0;
        self.streak.forgive();
        self.enter_stage(self.evidence.stage.aim, now);
    }

    /// Forgets all evidence, and what was learnt of legacy: it is another one.
    pub fn forget(&mut self, now: Timestamp) {
        self.journal.mark(Mark::Forgotten);
        let aim = self.evidence.stage.aim;
        self.evidence = Evidence::default();
        self.adopt(self.criteria.clone(), now);
        self.streak.forgive();
        self.enter_stage(aim, now);
    }

    /// A stage begins: what an advance needs must be proven anew, for a heavier load is a new
    /// question. Evidence of harm goes on, so that a failure from just before the change counts.
    pub fn begin_stage(&mut self, aim: Aim, now: Timestamp) {
        self.journal.mark(Mark::Stage(aim));
        self.enter_stage(aim, now);
    }

    fn enter_stage(&mut self, aim: Aim, now: Timestamp) {
        for gate in &mut self.evidence.gates {
            gate.refresh(&self.criteria, now);
        }
        self.evidence.stage = Stage {
            aim,
            ..Stage::default()
        };
    }

    /// Judges one window, which ends at `now`. Each window must be given once.
    pub fn observe(&mut self, window: &Window, now: Timestamp) -> Verdict {
        self.take_note(window);
        let is_warm = self.warm_up(window);
        let counted = match &window.slower {
            Some(slower) => Cow::Borrowed(slower),
            None => Cow::Owned(self.slower(window)),
        };
        let evidence = &mut self.evidence;
        evidence.learnt.renew_if_due();
        let sheet = Sheet {
            window,
            begin: beginning(window, now),
            criteria: &self.criteria,
            limits: &self.limits,
            learnt: &evidence.learnt,
        };
        let mut slower = counted.as_slice();
        for watch in &mut evidence.watches {
            let (own, others) = slower.split_at(watch.lanes().min(slower.len()));
            slower = others;
            if is_warm || !watch.criterion().metric.is_latency() {
                watch.observe(sheet, own);
            } else {
                watch.learn(window, &self.limits);
            }
        }
        for gate in &mut evidence.gates {
            if is_warm || !gate.requirement().metric.is_latency() {
                gate.observe(sheet);
            }
        }
        evidence.learnt.learn(window, &self.limits);
        evidence.stage.requests += window.new.errors.total.n;
        if self.suspected().is_none() {
            self.evidence.stage.healthy_seconds += window.seconds.max(0.0);
        }
        let verdict = self.verdict();
        self.note(counted.into_owned(), verdict.clone());
        verdict
    }

    /// Takes in a window in which nothing is judged, as long as a rollback or an emergency keeps
    /// everyone on legacy: legacy is learnt from all the same, and failures of `new` are not held
    /// against it later.
    pub fn learn(&mut self, window: &Window) {
        self.streak.read(&window.streak);
        self.streak.forgive();
        let evidence = &mut self.evidence;
        evidence.legacy_available = window.legacy_available;
        evidence.learnt.renew_if_due();
        for watch in &mut evidence.watches {
            watch.learn(window, &self.limits);
        }
        for gate in &mut evidence.gates {
            gate.learn(window, &self.limits);
        }
        evidence.learnt.learn(window, &self.limits);
        self.note_idle();
    }

    /// What is slower than legacy in a window that is judged next. A recording of the window holds
    /// these numbers in place of the durations.
    fn slower(&self, window: &Window) -> Slower {
        let mut counted = Vec::new();
        for watch in &self.evidence.watches {
            watch.count_slower(window, &mut counted);
        }
        counted
    }

    /// Each criterion as it stands, in the criteria's order.
    pub fn conditions(&self) -> Vec<Condition> {
        let bench = self.bench();
        let watches = self.evidence.watches.iter();
        watches
            .map(|watch| report::condition(watch, bench))
            .collect()
    }

    /// Each requirement of an advance as it stands in this stage, in the criteria's order; those
    /// left out that do not count where the stage leads.
    pub fn needs(&self) -> Vec<Need> {
        let bench = self.bench();
        let gates = self.counting_gates();
        gates
            .map(|gate| report::need(gate, self.gate_threshold(), bench))
            .collect()
    }

    /// Every criterion whose evidence suffices to act now, whatever it asks for, with the figures
    /// of its sentence.
    pub fn breaches(&self) -> impl Iterator<Item = LimitBreach> {
        let bench = self.bench();
        let watches = self.evidence.watches.iter();
        watches
            .filter(move |watch| watch.finding(bench).rank() >= Finding::Breached.rank())
            .map(move |watch| LimitBreach::of(watch, bench))
    }

    /// Every criterion whose breach is held now, whatever the verdict names: since it asks for no
    /// more, or since a guard withholds its rollback.
    pub fn held(&self) -> impl Iterator<Item = (LimitBreach, Option<Guard>)> {
        let bench = self.bench();
        self.acting().filter_map(move |watch| {
            let guard = match (watch.finding(bench), watch.criterion().action) {
                (Finding::Held(guard), _) => Some(guard),
                (Finding::Breached, Action::Hold) => None,
                _ => return None,
            };
            Some((LimitBreach::of(watch, bench), guard))
        })
    }

    /// All that is lacking before the split may advance, what matters most first.
    pub fn lacking(&self) -> impl Iterator<Item = Lack> {
        let calm = self.suspected().map(|watch| Lack::Calm {
            criterion: watch.criterion(),
            evidence: watch.evidence(),
            limit: CALM * self.bench().threshold(),
        });
        let criteria = &self.criteria;
        let stage = self.evidence.stage;
        let needed = criteria.observe;
        let time = (stage.healthy_seconds < needed.as_secs_f64()).then(|| Lack::Time {
            healthy: Duration::try_from_secs_f64(stage.healthy_seconds).unwrap_or_default(),
            needed,
        });
        // Even where none are asked for: what an earlier stage has seen says nothing of this one.
        let needed = criteria.min_requests.max(1);
        let requests = (stage.requests < needed).then_some(Lack::Requests {
            counted: stage.requests,
            needed,
        });
        let threshold = self.gate_threshold();
        let unproven = self
            .counting_gates()
            .filter(move |gate| gate.evidence() < threshold);
        let proofs = unproven.map(move |gate| Lack::Proof {
            requirement: gate.requirement(),
            evidence: gate.evidence(),
            threshold,
            estimate: gate.estimate(threshold),
        });
        let first = [self.doubt(), self.silence(), calm, time, requests];
        first.into_iter().flatten().chain(proofs)
    }

    /// What is judged, and how.
    pub const fn criteria(&self) -> &Criteria {
        &self.criteria
    }

    /// Where the present stage would lead.
    pub const fn aim(&self) -> Aim {
        self.evidence.stage.aim
    }

    /// Seconds in which no criterion was under suspicion and requests of `new`, both of the present
    /// stage.
    pub const fn progress(&self) -> (f64, u64) {
        let stage = &self.evidence.stage;
        (stage.healthy_seconds, stage.requests)
    }

    /// The evidence against each criterion's promise, in the criteria's order.
    pub fn evidence_of_harm(&self) -> impl Iterator<Item = f64> {
        self.evidence.watches.iter().map(Watch::evidence)
    }

    /// The evidence for each requirement, in the criteria's order.
    pub fn evidence_of_health(&self) -> impl Iterator<Item = f64> {
        self.evidence.gates.iter().map(Gate::evidence)
    }

    /// All that must be kept to go on after a restart.
    pub const fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// Whose failures they are, and whether legacy could take everyone.
    fn take_note(&mut self, window: &Window) {
        self.streak.read(&window.streak);
        self.evidence.legacy_available = window.legacy_available;
        let clusters = window.new.errors.clusters.iter().take(Cluster::COUNT);
        for (cluster, counts) in clusters.enumerate() {
            let seen = counts.n > 0 || self.streak.failures(cluster) > 0;
            self.evidence.clusters_seen |= u64::from(seen) << cluster;
        }
    }

    /// Whether `new` has been in use for long enough for its latency to be judged.
    fn warm_up(&mut self, window: &Window) -> bool {
        let since_first = &mut self.evidence.seconds_since_first_request;
        if window.new.errors.total.n > 0 || since_first.is_some() {
            *since_first.get_or_insert(0.0) += window.seconds.max(0.0);
        }
        let warmup = self.criteria.latency_warmup;
        warmup.is_zero() || since_first.is_some_and(|seconds| seconds > warmup.as_secs_f64())
    }

    fn verdict(&self) -> Verdict {
        self.harm().unwrap_or_else(|| {
            let lacking = self.lacking().next();
            lacking.map_or(Verdict::Pass, Verdict::Inconclusive)
        })
    }

    /// The verdict if it is one about harm.
    fn harm(&self) -> Option<Verdict> {
        if self.criteria.rollback.is_empty() {
            return None;
        }
        let bench = self.bench();
        let mut fails: Option<&Watch> = None;
        let mut holds: Option<(&Watch, Option<Guard>)> = None;
        let weighs_more = |watch: &Watch, than: &Watch| watch.evidence() > than.evidence();
        for watch in self.acting() {
            let guard = match (watch.finding(bench), watch.criterion().action) {
                (Finding::Breached, Action::Rollback) => {
                    if fails.is_none_or(|than| weighs_more(watch, than)) {
                        fails = Some(watch);
                    }
                    continue;
                }
                (Finding::Breached, _) => None,
                (Finding::Held(guard), _) => Some(guard),
                _ => continue,
            };
            if holds.is_none_or(|(than, _)| weighs_more(watch, than)) {
                holds = Some((watch, guard));
            }
        }
        let breach = |watch| Breach::Limit(LimitBreach::of(watch, bench));
        match (fails, self.streak_verdict(bench), holds) {
            (Some(watch), _, _) => Some(Verdict::Fail(breach(watch))),
            (None, Some(verdict @ Verdict::Fail(_)), _) => Some(verdict),
            (None, _, Some((watch, guard))) => Some(Verdict::Hold(breach(watch), guard)),
            (None, verdict, None) => verdict,
        }
    }

    /// The hard trip: so many failures in a row need no statistics.
    fn streak_verdict(&self, bench: Bench<'_>) -> Option<Verdict> {
        let length = self.streak.length();
        let by_cluster = self.streak.by_cluster();
        let long_enough = self.criteria.hard_fail > 0 && length >= self.criteria.hard_fail;
        let doubt =
            guards::too_few_callers(length, by_cluster, bench.clusters_seen, bench.criteria);
        if !long_enough || doubt.is_some() {
            return None;
        }
        let breach = Breach::Streak {
            length,
            clusters: guards::bad_clusters(by_cluster),
        };
        let legacy_fails_too =
            self.evidence.watches.iter().any(|watch| {
                watch.criterion().metric == Metric::ErrorRate && watch.legacy_too(bench)
            });
        Some(if !bench.legacy_available {
            Verdict::Hold(breach, Some(Guard::LegacyUnavailable))
        } else if legacy_fails_too {
            Verdict::Hold(breach, Some(Guard::WhenLegacyToo))
        } else {
            Verdict::Fail(breach)
        })
    }

    /// The evidence suffices for some criterion, and a guard withholds it.
    fn doubt(&self) -> Option<Lack> {
        let bench = self.bench();
        let mut doubted: Option<(&Watch, Guard)> = None;
        for watch in self.acting() {
            if let Finding::Doubted(guard) = watch.finding(bench)
                && doubted.is_none_or(|(than, _)| watch.evidence() > than.evidence())
            {
                doubted = Some((watch, guard));
            }
        }
        doubted.map(|(_, guard)| Lack::Support(guard))
    }

    /// Some absolute limit has not been put to the test. Comparisons may idle: at a share of 100 %
    /// legacy has no traffic.
    fn silence(&self) -> Option<Lack> {
        let bench = self.bench();
        let untested = self.acting().any(|watch| {
            let is_absolute = matches!(watch.criterion().harm, Harm::Beyond(_));
            is_absolute && watch.finding(bench) == Finding::Untested
        });
        untested.then_some(Lack::Traffic)
    }

    /// The criterion with the most evidence among those under suspicion.
    fn suspected(&self) -> Option<&Watch> {
        let limit = CALM * self.bench().threshold();
        let suspected = self.acting().filter(|watch| watch.evidence() >= limit);
        suspected.max_by(|one, other| one.evidence().total_cmp(&other.evidence()))
    }

    /// Criteria that do more than tell somebody.
    fn acting(&self) -> impl Iterator<Item = &Watch> {
        let watches = self.evidence.watches.iter();
        watches.filter(|watch| watch.criterion().action != Action::Notify)
    }

    fn counting_gates(&self) -> impl Iterator<Item = &Gate> {
        let compares = self.evidence.stage.aim.compares();
        let gates = self.evidence.gates.iter();
        gates.filter(move |gate| compares || !gate.compares())
    }

    fn gate_threshold(&self) -> f64 {
        self.evidence.stage.aim.threshold(&self.criteria)
    }

    fn bench(&self) -> Bench<'_> {
        Bench {
            criteria: &self.criteria,
            learnt: &self.evidence.learnt,
            clusters_seen: self.evidence.clusters_seen.count_ones(),
            legacy_available: self.evidence.legacy_available,
        }
    }
}

/// When a window that ends at `now` began.
fn beginning(window: &Window, now: Timestamp) -> Timestamp {
    let milliseconds = (window.seconds * 1_000.0).round() as i64;
    Timestamp::from_milliseconds(now.milliseconds().saturating_sub(milliseconds))
}
