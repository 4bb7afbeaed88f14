//! What happened, in one sentence that a tired person understands.
//!
//! A sentence about a breach always has the same parts in the same order: what, when, how many of
//! how many since when on both arms, how sure, and how sure it had to be.

use std::time::Duration;

use super::By;
use crate::policy::criteria::{Criteria, Criterion, Harm, Metric};
use crate::policy::duration;
use crate::policy::judge::guards::Guard;
use crate::policy::judge::window::Pair;
use crate::policy::judge::{Breach, LimitBreach};
use crate::policy::share::Share;
use crate::policy::signal::SignalBreach;
use crate::policy::time::Timestamp;
use crate::policy::wording::{grouped, odds, percent};

/// What speaks against `new`.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cause {
    /// What requests have shown.
    Judged(Breach),
    /// What a signal tells.
    Signal(SignalBreach),
}

/// The engine rolled back.
pub(super) fn rolled_back(
    split: &str,
    now: Timestamp,
    cause: &Cause,
    criteria: &Criteria,
    destination: &str,
) -> String {
    let clock = now.clock();
    let figures = figures(cause);
    let ground = match cause {
        Cause::Judged(Breach::Limit(limit)) => {
            let at_least = if limit.evidence >= limit.evidence_cap {
                "at least "
            } else {
                ""
            };
            let budget = (criteria.alpha * 10_000.0).round() / 100.0;
            format!(
                "Evidence {at_least}{} : 1 against \"{}\"; rollback at {} : 1. \
                 False-rollback budget {budget}% per day.",
                odds(limit.evidence),
                limit.criterion.promise(),
                grouped(limit.threshold.round() as u64),
            )
        }
        Cause::Judged(Breach::Streak { .. }) => {
            format!("Rollback at {} in a row.", criteria.hard_fail)
        }
        Cause::Signal(breach) => match breach.criterion.sustained {
            Duration::ZERO => "A signal rolls back at once.".to_owned(),
            sustained => format!("Rollback after {}.", duration::print(sustained)),
        },
    };
    format!("Rolled back new of {split}{destination} at {clock}: {figures}. {ground}")
}

/// The engine would have rolled back.
pub(super) fn held(
    split: &str,
    now: Timestamp,
    share: Share,
    cause: &Cause,
    guard: Option<Guard>,
) -> String {
    let clock = now.clock();
    let figures = figures(cause);
    let because = match guard {
        None => {
            return format!(
                "Holding new of {split} at {share} at {clock}: {figures}. The criterion asks for \
                 no more than a hold; a person may roll back."
            );
        }
        Some(Guard::LegacyUnavailable) => "legacy has no healthy endpoint",
        Some(_) => "legacy breaches the same limit",
    };
    format!(
        "Holding new of {split} at {share} at {clock}: {figures}. Not rolled back, since {because} \
         and moving everyone there would help nobody; a person may."
    )
}

/// The engine would have rolled back, if it had not only been asked for advice.
pub(super) fn advised(split: &str, now: Timestamp, cause: &Cause) -> String {
    let (clock, figures) = (now.clock(), figures(cause));
    format!("Would roll back new of {split} at {clock}: {figures}. Only advising.")
}

/// A criterion is breached that asks for no more than to be told.
pub(super) fn noticed(split: &str, now: Timestamp, cause: &Cause) -> String {
    let (clock, figures) = (now.clock(), figures(cause));
    format!(
        "Noticed on new of {split} at {clock}: {figures}. Nothing was done: the criterion asks for \
         no more than to be told."
    )
}

/// The condition that fired, in a few words.
pub(super) fn reason(cause: &Cause) -> String {
    match cause {
        Cause::Judged(Breach::Limit(limit)) => limit.criterion.to_string(),
        Cause::Judged(Breach::Streak { length, .. }) => format!("{length} failures in a row"),
        Cause::Signal(breach) => breach.criterion.to_string(),
    }
}

/// The same without figures: it names an episode, which lasts as long as the condition does.
pub(super) fn condition(cause: &Cause) -> String {
    match cause {
        Cause::Judged(Breach::Streak { .. }) => "failures in a row".to_owned(),
        cause => reason(cause),
    }
}

pub(super) fn set(
    split: &str,
    now: Timestamp,
    share: Share,
    was: Share,
    obstacle: Option<&str>,
    by: &By,
) -> String {
    let clock = now.clock();
    let effect = match obstacle {
        Some(obstacle) => format!("{obstacle} keeps it at {was} for now"),
        None => format!("it was {was}"),
    };
    let by = signature(by);
    format!("Set the share of new of {split} to {share} at {clock} {by}; {effect}.")
}

pub(super) fn rolled_back_by(
    split: &str,
    now: Timestamp,
    was: Share,
    to: Share,
    again: bool,
    by: &By,
) -> String {
    let (clock, by) = (now.clock(), signature(by));
    let destination = if to > Share::ZERO {
        format!(" to {to}")
    } else {
        String::new()
    };
    if again && was == to {
        format!("Rolled back new of {split} at {clock} {by}; it was rolled back already.")
    } else {
        format!("Rolled back new of {split}{destination} at {clock} {by}; it was at {was}.")
    }
}

pub(super) fn resumed(
    split: &str,
    now: Timestamp,
    share: Share,
    obstacle: Option<&str>,
    by: &By,
) -> String {
    let (clock, by) = (now.clock(), signature(by));
    let effect = match obstacle {
        Some(obstacle) => format!("{obstacle} keeps it at 0% for now"),
        None => format!("it is at {share} and judged afresh"),
    };
    format!("Resumed new of {split} at {clock} {by}; {effect}.")
}

pub(super) fn emergency(split: &str, now: Timestamp, was: Share, again: bool, by: &By) -> String {
    let (clock, by) = (now.clock(), signature(by));
    if again {
        format!("Emergency for {split} at {clock} {by}; it was declared already.")
    } else {
        format!("Emergency for {split} at {clock} {by}: legacy alone, new was at {was}.")
    }
}

pub(super) fn emergency_cleared(
    split: &str,
    now: Timestamp,
    share: Share,
    again: bool,
    by: &By,
) -> String {
    let (clock, by) = (now.clock(), signature(by));
    if again {
        format!("No emergency for {split} at {clock} {by}; there was none.")
    } else {
        format!("Emergency for {split} cleared at {clock} {by}; new is at {share}.")
    }
}

pub(super) fn new_rollout(
    split: &str,
    now: Timestamp,
    id: &str,
    share: Share,
    was_latched: bool,
) -> String {
    let clock = now.clock();
    let latch = if was_latched {
        ", the latch of the last rollback is cleared"
    } else {
        ""
    };
    format!("The file began rollout {id} of {split} at {clock}; new is at {share}{latch}.")
}

pub(super) fn moved_by_file(split: &str, now: Timestamp, was: Share, share: Share) -> String {
    let clock = now.clock();
    format!("The file moved new of {split} from {was} to {share} at {clock}.")
}

/// The file says something else, and nobody is moved.
pub(super) fn changed_by_file(split: &str, now: Timestamp, what: &str, share: Share) -> String {
    let clock = now.clock();
    format!("The file changed {what} of {split} at {clock}; new stays at {share}.")
}

pub(super) fn signature(by: &By) -> String {
    if by.reason.is_empty() {
        format!("by {}", by.actor)
    } else {
        format!("by {} ({})", by.actor, by.reason)
    }
}

fn figures(cause: &Cause) -> String {
    match cause {
        Cause::Judged(Breach::Limit(limit)) => limit_figures(limit),
        Cause::Signal(breach) => breach.to_string().trim_end_matches('.').to_owned(),
        Cause::Judged(Breach::Streak { length, clusters }) => format!(
            "{} requests in a row failed or were diverted ({}), none succeeded between",
            grouped(*length),
            groups(*clusters)
        ),
    }
}

fn limit_figures(breach: &LimitBreach) -> String {
    let since = breach.since.map_or(String::new(), |since| {
        let clock = since.clock();
        format!(" since {clock}")
    });
    let legacy = match breach.legacy.ratio() {
        Some(ratio) => format!("{} ({})", percent(ratio), of(breach.legacy)),
        None => "without requests".to_owned(),
    };
    let event = event(breach.criterion);
    let rate = percent(breach.new.ratio().unwrap_or(0.0));
    let (of, groups) = (of(breach.new), groups(breach.clusters));
    match breach.criterion.harm {
        Harm::Beyond(_) => {
            format!("{event} {rate} ({of} requests, {groups}){since}, legacy {legacy}")
        }
        Harm::WorseThanLegacy(_) => {
            format!("{event} {rate} ({of} requests, {groups}) against legacy {legacy}{since}")
        }
    }
}

/// What is counted: `errors`, `slower than 500ms`, or `whole answers slower than 2s`.
fn event(criterion: Criterion) -> String {
    match (criterion.metric, criterion.harm) {
        (Metric::ErrorRate, _) => "errors".to_owned(),
        (Metric::ClientErrorRate, _) => "client errors".to_owned(),
        (Metric::Availability, _) => "not answered well".to_owned(),
        (Metric::FallbackRate, _) => "answered by legacy instead".to_owned(),
        (metric, Harm::Beyond(_)) => {
            let promise = criterion.promise();
            let limit = promise.rsplit(' ').next().unwrap_or_default();
            let what = match metric {
                Metric::TotalLatency(_) => "whole answers slower",
                _ => "slower",
            };
            format!("{what} than {limit}")
        }
        (metric, Harm::WorseThanLegacy(margin)) => {
            let quantile = match metric {
                Metric::LatencyProfile => "latency".to_owned(),
                quantile => quantile.to_string(),
            };
            let percent = (margin * 10_000.0).round() / 100.0;
            format!("slower than legacy's {quantile} and {percent}%")
        }
    }
}

fn groups(clusters: u32) -> String {
    match clusters {
        1 => "1 session group".to_owned(),
        _ => format!("{clusters} session groups"),
    }
}

fn of(counts: Pair) -> String {
    format!("{} of {}", grouped(counts.e), grouped(counts.n))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(clock: &str) -> Timestamp {
        let instant: jiff::Timestamp = format!("2026-11-20T{clock}Z").parse().expect("a time");
        Timestamp::from_milliseconds(instant.as_millisecond())
    }

    fn judged(breach: LimitBreach) -> Cause {
        Cause::Judged(Breach::Limit(breach))
    }

    fn breach(metric: Metric, limit: f64) -> LimitBreach {
        LimitBreach {
            criterion: Criterion::beyond(metric, limit),
            evidence: 4_098.7,
            threshold: 200.0,
            evidence_cap: 1e6,
            since: Some(at("14:03:26.4")),
            new: Pair { n: 45, e: 23 },
            legacy: Pair { n: 4_050, e: 4 },
            clusters: 17,
        }
    }

    #[test]
    fn a_rollback_is_told_with_all_its_figures() {
        let breach = judged(breach(Metric::ErrorRate, 0.05));
        assert_eq!(
            rolled_back("shop", at("14:03:27.9"), &breach, &Criteria::default(), ""),
            "Rolled back new of shop at 14:03:27: errors 51% (23 of 45 requests, 17 session \
             groups) since 14:03:26, legacy 0.10% (4 of 4 050). Evidence 4 100 : 1 against \
             \"error_rate <= 5%\"; rollback at 200 : 1. False-rollback budget 1% per day."
        );
    }

    #[test]
    fn slow_answers_without_anything_to_compare_with_are_told_alike() {
        let breach = judged(LimitBreach {
            evidence: 1e6,
            legacy: Pair::default(),
            clusters: 1,
            ..breach(Metric::Latency(95), 0.5)
        });
        assert_eq!(
            rolled_back("shop", at("14:03:27"), &breach, &Criteria::default(), ""),
            "Rolled back new of shop at 14:03:27: slower than 500ms 51% (23 of 45 requests, 1 \
             session group) since 14:03:26, legacy without requests. Evidence at least \
             1 000 000 : 1 against \"p95 <= 500ms\"; rollback at 200 : 1. False-rollback budget \
             1% per day."
        );
    }

    #[test]
    fn a_hard_trip_and_a_hold_have_sentences_of_their_own() {
        let breach = Cause::Judged(Breach::Streak {
            length: 12,
            clusters: 7,
        });
        assert_eq!(
            rolled_back("shop", at("14:03:27"), &breach, &Criteria::default(), ""),
            "Rolled back new of shop at 14:03:27: 12 requests in a row failed or were diverted (7 \
             session groups), none succeeded between. Rollback at 10 in a row."
        );
        let share = "10%".parse().expect("a share");
        assert_eq!(
            held(
                "shop",
                at("14:03:27"),
                share,
                &breach,
                Some(Guard::LegacyUnavailable)
            ),
            "Holding new of shop at 10% at 14:03:27: 12 requests in a row failed or were diverted \
             (7 session groups), none succeeded between. Not rolled back, since legacy has no \
             healthy endpoint and moving everyone there would help nobody; a person may."
        );
    }

    #[test]
    fn a_comparison_is_told_with_both_arms_side_by_side() {
        let worse = |metric, margin| LimitBreach {
            criterion: Criterion::worse_than_legacy(metric, margin),
            threshold: 400.0,
            new: Pair { n: 450, e: 23 },
            ..breach(metric, 0.0)
        };
        let errors = judged(worse(Metric::ErrorRate, 0.25));
        assert_eq!(
            rolled_back("shop", at("14:03:27"), &errors, &Criteria::default(), ""),
            "Rolled back new of shop at 14:03:27: errors 5.1% (23 of 450 requests, 17 session \
             groups) against legacy 0.10% (4 of 4 050) since 14:03:26. Evidence 4 100 : 1 against \
             \"error_rate at most 1.25 × legacy\"; rollback at 400 : 1. False-rollback budget 1% \
             per day."
        );
        let slow = judged(worse(Metric::Latency(95), 0.1));
        assert_eq!(
            rolled_back("shop", at("14:03:27"), &slow, &Criteria::default(), ""),
            "Rolled back new of shop at 14:03:27: slower than legacy's p95 and 10% 5.1% (23 of \
             450 requests, 17 session groups) against legacy 0.10% (4 of 4 050) since 14:03:26. \
             Evidence 4 100 : 1 against \"p95 at most 1.1 × legacy\"; rollback at 400 : 1. \
             False-rollback budget 1% per day."
        );
    }

    #[test]
    fn a_criterion_that_asks_for_a_hold_holds() {
        let breach = judged(breach(Metric::ErrorRate, 0.05));
        let share = "10%".parse().expect("a share");
        assert_eq!(
            held("shop", at("14:03:27"), share, &breach, None),
            "Holding new of shop at 10% at 14:03:27: errors 51% (23 of 45 requests, 17 session \
             groups) since 14:03:26, legacy 0.10% (4 of 4 050). The criterion asks for no more \
             than a hold; a person may roll back."
        );
    }
}
