//! Writing the head of an answer, and deciding how its body ends.
//!
//! Names are written as they were received.

use bytes::{BufMut, BytesMut};
use http::{Method, StatusCode, Version};
use http_body::SizeHint;

use crate::message::name::{CONTENT_LENGTH, DATE};
use crate::message::{Fields, Known, Response};
use crate::upstream::http1::request::write_field;

use super::head::Head;

/// Room that most heads do with.
const USUAL_HEAD: usize = 512;

/// What of a request decides how its answer is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) is_head: bool,
    pub(super) version: Version,
    /// Whether the connection goes on behind the answer, as far as the client is concerned.
    pub(super) is_persistent: bool,
    pub(super) takes_trailers: bool,
}

impl Asked {
    /// What a request says.
    pub(super) fn in_request(head: &Head) -> Self {
        Self {
            is_head: head.request.method == Method::HEAD,
            version: head.request.version,
            is_persistent: head.is_persistent,
            takes_trailers: head.takes_trailers,
        }
    }

    /// What is to be assumed of what is no request.
    pub(super) const fn in_vain() -> Self {
        Self {
            is_head: false,
            version: Version::HTTP_11,
            is_persistent: false,
            takes_trailers: false,
        }
    }
}

/// How the end of an answer's body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none, whatever the head says.
    Nothing,
    /// This many bytes are to come.
    Length(u64),
    Chunked,
    /// The connection's end is the body's.
    UntilClose,
}

/// Writes a head. Returns how the body is framed, and whether the connection ends behind it.
pub(super) fn write_head(
    out: &mut BytesMut,
    status: StatusCode,
    fields: &Fields,
    body: &SizeHint,
    asked: Asked,
    date: &[u8],
) -> (Framing, bool) {
    out.reserve(USUAL_HEAD);
    write_line(out, status, asked.version);
    let announced = fields.get(&CONTENT_LENGTH);
    let framing = framing(status, announced, body, asked);
    let length = length_told(framing, status, announced, body, asked);
    let is_switch = status == StatusCode::SWITCHING_PROTOCOLS;
    let mut is_last = is_switch || !asked.is_persistent || framing == Framing::UntilClose;
    let mut is_dated = false;
    let mut digits = itoa::Buffer::new();
    let length = length.map(|length| digits.format(length).as_bytes());
    // What an upstream has announced stays where it stands, if it is true.
    let is_true = length.is_some() && length == announced;
    let mut has_length = false;
    fields.write(out, |field| match field.known {
        Known::Connection if !is_switch => {
            is_last |= field.value.eq_ignore_ascii_case(b"close");
            false
        }
        Known::ContentLength => is_true && !std::mem::replace(&mut has_length, true),
        // It tells which trailers follow a body; only chunks have any.
        Known::Trailer => framing == Framing::Chunked,
        Known::Date => {
            is_dated = true;
            true
        }
        _ => true,
    });
    if let Some(length) = length.filter(|_| !is_true) {
        write_field(out, &CONTENT_LENGTH, length);
    }
    if framing == Framing::Chunked {
        out.put_slice(b"Transfer-Encoding: chunked\r\n");
    }
    match is_last {
        _ if is_switch => {}
        true => out.put_slice(b"Connection: close\r\n"),
        false if asked.version < Version::HTTP_11 => out.put_slice(b"Connection: keep-alive\r\n"),
        false => {}
    }
    if !is_dated {
        write_field(out, &DATE, date);
    }
    out.put_slice(b"\r\n");
    (framing, is_last)
}

/// Writes what precedes an answer. It has no body, says nothing of the connection, and begins no
/// session: the answer may come from somebody else.
pub(super) fn write_foreword(out: &mut BytesMut, answer: &Response<()>) {
    write_line(out, answer.status, Version::HTTP_11);
    answer.fields.write(out, |field| {
        !matches!(
            field.known,
            Known::ContentLength | Known::Trailer | Known::SetCookie | Known::XRequestId
        )
    });
    out.put_slice(b"\r\n");
}

fn write_line(out: &mut BytesMut, status: StatusCode, version: Version) {
    if status == StatusCode::OK && version >= Version::HTTP_11 {
        return out.put_slice(b"HTTP/1.1 200 OK\r\n");
    }
    // Whoever speaks 1.0 may take the other for something that it does not know.
    out.put_slice(match version {
        Version::HTTP_10 => b"HTTP/1.0 ",
        _ => b"HTTP/1.1 ",
    });
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    let reason = status.canonical_reason().unwrap_or_default();
    out.put_slice(reason.as_bytes());
    out.put_slice(b"\r\n");
}

/// How the end of the body is told (RFC 9112 §6.3).
fn framing(status: StatusCode, announced: Option<&[u8]>, body: &SizeHint, asked: Asked) -> Framing {
    let is_bodiless = asked.is_head
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if is_bodiless {
        return Framing::Nothing;
    }
    // An upstream that speaks HTTP/2 may announce a length, which its frames then have.
    match body.exact().or_else(|| number(announced)) {
        Some(length) => Framing::Length(length),
        None if asked.version >= Version::HTTP_11 => Framing::Chunked,
        None => Framing::UntilClose,
    }
}

/// The length of what is not sent, where an answer may tell it: of use all the same.
fn unsent_length(
    status: StatusCode,
    announced: Option<&[u8]>,
    body: &SizeHint,
    asked: Asked,
) -> Option<u64> {
    if !asked.is_head && status != StatusCode::NOT_MODIFIED {
        return None;
    }
    // An upstream that leaves its body out announces a length or keeps silent; ours are there.
    let own = || body.exact().filter(|length| *length > 0);
    number(announced).or_else(own)
}

/// How long the body is, or would be, as far as the answer tells.
fn length_told(
    framing: Framing,
    status: StatusCode,
    announced: Option<&[u8]>,
    body: &SizeHint,
    asked: Asked,
) -> Option<u64> {
    match framing {
        Framing::Length(length) => Some(length),
        Framing::Nothing => unsent_length(status, announced, body, asked),
        Framing::Chunked | Framing::UntilClose => None,
    }
}

/// A length as a number.
fn number(announced: Option<&[u8]>) -> Option<u64> {
    std::str::from_utf8(announced?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Name;

    const ASKED: Asked = Asked {
        is_head: false,
        version: Version::HTTP_11,
        is_persistent: true,
        takes_trailers: false,
    };

    /// The head of an answer, without its date, and how the body ends.
    fn head(
        status: u16,
        fields: &[(&'static str, &str)],
        length: Option<u64>,
        asked: Asked,
    ) -> (String, Framing, bool) {
        let status = StatusCode::from_u16(status).expect("a status");
        let mut kept = Fields::default();
        for (name, value) in fields {
            let name = Name::from(&http::HeaderName::from_static(name));
            kept.append(&name, value.as_bytes());
        }
        let hint = length.map_or_else(SizeHint::default, SizeHint::with_exact);
        let mut out = BytesMut::new();
        let (framing, is_last) = write_head(&mut out, status, &kept, &hint, asked, b"now");
        let head = String::from_utf8(out.to_vec()).expect("text");
        let head = head.strip_suffix("Date: now\r\n\r\n").expect("a date");
        (head.to_owned(), framing, is_last)
    }

    #[test]
    fn an_answer_says_how_its_body_ends() {
        let old = Asked {
            version: Version::HTTP_10,
            ..ASKED
        };
        let told = [("content-length", "5")];
        let five = (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
            Framing::Length(5),
            false,
        );
        let chunked = (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n",
            Framing::Chunked,
            false,
        );
        let to_the_end = (
            "HTTP/1.0 200 OK\r\nConnection: close\r\n",
            Framing::UntilClose,
            true,
        );
        let kept = "HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n";
        for (fields, length, asked, expected) in [
            (&[][..], Some(5), ASKED, five),
            (&told, Some(5), ASKED, five),
            (&told, None, ASKED, five),
            (&[], None, ASKED, chunked),
            (&[], None, old, to_the_end),
            (&[], Some(0), old, (kept, Framing::Length(0), false)),
        ] {
            let (head, framing, is_last) = head(200, fields, length, asked);
            assert_eq!((head.as_str(), framing, is_last), expected);
        }
    }

    #[test]
    fn what_has_no_body_keeps_the_length_that_it_would_have() {
        let head_request = Asked {
            is_head: true,
            ..ASKED
        };
        let told = [("content-length", "5")];
        for (status, fields, length, asked, line) in [
            (
                200,
                &told[..],
                Some(0),
                head_request,
                "Content-Length: 5\r\n",
            ),
            // An answer of ours, whose body is left out.
            (404, &[], Some(9), head_request, "Content-Length: 9\r\n"),
            (200, &[], Some(0), head_request, ""),
            (304, &told, Some(0), ASKED, "Content-Length: 5\r\n"),
            (204, &told, Some(0), ASKED, ""),
            (204, &[], Some(0), ASKED, ""),
        ] {
            let (head, framing, is_last) = head(status, fields, length, asked);
            let (_, fields) = head.split_once("\r\n").expect("a line");
            assert_eq!(
                (fields, framing, is_last),
                (line, Framing::Nothing, false),
                "{status}"
            );
        }
    }

    #[test]
    fn the_last_answer_says_so_whoever_wants_it() {
        let close = [("connection", "close")];
        let leaving = Asked {
            is_persistent: false,
            ..ASKED
        };
        for (fields, asked) in [(&close[..], ASKED), (&[], leaving), (&close, leaving)] {
            let (head, _, is_last) = head(200, fields, Some(0), asked);
            assert!(
                is_last && head.matches("Connection: close\r\n").count() == 1,
                "{head}"
            );
        }
    }

    #[test]
    fn a_switch_keeps_what_it_says_of_the_connection() {
        let fields = [("connection", "Upgrade"), ("upgrade", "websocket")];
        let (head, framing, _) = head(101, &fields, Some(0), ASKED);
        assert!(
            head.contains("Connection: Upgrade\r\nUpgrade: websocket\r\n"),
            "{head}"
        );
        assert_eq!(framing, Framing::Nothing);
    }

    #[test]
    fn trailers_are_announced_only_where_they_can_follow() {
        let fields = [("trailer", "X-Sum")];
        assert!(
            head(200, &fields, None, ASKED)
                .0
                .contains("Trailer: X-Sum\r\n")
        );
        assert!(!head(200, &fields, Some(5), ASKED).0.contains("Trailer"));
    }
}
