//! What an old process and its successor say to each other.
//!
//! They are of different releases, as a rule: that is what a handover is for. So the first byte of
//! every message is the version of this language, and whoever does not speak it says so instead of
//! guessing. A message is one JSON text, its length before it; a descriptor travels with a byte of
//! its own, so that no read can swallow it with the text before.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::predecessor::Unconfirmed;
use super::restraint::Restraint;

/// Rises whenever an older program would misunderstand.
const VERSION: u8 = 2;
/// Longer than what tens of thousands of splits need.
const LIMIT: u32 = 8 * 1024 * 1024;

/// What a successor says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub(super) enum FromNew {
    /// My configuration is sound: give me your sockets.
    Ask { version: String },
    /// I have every socket that I need: close your store.
    Ready,
    /// I decide, and I accept connections.
    Serving,
    /// Let no more through than this, and say when you do.
    Obey(Restraint),
}

/// What an old process says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub(super) enum FromOld {
    /// These are my sockets; each follows, in this order.
    Sockets { sockets: Vec<Described> },
    /// My store is closed.
    Released,
    /// From now on you are in charge, and I leave.
    Yours,
    /// What you have told last is in force here; of a still older process, it is not known.
    Obeyed { unconfirmed: Option<Unconfirmed> },
    /// I go on instead.
    Refused { because: String },
}

/// A socket that changes hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Described {
    /// What it is for.
    pub door: Door,
    /// The address in the configuration, whose port may be 0.
    pub configured: SocketAddr,
}

/// What a listening socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Door {
    /// Clients.
    Traffic,
    /// Operators.
    Admin,
}

/// Why a conversation came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The other has gone, or the system fails.
    #[error("the connection to the other process failed: {0}")]
    Io(#[from] io::Error),
    /// Nothing came in time.
    #[error("the other process said nothing for {0:?}")]
    Silent(Duration),
    /// The other speaks another version.
    #[error(
        "the other process speaks version {theirs} of the handover, and this one {VERSION}: stop \
         it, and start this one instead"
    )]
    Version {
        /// What it speaks.
        theirs: u8,
    },
    /// What came makes no sense here.
    #[error("the other process said something unexpected: {0}")]
    Unexpected(String),
    /// The other has refused.
    #[error("{0}")]
    Refused(String),
}

impl WireError {
    /// Whether the other end is closed: its process may have died.
    pub(super) fn is_closed(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        let closed = [BrokenPipe, ConnectionReset, UnexpectedEof];
        matches!(self, WireError::Io(error) if closed.contains(&error.kind()))
    }
}

/// A conversation.
#[derive(Debug)]
pub(super) struct Wire(pub(super) UnixStream);

impl Wire {
    /// Says this.
    ///
    /// # Errors
    /// [`WireError`], also where the other does not read.
    pub(super) async fn say(&mut self, message: &impl Serialize) -> Result<(), WireError> {
        in_time(super::ANSWER, self.say_patiently(message)).await
    }

    /// Says this, however long the other takes to read it.
    ///
    /// # Errors
    /// The other has gone, or the system fails.
    pub(super) async fn say_patiently(&mut self, message: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        let length = u32::try_from(text.len()).map_err(io::Error::other)?;
        let mut bytes = Vec::with_capacity(text.len() + 5);
        bytes.push(VERSION);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&text);
        self.0.write_all(&bytes).await
    }

    /// Resolves when the other has gone; what it says until then is not heard.
    pub(super) async fn closed(&self) {
        use io::ErrorKind::WouldBlock;
        loop {
            let is_readable = self.0.readable().await.is_ok();
            match self.0.try_read(&mut [0]) {
                Ok(1..) if is_readable => {}
                Err(error) if is_readable && error.kind() == WouldBlock => {}
                _ => return,
            }
        }
    }

    /// Hears what comes within this time. To be dropped before its end only together with the wire.
    ///
    /// # Errors
    /// [`WireError`].
    pub(super) async fn hear<T: DeserializeOwned>(
        &mut self,
        within: Duration,
    ) -> Result<T, WireError> {
        let version = in_time(within, self.0.read_u8()).await?;
        if version != VERSION {
            return Err(WireError::Version { theirs: version });
        }
        let length = in_time(super::ANSWER, self.0.read_u32()).await?;
        if length > LIMIT {
            return Err(WireError::Unexpected(format!("{length} bytes at once")));
        }
        let mut text = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        in_time(super::ANSWER, self.0.read_exact(&mut text)).await?;
        serde_json::from_slice(&text).map_err(|error| WireError::Unexpected(error.to_string()))
    }

    /// Passes a socket; ours stays open.
    ///
    /// # Errors
    /// [`WireError`].
    pub(super) async fn give(&self, socket: BorrowedFd<'_>) -> Result<(), WireError> {
        let sending = self.0.async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let sockets = [socket];
            if !control.push(SendAncillaryMessage::ScmRights(&sockets)) {
                return Err(io::Error::other("no space for a descriptor"));
            }
            let sent = sendmsg(
                self.0.as_fd(),
                &[IoSlice::new(&[VERSION])],
                &mut control,
                SendFlags::NOSIGNAL,
            );
            Ok(sent.map(drop)?)
        });
        in_time(super::ANSWER, sending).await
    }

    /// Takes a socket that the other passes.
    ///
    /// # Errors
    /// [`WireError`].
    pub(super) async fn take(&self) -> Result<TcpListener, WireError> {
        let receiving = self.0.async_io(Interest::READABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut byte = [0];
            let received = recvmsg(
                self.0.as_fd(),
                &mut [IoSliceMut::new(&mut byte)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            )?;
            if received.bytes == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let mut descriptors = control.drain().filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
                _ => None,
            });
            let descriptor = descriptors.next();
            descriptor.ok_or_else(|| io::Error::other("no descriptor came"))
        });
        Ok(in_time(super::ANSWER, receiving).await?.into())
    }
}

async fn in_time<T>(
    patience: Duration,
    doing: impl Future<Output = io::Result<T>>,
) -> Result<T, WireError> {
    match timeout(patience, doing).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(WireError::Silent(patience)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn a_socket_that_was_passed_is_the_same_queue() {
        let (old, new) = UnixStream::pair().unwrap();
        let (mut old, mut new) = (Wire(old), Wire(new));
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        // Neither text may swallow the descriptor between them.
        old.say(&FromOld::Released).await.unwrap();
        old.give(socket.as_fd()).await.unwrap();
        old.say(&FromOld::Yours).await.unwrap();
        drop(socket);
        let client = TcpStream::connect(address).unwrap();
        let heard: FromOld = new.hear(super::super::ANSWER).await.unwrap();
        assert!(matches!(heard, FromOld::Released));
        let taken = new.take().await.unwrap();
        let (_, peer) = taken.accept().unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        let heard: FromOld = new.hear(super::super::ANSWER).await.unwrap();
        assert!(matches!(heard, FromOld::Yours));
    }

    #[tokio::test]
    async fn another_version_and_nonsense_are_refused_politely() {
        let said = async |bytes: &[u8]| {
            let (mut other, own) = UnixStream::pair().unwrap();
            other.write_all(bytes).await.unwrap();
            drop(other);
            let heard: Result<FromNew, _> = Wire(own).hear(super::super::ANSWER).await;
            heard.unwrap_err()
        };
        assert!(matches!(
            said(&[7, 0, 0]).await,
            WireError::Version { theirs: 7 }
        ));
        assert!(matches!(
            said(&[VERSION, 255, 255, 255, 255]).await,
            WireError::Unexpected(_)
        ));
        assert!(matches!(
            said(&[VERSION, 0, 0, 0, 2, b'h', b'i']).await,
            WireError::Unexpected(_)
        ));
        assert!(said(&[]).await.is_closed());
        assert!(said(&[VERSION, 0, 0, 0, 2, b'h']).await.is_closed());
    }
}
