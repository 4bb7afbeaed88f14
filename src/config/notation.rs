//! Scalars that are written as text and mean something: durations, shares, addresses.
//!
//! Each has one name, the `format` in the schema; by it the check finds the parser, so what the
//! schema claims and what the program accepts are one thing.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use http::{HeaderName, Method};
use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::policy::addresses;
use crate::policy::calendar::WeeklyWindow;
use crate::policy::criteria::{Criterion, Requirement};
use crate::policy::duration;
use crate::policy::share::Share;
use crate::policy::signal::{SignalCriterion, SignalRequirement};

/// A kind of value that is written as text.
pub(crate) trait Notation: Sized {
    /// Its name in the schema, and in problems: "is no ...".
    const FORMAT: &'static str;
    /// What to write instead, with an example; a clause after "write".
    const ADVICE: &'static str;
    /// A pattern for editors, which know nothing of our formats; never stricter than `read`.
    const PATTERN: &'static str;

    /// What the text means.
    fn read(text: &str) -> Option<Self>;
}

/// The parser behind a `format` of the schema.
pub(crate) struct Reader {
    pub(crate) format: &'static str,
    pub(crate) advice: &'static str,
    pub(crate) accepts: fn(&str) -> bool,
}

/// The reader of a `format`.
pub(crate) fn reader(format: &str) -> Option<Reader> {
    fn of<T: Notation>() -> Reader {
        Reader {
            format: T::FORMAT,
            advice: T::ADVICE,
            accepts: |text| T::read(text).is_some(),
        }
    }
    [
        of::<Duration>(),
        of::<PositiveDuration>(),
        of::<HeadSize>(),
        of::<Pseudonym>(),
        of::<CookieAge>(),
        of::<Share>(),
        of::<Size>(),
        of::<RollbackSentence>(),
        of::<AdvanceSentence>(),
        of::<WeeklyWindow>(),
        of::<SocketAddr>(),
        of::<IpNet>(),
        of::<Endpoint>(),
        of::<UrlPath>(),
        of::<HttpUrl>(),
        of::<JsonPointer>(),
        of::<HeaderName>(),
        of::<Method>(),
        of::<HostPattern>(),
        of::<CookieName>(),
    ]
    .into_iter()
    .find(|reader| reader.format == format)
}

/// A value in its written form.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Written<T>(pub(crate) T);

impl<'de, T: Notation> Deserialize<'de> for Written<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        T::read(&text)
            .map(Written)
            .ok_or_else(|| D::Error::custom(T::ADVICE))
    }
}

impl<T: Notation> JsonSchema for Written<T> {
    fn schema_name() -> Cow<'static, str> {
        T::FORMAT.into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": T::FORMAT, "pattern": T::PATTERN })
    }
}

/// A size that a request's head may have: below, programs break; above, it is no head.
pub(crate) struct HeadSize(pub(crate) usize);

/// What an intermediary calls itself in `Via`: a token, or a host and a port.
pub(crate) struct Pseudonym(pub(crate) String);

/// A duration that is not zero: a timeout of nothing would fail everything at once.
pub(crate) struct PositiveDuration(pub(crate) Duration);

/// How long a cookie lives; absent: until the browser closes.
pub(crate) struct CookieAge(pub(crate) Option<Duration>);

/// A number of bytes.
pub(crate) struct Size(pub(crate) usize);

/// `host:port`.
pub(crate) struct Endpoint(pub(crate) String);

/// A path that begins with a slash.
pub(crate) struct UrlPath(pub(crate) String);

/// The address of something that answers a GET, without a user's name.
pub(crate) struct HttpUrl {
    pub(crate) is_secure: bool,
    /// `host:port`.
    pub(crate) endpoint: String,
    /// As written, without the port where that is the scheme's.
    pub(crate) host: String,
    /// Path and query.
    pub(crate) path: String,
}

/// A place in a JSON document (RFC 6901).
pub(crate) struct JsonPointer(pub(crate) String);

/// Harm, on a metric or on a signal.
pub(crate) enum RollbackSentence {
    Metric(Criterion),
    Signal(SignalCriterion),
}

/// What an advance needs, of a metric or of a signal.
pub(crate) enum AdvanceSentence {
    Metric(Requirement),
    Signal(SignalRequirement),
}

/// A host name, in lower case, perhaps with `*.` in front.
pub(crate) struct HostPattern(pub(crate) String);

/// A token in the sense of RFC 6265.
pub(crate) struct CookieName(pub(crate) String);

const DURATION_PATTERN: &str = r"^\s*\d+(\.\d{1,6})?\s*(us|ms|s|m|h|d)\s*$|\$\{";

impl Notation for Duration {
    const FORMAT: &'static str = "length of time";
    const ADVICE: &'static str = "a number with a unit (us, ms, s, m, h, d), such as `500ms`, `2s`";
    const PATTERN: &'static str = DURATION_PATTERN;

    fn read(text: &str) -> Option<Self> {
        duration::parse(text).ok()
    }
}

impl Notation for PositiveDuration {
    const FORMAT: &'static str = "positive length of time";
    const ADVICE: &'static str =
        "a number above 0 with a unit (us, ms, s, m, h, d), such as `500ms`, `2s`";
    const PATTERN: &'static str = DURATION_PATTERN;

    fn read(text: &str) -> Option<Self> {
        let duration = Duration::read(text)?;
        (!duration.is_zero()).then_some(PositiveDuration(duration))
    }
}

impl Notation for CookieAge {
    const FORMAT: &'static str = "cookie age";
    const ADVICE: &'static str = "a duration such as `365d`, or `session`";
    const PATTERN: &'static str = r"^\s*\d+(\.\d{1,6})?\s*(us|ms|s|m|h|d)\s*$|^session$|\$\{";

    fn read(text: &str) -> Option<Self> {
        if text == "session" {
            return Some(CookieAge(None));
        }
        // The attribute is in whole seconds, and 0 would delete the cookie at once.
        let age = Duration::read(text).filter(|age| age.as_secs() > 0)?;
        Some(CookieAge(Some(age)))
    }
}

impl Notation for Share {
    const FORMAT: &'static str = "percentage";
    const ADVICE: &'static str = "0% to 100% with at most two decimals, such as `12.5%`";
    const PATTERN: &'static str = r"^\s*\d{1,3}(\.\d{1,2})?\s*%\s*$|\$\{";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Notation for Size {
    const FORMAT: &'static str = "size";
    const ADVICE: &'static str = "a whole number with a unit (B, KiB, MiB, GiB), such as `64KiB`";
    const PATTERN: &'static str = r"^\s*\d+\s*(B|KiB|MiB|GiB)\s*$|\$\{";

    fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        let unit_start = text.find(|c: char| c.is_ascii_alphabetic())?;
        let (number, unit) = text.split_at(unit_start);
        let factor: usize = match unit {
            "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return None,
        };
        // `usize::from_str` would take a sign.
        let number = number.trim_end();
        number
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| number.parse::<usize>().ok()?.checked_mul(factor))?
            .map(Size)
    }
}

impl Notation for HeadSize {
    const FORMAT: &'static str = "size of a head";
    const ADVICE: &'static str = "a size from 1KiB to 256KiB, such as `64KiB`";
    const PATTERN: &'static str = Size::PATTERN;

    fn read(text: &str) -> Option<Self> {
        let Size(size) = Size::read(text)?;
        (1 << 10..=256 << 10).contains(&size).then_some(Self(size))
    }
}

impl Notation for Pseudonym {
    const FORMAT: &'static str = "pseudonym";
    const ADVICE: &'static str = "a name without spaces such as `cutover`, or `host:port`";
    const PATTERN: &'static str = r"^[A-Za-z0-9._:-]+$|\$\{";

    fn read(text: &str) -> Option<Self> {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
        let is_name = !text.is_empty() && text.len() <= 255 && text.bytes().all(is_part);
        is_name.then(|| Self(text.to_owned()))
    }
}

impl Notation for RollbackSentence {
    const FORMAT: &'static str = "criterion of a rollback";
    const ADVICE: &'static str = "a sentence such as `error_rate > 5%`, `availability < 99%`, `p95 > 500ms` (p50, p90, \
         p95, p99, or total_p95 for the whole answer), `error_rate worse than legacy by 25%` or, on a signal, `lag > 5`, with `for 30s` and `then hold` or \
         `then notify` after it if wanted; limits of metrics and margins are above 0";
    const PATTERN: &'static str = r"^\s*[a-z_][a-z0-9_]*\s*([<>]| worse than legacy by )|\$\{";

    fn read(text: &str) -> Option<Self> {
        let metric = text.parse().map(RollbackSentence::Metric).ok();
        metric.or_else(|| text.parse().map(RollbackSentence::Signal).ok())
    }
}

impl Notation for AdvanceSentence {
    const FORMAT: &'static str = "criterion of an advance";
    const ADVICE: &'static str = "a sentence such as `error_rate < 1%`, `availability > 99.9%`, `p95 < 200ms` (p50, p90, \
         p95, p99, or total_p95 for the whole answer), `error_rate not worse than legacy by 0.5pp` or, on a signal, `lag < 5`; limits of metrics and margins are above 0";
    const PATTERN: &'static str = r"^\s*[a-z_][a-z0-9_]*\s*([<>]| not worse than legacy by )|\$\{";

    fn read(text: &str) -> Option<Self> {
        let metric = text.parse().map(AdvanceSentence::Metric).ok();
        metric.or_else(|| text.parse().map(AdvanceSentence::Signal).ok())
    }
}

impl Notation for WeeklyWindow {
    const FORMAT: &'static str = "weekly window";
    const ADVICE: &'static str = "days and times of day, such as `Mon-Fri 09:00-17:00`, `Sat` or \
         `Fri 22:00-02:00` (until the next morning); one that ends when it begins never opens";
    const PATTERN: &'static str =
        r"^\s*[A-Za-z]{3,9}([,-][A-Za-z]{3,9})*(\s+\d{1,2}:\d{2}\s*-\s*\d{1,2}:\d{2})?\s*$|\$\{";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Notation for SocketAddr {
    const FORMAT: &'static str = "listen address";
    const ADVICE: &'static str =
        "an IP address with a port, such as `127.0.0.1:8080`, `0.0.0.0:8080` or `[::]:8080`";
    const PATTERN: &'static str = r"^[0-9a-fA-F.:%\[\]]+:\d+$|\$\{";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Notation for IpNet {
    const FORMAT: &'static str = "network";
    const ADVICE: &'static str = "an address or a network, such as `192.0.2.7` or `10.0.0.0/8`";
    const PATTERN: &'static str = r"^[0-9a-fA-F.:]+(/\d{1,3})?$|\$\{";

    fn read(text: &str) -> Option<Self> {
        addresses::network(text)
    }
}

impl Notation for Endpoint {
    const FORMAT: &'static str = "endpoint";
    const ADVICE: &'static str =
        "`host:port` without a scheme, such as `api.internal:8080` or `[::1]:8080`";
    const PATTERN: &'static str = r"^[^\s/@]+:\d+$|\$\{";

    fn read(text: &str) -> Option<Self> {
        let authority: http::uri::Authority = text.parse().ok()?;
        let host = authority.host();
        let port = authority.port_u16()?;
        let is_address = host.starts_with('[') && SocketAddr::from_str(text).is_ok()
            || host.parse::<std::net::Ipv4Addr>().is_ok();
        // The authority may carry user information, which an endpoint has no use for.
        let valid = port > 0 && !text.contains('@') && (is_address || is_host_name(host));
        valid.then(|| Endpoint(text.to_owned()))
    }
}

impl Notation for UrlPath {
    const FORMAT: &'static str = "path";
    const ADVICE: &'static str =
        "a path that begins with `/` and has no query, such as `/api`; percent-encode the rest";
    const PATTERN: &'static str = r"^/[^\s?#]*$|\$\{";

    fn read(text: &str) -> Option<Self> {
        let printable = text
            .bytes()
            .all(|b| b.is_ascii_graphic() && b != b'?' && b != b'#');
        (text.starts_with('/') && printable).then(|| UrlPath(text.to_owned()))
    }
}

impl Notation for HttpUrl {
    const FORMAT: &'static str = "web address";
    const ADVICE: &'static str = "an address with `http://` or `https://` and without a user's name, such as \
         `http://127.0.0.1:9090`";
    const PATTERN: &'static str = r"^https?://[^\s@#]+$|\$\{";

    fn read(text: &str) -> Option<Self> {
        if text.contains('#') || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        let uri: http::Uri = text.parse().ok()?;
        let (is_secure, usual_port) = match uri.scheme_str()? {
            "http" => (false, 80),
            "https" => (true, 443),
            _ => return None,
        };
        let authority = uri.authority()?;
        let name = authority.host();
        let port = match authority.as_str().strip_prefix(name)? {
            "" => None,
            // One beyond 65535 is none to the library, and would be taken for the usual one.
            _ => Some(authority.port_u16()?),
        };
        let Endpoint(endpoint) = Endpoint::read(&format!("{name}:{}", port.unwrap_or(usual_port)))?;
        let host = match port.filter(|port| *port != usual_port) {
            Some(_) => endpoint.clone(),
            None => name.to_owned(),
        };
        Some(HttpUrl {
            is_secure,
            endpoint,
            host,
            path: uri
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .to_owned(),
        })
    }
}

impl Notation for JsonPointer {
    const FORMAT: &'static str = "JSON pointer";
    const ADVICE: &'static str =
        "the keys that lead to the number, each after a `/`, such as `/lag/seconds` (RFC 6901)";
    const PATTERN: &'static str = r"^(/.*)?$|\$\{";

    fn read(text: &str) -> Option<Self> {
        let starts = text.is_empty() || text.starts_with('/');
        // `~` only stands in `~0` and `~1`.
        let mut escapes = text.split('~').skip(1);
        let is_escaped = escapes.all(|rest| rest.starts_with(['0', '1']));
        (starts && is_escaped).then(|| JsonPointer(text.to_owned()))
    }
}

impl Notation for HeaderName {
    const FORMAT: &'static str = "header name";
    const ADVICE: &'static str =
        "a header's name in letters, digits and hyphens, such as `X-User-Id`";
    const PATTERN: &'static str = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$|\$\{";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Notation for Method {
    const FORMAT: &'static str = "method";
    const ADVICE: &'static str = "a method in capitals, such as `GET`";
    const PATTERN: &'static str = r"^[A-Z][A-Z0-9_-]*$|\$\{";

    fn read(text: &str) -> Option<Self> {
        // Methods are case-sensitive: `get` would be another method, which nobody sends.
        if text.bytes().any(|b| b.is_ascii_lowercase()) {
            return None;
        }
        text.parse().ok()
    }
}

impl Notation for HostPattern {
    const FORMAT: &'static str = "host";
    const ADVICE: &'static str =
        "a host name without port, such as `api.example.com` or `*.example.com`";
    const PATTERN: &'static str = r"^(\*\.)?[0-9A-Za-z._-]+$|^\[[0-9a-fA-F:.]+\]$|\$\{";

    fn read(text: &str) -> Option<Self> {
        let name = text.strip_prefix("*.").unwrap_or(text);
        let bracketed = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let is_address = bracketed.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok());
        (is_address || is_host_name(name)).then(|| HostPattern(text.to_ascii_lowercase()))
    }
}

impl Notation for CookieName {
    const FORMAT: &'static str = "cookie name";
    const ADVICE: &'static str = "a cookie's name without spaces or any of `()<>@,;:\\\"/[]?={}`";
    const PATTERN: &'static str = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$|\$\{";

    fn read(text: &str) -> Option<Self> {
        // A header's name and a cookie's are the same kind of token.
        let is_token = HeaderName::from_str(text).is_ok();
        is_token.then(|| CookieName(text.to_owned()))
    }
}

/// Labels of letters, digits, hyphens and underscores (which DNS allows and clusters use).
fn is_host_name(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_notation_accepts_its_own_and_refuses_its_neighbours() {
        let cases: [(&str, &[&str], &[&str]); 20] = [
            ("length of time", &["0s", "1.5s"], &["5", "no", ""]),
            ("positive length of time", &["1ms"], &["0s", "5"]),
            (
                "cookie age",
                &["365d", "session"],
                &["0s", "100ms", "never"],
            ),
            ("percentage", &["0%", "12.5%"], &["10", "0.1", "101%"]),
            (
                "size",
                &["64KiB", "0B", "1 MiB"],
                &["64", "64KB", "-1B", "KiB", "99999999999GiB"],
            ),
            ("size of a head", &["1KiB", "256KiB"], &["1023B", "257KiB"]),
            (
                "pseudonym",
                &["cutover", "a.example:80"],
                &["", "a b", "a,b"],
            ),
            (
                "criterion of a rollback",
                &[
                    "p95 > 1s",
                    "error_rate worse than legacy by 25% for 30s then hold",
                ],
                &["p95 < 1s", "error_rate worse than legacy by 0%"],
            ),
            (
                "criterion of an advance",
                &["p95 < 1s", "error_rate not worse than legacy by 0.5pp"],
                &["p95 > 1s", "p95 not worse than legacy by 1pp"],
            ),
            (
                "weekly window",
                &["Mon-Fri 09:00-17:00", "Sat"],
                &["Mon 09:00-09:00", "9-17"],
            ),
            (
                "listen address",
                &["127.0.0.1:80", "[::]:0"],
                &[":80", "localhost:80", "1.2.3.4"],
            ),
            (
                "network",
                &["10.0.0.0/8", "10.0.0.1", "::1", "2001:db8::/32"],
                &["10.0.0.0/33", "x"],
            ),
            (
                "endpoint",
                &[
                    "api.internal:80",
                    "127.0.0.1:9001",
                    "[::1]:80",
                    "my_service:80",
                ],
                &[
                    "http://x:80",
                    "x",
                    "x:0",
                    "x:99999",
                    "a@b:80",
                    "x:80/path",
                    ":80",
                    "[x]:80",
                ],
            ),
            ("path", &["/", "/a%20b"], &["a", "/a b", "/a?b", "/ä", ""]),
            (
                "web address",
                &[
                    "http://127.0.0.1:9090",
                    "https://metrics.internal/prometheus",
                    "http://[::1]:80/x?y=z",
                ],
                &[
                    "127.0.0.1:9090",
                    "ftp://x",
                    "http://",
                    "http://a@b",
                    "http://x:0",
                    "http://x:99999",
                    "http://x/#y",
                    "http://x/a b",
                    "/health",
                ],
            ),
            (
                "JSON pointer",
                &["", "/", "/lag/seconds", "/a~1b/0"],
                &["lag", "/a~b", "/~"],
            ),
            ("header name", &["X-User-Id"], &["X User", "", "X:"]),
            ("method", &["GET", "M-SEARCH"], &["get", "G T", ""]),
            (
                "host",
                &["api.example.com", "*.Example.com", "[::1]"],
                &["a:80", "*", "a..b", "*.*.a"],
            ),
            ("cookie name", &["session"], &["a b", "a;b", "a=b", ""]),
        ];
        for (format, accepted, refused) in cases {
            let reader = reader(format).expect(format);
            for text in accepted {
                assert!((reader.accepts)(text), "{format} must accept {text}");
            }
            for text in refused {
                assert!(!(reader.accepts)(text), "{format} must refuse {text}");
            }
        }
    }
}
