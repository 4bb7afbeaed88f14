//! How much of something each key may have: an allowance for each, in a bounded memory.
//!
//! The memory of keys is bounded: a client that can send from ever new addresses, or with ever new
//! tokens, must not fill it. Beyond the bound, keys that are not remembered share one allowance; the
//! remembered ones keep theirs, so a flood of strangers does not cost regular clients anything. Keys
//! that have their whole allowance again are swept out once a second, apart from any request: done
//! by one of them, a sweep would make it pay for a hundred thousand others.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::config::model::Limit;
use crate::policy::rate::Allowance;

/// What is remembered of keys.
#[derive(Debug, Default)]
pub struct Limiter {
    /// The map hashes with a random seed, since strangers choose what goes into it.
    allowances: DashMap<Key, Allowance>,
    /// Counted apart, because the map would have to ask each of its shards.
    remembered: AtomicUsize,
    /// Shared by all that are not remembered.
    common: AtomicU64,
    on_common: AtomicU64,
}

/// What has an allowance of its own, in a fixed size: what a stranger sends may be long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Version4(u32),
    /// The first 64 bits: a client has a whole /64 to itself.
    Version6(u64),
    /// Of a text. The seed is the process's secret, so nobody can aim at another's allowance.
    Hash(u64),
}

impl From<IpAddr> for Key {
    fn from(client: IpAddr) -> Self {
        Self(match client {
            IpAddr::V4(address) => Kind::Version4(address.into()),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                let network = [a, b, c, d].into_iter();
                Kind::Version6(network.fold(0, |bits, part| bits << 16 | u64::from(part)))
            }
        })
    }
}

impl Limiter {
    /// The key that a text is.
    pub fn key(&self, text: &[u8]) -> Key {
        Key(Kind::Hash(self.allowances.hasher().hash_one(text)))
    }

    /// Takes one from the allowance of `key` at `now`, which is the time since any fixed point.
    ///
    /// # Errors
    /// How long to wait for the next one, if nobody else takes it.
    pub fn admit(&self, key: Key, limit: &Limit, now: Duration) -> Result<(), Duration> {
        match self.allowances.entry(key) {
            Entry::Occupied(mut known) => {
                let rest = limit.rate.take(*known.get(), now)?;
                known.insert(rest);
                Ok(())
            }
            Entry::Vacant(unknown) => {
                if self.remembered.fetch_add(1, Ordering::Relaxed) < limit.max_keys {
                    // A fresh allowance always has one; what is left of it is what we keep.
                    let rest = limit.rate.take(Allowance::default(), now);
                    unknown.insert(rest.unwrap_or_default());
                    return Ok(());
                }
                // The shard is free again before anybody else's allowance is fought over.
                drop(unknown);
                self.remembered.fetch_sub(1, Ordering::Relaxed);
                self.on_common.fetch_add(1, Ordering::Relaxed);
                self.take_common(limit, now)
            }
        }
    }

    /// Forgets keys that have their whole allowance again. To be called every second or so.
    pub fn sweep(&self, now: Duration) {
        self.allowances.retain(|_, allowance| {
            let is_kept = !allowance.is_whole(now);
            if !is_kept {
                self.remembered.fetch_sub(1, Ordering::Relaxed);
            }
            is_kept
        });
    }

    /// Keys that are remembered.
    pub fn remembered(&self) -> usize {
        self.remembered.load(Ordering::Relaxed)
    }

    /// Times so far that a key could not be remembered, because too many others were.
    pub fn on_common_allowance(&self) -> u64 {
        self.on_common.load(Ordering::Relaxed)
    }

    fn take_common(&self, limit: &Limit, now: Duration) -> Result<(), Duration> {
        let mut wait = Duration::ZERO;
        let take = |bits| match limit.rate.take(Allowance::from_bits(bits), now) {
            Ok(rest) => Some(rest.to_bits()),
            Err(missing) => {
                wait = missing;
                None
            }
        };
        let order = Ordering::Relaxed;
        let taken = self.common.fetch_update(order, order, take);
        taken.map(drop).map_err(|_| wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rate::Rate;

    fn limit(max_keys: usize) -> Limit {
        Limit {
            rate: Rate::new(10, 2),
            max_keys,
        }
    }

    fn admitted(limiter: &Limiter, max_keys: usize, client: &str, now: Duration) -> usize {
        let client: IpAddr = client.parse().unwrap();
        let tries = std::iter::repeat_with(|| limiter.admit(client.into(), &limit(max_keys), now));
        tries.take(9).filter(Result::is_ok).count()
    }

    #[test]
    fn each_address_has_an_allowance_of_its_own_and_a_64_is_one_address() {
        let limiter = Limiter::default();
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
    fn whoever_waits_as_long_as_was_said_is_admitted_and_no_sooner() {
        let limiter = Limiter::default();
        let now = Duration::from_secs(5);
        // Everybody after the first has no memory left for him, so both allowances are tried.
        for key in [b"alice".as_slice(), b"bob"] {
            let key = limiter.key(key);
            let limit = limit(1);
            let mut refused = std::iter::repeat_with(|| limiter.admit(key, &limit, now));
            let wait = refused.find_map(Result::err).unwrap();
            assert_eq!(wait, Duration::from_millis(100));
            let early = now + wait - Duration::from_nanos(1);
            assert_eq!(
                limiter.admit(key, &limit, early),
                Err(Duration::from_nanos(1))
            );
            assert_eq!(limiter.admit(key, &limit, now + wait), Ok(()));
        }
    }

    #[test]
    fn a_text_is_another_key_than_an_address_and_of_a_fixed_size() {
        let limiter = Limiter::default();
        let now = Duration::from_secs(5);
        let long = "x".repeat(100_000);
        for text in ["192.0.2.1", "", &long] {
            assert_eq!(
                limiter.admit(limiter.key(text.as_bytes()), &limit(9), now),
                Ok(())
            );
        }
        assert_eq!(admitted(&limiter, 9, "192.0.2.1", now), 2);
        assert_eq!(limiter.remembered(), 4);
        assert_eq!(size_of::<Key>(), 16);
    }

    #[test]
    fn addresses_beyond_the_bound_share_one_allowance_and_cost_the_others_nothing() {
        let limiter = Limiter::default();
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
        let limiter = Limiter::default();
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
        let limiter = Limiter::default();
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
