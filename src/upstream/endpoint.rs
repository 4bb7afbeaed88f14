//! One server of a backend: where it is, how busy it is, and whether it may be tried.
//!
//! An endpoint outlives the snapshot that names it, so that a reload which leaves it alone keeps
//! its pooled connections, its health and its counts. Whatever counts something hands out a guard
//! that gives it back on drop: a count decremented by hand leaks on the first early return, and a
//! connection cap that leaks ends in a backend which is "full" while idle.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::net::lookup_host;
use tokio::sync::oneshot;

use crate::policy::time::Elapsed;
use crate::upstream::lookup::Lookup;
use crate::upstream::queue::Queue;

/// A server of a backend. Shared by all workers; every method takes `&self`.
#[derive(Debug)]
pub struct Endpoint {
    address: String,
    location: Location,
    lookup: Lookup,
    pending: AtomicU64,
    connections: AtomicUsize,
    queue: Queue<ConnectionPermit>,
    refusals: AtomicU64,
    unhealthy: AtomicBool,
    unreachable: AtomicBool,
    ejected_until: AtomicU64,
    failures_in_a_row: AtomicU32,
    ejections_in_a_row: AtomicU32,
}

/// Where an endpoint is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// At an address; connecting needs no lookup.
    Address(SocketAddr),
    /// Under a name, looked up again and again so that a moved server is found.
    Name {
        /// Host name, without port.
        host: String,
        /// TCP port.
        port: u16,
    },
}

/// Whether an endpoint may be tried, and who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It may.
    Healthy,
    /// Active checks failed.
    Unhealthy,
    /// Requests failed; left out for a while.
    Ejected,
}

impl Health {
    /// The word used in status and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Health::Healthy => "healthy",
            Health::Unhealthy => "unhealthy",
            Health::Ejected => "ejected",
        }
    }
}

/// The text is not `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an endpoint; write `host:port`, such as `10.0.0.7:8080` or `[::1]:8080`")]
pub struct InvalidAddress(pub String);

impl Endpoint {
    /// The endpoint at `address`, `host:port`; presumed healthy.
    ///
    /// # Errors
    /// [`InvalidAddress`] where the text is not `host:port`.
    pub fn new(address: &str) -> Result<Arc<Endpoint>, InvalidAddress> {
        Ok(Arc::new(Endpoint {
            address: address.to_owned(),
            location: Location::parse(address).ok_or_else(|| InvalidAddress(address.to_owned()))?,
            lookup: Lookup::default(),
            pending: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
            queue: Queue::default(),
            refusals: AtomicU64::new(0),
            unhealthy: AtomicBool::new(false),
            unreachable: AtomicBool::new(false),
            ejected_until: AtomicU64::new(0),
            failures_in_a_row: AtomicU32::new(0),
            ejections_in_a_row: AtomicU32::new(0),
        }))
    }

    /// `host:port` as configured.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where to connect.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// The addresses to try, in order. A name that was looked up within the last seconds is not
    /// looked up again; one that is not found any more keeps its addresses for some minutes.
    ///
    /// # Errors
    /// Those of the system's resolver.
    pub(super) async fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        match &self.location {
            Location::Address(address) => Ok(vec![*address]),
            Location::Name { host, port } => {
                let name = (host.clone(), *port);
                let look_up = async { Ok(lookup_host(name).await?.collect()) };
                let now = Instant::now();
                self.lookup.addresses(&self.address, now, look_up).await
            }
        }
    }

    /// Requests in flight over all workers.
    pub fn pending(&self) -> u64 {
        self.pending.load(Ordering::Relaxed)
    }

    /// Open connections over all workers, idle ones included.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Counts a request as in flight until the guard is dropped.
    pub fn begin(self: &Arc<Self>) -> PendingGuard {
        self.pending.fetch_add(1, Ordering::Relaxed);
        PendingGuard(Arc::clone(self))
    }

    /// The right to hold one connection, unless `max` are open over all workers or somebody waits
    /// for one.
    pub fn try_acquire(self: &Arc<Self>, max: usize) -> Option<ConnectionPermit> {
        let permit = match self.is_waited_for() {
            true => None,
            false => self.acquire(max),
        };
        if permit.is_none() {
            self.refusals.fetch_add(1, Ordering::Relaxed);
        }
        permit
    }

    /// Whether anybody waits for the right to hold a connection.
    pub fn is_waited_for(&self) -> bool {
        self.waiting() > 0
    }

    /// How many wait for the right to hold a connection, over all workers.
    pub(super) fn waiting(&self) -> usize {
        self.queue.count()
    }

    /// Waits for the right to hold one of `max` connections, behind all who wait already; unless
    /// too many do.
    pub(super) fn wait(self: &Arc<Self>, max: usize) -> Option<Waiting> {
        let waiting = Waiting {
            right: self.queue.join(max)?,
            endpoint: Arc::clone(self),
        };
        self.grant();
        Some(waiting)
    }

    fn grant(self: &Arc<Self>) {
        self.queue.grant(|max| self.acquire(max));
    }

    fn acquire(self: &Arc<Self>, max: usize) -> Option<ConnectionPermit> {
        let open_one = |open| (open < max).then_some(open + 1);
        self.connections
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, open_one)
            .ok()
            .map(|_| ConnectionPermit(Arc::clone(self)))
    }

    /// How often [`try_acquire`](Self::try_acquire) has refused so far.
    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    /// Whether it may be tried at `now`.
    pub fn is_available(&self, now: Elapsed) -> bool {
        self.health(now) == Health::Healthy
    }

    /// Whether it may be tried at `now`, and who says so.
    pub fn health(&self, now: Elapsed) -> Health {
        if self.unhealthy.load(Ordering::Relaxed) {
            Health::Unhealthy
        } else if now.milliseconds() < self.ejected_until.load(Ordering::Relaxed) {
            Health::Ejected
        } else {
            Health::Healthy
        }
    }

    /// What active checks last concluded: whether it is healthy.
    pub fn passes_checks(&self) -> bool {
        !self.unhealthy.load(Ordering::Relaxed)
    }

    /// Records what active checks conclude.
    pub fn set_passes_checks(&self, passes: bool) {
        self.unhealthy.store(!passes, Ordering::Relaxed);
    }

    /// Whether the last attempt to connect succeeded, whoever made it; true before the first.
    ///
    /// This is for people to read and keeps no request away: one refused connection is no reason
    /// to leave an endpoint out, but it must not be called healthy either.
    pub fn is_reachable(&self) -> bool {
        !self.unreachable.load(Ordering::Relaxed)
    }

    /// Records how an attempt to connect ended.
    pub fn set_reachable(&self, reachable: bool) {
        // A load first: connections open all the time, and the line should stay shared.
        if self.is_reachable() != reachable {
            self.unreachable.store(!reachable, Ordering::Relaxed);
        }
    }

    /// Counts a success at `now`: failures start over, and so does the row of ejections if the
    /// endpoint is back. Answers to requests sent before the ejection do not end the row.
    pub(super) fn succeeded(&self, now: Elapsed) {
        // Loads first: on a healthy endpoint nothing is written, so its line stays shared.
        if self.failures_in_a_row.load(Ordering::Relaxed) != 0 {
            self.failures_in_a_row.store(0, Ordering::Relaxed);
        }
        if self.ejections_in_a_row.load(Ordering::Relaxed) != 0
            && now.milliseconds() >= self.ejected_until.load(Ordering::Relaxed)
        {
            self.ejections_in_a_row.store(0, Ordering::Relaxed);
        }
    }

    /// Counts a failure and returns how many there were in a row, this one included.
    pub(super) fn failed(&self) -> u32 {
        self.failures_in_a_row
            .fetch_add(1, Ordering::Relaxed)
            .saturating_add(1)
    }

    /// How many ejections in a row there were.
    pub(super) fn ejections_in_a_row(&self) -> u32 {
        self.ejections_in_a_row.load(Ordering::Relaxed)
    }

    /// Leaves the endpoint out until `until`; failures start over.
    pub(super) fn eject(&self, until: Elapsed) {
        self.failures_in_a_row.store(0, Ordering::Relaxed);
        self.ejections_in_a_row.fetch_add(1, Ordering::Relaxed);
        self.ejected_until
            .store(until.milliseconds(), Ordering::Relaxed);
    }
}

impl Location {
    fn parse(address: &str) -> Option<Location> {
        if let Ok(address) = address.parse() {
            return Some(Location::Address(address));
        }
        let (host, port) = address.rsplit_once(':')?;
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        (!host.is_empty() && host.bytes().all(is_name)).then_some(())?;
        let port = port.parse().ok().filter(|&port| port != 0)?;
        Some(Location::Name {
            host: host.to_owned(),
            port,
        })
    }

    /// The host alone, without brackets or port: what a certificate names.
    pub fn host(&self) -> String {
        match self {
            Location::Address(address) => address.ip().to_string(),
            Location::Name { host, .. } => host.clone(),
        }
    }
}

/// A request in flight; dropping it ends the count.
#[derive(Debug)]
pub struct PendingGuard(Arc<Endpoint>);

impl Drop for PendingGuard {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The right to hold one connection to an endpoint; belongs beside the connection's stream.
#[derive(Debug)]
pub struct ConnectionPermit(Arc<Endpoint>);

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::SeqCst);
        if self.0.is_waited_for() {
            self.0.grant();
        }
    }
}

/// A place among those who wait for the right to hold a connection; dropping it gives it up.
#[derive(Debug)]
pub(super) struct Waiting {
    right: oneshot::Receiver<ConnectionPermit>,
    endpoint: Arc<Endpoint>,
}

impl Waiting {
    /// Ready once its turn has come.
    pub(super) fn poll_right(&mut self, cx: &mut Context<'_>) -> Poll<Option<ConnectionPermit>> {
        Pin::new(&mut self.right).poll(cx).map(Result::ok)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.right.close();
        self.endpoint.queue.leave();
        if self.endpoint.is_waited_for() {
            self.endpoint.grant();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_connections_than_the_maximum_and_a_dropped_permit_makes_room() {
        let endpoint = Endpoint::new("127.0.0.1:80").unwrap();
        let first = endpoint.try_acquire(2).unwrap();
        let _second = endpoint.try_acquire(2).unwrap();
        assert!(endpoint.try_acquire(2).is_none());
        drop(first);
        assert_eq!(endpoint.connections(), 1);
        assert!(endpoint.try_acquire(2).is_some());
    }

    fn turn(waiting: &mut Waiting) -> Option<ConnectionPermit> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match waiting.poll_right(&mut cx) {
            Poll::Ready(right) => right,
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_right_that_becomes_free_goes_to_whoever_has_waited_longest_and_is_still_there() {
        let endpoint = Endpoint::new("127.0.0.1:80").unwrap();
        let held = endpoint.try_acquire(1).unwrap();
        let mut waiting = [(); 3].map(|()| endpoint.wait(1));
        waiting[0] = None;
        drop(held);
        assert!(endpoint.try_acquire(1).is_none(), "others stand before it");
        assert!(turn(waiting[2].as_mut().unwrap()).is_none());
        let right = turn(waiting[1].as_mut().unwrap()).unwrap();
        drop(right);
        waiting[1] = None;
        assert_eq!(endpoint.connections(), 1, "it is given already");
        waiting[2] = None;
        assert_eq!(endpoint.connections(), 0, "and was not lost");
        assert!(endpoint.try_acquire(1).is_some());
    }

    #[test]
    fn whoever_waits_under_a_smaller_maximum_holds_up_nobody_behind_it() {
        let endpoint = Endpoint::new("127.0.0.1:80").unwrap();
        let _held = [(); 2].map(|()| endpoint.try_acquire(2).unwrap());
        let mut before_reload = endpoint.wait(2).unwrap();
        let mut after_reload = endpoint.wait(3).unwrap();
        assert!(turn(&mut before_reload).is_none());
        assert!(turn(&mut after_reload).is_some());
    }

    #[test]
    fn no_more_wait_than_four_for_each_connection_and_whoever_leaves_makes_room() {
        let endpoint = Endpoint::new("127.0.0.1:80").unwrap();
        let _held = endpoint.try_acquire(1).unwrap();
        let mut waiting: Vec<_> = std::iter::from_fn(|| endpoint.wait(1)).collect();
        assert_eq!(waiting.len(), 4);
        waiting.pop();
        assert!(endpoint.wait(1).is_some());
    }

    #[test]
    fn many_threads_never_exceed_the_maximum() {
        let endpoint = Endpoint::new("127.0.0.1:80").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        let permit = endpoint.try_acquire(2);
                        assert!(endpoint.connections() <= 2);
                        drop(permit);
                    }
                });
            }
        });
        assert_eq!(endpoint.connections(), 0);
    }

    #[test]
    fn a_request_counts_as_pending_until_its_guard_is_dropped() {
        let endpoint = Endpoint::new("127.0.0.1:80").unwrap();
        let guard = endpoint.begin();
        assert_eq!(endpoint.pending(), 1);
        drop(guard);
        assert_eq!(endpoint.pending(), 0);
    }

    #[test]
    fn reads_names_and_addresses_and_refuses_the_rest() {
        let name = |host: &str, port| Location::Name {
            host: host.to_owned(),
            port,
        };
        for (text, location) in [
            ("api.internal:8080", name("api.internal", 8080)),
            ("legacy_api:80", name("legacy_api", 80)),
            ("[::1]:80", Location::Address("[::1]:80".parse().unwrap())),
        ] {
            assert_eq!(*Endpoint::new(text).unwrap().location(), location, "{text}");
        }
        for text in [
            "api",
            "api:",
            ":80",
            "api:0",
            "api:70000",
            "a b:80",
            "http://api:80",
            "::1:80",
        ] {
            assert!(Endpoint::new(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_host_of_an_address_has_neither_brackets_nor_port() {
        assert_eq!(Endpoint::new("[::1]:443").unwrap().location().host(), "::1");
        assert_eq!(Endpoint::new("api:443").unwrap().location().host(), "api");
    }
}
