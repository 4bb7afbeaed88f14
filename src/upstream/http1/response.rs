//! Reading the head of an upstream's answer.
//!
//! What is not plainly HTTP/1 is refused here, so that nothing behind this module has to wonder which
//! of two lengths counts.

use std::mem::MaybeUninit;

use bytes::{Buf, BytesMut};
use http::{HeaderValue, Method, StatusCode};

use crate::message::name::{CONNECTION, CONTENT_LENGTH, UPGRADE};
use crate::message::{Fields, Known, Response};
use crate::upstream::list::{has_member, members};

use super::decode::{Chunk, Decoder};

/// Largest head accepted.
pub const MAX_HEAD: usize = 64 * 1024;
/// Most fields accepted.
const MAX_FIELDS: usize = 128;
/// Most fields that a `Connection` may name as its own: each is compared with all the others.
const MOST_NOMINATED: usize = 64;

/// The head of an answer, and how its body is framed.
#[derive(Debug)]
pub struct ResponseHead {
    /// The status as received.
    pub status: StatusCode,
    /// The end-to-end fields in their order; what concerns the connection is left out.
    pub fields: Fields,
    /// How the end of the body is found.
    pub body: Decoder,
    /// Whether the upstream will keep the connection open afterwards.
    pub persistent: bool,
}

impl ResponseHead {
    /// A switch of protocols, if it is to one that was offered.
    fn switched(mut self, offered: Option<&HeaderValue>) -> Result<Self, InvalidHead> {
        let offered = offered.map_or(&[][..], HeaderValue::as_bytes);
        let chosen = self.fields.get(&UPGRADE);
        if !chosen.is_some_and(|chosen| is_choice(chosen, offered)) {
            return Err(InvalidHead::UnaskedUpgrade);
        }
        self.fields.insert(&CONNECTION, b"Upgrade");
        Ok(self)
    }
}

/// Whether `chosen` names anything, and nothing but what was offered.
fn is_choice(chosen: &[u8], offered: &[u8]) -> bool {
    let mut chosen = members(chosen).peekable();
    chosen.peek().is_some() && chosen.all(|protocol| has_member(offered, protocol))
}

/// What the upstream sent is no HTTP/1 head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHead {
    /// Not HTTP, or a field breaks the grammar.
    #[error("the upstream's answer is not HTTP/1")]
    Syntax,
    /// More fields or bytes than accepted.
    #[error("the head of the upstream's answer is too large")]
    TooLarge,
    /// Two lengths that disagree, or a length that is no number.
    #[error("the upstream's answer has contradictory lengths")]
    Length,
    /// 101 although no upgrade was asked for, or not this one.
    #[error("the upstream switched protocols unasked")]
    UnaskedUpgrade,
}

/// Most informational answers that may precede one. Who says more says them without end, and would
/// keep a thread busy with reading them.
pub const MOST_INFORMATIONAL: u32 = 1000;

/// The head of an answer.
#[derive(Debug)]
pub enum Heard {
    /// One that precedes the real one, and has no body (RFC 9110 §15.2).
    Informational(Response<()>),
    /// The real one.
    Final(ResponseHead),
}

/// Takes the head of an answer out of `buffer`; `None` if it is not complete yet. A switch to one of
/// the protocols in `upgrade` is final.
///
/// # Errors
/// [`InvalidHead`] when no amount of further bytes can make it valid.
pub fn parse(
    buffer: &mut BytesMut,
    method: &Method,
    upgrade: Option<&HeaderValue>,
) -> Result<Option<Heard>, InvalidHead> {
    let Some(head) = parse_one(buffer, method)? else {
        return Ok(None);
    };
    Ok(Some(match head.status {
        StatusCode::SWITCHING_PROTOCOLS => Heard::Final(head.switched(upgrade)?),
        status if status.is_informational() => Heard::Informational(Response {
            status,
            fields: head.fields,
            body: (),
        }),
        _ => Heard::Final(head),
    }))
}

fn parse_one(buffer: &mut BytesMut, method: &Method) -> Result<Option<ResponseHead>, InvalidHead> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        buffer,
        &mut fields,
    );
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
        Ok(httparse::Status::Partial) if buffer.len() < MAX_HEAD => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(InvalidHead::TooLarge),
        Err(_) => return Err(InvalidHead::Syntax),
    };
    let (Some(code), Some(version)) = (response.code, response.version) else {
        return Err(InvalidHead::Syntax);
    };
    let status = StatusCode::from_u16(code).map_err(|_| InvalidHead::Syntax)?;
    let mut reading = Reading::new(version, &buffer[..length], response.headers.len());
    let start = buffer.as_ptr().addr();
    let place = |part: &[u8]| (part.as_ptr().addr() - start, part.len());
    for field in response.headers.iter() {
        let name = field.name.as_bytes();
        reading.add(name, place(name), field.value, place(field.value))?;
    }
    let head = reading.finish(status, method)?;
    buffer.advance(length);
    Ok(Some(head))
}

/// The fields of a head while they are read: those that concern only this connection are
/// understood and left out, the rest is collected.
struct Reading {
    end_to_end: Fields,
    length: Option<u64>,
    codings: u8,
    is_chunked: bool,
    is_old: bool,
    is_persistent: bool,
    is_closing: bool,
    nominated: Vec<Vec<u8>>,
    /// What the upstream switches to, or would.
    upgrade: Option<Vec<u8>>,
}

impl Reading {
    fn new(version: u8, text: &[u8], count: usize) -> Self {
        Self {
            end_to_end: Fields::of_text(text, count),
            length: None,
            codings: 0,
            is_chunked: false,
            is_old: version == 0,
            // The default of HTTP/1.1; on request in 1.0.
            is_persistent: version == 1,
            is_closing: false,
            nominated: Vec::new(),
            upgrade: None,
        }
    }

    fn add(
        &mut self,
        name: &[u8],
        name_at: (usize, usize),
        value: &[u8],
        value_at: (usize, usize),
    ) -> Result<(), InvalidHead> {
        let known = Known::of(name);
        match known {
            Known::Connection => self.add_options(value)?,
            Known::TransferEncoding => {
                self.codings = self.codings.saturating_add(1);
                self.is_chunked = value.eq_ignore_ascii_case(b"chunked");
            }
            Known::ContentLength => {
                let length = parse_length(value)?;
                match self.length.replace(length) {
                    Some(other) if other != length => return Err(InvalidHead::Length),
                    // The same length twice is one length.
                    Some(_) => {}
                    None if value.len() == 1 || !value.starts_with(b"0") => {
                        self.end_to_end.add_received(known, name_at, value_at);
                    }
                    None => {
                        let mut digits = itoa::Buffer::new();
                        let digits = digits.format(length).as_bytes();
                        self.end_to_end.append(&CONTENT_LENGTH, digits);
                    }
                }
            }
            Known::Upgrade => self.upgrade = Some(value.to_vec()),
            // Of HTTP/1.0 times, about one connection.
            Known::Te | Known::KeepAlive | Known::ProxyConnection => {}
            // An upstream must not be able to say which arm has answered.
            Known::Own => {}
            _ => self.end_to_end.add_received(known, name_at, value_at),
        }
        Ok(())
    }

    fn add_options(&mut self, list: &[u8]) -> Result<(), InvalidHead> {
        for option in members(list) {
            if option.eq_ignore_ascii_case(b"close") {
                self.is_closing = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.is_persistent = true;
            } else if self.nominated.len() < MOST_NOMINATED {
                self.nominated.push(option.to_vec());
            } else {
                return Err(InvalidHead::TooLarge);
            }
        }
        Ok(())
    }

    fn finish(mut self, status: StatusCode, method: &Method) -> Result<ResponseHead, InvalidHead> {
        if !self.nominated.is_empty() {
            let is_nominated = |name: &[u8]| {
                let mut nominated = self.nominated.iter();
                nominated.any(|nominated| nominated.eq_ignore_ascii_case(name))
            };
            // The framing is not the upstream's to nominate away.
            self.end_to_end
                .retain(|field| field.known == Known::ContentLength || !is_nominated(field.name));
        }
        if status == StatusCode::SWITCHING_PROTOCOLS
            && let Some(protocol) = self.upgrade.take()
        {
            self.end_to_end.insert(&UPGRADE, &protocol);
        }
        let body = self.framing(status, method)?;
        // Its sender may think that these have a body, and send it when nobody expects it.
        let is_suspect = match status {
            StatusCode::NO_CONTENT => {
                self.end_to_end.remove(&CONTENT_LENGTH);
                self.codings > 0 || self.length.is_some_and(|length| length > 0)
            }
            // HTTP/1.0 knows no codings (RFC 9112 §6.1).
            _ => self.is_old && self.codings > 0,
        };
        let is_persistent = self.is_persistent && !self.is_closing && !is_suspect;
        let persistent = is_persistent && !matches!(body, Decoder::UntilClose);
        Ok(ResponseHead {
            status,
            fields: self.end_to_end,
            body,
            persistent,
        })
    }

    /// How the body is framed: RFC 9112 §6.3, and where two readings are possible, none.
    fn framing(&self, status: StatusCode, method: &Method) -> Result<Decoder, InvalidHead> {
        let bodiless = status.is_informational()
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED
            || *method == Method::HEAD;
        if bodiless {
            return Ok(Decoder::Ended);
        }
        match (self.codings, self.length) {
            (0, Some(length)) => Ok(Decoder::Length(length)),
            (0, None) => Ok(Decoder::UntilClose),
            (1, None) if self.is_chunked => Ok(Decoder::Chunked(Chunk::Size)),
            // A coding besides chunked would have to be undone, and a length next to one is an
            // attempt at smuggling.
            _ => Err(InvalidHead::Length),
        }
    }
}

fn parse_length(digits: &[u8]) -> Result<u64, InvalidHead> {
    if digits.is_empty() || digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(InvalidHead::Length);
    }
    Ok(digits
        .iter()
        .fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(wire: &str) -> Result<Option<ResponseHead>, InvalidHead> {
        let mut buffer = BytesMut::from(wire);
        loop {
            match parse(&mut buffer, &Method::GET, None)? {
                Some(Heard::Final(head)) => return Ok(Some(head)),
                Some(Heard::Informational(_)) => {}
                None => return Ok(None),
            }
        }
    }

    /// What a switch looks like to a client that has offered `websocket` and `chat/2`.
    fn switch(fields: &str) -> Result<ResponseHead, InvalidHead> {
        let offered = HeaderValue::from_static("websocket, chat/2");
        let wire = format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n");
        let mut buffer = BytesMut::from(wire.as_str());
        match parse(&mut buffer, &Method::GET, Some(&offered))? {
            Some(Heard::Final(head)) => Ok(head),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_upstream_switches_only_to_what_was_offered() {
        let fields = "Upgrade: WebSocket\r\nConnection: upgrade, X-Mine\r\nX-Mine: 1\r\n\
                      Sec-WebSocket-Accept: abc\r\n";
        let head = switch(fields).expect("valid");
        let fields = head.fields.into_map();
        let mut fields: Vec<_> = fields.iter().collect();
        fields.sort_by_key(|(name, _)| name.as_str());
        let fields = fields.iter().map(|(name, value)| {
            let value = value.to_str().expect("text");
            format!("{name}: {value}")
        });
        assert_eq!(
            fields.collect::<Vec<_>>(),
            [
                "connection: Upgrade",
                "sec-websocket-accept: abc",
                "upgrade: WebSocket"
            ]
        );
        for fields in ["", "Upgrade: h2c\r\n", "Upgrade: websocket, h2c\r\n"] {
            assert_eq!(
                switch(fields).err(),
                Some(InvalidHead::UnaskedUpgrade),
                "{fields}"
            );
        }
    }

    #[test]
    fn every_framing_is_recognised() {
        let head = |fields: &str| {
            read(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"))
                .expect("valid")
                .expect("complete")
        };
        assert!(matches!(
            head("Content-Length: 5\r\n").body,
            Decoder::Length(5)
        ));
        assert!(matches!(
            head("Transfer-Encoding: chunked\r\n").body,
            Decoder::Chunked(Chunk::Size)
        ));
        assert!(matches!(head("").body, Decoder::UntilClose));
        assert!(!head("").persistent, "only a close ends it");
        assert!(head("Content-Length: 5\r\nContent-Length: 5\r\n").persistent);
        assert!(!head("Content-Length: 5\r\nConnection: Foo, Close\r\n").persistent);
    }

    #[test]
    fn informational_answers_are_skipped_and_an_unasked_upgrade_is_refused() {
        let wire = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
                    HTTP/1.1 204 No Content\r\n\r\n";
        let head = read(wire).expect("valid").expect("complete");
        assert_eq!(head.status, StatusCode::NO_CONTENT);
        assert_eq!(
            read("HTTP/1.1 101 Switching Protocols\r\n\r\n").err(),
            Some(InvalidHead::UnaskedUpgrade)
        );
    }

    #[test]
    fn an_upstream_does_not_speak_in_the_proxys_name() {
        let wire =
            "HTTP/1.1 204 No Content\r\nCutover-Arm: new\r\nCutover-Else: 1\r\nX-Kept: 2\r\n\r\n";
        let head = read(wire).expect("valid").expect("complete");
        let names: Vec<_> = head.fields.iter().map(|field| field.name).collect();
        assert_eq!(names, [b"X-Kept"]);
    }

    #[test]
    fn contradictory_lengths_are_refused() {
        for fields in [
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        ] {
            let answer = read(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"));
            assert_eq!(answer.err(), Some(InvalidHead::Length), "{fields}");
        }
    }

    #[test]
    fn a_connection_whose_next_bytes_could_be_a_body_carries_no_other_request() {
        let head = |wire: &str| read(wire).expect("valid").expect("complete");
        for fields in ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"] {
            let head = head(&format!("HTTP/1.1 204 No Content\r\n{fields}\r\n"));
            assert!(
                matches!(head.body, Decoder::Ended) && !head.persistent,
                "{fields}"
            );
            assert!(head.fields.is_empty(), "a 204 has no length");
        }
        assert!(head("HTTP/1.1 204 No Content\r\n\r\n").persistent);
        let old = "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n";
        assert!(head(&format!("{old}Content-Length: 5\r\n\r\n")).persistent);
        assert!(!head(&format!("{old}Transfer-Encoding: chunked\r\n\r\n")).persistent);
    }

    #[test]
    fn a_length_is_passed_on_in_one_spelling() {
        for (written, meant) in [("005", "5"), ("0", "0"), ("00", "0"), ("50", "50")] {
            let wire = format!("HTTP/1.1 200 OK\r\nContent-Length: {written}\r\n\r\n");
            let head = read(&wire).expect("valid").expect("complete");
            assert_eq!(head.fields.get(&CONTENT_LENGTH), Some(meant.as_bytes()));
        }
    }

    #[test]
    fn a_head_without_end_is_refused_before_it_fills_the_memory() {
        let wire = format!("HTTP/1.1 200 OK\r\nA: {}", "a".repeat(MAX_HEAD));
        assert_eq!(read(&wire).err(), Some(InvalidHead::TooLarge));
        let wire = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(129));
        assert_eq!(read(&wire).err(), Some(InvalidHead::TooLarge));
    }

    #[test]
    fn garbage_is_refused_at_once() {
        for wire in ["SSH-2.0-OpenSSH_9.2\r\n", "HTTP/2 200\r\n\r\n", "\0\0\0"] {
            assert_eq!(read(wire).err(), Some(InvalidHead::Syntax), "{wire}");
        }
    }
}
