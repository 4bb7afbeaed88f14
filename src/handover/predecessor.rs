//! The old process, as its successor sees it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::{MissedTickBehavior, interval};

use super::inherited::Inherited;
use super::limits::Limits;
use super::wire::{FromNew, FromOld, Wire, WireError};
use super::{ANSWER, SOCKET, TURN};
use crate::clock::Clock;
use crate::snapshot::Published;

/// Time between two looks for shares that have sunk.
const LOOK: Duration = Duration::from_millis(50);

/// A process that is to be relieved.
#[derive(Debug)]
pub struct Predecessor {
    path: PathBuf,
    /// `None` once the process has died.
    wire: Option<Wire>,
}

/// What became of an old process that was told that its successor serves.
#[derive(Debug)]
pub enum Parting {
    /// It leaves, and is to be told what to obey until then.
    Leaves(Old),
    /// It has died.
    Gone,
}

/// An old process on its way out.
#[derive(Debug)]
pub struct Old(Wire);

/// The running process was not relieved.
#[derive(Debug, thiserror::Error)]
#[error("cannot take over from the running process: {0}")]
pub struct NotRelieved(#[from] WireError);

impl Predecessor {
    /// Asks the process that works with this state directory for its sockets; none if no process
    /// does.
    ///
    /// # Errors
    /// [`NotRelieved`]: there is one, and it goes on.
    pub async fn ask(directory: &Path) -> Result<Option<(Self, Inherited)>, NotRelieved> {
        let path = directory.join(SOCKET);
        let Some(stream) = knock(&path).await.map_err(WireError::from)? else {
            return Ok(None);
        };
        let mut wire = Wire(stream);
        match Self::be_given(&mut wire).await {
            Ok(inherited) => {
                let wire = Some(wire);
                Ok(Some((Self { path, wire }, inherited)))
            }
            Err(error) if error.is_closed() && is_gone(&path).await? => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn be_given(wire: &mut Wire) -> Result<Inherited, WireError> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        wire.say(&FromNew::Ask { version }).await?;
        let described = match wire.hear(TURN).await? {
            FromOld::Sockets { sockets } => sockets,
            other => return Err(unexpected(other)),
        };
        let mut inherited = Inherited::default();
        for described in described {
            inherited.add(Some(described), wire.take().await?)?;
        }
        Ok(inherited)
    }

    /// Has the old process stop deciding and close the state store.
    ///
    /// # Errors
    /// [`NotRelieved`]: it goes on.
    pub async fn release(&mut self) -> Result<(), NotRelieved> {
        let answered = match &mut self.wire {
            None => return Ok(()),
            Some(wire) => ask(wire, &FromNew::Ready, TURN).await,
        };
        match self.unless_gone(answered).await? {
            None | Some(FromOld::Released) => Ok(()),
            Some(other) => Err(unexpected(other).into()),
        }
    }

    /// Tells the old process that we serve, upon which it leaves.
    ///
    /// # Errors
    /// [`NotRelieved`]: it goes on, and we may not.
    pub async fn relieve(mut self) -> Result<Parting, NotRelieved> {
        let answered = match &mut self.wire {
            None => return Ok(Parting::Gone),
            Some(wire) => ask(wire, &FromNew::Serving, ANSWER).await,
        };
        match (self.unless_gone(answered).await?, self.wire) {
            (Some(FromOld::Yours), Some(wire)) => Ok(Parting::Leaves(Old(wire))),
            (Some(other), _) => Err(unexpected(other).into()),
            (None, _) => Ok(Parting::Gone),
        }
    }

    /// What was answered; none if the process has gone.
    async fn unless_gone(
        &mut self,
        answered: Result<FromOld, WireError>,
    ) -> Result<Option<FromOld>, WireError> {
        match answered {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if error.is_closed() && is_gone(&self.path).await? => {
                self.wire = None;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl Old {
    /// Tells it of every share that sinks, until it has ended.
    pub async fn guide(self, published: Published, clock: Clock) {
        let Self(mut wire) = self;
        let mut told = Limits::default();
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                _ = wire.0.readable() => {
                    // It has nothing more to say: this is its end, or a false alarm.
                    match wire.0.try_read(&mut [0]) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                        _ => break,
                    }
                }
            }
            let limits = told.sink_to(&published.load(), clock.elapsed());
            if !limits.is_empty() && wire.say(&FromNew::Obey { limits }).await.is_err() {
                break;
            }
        }
        tracing::info!("the old process has ended");
    }
}

async fn ask(wire: &mut Wire, say: &FromNew, within: Duration) -> Result<FromOld, WireError> {
    wire.say(say).await?;
    wire.hear(within).await
}

/// A connection that breaks means that the process has gone, or that it goes on without us. Which
/// of the two it is, its socket tells: the system closes that even while nobody has buried it.
async fn is_gone(path: &Path) -> Result<bool, WireError> {
    let is_gone = knock(path).await?.is_none();
    if is_gone {
        tracing::warn!("the old process has died; going on without it");
    }
    Ok(is_gone)
}

/// A connection to the process that listens there; none if none does.
async fn knock(path: &Path) -> io::Result<Option<UnixStream>> {
    use io::ErrorKind::{ConnectionRefused, NotFound};
    match UnixStream::connect(path).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if [NotFound, ConnectionRefused].contains(&error.kind()) => Ok(None),
        Err(error) => Err(error),
    }
}

fn unexpected(answer: FromOld) -> WireError {
    match answer {
        FromOld::Refused { because } => WireError::Refused(because),
        other => WireError::Unexpected(format!("{other:?}")),
    }
}
