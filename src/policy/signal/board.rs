//! The latest values of a split's signals, and for how long its criteria have been breached.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::lack::{Comparison, SignalBreach, SignalCause, SignalLack, Silence};
use super::quantity::{Quantity, digits};
use super::{Absence, Reading, SignalCriterion, SignalRequirement, SignalTerms};
use crate::policy::arm::{Arm, PerArm};
use crate::policy::criteria::Action;
use crate::policy::time::Timestamp;

/// A source may say anything of any length; this much of it is kept.
const LONGEST_ERROR: usize = 200;

/// What is known of a split's signals. It is a part of the rollout's record and goes on after a
/// restart where it was.
///
/// [`Board::take`], [`Board::pass`], [`Board::sleep`], [`Board::refresh`] and [`Board::reconfigure`]
/// change it; all else looks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Board {
    signals: Vec<Signal>,
    watched: Vec<Watched>,
    requirements: Vec<SignalRequirement>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Signal {
    terms: SignalTerms,
    latest: PerArm<Option<Latest>>,
    /// What the sources have said instead of a value; forgotten with the next value.
    errors: PerArm<Option<String>>,
    /// Seconds since this signal was first asked for, or everything was judged afresh.
    awaited: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Latest {
    value: f64,
    at: Timestamp,
    /// Seconds, measured.
    age: f64,
    /// Everything was judged afresh since; what was seen before is shown, and speaks no more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_spent: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Watched {
    criterion: SignalCriterion,
    /// Seconds without a break for which it has been breached; absent while it is not.
    breached_for: Option<f64>,
}

/// A signal as status shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SignalState {
    /// Its name.
    pub name: String,
    /// The last value of `new`, however old.
    pub value: Option<f64>,
    /// The last value of legacy, however old.
    pub legacy: Option<f64>,
    /// When the last value of `new` was taken, RFC 3339.
    pub at: Option<String>,
    /// How long ago that was, measured.
    pub age_seconds: Option<f64>,
    /// How old a value may be.
    pub fresh_for_seconds: f64,
    /// Whether the value of `new` is fresh, and so is legacy's where it is the measure.
    pub fresh: bool,
    /// What it means that there is no fresh value: `inconclusive`, `healthy` or `harm`.
    pub absent: String,
    /// What the source has said last, if that was no value.
    pub error: Option<String>,
    /// The criteria and requirements on it.
    pub conditions: Vec<SignalCondition>,
}

/// A criterion or a requirement on a signal as status shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SignalCondition {
    /// As written.
    pub sentence: String,
    /// What is done about a breach; absent for what an advance requires.
    pub action: Option<Action>,
    /// The limit, in the signal's unit, where there are fresh values to tell.
    pub limit: Option<f64>,
    /// For how long it has been breached.
    pub breached_seconds: Option<f64>,
    /// `pass`, `fail` or `inconclusive`.
    pub verdict: String,
}

impl SignalState {
    /// A value of it, in the unit of the first of its limits.
    pub fn show(&self, value: f64) -> String {
        let mut limits = self.conditions.iter();
        let scale = limits.find_map(SignalCondition::scale);
        scale.map_or_else(|| digits(value), |scale| scale.show(value))
    }
}

impl SignalCondition {
    fn scale(&self) -> Option<Quantity> {
        match self.action {
            Some(_) => self.sentence.parse::<SignalCriterion>().ok()?.harm.scale(),
            None => {
                let requirement: SignalRequirement = self.sentence.parse().ok()?;
                requirement.proof.scale()
            }
        }
    }
}

/// What a look at a signal shows.
enum Sight {
    Value(Comparison),
    Nothing(Absence, Silence),
}

impl Board {
    /// Takes over what is configured. Signals and criteria that were there before keep what is known
    /// of them.
    pub fn reconfigure(
        &mut self,
        terms: &[SignalTerms],
        criteria: &[SignalCriterion],
        requirements: &[SignalRequirement],
    ) {
        let signals = terms.iter().map(|terms| {
            let known = self.signal(&terms.name);
            known.map_or_else(|| Signal::new(terms), |known| known.under(terms))
        });
        let signals = signals.collect();
        let watched = criteria.iter().map(|criterion| {
            let mut before = self.watched.iter();
            Watched {
                criterion: criterion.clone(),
                breached_for: before
                    .find(|watched| watched.criterion == *criterion)
                    .and_then(|watched| watched.breached_for),
            }
        });
        self.watched = watched.collect();
        self.signals = signals;
        self.requirements = requirements.to_vec();
        self.settle();
    }

    /// Takes in what a source has answered. A signal that is no longer configured is none of ours.
    pub fn take(&mut self, name: &str, reading: Reading, now: Timestamp) {
        let mut signals = self.signals.iter_mut();
        let Some(signal) = signals.find(|signal| signal.terms.name == name) else {
            return;
        };
        signal.note(Arm::New, reading.new, now);
        if let Some(legacy) = reading.legacy.filter(|_| signal.terms.has_legacy) {
            signal.note(Arm::Legacy, legacy, now);
        }
        self.settle();
    }

    /// Lets measured time pass, in seconds: values age and breaches last.
    pub fn pass(&mut self, seconds: f64) {
        self.age(seconds);
        let lasting = self.watched.iter_mut();
        for lasted in lasting.filter_map(|watched| watched.breached_for.as_mut()) {
            *lasted += seconds;
        }
        self.settle();
    }

    /// Lets time pass in which nobody looked, as between a stop and a start: values age, and that a
    /// breach has lasted meanwhile is not known.
    pub fn sleep(&mut self, seconds: f64) {
        self.age(seconds);
        self.settle();
    }

    /// Judges afresh: breaches end, and only what is read from now on counts. A source has its time
    /// to answer again before its silence is harm.
    pub fn refresh(&mut self) {
        for signal in &mut self.signals {
            signal.awaited = 0.0;
            for arm in Arm::ALL {
                if let Some(latest) = &mut signal.latest[arm] {
                    latest.is_spent = true;
                }
            }
        }
        for watched in &mut self.watched {
            watched.breached_for = None;
        }
        self.settle();
    }

    /// Whether nothing speaks against `new`: every value that is needed is there, and no criterion
    /// is breached, however shortly, but those that merely notify.
    pub fn is_calm(&self) -> bool {
        let mut watched = self.watched.iter();
        let is_breached = watched.any(|watched| {
            watched.criterion.action != Action::Notify && watched.breached_for.is_some()
        });
        let is_silent = |lack: &SignalLack| matches!(lack, SignalLack::Value(_));
        !is_breached && !self.lacking().iter().any(is_silent)
    }

    /// The criteria that are breached, for as long as they ask.
    pub fn breached(&self) -> impl Iterator<Item = SignalBreach> {
        let lasting = self.watched.iter().filter(|watched| watched.is_sustained());
        lasting.filter_map(|watched| self.breach(watched))
    }

    /// What stands in the way of an advance: values that are missing, breaches that have not lasted
    /// yet, requirements that are not met. What merely notifies stands in nobody's way.
    pub fn lacking(&self) -> Vec<SignalLack> {
        let mut lacking = Vec::new();
        let mut add = |lack: SignalLack| {
            // Two criteria on one silent signal lack the same thing.
            if !lacking.contains(&lack) {
                lacking.push(lack);
            }
        };
        let watched = self.watched.iter();
        for watched in watched.filter(|watched| watched.criterion.action != Action::Notify) {
            match self.at_criterion(&watched.criterion) {
                Sight::Nothing(Absence::Inconclusive, silence) => add(SignalLack::Value(silence)),
                _ if watched.is_sustained() => {}
                _ => {
                    if let Some(breach) = self.breach(watched) {
                        add(SignalLack::Calm(breach));
                    }
                }
            }
        }
        for requirement in &self.requirements {
            match self.at_requirement(requirement) {
                Sight::Nothing(Absence::Healthy, _) => {}
                Sight::Nothing(_, silence) => add(SignalLack::Value(silence)),
                Sight::Value(found) if requirement.proof.is_met_by(found) => {}
                Sight::Value(found) => add(SignalLack::Requirement {
                    requirement: requirement.clone(),
                    found,
                }),
            }
        }
        lacking
    }

    /// Every signal, for status, in the order of the configuration.
    pub fn states(&self) -> Vec<SignalState> {
        let states = self.signals.iter().map(|signal| {
            let Signal { terms, latest, .. } = signal;
            let is_compared = self.is_compared(&terms.name);
            SignalState {
                name: terms.name.clone(),
                value: latest.new.map(|latest| latest.value),
                legacy: latest.legacy.map(|latest| latest.value),
                at: latest.new.map(|latest| latest.at.rfc3339()),
                age_seconds: latest.new.map(|latest| latest.age),
                fresh_for_seconds: terms.fresh_for.as_secs_f64(),
                fresh: signal.fresh(Arm::New).is_some()
                    && (!is_compared || signal.fresh(Arm::Legacy).is_some()),
                absent: terms.absent.as_str().to_owned(),
                error: signal.errors.new.clone().or(signal.errors.legacy.clone()),
                conditions: self.conditions(&terms.name),
            }
        });
        states.collect()
    }

    fn conditions(&self, signal: &str) -> Vec<SignalCondition> {
        let watched = self.watched.iter();
        let criteria = watched.filter(|watched| watched.criterion.signal == signal);
        let criteria = criteria.map(|watched| {
            let sight = self.at_criterion(&watched.criterion);
            SignalCondition {
                sentence: watched.criterion.to_string(),
                action: Some(watched.criterion.action),
                limit: sight.limit(),
                breached_seconds: watched.breached_for,
                verdict: match (watched.breached_for, sight) {
                    (Some(_), _) if watched.is_sustained() => "fail",
                    (Some(_), _) | (None, Sight::Nothing(Absence::Inconclusive, _)) => {
                        "inconclusive"
                    }
                    (None, _) => "pass",
                }
                .to_owned(),
            }
        });
        let requirements = self.requirements.iter();
        let requirements = requirements.filter(|requirement| requirement.signal == signal);
        let requirements = requirements.map(|requirement| {
            let sight = self.at_requirement(requirement);
            SignalCondition {
                sentence: requirement.to_string(),
                action: None,
                limit: sight.limit(),
                breached_seconds: None,
                verdict: match sight {
                    Sight::Value(found) if requirement.proof.is_met_by(found) => "pass",
                    Sight::Nothing(Absence::Healthy, _) => "pass",
                    Sight::Nothing(Absence::Inconclusive, _) => "inconclusive",
                    Sight::Value(_) | Sight::Nothing(Absence::Harm, _) => "fail",
                }
                .to_owned(),
            }
        });
        criteria.chain(requirements).collect()
    }

    fn is_compared(&self, signal: &str) -> bool {
        let watched = self.watched.iter().map(|watched| &watched.criterion);
        let mut criteria = watched.filter(|criterion| criterion.signal == signal);
        let mut requirements = self.requirements.iter();
        criteria.any(SignalCriterion::compares)
            || requirements.any(|one| one.signal == signal && one.compares())
    }

    fn age(&mut self, seconds: f64) {
        for signal in &mut self.signals {
            signal.awaited += seconds;
            for arm in Arm::ALL {
                if let Some(latest) = &mut signal.latest[arm] {
                    latest.age += seconds;
                }
            }
        }
    }

    /// Begins and ends breaches as values and ages now are.
    fn settle(&mut self) {
        let breached = self.watched.iter().map(|watched| {
            let cause = self.cause(&watched.criterion);
            cause.map(|_| watched.breached_for.unwrap_or(0.0))
        });
        let breached: Vec<Option<f64>> = breached.collect();
        for (watched, breached_for) in self.watched.iter_mut().zip(breached) {
            watched.breached_for = breached_for;
        }
    }

    fn breach(&self, watched: &Watched) -> Option<SignalBreach> {
        Some(SignalBreach {
            criterion: watched.criterion.clone(),
            cause: self.cause(&watched.criterion)?,
            lasted: seconds(watched.breached_for?),
        })
    }

    fn cause(&self, criterion: &SignalCriterion) -> Option<SignalCause> {
        match self.at_criterion(criterion) {
            Sight::Value(found) if criterion.harm.is_done_by(found) => {
                Some(SignalCause::Value(found))
            }
            Sight::Nothing(Absence::Harm, silence) => Some(SignalCause::Absent(silence)),
            Sight::Value(_) | Sight::Nothing(..) => None,
        }
    }

    fn at_criterion(&self, criterion: &SignalCriterion) -> Sight {
        let limit = |legacy| criterion.harm.limit(legacy);
        self.look(&criterion.signal, criterion.compares(), limit)
    }

    fn at_requirement(&self, requirement: &SignalRequirement) -> Sight {
        let limit = |legacy| requirement.proof.limit(legacy);
        self.look(&requirement.signal, requirement.compares(), limit)
    }

    /// The value of `name` beside its limit, which may depend on legacy's value.
    fn look(&self, name: &str, compares: bool, limit: impl Fn(f64) -> f64) -> Sight {
        let Some(signal) = self.signal(name) else {
            // The configuration refuses such a criterion; if one comes all the same, nobody knows.
            return Sight::Nothing(
                Absence::Inconclusive,
                Silence {
                    signal: name.to_owned(),
                    arm: Arm::New,
                    age: None,
                    is_spent: false,
                    fresh_for: Duration::ZERO,
                    error: None,
                },
            );
        };
        let Some(value) = signal.fresh(Arm::New) else {
            return signal.nothing(Arm::New);
        };
        if !compares {
            return Sight::Value(Comparison {
                value,
                legacy: None,
                limit: limit(0.0),
            });
        }
        match signal.fresh(Arm::Legacy) {
            Some(legacy) => Sight::Value(Comparison {
                value,
                legacy: Some(legacy),
                limit: limit(legacy),
            }),
            None => signal.nothing(Arm::Legacy),
        }
    }

    fn signal(&self, name: &str) -> Option<&Signal> {
        let mut signals = self.signals.iter();
        signals.find(|signal| signal.terms.name == name)
    }
}

impl Signal {
    fn new(terms: &SignalTerms) -> Self {
        Self {
            terms: terms.clone(),
            latest: PerArm::default(),
            errors: PerArm::default(),
            awaited: 0.0,
        }
    }

    /// The same, under other terms. What another source has said is another quantity.
    fn under(&self, terms: &SignalTerms) -> Self {
        if terms.source != self.terms.source {
            return Self::new(terms);
        }
        let mut same = Self {
            terms: terms.clone(),
            ..self.clone()
        };
        if !terms.has_legacy {
            same.latest.legacy = None;
            same.errors.legacy = None;
        }
        same
    }

    fn note(&mut self, arm: Arm, told: Result<f64, String>, now: Timestamp) {
        let told = told.and_then(|value| {
            let is_value = value.is_finite();
            is_value
                .then_some(value)
                .ok_or(format!("{value} is no value"))
        });
        match told {
            Ok(value) => {
                self.latest[arm] = Some(Latest {
                    value,
                    at: now,
                    age: 0.0,
                    is_spent: false,
                });
                self.errors[arm] = None;
            }
            Err(error) => self.errors[arm] = Some(bounded(&error)),
        }
    }

    fn fresh(&self, arm: Arm) -> Option<f64> {
        let latest = self.latest[arm].filter(|latest| !latest.is_spent)?;
        (latest.age <= self.terms.fresh_for.as_secs_f64()).then_some(latest.value)
    }

    fn nothing(&self, arm: Arm) -> Sight {
        let latest = self.latest[arm];
        // Who has not had the time to answer once is not silent yet.
        let has_answered = latest.is_some_and(|latest| !latest.is_spent);
        let is_new = !has_answered && self.awaited <= self.terms.fresh_for.as_secs_f64();
        let meaning = match self.terms.absent {
            Absence::Harm if is_new => Absence::Inconclusive,
            absent => absent,
        };
        let silence = Silence {
            signal: self.terms.name.clone(),
            arm,
            age: latest.map(|latest| seconds(latest.age)),
            is_spent: latest.is_some_and(|latest| latest.is_spent),
            fresh_for: self.terms.fresh_for,
            error: self.errors[arm].clone(),
        };
        Sight::Nothing(meaning, silence)
    }
}

impl Watched {
    fn is_sustained(&self) -> bool {
        let needed = self.criterion.sustained.as_secs_f64();
        self.breached_for.is_some_and(|lasted| lasted >= needed)
    }
}

impl Sight {
    fn limit(&self) -> Option<f64> {
        match self {
            Sight::Value(found) => Some(found.limit),
            Sight::Nothing(..) => None,
        }
    }
}

/// One line of bounded length: a source that is no friend must not fill the log.
pub fn bounded(error: &str) -> String {
    let printable = error.chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.take(LONGEST_ERROR).collect()
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}
