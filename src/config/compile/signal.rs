//! Signals: where their numbers come from, and whether that can work.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use http::HeaderValue;
use xxhash_rust::xxh3::Xxh3Default;

use super::Compiler;
use crate::config::model::{ClientTls, HttpTarget, Poll, Secret, Signal, SignalAnswer};
use crate::config::notation::{HttpUrl, Written};
use crate::config::raw;
use crate::policy::signal::{SignalTerms, is_signal_name};

/// Signals of one split. Each is a task, and a few series of the metrics.
const MOST: usize = 32;
const INTERVAL: Duration = Duration::from_secs(15);
const TIMEOUT: Duration = Duration::from_secs(5);
/// How many intervals a polled value is fresh where the file says nothing: three answers may be
/// lost.
const FRESH_INTERVALS: u32 = 4;
/// How long a pushed value is fresh where the file says nothing.
const PUSHED_FRESH: Duration = Duration::from_secs(3_600);

/// The kinds of sources, by the key that names each.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Prometheus,
    Http,
    Pushed,
}

impl Compiler<'_, '_> {
    pub(super) fn signals(
        &mut self,
        split: &str,
        signals: BTreeMap<String, raw::Signal>,
    ) -> Vec<Signal> {
        let path = format!("{split}.signals");
        let signals = self.in_file_order(&path, signals);
        if signals.len() > MOST {
            let message = format!("{} signals", signals.len());
            let remedy = format!("keep at most {MOST} in one split");
            self.problem(&path, message, remedy);
        }
        let mut compiled = Vec::new();
        for (name, signal) in signals {
            let path = format!("{path}.{name}");
            if !is_signal_name(&name) {
                self.problem(
                    &path,
                    format!("a signal cannot be called `{name}`"),
                    "use lower-case letters, digits and `_`, no digit first, at most 64, and no \
                     name of a metric such as `error_rate` or `p95`",
                );
            }
            compiled.extend(self.signal(&path, name, signal));
        }
        compiled
    }

    /// Absent where it is not known what kind of source is meant.
    fn signal(&mut self, path: &str, name: String, signal: raw::Signal) -> Option<Signal> {
        let kind = self.kind(path, &signal)?;
        self.refuse_surplus(path, kind, &signal);
        let fresh_for = signal.fresh_for.map(|Written(fresh_for)| fresh_for.0);
        let interval = signal.interval.map_or(INTERVAL, |Written(span)| span.0);
        let absent = signal.absent.into();
        let (answer, new, legacy) = match kind {
            Kind::Pushed => {
                let terms = SignalTerms {
                    name,
                    fresh_for: fresh_for.unwrap_or(PUSHED_FRESH),
                    absent,
                    has_legacy: true,
                    source: "pushed".to_owned(),
                };
                return Some(Signal { terms, poll: None });
            }
            Kind::Prometheus => {
                let Written(base) = signal.prometheus?;
                let query = self.needed(path, "query", "prometheus", signal.query)?;
                let asked = |query: String| instant_query(&base, &query);
                let legacy = signal.legacy_query.map(asked);
                (SignalAnswer::Prometheus, asked(query), legacy)
            }
            Kind::Http => {
                let Written(url) = signal.http?;
                let Written(pointer) = self.needed(path, "pointer", "http", signal.pointer)?;
                let answer = SignalAnswer::Json { pointer: pointer.0 };
                let legacy = signal.legacy_http.map(|Written(url)| document(&url));
                (answer, document(&url), legacy)
            }
        };
        let fresh_for = fresh_for.unwrap_or(interval.saturating_mul(FRESH_INTERVALS));
        if fresh_for < interval {
            self.problem(
                &format!("{path}.fresh_for"),
                "a value would be stale before the next one is asked for",
                "raise `fresh_for` to a few times `interval`, or lower `interval`",
            );
        }
        let tls = signal.tls.map(|tls| self.client_tls(path, tls));
        let targets = [Some(&new), legacy.as_ref()];
        if tls.is_some() && !targets.into_iter().flatten().any(|target| target.is_secure) {
            self.problem(
                &format!("{path}.tls"),
                "the source is not asked over TLS",
                "write its address with `https://`, or remove `tls`",
            );
        }
        Some(Signal {
            terms: SignalTerms {
                name,
                fresh_for,
                absent,
                has_legacy: legacy.is_some(),
                source: identity(&answer, &new, legacy.as_ref()),
            },
            poll: Some(Poll {
                interval,
                timeout: signal.timeout.map_or(TIMEOUT, |Written(span)| span.0),
                bearer: signal.bearer.map(|token| self.bearer(path, token)),
                tls: tls.unwrap_or(ClientTls {
                    roots_pem: None,
                    server_name: None,
                }),
                answer,
                new,
                legacy,
            }),
        })
    }

    fn kind(&mut self, path: &str, signal: &raw::Signal) -> Option<Kind> {
        let given = [
            ("prometheus", Kind::Prometheus, signal.prometheus.is_some()),
            ("http", Kind::Http, signal.http.is_some()),
            ("pushed", Kind::Pushed, signal.pushed),
        ];
        // A source that was reported is a source all the same.
        let given = given.into_iter();
        let given: Vec<_> = given
            .filter(|(key, _, given)| *given || self.is_damaged(path, key))
            .collect();
        match given[..] {
            [(_, kind, _)] => Some(kind),
            [] => {
                let remedy = "add `prometheus` with `query`, `http` with `pointer`, or \
                              `pushed: true`";
                self.problem(path, "this signal comes from nowhere", remedy);
                None
            }
            [.., (key, ..)] => {
                let remedy = "keep one of `prometheus`, `http` and `pushed`";
                let message = "a signal comes from one place";
                self.problem(&format!("{path}.{key}"), message, remedy);
                None
            }
        }
    }

    fn refuse_surplus(&mut self, path: &str, kind: Kind, signal: &raw::Signal) {
        let asked = [Kind::Prometheus, Kind::Http];
        let keys: [(&str, bool, &[Kind]); 8] = [
            ("query", signal.query.is_some(), &asked[..1]),
            ("legacy_query", signal.legacy_query.is_some(), &asked[..1]),
            ("pointer", signal.pointer.is_some(), &asked[1..]),
            ("legacy_http", signal.legacy_http.is_some(), &asked[1..]),
            ("bearer", signal.bearer.is_some(), &asked),
            ("tls", signal.tls.is_some(), &asked),
            ("interval", signal.interval.is_some(), &asked),
            ("timeout", signal.timeout.is_some(), &asked),
        ];
        for (key, given, kinds) in keys {
            if given && !kinds.contains(&kind) {
                let message = match kind {
                    Kind::Prometheus => "a signal from Prometheus has no use for this",
                    Kind::Http => "a signal from a JSON document has no use for this",
                    Kind::Pushed => "nobody is asked for a signal that is pushed",
                };
                self.problem(&format!("{path}.{key}"), message, "remove it");
            }
        }
    }

    fn needed<T>(&mut self, path: &str, key: &str, source: &str, value: Option<T>) -> Option<T> {
        if value.is_none() && !self.is_damaged(path, key) {
            let message = format!("`{source}` needs `{key}`");
            let remedy = match key {
                "query" => "add the PromQL that finds the value of `new`",
                _ => "add where in the document the number is, such as `/lag/seconds`",
            };
            self.problem(path, message, remedy);
        }
        value
    }

    fn bearer(&mut self, path: &str, token: String) -> Secret {
        if HeaderValue::from_str(&token).is_err() || !token.is_ascii() {
            self.problem(
                &format!("{path}.bearer"),
                "this token cannot stand in a header",
                "give printable ASCII without line breaks",
            );
        }
        Secret(token.into_bytes())
    }
}

/// Differs where something else is asked, or somebody else. It is stored and never shown, and as a
/// hash it gives away no secret that somebody has written into an address.
fn identity(answer: &SignalAnswer, new: &HttpTarget, legacy: Option<&HttpTarget>) -> String {
    let kind = match answer {
        SignalAnswer::Prometheus => "prometheus",
        SignalAnswer::Json { pointer } => pointer,
    };
    let mut hash = Xxh3Default::new();
    let mut add = |part: &str| {
        // With their lengths, so that no two sources are the same text.
        hash.update(&part.len().to_le_bytes());
        hash.update(part.as_bytes());
    };
    add(kind);
    for target in [Some(new), legacy].into_iter().flatten() {
        add(if target.is_secure { "https" } else { "http" });
        add(&target.endpoint);
        add(&target.host);
        add(&target.path);
    }
    format!("{:032x}", hash.digest128())
}

fn instant_query(base: &HttpUrl, query: &str) -> HttpTarget {
    let mut target = document(base);
    let root = target.path.trim_end_matches('/').len();
    target.path.truncate(root);
    target.path.push_str("/api/v1/query?query=");
    for byte in query.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            target.path.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(target.path, "%{byte:02X}");
        }
    }
    target
}

fn document(url: &HttpUrl) -> HttpTarget {
    HttpTarget {
        is_secure: url.is_secure,
        endpoint: url.endpoint.clone(),
        host: url.host.clone(),
        path: url.path.clone(),
    }
}
