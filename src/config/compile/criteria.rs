//! Criteria: what was written, over what the split says, over the defaults.
//!
//! A criterion that contradicts another one is often a default that nobody thought of, so each
//! keeps the key under which it was written.

use super::Compiler;
use crate::config::model::Signal;
use crate::config::notation::{AdvanceSentence, RollbackSentence, Written};
use crate::config::raw;
use crate::policy::criteria::{
    Action, Criteria, Criterion, Harm, LatencyLimits, Overdispersion, Proof, Requirement,
};
use crate::policy::signal::{SignalCriterion, SignalRequirement, SignalTerms};

/// What applies to a split, or to one of its stages.
#[derive(Clone)]
pub(super) struct Draft {
    rollback: Vec<Stated<Criterion>>,
    advance: Vec<Stated<Requirement>>,
    signal_rollback: Vec<Stated<SignalCriterion>>,
    signal_advance: Vec<Stated<SignalRequirement>>,
    /// The signals that a criterion may name.
    signals: Vec<SignalTerms>,
}

/// A criterion and where it stands.
#[derive(Clone)]
struct Stated<T> {
    criterion: T,
    place: Place,
}

/// Where a criterion stands.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// Nowhere: it is a default.
    Default,
    /// In the list of the split, with this index.
    Split(usize),
    /// In the list of this stage, with this index.
    Stage(usize, usize),
}

/// What one list may hold: criteria of which some replace others.
trait Sentence: Clone + std::fmt::Display {
    /// Metric and kind are the same: of two, the one that is nearer to the stage counts.
    fn replaces(&self, other: &Self) -> bool;

    /// The same is done about the same thing, so one of the two could never be the first.
    fn repeats(&self, other: &Self) -> bool;
}

impl Sentence for Criterion {
    fn replaces(&self, other: &Self) -> bool {
        let compares = |criterion: &Self| matches!(criterion.harm, Harm::WorseThanLegacy(_));
        self.metric == other.metric && compares(self) == compares(other)
    }

    /// To be told at 2 % and to roll back at 5 % are two things.
    fn repeats(&self, other: &Self) -> bool {
        self.replaces(other) && self.action == other.action
    }
}

impl Sentence for Requirement {
    fn replaces(&self, other: &Self) -> bool {
        let compares =
            |requirement: &Self| matches!(requirement.proof, Proof::NotWorseThanLegacy(_));
        self.metric == other.metric && compares(self) == compares(other)
    }

    fn repeats(&self, other: &Self) -> bool {
        self.replaces(other)
    }
}

impl Sentence for SignalCriterion {
    fn replaces(&self, other: &Self) -> bool {
        self.is_like(other)
    }

    /// A high limit at once and a lower one after a while are two things.
    fn repeats(&self, other: &Self) -> bool {
        self.action == other.action && (self.forestalls(other) || other.forestalls(self))
    }
}

impl Sentence for SignalRequirement {
    fn replaces(&self, other: &Self) -> bool {
        self.is_like(other)
    }

    fn repeats(&self, other: &Self) -> bool {
        self.replaces(other)
    }
}

impl Draft {
    /// What applies where nothing was written.
    fn defaults(signals: &[Signal]) -> Self {
        let defaults = Criteria::default();
        Self {
            rollback: defaults.rollback.into_iter().map(by_default).collect(),
            advance: defaults.advance.into_iter().map(by_default).collect(),
            signal_rollback: Vec::new(),
            signal_advance: Vec::new(),
            signals: signals.iter().map(|signal| signal.terms.clone()).collect(),
        }
    }

    /// The criteria, judged as `settings` says.
    pub(super) fn criteria(&self, settings: &Criteria) -> Criteria {
        Criteria {
            rollback: sentences(&self.rollback),
            advance: sentences(&self.advance),
            signal_rollback: sentences(&self.signal_rollback),
            signal_advance: sentences(&self.signal_advance),
            ..settings.clone()
        }
    }
}

impl Compiler<'_, '_> {
    /// What applies to the whole split.
    pub(super) fn draft(
        &mut self,
        split: &str,
        signals: &[Signal],
        rollback: raw::Rollback,
        advance: raw::Advance,
    ) -> Draft {
        self.redraft(
            split,
            None,
            &Draft::defaults(signals),
            Some(rollback),
            Some(advance),
        )
    }

    /// What applies to the stage with this index, where the split has `wide`.
    pub(super) fn stage_draft(
        &mut self,
        split: &str,
        stage: usize,
        wide: &Draft,
        rollback: Option<raw::Rollback>,
        advance: Option<raw::Advance>,
    ) -> Draft {
        self.redraft(split, Some(stage), wide, rollback, advance)
    }

    fn redraft(
        &mut self,
        split: &str,
        stage: Option<usize>,
        base: &Draft,
        rollback: Option<raw::Rollback>,
        advance: Option<raw::Advance>,
    ) -> Draft {
        let place = |index| match stage {
            None => Place::Split(index),
            Some(stage) => Place::Stage(stage, index),
        };
        let mut draft = base.clone();
        match rollback {
            None => {}
            Some(raw::Rollback::Off(raw::Off::Off)) => {
                draft.rollback.clear();
                draft.signal_rollback.clear();
            }
            Some(raw::Rollback::Criteria(written)) => {
                let mut on_metrics = Vec::new();
                let mut on_signals: Vec<(usize, SignalCriterion)> = Vec::new();
                for (index, Written(sentence)) in written.numbered() {
                    match sentence {
                        RollbackSentence::Metric(criterion) => on_metrics.push((index, criterion)),
                        RollbackSentence::Signal(criterion) => {
                            let key = place(index).key(split, "rollback");
                            let compares = criterion.compares();
                            self.judge_signal(&key, &base.signals, &criterion.signal, compares);
                            on_signals.push((index, criterion));
                        }
                    }
                }
                let written = self.distinct(split, "rollback", on_metrics, place);
                draft.rollback = merged(written, &base.rollback);
                self.warn_of_lost_rollbacks(split, &base.rollback, &draft.rollback);
                let written = self.distinct(split, "rollback", on_signals, place);
                draft.signal_rollback = merged(written, &base.signal_rollback);
            }
        }
        match advance {
            None => {}
            Some(raw::Advance::Off(raw::Unproven::Off)) => {
                draft.advance.clear();
                draft.signal_advance.clear();
            }
            Some(raw::Advance::Requirements(written)) => {
                let mut on_metrics = Vec::new();
                let mut on_signals: Vec<(usize, SignalRequirement)> = Vec::new();
                for (index, Written(sentence)) in written.numbered() {
                    match sentence {
                        AdvanceSentence::Metric(needed) => on_metrics.push((index, needed)),
                        AdvanceSentence::Signal(needed) => {
                            let key = place(index).key(split, "advance");
                            let compares = needed.compares();
                            self.judge_signal(&key, &base.signals, &needed.signal, compares);
                            on_signals.push((index, needed));
                        }
                    }
                }
                let written = self.distinct(split, "advance", on_metrics, place);
                draft.advance = merged(written, &base.advance);
                let written = self.distinct(split, "advance", on_signals, place);
                draft.signal_advance = merged(written, &base.signal_advance);
            }
        }
        draft
    }

    /// Reports defaults that rolled back and were replaced by what does not: whoever adds a line to
    /// be told earlier seldom means to give up the rollback.
    fn warn_of_lost_rollbacks(
        &mut self,
        split: &str,
        base: &[Stated<Criterion>],
        present: &[Stated<Criterion>],
    ) {
        let rolls_back = |one: &&Stated<Criterion>| one.criterion.action == Action::Rollback;
        let defaults = base.iter().filter(rolls_back);
        for lost in defaults.filter(|one| one.place == Place::Default) {
            let mut successors = present
                .iter()
                .filter(|one| one.criterion.replaces(&lost.criterion));
            let Some(first) = successors.clone().next() else {
                continue;
            };
            if successors.any(|one| one.criterion.action == Action::Rollback) {
                continue;
            }
            let metric = lost.criterion.metric;
            let mut others = present.iter().filter(rolls_back);
            let message = match others.find(|one| one.criterion.metric == metric) {
                None => format!(
                    "nothing rolls back on {metric} any more: this replaces the default `{}`",
                    lost.criterion
                ),
                Some(other) => format!(
                    "nothing but `{}` rolls back on {metric} any more: this replaces the default \
                     `{}`",
                    other.criterion, lost.criterion
                ),
            };
            let remedy = format!(
                "add `{}` to the list to keep it; the two go together",
                lost.criterion
            );
            self.warning(&first.place.key(split, "rollback"), message, remedy);
        }
    }

    /// Reports a first word that is neither a metric nor a signal, and a comparison with a legacy
    /// that nobody asks about.
    fn judge_signal(&mut self, key: &str, signals: &[SignalTerms], name: &str, compares: bool) {
        let Some(terms) = signals.iter().find(|terms| terms.name == name) else {
            let names: Vec<_> = signals
                .iter()
                .map(|terms| format!("`{}`", terms.name))
                .collect();
            let signals = match &names[..] {
                [] => "this split has no `signals`".to_owned(),
                names => format!("the split's signals are {}", names.join(", ")),
            };
            let remedy = format!(
                "the metrics are `error_rate`, `client_error_rate`, `availability`, \
                 `fallback_rate`, `p95`, `total_p95`; {signals}"
            );
            let message = format!("there is no metric and no signal `{name}`");
            self.problem(key, message, remedy);
            return;
        };
        if compares && !terms.has_legacy {
            let message = format!("`{name}` has no value of legacy to compare with");
            let remedy = "add `legacy_query` or `legacy_http` to the signal";
            self.problem(key, message, remedy);
        }
    }

    /// Criteria as written, with a problem for each that says again what another says.
    fn distinct<T: Sentence>(
        &mut self,
        split: &str,
        list: &str,
        written: Vec<(usize, T)>,
        place: impl Fn(usize) -> Place,
    ) -> Vec<Stated<T>> {
        let mut criteria: Vec<Stated<T>> = Vec::new();
        for (index, criterion) in written {
            let place = place(index);
            let mut others = criteria.iter();
            if let Some(other) = others.find(|other| criterion.repeats(&other.criterion)) {
                let message = format!("`{}` limits the same already", other.criterion);
                let remedy =
                    "keep the stricter one: the other could never be the first to be passed";
                self.problem(&place.key(split, list), message, remedy);
            }
            criteria.push(Stated { criterion, place });
        }
        criteria
    }

    /// Reports what must be proven although it would be harm. What is a default on both sides
    /// agrees.
    pub(super) fn judge_contradictions(&mut self, split: &str, drafts: &[Draft]) {
        let mut reported = Vec::new();
        for draft in drafts {
            for needed in &draft.advance {
                let acting = draft.rollback.iter();
                let harm = acting
                    .filter(|harm| harm.criterion.action != Action::Notify)
                    .find(|harm| needed.criterion.contradicts(harm.criterion));
                if let Some(harm) = harm {
                    self.contradiction(split, needed, harm, &mut reported);
                }
            }
            for needed in &draft.signal_advance {
                let acting = draft.signal_rollback.iter();
                let harm = acting
                    .filter(|harm| harm.criterion.action != Action::Notify)
                    .find(|harm| needed.criterion.contradicts(&harm.criterion));
                if let Some(harm) = harm {
                    self.contradiction(split, needed, harm, &mut reported);
                }
            }
        }
    }

    fn contradiction(
        &mut self,
        split: &str,
        needed: &Stated<impl Sentence>,
        harm: &Stated<impl Sentence>,
        reported: &mut Vec<(Place, Place)>,
    ) {
        // Most stages say nothing of their own, and one mistake is one problem.
        if reported.contains(&(needed.place, harm.place)) {
            return;
        }
        reported.push((needed.place, harm.place));
        let (list, place, at_fault) = match needed.place {
            Place::Default => ("rollback", harm.place, "`advance`"),
            _ => ("advance", needed.place, "this one"),
        };
        let message = format!(
            "{} contradicts {}: what is proven could be harm",
            needed.describe("advance"),
            harm.describe("rollback"),
        );
        let remedy = format!("make {at_fault} stricter than what rolls back, or `off`");
        self.problem(&place.key(split, list), message, remedy);
    }

    /// Reports more limits than the data plane can count for one split.
    pub(super) fn judge_latency_limits(&mut self, split: &str, criteria: &[&Criteria]) {
        let limits = LatencyLimits::of(criteria.iter().copied());
        let most = Criteria::MAX_LATENCY_LIMITS;
        let (key, all) = match criteria {
            [_] => ("rollback", ""),
            _ => ("stages", " over all stages"),
        };
        let key = format!("{split}.{key}");
        if limits.first_byte.len() > most {
            let message = format!("{} latency limits{all}", limits.first_byte.len());
            let remedy = format!(
                "keep at most {most}, counting the defaults `p95 > 500ms` and `p95 < 200ms`"
            );
            self.problem(&key, message, remedy);
        }
        if limits.total.len() > most {
            let message = format!("{} limits on the whole answer{all}", limits.total.len());
            self.problem(&key, message, format!("keep at most {most}"));
        }
    }
}

/// How criteria are judged; what they are is added by a [`Draft`].
pub(super) fn settings(analysis: raw::Analysis) -> Criteria {
    let overdispersion = match analysis.overdispersion {
        raw::OverdispersionOrAuto::Auto(raw::Auto::Auto) => Overdispersion::Auto,
        raw::OverdispersionOrAuto::Fixed(factor) => Overdispersion::Fixed(factor),
    };
    Criteria {
        alpha: analysis.alpha,
        alpha_advance: analysis.alpha_advance,
        alpha_promote: analysis.alpha_promote,
        error_min_effect: analysis.error_min_effect,
        client_error_min_effect: analysis.client_error_min_effect,
        latency_quantiles: analysis.latency_quantiles.sound().collect(),
        min_events: analysis.min_events,
        min_bad_clusters: analysis.min_bad_clusters,
        max_cluster_share: analysis.max_cluster_share,
        min_breach_windows: analysis.min_breach_windows,
        latency_warmup: analysis.latency_warmup.0,
        min_latency_samples: analysis.min_latency_samples,
        hard_fail: analysis.hard_fail,
        overdispersion,
        latency_overdispersion: overdispersion,
        when_legacy_too: analysis.when_legacy_too.into(),
        ..Criteria::default()
    }
}

impl<T: std::fmt::Display> Stated<T> {
    fn describe(&self, list: &str) -> String {
        match self.place {
            Place::Default => format!("the default `{}` of `{list}`", self.criterion),
            Place::Split(_) | Place::Stage(..) => format!("`{}` of `{list}`", self.criterion),
        }
    }
}

impl Place {
    /// The key of an entry of the list with this name.
    fn key(self, split: &str, list: &str) -> String {
        match self {
            Place::Default => format!("{split}.{list}"),
            Place::Split(index) => format!("{split}.{list}[{index}]"),
            Place::Stage(stage, index) => format!("{split}.stages[{stage}].{list}[{index}]"),
        }
    }
}

const fn by_default<T>(criterion: T) -> Stated<T> {
    Stated {
        criterion,
        place: Place::Default,
    }
}

/// What was written, and what `base` has of other metrics and kinds.
fn merged<T: Sentence>(written: Vec<Stated<T>>, base: &[Stated<T>]) -> Vec<Stated<T>> {
    let mut criteria = written;
    let kept = base.iter().filter(|one| {
        let mut written = criteria.iter();
        !written.any(|other| other.criterion.replaces(&one.criterion))
    });
    let kept: Vec<Stated<T>> = kept.cloned().collect();
    criteria.extend(kept);
    criteria
}

fn sentences<T: Clone>(stated: &[Stated<T>]) -> Vec<T> {
    let sentences = stated.iter().map(|one| one.criterion.clone());
    sentences.collect()
}
