//! Rules that hold for all bytes; each function panics if one does not.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::LazyLock;

use bytes::BytesMut;
use cutover::config;
use cutover::config::model::Config;
use cutover::identity::identify::{Identified, Identifier, RequestFacts};
use cutover::message::{Fields, RequestHead};
use cutover::policy::key::Salt;
use cutover::policy::share::Share;
use cutover::proxy::headers::{Forwarding, authority, write_request};
use cutover::proxy::peer::{Caller, Peer};
use cutover::upstream::http1::decode::{Decoder, Piece};
use cutover::upstream::http1::response::{self, Heard};
use cutover::upstream::http1::upload::Framing;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

const PEER: &str = "192.0.2.1:5";

/// Reads a configuration: it is taken, or every problem has a place, a message and a remedy.
pub(crate) fn configuration(text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    let read = || config::load_text(&text, Path::new("/nonexistent"), &|_| None);
    match read() {
        Ok(config) => assert_eq!(read().ok(), Some(config), "read twice, it is the same"),
        Err(problems) => {
            let lines = text.lines().count().max(1);
            for problem in &problems.problems {
                assert!(problem.line <= lines + 1, "{problem:?}");
                assert!(!problem.message.is_empty() && !problem.remedy.is_empty());
            }
            assert!(!problems.problems.is_empty());
        }
    }
}

/// Rewrites a request's head: what comes out is one head, that names one host, frames its body in
/// one way and says nothing in the proxy's name but what the proxy says.
pub(crate) fn head(bytes: &[u8]) {
    let Some(request) = parse(bytes) else { return };
    let Ok(host) = authority(&request) else {
        return;
    };
    let written = write_request(
        BytesMut::new(),
        &request,
        Forwarding {
            caller: &Caller::new(peer(), &[]),
            authority: host,
            framing: Framing::None,
            via: None,
            is_replay: false,
            upgrade: None,
        },
    );
    let text = String::from_utf8_lossy(&written);
    let (head, rest) = text.split_once("\r\n\r\n").expect("a head ends");
    assert_eq!(rest, "", "and nothing follows it");
    let mut lines = head.split("\r\n");
    let request_line = lines.next().expect("there is a first line");
    assert!(request_line.ends_with(" HTTP/1.1"), "{request_line}");
    assert_eq!(request_line.split(' ').count(), 3, "{request_line}");
    let fields: Vec<(String, &str)> = lines
        .map(|line| line.split_once(": ").expect("a name and a value"))
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect();
    let count = |wanted: &str| fields.iter().filter(|(name, _)| name == wanted).count();
    assert_eq!(count("host"), 1);
    assert!(count("content-length") <= 1);
    assert_eq!(count("x-forwarded-for"), 1);
    assert!(fields.contains(&("x-forwarded-for".to_owned(), "192.0.2.1")));
    for gone in [
        "transfer-encoding",
        "upgrade",
        "http2-settings",
        "keep-alive",
        "proxy-connection",
        "cutover-replay",
        "forwarded",
        "x-real-ip",
    ] {
        assert_eq!(count(gone), 0, "{gone} in {text}");
    }
    for (name, value) in &fields {
        assert!(
            !value.contains(['\r', '\n', '\0']),
            "{name} breaks its line"
        );
    }
}

/// An item of the field: an address, which may have a port or stand in brackets.
fn hop_address(hop: &str) -> Option<IpAddr> {
    let with_port = || Some(hop.parse::<SocketAddr>().ok()?.ip().to_canonical());
    let bracketed = || {
        let bare = hop.strip_prefix('[')?.strip_suffix(']')?;
        Some(bare.parse::<std::net::Ipv6Addr>().ok()?.to_canonical())
    };
    address(hop).or_else(with_port).or_else(bracketed)
}

/// Finds the client's address: the peer's own unless a proxy is trusted, and then one that stands
/// in the field, the last that is not a trusted proxy's.
pub(crate) fn forwarded(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    let mut hops = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append("x-forwarded-for", value);
            let text = String::from_utf8_lossy(line).into_owned();
            let items = text.split(',').map(str::trim);
            hops.extend(items.filter(|hop| !hop.is_empty()).map(hop_address));
        }
    }
    let fields = Fields::from(&headers);
    let stranger = peer();
    let trusted = ["10.0.0.0/8".parse().expect("a network")];
    let found = Caller::new(stranger, &trusted).client(&fields, &trusted);
    assert_eq!(found, stranger.ip());
    let proxy = Peer {
        address: SocketAddr::new([10, 9, 9, 9].into(), 5),
        ..stranger
    };
    let client = Caller::new(proxy, &trusted).client(&fields, &trusted);
    let is_proxy = |hop: &IpAddr| trusted[0].contains(hop);
    let is_told = hops.contains(&Some(client));
    assert!(is_told || client == proxy.ip(), "{client} of {hops:?}");
    if !is_proxy(&client) {
        let mut from_the_right = hops.iter().rev();
        let first = from_the_right.find(|hop| !hop.as_ref().is_some_and(is_proxy));
        assert_eq!(first, Some(&Some(client)), "of {hops:?}");
    }
}

/// Finds the session's cookie: the first of that name, as the plainest reader would.
pub(crate) fn cookie(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else {
        return;
    };
    let plain = value
        .as_bytes()
        .split(|byte| *byte == b';')
        .find_map(|pair| {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            let name = halves.next()?.trim_ascii();
            (name == b"session").then(|| halves.next().unwrap_or_default().trim_ascii())
        });
    let plain = plain.filter(|key| !key.is_empty());
    let found = identify("cookie", value.clone());
    let expected = plain.map(|key| Salt::new("api").hash(key).bucket());
    assert_eq!(found.assignment.bucket, expected, "{value:?}");
}

/// Looks at a token that nobody signed: it chooses no session.
pub(crate) fn token(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else {
        return;
    };
    let found = identify("authorization", value);
    assert_eq!(found.assignment.bucket, None, "it is keyless");
}

/// Reads an upstream's answer at once and byte by byte: the same head, content and end.
pub(crate) fn answer(bytes: &[u8]) {
    for method in [Method::GET, Method::HEAD] {
        let whole = read([bytes].into_iter(), &method);
        let pieces = read(bytes.chunks(1), &method);
        assert_eq!(whole, pieces);
    }
}

/// How reading an answer went: its head in words, its content, whether it ended, and what is left.
#[derive(Debug, PartialEq, Eq)]
enum Reading {
    NoHead,
    Refused,
    Read {
        head: String,
        content: Vec<u8>,
        end: &'static str,
        /// Bytes behind the end, which must not become part of the next answer.
        left: Vec<u8>,
    },
}

fn read<'b>(pieces: impl Iterator<Item = &'b [u8]>, method: &Method) -> Reading {
    let mut buffer = BytesMut::new();
    let mut head = None;
    let mut content = Vec::new();
    let mut end = "open";
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while head.is_none() {
            match response::parse(&mut buffer, method, None) {
                Ok(None) => break,
                Ok(Some(Heard::Informational(_))) => {}
                Ok(Some(Heard::Final(found))) => head = Some(found),
                Err(_) => return Reading::Refused,
            }
        }
        let Some(head) = &mut head else { continue };
        while end == "open" {
            match head.body.decode(&mut buffer) {
                Ok(Piece::Data(data)) => content.extend_from_slice(&data),
                Ok(Piece::Trailers(trailers)) => {
                    content.extend_from_slice(format!("{trailers:?}").as_bytes());
                    end = "ended";
                }
                Ok(Piece::End) => end = "ended",
                Ok(Piece::Incomplete) => break,
                Err(_) => end = "malformed",
            }
        }
    }
    let Some(head) = head else {
        return Reading::NoHead;
    };
    let left = match end {
        "ended" => buffer.to_vec(),
        _ => Vec::new(),
    };
    assert!(!matches!(head.body, Decoder::Ended) || end != "open" || content.is_empty());
    Reading::Read {
        head: format!("{} {:?} {}", head.status, head.fields, head.persistent),
        content,
        end,
        left,
    }
}

fn peer() -> Peer {
    Peer {
        address: PEER.parse().expect("an address"),
        secure: false,
    }
}

fn parse(bytes: &[u8]) -> Option<RequestHead> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut fields);
    parsed.parse(bytes).ok()?.is_complete().then_some(())?;
    let mut request = Request::builder().method(parsed.method?).uri(parsed.path?);
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        request = request.header(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    Some(request.body(()).ok()?.into_parts().0.into())
}

/// An address as forwarding fields have it: bare, in quotes, in brackets, with a port.
fn address(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim_matches('"');
    let bare = hop.parse::<IpAddr>();
    let with_port = || hop.parse::<SocketAddr>().map(|address| address.ip());
    let bracketed = || {
        let inner = hop.strip_prefix('[')?.strip_suffix(']')?;
        inner.parse::<IpAddr>().ok()
    };
    let found = bare.or_else(|_| with_port()).ok().or_else(bracketed)?;
    Some(found.to_canonical())
}

fn identify(name: &'static str, value: HeaderValue) -> Identified {
    let mut headers = HeaderMap::new();
    headers.insert(name, value);
    IDENTIFIER.identify(RequestFacts {
        fields: &Fields::from(&headers),
        uri: &Uri::from_static("/"),
        client: IpAddr::from([192, 0, 2, 1]),
        secure: false,
        share: Share::ZERO,
        emergency: false,
        now_seconds: 1_795_183_407,
    })
}

static IDENTIFIER: LazyLock<Identifier> = LazyLock::new(|| {
    let text = "listeners: [{address: '127.0.0.1:0'}]
backends: {old: {endpoints: ['h:1']}, new: {endpoints: ['h:2']}}
splits:
  api:
    legacy: old
    new: new
    share: 0%
    keyless: legacy
    key:
      - {jwt: {claim: sub, algorithm: HS256, secret: a-secret-that-no-fuzzer-will-ever-guess}}
      - {cookie: session}
routes: [{split: api}]
";
    let config: Config =
        config::load_text(text, Path::new("/nonexistent"), &|_| None).expect("it is valid");
    Identifier::new(&config.splits[0]).expect("its key is sound")
});
