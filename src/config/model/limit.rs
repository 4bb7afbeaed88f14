//! How often keys may come, as it is meant.

use crate::message::Name;
use crate::policy::rate::Rate;

/// How often each key may come.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// So often, and so many at once after a pause.
    pub rate: Rate,
    /// Keys remembered; beyond it, unknown ones share one allowance. Default 100 000.
    pub max_keys: usize,
}

/// A limit on the requests of each key of a route.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyedLimit {
    /// Whose requests count together.
    pub key: LimitKey,
    /// How often each may come.
    pub limit: Limit,
}

/// Whose requests count together. A request without the key counts by its client's address.
#[derive(Clone, Debug, PartialEq)]
pub enum LimitKey {
    /// Those of a client address, IPv6 by its /64.
    ClientIp,
    /// Those with the same value of a header.
    Header(Name),
    /// Those with the same value of a cookie.
    Cookie(String),
    /// Those with the same value of a query parameter, as received (not decoded).
    Query(String),
}
