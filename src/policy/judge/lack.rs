//! What a verdict lacks, in words.
//!
//! A rollout that stands still without saying why will be overridden by hand. So every reason has a
//! sentence, and where time will bring what is lacking, the sentence says how much.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::guards::Guard;
use super::pace::Estimate;
use crate::policy::criteria::{Criterion, Requirement};
use crate::policy::duration;
use crate::policy::wording::{grouped, odds, span, two_digits};

/// What a verdict lacks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Lack {
    /// `new` has answered no request yet.
    Traffic,
    /// The evidence of harm suffices, but a guard asks for more behind it.
    Support(Guard),
    /// There is evidence of harm, not enough to act and too much to advance.
    Calm {
        /// The criterion under suspicion.
        criterion: Criterion,
        /// Evidence against its promise, as odds.
        evidence: f64,
        /// The evidence below which an advance is possible.
        limit: f64,
    },
    /// The stage has not been healthy for long enough.
    Time {
        /// How long it was.
        healthy: Duration,
        /// How long it must have been.
        needed: Duration,
    },
    /// `new` has had too few requests in the stage.
    Requests {
        /// How many it had.
        counted: u64,
        /// How many it must have had.
        needed: u64,
    },
    /// A requirement is not proven.
    Proof {
        /// The requirement.
        requirement: Requirement,
        /// Evidence for it, as odds.
        evidence: f64,
        /// The evidence needed.
        threshold: f64,
        /// When it will be proven, if that can be foreseen.
        estimate: Option<Estimate>,
    },
}

impl Display for Lack {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match *self {
            Lack::Traffic => f.write_str("No request was sent to new yet."),
            Lack::Support(guard) => write!(
                f,
                "There is evidence of harm, but `{guard}` asks for more behind it."
            ),
            Lack::Calm {
                criterion,
                evidence,
                limit,
            } => write!(
                f,
                "{criterion} is under suspicion: evidence {} : 1, an advance needs less than \
                 {} : 1.",
                odds(evidence),
                odds(limit)
            ),
            Lack::Time { healthy, needed } => {
                let healthy = Duration::from_secs(healthy.as_secs());
                let (healthy, needed) = (duration::print(healthy), duration::print(needed));
                write!(f, "Observed in good health for {healthy} of {needed}.")
            }
            Lack::Requests { counted, needed } => {
                let (counted, needed) = (grouped(counted), grouped(needed));
                write!(f, "{counted} of {needed} requests.")
            }
            Lack::Proof {
                requirement,
                evidence,
                threshold,
                estimate,
            } => {
                write!(
                    f,
                    "{requirement} not proven yet: evidence {} : 1 of {} : 1, ",
                    odds(evidence),
                    odds(threshold)
                )?;
                match estimate {
                    Some(estimate) => write!(
                        f,
                        "about {} more requests (≈ {} at the present rate).",
                        grouped(two_digits(estimate.requests.ceil().max(1.0))),
                        span(estimate.seconds)
                    ),
                    None => f.write_str("and the present traffic does not lead there."),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::criteria::Metric;

    #[test]
    fn what_is_lacking_is_said_with_its_figures() {
        let proof = |estimate| Lack::Proof {
            requirement: Requirement::within(Metric::Latency(95), 0.2),
            evidence: 6.2,
            threshold: 20.0,
            estimate,
        };
        let soon = Estimate {
            requests: 89.3,
            seconds: 39.6,
        };
        for (lack, sentence) in [
            (
                proof(Some(soon)),
                "p95 < 200ms not proven yet: evidence 6 : 1 of 20 : 1, about 90 more requests (≈ \
                 40 s at the present rate).",
            ),
            (
                proof(None),
                "p95 < 200ms not proven yet: evidence 6 : 1 of 20 : 1, and the present traffic \
                 does not lead there.",
            ),
            (
                Lack::Calm {
                    criterion: Criterion::beyond(Metric::ErrorRate, 0.05),
                    evidence: 63.0,
                    limit: 40.0,
                },
                "error_rate > 5% is under suspicion: evidence 63 : 1, an advance needs less than \
                 40 : 1.",
            ),
            (
                Lack::Time {
                    healthy: Duration::from_millis(34_900),
                    needed: Duration::from_secs(60),
                },
                "Observed in good health for 34s of 1m.",
            ),
            (
                Lack::Requests {
                    counted: 67,
                    needed: 100,
                },
                "67 of 100 requests.",
            ),
        ] {
            assert_eq!(lack.to_string(), sentence);
        }
    }
}
