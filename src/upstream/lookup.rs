//! Finding the addresses of an endpoint that has a name.
//!
//! The system's resolver blocks a thread for each look-up and knows no time limit, and whoever stops
//! waiting for it does not stop it. With a look-up for every connection, a name server that is
//! silent for a minute would fill every thread that a runtime is willing to make. So an endpoint has
//! one look-up under way at most, which ends whether or not anybody waits for it, and what it finds
//! holds for some seconds.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

/// How long addresses hold: short beside the lifetime of a name server's record, long beside the
/// time between two connections under load.
const HOLDS: Duration = Duration::from_secs(5);

/// The addresses found last, shared by all workers.
#[derive(Debug, Default)]
pub(super) struct Lookup(Arc<Mutex<Option<Found>>>);

#[derive(Debug)]
struct Found {
    addresses: Vec<SocketAddr>,
    until: Instant,
}

impl Lookup {
    /// The addresses; of those who ask meanwhile, only one looks them up. `now` is when this is
    /// asked.
    ///
    /// # Errors
    /// Those of `look_up`.
    pub(super) async fn addresses<F>(&self, now: Instant, look_up: F) -> io::Result<Vec<SocketAddr>>
    where
        F: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
    {
        let mut found = Arc::clone(&self.0).lock_owned().await;
        if let Some(found) = found.as_ref().filter(|found| now < found.until) {
            return Ok(found.addresses.clone());
        }
        // A task of its own, which keeps the lock: who gives up waiting must not let the next one
        // begin another look-up.
        let looking = tokio::spawn(async move {
            let addresses = look_up.await?;
            *found = Some(Found {
                addresses: addresses.clone(),
                until: now + HOLDS,
            });
            Ok(addresses)
        });
        looking.await.map_err(io::Error::other)?
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;
    use tokio::time::timeout;

    use super::*;

    const ADDRESS: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 80);

    /// A resolver that answers when it is told, and counts who asks.
    #[derive(Clone, Default)]
    struct Resolver {
        asked: Arc<AtomicUsize>,
        answers: Arc<Notify>,
    }

    impl Resolver {
        fn look_up(&self) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send + use<> {
            let resolver = self.clone();
            async move {
                resolver.asked.fetch_add(1, Ordering::Relaxed);
                resolver.answers.notified().await;
                Ok(vec![ADDRESS])
            }
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::Relaxed)
        }
    }

    /// Longer than it takes to ask, and short.
    const IMPATIENCE: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_silent_resolver_is_asked_once_however_many_give_up_waiting() {
        let (lookup, resolver) = (Lookup::default(), Resolver::default());
        let now = Instant::now();
        for _ in 0..10 {
            let waiting = lookup.addresses(now, resolver.look_up());
            assert!(timeout(IMPATIENCE, waiting).await.is_err());
        }
        resolver.answers.notify_one();
        let found = lookup.addresses(now, resolver.look_up()).await;
        assert_eq!(found.expect("it was found"), [ADDRESS]);
        assert_eq!(resolver.asked(), 1, "what the first found is good for all");
    }

    #[tokio::test]
    async fn a_moved_server_is_found_again_after_some_seconds() {
        let lookup = Lookup::default();
        let now = Instant::now();
        let moved = SocketAddr::new(ADDRESS.ip(), 81);
        for (address, at, expected) in [
            (ADDRESS, now, ADDRESS),
            (moved, now + HOLDS / 2, ADDRESS),
            (moved, now + HOLDS, moved),
        ] {
            let found = lookup.addresses(at, async move { Ok(vec![address]) }).await;
            assert_eq!(found.expect("it was found"), [expected]);
        }
    }

    #[tokio::test]
    async fn a_failure_is_not_remembered() {
        let (lookup, now) = (Lookup::default(), Instant::now());
        let failing = async { Err(io::ErrorKind::NotFound.into()) };
        assert!(lookup.addresses(now, failing).await.is_err());
        let found = lookup.addresses(now, async { Ok(vec![ADDRESS]) }).await;
        assert_eq!(found.expect("it was found"), [ADDRESS]);
    }
}
