//! Reading the head of a client's request.
//!
//! What a peer may be forgiven is forgiven only where nobody can read it differently: whatever could
//! be two requests to the next hop is none here.

use std::mem::MaybeUninit;

use bytes::{Buf, BytesMut};
use http::{Method, Uri, Version};

use crate::message::name::CONTENT_LENGTH;
use crate::message::{Fields, Known, RequestHead};
use crate::telemetry::edge::EdgeRefusal;
use crate::upstream::http1::decode::{Chunk, Decoder};
use crate::upstream::list::{has_member, members};

/// Fields for which there is room without asking for it.
const USUAL_FIELDS: usize = 100;
/// Longest target: what the type that keeps it can address.
const MAX_TARGET: usize = u16::MAX as usize - 1;

/// How large a head may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes, with the line before and the empty line behind the fields.
    pub(super) bytes: usize,
    pub(super) fields: usize,
}

/// A request's head, and what it says about its connection.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) request: RequestHead,
    /// Where its body ends.
    pub(super) body: Decoder,
    /// Whether the client wants to go on afterwards.
    pub(super) is_persistent: bool,
    /// Whether it waits for leave to send its body.
    pub(super) awaits_leave: bool,
    /// Whether it reads trailers.
    pub(super) takes_trailers: bool,
}

/// Takes a head out of `buffer`; none if it is not complete yet.
///
/// # Errors
/// Why the client is refused.
pub(super) fn parse(buffer: &mut BytesMut, limits: Limits) -> Result<Option<Head>, EdgeRefusal> {
    let read = if limits.fields <= USUAL_FIELDS {
        let mut room = [const { MaybeUninit::uninit() }; USUAL_FIELDS];
        read(buffer, limits, &mut room[..limits.fields])?
    } else {
        let mut room = vec![MaybeUninit::uninit(); limits.fields];
        read(buffer, limits, &mut room)?
    };
    let Some((length, head)) = read else {
        if buffer.len() <= limits.bytes {
            return Ok(None);
        }
        return Err(match buffer[..limits.bytes].contains(&b'\n') {
            true => EdgeRefusal::HeadTooLarge,
            // Already the first line is longer.
            false => EdgeRefusal::TargetTooLong,
        });
    };
    buffer.advance(length);
    Ok(Some(head))
}

/// A head and its length, if it is complete.
fn read<'head>(
    bytes: &'head [u8],
    limits: Limits,
    room: &mut [MaybeUninit<httparse::Header<'head>>],
) -> Result<Option<(usize, Head)>, EdgeRefusal> {
    let mut request = httparse::Request::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_request_with_uninit_headers(
        &mut request,
        bytes,
        room,
    );
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(EdgeRefusal::HeadTooLarge),
        Err(_) => return Err(EdgeRefusal::Malformed),
    };
    let (Some(method), Some(target), Some(version)) =
        (request.method, request.path, request.version)
    else {
        return Err(EdgeRefusal::Malformed);
    };
    if target.len() > MAX_TARGET.min(limits.bytes) {
        return Err(EdgeRefusal::TargetTooLong);
    }
    if length > limits.bytes {
        return Err(EdgeRefusal::HeadTooLarge);
    }
    let version = match version {
        1 => Version::HTTP_11,
        _ => Version::HTTP_10,
    };
    let mut framing = FramingFields::new(version);
    let mut fields = Fields::of_text(&bytes[..length], request.headers.len());
    let start = bytes.as_ptr().addr();
    let place = |part: &[u8]| (part.as_ptr().addr() - start, part.len());
    for field in request.headers.iter() {
        let name = field.name.as_bytes();
        let known = Known::of(name);
        if framing.take_in(known, field.value)? {
            fields.add_received(known, place(name), place(field.value));
        }
    }
    let head = framing.finish(RequestHead {
        method: Method::from_bytes(method.as_bytes()).map_err(|_| EdgeRefusal::Malformed)?,
        uri: Uri::try_from(target).map_err(|_| EdgeRefusal::Malformed)?,
        version,
        fields,
    });
    Ok(Some((length, head)))
}

/// The fields that say where a request ends, and what becomes of its connection (RFC 9112 §6, §9.3).
struct FramingFields {
    version: Version,
    length: Option<u64>,
    is_chunked: bool,
    is_closing: bool,
    is_kept: bool,
    awaits_leave: bool,
    takes_trailers: bool,
}

impl FramingFields {
    const fn new(version: Version) -> Self {
        Self {
            version,
            length: None,
            is_chunked: false,
            is_closing: false,
            is_kept: false,
            awaits_leave: false,
            takes_trailers: false,
        }
    }

    /// Takes a field into account. Whether it is to be kept: a length that is said twice is not.
    fn take_in(&mut self, known: Known, value: &[u8]) -> Result<bool, EdgeRefusal> {
        match known {
            Known::TransferEncoding => {
                // HTTP/1.0 knows no codings. A coding besides chunked, or chunked twice, changes what
                // the body means; not all see that in the same way.
                let is_plain = value.eq_ignore_ascii_case(b"chunked");
                if self.version < Version::HTTP_11 || !is_plain || self.is_chunked {
                    return Err(EdgeRefusal::Malformed);
                }
                self.is_chunked = true;
            }
            Known::ContentLength => {
                let length = parse_length(value).ok_or(EdgeRefusal::Malformed)?;
                match self.length.replace(length) {
                    Some(other) if other != length => return Err(EdgeRefusal::Malformed),
                    Some(_) => return Ok(false),
                    None => {}
                }
            }
            Known::Connection => {
                for option in members(value) {
                    self.is_closing |= option.eq_ignore_ascii_case(b"close");
                    self.is_kept |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            Known::Te => self.takes_trailers |= has_member(value, b"trailers"),
            Known::Expect => {
                self.awaits_leave =
                    self.version >= Version::HTTP_11 && value.eq_ignore_ascii_case(b"100-continue");
            }
            _ => {}
        }
        Ok(true)
    }

    fn finish(self, mut request: RequestHead) -> Head {
        let mut is_persistent =
            !self.is_closing && (self.is_kept || self.version >= Version::HTTP_11);
        let body = match (self.is_chunked, self.length) {
            (true, length) => {
                if length.is_some() {
                    // Chunks win, and whoever sent both is not trusted with another request (RFC 9112
                    // §6.3).
                    request.fields.remove(&CONTENT_LENGTH);
                    is_persistent = false;
                }
                Decoder::Chunked(Chunk::Size)
            }
            (false, Some(length)) => Decoder::Length(length),
            (false, None) => Decoder::Ended,
        };
        Head {
            awaits_leave: self.awaits_leave && !body.is_ended(),
            takes_trailers: self.takes_trailers,
            body,
            is_persistent,
            request,
        }
    }
}

/// A length: digits and nothing else.
fn parse_length(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::Name;
    use crate::message::name::HOST;
    use crate::proxy::headers::{Forwarding, write_request};
    use crate::proxy::peer::{Caller, Peer};
    use crate::upstream::http1::upload::Framing;

    const LIMITS: Limits = Limits {
        bytes: 4096,
        fields: 100,
    };

    fn parsed(wire: &[u8]) -> Result<Option<Head>, EdgeRefusal> {
        parse(&mut BytesMut::from(wire), LIMITS)
    }

    /// The head of a POST with these lines.
    fn post(version: &str, lines: &[&str]) -> Result<Head, EdgeRefusal> {
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let head = parsed(format!("POST / HTTP/{version}\r\n{lines}\r\n").as_bytes())?;
        Ok(head.expect("it is complete"))
    }

    #[test]
    fn a_head_says_what_is_asked_of_whom() {
        let wire = b"\r\nGET /a//b?c=%2F HTTP/1.1\r\nHost: a.example\r\nX-Two: 1\r\nx-two:\t2 \r\n\r\nrest";
        let mut buffer = BytesMut::from(&wire[..]);
        let head = parse(&mut buffer, LIMITS);
        let head = head.expect("it is one").expect("it is complete");
        assert_eq!(head.request.method, Method::GET);
        assert_eq!(head.request.uri, "/a//b?c=%2F");
        assert_eq!(head.request.version, Version::HTTP_11);
        assert_eq!(head.request.fields.get(&HOST), Some(&b"a.example"[..]));
        let names: Vec<_> = head.request.fields.iter().map(|field| field.name).collect();
        assert_eq!(names, [&b"Host"[..], b"X-Two", b"x-two"]);
        let two = Name::from(&http::HeaderName::from_static("x-two"));
        let twice: Vec<_> = head.request.fields.get_all(&two).collect();
        assert_eq!(twice, [b"1", b"2"]);
        assert!(head.is_persistent && head.body.is_ended());
        assert_eq!(buffer, "rest");
    }

    #[test]
    fn what_cannot_become_a_head_is_refused() {
        for wire in [
            &b"GET / HTTP/2.0\r\n\r\n"[..],
            b"GET  / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1 \r\n\r\n",
            b"G T / HTTP/1.1\r\n\r\n",
            b"GET /\x01 HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nA : b\r\n\r\n",
            b"GET / HTTP/1.1\r\n A: b\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: \0\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n",
            b"GET / HTTP/1.1\r\n: b\r\n\r\n",
        ] {
            let refused = parsed(wire).expect_err("it is none");
            assert_eq!(refused, EdgeRefusal::Malformed, "{}", wire.escape_ascii());
        }
    }

    #[test]
    fn a_head_larger_than_it_may_be_is_refused_also_while_it_comes() {
        let long = format!("GET / HTTP/1.1\r\nA: {}", "b".repeat(LIMITS.bytes));
        for end in ["", "\r\n\r\n"] {
            let refused = parsed(format!("{long}{end}").as_bytes()).expect_err("too large");
            assert_eq!(refused, EdgeRefusal::HeadTooLarge);
        }
        for (count, is_taken) in [(LIMITS.fields, true), (LIMITS.fields + 1, false)] {
            let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(count));
            assert_eq!(parsed(many.as_bytes()).is_ok(), is_taken, "{count}");
        }
        let target = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(MAX_TARGET));
        let limits = Limits {
            bytes: 2 * MAX_TARGET,
            ..LIMITS
        };
        let refused = parse(&mut BytesMut::from(target.as_str()), limits);
        assert_eq!(refused.expect_err("too long"), EdgeRefusal::TargetTooLong);
    }

    #[test]
    fn a_body_ends_where_everybody_thinks_it_ends() {
        let is = |lines: &[&str], expected: &str| {
            let body = post("1.1", lines).map(|head| format!("{:?}", head.body));
            let body = body.unwrap_or_else(|refusal| format!("{refusal:?}"));
            assert_eq!(body, expected, "{lines:?}");
        };
        is(&[], "Ended");
        is(&["Content-Length: 0"], "Length(0)");
        is(&["Content-Length: 05"], "Length(5)");
        is(&["Content-Length: 5", "content-length: 5"], "Length(5)");
        is(&["Transfer-Encoding: chunked"], "Chunked(Size)");
        is(&["Transfer-Encoding: CHUNKED"], "Chunked(Size)");
        for lines in [
            &["Content-Length: 5", "Content-Length: 6"][..],
            &["Content-Length: 5, 5"],
            &["Content-Length: +5"],
            &["Content-Length: "],
            &["Content-Length: 18446744073709551616"],
            &["Transfer-Encoding: gzip"],
            &["Transfer-Encoding: gzip, chunked"],
            &["Transfer-Encoding: chunked, chunked"],
            &["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
            &["Transfer-Encoding: identity"],
            &["Transfer-Encoding: chunked", "Content-Length: x"],
        ] {
            is(lines, "Malformed");
        }
        let old = post("1.0", &["Transfer-Encoding: chunked"]);
        assert_eq!(old.expect_err("1.0 knows none"), EdgeRefusal::Malformed);
    }

    #[test]
    fn chunks_beside_a_length_are_the_last_on_their_connection() {
        for lines in [
            ["Content-Length: 5", "Transfer-Encoding: chunked"],
            ["Transfer-Encoding: chunked", "Content-Length: 5"],
        ] {
            let head = post("1.1", &lines).expect("chunks win");
            assert!(!head.is_persistent);
            assert!(!head.request.fields.contains(&CONTENT_LENGTH));
        }
    }

    #[test]
    fn a_connection_goes_on_as_its_version_has_it_unless_the_client_says_otherwise() {
        for (version, lines, goes_on) in [
            ("1.1", &[][..], true),
            ("1.1", &["Connection: close"], false),
            ("1.1", &["Connection: x, Close"], false),
            (
                "1.1",
                &["Connection: close", "Connection: keep-alive"],
                false,
            ),
            ("1.0", &[], false),
            ("1.0", &["Connection: Keep-Alive"], true),
            ("1.0", &["Connection: keep-alive, close"], false),
        ] {
            let head = post(version, lines).expect("it is one");
            assert_eq!(head.is_persistent, goes_on, "{version} {lines:?}");
        }
    }

    #[test]
    fn leave_is_awaited_only_where_there_is_a_body_to_wait_with() {
        let awaits =
            |version, lines: &[&str]| post(version, lines).expect("it is one").awaits_leave;
        assert!(awaits(
            "1.1",
            &["Expect: 100-Continue", "Content-Length: 1"]
        ));
        assert!(!awaits("1.1", &["Expect: 100-continue"]));
        assert!(!awaits("1.1", &["Expect: else", "Content-Length: 1"]));
        assert!(!awaits(
            "1.0",
            &["Expect: 100-continue", "Content-Length: 1"]
        ));
    }

    proptest! {
        #[test]
        fn wherever_reads_end_the_same_head_is_found(
            wire in "(GET|POST) /[a-z?=%]{0,9} HTTP/1\\.[01]\r\n([A-Za-z-]{1,9}: [ -~]{0,9}\r\n){0,4}\r\n",
            cut in any::<prop::sample::Index>(),
        ) {
            let whole = parsed(wire.as_bytes()).map(|head| head.map(|head| format!("{:?}", head.request.fields)));
            let cut = cut.index(wire.len());
            let mut buffer = BytesMut::from(&wire.as_bytes()[..cut]);
            match parse(&mut buffer, LIMITS) {
                Ok(None) => {
                    buffer.extend_from_slice(&wire.as_bytes()[cut..]);
                    let head = parse(&mut buffer, LIMITS);
                    prop_assert_eq!(head.map(|head| head.map(|head| format!("{:?}", head.request.fields))), whole);
                }
                // What is wrong in the part is wrong in the whole.
                Err(_) => prop_assert!(whole.is_err()),
                Ok(Some(_)) => prop_assert!(false, "a part is no head"),
            }
        }

        /// From a client's bytes to its upstream's, beside the plainest reading of them.
        #[test]
        fn lines_however_they_are_written_reach_the_upstream_in_one_spelling(
            lines in prop::collection::vec(
                (
                    prop::sample::select(vec![
                        "x-a", "X-A", "x-B", "ACCEPT", "cookie", "x_y", "Connection", "Keep-Alive",
                        "X-Forwarded-For", "x_forwarded_for", "Forwarded", "Cutover-Arm", "TE", "Upgrade",
                        "HTTP2-settings", "x-gone", "X-Request-Id",
                    ]),
                    prop::sample::select(vec![":", ": ", ":  ", ":\t"]),
                    "([!-~][ -~]{0,6}[!-~])?",
                    prop::sample::select(vec!["\r\n", "\n", " \r\n", "\t\n"]),
                ),
                0..12,
            ),
        ) {
            const STAYS: [&str; 11] = [
                "connection", "keep-alive", "x-forwarded-for", "x_forwarded_for", "forwarded",
                "cutover-arm", "te", "upgrade", "http2-settings", "transfer-encoding", "host",
            ];
            let wire: String = lines
                .iter()
                .map(|(name, colon, value, end)| format!("{name}{colon}{value}{end}"))
                .collect();
            let wire = format!("GET / HTTP/1.1\r\nHost: a\r\n{wire}\r\n");
            let mut buffer = BytesMut::from(wire.as_bytes());
            let head = parse(&mut buffer, LIMITS).expect("it is one").expect("it is complete");
            let peer = Peer {
                address: "192.0.2.1:5".parse().expect("an address"),
                secure: false,
            };
            let forwarding = Forwarding {
                caller: &Caller::new(peer, &[]),
                authority: "a",
                framing: Framing::None,
                via: None,
                is_replay: false,
                upgrade: None,
            };
            let written = write_request(BytesMut::new(), &head.request, forwarding);
            let written = String::from_utf8(written.to_vec()).expect("text");
            let nominated: Vec<String> = lines
                .iter()
                .filter(|(name, ..)| *name == "Connection")
                .flat_map(|(_, _, value, _)| value.split(','))
                .map(|option| option.trim().to_ascii_lowercase())
                .collect();
            let kept = lines.iter().filter(|(name, ..)| {
                let name = name.to_ascii_lowercase();
                let is_nominated = nominated.contains(&name) && name != "x-request-id";
                !STAYS.contains(&name.as_str()) && !is_nominated
            });
            let kept = kept.map(|(name, _, value, _)| format!("{name}: {value}\r\n"));
            let ours = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\n";
            let trailers = match written.contains("\r\nTE: trailers\r\n") {
                true => "TE: trailers\r\nConnection: TE\r\n",
                false => "",
            };
            let kept: String = kept.collect();
            let expected = format!("GET / HTTP/1.1\r\nHost: a\r\n{kept}{ours}{trailers}\r\n");
            prop_assert_eq!(written, expected);
        }

        #[test]
        fn whatever_bytes_come_nothing_panics_and_no_more_is_taken_than_the_head(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut buffer = BytesMut::from(&bytes[..]);
            if let Ok(Some(_)) = parse(&mut buffer, LIMITS) {
                prop_assert!(bytes.ends_with(&buffer));
            }
        }
    }
}
