//! Criteria and requirements as status, records and pages show them.

use super::gate::Gate;
use super::interval::{self, confidence_sequence};
use super::kernels::Contrast;
use super::lack::Lack;
use super::watch::{Bench, Finding, Watch};
use super::window::Pair;
use crate::policy::rollout::{Condition, Need, Observed};
use crate::policy::time::Timestamp;

/// One criterion.
pub(super) fn condition(watch: &Watch, bench: Bench<'_>) -> Condition {
    let (since, tally) = watch.suspicion();
    let (verdict, withheld_by) = match watch.finding(bench) {
        Finding::Untested => ("inconclusive", None),
        Finding::Quiet => ("pass", None),
        Finding::Doubted(guard) => ("inconclusive", Some(guard)),
        Finding::Held(guard) => ("fail", Some(guard)),
        Finding::Breached => ("fail", None),
    };
    let Contrast { new, legacy } = tally.counts;
    let phi = watch.phi(bench);
    Condition {
        criterion: watch.criterion().to_string(),
        action: watch.criterion().action,
        value: new.ratio(),
        limit: watch.allowed_share(tally),
        samples: new.n,
        events: new.e,
        interval: interval(new, phi),
        legacy: observed(legacy, phi),
        evidence: watch.evidence(),
        threshold: bench.threshold(),
        meter: meter(watch.evidence(), bench.threshold()),
        since: since.map(Timestamp::rfc3339),
        overdispersion: phi,
        verdict: verdict.to_owned(),
        withheld_by: withheld_by.map(|guard| guard.to_string()),
    }
}

/// One requirement.
pub(super) fn need(gate: &Gate, threshold: f64, bench: Bench<'_>) -> Need {
    let requirement = gate.requirement();
    let evidence = gate.evidence();
    let phi = bench.learnt.phi(gate.event(), bench.criteria);
    let Contrast { new, legacy } = gate.counts();
    let estimate = gate.estimate(threshold);
    let is_proven = evidence >= threshold;
    let lack = Lack::Proof {
        requirement,
        evidence,
        threshold,
        estimate,
    };
    let to_come = estimate.filter(|_| !is_proven);
    Need {
        requirement: requirement.to_string(),
        value: new.ratio(),
        limit: gate.allowed_share(),
        samples: new.n,
        events: new.e,
        interval: interval(new, phi),
        legacy: observed(legacy, phi),
        evidence,
        threshold,
        meter: meter(evidence, threshold),
        overdispersion: phi,
        verdict: if is_proven { "pass" } else { "inconclusive" }.to_owned(),
        requests_to_come: to_come.map(|estimate| estimate.requests),
        seconds_to_come: to_come.map(|estimate| estimate.seconds),
        lacking: (!is_proven).then(|| lack.to_string()),
    }
}

/// How far evidence has come, by its orders of magnitude.
fn meter(evidence: f64, threshold: f64) -> f64 {
    let meter = evidence.ln() / threshold.ln();
    // Evidence of nothing has no logarithm.
    if meter.is_finite() {
        meter.clamp(0.0, 1.0)
    } else {
        0.0
    }
}

fn observed(counts: Pair, phi: f64) -> Observed {
    Observed {
        samples: counts.n,
        events: counts.e,
        interval: interval(counts, phi),
    }
}

fn interval(counts: Pair, phi: f64) -> Option<[f64; 2]> {
    confidence_sequence(counts, interval::ALPHA, phi).map(|(low, high)| [low, high])
}

#[cfg(test)]
mod tests {
    use super::meter;

    #[test]
    fn the_meter_runs_from_even_odds_to_the_threshold() {
        for (evidence, expected) in [
            (0.0, 0.0),
            (0.5, 0.0),
            (1.0, 0.0),
            (20.0, 0.5),
            (400.0, 1.0),
            (1e6, 1.0),
        ] {
            let meter = meter(evidence, 400.0);
            assert!((meter - expected).abs() < 1e-12, "{evidence}: {meter}");
        }
    }
}
