//! A signal as written: where a number comes from, and what it means that there is none.

use schemars::JsonSchema;
use serde::Deserialize;

use super::ClientTls;
use crate::config::notation::{HttpUrl, JsonPointer, PositiveDuration, Written};
use crate::policy::signal::Absence;

/// A number that no request can tell, such as memory, lag or complaints. It comes from one of
/// `prometheus`, `http` and `pushed`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Signal {
    /// Address of a Prometheus, such as `http://127.0.0.1:9090`, that is asked `query`.
    pub(crate) prometheus: Option<Written<HttpUrl>>,
    /// PromQL that finds just one sample: the value of `new`.
    #[schemars(length(min = 1))]
    pub(crate) query: Option<String>,
    /// PromQL that finds just one sample: legacy's value.
    #[schemars(length(min = 1))]
    pub(crate) legacy_query: Option<String>,
    /// Address of a JSON document that has the value of `new` at `pointer`.
    pub(crate) http: Option<Written<HttpUrl>>,
    /// Address of a JSON document that has legacy's value at `pointer`.
    pub(crate) legacy_http: Option<Written<HttpUrl>>,
    /// Where in the document the number is (RFC 6901); `""` is the document itself.
    pub(crate) pointer: Option<Written<JsonPointer>>,
    /// Whether an operator tells the value.
    #[schemars(extend("default" = false))]
    pub(crate) pushed: bool,
    /// Sent as a bearer token with each question.
    #[schemars(length(min = 1))]
    pub(crate) bearer: Option<String>,
    /// How to verify a source that is asked over `https`. Absent: with the system's roots.
    pub(crate) tls: Option<ClientTls>,
    /// Time between two questions. Default: 15s.
    pub(crate) interval: Option<Written<PositiveDuration>>,
    /// Time for an answer. Default: 5s.
    pub(crate) timeout: Option<Written<PositiveDuration>>,
    /// How old a value may be. Default: four times `interval`; 1h for what is pushed.
    pub(crate) fresh_for: Option<Written<PositiveDuration>>,
    /// What it means that there is no fresh value.
    #[schemars(extend("default" = "inconclusive"))]
    pub(crate) absent: AbsenceWord,
}

/// What the absence of a value means.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AbsenceWord {
    /// Nobody knows: nothing advances, nothing rolls back.
    Inconclusive,
    /// All is well.
    Healthy,
    /// As bad as a breach of every criterion on it.
    Harm,
}

impl From<AbsenceWord> for Absence {
    fn from(word: AbsenceWord) -> Absence {
        match word {
            AbsenceWord::Inconclusive => Absence::Inconclusive,
            AbsenceWord::Healthy => Absence::Healthy,
            AbsenceWord::Harm => Absence::Harm,
        }
    }
}
