//! A client that speaks HTTP/2 frame by frame.
//!
//! A library refuses to send what an attacker would. Header blocks are literals without Huffman
//! coding; of the proxy's answers only the status is decoded, which is always their first field.

use std::net::SocketAddr;

use super::client::Raw;

/// Frame types (RFC 9113 §6).
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

/// Flags of frames.
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
/// Of PING and SETTINGS: it answers one.
pub(crate) const ACK: u8 = 1;

/// Error codes (RFC 9113 §7).
pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER_TABLE_SIZE: u16 = 1;
const INITIAL_WINDOW_SIZE: u16 = 4;
/// What the connection's window begins with, whatever the settings say.
const FIRST_WINDOW: u32 = 65_535;
/// The largest window there is.
const FULL_WINDOW: u32 = (1 << 31) - 1;

/// A client with one connection.
pub(crate) struct Frames {
    raw: Raw,
}

/// A frame of the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Such as [`DATA`].
    pub(crate) kind: u8,
    /// Such as [`END_STREAM`].
    pub(crate) flags: u8,
    /// 0 is the connection.
    pub(crate) stream: u32,
    /// What it carries.
    pub(crate) payload: Vec<u8>,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was answered with this status and so many bytes.
    Answered(u16, usize),
    /// Its stream was reset with this code.
    Reset(u32),
    /// The connection ended, with this code if the proxy gave one.
    Gone(Option<u32>),
}

impl Frames {
    /// Connects, and takes whatever is sent.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let mut client = Self::with_window(address, FULL_WINDOW).await;
        let more = FULL_WINDOW - FIRST_WINDOW;
        client.grant(0, more).await;
        client
    }

    /// Connects, and takes `window` bytes of each stream, 65,535 of all together.
    pub(crate) async fn with_window(address: SocketAddr, window: u32) -> Self {
        let mut raw = Raw::connect(address).await;
        let mut settings = Vec::new();
        for (setting, value) in [(HEADER_TABLE_SIZE, 0), (INITIAL_WINDOW_SIZE, window)] {
            settings.extend_from_slice(&setting.to_be_bytes());
            settings.extend_from_slice(&value.to_be_bytes());
        }
        raw.write([PREFACE, &frame(SETTINGS, 0, 0, &settings)].concat())
            .await;
        Self { raw }
    }

    /// Sends frames.
    pub(crate) async fn write(&mut self, frames: impl AsRef<[u8]>) {
        self.raw.write(frames).await;
    }

    /// Sends as much of this as is taken until nothing more is for a while.
    pub(crate) async fn write_until_stuck(&mut self, frames: &[u8]) -> usize {
        self.raw.write_until_stuck(frames).await
    }

    /// Lets the proxy send this many bytes more.
    pub(crate) async fn grant(&mut self, stream: u32, bytes: u32) {
        let payload = bytes.to_be_bytes();
        self.write(frame(WINDOW_UPDATE, 0, stream, &payload)).await;
    }

    /// Asks for something with these fields and no body.
    pub(crate) async fn ask(&mut self, stream: u32, fields: &[Field<'_>]) {
        self.write(headers(stream, END_STREAM, fields)).await;
    }

    /// After `case` the connection goes on: whoever asks for `/beside` on `stream` is answered.
    pub(crate) async fn goes_on(&mut self, stream: u32, case: &str) {
        self.ask(stream, &get("/beside")).await;
        let beside = self.outcome(stream).await;
        assert!(
            matches!(beside, Outcome::Answered(200, _)),
            "{case}: {beside:?}"
        );
    }

    /// The next frame; none when the connection has ended.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        let head = self.raw.read(9).await;
        let [a, b, c, kind, flags, s, t, u, v] = head[..] else {
            return None;
        };
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let payload = self.raw.read(length).await;
        (payload.len() == length).then(|| Frame {
            kind,
            flags,
            stream: u32::from_be_bytes([s, t, u, v]),
            payload,
        })
    }

    /// Goes along with the proxy's farewell, until streams beyond `last` are taken no more.
    pub(crate) async fn is_refused_from(&mut self, last: u32) {
        while let Some(frame) = self.next().await {
            match frame.kind {
                PING if frame.flags & ACK == 0 => {
                    self.write(self::frame(PING, ACK, 0, &frame.payload)).await;
                }
                GOAWAY if frame.payload[..4] == last.to_be_bytes() => return,
                _ => {}
            }
        }
        panic!("the connection ended without a farewell");
    }

    /// Answers the proxy's pings and nothing else, until the connection ends.
    pub(crate) async fn stays_to_the_end(&mut self) {
        while let Some(frame) = self.next().await {
            if frame.kind == PING && frame.flags & ACK == 0 {
                self.write(self::frame(PING, ACK, 0, &frame.payload)).await;
            }
        }
    }

    /// What becomes of the request on `stream`; what is said of others is lost.
    pub(crate) async fn outcome(&mut self, stream: u32) -> Outcome {
        let mut answered = None;
        let mut length = 0;
        let mut reason = None;
        while let Some(frame) = self.next().await {
            let code = |from: usize| {
                let bytes = frame.payload.get(from..from + 4);
                let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
                u32::from_be_bytes(bytes.expect("an error has a code"))
            };
            match frame.kind {
                GOAWAY if code(4) != 0 => reason = Some(code(4)),
                RST_STREAM if frame.stream == stream && answered.is_none() => {
                    return Outcome::Reset(code(0));
                }
                HEADERS if frame.stream == stream => {
                    answered.get_or_insert_with(|| status(&frame.payload));
                }
                DATA if frame.stream == stream => length += frame.payload.len(),
                _ => {}
            }
            let is_message = matches!(frame.kind, DATA | HEADERS) && frame.stream == stream;
            if let Some(status) = answered
                && is_message
                && frame.flags & END_STREAM != 0
            {
                return Outcome::Answered(status, length);
            }
        }
        Outcome::Gone(reason)
    }
}

/// A field's name and value; those of the request line begin with a colon.
pub(crate) type Field<'text> = (&'text str, &'text [u8]);

/// The fields of a GET of `target`, without any that need not be.
pub(crate) fn get(target: &str) -> Vec<Field<'_>> {
    asking("GET", target)
}

/// The fields of a request for `target`, without any that need not be.
pub(crate) fn asking<'text>(method: &'text str, target: &'text str) -> Vec<Field<'text>> {
    vec![
        (":method", method.as_bytes()),
        (":scheme", b"http"),
        (":authority", b"api.example"),
        (":path", target.as_bytes()),
    ]
}

/// A frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("frames are short");
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A HEADERS frame that needs no continuation.
pub(crate) fn headers(stream: u32, flags: u8, fields: &[Field<'_>]) -> Vec<u8> {
    frame(HEADERS, flags | END_HEADERS, stream, &block(fields))
}

/// A DATA frame.
pub(crate) fn data(stream: u32, flags: u8, bytes: &[u8]) -> Vec<u8> {
    frame(DATA, flags, stream, bytes)
}

/// A RST_STREAM frame that says that the request is not wanted any more.
pub(crate) fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

/// Fields as literals that neither side remembers.
pub(crate) fn block(fields: &[Field<'_>]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name.as_bytes(), value] {
            integer(&mut block, 0, 7, text.len());
            block.extend_from_slice(text);
        }
    }
    block
}

/// An integer in the lower `bits` of a byte that begins with `start`, and in as many more as it
/// needs (RFC 7541 §5.1).
pub(crate) fn integer(block: &mut Vec<u8>, start: u8, bits: u32, value: usize) {
    let limit = (1_usize << bits) - 1;
    let byte = |value: usize| u8::try_from(value).expect("it is cut to seven bits");
    if value < limit {
        block.push(start | byte(value));
        return;
    }
    block.push(start | byte(limit));
    let mut rest = value - limit;
    while rest >= 128 {
        block.push(byte(rest % 128) | 128);
        rest /= 128;
    }
    block.push(byte(rest));
}

/// The status with which a header block begins.
fn status(block: &[u8]) -> u16 {
    // The proxy obeys the wish for a table of no size in its first block.
    let begins = block.iter().position(|byte| byte & 0xe0 != 0x20);
    let block = &block[begins.expect("a block has fields")..];
    match block[0] {
        indexed @ 0x88..=0x8e => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
        _ => {
            let length = usize::from(block[1] & 0x7f);
            let text = &block[2..2 + length];
            match block[1] & 0x80 {
                0 => text
                    .iter()
                    .fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0')),
                _ => digits(text),
            }
        }
    }
}

/// Digits in the Huffman code of RFC 7541, where 0 to 2 have five bits and the others six.
fn digits(text: &[u8]) -> u16 {
    let bits = text
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
    let mut number = 0;
    let mut code = 0;
    let mut length = 0;
    for bit in bits {
        code = code << 1 | u16::from(bit);
        length += 1;
        let digit = match (length, code) {
            (5, 0..=2) => code,
            (6, 0b01_1001..=0b01_1111) => code - 0b01_1001 + 3,
            _ => continue,
        };
        number = number * 10 + digit;
        (code, length) = (0, 0);
    }
    number
}
