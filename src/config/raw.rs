//! What was written: the file's shape, its documentation and its defaults.
//!
//! The schema is made from these structures, and the check holds a file against that schema before
//! anything is read into them: a value that is wrong is reported and left out. So what a file must
//! have is an `Option` marked `required`, absent only where that has been reported; and what has a
//! default states it in the schema, from where the check fills it in. No default is anywhere else.
//!
//! None of these types is `Debug`: they hold secrets.

mod criteria;
mod limit;
mod rollout;
mod signal;
mod split;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use http::Method;
use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

pub(crate) use self::criteria::{
    Advance, Analysis, Auto, Off, OverdispersionOrAuto, Rollback, Unproven,
};
pub(crate) use self::limit::{KeyedLimit, LimitKey};
pub(crate) use self::rollout::{OwnStage, Rollout, Stage, Windows};
pub(crate) use self::signal::Signal;
pub(crate) use self::split::{
    Algorithm, BreakerOrFalse, Fallback, False, Jwt, KeySource, Keyless, Pins, SameSite, Split,
};

use super::notation::{
    Endpoint, HeadSize, HostPattern, PositiveDuration, Pseudonym, Size, UrlPath, Written,
};

/// Configuration of cutover.
///
/// Every value may be `${NAME}` (an environment variable), `${NAME:-default}` or `${file:path}`;
/// write `$${` for a literal `${`. Relative paths start at the directory of this file.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "cutover")]
pub(crate) struct File {
    /// Where clients connect. Adding, moving or removing one needs an upgrade or a restart;
    /// certificates reload.
    #[schemars(required, length(min = 1))]
    pub(crate) listeners: Option<List<Listener>>,
    /// The admin API. A change needs an upgrade or a restart.
    #[schemars(extend("default" = {}))]
    pub(crate) admin: Admin,
    /// The state store. A change needs a restart.
    #[schemars(extend("default" = {}))]
    pub(crate) state: State,
    /// Data-plane threads. Default: the number of cores. A change needs an upgrade or a restart.
    #[schemars(range(min = 1, max = 1024))]
    pub(crate) workers: Option<usize>,
    /// How a stop proceeds. A change needs an upgrade or a restart.
    #[schemars(extend("default" = {}))]
    pub(crate) drain: Drain,
    /// Limits and identity at the client's edge.
    #[schemars(extend("default" = {}))]
    pub(crate) edge: Edge,
    /// One line for each request that was answered. Absent: none.
    pub(crate) access_log: Option<AccessLog>,
    /// Named sets of endpoints that answer alike.
    #[schemars(required, extend("minProperties" = 1))]
    pub(crate) backends: Option<BTreeMap<String, Backend>>,
    /// Migrations, each from a legacy backend to a new one.
    #[schemars(extend("default" = {}))]
    pub(crate) splits: BTreeMap<String, Split>,
    /// Which requests go where: the best match wins, ties go to the first.
    #[schemars(required, length(min = 1))]
    pub(crate) routes: Option<List<Route>>,
}

/// A list in which what was reported has left a gap, so that the others keep their numbers.
#[derive(Deserialize)]
#[serde(transparent)]
pub(crate) struct List<T>(Vec<Option<T>>);

impl<T> List<T> {
    /// The sound entries with their index in the file.
    pub(crate) fn numbered(self) -> impl Iterator<Item = (usize, T)> {
        let entries = self.0.into_iter().enumerate();
        entries.filter_map(|(index, entry)| Some((index, entry?)))
    }

    /// The sound entries.
    pub(crate) fn sound(self) -> impl Iterator<Item = T> {
        self.0.into_iter().flatten()
    }

    /// Whether nothing was written, sound or not.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: JsonSchema> JsonSchema for List<T> {
    fn schema_name() -> Cow<'static, str> {
        Vec::<T>::schema_name()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Vec::<T>::json_schema(generator)
    }
}

/// A bound address.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listener {
    /// Where to bind; port 0 lets the system choose.
    #[schemars(required)]
    pub(crate) address: Option<Written<SocketAddr>>,
    /// Absent for plain HTTP.
    pub(crate) tls: Option<ServerTls>,
    /// Whether every connection begins with a header of the PROXY protocol, version 1 or 2, that
    /// tells the client's address. Only peers in `edge.trusted_proxies` may connect then.
    #[schemars(extend("default" = false))]
    pub(crate) proxy_protocol: bool,
}

/// Certificates of a listener.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServerTls {
    /// File with the chain, PEM, leaf first. Shown to clients that ask for no name, or one that no
    /// certificate bears.
    #[schemars(required, length(min = 1))]
    pub(crate) certificate: Option<String>,
    /// File with the private key, PEM.
    #[schemars(required, length(min = 1))]
    pub(crate) key: Option<String>,
    /// Further pairs, shown to clients that ask for a name in them (SNI); a whole name comes before
    /// a wildcard.
    #[schemars(extend("default" = []))]
    pub(crate) certificates: List<CertificatePair>,
    /// How clients prove who they are. Absent: they are not asked.
    pub(crate) client_certificates: Option<ClientCertificates>,
}

/// A further certificate and its key.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CertificatePair {
    /// File with the chain, PEM, leaf first.
    #[schemars(required, length(min = 1))]
    pub(crate) certificate: Option<String>,
    /// File with the private key, PEM.
    #[schemars(required, length(min = 1))]
    pub(crate) key: Option<String>,
}

/// How clients prove who they are (mutual TLS). Who they are is not told to upstreams.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClientCertificates {
    /// File with the PEM roots that sign clients' certificates.
    #[schemars(required, length(min = 1))]
    pub(crate) roots: Option<String>,
    /// Whether a client without a certificate is turned away; a bad one always is.
    #[schemars(extend("default" = true))]
    pub(crate) required: bool,
}

/// The admin API.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Admin {
    /// Its own address; anything but loopback needs a token.
    #[schemars(extend("default" = "127.0.0.1:9900"))]
    pub(crate) address: Written<SocketAddr>,
    /// Who may do what. Empty: anyone who reaches the loopback address may operate.
    #[schemars(extend("default" = []))]
    pub(crate) tokens: List<Token>,
}

/// A bearer token of the admin API.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Token {
    /// Who is acting, for the audit.
    #[schemars(required, length(min = 1))]
    pub(crate) name: Option<String>,
    /// What the bearer may do.
    #[schemars(required)]
    pub(crate) role: Option<Role>,
    /// The secret.
    #[schemars(required, length(min = 1))]
    pub(crate) token: Option<String>,
}

/// What a bearer of a token may do.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// See status, metrics, explanations.
    Read,
    /// Also change shares, roll back, declare an emergency.
    Operate,
}

/// The state store.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    /// Its directory; made if it does not exist.
    #[schemars(length(min = 1), extend("default" = "cutover-state"))]
    pub(crate) directory: String,
}

/// How a stop proceeds: readiness goes down, `delay` passes while serving and every answer over
/// HTTP/1 asks its client to connect anew, then no connections are taken and requests in flight
/// have `deadline` to finish.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Drain {
    /// Time for balancers to notice the readiness change.
    #[schemars(extend("default" = "0s"))]
    pub(crate) delay: Written<Duration>,
    /// Time for requests in flight.
    #[schemars(extend("default" = "30s"))]
    pub(crate) deadline: Written<Duration>,
}

/// One line for each request that was answered.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AccessLog {
    /// A file, appended to and opened anew at SIGUSR1; or `stdout`.
    #[schemars(required, length(min = 1))]
    pub(crate) path: Option<String>,
    /// How a line looks.
    #[schemars(extend("default" = "json"))]
    pub(crate) format: LogFormat,
    /// Lines that may wait for the disk; what comes while it is full is dropped and counted.
    #[schemars(extend("default" = "16MiB"))]
    pub(crate) buffer: Written<Size>,
}

/// How a line of the access log looks.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormat {
    /// One JSON object, with the split and the arm.
    Json,
    /// The Combined Log Format of web servers.
    Combined,
}

/// Limits and identity at the client's edge.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Edge {
    /// Peers whose `X-Forwarded-*` and `X-Request-Id` are believed, and whose `Forwarded` and `X-Real-IP`
    /// are passed on unread; anyone else's are dropped. A proxy that adds `X-Forwarded-For` and lets a
    /// stranger's `Forwarded` pass should be told not to.
    #[schemars(extend("default" = []))]
    pub(crate) trusted_proxies: List<Written<IpNet>>,
    /// Whose W3C trace context (`traceparent`, `tracestate`) reaches the upstream.
    #[schemars(extend("default" = "pass"))]
    pub(crate) trace_context: TraceContext,
    /// Whether answers carry `Server-Timing`: milliseconds of the upstream, and of everything.
    #[schemars(extend("default" = false))]
    pub(crate) server_timing: bool,
    /// Client addresses answered 403, unless `allow` is more specific.
    #[schemars(extend("default" = []))]
    pub(crate) deny: List<Written<IpNet>>,
    /// File with more of them, an address or network on each line, `#` begins a comment; an edit takes
    /// effect at once.
    #[schemars(length(min = 1))]
    pub(crate) deny_file: Option<String>,
    /// When not empty, only these client addresses are served.
    #[schemars(extend("default" = []))]
    pub(crate) allow: List<Written<IpNet>>,
    /// File with more of them, as `deny_file`.
    #[schemars(length(min = 1))]
    pub(crate) allow_file: Option<String>,
    /// Open client connections over all listeners, but no more than the file descriptors bear; more
    /// wait in the kernel.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 10_000))]
    pub(crate) max_connections: usize,
    /// Open connections of one client address (IPv6 by its /64); more are closed at once. Those of
    /// `trusted_proxies` are not counted. Absent: no limit.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) max_connections_per_address: Option<usize>,
    /// Requests after which a client is asked to connect anew. Absent: no limit.
    #[schemars(range(min = 1))]
    pub(crate) max_requests_per_connection: Option<u64>,
    /// Requests in flight; more are answered 503.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 10_000))]
    pub(crate) max_requests: usize,
    /// How long an HTTP/1 client that has closed its side of the connection may go on waiting for its
    /// answer while nothing of it moves. It may as well have left, which looks the same; then this
    /// is how long an upstream works for nobody. 0s: such a client has left.
    #[schemars(extend("default" = "1s"))]
    pub(crate) half_close_grace: Written<Duration>,
    /// How long a client may take to send a request head, idle between two, or take nothing of an
    /// answer.
    #[schemars(extend("default" = "60s"))]
    pub(crate) header_timeout: Written<PositiveDuration>,
    /// How long a TLS handshake may take.
    #[schemars(extend("default" = "10s"))]
    pub(crate) handshake_timeout: Written<PositiveDuration>,
    /// Largest head of a request, its first line included; 431 above it. HTTP/2 counts 32 bytes more
    /// for each field.
    #[schemars(extend("default" = "32KiB"))]
    pub(crate) max_head: Written<HeadSize>,
    /// Most fields in a request's head; 431 above it. More than 100 cost each request on HTTP/1 an
    /// allocation.
    #[schemars(range(min = 1, max = 10_000), extend("default" = 100))]
    pub(crate) max_fields: usize,
    /// Longest target of a request, path and query; 414 above it.
    #[schemars(extend("default" = "16KiB"))]
    pub(crate) max_target: Written<HeadSize>,
    /// The name under which `Via` tells both sides that cutover stands between them. Absent: it is
    /// not told.
    pub(crate) via: Option<Written<Pseudonym>>,
    /// What a client must deliver of a body each second until it is answered, or take of an answer,
    /// on average over 10 s of waiting for it (over more below 7KiB). Too slow a body is answered
    /// 408, too slow a reader is cut; connections that have switched protocols are spared. Absent or
    /// 0B: no such limit.
    pub(crate) min_rate: Option<Written<Size>>,
    /// Requests per client address (IPv6 by its /64), 429 above it. Absent: no limit.
    pub(crate) rate_limit: Option<RateLimit>,
    /// Bytes of a request's body, 413 above it; a route may have a limit of its own. Absent: no limit.
    pub(crate) max_body: Option<Written<Size>>,
}

/// Whose W3C trace context reaches the upstream.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TraceContext {
    /// Anyone's, as it came.
    Pass,
    /// A trusted proxy's, if it is well formed; others are removed.
    Trusted,
    /// As `trusted`; where none is left, a new trace begins, marked as sampled.
    Start,
}

/// A limit on requests keyed by client address.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RateLimit {
    /// Sustained requests per second.
    #[schemars(required, range(min = 1, max = 1_000_000))]
    pub(crate) requests_per_second: Option<u32>,
    /// Requests admitted at once after a pause. Default: those of one second.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) burst: Option<u32>,
    /// Addresses remembered; beyond it, unknown addresses share one allowance.
    #[schemars(range(min = 1, max = 10_000_000), extend("default" = 100_000))]
    pub(crate) max_keys: usize,
}

/// A named set of endpoints that answer alike.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Backend {
    /// `host:port`, host a name or an address. A name is looked up when a connection is opened, and the
    /// answer used for 5 s; connections that are open stay until `pool.max_lifetime`.
    #[schemars(required, length(min = 1))]
    pub(crate) endpoints: Option<List<Written<Endpoint>>>,
    /// Which endpoint takes the next request.
    #[schemars(extend("default" = "least_pending"))]
    pub(crate) balance: Balance,
    /// What the endpoints speak.
    #[schemars(extend("default" = "http1"))]
    pub(crate) protocol: Protocol,
    /// How to verify an upstream that speaks TLS; `{}` verifies with the system's roots. Absent for
    /// plain HTTP.
    pub(crate) tls: Option<ClientTls>,
    /// How long each phase may take.
    #[schemars(extend("default" = {}))]
    pub(crate) timeouts: Timeouts,
    /// Bounds of the connection pool of each endpoint.
    #[schemars(extend("default" = {}))]
    pub(crate) pool: Pool,
    /// Active health checks. Absent: every endpoint is presumed healthy.
    pub(crate) health_check: Option<HealthCheck>,
    /// Passive ejection of failing endpoints; `{}` for the defaults. Absent: off.
    pub(crate) ejection: Option<Ejection>,
}

/// How the next endpoint is chosen among the available ones.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Balance {
    /// The one with the fewest requests in flight, ties in turn.
    LeastPending,
    /// In turn.
    RoundRobin,
}

/// What a backend's endpoints speak.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, which gRPC needs: by prior knowledge, and over TLS by ALPN. An endpoint that speaks
    /// only HTTP/1 fails every attempt.
    Http2,
}

/// How to verify an upstream that speaks TLS.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClientTls {
    /// File with PEM roots. Absent: the system's.
    #[schemars(length(min = 1))]
    pub(crate) roots: Option<String>,
    /// The name verified and sent as SNI. Absent: the endpoint's host.
    #[schemars(length(min = 1))]
    pub(crate) server_name: Option<String>,
}

/// How long each phase of an attempt may take.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Timeouts {
    /// TCP connect and TLS handshake.
    #[schemars(extend("default" = "1s"))]
    pub(crate) connect: Written<PositiveDuration>,
    /// From the request sent to the first byte of the answer. Default: 5s on a split's `new` arm
    /// where a fallback is possible, else 30s.
    pub(crate) first_byte: Option<Written<PositiveDuration>>,
    /// Between two pieces of a body, either way.
    #[schemars(extend("default" = "60s"))]
    pub(crate) body_idle: Written<PositiveDuration>,
    /// A connection that has switched protocols, such as a WebSocket, without a byte in either
    /// direction.
    #[schemars(extend("default" = "1h"))]
    pub(crate) upgrade_idle: Written<PositiveDuration>,
    /// The whole attempt; a connection that switches protocols is through it with the 101. Absent: no
    /// limit.
    pub(crate) total: Option<Written<PositiveDuration>>,
}

/// Bounds of the connection pool of each endpoint.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pool {
    /// Open connections to one endpoint. Over HTTP/1 four times as many requests more wait for one,
    /// for `timeouts.connect`, or 250 ms where `legacy` can answer instead.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 1024))]
    pub(crate) max_connections: usize,
    /// Idle ones kept to one endpoint.
    #[schemars(range(min = 0, max = 1_000_000), extend("default" = 128))]
    pub(crate) max_idle: usize,
    /// Idle ones are closed after this; keep it below the upstream's own.
    #[schemars(extend("default" = "4s"))]
    pub(crate) idle_timeout: Written<PositiveDuration>,
    /// A connection is not reused beyond this age.
    #[schemars(extend("default" = "5m"))]
    pub(crate) max_lifetime: Written<PositiveDuration>,
    /// Connections opened to each endpoint, per worker, before a share above 0 first takes effect.
    #[schemars(range(min = 0, max = 1000), extend("default" = 0))]
    pub(crate) warm: usize,
}

/// Active health checks of each endpoint.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HealthCheck {
    /// Path of a GET that answers 2xx or 3xx when healthy.
    #[schemars(required)]
    pub(crate) path: Option<Written<UrlPath>>,
    /// Time between two checks.
    #[schemars(extend("default" = "2s"))]
    pub(crate) interval: Written<PositiveDuration>,
    /// Time for one check.
    #[schemars(extend("default" = "1s"))]
    pub(crate) timeout: Written<PositiveDuration>,
    /// Consecutive passes that make an endpoint healthy again.
    #[schemars(range(min = 1, max = 1000), extend("default" = 2))]
    pub(crate) healthy_after: u32,
    /// Consecutive failures that make it unhealthy.
    #[schemars(range(min = 1, max = 1000), extend("default" = 3))]
    pub(crate) unhealthy_after: u32,
}

/// An endpoint that keeps failing is left out for a while; never the last one.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ejection {
    /// Consecutive failed attempts (transport or 5xx) that eject.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 5))]
    pub(crate) consecutive_failures: u32,
    /// Time out of rotation, multiplied by the number of ejections in a row, at most ten times.
    #[schemars(extend("default" = "10s"))]
    pub(crate) duration: Written<PositiveDuration>,
}

/// Which requests go where. What is absent matches anything.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Route {
    /// Host without port; `*.example.com` matches any subdomain.
    pub(crate) host: Option<Written<HostPattern>>,
    /// The whole path, byte for byte.
    pub(crate) path: Option<Written<UrlPath>>,
    /// Whole segments: `/api` matches `/api` and `/api/x`, not `/apix`.
    pub(crate) path_prefix: Option<Written<UrlPath>>,
    /// Any of these.
    #[schemars(extend("default" = []))]
    pub(crate) methods: List<Written<Method>>,
    /// All of these, with this value; `"*"` asks only that the header is present.
    #[schemars(extend("default" = {}))]
    pub(crate) headers: BTreeMap<String, String>,
    /// Name of the split that takes the requests. Either this or `backend`.
    #[schemars(length(min = 1))]
    pub(crate) split: Option<String>,
    /// Name of the backend that takes the requests, without a migration.
    #[schemars(length(min = 1))]
    pub(crate) backend: Option<String>,
    /// Whether `new` may be rescued by legacy on this route.
    #[schemars(extend("default" = true))]
    pub(crate) fallback: bool,
    /// Its name in metrics. Default: its place, such as `routes[2]`.
    #[schemars(length(min = 1))]
    pub(crate) name: Option<String>,
    /// Requests in flight on this route, 503 above it. Absent: no limit but the edge's.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) max_requests: Option<usize>,
    /// Bytes of a request's body, 413 above it; may be more than the edge's. Default: the edge's.
    pub(crate) max_body: Option<Written<Size>>,
    /// Requests of each key, 429 above it. Absent: no limit but the edge's.
    pub(crate) rate_limit: Option<KeyedLimit>,
}
