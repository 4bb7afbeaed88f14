//! A split as written: the migration, its key, its fallback, its criteria.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderName;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error as _};

use super::criteria::{Advance, Analysis, Rollback};
use super::rollout::{Rollout, Stage};
use super::{List, Signal};
use crate::config::notation::{
    CookieAge, CookieName, HostPattern, PositiveDuration, Size, UrlPath, Written,
};
use crate::policy::arm::Arm;
use crate::policy::share::Share;

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
    /// The part of keys that goes to `new`. Absent: `stages`, or else `cutover set` alone decides,
    /// from 0%.
    pub(crate) share: Option<Written<Share>>,
    /// The shares through which the engine moves the split by itself, each once the one before it
    /// has proven to be sound: `[0%, 10%, 30%, 50%, 80%, 100%]`. Instead of `share`.
    #[schemars(length(min = 1))]
    pub(crate) stages: Option<List<Stage>>,
    /// Numbers that criteria may name, by their names; at most 32.
    #[schemars(extend("default" = {}))]
    pub(crate) signals: BTreeMap<String, Signal>,
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
    /// How long an answer of `new` that is still streaming may go on after a rollback or an
    /// emergency; then it is closed.
    #[schemars(extend("default" = "30s"))]
    pub(crate) stream_grace: Written<Duration>,
    /// Whether answers carry `Cutover-Arm` and `Cutover-Fallback`.
    #[schemars(extend("default" = false))]
    pub(crate) response_headers: bool,
    /// The attempt at this migration, and what holds for all of its stages.
    #[schemars(extend("default" = {}))]
    pub(crate) rollout: Rollout,
    /// ALL of these must be proven before a stage is left for a larger share: `error_rate < 1%`,
    /// `p95 < 200ms`, `error_rate not worse than legacy by 0.5pp` (percentage points). One that is
    /// written replaces the default of its metric and kind. Defaults: `error_rate < 1%`,
    /// `p95 < 200ms`, and neither errors nor client errors half a point more frequent than
    /// legacy's. Without `stages` they are judged and move nothing. `off` leaves none.
    #[schemars(extend("default" = []))]
    pub(crate) advance: Advance,
    /// ANY of these rolls back: `error_rate > 5%`, `availability < 99%`, `p95 > 500ms` (p50, p90,
    /// p95, p99), `total_p95 > 2s` for the whole answer, where a stream that is still running then
    /// is too slow, or, against legacy over the same seconds, `error_rate worse than legacy by
    /// 25%`. After it `for 30s` waits that long, and `then hold` or `then notify` does only that. One
    /// that is written replaces the default of its metric and kind. Defaults: `error_rate > 5%`,
    /// `p95 > 500ms`, and errors or client errors a quarter more frequent than legacy's. `off`
    /// leaves none.
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
    /// Replays of requests that were sent, as a part of the last 10 s of requests. What fails beyond it
    /// the client sees: with `rollback: off`, a `new` that answers all its requests with errors is
    /// rescued up to here only.
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
    /// Key to arm. A client's address stands for its session key: IPv6 for its /64.
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
