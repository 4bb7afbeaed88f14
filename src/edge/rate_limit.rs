//! Turns away what is too much from one client address: 429.
//!
//! An IPv6 client has a whole /64 to itself, so that is what counts as its address. The memory of
//! addresses is bounded: a client that can send from ever new addresses must not fill it. Beyond
//! the bound, addresses that are not remembered share one allowance; the remembered ones keep
//! theirs, so a flood of strangers does not cost regular clients anything. Addresses that have
//! their whole allowance again are swept out once a second, apart from any request: done by one of
//! them, a sweep would make it pay for a hundred thousand others.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tower::Service;

use crate::config::model::RateLimit as Settings;
use crate::policy::rate::{Allowance, Rate};
use crate::telemetry::edge::EdgeRefusal;

use super::Arrival;

/// Turns away what is too much from one client address.
#[derive(Clone, Debug)]
pub struct RateLimit<S>(pub S);

impl<B, S: Service<Arrival<B>>> Service<Arrival<B>> for RateLimit<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut arrival: Arrival<B>) -> S::Future {
        if let Some(settings) = &arrival.view.snapshot.routing.edge.rate_limit
            && !arrival.is_refused()
        {
            let now = arrival.local.worker.clock.uptime();
            let limiter = &arrival.local.shared.rate_limiter;
            if !limiter.admits(arrival.client(), settings, now) {
                arrival.refuse(EdgeRefusal::RateLimited);
            }
        }
        self.0.call(arrival)
    }
}

/// What the workers remember about client addresses.
#[derive(Debug, Default)]
pub(super) struct RateLimiter {
    /// The map hashes with a random seed, since strangers choose what goes into it.
    allowances: DashMap<Address, Allowance>,
    /// Counted apart, because the map would have to ask each of its shards.
    remembered: AtomicUsize,
    /// Shared by all who are not remembered.
    common: AtomicU64,
    on_common: AtomicU64,
}

/// What counts as one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Address {
    Version4(u32),
    /// The first 64 bits.
    Version6(u64),
}

impl Address {
    fn of(client: IpAddr) -> Self {
        match client {
            IpAddr::V4(address) => Self::Version4(address.into()),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                let network = [a, b, c, d].into_iter();
                Self::Version6(network.fold(0, |bits, part| bits << 16 | u64::from(part)))
            }
        }
    }
}

impl RateLimiter {
    /// Whether a request from `client` is within its limit at `now`.
    fn admits(&self, client: IpAddr, settings: &Settings, now: Duration) -> bool {
        let rate = Rate::new(settings.requests_per_second, settings.burst);
        match self.allowances.entry(Address::of(client)) {
            Entry::Occupied(mut known) => match rate.take(*known.get(), now) {
                Some(rest) => {
                    known.insert(rest);
                    true
                }
                None => false,
            },
            Entry::Vacant(unknown) => {
                if self.remembered.fetch_add(1, Ordering::Relaxed) < settings.max_keys {
                    // A fresh allowance always has one; what is left of it is what we keep.
                    let rest = rate.take(Allowance::default(), now);
                    unknown.insert(rest.unwrap_or_default());
                    return true;
                }
                // The shard is free again before anybody else's allowance is fought over.
                drop(unknown);
                self.remembered.fetch_sub(1, Ordering::Relaxed);
                self.on_common.fetch_add(1, Ordering::Relaxed);
                let take = |bits| {
                    let rest = rate.take(Allowance::from_bits(bits), now);
                    rest.map(Allowance::to_bits)
                };
                let order = Ordering::Relaxed;
                self.common.fetch_update(order, order, take).is_ok()
            }
        }
    }

    pub(super) fn sweep(&self, now: Duration) {
        self.allowances.retain(|_, allowance| {
            let is_kept = !allowance.is_whole(now);
            if !is_kept {
                self.remembered.fetch_sub(1, Ordering::Relaxed);
            }
            is_kept
        });
    }

    pub(super) fn remembered(&self) -> usize {
        self.remembered.load(Ordering::Relaxed)
    }

    pub(super) fn on_common_allowance(&self) -> u64 {
        self.on_common.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(max_keys: usize) -> Settings {
        Settings {
            requests_per_second: 10,
            burst: 2,
            max_keys,
        }
    }

    fn admitted(limiter: &RateLimiter, max_keys: usize, client: &str, now: Duration) -> usize {
        let client = client.parse().unwrap();
        let tries = std::iter::repeat_with(|| limiter.admits(client, &settings(max_keys), now));
        tries.take(9).filter(|is_admitted| *is_admitted).count()
    }

    #[test]
    fn each_address_has_an_allowance_of_its_own_and_a_64_is_one_address() {
        let limiter = RateLimiter::default();
        let now = Duration::from_secs(5);
        assert_eq!(admitted(&limiter, 9, "192.0.2.1", now), 2);
        assert_eq!(admitted(&limiter, 9, "192.0.2.2", now), 2);
        assert_eq!(admitted(&limiter, 9, "2001:db8:0:1::1", now), 2);
        assert_eq!(admitted(&limiter, 9, "2001:db8:0:1:ffff::1", now), 0);
        assert_eq!(admitted(&limiter, 9, "2001:db8:0:2::1", now), 2);
        let later = now + Duration::from_millis(100);
        assert_eq!(admitted(&limiter, 9, "192.0.2.1", later), 1);
    }

    #[test]
    fn addresses_beyond_the_bound_share_one_allowance_and_cost_the_others_nothing() {
        let limiter = RateLimiter::default();
        let now = Duration::from_secs(5);
        let known: Vec<String> = (0..3).map(|n| format!("192.0.2.{n}")).collect();
        for client in &known {
            assert_eq!(admitted(&limiter, 3, client, now), 2);
        }
        let strangers: usize = (0..100)
            .map(|n| admitted(&limiter, 3, &format!("198.51.100.{n}"), now))
            .sum();
        assert_eq!(strangers, 2, "all of them together");
        assert_eq!(limiter.on_common_allowance(), 900);
        assert_eq!(limiter.remembered(), 3);
        let later = now + Duration::from_millis(200);
        assert_eq!(admitted(&limiter, 3, &known[0], later), 2);
    }

    #[test]
    fn a_sweep_forgets_whoever_has_a_whole_allowance_and_nobody_else() {
        let limiter = RateLimiter::default();
        let now = Duration::from_secs(5);
        assert_eq!(admitted(&limiter, 2, "192.0.2.1", now), 2);
        let later = now + Duration::from_millis(150);
        assert_eq!(admitted(&limiter, 2, "192.0.2.2", later), 2);
        let after = now + Duration::from_millis(200);
        limiter.sweep(after);
        assert_eq!(limiter.remembered(), 1);
        assert_eq!(admitted(&limiter, 2, "192.0.2.2", after), 0, "remembered");
        assert_eq!(admitted(&limiter, 2, "192.0.2.3", after), 2, "has a place");
        assert_eq!(limiter.on_common_allowance(), 0);
    }

    #[test]
    fn many_threads_take_no_more_than_there_is() {
        let limiter = RateLimiter::default();
        let now = Duration::from_secs(5);
        let total: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| admitted(&limiter, 9, "192.0.2.1", now)))
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(total, 2);
    }
}
