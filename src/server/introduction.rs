//! Who a balancer says that its client is, before the client itself says anything.
//!
//! A stranger who may introduce himself may be anybody, and with that choose his arm, his limits and
//! his place on every list. So only peers in `edge.trusted_proxies` are listened to, and on such a
//! listener nobody else is served at all: to serve him under his own address would make a listener
//! of which nobody could tell whether its addresses are true.
//!
//! The header is taken from the socket to its last byte and no further, since what follows may be
//! the client's TLS handshake.

use std::io;
use std::net::SocketAddr;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::proxy_protocol::{self, LONGEST, Malformed};

/// As much as nearly every header takes.
const USUAL: usize = 256;

/// Nobody was introduced.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotIntroduced {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads a header of the PROXY protocol; the client's address, if it tells one. Without a time limit
/// of its own.
pub(super) async fn read_introduction(
    stream: &mut TcpStream,
) -> Result<Option<SocketAddr>, NotIntroduced> {
    let mut bytes = vec![0; USUAL];
    let mut taken = 0;
    loop {
        // Looked at first and taken afterwards, because only then is known how much of it may be.
        let ahead = stream.peek(&mut bytes[taken..]).await?;
        if ahead == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let parsed = proxy_protocol::parse(&bytes[..taken + ahead])?;
        let end = parsed.map_or(taken + ahead, |header| header.length);
        stream.read_exact(&mut bytes[taken..end]).await?;
        if let Some(header) = parsed {
            return Ok(header.client);
        }
        taken = end;
        if taken == bytes.len() {
            bytes.resize(LONGEST, 0);
        }
    }
}
