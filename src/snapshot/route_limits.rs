//! What one route admits: so many requests at once, and so many of each key.
//!
//! A route that is expensive, a login or a search, must not cost the others their upstream. What a
//! route counts outlives reloads: it is found again by what the route matches (see
//! [`registry`](super::registry)), so an edit elsewhere neither empties allowances nor forgets who
//! is in flight. Allowances begin anew only where their own limit has changed.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::Uri;

use crate::config::model::{KeyedLimit, LimitKey};
use crate::identity::identify::{cookie, query_parameter};
use crate::message::Fields;

use super::limiter::{Key, Limiter};

/// The limits of one route, and what they count.
#[derive(Debug)]
pub struct RouteLimits {
    /// Label of its metrics.
    pub name: String,
    /// Requests at once; absent: no limit.
    pub max_requests: Option<usize>,
    /// Requests of each key, with what is remembered of them.
    pub rate: Option<(KeyedLimit, Arc<Limiter>)>,
    /// What it carries.
    pub load: Arc<RouteLoad>,
}

/// What a route carries, and has turned away.
///
/// Requests write to it from every core, so it shares its cache line with nothing.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct RouteLoad {
    in_flight: AtomicUsize,
    overloaded: AtomicU64,
    rate_limited: AtomicU64,
}

/// A reading of a route's limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteReading {
    /// Requests being answered; counted only where the route limits them.
    pub in_flight: usize,
    /// Requests turned away so far, because too many were in flight.
    pub overloaded: u64,
    /// Requests turned away so far, because their key had no allowance left.
    pub rate_limited: u64,
    /// Keys that are remembered.
    pub keys: usize,
    /// Requests so far whose key could not be remembered, because too many others were.
    pub on_common_allowance: u64,
}

/// A request's place among those in flight on its route, until dropped.
#[derive(Debug)]
pub struct Place(Arc<RouteLoad>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a route turns a request away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    /// Too many are in flight.
    Overloaded,
    /// Its key has no allowance left, and will have one after this time.
    RateLimited(Duration),
}

/// What a request is known by.
#[derive(Clone, Copy, Debug)]
pub struct Known<'r> {
    /// Its fields.
    pub fields: &'r Fields,
    /// Its target.
    pub uri: &'r Uri,
}

impl RouteLimits {
    /// Lets a request in at `now`, the time since any fixed point; `client` tells its address where
    /// that is what counts. The place is to be held until the answer has ended; there is none where
    /// nobody counts.
    ///
    /// # Errors
    /// [`TurnedAway`]; an allowance is not touched where there is no place.
    pub fn admit(
        &self,
        request: Known<'_>,
        client: impl FnOnce() -> IpAddr,
        now: Duration,
    ) -> Result<Option<Place>, TurnedAway> {
        let place = match self.max_requests {
            None => None,
            Some(limit) => Some(self.take_place(limit).ok_or(TurnedAway::Overloaded)?),
        };
        if let Some((limit, limiter)) = &self.rate {
            let key = match received(&limit.key, request) {
                Some(text) => limiter.key(text),
                None => Key::from(client()),
            };
            limiter.admit(key, &limit.limit, now).map_err(|wait| {
                self.load.rate_limited.fetch_add(1, Ordering::Relaxed);
                TurnedAway::RateLimited(wait)
            })?;
        }
        Ok(place)
    }

    /// Forgets keys that have their whole allowance again.
    pub fn sweep(&self, now: Duration) {
        if let Some((_, limiter)) = &self.rate {
            limiter.sweep(now);
        }
    }

    /// All counts at this moment.
    pub fn reading(&self) -> RouteReading {
        let limiter = self.rate.as_ref().map(|(_, limiter)| limiter);
        RouteReading {
            in_flight: self.load.in_flight.load(Ordering::Relaxed),
            overloaded: self.load.overloaded.load(Ordering::Relaxed),
            rate_limited: self.load.rate_limited.load(Ordering::Relaxed),
            keys: limiter.map_or(0, |limiter| limiter.remembered()),
            on_common_allowance: limiter.map_or(0, |limiter| limiter.on_common_allowance()),
        }
    }

    fn take_place(&self, limit: usize) -> Option<Place> {
        // One addition instead of a loop of comparisons; who is too much takes it back.
        let before = self.load.in_flight.fetch_add(1, Ordering::Relaxed);
        let place = Place(Arc::clone(&self.load));
        if before < limit {
            return Some(place);
        }
        self.load.overloaded.fetch_add(1, Ordering::Relaxed);
        None
    }
}

/// The key that a request carries; none is as good as an empty one.
fn received<'r>(key: &LimitKey, request: Known<'r>) -> Option<&'r [u8]> {
    let text = match key {
        LimitKey::ClientIp => None,
        LimitKey::Header(name) => request.fields.get(name),
        LimitKey::Cookie(name) => cookie(request.fields, name.as_bytes()),
        LimitKey::Query(name) => query_parameter(request.uri, name.as_bytes()),
    };
    text.filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Limit;
    use crate::message::Name;
    use crate::policy::rate::Rate;

    fn limits(key: LimitKey, max_requests: Option<usize>) -> RouteLimits {
        let limit = Limit {
            rate: Rate::new(1, 1),
            max_keys: 10,
        };
        RouteLimits {
            name: "login".to_owned(),
            max_requests,
            rate: Some((KeyedLimit { key, limit }, Arc::default())),
            load: Arc::default(),
        }
    }

    fn named(name: &'static str) -> Name {
        Name::from(&http::HeaderName::from_static(name))
    }

    /// Whether a request with this field, to this target and from this address is let in.
    fn is_admitted(
        limits: &RouteLimits,
        field: (&'static str, &str),
        uri: &str,
        from: &str,
    ) -> bool {
        let mut fields = Fields::default();
        fields.append(&named(field.0), field.1.as_bytes());
        let known = Known {
            fields: &fields,
            uri: &uri.parse().unwrap(),
        };
        let client = || from.parse().unwrap();
        limits.admit(known, client, Duration::from_secs(1)).is_ok()
    }

    #[test]
    fn what_carries_the_same_key_counts_together_and_what_has_none_by_its_address() {
        for (key, one, other) in [
            (
                LimitKey::Header(named("x-api-key")),
                (("x-api-key", "a"), "/"),
                (("x-api-key", "b"), "/"),
            ),
            (
                LimitKey::Cookie("session".to_owned()),
                (("cookie", "x=1; session=a"), "/"),
                (("cookie", "session=b"), "/"),
            ),
            (
                LimitKey::Query("user".to_owned()),
                (("x", "y"), "/?user=a"),
                (("x", "y"), "/?user=b"),
            ),
        ] {
            let limits = limits(key, None);
            let nobody = (("x", "y"), "/?session");
            assert!(is_admitted(&limits, one.0, one.1, "192.0.2.1"));
            assert!(
                !is_admitted(&limits, one.0, one.1, "192.0.2.2"),
                "the same key"
            );
            assert!(is_admitted(&limits, other.0, other.1, "192.0.2.1"));
            assert!(is_admitted(&limits, nobody.0, nobody.1, "192.0.2.1"));
            assert!(!is_admitted(&limits, nobody.0, nobody.1, "192.0.2.1"));
            assert!(is_admitted(&limits, nobody.0, nobody.1, "192.0.2.2"));
            assert_eq!(limits.reading().rate_limited, 2);
        }
    }

    #[test]
    fn a_place_comes_back_when_it_is_dropped_and_without_one_no_allowance_is_touched() {
        let limits = limits(LimitKey::ClientIp, Some(1));
        let fields = Fields::default();
        let known = Known {
            fields: &fields,
            uri: &Uri::from_static("/"),
        };
        let admit = |last: u8| {
            let client = move || IpAddr::from([192, 0, 2, last]);
            limits.admit(known, client, Duration::from_secs(1))
        };
        let place = admit(1).unwrap();
        assert_eq!(limits.reading().in_flight, 1);
        assert_eq!(admit(2).unwrap_err(), TurnedAway::Overloaded);
        drop(place);
        let wait = Duration::from_secs(1);
        assert_eq!(admit(1).unwrap_err(), TurnedAway::RateLimited(wait));
        assert_eq!(
            limits.reading().in_flight,
            0,
            "who is limited holds no place"
        );
        assert!(admit(2).is_ok(), "his allowance is whole");
        let reading = limits.reading();
        assert_eq!((reading.overloaded, reading.rate_limited), (1, 1));
    }
}
