//! What the edge of the proxy answered by itself, and how many connections it holds.
//!
//! These are requests that no arm is responsible for, so they are counted apart and are no
//! evidence about anything. They are rare or per connection, so the workers share one counter.

use std::sync::atomic::{AtomicU64, Ordering};

use super::access_log::LogReading;

/// Why the proxy answered by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EdgeRefusal {
    /// No route matches: 404.
    NoRoute,
    /// No host, several, or nonsense: 400.
    InvalidHost,
    /// No request, or one that can be read in more than one way: 400.
    Malformed,
    /// The head is too large, or has too many fields: 431.
    HeadTooLarge,
    /// The target is too long: 414.
    TargetTooLong,
    /// The client's address is denied: 403.
    Denied,
    /// Too many requests from one address: 429.
    RateLimited,
    /// Too many requests in flight: 503.
    Overloaded,
    /// The client did not deliver its body in time: 408.
    ClientTimeout,
    /// CONNECT is not served: 405.
    Connect,
    /// All connections to the one backend that could answer are in use: 503.
    PoolFull,
    /// The machine has no file descriptor or port left to ask the one backend that could answer:
    /// 503.
    NoSocket,
    /// Too many requests in flight on one route: 503.
    RouteOverloaded,
    /// Too many requests of one key of a route: 429.
    RouteRateLimited,
    /// The request's body is longer than is allowed: 413.
    BodyTooLarge,
}

impl EdgeRefusal {
    /// Label values in the order of the variants.
    pub const LABELS: [&'static str; 15] = [
        "no_route",
        "invalid_host",
        "malformed",
        "head_too_large",
        "target_too_long",
        "denied",
        "rate_limited",
        "overloaded",
        "client_timeout",
        "connect",
        "pool_full",
        "no_socket",
        "route_overloaded",
        "route_rate_limited",
        "body_too_large",
    ];
}

/// Why a connection that had switched protocols ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelEnd {
    /// Its client ended it, or failed.
    Client,
    /// Its upstream ended it, or failed.
    Upstream,
    /// Nothing moved for too long.
    Idle,
    /// Its split has left `new`, and its grace is over.
    Rollback,
}

impl TunnelEnd {
    /// Label values in the order of the variants.
    pub const LABELS: [&'static str; 4] = ["client", "upstream", "idle", "rollback"];
}

/// Why the proxy closed a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closure {
    /// Its TLS handshake failed or took too long.
    TlsHandshake,
    /// It never asked for anything: no whole request head within the time allowed.
    NoRequest,
    /// On a listener for balancers, it came from somebody else.
    ProxyProtocolStranger,
    /// What a balancer said about its client is no PROXY protocol, or took too long.
    ProxyProtocolInvalid,
    /// Its address has as many connections open as it may.
    AddressConnections,
    /// Over HTTP/2, it withdrew most of its many requests.
    AbandonedRequests,
    /// It took nothing of an answer in time, or less than it must.
    SlowReader,
    /// Over HTTP/2, it sent many frames that ask for nothing.
    ControlFrames,
}

impl Closure {
    /// Label values in the order of the variants.
    pub const LABELS: [&'static str; 8] = [
        "tls_handshake",
        "no_request",
        "proxy_protocol_stranger",
        "proxy_protocol_invalid",
        "address_connections",
        "abandoned_requests",
        "slow_reader",
        "control_frames",
    ];

    /// Label value.
    pub const fn as_str(self) -> &'static str {
        Self::LABELS[self as usize]
    }
}

/// Counters of the edge, shared by all workers.
#[derive(Debug, Default)]
pub struct EdgeTally {
    refused: [AtomicU64; EdgeRefusal::LABELS.len()],
    closed: [AtomicU64; Closure::LABELS.len()],
    accepted: AtomicU64,
    tunnels_opened: AtomicU64,
    tunnels_ended: [AtomicU64; TunnelEnd::LABELS.len()],
    failed_accepts: AtomicU64,
    untold: AtomicU64,
}

/// A reading of [`EdgeTally`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EdgeReading {
    /// Requests refused, in the order of [`EdgeRefusal::LABELS`].
    pub refused: [u64; EdgeRefusal::LABELS.len()],
    /// Client connections closed, in the order of [`Closure::LABELS`].
    pub closed: [u64; Closure::LABELS.len()],
    /// Client connections accepted.
    pub accepted: u64,
    /// Connections that have switched protocols and are open.
    pub tunnels: u64,
    /// Those that have ended, in the order of [`TunnelEnd::LABELS`].
    pub tunnels_ended: [u64; TunnelEnd::LABELS.len()],
    /// How often the system would not let a waiting connection in.
    pub failed_accepts: u64,
    /// Informational answers that were not passed on.
    pub untold: u64,
}

/// What the edges of all workers hold at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EdgeLoad {
    /// Requests being answered.
    pub requests_in_flight: u64,
    /// Client addresses that the rate limit remembers.
    pub remembered_addresses: u64,
    /// Requests so far whose address could not be remembered, because too many others were.
    pub requests_on_common_allowance: u64,
    /// What has become of the lines of the access log.
    pub log: LogReading,
}

impl EdgeTally {
    /// The proxy answered by itself.
    pub fn refused(&self, refusal: EdgeRefusal) {
        self.refused[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A client connected.
    pub fn accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// The proxy closed a client's connection.
    pub fn closed(&self, closure: Closure) {
        self.closed[closure as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The system would not let a waiting connection in.
    pub fn failed_accept(&self) {
        self.failed_accepts.fetch_add(1, Ordering::Relaxed);
    }

    /// An informational answer could not be passed on.
    pub fn untold(&self) {
        self.untold.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection has switched protocols.
    pub fn tunnel_opened(&self) {
        self.tunnels_opened.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection that had switched protocols is over.
    pub fn tunnel_ended(&self, end: TunnelEnd) {
        self.tunnels_ended[end as usize].fetch_add(1, Ordering::Release);
    }

    /// Connections that have switched protocols and are open.
    pub fn tunnels(&self) -> u64 {
        self.reading().tunnels
    }

    /// All counts at this moment.
    pub fn reading(&self) -> EdgeReading {
        // Ends are read before beginnings, so that no end is seen without its beginning.
        let tunnels_ended =
            std::array::from_fn(|index| self.tunnels_ended[index].load(Ordering::Acquire));
        let tunnels_opened = self.tunnels_opened.load(Ordering::Relaxed);
        EdgeReading {
            refused: std::array::from_fn(|index| self.refused[index].load(Ordering::Relaxed)),
            closed: std::array::from_fn(|index| self.closed[index].load(Ordering::Relaxed)),
            accepted: self.accepted.load(Ordering::Relaxed),
            tunnels: tunnels_opened.saturating_sub(tunnels_ended.iter().sum()),
            tunnels_ended,
            failed_accepts: self.failed_accepts.load(Ordering::Relaxed),
            untold: self.untold.load(Ordering::Relaxed),
        }
    }
}
