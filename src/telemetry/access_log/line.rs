//! One line of the access log.
//!
//! What a client sent is written so that no reader can be deceived: in JSON as an escaped text, in
//! the combined format with every control character, quote and byte beyond ASCII escaped. Long
//! values are cut, because a client decides how long they are and the log's bound is ours.

use std::io::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use http::{Method, Uri, Version};
use serde::{Serialize, Serializer};

use crate::config::model::LogFormat;
use crate::policy::arm::Arm;
use crate::policy::time::Timestamp;

/// Bytes of a value that are written.
const LONGEST_VALUE: usize = 2048;
/// A line is seldom longer than this, in bytes.
pub(super) const LONGEST: usize = 16 * 1024;

/// How the answer ended, as its client saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// All of it was handed on.
    Complete,
    /// It broke off, because its upstream or a rollback ended it.
    Truncated,
    /// The client did not want the rest, or did not deliver the rest of its request.
    ClientGone,
}

/// What is said of one request.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// When its head had arrived.
    #[serde(serialize_with = "rfc3339")]
    pub time: Timestamp,
    /// The client's address, told by a trusted proxy where there is one.
    pub client: IpAddr,
    /// Its method.
    #[serde(serialize_with = "method")]
    pub method: &'a Method,
    /// Path and query as received.
    #[serde(serialize_with = "target")]
    pub target: &'a Uri,
    /// Such as `HTTP/1.1`.
    #[serde(serialize_with = "protocol")]
    pub protocol: Version,
    /// The host that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Text<'a>>,
    /// The status answered.
    pub status: u16,
    /// Bytes of the answer's body handed on.
    pub bytes: u64,
    /// How the answer ended.
    pub end: End,
    /// From the request's head to the answer's.
    #[serde(rename = "first_byte_ms", serialize_with = "milliseconds")]
    pub first_byte: Duration,
    /// From the request's head to the end of the answer.
    #[serde(rename = "duration_ms", serialize_with = "milliseconds")]
    pub duration: Duration,
    /// What was waited for upstreams, all attempts together.
    #[serde(rename = "upstream_ms", serialize_with = "milliseconds")]
    pub upstream: Duration,
    /// `X-Request-Id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<Text<'a>>,
    /// The trace that the request belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<Text<'a>>,
    /// The split, where the route leads to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<&'a str>,
    /// The arm that the session belongs to.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "arm")]
    pub arm: Option<Arm>,
    /// Why legacy answered in place of `new`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<&'a str>,
    /// `User-Agent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<Text<'a>>,
    /// `Referer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub referer: Option<Text<'a>>,
}

/// Bytes that a client sent.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a>(&'a [u8]);

impl<'a> Text<'a> {
    /// The trace's name in a `traceparent`: its second part.
    pub fn trace_id(traceparent: &'a [u8]) -> Option<Self> {
        let id = traceparent.split(|byte| *byte == b'-').nth(1)?;
        (id.len() == 32).then_some(Self(id))
    }

    /// The beginning of a text, all of it if it is short.
    pub fn cut(bytes: &'a [u8]) -> Self {
        Self(&bytes[..bytes.len().min(LONGEST_VALUE)])
    }
}

/// What the combined format has in place of an absent value.
const NOTHING: Text<'static> = Text(b"-");

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Borrowed, unless the bytes are no text.
        serializer.serialize_str(&String::from_utf8_lossy(self.0))
    }
}

impl Line<'_> {
    /// Appends the line and its end.
    pub(super) fn write(&self, format: LogFormat, out: &mut Vec<u8>) {
        // Writing to memory cannot fail, and every part of a line can be serialised.
        let _ = match format {
            LogFormat::Json => serde_json::to_writer(&mut *out, self).map_err(Into::into),
            LogFormat::Combined => self.write_combined(out),
        };
        out.push(b'\n');
    }

    fn write_combined(&self, out: &mut Vec<u8>) -> std::io::Result<()> {
        write!(
            out,
            "{} - - [{}] \"{} {} {:?}\" {} {} \"{}\" \"{}\"",
            self.client,
            self.time.common_log(),
            self.method,
            Text::cut(path_and_query(self.target).as_bytes())
                .0
                .escape_ascii(),
            self.protocol,
            self.status,
            self.bytes,
            self.referer.unwrap_or(NOTHING).0.escape_ascii(),
            self.user_agent.unwrap_or(NOTHING).0.escape_ascii(),
        )
    }
}

fn path_and_query(target: &Uri) -> &str {
    target
        .path_and_query()
        .map_or("/", |target| target.as_str())
}

fn rfc3339<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.rfc3339())
}

fn method<S: Serializer>(method: &Method, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(method.as_str())
}

fn target<S: Serializer>(target: &Uri, serializer: S) -> Result<S::Ok, S::Error> {
    Text::cut(path_and_query(target).as_bytes()).serialize(serializer)
}

fn protocol<S: Serializer>(version: &Version, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{version:?}"))
}

fn arm<S: Serializer>(arm: &Option<Arm>, serializer: S) -> Result<S::Ok, S::Error> {
    arm.map(Arm::as_str).serialize(serializer)
}

fn milliseconds<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    let milliseconds = span.as_micros() as f64 / 1000.0;
    serializer.serialize_f64(milliseconds)
}

#[cfg(test)]
impl<'a> Line<'a> {
    /// Of a request about which as little as possible is known.
    pub(super) fn bare(target: &'a Uri) -> Self {
        Self {
            time: Timestamp::from_milliseconds(0),
            client: [192, 0, 2, 1].into(),
            method: &Method::GET,
            target,
            protocol: Version::HTTP_11,
            host: None,
            status: 200,
            bytes: 0,
            end: End::Complete,
            first_byte: Duration::ZERO,
            duration: Duration::ZERO,
            upstream: Duration::ZERO,
            request_id: None,
            trace_id: None,
            split: None,
            arm: None,
            fallback: None,
            user_agent: None,
            referer: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line<'a>(target: &'a Uri, agent: &'a [u8]) -> Line<'a> {
        Line {
            time: Timestamp::from_milliseconds(1_795_183_407_123),
            bytes: 5,
            first_byte: Duration::from_micros(1_250),
            duration: Duration::from_micros(2_500),
            upstream: Duration::from_micros(1_000),
            split: Some("checkout"),
            arm: Some(Arm::New),
            user_agent: Some(Text::cut(agent)),
            ..Line::bare(target)
        }
    }

    fn written(format: LogFormat, target: &str, agent: &[u8]) -> String {
        let target = target.parse().expect("a target");
        let mut out = Vec::new();
        line(&target, agent).write(format, &mut out);
        String::from_utf8(out).expect("every line is text")
    }

    #[test]
    fn a_line_of_json_has_the_arm_and_times_in_milliseconds() {
        let text = written(LogFormat::Json, "/a//b?x=%2F", b"curl");
        assert!(text.ends_with("}\n"), "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(line["time"], "2026-11-20T14:03:27.123Z");
        assert_eq!(line["target"], "/a//b?x=%2F");
        assert_eq!(line["protocol"], "HTTP/1.1");
        assert_eq!(
            (&line["split"], &line["arm"]),
            (&"checkout".into(), &"new".into())
        );
        assert_eq!(line["first_byte_ms"], 1.25);
        assert_eq!(line["end"], "complete");
        assert_eq!(line.get("fallback"), None);
    }

    #[test]
    fn a_combined_line_is_what_log_analysers_read() {
        assert_eq!(
            written(LogFormat::Combined, "/a?b", b"curl/8"),
            "192.0.2.1 - - [20/Nov/2026:14:03:27 +0000] \"GET /a?b HTTP/1.1\" 200 5 \"-\" \"curl/8\"\n"
        );
    }

    #[test]
    fn no_client_can_end_a_line_or_a_quote() {
        let agent = b"a\" 200 1 \"x\\\tb\xff";
        let text = written(LogFormat::Combined, "/", agent);
        assert!(
            text.ends_with("\"a\\\" 200 1 \\\"x\\\\\\tb\\xff\"\n"),
            "{text}"
        );
        let text = written(LogFormat::Json, "/", agent);
        assert_eq!(text.matches('\n').count(), 1);
        let line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(line["user_agent"], "a\" 200 1 \"x\\\tb\u{fffd}");
    }

    #[test]
    fn a_long_value_is_cut() {
        let agent = vec![b'a'; 60_000];
        let text = written(LogFormat::Json, "/", &agent);
        assert!(text.len() < LONGEST_VALUE + 500);
    }
}
