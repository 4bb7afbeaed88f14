//! The PROXY protocol: what a balancer that passes bytes on says first about the client it speaks
//! for.
//!
//! Version 1 is a line of text, version 2 a binary header, told apart by their first byte. Both are
//! read here, as a function of bytes, and nothing else is: the mistakes to avoid are to wait for
//! ever for a header that never ends, to take the first bytes of the client for a part of it, and to
//! believe a header that is only almost one. So each version has a longest header, a header is
//! understood whole or refused, and what follows it is never looked at.
//!
//! Addresses of other kinds than TCP over IPv4 or IPv6 say nothing that a proxy of HTTP could use;
//! they count as unknown, as do a balancer's own connections (`LOCAL`, for its health checks). What
//! version 2 carries besides addresses is skipped.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header that is understood: addresses and some kilobytes of what is skipped.
pub const LONGEST: usize = 4096;

/// The longest line of version 1, its end included.
const LONGEST_LINE: usize = 107;
/// How version 1 begins.
const WORD: &[u8] = b"PROXY ";
/// How version 2 begins.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of version 2 before the addresses: signature, version and command, family, length.
const FIXED: usize = 16;

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The client's address; `None` where the balancer speaks for itself or does not know it.
    pub client: Option<SocketAddr>,
    /// How many bytes it takes; what follows is the client's.
    pub length: usize,
}

/// This is not, and will not become, a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no header of the PROXY protocol")]
pub struct Malformed;

/// The header that `bytes` begin with; `None` while more of it must come, which is never the case
/// for [`LONGEST`] bytes or more.
///
/// # Errors
/// [`Malformed`] as soon as it cannot become a header any more.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    if may_begin(bytes, SIGNATURE) {
        parse_binary(bytes)
    } else if may_begin(bytes, WORD) {
        parse_line(bytes)
    } else {
        Err(Malformed)
    }
}

/// Whether `bytes`, which may be only the first that have come, agree with `beginning`.
fn may_begin(bytes: &[u8], beginning: &[u8]) -> bool {
    let compared = bytes.len().min(beginning.len());
    bytes[..compared] == beginning[..compared]
}

fn parse_line(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let line = &bytes[..bytes.len().min(LONGEST_LINE)];
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return if line.len() < LONGEST_LINE {
            Ok(None)
        } else {
            Err(Malformed)
        };
    };
    // The end cannot lie within the first word, which has no line end in it.
    let text = line.get(WORD.len()..end).ok_or(Malformed)?;
    let text = std::str::from_utf8(text).map_err(|_| Malformed)?;
    Ok(Some(Header {
        client: line_client(text).ok_or(Malformed)?,
        length: end + 2,
    }))
}

/// What a line says after its first word; `None` if it is nonsense.
fn line_client(text: &str) -> Option<Option<SocketAddr>> {
    let mut words = text.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        // Whatever stands behind it is to be ignored.
        return Some(None);
    }
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse().ok().map(IpAddr::V4),
            "TCP6" => word.parse().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (client, _own) = (address()?, address()?);
    let (port, _own) = (port(words.next()?)?, port(words.next()?)?);
    words
        .next()
        .is_none()
        .then_some(Some(SocketAddr::new(client, port)))
}

/// A port as the protocol writes it: digits, no sign, no zeros before others.
fn port(word: &str) -> Option<u16> {
    let is_plain = word.bytes().all(|byte| byte.is_ascii_digit());
    let has_leading_zero = word.len() > 1 && word.starts_with('0');
    word.parse().ok().filter(|_| is_plain && !has_leading_zero)
}

fn parse_binary(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    // Refused as soon as it is clear, so that nobody is waited for who cannot be understood.
    let command = match bytes.get(12) {
        None => return Ok(None),
        Some(0x20) => Command::Local,
        Some(0x21) => Command::Proxy,
        Some(_) => return Err(Malformed),
    };
    let Some(&[family, high, low]) = bytes.get(13..).and_then(|rest| rest.first_chunk()) else {
        return Ok(None);
    };
    let length = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if length > LONGEST {
        return Err(Malformed);
    }
    let Some(content) = bytes.get(FIXED..length) else {
        return Ok(None);
    };
    let client = match command {
        Command::Local => None,
        Command::Proxy => binary_client(family, content)?,
    };
    Ok(Some(Header { client, length }))
}

/// What a header of version 2 is for.
#[derive(Clone, Copy, Debug)]
enum Command {
    /// The balancer speaks for itself.
    Local,
    /// It speaks for a client.
    Proxy,
}

fn binary_client(family: u8, content: &[u8]) -> Result<Option<SocketAddr>, Malformed> {
    let client = match family {
        // Two addresses, then two ports, the client's first.
        0x11 => {
            let address = part::<4>(content, 0)?;
            let port = part::<2>(content, 8)?;
            part::<2>(content, 10)?;
            (IpAddr::V4(Ipv4Addr::from(address)), port)
        }
        0x21 => {
            let address = part::<16>(content, 0)?;
            let port = part::<2>(content, 32)?;
            part::<2>(content, 34)?;
            (IpAddr::V6(Ipv6Addr::from(address)), port)
        }
        // Unspecified, datagrams, and sockets of the balancer's machine.
        0x00 | 0x12 | 0x22 | 0x31 | 0x32 => return Ok(None),
        _ => return Err(Malformed),
    };
    Ok(Some(SocketAddr::new(
        client.0,
        u16::from_be_bytes(client.1),
    )))
}

/// The `N` bytes at `offset`.
fn part<const N: usize>(content: &[u8], offset: usize) -> Result<[u8; N], Malformed> {
    let rest = content.get(offset..).ok_or(Malformed)?;
    rest.first_chunk().copied().ok_or(Malformed)
}

#[cfg(test)]
mod tests;
