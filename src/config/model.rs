//! What a configuration means: checked, resolved, and impossible to hold wrongly.
//!
//! `raw.rs` is what was written; this is what is meant, and the only thing the rest of the
//! program sees. Everything here is plain data without handles, so that two configurations can be
//! compared to find out what a reload changes.

mod limit;
mod log;
mod signal;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::policy::address_key::{Addresses, TypedKey};
use crate::policy::arm::{Arm, PerArm};
use crate::policy::plan::{Course, Rules};
use crate::policy::share::Share;
use crate::policy::time::Timestamp;

pub use self::limit::{KeyedLimit, Limit, LimitKey};
pub use self::log::{AccessLog, LogDestination, LogFormat};
pub use self::signal::{HttpTarget, Poll, Signal, SignalAnswer};
pub use crate::policy::route::{Matches, PathMatch};

/// A whole, valid configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What only another process can change.
    pub process: Process,
    /// Where clients connect.
    pub listeners: Vec<Listener>,
    /// Limits and identity at the client's edge.
    pub edge: Edge,
    /// One line for each request that was answered; none where absent.
    pub access_log: Option<AccessLog>,
    /// Groups of endpoints, in the file's order; [`BackendId`] indexes them.
    pub backends: Vec<Backend>,
    /// Migrations, in the file's order; [`SplitId`] indexes them.
    pub splits: Vec<Split>,
    /// In the file's order; the best match wins, ties go to the first.
    pub routes: Vec<Route>,
    /// What `check` and `serve` report without refusing the file.
    pub warnings: Vec<crate::config::Problem>,
    /// Every file that was read, the configuration file first: a change of any may change this.
    pub files: Vec<PathBuf>,
}

impl Config {
    /// Names of the backends of a split's arms. An index means another one in another file.
    pub fn names_of_arms(&self, split: &Split) -> PerArm<String> {
        PerArm::from_fn(|arm| {
            let id = split.arms[arm];
            self.backends[usize::from(id.0)].name.clone()
        })
    }

    /// The keys whose values differ in `new` and take effect only in another process; empty if
    /// `new` can be put in force while serving.
    pub fn restart_only_changes(&self, new: &Config) -> Vec<String> {
        let (old, fresh) = (&self.process, &new.process);
        let addresses = |config: &Config| -> Vec<(SocketAddr, bool, Opening)> {
            let listeners = config.listeners.iter();
            // A listener that begins to speak TLS is another listener; a certificate is not.
            listeners
                .map(|one| (one.address, one.tls.is_some(), one.opening))
                .collect()
        };
        [
            ("listeners", addresses(self) != addresses(new)),
            ("admin.address", old.admin.address != fresh.admin.address),
            ("admin.tokens", old.admin.tokens != fresh.admin.tokens),
            (
                "state.directory",
                old.state_directory != fresh.state_directory,
            ),
            ("workers", old.workers != fresh.workers),
            ("drain.delay", old.drain.delay != fresh.drain.delay),
            ("drain.deadline", old.drain.deadline != fresh.drain.deadline),
        ]
        .into_iter()
        .filter(|(_, changed)| *changed)
        .map(|(key, _)| key.to_owned())
        .collect()
    }
}

/// Index of a backend within one [`Config`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BackendId(pub u16);

/// Index of a split within one [`Config`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SplitId(pub u16);

/// Settings that a reload refuses to change.
#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    /// Data-plane threads, each with a runtime of its own. Default: the number of cores.
    pub workers: usize,
    /// The directory of the state store.
    pub state_directory: PathBuf,
    /// The admin API's listener and its tokens.
    pub admin: Admin,
    /// How a stop proceeds.
    pub drain: Drain,
}

/// The admin API.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// Loopback unless there is a token.
    pub address: SocketAddr,
    /// Empty: anyone who reaches the (loopback) address may operate.
    pub tokens: Vec<Token>,
}

/// A bearer token of the admin API.
#[derive(Clone, PartialEq)]
pub struct Token {
    /// Who is acting, for the audit.
    pub name: String,
    /// What the bearer may do.
    pub role: Role,
    /// The secret. Never printed: see the `Debug` implementation.
    pub secret: String,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({}, {:?})", self.name, self.role)
    }
}

/// What a bearer of a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// See status, metrics, explanations.
    Read,
    /// Also change shares, roll back, declare an emergency.
    Operate,
}

/// How a stop proceeds: readiness goes down, `delay` passes while serving, then no new
/// connections are taken and requests in flight have `deadline` to finish.
#[derive(Clone, Debug, PartialEq)]
pub struct Drain {
    /// Time for balancers to notice the readiness change. Default 0.
    pub delay: Duration,
    /// Time for requests in flight. Default 30 s.
    pub deadline: Duration,
}

/// A bound address. Adding, moving or removing one needs another process; its certificate reloads.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Where to bind; port 0 lets the system choose.
    pub address: SocketAddr,
    /// Absent for plain HTTP.
    pub tls: Option<ServerTls>,
    /// What a connection begins with.
    pub opening: Opening,
}

/// What a connection begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// What the client says.
    Client,
    /// A header of the PROXY protocol, from a trusted balancer.
    ProxyProtocol,
}

/// How a listener speaks TLS.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerTls {
    /// Never empty. The first is shown where none bears the name that a client asks for.
    pub pairs: Vec<CertificatePair>,
    /// Absent: clients are not asked for a certificate.
    pub client_certificates: Option<ClientCertificates>,
}

/// A certificate and its key, PEM, already read from their files.
#[derive(Clone, PartialEq)]
pub struct CertificatePair {
    /// The certificate's file, as it was written.
    pub file: String,
    /// The chain, leaf first.
    pub certificate_pem: Vec<u8>,
    /// The private key.
    pub key_pem: Vec<u8>,
    /// The DNS names that the leaf is for, in lower case; the first label may be `*`.
    pub names: Vec<String>,
    /// When the leaf ends.
    pub not_after: Timestamp,
}

impl std::fmt::Debug for CertificatePair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CertificatePair({})", self.file)
    }
}

/// How clients are verified by certificates of their own.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientCertificates {
    /// The roots that may have signed them, PEM.
    pub roots_pem: Vec<u8>,
    /// Whether a client without one is turned away. Default yes.
    pub required: bool,
}

/// Limits and identity at the client's edge.
#[derive(Clone, Debug, PartialEq)]
pub struct Edge {
    /// Peers whose `X-Forwarded-*` and `X-Request-Id` are believed. Default none.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Whose W3C trace context reaches the upstream. Default anyone's.
    pub trace_context: TraceContext,
    /// Whether answers carry `Server-Timing`. Default no.
    pub server_timing: bool,
    /// Client addresses answered 403, unless `allow` is more specific; those of the file included.
    pub deny: Vec<ipnet::IpNet>,
    /// When not empty, only these client addresses are served; those of the file included.
    pub allow: Vec<ipnet::IpNet>,
    /// Open client connections over all listeners; more wait in the kernel. Default 10 000.
    pub max_connections: usize,
    /// Open connections of one client address (IPv6 by its /64) but a trusted proxy's.
    pub max_connections_per_address: Option<usize>,
    /// Requests after which a client is asked to connect anew.
    pub max_requests_per_connection: Option<u64>,
    /// Requests in flight over all workers; more are answered 503. Default 10 000.
    pub max_requests: usize,
    /// Requests of each client address (IPv6 by its /64), 429 above it.
    pub rate_limit: Option<Limit>,
    /// How long an HTTP/1 client that has closed its side of the connection may go on waiting for its
    /// answer while nothing of it moves. Default 1 s.
    pub half_close_grace: Duration,
    /// How long a client may take to send a request head, idle between two, or take nothing of an
    /// answer. Default 60 s.
    pub header_timeout: Duration,
    /// How long a TLS handshake may take. Default 10 s.
    pub handshake_timeout: Duration,
    /// Bytes a second that a client must deliver of a body, or take of an answer; above 0.
    pub min_rate: Option<u64>,
    /// Bytes of a request's head, 431 above it. Default 32 KiB.
    pub max_head: usize,
    /// Fields of a request's head, 431 above it. Default 100.
    pub max_fields: usize,
    /// Bytes of a request's path and query, 414 above it. Default 16 KiB.
    pub max_target: usize,
    /// What `Via` says, if anything.
    pub via: Option<Via>,
}

/// What `Via` says of a message, made beforehand for each version that it can have come in.
#[derive(Clone, Debug, PartialEq)]
pub struct Via {
    old: http::HeaderValue,
    one: http::HeaderValue,
    two: http::HeaderValue,
}

impl Via {
    /// What it says under this name; none for a name that no field can hold.
    pub fn new(name: &str) -> Option<Self> {
        let value = |version| format!("{version} {name}").parse().ok();
        Some(Self {
            old: value("1.0")?,
            one: value("1.1")?,
            two: value("2.0")?,
        })
    }

    /// What it says of a message that came in this version.
    pub fn of(&self, version: http::Version) -> &http::HeaderValue {
        match version {
            http::Version::HTTP_2 => &self.two,
            http::Version::HTTP_11 => &self.one,
            _ => &self.old,
        }
    }
}

/// Whose W3C trace context reaches the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceContext {
    /// Anyone's, as it came.
    Pass,
    /// A trusted proxy's, if it is well formed; others are removed.
    Trusted,
    /// As `Trusted`; where none is left, a new trace begins.
    Start,
}

/// A named set of endpoints that answer alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    /// The name in the file, label of its metrics.
    pub name: String,
    /// `host:port`, host a name or an address; at least one.
    pub endpoints: Vec<String>,
    /// Which endpoint takes the next request.
    pub balance: Balance,
    /// What it speaks.
    pub protocol: Protocol,
    /// Absent for plain HTTP.
    pub tls: Option<ClientTls>,
    /// How long each phase may take.
    pub timeouts: Timeouts,
    /// Bounds of the connection pool.
    pub pool: PoolLimits,
    /// Active health checks; absent: every endpoint is presumed healthy.
    pub health_check: Option<HealthCheck>,
    /// Passive ejection of failing endpoints; absent: off.
    pub ejection: Option<Ejection>,
}

/// How the next endpoint is chosen among the available ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// The one with the fewest requests in flight over all workers, ties in turn.
    LeastPending,
    /// In turn.
    RoundRobin,
}

/// What a backend speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 from the first byte on: by ALPN over TLS, by prior knowledge without.
    Http2,
}

/// How to verify an upstream that speaks TLS.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientTls {
    /// PEM roots already read from their file; absent: the system's.
    pub roots_pem: Option<Vec<u8>>,
    /// The name verified and sent as SNI; absent: the endpoint's host.
    pub server_name: Option<String>,
}

/// Time to the first byte of an answer where a backend sets none and nobody else could answer.
pub const FIRST_BYTE: Duration = Duration::from_secs(30);

/// How long each phase of an attempt may take.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeouts {
    /// TCP connect and TLS handshake. Default 1 s.
    pub connect: Duration,
    /// From the request sent to the first byte of the answer. Default: 5 s on a split's `new` arm
    /// where a fallback is possible, else 30 s.
    pub first_byte: Option<Duration>,
    /// Between two pieces of a body, either way. Default 60 s.
    pub body_idle: Duration,
    /// A connection that has switched protocols, without a byte in either direction. Default 1 h.
    pub upgrade_idle: Duration,
    /// The whole attempt, up to the 101 of one that switches protocols. Default: off.
    pub total: Option<Duration>,
}

/// Bounds of the connection pool of each endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolLimits {
    /// Open connections to one endpoint over all workers. Default 1 024.
    pub max_connections: usize,
    /// Idle ones kept to one endpoint over all workers. Default 128.
    pub max_idle: usize,
    /// Idle ones are closed after this; keep it below the upstream's own. Default 4 s.
    pub idle_timeout: Duration,
    /// A connection is not reused beyond this age. Default 5 min.
    pub max_lifetime: Duration,
    /// Connections opened to each endpoint, per worker, before a share above 0 first takes
    /// effect. Default 0.
    pub warm: usize,
}

/// Active health checks of each endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    /// Path of a GET that answers 2xx or 3xx when healthy.
    pub path: String,
    /// Time between two checks. Default 2 s.
    pub interval: Duration,
    /// Time for one check. Default 1 s.
    pub timeout: Duration,
    /// Consecutive passes that make an endpoint healthy again. Default 2.
    pub healthy_after: u32,
    /// Consecutive failures that make it unhealthy. Default 3.
    pub unhealthy_after: u32,
}

/// Passive ejection: an endpoint that keeps failing is left out for a while. The last available
/// endpoint of a backend is never ejected.
#[derive(Clone, Debug, PartialEq)]
pub struct Ejection {
    /// Consecutive failed attempts (transport or 5xx) that eject. Default 5.
    pub consecutive_failures: u32,
    /// Time out of rotation, multiplied by the number of ejections in a row, at most ten times.
    /// Default 10 s.
    pub duration: Duration,
}

/// One migration.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// The name in the file, label of its metrics.
    pub name: String,
    /// The backend of each arm.
    pub arms: PerArm<BackendId>,
    /// Where the session key is looked for; the first present wins.
    pub key: Vec<KeySource>,
    /// What happens to requests without any.
    pub keyless: Keyless,
    /// Seeds the hash. Default: the split's name.
    pub salt: String,
    /// Who moves the share, and what is judged.
    pub course: Course,
    /// Rules of the whole rollout.
    pub rules: Rules,
    /// Numbers that criteria may name, in the file's order.
    pub signals: Vec<Signal>,
    /// Both arms work on one data, key and session store.
    pub shared_state: bool,
    /// What happens when `new` fails.
    pub fallback: FallbackSettings,
    /// Keys with a fixed arm, from the file and the pins file together.
    pub pins: BTreeMap<String, Arm>,
    /// Key that verifies pin tokens of this split (HS256); absent: tokens are ignored.
    pub pin_secret: Option<Secret>,
    /// How long a stream of `new` may go on after a rollback. Default 30 s.
    pub stream_grace: Duration,
    /// Whether answers carry `Cutover-Arm` and `Cutover-Fallback`. Default false.
    pub response_headers: bool,
    /// Written by the user; a new value clears a rollback's latch.
    pub rollout_id: String,
}

impl Split {
    /// Whether its session keys are clients' addresses.
    pub fn addresses(&self) -> Addresses {
        addresses(&self.key, &self.keyless)
    }

    /// The arm that is fixed for a key.
    pub fn pinned(&self, key: &TypedKey<'_>) -> Option<Arm> {
        self.pins.get(key.text()).copied()
    }
}

/// Whether the keys of these sources are clients' addresses.
pub(super) fn addresses(key: &[KeySource], keyless: &Keyless) -> Addresses {
    let is_among = key.contains(&KeySource::ClientIp) || *keyless == Keyless::ClientIp;
    if !is_among {
        Addresses::Never
    } else if key.iter().all(|source| *source == KeySource::ClientIp) {
        Addresses::Always
    } else {
        Addresses::Sometimes
    }
}

/// One place where a session key may be.
#[derive(Clone, Debug, PartialEq)]
pub enum KeySource {
    /// A cookie's value.
    Cookie(String),
    /// A header's value.
    Header(http::HeaderName),
    /// A query parameter's value, as received (not decoded).
    Query(String),
    /// A claim of a verified JSON Web Token.
    Jwt(JwtSource),
    /// The client's address: canonical text, IPv6 by its /64.
    ClientIp,
}

/// A claim of a token, and how the token is verified.
#[derive(Clone, Debug, PartialEq)]
pub struct JwtSource {
    /// Name of a claim that is a string or a decimal integer.
    pub claim: String,
    /// The header that carries the token, after `Bearer ` if that is there. Default
    /// `Authorization`.
    pub header: http::HeaderName,
    /// How signatures are verified.
    pub algorithm: JwtAlgorithm,
    /// HS256: the shared secret. RS256, ES256: the public key, PEM.
    pub key: Secret,
    /// Required `iss`, if any.
    pub issuer: Option<String>,
    /// Required `aud`, if any.
    pub audience: Option<String>,
}

/// Signature algorithms of JSON Web Tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// RSA PKCS #1 v1.5 with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
}

/// Key material that never reaches a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What happens to a request that carries no session key.
#[derive(Clone, Debug, PartialEq)]
pub enum Keyless {
    /// The client's address is its key.
    ClientIp,
    /// A random cookie is issued and is its key from now on.
    IssueCookie(IssuedCookie),
    /// Always legacy; such requests are no evidence about either arm.
    Legacy,
}

/// Attributes of an issued cookie. The value is 128 random bits; it is always `HttpOnly`, and
/// `Secure` on TLS.
#[derive(Clone, Debug, PartialEq)]
pub struct IssuedCookie {
    /// Default `cutover`.
    pub name: String,
    /// Default `/`.
    pub path: String,
    /// Absent: the host alone.
    pub domain: Option<String>,
    /// Absent: a session cookie. Default 365 days.
    pub max_age: Option<Duration>,
    /// `Lax`, `Strict` or `None`. Default `Lax`.
    pub same_site: String,
}

/// What happens when `new` fails.
#[derive(Clone, Debug, PartialEq)]
pub struct FallbackSettings {
    /// Default true.
    pub enabled: bool,
    /// Answers of `new` that count as a failure worth replaying. Default 500, 502, 503, 504.
    pub statuses: Vec<u16>,
    /// Bytes of a request body kept for a replay. Default 64 KiB.
    pub body_limit: usize,
    /// Replays of sent requests, as a percentage of the last 10 s of requests. Default 20 %.
    pub budget: Share,
    /// Replays per second that are always allowed on top. Default 10.
    pub budget_floor: u32,
    /// Diverts `new`'s keys while it is failing; absent: off.
    pub breaker: Option<BreakerSettings>,
}

/// When the breaker opens and how it probes.
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerSettings {
    /// Consecutive transport failures that open it. Default 5.
    pub consecutive_failures: u32,
    /// Time until one request probes. Default 1 s.
    pub open_for: Duration,
}

/// Which requests go where.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Label of its metrics. Default its place, such as `routes[2]`.
    pub name: String,
    /// What a request must look like.
    pub matches: Matches,
    /// Where it goes.
    pub target: Target,
    /// Whether `new` may be rescued by legacy on this route. Default true.
    pub fallback: bool,
    /// Requests in flight on this route; more are answered 503.
    pub max_requests: Option<usize>,
    /// Bytes of a request's body; 413 above it. Default that of the edge.
    pub max_body: Option<usize>,
    /// Requests of each key, 429 above it.
    pub rate_limit: Option<KeyedLimit>,
}

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// One backend, no migration.
    Backend(BackendId),
    /// One of a split's arms.
    Split(SplitId),
}
