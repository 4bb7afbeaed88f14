//! Which fields cross the proxy, and which it adds.
//!
//! A field that concerns one connection must not cross (RFC 9110 §7.6.1), nor one that a client
//! could use to speak in the proxy's name. They are left out while the head is written, rather than
//! removed from a map, because writing looks at every field anyway.

use bytes::BytesMut;
use http::uri::{self, Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version};

use crate::config::model::Via;
use crate::message::name::{
    CONNECTION, CONTENT_LENGTH, COOKIE, CUTOVER_REPLAY, HOST, TE, TRANSFER_ENCODING, UPGRADE, VIA,
    X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO,
};
use crate::message::{Field, Fields, Known, Name, RequestHead};
use crate::upstream::http1::request::HeadWriter;
use crate::upstream::http1::upload::Framing;
use crate::upstream::list::has_member;

use super::inline::Inline;
use super::peer::Caller;

/// The authority that a request is for, from its target or its `Host`.
///
/// # Errors
/// [`InvalidHost`] where there is none, several, or they disagree.
pub fn authority(head: &RequestHead) -> Result<&str, InvalidHost> {
    let mut hosts = head.fields.get_all(&HOST);
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => Some(std::str::from_utf8(host).map_err(|_| InvalidHost)?),
        (Some(_), Some(_)) => return Err(InvalidHost),
        (None, _) => None,
    };
    // RFC 9112 §3.2.2: the target wins over the field.
    let authority = head.uri.authority().map(Authority::as_str);
    match authority.or(host) {
        Some(host) if is_plausible_host(host) => Ok(host),
        // HTTP/1.0 had no Host.
        None if head.version <= Version::HTTP_10 => Ok(""),
        _ => Err(InvalidHost),
    }
}

/// The request names no host, or more than one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request must name exactly one host")]
pub struct InvalidHost;

/// Whether this could be a host and a port. A user's name before it is none of them, and means
/// another host to whoever reads carelessly (RFC 9110 §4.2.4).
fn is_plausible_host(host: &str) -> bool {
    let is_port =
        |port: &str| port.is_empty() || port.parse::<u16>().is_ok_and(|_| !port.starts_with('+'));
    if let Some(literal) = host.strip_prefix('[') {
        let Some((address, rest)) = literal.split_once(']') else {
            return false;
        };
        let is_address = |byte: u8| byte.is_ascii_hexdigit() || b":.".contains(&byte);
        return address.bytes().all(is_address)
            && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port));
    }
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()+;=".contains(&byte);
    name.bytes().all(is_name) && is_port(port)
}

/// What the upstream is told beyond the client's own fields.
#[derive(Clone, Copy, Debug)]
pub struct Forwarding<'call> {
    /// Who sends it.
    pub caller: &'call Caller,
    /// The authority that the client asked for.
    pub authority: &'call str,
    /// How the body's end is told.
    pub framing: Framing,
    /// What `Via` says, if anything.
    pub via: Option<&'call Via>,
    /// Whether `new` failed on this request before.
    pub is_replay: bool,
    /// The protocols that the client offers to switch to.
    pub upgrade: Option<&'call HeaderValue>,
}

/// Writes the head of a request for an upstream, into a buffer that is empty.
pub fn write_request(out: BytesMut, request: &RequestHead, forwarding: Forwarding<'_>) -> BytesMut {
    let target = request.uri.path_and_query();
    let target = target.map_or("/", PathAndQuery::as_str);
    let mut head = HeadWriter::new(out, &request.method, target);
    head.add(&HOST, forwarding.authority.as_bytes());
    if write_fields(&mut head, request, forwarding).takes_trailers {
        // The upstream's answer may have trailers, but this is said for our connection to it.
        head.add(&TE, b"trailers");
        head.add(&CONNECTION, b"TE");
    }
    if forwarding.framing == Framing::Chunked {
        head.add(&TRANSFER_ENCODING, b"chunked");
    }
    if let Some(protocols) = forwarding.upgrade {
        head.add(&CONNECTION, b"Upgrade");
        head.add(&UPGRADE, protocols.as_bytes());
    }
    head.finish()
}

/// The head of a request for an upstream that speaks HTTP/2; `without_host` is asked for by clients
/// of HTTP/1.0, which name no host.
///
/// # Errors
/// [`InvalidHost`] where the host that the client names cannot be one.
pub fn http2_request(
    request: &RequestHead,
    forwarding: Forwarding<'_>,
    scheme: Scheme,
    without_host: &str,
) -> Result<http::Request<()>, InvalidHost> {
    let authority = match forwarding.authority {
        "" => without_host,
        authority => authority,
    };
    let mut uri = uri::Parts::default();
    uri.scheme = Some(scheme);
    uri.authority = Some(authority.parse().map_err(|_| InvalidHost)?);
    let target = request.uri.path_and_query().cloned();
    uri.path_and_query = target.or_else(|| Some(PathAndQuery::from_static("/")));
    let mut turned = http::Request::new(());
    *turned.method_mut() = request.method.clone();
    *turned.uri_mut() = Uri::from_parts(uri).map_err(|_| InvalidHost)?;
    *turned.version_mut() = Version::HTTP_2;
    let fields = turned.headers_mut();
    fields.reserve(request.fields.len() + 4);
    if write_fields(fields, request, forwarding).takes_trailers {
        // The one thing that this field may say here (RFC 9113 §8.2.2). gRPC insists on it.
        fields.add(&TE, b"trailers");
    }
    Ok(turned)
}

/// Where the fields of a request are written to.
trait Target {
    /// Adds those of the client's fields that `is_kept` says.
    fn keep(&mut self, fields: &Fields, is_kept: impl FnMut(Field<'_>) -> bool);
    /// Adds a field of ours.
    fn add(&mut self, name: &Name, value: &[u8]);
}

impl Target for HeadWriter {
    fn keep(&mut self, fields: &Fields, is_kept: impl FnMut(Field<'_>) -> bool) {
        HeadWriter::keep(self, fields, is_kept);
    }

    fn add(&mut self, name: &Name, value: &[u8]) {
        HeadWriter::add(self, name, value);
    }
}

impl Target for HeaderMap {
    fn keep(&mut self, fields: &Fields, mut is_kept: impl FnMut(Field<'_>) -> bool) {
        for field in fields.iter().filter(|field| is_kept(*field)) {
            append(self, field.name, field.value);
        }
    }

    fn add(&mut self, name: &Name, value: &[u8]) {
        append(self, name.as_str().as_bytes(), value);
    }
}

fn append(map: &mut HeaderMap, name: &[u8], value: &[u8]) {
    // Both were read by the same rules, or made of such fields and of addresses.
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
        map.append(name, value);
    }
}

/// What a client says for its own connection, and each protocol says in its own way.
struct Written {
    /// Whether it reads trailers.
    takes_trailers: bool,
}

/// Writes the fields that cross, and those that we add.
fn write_fields(
    out: &mut impl Target,
    request: &RequestHead,
    forwarding: Forwarding<'_>,
) -> Written {
    let fields = &request.fields;
    let nominated = Nominated::of(fields);
    let is_trusted = forwarding.caller.is_peer_trusted();
    let joined_cookies = joined_cookies(request);
    let announced = fields.get(&CONTENT_LENGTH);
    let length = announced.and_then(|announced| length(announced, forwarding.framing));
    let mut is_length_due = length.is_some();
    let mut takes_trailers = false;
    out.keep(fields, |field| match field.known {
        Known::ContentLength => length == Some(field.value) && std::mem::take(&mut is_length_due),
        Known::Cookie if joined_cookies.is_some() => false,
        // It tells which trailers follow a body; only chunks have any.
        Known::Trailer if forwarding.framing != Framing::Chunked => false,
        Known::Te => {
            takes_trailers |= has_member(field.value, b"trailers");
            false
        }
        known if is_dropped(known) => false,
        known => (is_trusted || !known.is_claim()) && !nominated.contains(field),
    });
    if let Some(length) = length.filter(|_| is_length_due) {
        out.add(&CONTENT_LENGTH, length);
    }
    if let Some(cookies) = joined_cookies {
        out.add(&COOKIE, &cookies);
    }
    write_forwarded(out, fields, forwarding);
    if let Some(via) = forwarding.via {
        // Behind those of whoever passed it on before.
        out.add(&VIA, via.of(request.version).as_bytes());
    }
    if forwarding.is_replay {
        out.add(&CUTOVER_REPLAY, b"1");
    }
    Written { takes_trailers }
}

/// Whether a request's field stays here: it concerns the connection, or it is ours to write.
const fn is_dropped(known: Known) -> bool {
    matches!(
        known,
        Known::Host
            | Known::Connection
            | Known::TransferEncoding
            | Known::Upgrade
            | Known::Expect
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::Http2Settings
            | Known::XForwardedFor
            | Known::XForwardedProto
            | Known::XForwardedHost
            | Known::Own
            | Known::Disguised
    )
}

/// A length as everybody reads it, and only where it is the body's: an upstream that waited for bytes
/// that do not come would take them from the next request.
fn length(announced: &[u8], framing: Framing) -> Option<&[u8]> {
    // Some read digits after a zero as octal. The reader has made sure that there is nothing else.
    let zeros = announced.iter().take_while(|digit| **digit == b'0').count();
    let digits = &announced[zeros.min(announced.len().saturating_sub(1))..];
    let is_told = match framing {
        Framing::Length => true,
        Framing::None => digits == b"0",
        Framing::Chunked => false,
    };
    is_told.then_some(digits)
}

/// The fields that a client's `Connection` names as its own affair.
struct Nominated<'fields> {
    /// Empty in the usual case, that there is none or it says only `keep-alive` or `close`.
    lines: Option<&'fields Fields>,
}

impl<'fields> Nominated<'fields> {
    fn of(fields: &'fields Fields) -> Self {
        let names_fields = fields.get_all(&CONNECTION).any(|line| {
            !line.eq_ignore_ascii_case(b"keep-alive") && !line.eq_ignore_ascii_case(b"close")
        });
        Self {
            lines: names_fields.then_some(fields),
        }
    }

    fn contains(&self, field: Field<'_>) -> bool {
        let Some(fields) = self.lines else {
            return false;
        };
        // What the edge has written is not the client's to nominate away.
        if matches!(
            field.known,
            Known::XRequestId | Known::Traceparent | Known::Tracestate
        ) {
            return false;
        }
        let mut lines = fields.get_all(&CONNECTION);
        lines.any(|line| has_member(line, field.name))
    }
}

/// HTTP/2 clients may split their cookies over several fields; HTTP/1 knows one (RFC 9113 §8.2.3).
fn joined_cookies(request: &RequestHead) -> Option<Vec<u8>> {
    if request.version != Version::HTTP_2 {
        return None;
    }
    let mut crumbs = request.fields.get_all(&COOKIE);
    let (first, second) = (crumbs.next()?, crumbs.next()?);
    let mut joined = first.to_vec();
    for crumb in std::iter::once(second).chain(crumbs) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb);
    }
    Some(joined)
}

/// Tells the upstream who asked, and how. A stranger's claims are replaced, a trusted proxy's are
/// continued.
fn write_forwarded(out: &mut impl Target, fields: &Fields, forwarding: Forwarding<'_>) {
    let caller = forwarding.caller;
    let is_trusted = caller.is_peer_trusted();
    let mut hop = Inline::new();
    hop.write_address(caller.peer());
    if is_trusted && fields.contains(&X_FORWARDED_FOR) {
        let mut chain = Vec::new();
        for line in fields.get_all(&X_FORWARDED_FOR) {
            chain.extend_from_slice(line);
            chain.extend_from_slice(b", ");
        }
        chain.extend_from_slice(hop.as_bytes());
        out.add(&X_FORWARDED_FOR, &chain);
    } else {
        out.add(&X_FORWARDED_FOR, hop.as_bytes());
    }
    let scheme: &[u8] = match caller.is_peer_secure() {
        true => b"https",
        false => b"http",
    };
    let claimed = |name| is_trusted.then(|| fields.get(name)).flatten();
    out.add(
        &X_FORWARDED_PROTO,
        claimed(&X_FORWARDED_PROTO).unwrap_or(scheme),
    );
    let authority = forwarding.authority.as_bytes();
    out.add(
        &X_FORWARDED_HOST,
        claimed(&X_FORWARDED_HOST).unwrap_or(authority),
    );
}

#[cfg(test)]
mod tests {
    use http::Request;
    use ipnet::IpNet;

    use super::super::peer::Peer;
    use super::*;

    fn caller(trusted: &[IpNet]) -> Caller {
        let peer = Peer {
            address: "192.0.2.1:5".parse().expect("an address"),
            secure: false,
        };
        Caller::new(peer, trusted)
    }

    fn written(request: Request<()>, trusted: &[&str]) -> String {
        let request = RequestHead::from(request.into_parts().0);
        let trusted: Vec<IpNet> = trusted
            .iter()
            .map(|network| network.parse().expect("a network"))
            .collect();
        let head = write_request(
            BytesMut::new(),
            &request,
            Forwarding {
                caller: &caller(&trusted),
                authority: authority(&request).expect("one host"),
                framing: Framing::None,
                via: None,
                is_replay: false,
                upgrade: None,
            },
        );
        String::from_utf8(head.to_vec()).expect("text")
    }

    fn request() -> http::request::Builder {
        Request::get("/a?b").header("host", "a.example")
    }

    #[test]
    fn what_concerns_one_connection_does_not_cross() {
        let request = request()
            .header(
                "connection",
                "close, X-Mine, Host, Content-Length, X-Request-Id, Traceparent, Tracestate",
            )
            .header("x-request-id", "7")
            .header("traceparent", "00-1-2-01")
            .header("tracestate", "a=1")
            .header("x-mine", "1")
            .header("keep-alive", "5")
            .header("proxy-connection", "keep-alive")
            .header("te", "trailers")
            .header("upgrade", "h2c")
            .header("http2-settings", "x")
            .header("content-length", "0")
            .header("x-kept", "2")
            .body(())
            .expect("a request");
        assert_eq!(
            written(request, &[]),
            "GET /a?b HTTP/1.1\r\nHost: a.example\r\nX-Request-Id: 7\r\nTraceparent: 00-1-2-01\r\nTracestate: a=1\r\n\
             Content-Length: 0\r\nX-Kept: 2\r\n\
             X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\n\
             X-Forwarded-Host: a.example\r\nTE: trailers\r\nConnection: TE\r\n\r\n"
        );
    }

    #[test]
    fn a_strangers_forwarding_fields_are_replaced_and_a_trusted_proxys_continued() {
        let request = || {
            request()
                .header("x-forwarded-for", "198.51.100.7")
                .header("x-forwarded-proto", "https")
                .header("cutover-replay", "1")
                .body(())
                .expect("a request")
        };
        let stranger = written(request(), &[]);
        assert!(stranger.contains("X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\n"));
        assert!(!stranger.contains("Cutover-Replay"));
        let trusted = written(request(), &["192.0.2.0/24"]);
        assert!(trusted.contains("X-Forwarded-For: 198.51.100.7, 192.0.2.1\r\n"));
        assert!(trusted.contains("X-Forwarded-Proto: https\r\n"));
    }

    #[test]
    fn no_stranger_says_for_whom_a_request_was_forwarded() {
        let claims = [
            ("Forwarded", "for=198.51.100.7;proto=https"),
            ("X-Real-Ip", "198.51.100.7"),
            ("X-Forwarded-Port", "443"),
            ("X-Forwarded-Prefix", "/admin"),
            ("X-Forwarded-Ssl", "on"),
            ("X-Forwarded-Server", "inside"),
        ];
        let disguised = [
            "X_Real_IP",
            "X_Forwarded-For",
            "Content_Length",
            "Cutover_Arm",
        ];
        let request = || {
            let request = claims.iter().fold(request(), |request, (name, value)| {
                request.header(*name, *value)
            });
            let request = disguised
                .iter()
                .fold(request, |request, name| request.header(*name, "1"));
            request.header("X_Mine", "1").body(()).expect("a request")
        };
        let stranger = written(request(), &[]);
        let trusted = written(request(), &["192.0.2.0/24"]);
        for (name, value) in claims {
            assert!(!stranger.contains(&format!("\r\n{name}: ")), "{name}");
            assert!(
                trusted.contains(&format!("\r\n{name}: {value}\r\n")),
                "{name}"
            );
        }
        for name in disguised {
            let name = name.to_ascii_lowercase();
            for head in [&stranger, &trusted] {
                assert!(!head.to_ascii_lowercase().contains(&name), "{name}");
            }
        }
        assert!(stranger.contains("\r\nX_mine: 1\r\n"));
    }

    #[test]
    fn a_length_crosses_in_one_spelling_and_only_with_its_body() {
        let length = |lines: &[&str], framing| {
            let request = lines.iter().fold(request(), |request, line| {
                request.header("content-length", *line)
            });
            let request = request.body(()).expect("a request").into_parts().0;
            let forwarding = Forwarding {
                caller: &caller(&[]),
                authority: "a.example",
                framing,
                via: None,
                is_replay: false,
                upgrade: None,
            };
            let head = write_request(BytesMut::new(), &request.into(), forwarding).to_vec();
            let head = String::from_utf8(head).expect("text");
            let lines = head
                .lines()
                .filter_map(|line| line.strip_prefix("Content-Length: "));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(length(&["005"], Framing::Length), ["5"]);
        assert_eq!(length(&["5", "6"], Framing::Length), ["5"]);
        assert_eq!(length(&["0"], Framing::None), ["0"]);
        assert_eq!(length(&["000"], Framing::None), ["0"]);
        assert_eq!(length(&["5"], Framing::None), [""; 0]);
        assert_eq!(length(&["5"], Framing::Chunked), [""; 0]);
    }

    #[test]
    fn crumbs_of_http2_cookies_are_joined() {
        let request = request()
            .version(Version::HTTP_2)
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(())
            .expect("a request");
        assert!(written(request, &[]).contains("\r\nCookie: a=1; b=2\r\n"));
    }

    #[test]
    fn a_request_names_exactly_one_host() {
        let authority_of = |request: http::request::Builder| {
            let request = request.body(()).expect("a request").into_parts().0;
            authority(&request.into()).map(str::to_owned)
        };
        assert_eq!(authority_of(Request::get("/")), Err(InvalidHost));
        assert_eq!(
            authority_of(request().header("host", "b.example")),
            Err(InvalidHost)
        );
        for host in [
            "a, b", "[::1", "a:8a", "a:99999", "a:+1", "a:1:2", "a%00b", "*", "[::1]x",
        ] {
            let request = Request::get("/").header("host", host);
            assert_eq!(authority_of(request), Err(InvalidHost), "{host}");
        }
        for host in [
            "a",
            "a.example:80",
            "a_b:",
            "[2001:db8::1]:8443",
            "192.0.2.1",
        ] {
            let request = Request::get("/").header("host", host);
            assert_eq!(authority_of(request), Ok(host.to_owned()));
        }
        assert_eq!(
            authority_of(Request::get("http://b.example/").header("host", "a.example")),
            Ok("b.example".to_owned())
        );
        assert_eq!(
            authority_of(Request::get("http://somebody@b.example/")),
            Err(InvalidHost)
        );
    }
}
