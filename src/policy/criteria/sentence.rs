//! Criteria as people write them.
//!
//! `error_rate > 5%` and `error_rate < 5%` differ in one character and mean opposite things, so a
//! sentence is only accepted where it makes sense: harm is beyond a limit, a requirement is within
//! one. Everything that is printed here is read back as the same thing.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;
use std::time::Duration;

use super::{Action, Criterion, Harm, Metric, Proof, Requirement};
use crate::policy::duration;

/// The text is no rollback criterion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a rollback criterion is `error_rate > 5%`, `availability < 99%`, `p95 > 500ms` (p50, p90, \
     p95, p99, or total_p95 for the whole answer) or `error_rate worse than legacy by 25%`, with \
     `for 30s`, `then hold` or `then notify` after it if wanted; rates are above 0% and below 100%"
)]
pub struct InvalidCriterion;

/// The text is no requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an advance criterion is `error_rate < 1%`, `availability > 99.9%`, `p95 < 200ms` (p50, p90, \
     p95, p99, or total_p95 for the whole answer) or `error_rate not worse than legacy by 0.5pp`; \
     rates are above 0% and below 100%"
)]
pub struct InvalidRequirement;

const WORSE: &str = " worse than legacy by ";
const NOT_WORSE: &str = " not worse than legacy by ";
/// A hundred times as bad as legacy: beyond that a comparison says nothing.
const LARGEST_MARGIN_HUNDREDTHS: u32 = 990_000;

/// Reads a sentence such as `error_rate > 5%` or `p95 worse than legacy by 10% for 1m then hold`.
impl FromStr for Criterion {
    type Err = InvalidCriterion;

    fn from_str(text: &str) -> Result<Self, InvalidCriterion> {
        let (text, action) = match text.split_once(" then ") {
            Some((text, action)) => (text, action.trim().parse()?),
            None => (text, Action::default()),
        };
        let (text, sustained) = match text.split_once(" for ") {
            Some((text, span)) => (text, span_above_zero(span).ok_or(InvalidCriterion)?),
            None => (text, Duration::ZERO),
        };
        let (metric, harm) = harm(text).ok_or(InvalidCriterion)?;
        Ok(Criterion {
            metric,
            harm,
            sustained,
            action,
        })
    }
}

/// Writes the sentence that [`FromStr`] reads.
impl Display for Criterion {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let metric = self.metric;
        match self.harm {
            Harm::Beyond(limit) => {
                write!(f, "{metric} {} {}", metric.worse(), Limit(metric, limit))?;
            }
            Harm::WorseThanLegacy(margin) => {
                write!(f, "{metric}{WORSE}{}%", hundredths(margin))?;
            }
        }
        if !self.sustained.is_zero() {
            write!(f, " for {}", duration::print(self.sustained))?;
        }
        match self.action {
            Action::Rollback => Ok(()),
            action => write!(f, " then {action}"),
        }
    }
}

/// Reads a sentence such as `p95 < 200ms` or `error_rate not worse than legacy by 0.5pp`.
impl FromStr for Requirement {
    type Err = InvalidRequirement;

    fn from_str(text: &str) -> Result<Self, InvalidRequirement> {
        proof(text).ok_or(InvalidRequirement)
    }
}

/// Writes the sentence that [`FromStr`] reads.
impl Display for Requirement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let metric = self.metric;
        match self.proof {
            Proof::Within(limit) => {
                write!(f, "{metric} {} {}", metric.better(), Limit(metric, limit))
            }
            Proof::NotWorseThanLegacy(margin) => {
                write!(f, "{metric}{NOT_WORSE}{}pp", hundredths(margin))
            }
        }
    }
}

impl FromStr for Action {
    type Err = InvalidCriterion;

    fn from_str(text: &str) -> Result<Self, InvalidCriterion> {
        let actions = [Action::Rollback, Action::Hold, Action::Notify];
        let found = actions.into_iter().find(|action| action.as_str() == text);
        found.ok_or(InvalidCriterion)
    }
}

impl Display for Metric {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Metric::ErrorRate => f.pad("error_rate"),
            Metric::ClientErrorRate => f.pad("client_error_rate"),
            Metric::Availability => f.pad("availability"),
            Metric::FallbackRate => f.pad("fallback_rate"),
            Metric::Latency(quantile) => f.pad(&format!("p{quantile}")),
            Metric::TotalLatency(quantile) => f.pad(&format!("total_p{quantile}")),
            Metric::LatencyProfile => f.pad("latency"),
        }
    }
}

/// What must hold for a criterion not to act.
pub(super) fn promise(criterion: Criterion) -> String {
    let metric = criterion.metric;
    match criterion.harm {
        Harm::Beyond(limit) => format!("{metric} {}= {}", metric.better(), Limit(metric, limit)),
        Harm::WorseThanLegacy(margin) => {
            format!(
                "{metric} at most {} × legacy",
                hundredths(1.0 + margin) / 100.0
            )
        }
    }
}

impl Metric {
    fn named(name: &str) -> Option<Metric> {
        let rates = [
            Metric::ErrorRate,
            Metric::ClientErrorRate,
            Metric::Availability,
            Metric::FallbackRate,
            Metric::LatencyProfile,
        ];
        let first_byte = Metric::QUANTILES.map(Metric::Latency);
        let total = Metric::QUANTILES.map(Metric::TotalLatency);
        let all = rates.into_iter().chain(first_byte).chain(total);
        let mut named = all.filter(|metric| metric.to_string() == name);
        named.next()
    }

    const fn worse(self) -> char {
        match self {
            Metric::Availability => '<',
            _ => '>',
        }
    }

    const fn better(self) -> char {
        match self {
            Metric::Availability => '>',
            _ => '<',
        }
    }

    /// Whether legacy has something to compare with: it never falls back, and what is diverted
    /// never was to be its own.
    const fn is_comparable(self) -> bool {
        !matches!(self, Metric::Availability | Metric::FallbackRate)
    }

    /// The value in the metric's unit. No evidence can speak against "never" or "always" by
    /// degrees, so those are no limits.
    fn limit(self, text: &str) -> Option<f64> {
        match self {
            Metric::LatencyProfile => None,
            Metric::Latency(_) | Metric::TotalLatency(_) => {
                Some(span_above_zero(text)?.as_secs_f64())
            }
            _ => {
                let hundredths = number(text, "%").filter(|hundredths| *hundredths < 10_000)?;
                Some(f64::from(hundredths) / 10_000.0)
            }
        }
    }
}

fn harm(text: &str) -> Option<(Metric, Harm)> {
    if let Some((metric, margin)) = text.split_once(WORSE) {
        let metric = Metric::named(metric.trim()).filter(|metric| metric.is_comparable())?;
        let margin = number(margin, "%").filter(|margin| *margin <= LARGEST_MARGIN_HUNDREDTHS)?;
        return Some((metric, Harm::WorseThanLegacy(f64::from(margin) / 10_000.0)));
    }
    let sign = text.find(['<', '>'])?;
    let metric = Metric::named(text[..sign].trim())?;
    let limit = text[sign..].strip_prefix(metric.worse())?;
    Some((metric, Harm::Beyond(metric.limit(limit)?)))
}

fn proof(text: &str) -> Option<Requirement> {
    if let Some((metric, margin)) = text.split_once(NOT_WORSE) {
        let metric = Metric::named(metric.trim())
            .filter(|metric| metric.is_comparable() && !metric.is_latency())?;
        let margin = number(margin, "pp").filter(|margin| *margin < 10_000)?;
        return Some(Requirement::not_worse_than_legacy(
            metric,
            f64::from(margin) / 10_000.0,
        ));
    }
    let sign = text.find(['<', '>'])?;
    let metric = Metric::named(text[..sign].trim())?;
    let limit = text[sign..].strip_prefix(metric.better())?;
    Some(Requirement::within(metric, metric.limit(limit)?))
}

/// Hundredths of `unit`, above zero; at most two decimals.
fn number(text: &str, unit: &str) -> Option<u32> {
    let digits = text.trim().strip_suffix(unit)?.trim_end();
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || whole.len() > 5 || fraction.len() > 2 {
        return None;
    }
    let whole: u32 = whole.parse().ok()?;
    let fraction: u32 = format!("{fraction:0<2}").parse().ok()?;
    Some(whole * 100 + fraction).filter(|hundredths| *hundredths > 0)
}

fn span_above_zero(text: &str) -> Option<Duration> {
    let span = duration::parse(text).ok()?;
    (!span.is_zero()).then_some(span)
}

/// A ratio in percent, rounded to the hundredths in which limits are written.
fn hundredths(ratio: f64) -> f64 {
    (ratio * 10_000.0).round() / 100.0
}

/// A limit in its metric's unit.
struct Limit(Metric, f64);

impl Display for Limit {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Limit(metric, value) = *self;
        if !metric.is_latency() {
            return write!(f, "{}%", hundredths(value));
        }
        let limit = Duration::try_from_secs_f64(value).unwrap_or_default();
        // A limit is written in whole microseconds; the float is off by a nanosecond.
        let microseconds = limit.saturating_add(Duration::from_nanos(500)).as_micros();
        let limit = Duration::from_micros(u64::try_from(microseconds).unwrap_or(u64::MAX));
        f.write_str(&duration::print(limit))
    }
}
