//! Finding the addresses of an endpoint that has a name.
//!
//! The system's resolver blocks a thread for each look-up and knows no time limit, and whoever stops
//! waiting for it does not stop it. With a look-up for every connection, a name server that is
//! silent for a minute would fill every thread that a runtime is willing to make. So an endpoint has
//! one look-up under way at most, which ends whether or not anybody waits for it, and what it finds
//! holds for some seconds.
//!
//! Nor must a name server that is down take a healthy upstream down with it: what was found last is
//! used on while nothing newer can be found, for some minutes.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::timeout;

/// How long addresses hold: short beside the lifetime of a name server's record, long beside the
/// time between two connections under load.
const HOLDS: Duration = Duration::from_secs(5);
/// How long they are used while nothing newer can be found. Name servers are mended within minutes;
/// an address that its owner gave back may be anybody's later.
const OUTLASTS: Duration = Duration::from_secs(600);
/// How long a look-up is waited for where there are older addresses: long beside an answer, short
/// beside the time that a connection may take.
const PATIENCE: Duration = Duration::from_millis(300);

/// The addresses of one endpoint, shared by all workers.
#[derive(Debug, Default)]
pub(super) struct Lookup {
    found: Arc<Mutex<Option<Found>>>,
    /// Held by the one look-up under way.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Clone, Debug)]
struct Found {
    addresses: Vec<SocketAddr>,
    /// Nobody looks for others before.
    until: Instant,
    /// Nobody uses them after this.
    at_last: Instant,
    /// Whether they are used for want of newer ones.
    is_old: bool,
}

impl Lookup {
    /// The addresses of `endpoint`; of those who ask meanwhile, only one looks them up. `now` is when
    /// this is asked.
    ///
    /// # Errors
    /// Those of `look_up`, where nothing was found within the last minutes either.
    pub(super) async fn addresses<F>(
        &self,
        endpoint: &str,
        now: Instant,
        look_up: F,
    ) -> io::Result<Vec<SocketAddr>>
    where
        F: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
    {
        let known = lock(&self.found).clone();
        let known = known.filter(|known| now < known.at_last);
        match known {
            None => self.look(endpoint, now, look_up).await,
            Some(known) if now < known.until => Ok(known.addresses),
            Some(known) => {
                let looking = self.look(endpoint, now, look_up);
                match timeout(PATIENCE, looking).await {
                    Ok(Ok(addresses)) => Ok(addresses),
                    Ok(Err(error)) => Ok(self.make_do(endpoint, now, known, &error)),
                    Err(elapsed) => Ok(self.make_do(endpoint, now, known, &elapsed)),
                }
            }
        }
    }

    async fn look<F>(&self, endpoint: &str, now: Instant, look_up: F) -> io::Result<Vec<SocketAddr>>
    where
        F: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
    {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let found = Arc::clone(&self.found);
        if let Some(found) = lock(&found).as_ref()
            && now < found.until
            && !found.is_old
        {
            return Ok(found.addresses.clone());
        }
        let endpoint = endpoint.to_owned();
        // A task of its own, which keeps the turn: who gives up waiting must not let the next one
        // begin another look-up.
        let looking = tokio::spawn(async move {
            let _turn = turn;
            let addresses = look_up.await?;
            let before = lock(&found).replace(Found {
                addresses: addresses.clone(),
                until: now + HOLDS,
                at_last: now + HOLDS + OUTLASTS,
                is_old: false,
            });
            if before.is_some_and(|before| before.is_old) {
                tracing::info!(endpoint, "the endpoint's name is found again");
            }
            Ok(addresses)
        });
        looking.await.map_err(io::Error::other)?
    }

    /// What is known already, for want of anything newer.
    fn make_do(
        &self,
        endpoint: &str,
        now: Instant,
        known: Found,
        reason: &dyn std::fmt::Display,
    ) -> Vec<SocketAddr> {
        let mut found = lock(&self.found);
        // Somebody else's look-up may have succeeded meanwhile.
        if let Some(found) = found.as_mut().filter(|found| found.until <= now) {
            // The next ones need not wait.
            found.until = now + HOLDS;
            if !std::mem::replace(&mut found.is_old, true) {
                tracing::warn!(
                    endpoint,
                    %reason,
                    "the endpoint's name is not found; using the addresses found before",
                );
            }
        }
        known.addresses
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What it guards is replaced whole, so that a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;
    use tokio::time::timeout;

    use super::*;

    const ADDRESS: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 80);

    const NAME: &str = "api.example:80";

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
            let waiting = lookup.addresses(NAME, now, resolver.look_up());
            assert!(timeout(IMPATIENCE, waiting).await.is_err());
        }
        resolver.answers.notify_one();
        let found = lookup.addresses(NAME, now, resolver.look_up()).await;
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
            let found = lookup
                .addresses(NAME, at, async move { Ok(vec![address]) })
                .await;
            assert_eq!(found.expect("it was found"), [expected]);
        }
    }

    #[tokio::test]
    async fn a_failure_is_not_remembered() {
        let (lookup, now) = (Lookup::default(), Instant::now());
        let failing = async { Err(io::ErrorKind::NotFound.into()) };
        assert!(lookup.addresses(NAME, now, failing).await.is_err());
        let found = lookup
            .addresses(NAME, now, async { Ok(vec![ADDRESS]) })
            .await;
        assert_eq!(found.expect("it was found"), [ADDRESS]);
    }

    #[tokio::test]
    async fn while_nothing_newer_is_found_the_last_addresses_are_used_for_some_minutes() {
        let (lookup, now) = (Lookup::default(), Instant::now());
        let found = lookup.addresses(NAME, now, async { Ok(vec![ADDRESS]) });
        found.await.expect("it was found");
        let failing = async || -> io::Result<_> { Err(io::ErrorKind::NotFound.into()) };
        for after in [HOLDS, 3 * HOLDS, OUTLASTS] {
            let found = lookup.addresses(NAME, now + after, failing()).await;
            assert_eq!(found.expect("it was found once"), [ADDRESS], "{after:?}");
        }
        let moved = SocketAddr::new(ADDRESS.ip(), 81);
        let at = now + OUTLASTS + HOLDS;
        assert!(lookup.addresses(NAME, at, failing()).await.is_err());
        let found = lookup.addresses(NAME, at, async move { Ok(vec![moved]) });
        assert_eq!(found.await.expect("it was found"), [moved]);
    }

    #[tokio::test]
    async fn a_silent_resolver_holds_one_up_for_a_moment_where_addresses_are_known() {
        let (lookup, resolver) = (Lookup::default(), Resolver::default());
        let now = Instant::now();
        let found = lookup.addresses(NAME, now, async { Ok(vec![ADDRESS]) });
        found.await.expect("it was found");
        let (later, waited) = (now + HOLDS, Instant::now());
        for _ in 0..10 {
            let found = lookup.addresses(NAME, later, resolver.look_up()).await;
            assert_eq!(found.expect("it was found once"), [ADDRESS]);
        }
        assert!(waited.elapsed() < 5 * PATIENCE, "only the first one waits");
        assert_eq!(resolver.asked(), 1);
    }
}
