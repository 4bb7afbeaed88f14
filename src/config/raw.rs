//! What was written: the file's shape, its documentation and its defaults.
//!
//! The schema is made from these structures, and the check holds a file against that schema before
//! anything is read into them: a value that is wrong is reported and left out. So what a file must
//! have is an `Option` marked `required`, absent only where that has been reported; and what has a
//! default states it in the schema, from where the check fills it in. No default is anywhere else.
//!
//! None of these types is `Debug`: they hold secrets.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderName, Method};
use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error as _};

use super::notation::{
    CookieAge, CookieName, Endpoint, HostPattern, PositiveDuration, Size, UrlPath, Written,
};
use crate::policy::arm::Arm;
use crate::policy::criteria::{Criterion, WhenLegacyToo};
use crate::policy::share::Share;

/// Configuration of cutover.
///
/// Every value may be `${NAME}` (an environment variable), `${NAME:-default}` or `${file:path}`;
/// write `$${` for a literal `${`. Relative paths start at the directory of this file.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "cutover")]
pub(crate) struct File {
    /// Where clients connect. Adding, moving or removing one needs a restart; certificates reload.
    #[schemars(required, length(min = 1))]
    pub(crate) listeners: Option<List<Listener>>,
    /// The admin API. A change needs a restart.
    #[schemars(extend("default" = {}))]
    pub(crate) admin: Admin,
    /// The state store. A change needs a restart.
    #[schemars(extend("default" = {}))]
    pub(crate) state: State,
    /// Data-plane threads. Default: the number of cores. A change needs a restart.
    #[schemars(range(min = 1, max = 1024))]
    pub(crate) workers: Option<usize>,
    /// How a stop proceeds. A change needs a restart.
    #[schemars(extend("default" = {}))]
    pub(crate) drain: Drain,
    /// Limits and identity at the client's edge.
    #[schemars(extend("default" = {}))]
    pub(crate) edge: Edge,
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
}

/// Certificate and key of a listener.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServerTls {
    /// File with the chain, PEM, leaf first.
    #[schemars(required, length(min = 1))]
    pub(crate) certificate: Option<String>,
    /// File with the private key, PEM.
    #[schemars(required, length(min = 1))]
    pub(crate) key: Option<String>,
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

/// How a stop proceeds: readiness goes down, `delay` passes while serving, then no connections are
/// taken and requests in flight have `deadline` to finish.
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

/// Limits and identity at the client's edge.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Edge {
    /// Peers whose `X-Forwarded-*` and `X-Request-Id` are believed.
    #[schemars(extend("default" = []))]
    pub(crate) trusted_proxies: List<Written<IpNet>>,
    /// Client addresses answered 403, unless `allow` is more specific.
    #[schemars(extend("default" = []))]
    pub(crate) deny: List<Written<IpNet>>,
    /// When not empty, only these client addresses are served.
    #[schemars(extend("default" = []))]
    pub(crate) allow: List<Written<IpNet>>,
    /// Open client connections over all listeners; more wait in the kernel.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 10_000))]
    pub(crate) max_connections: usize,
    /// Requests in flight; more are answered 503.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 10_000))]
    pub(crate) max_requests: usize,
    /// How long a client may take to send a request head, or idle between two.
    #[schemars(extend("default" = "60s"))]
    pub(crate) header_timeout: Written<PositiveDuration>,
    /// Requests per client address (IPv6 by its /64), 429 above it. Absent: no limit.
    pub(crate) rate_limit: Option<RateLimit>,
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
    /// `host:port`, host a name or an address.
    #[schemars(required, length(min = 1))]
    pub(crate) endpoints: Option<List<Written<Endpoint>>>,
    /// Which endpoint takes the next request.
    #[schemars(extend("default" = "least_pending"))]
    pub(crate) balance: Balance,
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
    /// The whole attempt. Absent: no limit.
    pub(crate) total: Option<Written<PositiveDuration>>,
}

/// Bounds of the connection pool of each endpoint.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pool {
    /// Open connections to one endpoint.
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

/// One migration.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Split {
    /// Name of the backend that is being replaced.
    #[schemars(required, length(min = 1))]
    pub(crate) legacy: Option<String>,
    /// Name of the backend on trial.
    #[schemars(required, length(min = 1))]
    pub(crate) new: Option<String>,
    /// Where the session key is looked for; the first present wins.
    #[schemars(length(min = 1), extend("default" = ["client_ip"]))]
    pub(crate) key: List<KeySource>,
    /// What happens to requests without any.
    #[schemars(extend("default" = "client_ip"))]
    pub(crate) keyless: Keyless,
    /// Seeds the hash; splits with the same salt assign alike. Default: the split's name.
    #[schemars(length(min = 1))]
    pub(crate) salt: Option<String>,
    /// The part of keys that goes to `new`. Absent: `cutover set` alone decides, from 0%.
    pub(crate) share: Option<Written<Share>>,
    /// Whether both arms work on one data, key and session store.
    #[schemars(extend("default" = false))]
    pub(crate) shared_state: bool,
    /// What happens when `new` fails.
    #[schemars(extend("default" = {}))]
    pub(crate) fallback: Fallback,
    /// Keys whose arm is fixed whatever the share.
    #[schemars(extend("default" = {}))]
    pub(crate) pins: Pins,
    /// Verifies the tokens of `cutover pin`; at least 32 bytes. Absent: tokens are ignored.
    pub(crate) pin_secret: Option<String>,
    /// Whether answers carry `Cutover-Arm` and `Cutover-Fallback`.
    #[schemars(extend("default" = false))]
    pub(crate) response_headers: bool,
    /// The attempt at this migration.
    #[schemars(extend("default" = {}))]
    pub(crate) rollout: Rollout,
    /// ANY of these rolls back: `error_rate > 5%`, `p95 > 500ms` (p50, p90, p95, p99). One that is
    /// written replaces the default of its metric. Defaults: `error_rate > 5%`, `p95 > 500ms`.
    /// `off` leaves none.
    #[schemars(extend("default" = []))]
    pub(crate) rollback: Rollback,
    /// How the criteria are judged.
    #[schemars(extend("default" = {}))]
    pub(crate) analysis: Analysis,
}

/// One place where a session key may be.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum KeySource {
    /// The client's address, IPv6 by its /64.
    ClientIp,
    /// A cookie's value.
    Cookie(Written<CookieName>),
    /// A header's value.
    Header(Written<HeaderName>),
    /// A query parameter's value, as received (not decoded).
    Query(QueryName),
    /// A claim of a verified JSON Web Token.
    Jwt(Jwt),
}

/// Name of a query parameter.
#[derive(Deserialize)]
pub(crate) struct QueryName(pub(crate) String);

impl JsonSchema for QueryName {
    fn schema_name() -> Cow<'static, str> {
        "QueryName".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1 })
    }
}

/// A claim of a token, and how the token is verified.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Jwt {
    /// Name of a claim that is a string or a decimal integer.
    #[schemars(required, length(min = 1))]
    pub(crate) claim: Option<String>,
    /// How signatures are verified.
    #[schemars(required)]
    pub(crate) algorithm: Option<Algorithm>,
    /// The shared secret of HS256.
    #[schemars(length(min = 1))]
    pub(crate) secret: Option<String>,
    /// The public key of RS256 or ES256, PEM; usually `${file:key.pem}`.
    #[schemars(length(min = 1))]
    pub(crate) public_key: Option<String>,
    /// The header that carries the token, after `Bearer ` if that is there.
    #[schemars(extend("default" = "Authorization"))]
    pub(crate) header: Written<HeaderName>,
    /// Required `iss`, if any.
    #[schemars(length(min = 1))]
    pub(crate) issuer: Option<String>,
    /// Required `aud`, if any.
    #[schemars(length(min = 1))]
    pub(crate) audience: Option<String>,
}

/// Signature algorithms.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Algorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// RSA PKCS #1 v1.5 with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
}

/// What happens to a request that carries no session key.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Keyless {
    /// The client's address is its key.
    ClientIp,
    /// Always legacy; such requests are no evidence about either arm.
    Legacy,
    /// A random cookie is issued and is its key from now on; `{}` for the defaults.
    IssueCookie(IssueCookie),
}

/// Attributes of an issued cookie. It is always `HttpOnly`, and `Secure` on TLS.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct IssueCookie {
    /// Its name.
    #[schemars(extend("default" = "cutover"))]
    pub(crate) name: Written<CookieName>,
    /// Its `Path`.
    #[schemars(extend("default" = "/"))]
    pub(crate) path: Written<UrlPath>,
    /// Its `Domain`. Absent: the host alone.
    pub(crate) domain: Option<Written<HostPattern>>,
    /// Its `Max-Age`; `session` lets it end with the browser.
    #[schemars(extend("default" = "365d"))]
    pub(crate) max_age: Written<CookieAge>,
    /// Its `SameSite`.
    #[schemars(extend("default" = "Lax"))]
    pub(crate) same_site: SameSite,
}

/// `SameSite` of a cookie.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
pub(crate) enum SameSite {
    /// Sent with top-level navigation from elsewhere.
    Lax,
    /// Never sent from elsewhere.
    Strict,
    /// Always sent; browsers ask for TLS.
    None,
}

/// What happens when `new` fails.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fallback {
    /// Whether legacy answers when `new` fails.
    #[schemars(extend("default" = true))]
    pub(crate) enabled: bool,
    /// Answers of `new` that count as a failure worth replaying.
    #[schemars(inner(range(min = 400, max = 599)), extend("default" = [500, 502, 503, 504]))]
    pub(crate) statuses: List<u16>,
    /// How much of a request's body is kept for a replay; larger ones have no fallback.
    #[schemars(extend("default" = "64KiB"))]
    pub(crate) body_limit: Written<Size>,
    /// Replays of requests that were sent, as a part of the last 10 s of requests.
    #[schemars(extend("default" = "20%"))]
    pub(crate) budget: Written<Share>,
    /// Replays per second that are always allowed on top.
    #[schemars(range(min = 0, max = 1_000_000), extend("default" = 10))]
    pub(crate) budget_floor: u32,
    /// Diverts `new`'s keys to legacy while it is failing; `false` turns it off.
    #[schemars(extend("default" = {}))]
    pub(crate) breaker: BreakerOrFalse,
}

/// A breaker, or `false`.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum BreakerOrFalse {
    /// On.
    On(Breaker),
    /// Off.
    Off(False),
}

/// The word `false`.
pub(crate) struct False;

impl<'de> Deserialize<'de> for False {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if bool::deserialize(deserializer)? {
            return Err(D::Error::custom("only `false` stands for a breaker"));
        }
        Ok(False)
    }
}

impl JsonSchema for False {
    fn schema_name() -> Cow<'static, str> {
        "False".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "const": false })
    }
}

/// When the breaker opens and how it probes.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Breaker {
    /// Consecutive transport failures that open it.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 5))]
    pub(crate) consecutive_failures: u32,
    /// Time until one request probes.
    #[schemars(extend("default" = "1s"))]
    pub(crate) open_for: Written<PositiveDuration>,
}

/// Keys whose arm is fixed.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pins {
    /// Key to arm.
    #[schemars(extend("default" = {}))]
    pub(crate) keys: BTreeMap<String, PinnedArm>,
    /// File with a key and its arm on each line, such as `alice new`; `#` begins a comment line.
    #[schemars(length(min = 1))]
    pub(crate) file: Option<String>,
}

/// One of the two arms.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PinnedArm {
    /// The API that is being replaced.
    Legacy,
    /// The replacement.
    New,
}

impl From<PinnedArm> for Arm {
    fn from(arm: PinnedArm) -> Arm {
        match arm {
            PinnedArm::Legacy => Arm::Legacy,
            PinnedArm::New => Arm::New,
        }
    }
}

/// The attempt at a migration.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rollout {
    /// A new value clears the latch of a rollback.
    #[schemars(length(min = 1), extend("default" = "1"))]
    pub(crate) id: String,
}

/// Criteria, or `off`.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Rollback {
    /// These replace the defaults of their metrics.
    Criteria(List<Written<Criterion>>),
    /// None at all.
    Off(Off),
}

/// The word `off`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Off {
    /// Nothing rolls back, save the consecutive failures of `analysis.hard_fail`.
    Off,
}

/// How the criteria are judged.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Analysis {
    /// False-rollback budget per 24 h and split, over all criteria together.
    #[schemars(extend("default" = 0.01, "exclusiveMinimum" = 0, "exclusiveMaximum" = 0.5))]
    pub(crate) alpha: f64,
    /// Errors of `new` needed since the suspected start.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 3))]
    pub(crate) min_events: u64,
    /// Distinct groups of sessions (of 64) among those errors.
    #[schemars(range(min = 1, max = 64), extend("default" = 3))]
    pub(crate) min_bad_clusters: u32,
    /// The largest part of those errors that one group may supply.
    #[schemars(extend("default" = 0.5, "exclusiveMinimum" = 0, "maximum" = 1))]
    pub(crate) max_cluster_share: f64,
    /// Requests of `new` needed before a latency criterion may roll back.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 20))]
    pub(crate) min_latency_samples: u64,
    /// Consecutive failed or diverted requests that roll back at once.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 10))]
    pub(crate) hard_fail: u64,
    /// How correlated the requests of a session are: `auto` estimates it on legacy; or a number of
    /// at least 1.
    #[schemars(extend("default" = "auto"))]
    pub(crate) overdispersion: OverdispersionOrAuto,
    /// What happens when legacy breaches the same limit in the same seconds.
    #[schemars(extend("default" = "hold"))]
    pub(crate) when_legacy_too: LegacyToo,
}

/// A factor, or `auto`.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum OverdispersionOrAuto {
    /// Estimated.
    Auto(Auto),
    /// Given.
    Fixed(#[schemars(range(min = 1.0, max = 1000.0))] f64),
}

/// The word `auto`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Auto {
    /// Estimated on legacy's groups of sessions.
    Auto,
}

/// What an absolute breach of `new` means while legacy breaches the same limit.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LegacyToo {
    /// Hold and notify: moving everyone to an equally sick arm helps nobody.
    Hold,
    /// Roll back all the same.
    Rollback,
}

impl From<LegacyToo> for WhenLegacyToo {
    fn from(value: LegacyToo) -> WhenLegacyToo {
        match value {
            LegacyToo::Hold => WhenLegacyToo::Hold,
            LegacyToo::Rollback => WhenLegacyToo::Rollback,
        }
    }
}

/// Which requests go where. What is absent matches anything.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Route {
    /// Label of its metrics. Default: its match written out.
    #[schemars(length(min = 1))]
    pub(crate) name: Option<String>,
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
}
