//! Limits of single routes, as they are written.

use http::HeaderName;
use schemars::JsonSchema;
use serde::Deserialize;

use super::split::QueryName;
use crate::config::notation::{CookieName, Written};

/// A limit on the requests of each key of a route.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyedLimit {
    /// Whose requests count together; one without the key counts by its client's address.
    #[schemars(extend("default" = "client_ip"))]
    pub(crate) key: LimitKey,
    /// Sustained requests per second. Either this or `requests_per_minute`.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) requests_per_second: Option<u32>,
    /// Sustained requests per minute, for what is rare, such as logins.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) requests_per_minute: Option<u32>,
    /// Requests admitted at once after a pause. Default: those of one second, or of one minute.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) burst: Option<u32>,
    /// Keys remembered; beyond it, unknown keys share one allowance.
    #[schemars(range(min = 1, max = 10_000_000), extend("default" = 100_000))]
    pub(crate) max_keys: usize,
}

/// Whose requests count together.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum LimitKey {
    /// Those of a client address, IPv6 by its /64.
    ClientIp,
    /// Those with the same value of a cookie.
    Cookie(Written<CookieName>),
    /// Those with the same value of a header.
    Header(Written<HeaderName>),
    /// Those with the same value of a query parameter, as received (not decoded).
    Query(QueryName),
}
