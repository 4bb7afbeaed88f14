//! Stages that would take longer than anyone waits, told before they begin.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::{Plan, Stage};
use crate::policy::criteria::Requirement;
use crate::policy::judge::Aim;
use crate::policy::judge::outlook::requests_needed;
use crate::policy::share::Share;
use crate::policy::wording::{grouped, span};

/// A stage that proves nothing within a day is in doubt, whatever its timeout.
const LONGEST: Duration = Duration::from_secs(86_400);

/// A stage whose traffic is too small for what it has to prove.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Doubt {
    /// Its index in the plan.
    pub stage: usize,
    /// Its share.
    pub share: Share,
    /// What takes longest; none if that is `min_requests`.
    pub requirement: Option<Requirement>,
    /// Requests of `new` that it takes at best.
    pub requests: u64,
    /// How long these take to come.
    pub time: Duration,
    /// How long the stage has.
    pub limit: Duration,
}

impl Plan {
    /// The stages that cannot prove what they must within their timeout, or without one within a
    /// day, where the whole split has `requests_per_second`, even if no request fails.
    pub fn doubts(&self, requests_per_second: f64) -> Vec<Doubt> {
        let stages = self.stages.iter().enumerate();
        let doubts = stages.filter_map(|(index, stage)| {
            let (requests, requirement) = stage.needs(self.aim(Some(index)))?;
            let seconds = requests as f64 / (requests_per_second * stage.share.ratio());
            // At no traffic at all it takes for ever.
            let time = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
            let limit = stage.timeout.unwrap_or(LONGEST);
            (time > limit).then_some(Doubt {
                stage: index,
                share: stage.share,
                requirement,
                requests,
                time,
                limit,
            })
        });
        doubts.collect()
    }
}

impl Stage {
    /// How many requests of `new` it takes at best, and what needs them; none at share 0, where
    /// nothing is counted.
    fn needs(&self, aim: Aim) -> Option<(u64, Option<Requirement>)> {
        if self.share == Share::ZERO {
            return None;
        }
        let requirements = self.criteria.advance.iter();
        let proofs = requirements.filter_map(|requirement| {
            let requests = requests_needed(*requirement, &self.criteria, self.share, aim)?;
            Some((requests, Some(*requirement)))
        });
        let all = proofs.chain([(self.criteria.min_requests, None)]);
        all.max_by_key(|(requests, _)| *requests)
    }
}

impl Display for Doubt {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Doubt { stage, share, .. } = self;
        let requests = grouped(self.requests);
        write!(
            f,
            "stage {} ({share}) needs {requests} requests of `new`",
            stage + 1
        )?;
        if let Some(requirement) = self.requirement {
            write!(f, " to prove `{requirement}` at best")?;
        }
        match self.time {
            Duration::MAX => write!(f, ", and there is no traffic at present"),
            time => write!(
                f,
                ", about {} at the present rate",
                span(time.as_secs_f64())
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::criteria::Criteria;
    use crate::policy::plan::OnTimeout;

    fn plan(timeout: Option<Duration>) -> Plan {
        let stages = [0, 100, 5_000, 10_000].map(|basis_points| Stage {
            share: Share::from_basis_points(basis_points).expect("a share"),
            criteria: Criteria::default(),
            approval: false,
            calendar: None,
            timeout,
            on_timeout: OnTimeout::Hold,
        });
        Plan::new(stages.to_vec()).expect("a plan")
    }

    #[test]
    fn a_stage_that_cannot_be_proven_within_a_day_is_in_doubt() {
        let stages = |plan: &Plan, rate| -> Vec<usize> {
            let doubts = plan.doubts(rate).into_iter();
            doubts.map(|doubt| doubt.stage).collect()
        };
        let plan_of_days = plan(None);
        assert_eq!(stages(&plan_of_days, 100.0), [0; 0]);
        // One request of `new` in 100 seconds: some 860 in a day.
        assert_eq!(stages(&plan_of_days, 0.1), [1]);
        assert_eq!(stages(&plan_of_days, 0.0), [1, 2, 3]);
        let plan_of_minutes = plan(Some(Duration::from_secs(60)));
        assert_eq!(stages(&plan_of_minutes, 100.0), [1]);
    }

    #[test]
    fn the_last_stage_is_doubted_for_what_it_has_to_prove() {
        let all = plan(None);
        let half = Plan::new(all.stages()[..3].to_vec()).expect("a plan");
        let doubts = half.doubts(0.0);
        let last = doubts.last().expect("there is no traffic");
        let said = last.to_string();
        assert!(said.contains("worse than legacy"), "half is there: {said}");
    }

    #[test]
    fn a_doubt_says_what_is_needed_and_how_long_that_takes() {
        let doubts = plan(None).doubts(0.1);
        let said = doubts[0].to_string();
        assert!(said.starts_with("stage 2 (1%) needs "), "{said}");
        assert!(said.contains("not worse than legacy by 0.5pp"), "{said}");
        assert!(said.ends_with("at the present rate"), "{said}");
        let silent = plan(None).doubts(0.0)[0].to_string();
        assert!(silent.ends_with("no traffic at present"), "{silent}");
    }
}
