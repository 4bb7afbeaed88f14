//! What a scrape shows. It borrows everything, so that taking the picture copies no count twice.

use std::net::SocketAddr;

use crate::policy::rollout::{Condition, Decision, Outlook, Phase};
use crate::policy::share::Share;
use crate::policy::signal::SignalState;
use crate::policy::time::Timestamp;
use crate::telemetry::edge::{EdgeLoad, TunnelEnd};
use crate::telemetry::tally::{AttemptReading, SplitReading};

/// The states of a breaker, each a label's value.
pub const BREAKER_STATES: [&str; 3] = ["closed", "half_open", "open"];

/// What a scrape shows, at one moment.
#[derive(Clone, Debug)]
pub struct Scene<'a> {
    /// The process itself.
    pub process: ProcessScene<'a>,
    /// Each split of the configuration in force.
    pub splits: Vec<SplitScene<'a>>,
    /// Each backend of the configuration in force.
    pub backends: Vec<BackendScene<'a>>,
    /// Each route of the configuration in force that limits its requests.
    pub routes: Vec<RouteScene<'a>>,
}

/// The process.
#[derive(Clone, Debug)]
pub struct ProcessScene<'a> {
    /// How many snapshots were published since the start.
    pub generation: u64,
    /// Whether the last reading of the configuration file was accepted.
    pub last_reload_successful: bool,
    /// When the configuration in force was loaded.
    pub last_reload_at: Timestamp,
    /// Whether the state store accepts writes.
    pub store_healthy: bool,
    /// Decisions that the audit has dropped since the start.
    pub audit_dropped: u64,
    /// Client connections open on each worker, in the workers' order.
    pub worker_connections: &'a [u64],
    /// Client connections that may be open at once.
    pub max_client_connections: usize,
    /// Client connections accepted so far.
    pub connections_accepted: u64,
    /// Networks denied by hand.
    pub denied_networks: usize,
    /// Those that the store held beyond what may be, and that are let in again.
    pub denials_dropped: u64,
    /// How often the system would not let a waiting connection in.
    pub failed_accepts: u64,
    /// Informational answers that were not passed on.
    pub untold: u64,
    /// What the edges of all workers hold.
    pub edge_load: EdgeLoad,
    /// Connections that have switched protocols and are open.
    pub tunnels: u64,
    /// Those that have ended, in the order of [`TunnelEnd::LABELS`].
    pub tunnels_ended: [u64; TunnelEnd::LABELS.len()],
    /// What the proxy itself turned away, by reason. Reasons are constants, since a label made
    /// from a request would let a stranger fill the memory of the monitoring.
    pub refused: &'a [(&'static str, u64)],
    /// What became of replacements of the process, by result.
    pub handovers: &'a [(&'static str, u64)],
    /// Those that listeners show.
    pub certificates: &'a [CertificateScene<'a>],
}

/// A certificate that a listener shows.
#[derive(Clone, Copy, Debug)]
pub struct CertificateScene<'a> {
    /// The listener's address, as configured.
    pub listener: SocketAddr,
    /// The certificate's file, as configured.
    pub file: &'a str,
    /// When it ends.
    pub not_after: Timestamp,
}

/// A split.
#[derive(Clone, Debug)]
pub struct SplitScene<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where its rollout stands.
    pub phase: Phase,
    /// The share in effect.
    pub share: Share,
    /// Whether an emergency covers it.
    pub emergency: bool,
    /// The breaker's state, one of [`BREAKER_STATES`], unless the split has none.
    pub breaker: Option<&'static str>,
    /// Each rollback criterion as it stood at the last tick.
    pub conditions: &'a [Condition],
    /// Each signal as it stands.
    pub signals: &'a [SignalState],
    /// How far its plan has come.
    pub outlook: &'a Outlook,
    /// Decisions announced since the start, in the order of [`Decision::ACTIONS`].
    pub announced: [u64; Decision::ACTIONS.len()],
    /// What was counted.
    pub reading: &'a SplitReading,
}

/// A route that limits its requests.
#[derive(Clone, Copy, Debug)]
pub struct RouteScene<'a> {
    /// Its name, or its place.
    pub name: &'a str,
    /// Whether it limits the requests in flight.
    pub limits_requests: bool,
    /// Whether it limits the requests of each key.
    pub limits_rate: bool,
    /// Requests being answered, where they are limited.
    pub in_flight: u64,
    /// Requests turned away, because too many were in flight.
    pub overloaded: u64,
    /// Requests turned away, because their key had no allowance left.
    pub rate_limited: u64,
    /// Keys remembered.
    pub keys: u64,
    /// Requests whose key could not be remembered.
    pub on_common_allowance: u64,
}

/// A backend.
#[derive(Clone, Debug)]
pub struct BackendScene<'a> {
    /// Its name.
    pub name: &'a str,
    /// What was counted.
    pub attempts: &'a AttemptReading,
    /// In the file's order.
    pub endpoints: Vec<EndpointScene<'a>>,
}

/// An endpoint.
#[derive(Clone, Copy, Debug)]
pub struct EndpointScene<'a> {
    /// `host:port`, as configured.
    pub address: &'a str,
    /// Whether it takes requests: neither failing its checks nor ejected.
    pub healthy: bool,
    /// Whether the last attempt to connect succeeded.
    pub reachable: bool,
    /// Requests in flight.
    pub pending: u64,
    /// Open connections.
    pub connections: u64,
}
