//! The successor, as the old process sees it, and where it knocks.

use std::fs::{self, Permissions};
use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::{UnixListener, UnixStream};

use super::predecessor::Unconfirmed;
use super::restraint::Restraint;
use super::wire::{FromNew, FromOld, Wire, WireError};
use super::{ANSWER, FOREVER, SERVE, SOCKET};

pub use super::wire::{Described, Door, WireError as Unheard};

/// Where successors knock.
#[derive(Debug)]
pub struct Doorstep {
    socket: UnixListener,
    path: PathBuf,
    /// Which file is ours: a successor puts its own in its place.
    inode: u64,
    owner: u32,
    is_bequeathed: bool,
}

/// A process that wants to be our successor.
#[derive(Debug)]
pub struct Candidate {
    wire: Wire,
    process: Option<i32>,
    version: String,
}

/// Our successor: it decides from now on.
#[derive(Debug)]
pub struct Heir {
    wire: Wire,
    process: Option<u32>,
}

impl Doorstep {
    /// Opens it in the state directory, in place of what another process has left there. To be
    /// called by whoever holds the state store.
    ///
    /// # Errors
    /// Those of binding; a path of more than 107 bytes is too long for one.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.join(SOCKET);
        let unfinished = directory.join(format!("{SOCKET}.new"));
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = UnixListener::bind(&unfinished)?;
        fs::set_permissions(&unfinished, Permissions::from_mode(0o600))?;
        let metadata = fs::metadata(&unfinished)?;
        fs::rename(&unfinished, &path)?;
        Ok(Self {
            socket,
            path,
            inode: metadata.ino(),
            owner: metadata.uid(),
            is_bequeathed: false,
        })
    }

    /// Leaves the socket's name to the heir, which puts its own in its place.
    pub fn bequeath(mut self) {
        self.is_bequeathed = true;
    }

    /// The next who knocks and asks.
    ///
    /// # Errors
    /// [`Unheard`]: somebody did not ask as they should.
    pub async fn knocked(&self) -> Result<Candidate, WireError> {
        let (stream, _) = self.socket.accept().await?;
        Candidate::meet(stream, self.owner).await
    }
}

impl Drop for Doorstep {
    fn drop(&mut self) {
        let is_ours = |metadata: fs::Metadata| metadata.ino() == self.inode;
        if !self.is_bequeathed && fs::metadata(&self.path).is_ok_and(is_ours) {
            // What is left there is refused by the system, and replaced by the next process.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Candidate {
    async fn meet(stream: UnixStream, owner: u32) -> Result<Self, WireError> {
        let peer = stream.peer_cred()?;
        let mut wire = Wire(stream);
        // The file's permissions say the same, from a moment after its making.
        if peer.uid() != owner && peer.uid() != 0 {
            return Err(refuse(&mut wire, "it runs as another user".to_owned()).await);
        }
        let said = wire.hear(ANSWER).await;
        match said {
            Ok(FromNew::Ask { version }) => Ok(Self {
                wire,
                process: peer.pid(),
                version,
            }),
            Ok(other) => Err(WireError::Unexpected(format!("{other:?}"))),
            // It reads our version from whatever we say.
            Err(error) => Err(refuse(&mut wire, error.to_string()).await),
        }
    }

    /// Its number among the machine's processes.
    pub fn process(&self) -> Option<u32> {
        self.process.and_then(|process| u32::try_from(process).ok())
    }

    /// The version of its program.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Gives it our sockets; returns when it has all that it needs.
    ///
    /// # Errors
    /// [`WireError`]; nothing has changed.
    pub async fn equip(
        &mut self,
        sockets: &[(Described, Arc<TcpListener>)],
    ) -> Result<(), WireError> {
        let described = sockets.iter().map(|(described, _)| *described).collect();
        let said = FromOld::Sockets { sockets: described };
        self.wire.say(&said).await?;
        for (_, socket) in sockets {
            self.wire.give(socket.as_fd()).await?;
        }
        match self.wire.hear(ANSWER).await? {
            FromNew::Ready => Ok(()),
            other => Err(WireError::Unexpected(format!("{other:?}"))),
        }
    }

    /// Tells it that the state store is closed; returns when it serves.
    ///
    /// # Errors
    /// [`WireError`]: it does not, and may be about to. It must be gone before the store is opened.
    pub async fn install(&mut self) -> Result<(), WireError> {
        self.wire.say(&FromOld::Released).await?;
        match self.wire.hear(SERVE).await? {
            FromNew::Serving => Ok(()),
            other => Err(WireError::Unexpected(format!("{other:?}"))),
        }
    }

    /// Leaves the rest to it: once this has returned, it is the heir.
    ///
    /// # Errors
    /// [`WireError`]: it was not told, so it will not go on.
    pub async fn confirm(&mut self) -> Result<(), WireError> {
        self.wire.say(&FromOld::Yours).await
    }

    /// Tells it why not.
    pub async fn refuse(mut self, because: String) {
        refuse(&mut self.wire, because).await;
    }
}

impl From<Candidate> for Heir {
    fn from(candidate: Candidate) -> Self {
        Self {
            process: candidate.process(),
            wire: candidate.wire,
        }
    }
}

impl Heir {
    /// Its number among the machine's processes.
    pub const fn process(&self) -> Option<u32> {
        self.process
    }

    /// What is to be obeyed next; none once it has ended.
    ///
    /// # Errors
    /// [`Unheard`]: what it says is not understood, and nothing after it will be.
    pub async fn orders(&mut self) -> Result<Option<Restraint>, WireError> {
        match self.wire.hear(FOREVER).await {
            Ok(FromNew::Obey(restraint)) => Ok(Some(restraint)),
            Ok(other) => Err(WireError::Unexpected(format!("{other:?}"))),
            Err(error) if error.is_closed() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Tells it that what it has told last is in force, and which still older process has not
    /// confirmed that.
    ///
    /// # Errors
    /// [`Unheard`]: it has ended, or reads nothing.
    pub async fn confirm(&mut self, unconfirmed: Option<Unconfirmed>) -> Result<(), WireError> {
        self.wire.say(&FromOld::Obeyed { unconfirmed }).await
    }

    /// Resolves when it has ended.
    pub async fn ended(&self) {
        self.wire.closed().await;
    }
}

async fn refuse(wire: &mut Wire, because: String) -> WireError {
    let said = FromOld::Refused {
        because: because.clone(),
    };
    // It may have gone.
    let _ = wire.say(&said).await;
    WireError::Refused(because)
}
