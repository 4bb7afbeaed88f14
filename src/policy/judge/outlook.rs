//! What a proof takes at best, before there is any traffic.
//!
//! A plan that asks for a proof nobody's traffic can give stands still for days, and looks like a
//! fault of the engine. How many requests a proof needs is known beforehand: no fewer than it would
//! take if not a single one failed and sessions were independent.

use super::comparison::Baseline;
use super::kernels::{self, Contrast, DEGREES_OF_HEALTH, GoodKernel};
use super::stage::Aim;
use super::window::Pair;
use crate::policy::criteria::{Criteria, Proof, Requirement};
use crate::policy::share::{Bucket, Share};

/// Requests of `new` that prove `requirement` at `share` if none of them fails, sessions are
/// independent (phi is 1), and legacy has no failures either. None where there is nothing to count:
/// no traffic of `new`, or none of legacy to compare with.
pub fn requests_needed(
    requirement: Requirement,
    criteria: &Criteria,
    share: Share,
    aim: Aim,
) -> Option<u64> {
    if share == Share::ZERO {
        return None;
    }
    let per_request = match requirement.proof {
        Proof::Within(limit) => {
            let kernel = GoodKernel::health(requirement.metric.allowed_share(limit));
            kernel.log_factors(Pair { n: 1, e: 0 })
        }
        Proof::NotWorseThanLegacy(_) if share == Share::ALL || !aim.compares() => return None,
        Proof::NotWorseThanLegacy(margin) => {
            // As many requests of each arm as the share gives it, then the part of one of `new`.
            let new = share.basis_points();
            let quiet = |n: u16| Pair { n: n.into(), e: 0 };
            let counts = Contrast {
                new: quiet(new),
                legacy: quiet(Bucket::COUNT - new),
            };
            let factors = kernels::not_worse(margin, Baseline::default().guess(), counts);
            factors.map(|factor| factor / f64::from(new))
        }
    };
    let evidence = |requests: u64| {
        let factors = per_request.map(|factor| (factor * requests as f64).exp());
        let sum: f64 = factors.iter().sum();
        criteria.expert.gate_start_weight * sum / DEGREES_OF_HEALTH as f64
    };
    let threshold = aim.threshold(criteria);
    // Evidence rises with every request, if any alternative speaks for health at all.
    let enough = (0..u64::BITS - 1).map(|bit| 1 << bit);
    let most = enough.into_iter().find(|n| evidence(*n) >= threshold)?;
    let mut range = (most / 2, most);
    while range.1 - range.0 > 1 {
        let middle = range.0.midpoint(range.1);
        if evidence(middle) >= threshold {
            range.1 = middle;
        } else {
            range.0 = middle;
        }
    }
    Some(range.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needed(requirement: &str, basis_points: u16, aim: Aim) -> Option<u64> {
        let requirement = requirement.parse().expect("a requirement");
        let share = Share::from_basis_points(basis_points).expect("a share");
        requests_needed(requirement, &Criteria::default(), share, aim)
    }

    /// The analysis specification: below 1 % takes 392 requests, a 95th percentile 78. The prior's
    /// trickle, a thousandth of the evidence within a minute, is left out here: it may save one.
    #[test]
    fn a_proof_takes_what_the_specification_says() {
        let errors = needed("error_rate < 1%", 1_000, Aim::Raise).expect("a number");
        assert!((392..=393).contains(&errors), "{errors}");
        let latency = needed("p95 < 200ms", 1_000, Aim::Raise).expect("a number");
        assert!((78..=79).contains(&latency), "{latency}");
        let promotion = needed("error_rate < 1%", 5_000, Aim::Promote).expect("a number");
        assert!(promotion > errors, "a smaller risk takes more: {promotion}");
        let comparison = "error_rate not worse than legacy by 0.5pp";
        let comparison = needed(comparison, 1_000, Aim::Raise).expect("a number");
        assert!((500..5_000).contains(&comparison), "{comparison}");
    }

    #[test]
    fn what_cannot_be_counted_has_no_number() {
        let comparison = "error_rate not worse than legacy by 0.5pp";
        assert_eq!(needed("p95 < 200ms", 0, Aim::Raise), None);
        assert_eq!(needed(comparison, 10_000, Aim::Raise), None);
        assert_eq!(needed(comparison, 5_000, Aim::Complete), None);
    }
}
