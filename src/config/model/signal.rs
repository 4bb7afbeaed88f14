//! Signals of a split: where their numbers come from.

use std::time::Duration;

use super::{ClientTls, Secret};
use crate::policy::signal::SignalTerms;

/// A number that criteria of a split may name.
#[derive(Clone, Debug, PartialEq)]
pub struct Signal {
    /// Its name, how long a value is fresh, what absence means.
    pub terms: SignalTerms,
    /// Where it is asked for; absent: an operator tells it.
    pub poll: Option<Poll>,
}

/// A signal that is asked for again and again.
#[derive(Clone, Debug, PartialEq)]
pub struct Poll {
    /// Time between two questions. Default 15 s.
    pub interval: Duration,
    /// Time for one answer, connecting included. Default 5 s.
    pub timeout: Duration,
    /// Sent as a bearer token; printable ASCII.
    pub bearer: Option<Secret>,
    /// How a source that speaks TLS is verified.
    pub tls: ClientTls,
    /// Where the number is in an answer.
    pub answer: SignalAnswer,
    /// What is asked about `new`.
    pub new: HttpTarget,
    /// What is asked about legacy.
    pub legacy: Option<HttpTarget>,
}

/// Where the number is in an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum SignalAnswer {
    /// The one sample of Prometheus' answer to an instant query.
    Prometheus,
    /// At this place of a JSON document (RFC 6901).
    Json {
        /// Empty for the document itself.
        pointer: String,
    },
}

/// What a GET is sent to.
#[derive(Clone, PartialEq)]
pub struct HttpTarget {
    /// Whether TLS is spoken.
    pub is_secure: bool,
    /// `host:port`.
    pub endpoint: String,
    /// What is sent as `Host`.
    pub host: String,
    /// Path and query, escaped.
    pub path: String,
}

/// Without the query: people write secrets into it.
impl std::fmt::Debug for HttpTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.is_secure { "https" } else { "http" };
        let path = self.path.split('?').next().unwrap_or_default();
        write!(f, "{scheme}://{}{path}", self.host)
    }
}
