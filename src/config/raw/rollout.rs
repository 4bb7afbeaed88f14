//! A rollout as written: its stages, what leaves one, and when and how the share may move.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::List;
use super::criteria::{Advance, Rollback};
use crate::config::notation::{PositiveDuration, Written};
use crate::policy::calendar::WeeklyWindow;
use crate::policy::plan;
use crate::policy::share::Share;

/// The attempt at a migration, and what holds for all of its stages. Without `stages` only `id` and
/// `advise` mean anything, and the others are refused.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rollout {
    /// A new value clears the latch of a rollback; a plan then begins anew at its start.
    #[schemars(length(min = 1), extend("default" = "1"))]
    pub(crate) id: String,
    /// Healthy time that a stage needs at least.
    #[schemars(extend("default" = "60s"))]
    pub(crate) observe: Written<Duration>,
    /// Requests of `new` that a stage needs at least.
    #[schemars(range(min = 0, max = 1_000_000_000), extend("default" = 100))]
    pub(crate) min_requests: u64,
    /// Whether a person must approve each step. A first step from 0 to more than 10% waits for an
    /// approval in any case, since nothing is known of `new` before it.
    #[schemars(extend("default" = false))]
    pub(crate) approval: bool,
    /// When the share may rise by itself. Absent: at any time. Rollbacks never wait.
    pub(crate) windows: Option<Windows>,
    /// Time after which a stage counts as undecided. Absent: never.
    pub(crate) timeout: Option<Written<PositiveDuration>>,
    /// What happens after `timeout`.
    #[schemars(extend("default" = "hold"))]
    pub(crate) on_timeout: OnTimeout,
    /// Time after any change of the share in which it is not raised.
    #[schemars(extend("default" = "0s"))]
    pub(crate) cool_down: Written<Duration>,
    /// Changes of the share within a day after which it is raised no more by itself.
    #[schemars(range(min = 1, max = 1000), extend("default" = 24))]
    pub(crate) max_changes_per_day: usize,
    /// Where a rollback goes.
    #[schemars(extend("default" = "zero"))]
    pub(crate) rollback_to: Retreat,
    /// Time over which a rollback lowers the share; harm that goes on meanwhile ends it at 0 at
    /// once. `0s`: at once.
    #[schemars(extend("default" = "0s"))]
    pub(crate) rollback_ramp: Written<Duration>,
    /// Whether the engine only says what it would do.
    #[schemars(extend("default" = false))]
    pub(crate) advise: bool,
}

/// One step of a plan.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Stage {
    /// With what holds for all stages.
    Share(Written<Share>),
    /// With something of its own.
    Own(Box<OwnStage>),
}

/// A stage with something of its own. What is absent is that of the whole plan.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OwnStage {
    /// The part of keys that goes to `new`.
    #[schemars(required)]
    pub(crate) share: Option<Written<Share>>,
    /// Healthy time that the stage needs at least. Default: `rollout.observe`.
    pub(crate) observe: Option<Written<Duration>>,
    /// Requests of `new` that the stage needs at least. Default: `rollout.min_requests`.
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub(crate) min_requests: Option<u64>,
    /// Whether a person must approve before the stage is left for a larger share, so not in the
    /// last one. Default: `rollout.approval`.
    pub(crate) approval: Option<bool>,
    /// When the stage may be left for a larger share, so not in the last one. Default:
    /// `rollout.windows`.
    pub(crate) windows: Option<Windows>,
    /// Time after which the stage counts as undecided. Default: `rollout.timeout`.
    pub(crate) timeout: Option<Written<PositiveDuration>>,
    /// What happens after `timeout`. Default: `rollout.on_timeout`.
    pub(crate) on_timeout: Option<OnTimeout>,
    /// Each replaces the split's of the same metric and kind; `off` leaves none in this stage.
    pub(crate) advance: Option<Advance>,
    /// Each replaces the split's of the same metric and kind; `off` leaves none in this stage.
    pub(crate) rollback: Option<Rollback>,
}

/// Weekly windows in local time. A day may have 23 or 25 hours; what counts is the clock on the
/// wall.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Windows {
    /// Name in the IANA database, such as `Europe/Berlin`. Default: `UTC`; in a stage, that of
    /// `rollout.windows`.
    #[schemars(length(min = 1))]
    pub(crate) time_zone: Option<String>,
    /// ANY of these: `Mon-Fri 09:00-17:00`, `Sat` (the whole day), `"Mon,Wed 22:00-02:00"` (until
    /// the next morning; a comma needs quotes in a list with brackets).
    #[schemars(required, length(min = 1))]
    pub(crate) open: Option<List<Written<WeeklyWindow>>>,
}

/// What becomes of a stage that is undecided for too long.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnTimeout {
    /// The rollout is paused until a person decides.
    Hold,
    /// As if a criterion were breached.
    Rollback,
    /// The next stage begins although not everything is proven; never while something speaks
    /// against `new`, or while it has had no requests.
    Advance,
}

impl From<OnTimeout> for plan::OnTimeout {
    fn from(value: OnTimeout) -> plan::OnTimeout {
        match value {
            OnTimeout::Hold => plan::OnTimeout::Hold,
            OnTimeout::Rollback => plan::OnTimeout::Rollback,
            OnTimeout::Advance => plan::OnTimeout::Advance,
        }
    }
}

/// Where a rollback goes.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Retreat {
    /// Everyone back to legacy.
    Zero,
    /// To the share of the stage before; from the first one, or for the second time in a row, to
    /// 0.
    PreviousStage,
}

impl From<Retreat> for plan::Retreat {
    fn from(value: Retreat) -> plan::Retreat {
        match value {
            Retreat::Zero => plan::Retreat::Zero,
            Retreat::PreviousStage => plan::Retreat::PreviousStage,
        }
    }
}
