//! How far a plan has come and what its next step waits for, as status and metrics show it.
//!
//! Two surfaces that work out "healthy for 34 s of 60" each on their own will one day disagree, in
//! the very night when somebody looks at both. So it is worked out here, once, with the figures
//! that the engine goes by, and everybody shows this.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Need, Rollout, Wait};
use crate::policy::judge::Lack;
use crate::policy::plan::{OnTimeout, Stage};
use crate::policy::share::{Share, percentage};
use crate::policy::time::Timestamp;

/// How far a plan has come. Without a plan, nothing but the time since the last change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outlook {
    /// The present stage; absent before the first one, and without a plan.
    pub stage: Option<StageProgress>,
    /// All stages, in order; empty without a plan.
    pub stages: Vec<PlannedStage>,
    /// The share of the stage that follows, such as `30%`; absent in the last one.
    #[serde(with = "optional_percentage")]
    pub next_share: Option<Share>,
    /// What has to be proven before the stage is left.
    pub needs: Vec<Need>,
    /// All that the next step waits for, a sentence each, the weightiest first. Empty without a
    /// plan, and once it is completed.
    pub lacking: Vec<String>,
    /// Whether somebody's approval is among them.
    pub approval_needed: bool,
    /// Whether a breach is held instead of rolled back.
    pub held: bool,
    /// Seconds until nothing is lacking, if traffic goes on as it does; absent if a person, the
    /// calendar or an event is awaited, if this traffic does not lead there, or if the stage times
    /// out before.
    pub seconds_to_come: Option<f64>,
    /// The end of the stage's time, where it comes before what has to be proven.
    pub timeout: Option<TimeoutAhead>,
    /// Watched seconds since the share last changed; absent if it did not within a watched day.
    pub seconds_since_change: Option<f64>,
    /// Whether the engine only says what it would do.
    pub advise: bool,
}

/// What the present stage has had, and what it needs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StageProgress {
    /// Counted from 1.
    pub number: usize,
    /// How many there are.
    pub of: usize,
    /// Its share, such as `30%`; what is in effect may be lower.
    #[serde(with = "percentage")]
    pub share: Share,
    /// Seconds in good health that it has had.
    pub healthy_seconds: f64,
    /// Seconds in good health that it needs.
    pub observe_seconds: f64,
    /// Requests of `new` that it has had.
    pub requests: u64,
    /// Requests of `new` that it needs; 0 where nobody is sent to `new`.
    pub min_requests: u64,
    /// Watched seconds since it began, pauses left out.
    pub watched_seconds: f64,
    /// Watched seconds after which it counts as undecided; absent: never.
    pub timeout_seconds: Option<f64>,
    /// Who has approved that it is left.
    pub approved_by: Option<String>,
}

/// A stage that is about to count as undecided.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimeoutAhead {
    /// Watched seconds until then.
    pub seconds: f64,
    /// What happens then.
    pub then: OnTimeout,
}

/// A stage as the file has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlannedStage {
    /// Such as `30%`.
    #[serde(with = "percentage")]
    pub share: Share,
    /// Seconds in good health that it needs.
    pub observe_seconds: f64,
    /// Requests of `new` that it needs; 0 where nobody is sent to `new`.
    pub min_requests: u64,
    /// Whether the file asks for a person's approval before it is left.
    pub approval: bool,
    /// Whether it is only left at certain times of the week.
    pub calendar: bool,
    /// Watched seconds after which it counts as undecided; absent: never.
    pub timeout_seconds: Option<f64>,
}

impl Rollout {
    /// How far the plan has come and what its next step waits for.
    pub fn outlook(&self, now: Timestamp) -> Outlook {
        let seconds_since_change = self.seconds_since_change();
        let (held, advise) = (self.glance.is_held, self.terms.rules.advise);
        let Some(plan) = self.plan() else {
            return Outlook {
                seconds_since_change,
                held,
                advise,
                ..Outlook::default()
            };
        };
        let waits = self.waits(now);
        let timeout = self.timeout_ahead(&waits);
        Outlook {
            stage: self.stage_progress(),
            stages: plan.stages().iter().map(PlannedStage::of).collect(),
            next_share: self.next_stage().map(|stage| stage.share),
            needs: self.needs(),
            seconds_to_come: match timeout {
                None => self.seconds_to_come(&waits),
                Some(_) => None,
            },
            timeout,
            approval_needed: waits.iter().any(|wait| matches!(wait, Wait::Approval(_))),
            lacking: waits.iter().map(ToString::to_string).collect(),
            held,
            seconds_since_change,
            advise,
        }
    }

    fn stage_progress(&self) -> Option<StageProgress> {
        let stage = self.stage()?;
        let planned = PlannedStage::of(stage);
        let (healthy_seconds, requests) = self.progress();
        Some(StageProgress {
            number: self.position()? + 1,
            of: self.plan()?.stages().len(),
            share: planned.share,
            healthy_seconds,
            observe_seconds: planned.observe_seconds,
            requests,
            min_requests: planned.min_requests,
            watched_seconds: self.stage_seconds(),
            timeout_seconds: planned.timeout_seconds,
            approved_by: self.approved_by().map(str::to_owned),
        })
    }

    /// The stage's timeout, unless all that has to be proven is likely to come before it.
    fn timeout_ahead(&self, waits: &[Wait]) -> Option<TimeoutAhead> {
        let stage = self.stage()?;
        let left = stage.timeout?.as_secs_f64() - self.stage_seconds();
        if !self.is_under_way() || self.terms.rules.advise || left <= 0.0 {
            return None;
        }
        let mut proofs = waits.iter().filter(|wait| wait.is_of_proof());
        let is_in_time = proofs.all(|wait| {
            let seconds = self.seconds_of(wait);
            seconds.is_some_and(|seconds| seconds < left)
        });
        (!is_in_time).then_some(TimeoutAhead {
            seconds: left,
            then: stage.on_timeout,
        })
    }

    /// The longest of what time and traffic will bring; none if anything else is awaited.
    fn seconds_to_come(&self, waits: &[Wait]) -> Option<f64> {
        if waits.is_empty() && self.next_stage().is_none() {
            return None;
        }
        waits.iter().try_fold(0.0, |longest: f64, wait| {
            self.seconds_of(wait).map(|seconds| longest.max(seconds))
        })
    }

    fn seconds_of(&self, wait: &Wait) -> Option<f64> {
        match wait {
            Wait::CoolDown(left) => Some(left.as_secs_f64()),
            Wait::Judge(Lack::Time { healthy, needed }) => {
                Some(needed.saturating_sub(*healthy).as_secs_f64())
            }
            Wait::Judge(Lack::Requests { counted, needed }) => {
                let seconds_per_request = self.stage_seconds() / *counted as f64;
                let seconds = seconds_per_request * needed.saturating_sub(*counted) as f64;
                seconds.is_finite().then_some(seconds)
            }
            Wait::Judge(Lack::Proof { estimate, .. }) => estimate.map(|estimate| estimate.seconds),
            _ => None,
        }
    }
}

impl PlannedStage {
    fn of(stage: &Stage) -> Self {
        let criteria = &stage.criteria;
        let is_idle = stage.share == Share::ZERO;
        Self {
            share: stage.share,
            observe_seconds: criteria.observe.as_secs_f64(),
            min_requests: if is_idle { 0 } else { criteria.min_requests },
            approval: stage.approval,
            calendar: stage.calendar.is_some(),
            timeout_seconds: stage.timeout.as_ref().map(Duration::as_secs_f64),
        }
    }
}

/// The same, where there may be none.
mod optional_percentage {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use crate::policy::share::Share;

    pub(super) fn serialize<S: Serializer>(
        share: &Option<Share>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        share.map(|share| share.to_string()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Share>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        let share = text.map(|text| text.parse()).transpose();
        share.map_err(D::Error::custom)
    }
}
