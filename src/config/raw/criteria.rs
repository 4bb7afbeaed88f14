//! Criteria as written, and how they are judged.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::List;
use crate::config::notation::{AdvanceSentence, RollbackSentence, Written};
use crate::policy::criteria::WhenLegacyToo;

/// Criteria, or `off`.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Rollback {
    /// On metrics, whose defaults these replace, or on the split's signals.
    Criteria(List<Written<RollbackSentence>>),
    /// None at all.
    Off(Off),
}

/// The word `off`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Off {
    /// Nothing rolls back, not even the consecutive failures of `analysis.hard_fail`.
    Off,
}

/// Requirements, or `off`.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Advance {
    /// On metrics, whose defaults these replace, or on the split's signals.
    Requirements(List<Written<AdvanceSentence>>),
    /// None at all.
    Off(Unproven),
}

/// The word `off`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unproven {
    /// Nothing needs to be proven: time and requests alone.
    Off,
}

/// How the criteria are judged.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Analysis {
    /// False-rollback budget per 24 h and split, over all criteria together.
    #[schemars(extend("default" = 0.01, "exclusiveMinimum" = 0, "exclusiveMaximum" = 0.5))]
    pub(crate) alpha: f64,
    /// Risk that a criterion of `advance` counts as proven although it does not hold.
    #[schemars(extend("default" = 0.05, "exclusiveMinimum" = 0, "exclusiveMaximum" = 0.5))]
    pub(crate) alpha_advance: f64,
    /// What `alpha_advance` is for the last step, the one to everybody.
    #[schemars(extend("default" = 0.01, "exclusiveMinimum" = 0, "exclusiveMaximum" = 0.5))]
    pub(crate) alpha_promote: f64,
    /// A smaller difference of error rates, as a part of 1, never acts in a comparison with
    /// legacy, whatever the ratio.
    #[schemars(extend("default" = 0.0005, "exclusiveMinimum" = 0, "maximum" = 1))]
    pub(crate) error_min_effect: f64,
    /// What `error_min_effect` is for client errors.
    #[schemars(extend("default" = 0.005, "exclusiveMinimum" = 0, "maximum" = 1))]
    pub(crate) client_error_min_effect: f64,
    /// Percentiles at which `latency worse than legacy by 10%` looks, all of them together.
    #[schemars(length(min = 1), inner(range(min = 1, max = 99)), extend("default" = [50, 95]))]
    pub(crate) latency_quantiles: List<u8>,
    /// Errors of `new` needed since the suspected start.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 3))]
    pub(crate) min_events: u64,
    /// Distinct groups of sessions (of 64) among those errors.
    #[schemars(range(min = 1, max = 64), extend("default" = 3))]
    pub(crate) min_bad_clusters: u32,
    /// The largest part of those errors that one group may supply.
    #[schemars(extend("default" = 0.5, "exclusiveMinimum" = 0, "maximum" = 1))]
    pub(crate) max_cluster_share: f64,
    /// Seconds that a breach must last at least, however loud it is. More than 1 rides out a
    /// moment's trouble, and costs as many seconds.
    #[schemars(range(min = 1, max = 3600), extend("default" = 1))]
    pub(crate) min_breach_windows: u32,
    /// Time after the first request of `new` in which latency is not judged.
    #[schemars(extend("default" = "0s"))]
    pub(crate) latency_warmup: Written<Duration>,
    /// Requests of `new` needed before a latency criterion may roll back.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 20))]
    pub(crate) min_latency_samples: u64,
    /// Consecutive failed or diverted requests that roll back at once.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 10))]
    pub(crate) hard_fail: u64,
    /// How correlated the requests of a session are: `auto` estimates it on legacy; or a number of
    /// at least 1.
    #[schemars(extend("default" = "auto"))]
    pub(crate) overdispersion: OverdispersionOrAuto,
    /// What happens when legacy breaches the same limit in the same seconds.
    #[schemars(extend("default" = "hold"))]
    pub(crate) when_legacy_too: LegacyToo,
}

/// A factor, or `auto`.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum OverdispersionOrAuto {
    /// Estimated.
    Auto(Auto),
    /// Given.
    Fixed(#[schemars(range(min = 1.0, max = 1000.0))] f64),
}

/// The word `auto`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Auto {
    /// Estimated on legacy's groups of sessions.
    Auto,
}

/// What an absolute breach of `new` means while legacy breaches the same limit.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LegacyToo {
    /// Hold and notify: moving everyone to an equally sick arm helps nobody.
    Hold,
    /// Roll back all the same.
    Rollback,
}

impl From<LegacyToo> for WhenLegacyToo {
    fn from(value: LegacyToo) -> WhenLegacyToo {
        match value {
            LegacyToo::Hold => WhenLegacyToo::Hold,
            LegacyToo::Rollback => WhenLegacyToo::Rollback,
        }
    }
}
