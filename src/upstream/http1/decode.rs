//! Where an answer's body ends, and what of it is content.
//!
//! The mistake to avoid is to hand bytes of one answer to the reader of another. So every framing
//! is strict: a chunk size is hexadecimal digits and nothing else, lines end in CRLF, and whatever
//! follows the end of a body makes the connection unfit for reuse.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::reserved::may_trail;

/// Longest line between chunks, its extensions included.
const MAX_CHUNK_LINE: usize = 1024;
/// Most bytes of trailers.
const MAX_TRAILERS: usize = 16 * 1024;
/// Most trailer fields.
const MAX_TRAILER_FIELDS: usize = 64;

/// How the end of a body is found (RFC 9112 §6.3).
#[derive(Debug)]
pub enum Decoder {
    /// This many bytes remain.
    Length(u64),
    /// Chunks, then trailers.
    Chunked(Chunk),
    /// Everything until the connection closes.
    UntilClose,
    /// Nothing more.
    Ended,
}

/// Where within the chunked coding the reader stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Before a size line.
    Size,
    /// This many bytes of the chunk remain.
    Data(u64),
    /// Before the CRLF that ends a chunk's data.
    DataEnd,
    /// Within the trailers.
    Trailers,
}

/// A step of decoding.
#[derive(Debug)]
pub enum Piece {
    /// Content.
    Data(Bytes),
    /// Trailer fields; the body ends with them.
    Trailers(HeaderMap),
    /// The body has ended.
    End,
    /// More bytes are needed.
    Incomplete,
}

/// The peer's framing is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the upstream's chunked coding is malformed")]
pub struct Malformed;

impl Decoder {
    /// Takes the next piece out of `buffer`.
    ///
    /// # Errors
    /// [`Malformed`] when the chunked coding is broken; the connection is then of no use.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Piece, Malformed> {
        match self {
            Decoder::Ended | Decoder::Length(0) => {
                *self = Decoder::Ended;
                Ok(Piece::End)
            }
            _ if buffer.is_empty() => Ok(Piece::Incomplete),
            Decoder::Length(remaining) => Ok(Piece::Data(take(buffer, remaining))),
            Decoder::UntilClose => Ok(Piece::Data(buffer.split().freeze())),
            Decoder::Chunked(_) => self.decode_chunk(buffer),
        }
    }

    /// Whether the body is complete. A length that has run out counts.
    pub fn is_ended(&self) -> bool {
        matches!(self, Decoder::Ended | Decoder::Length(0))
    }

    /// The connection was closed by the peer: is that the body's proper end?
    pub fn close_is_end(&self) -> bool {
        self.is_ended() || matches!(self, Decoder::UntilClose)
    }

    /// Whether the body ends within `bytes`, which stand where the reader does. Takes nothing.
    ///
    /// # Errors
    /// [`Malformed`] when the chunked coding is broken anywhere within them.
    pub fn ends_within(&self, bytes: &[u8]) -> Result<bool, Malformed> {
        let mut chunk = match self {
            Decoder::Ended => return Ok(true),
            Decoder::Length(remaining) => return Ok(bytes.len() as u64 >= *remaining),
            Decoder::UntilClose => return Ok(false),
            Decoder::Chunked(chunk) => *chunk,
        };
        let mut rest = bytes;
        loop {
            let passed = match chunk {
                Chunk::Data(remaining) => usize::try_from(remaining)
                    .ok()
                    .filter(|length| *length <= rest.len())
                    .map(|length| (length, Chunk::DataEnd)),
                Chunk::Trailers => return Ok(parse_trailers(rest)?.is_some()),
                Chunk::Size | Chunk::DataEnd => chunk.framing(rest)?,
            };
            let Some((length, next)) = passed else {
                return Ok(false);
            };
            (rest, chunk) = (&rest[length..], next);
        }
    }

    fn decode_chunk(&mut self, buffer: &mut BytesMut) -> Result<Piece, Malformed> {
        loop {
            let Decoder::Chunked(chunk) = self else {
                return Ok(Piece::End);
            };
            match chunk {
                Chunk::Data(remaining) => {
                    if buffer.is_empty() {
                        return Ok(Piece::Incomplete);
                    }
                    let data = take(buffer, remaining);
                    if *remaining == 0 {
                        *chunk = Chunk::DataEnd;
                    }
                    return Ok(Piece::Data(data));
                }
                Chunk::Size | Chunk::DataEnd => {
                    let Some((length, next)) = chunk.framing(buffer)? else {
                        return Ok(Piece::Incomplete);
                    };
                    buffer.advance(length);
                    *chunk = next;
                }
                Chunk::Trailers => {
                    let Some((length, trailers)) = parse_trailers(buffer)? else {
                        return Ok(Piece::Incomplete);
                    };
                    buffer.advance(length);
                    *self = Decoder::Ended;
                    return Ok(if trailers.is_empty() {
                        Piece::End
                    } else {
                        Piece::Trailers(trailers)
                    });
                }
            }
        }
    }
}

impl Chunk {
    /// The length of what stands at the beginning of `bytes` between two pieces of content, and
    /// what follows it; `None` if it is not all there.
    fn framing(self, bytes: &[u8]) -> Result<Option<(usize, Chunk)>, Malformed> {
        match self {
            Chunk::Size => {
                let Some(end) = find_line_end(bytes, MAX_CHUNK_LINE)? else {
                    return Ok(None);
                };
                let next = match parse_size(&bytes[..end])? {
                    0 => Chunk::Trailers,
                    size => Chunk::Data(size),
                };
                Ok(Some((end + 2, next)))
            }
            Chunk::DataEnd => match bytes.get(..2) {
                Some(b"\r\n") => Ok(Some((2, Chunk::Size))),
                Some(_) => Err(Malformed),
                None => Ok(None),
            },
            Chunk::Data(_) | Chunk::Trailers => Ok(None),
        }
    }
}

/// Takes at most `remaining` bytes and counts them.
fn take(buffer: &mut BytesMut, remaining: &mut u64) -> Bytes {
    let length = usize::try_from(*remaining)
        .unwrap_or(usize::MAX)
        .min(buffer.len());
    *remaining -= length as u64;
    buffer.split_to(length).freeze()
}

/// The position of the next CRLF; a bare line feed is malformed.
fn find_line_end(buffer: &[u8], limit: usize) -> Result<Option<usize>, Malformed> {
    match buffer.iter().position(|byte| *byte == b'\n') {
        Some(0) => Err(Malformed),
        Some(position) if buffer[position - 1] != b'\r' || position > limit => Err(Malformed),
        Some(position) => Ok(Some(position - 1)),
        None if buffer.len() > limit => Err(Malformed),
        None => Ok(None),
    }
}

/// Hexadecimal digits, then possibly an extension, which is dropped.
fn parse_size(line: &[u8]) -> Result<u64, Malformed> {
    let end = line
        .iter()
        .position(|byte| !byte.is_ascii_hexdigit())
        .unwrap_or(line.len());
    let (digits, rest) = line.split_at(end);
    // 15 digits are 2^60 bytes, which no upstream sends and which cannot overflow.
    if digits.is_empty() || digits.len() > 15 {
        return Err(Malformed);
    }
    // White space before an extension is forgiven, as RFC 9112 §7.1.1 says; a second number is none.
    if !matches!(rest.trim_ascii_start().first(), None | Some(b';')) {
        return Err(Malformed);
    }
    if rest.iter().any(|byte| matches!(byte, b'\r' | 0)) {
        return Err(Malformed);
    }
    Ok(digits.iter().fold(0, |size, digit| {
        let value = char::from(*digit).to_digit(16).unwrap_or(0);
        size << 4 | u64::from(value)
    }))
}

/// The trailer section's length and fields, once it is complete, without those that must stand in a
/// head.
fn parse_trailers(buffer: &[u8]) -> Result<Option<(usize, HeaderMap)>, Malformed> {
    if buffer.len() < 2 {
        return Ok(None);
    }
    if &buffer[..2] == b"\r\n" {
        return Ok(Some((2, HeaderMap::new())));
    }
    let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILER_FIELDS];
    let (length, trailers) = match httparse::parse_headers(buffer, &mut fields) {
        Ok(httparse::Status::Complete((length, fields))) => {
            if has_bare_line_feed(&buffer[..length]) {
                return Err(Malformed);
            }
            let mut trailers = HeaderMap::with_capacity(fields.len());
            for field in fields {
                let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed)?;
                let value = HeaderValue::from_bytes(field.value).map_err(|_| Malformed)?;
                if may_trail(&name) {
                    trailers.append(name, value);
                }
            }
            (length, trailers)
        }
        Ok(httparse::Status::Partial) if buffer.len() <= MAX_TRAILERS => return Ok(None),
        Ok(httparse::Status::Partial) | Err(_) => return Err(Malformed),
    };
    Ok(Some((length, trailers)))
}

/// Whether a line ends without a carriage return: not all agree that it does.
fn has_bare_line_feed(bytes: &[u8]) -> bool {
    let before = std::iter::once(&0).chain(bytes);
    before
        .zip(bytes)
        .any(|(before, byte)| *byte == b'\n' && *before != b'\r')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds `wire` in pieces of `step` bytes; returns the content, and what was left over.
    fn decode(
        mut decoder: Decoder,
        wire: &[u8],
        step: usize,
    ) -> Result<(Vec<u8>, usize), Malformed> {
        let mut buffer = BytesMut::new();
        let mut content = Vec::new();
        let mut rest = wire;
        loop {
            match decoder.decode(&mut buffer)? {
                Piece::Data(data) => content.extend_from_slice(&data),
                Piece::Trailers(_) | Piece::End => return Ok((content, buffer.len() + rest.len())),
                Piece::Incomplete if rest.is_empty() => return Ok((content, usize::MAX)),
                Piece::Incomplete => {
                    let (now, later) = rest.split_at(step.min(rest.len()));
                    buffer.extend_from_slice(now);
                    rest = later;
                }
            }
        }
    }

    fn chunked() -> Decoder {
        Decoder::Chunked(Chunk::Size)
    }

    #[test]
    fn chunks_extensions_and_trailers_are_understood_however_they_arrive() {
        let wire = b"5;name=\"v\"\r\nhello\r\n1 \r\n!\r\n0\r\nX-Sum: 1\r\n\r\nNEXT";
        for step in 1..=wire.len() {
            assert_eq!(
                decode(chunked(), wire, step),
                Ok((b"hello!".to_vec(), 4)),
                "{step}"
            );
        }
    }

    #[test]
    fn tricks_with_sizes_and_line_ends_are_malformed() {
        for wire in [
            &b"5\nhello\r\n0\r\n\r\n"[..],
            b"+5\r\nhello\r\n0\r\n\r\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b"\r\nhello",
            b" 5\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhelloXX0\r\n\r\n",
            b"fffffffffffffffff\r\n",
            b"5;a\rb\r\nhello\r\n0\r\n\r\n",
            b"0\r\nbad name: 1\r\n\r\n",
        ] {
            for step in [1, wire.len()] {
                assert_eq!(decode(chunked(), wire, step), Err(Malformed), "{wire:?}");
            }
        }
    }

    #[test]
    fn a_look_ahead_finds_what_decoding_would_find() {
        for wire in [
            &b"5\r\nhello\r\n0\r\n\r\nNEXT"[..],
            b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
            b"5\r\nhello\r\nfive\r\n",
            b"5\r\nhelloXX0\r\n\r\n",
            b"0\r\nbad name: 1\r\n\r\n",
        ] {
            for end in 0..=wire.len() {
                let ends = chunked().ends_within(&wire[..end]);
                let decoded = decode(chunked(), &wire[..end], wire.len());
                assert_eq!(ends, decoded.map(|(_, left)| left != usize::MAX), "{end}");
            }
        }
    }

    #[test]
    fn a_length_ends_exactly() {
        let (content, left) = decode(Decoder::Length(3), b"abcdef", 6).expect("well formed");
        assert_eq!((content.as_slice(), left), (&b"abc"[..], 3));
    }

    proptest! {
        #[test]
        fn what_a_chunked_sender_sends_is_what_is_read(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 0..8),
            step in 1_usize..300,
        ) {
            let mut wire = Vec::new();
            for piece in &pieces {
                wire.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                wire.extend_from_slice(piece);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            prop_assert_eq!(decode(chunked(), &wire, step), Ok((pieces.concat(), 0)));
        }

        #[test]
        fn no_bytes_make_it_panic(
            wire in prop::collection::vec(any::<u8>(), 0..300),
            step in 1_usize..40,
        ) {
            let _ = decode(chunked(), &wire, step);
        }
    }
}
