//! The old process, as its successor sees it.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::inherited::Inherited;
use super::restraint::{Restraint, Told};
use super::wire::{FromNew, FromOld, Wire, WireError};
use super::{ANSWER, CONFIRM, FOREVER, SOCKET, TURN};
use crate::clock::Clock;
use crate::snapshot::Published;

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
pub struct Old {
    wire: Wire,
    wake: Arc<Notify>,
    /// The generation of the last snapshot that it obeys.
    obeyed: watch::Sender<u64>,
}

/// Whether an old process obeys yet, for whoever has given an order.
#[derive(Debug)]
pub struct Obedience {
    wake: Arc<Notify>,
    obeyed: watch::Receiver<u64>,
    /// Its number among the machine's processes, where the system tells it.
    process: Option<i32>,
}

/// An old process has not confirmed in time that it obeys.
#[derive(Debug, thiserror::Error)]
#[error(
    "the old process{}, which still serves the connections that it has kept, has not confirmed \
     within {CONFIRM:?} that it obeys: on those, the earlier order may hold until it does or ends",
    .process.map_or_else(String::new, |process| format!(" {process}"))
)]
pub struct Unconfirmed {
    process: Option<i32>,
}

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
            (Some(FromOld::Yours), Some(wire)) => Ok(Parting::Leaves(Old::new(wire))),
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
    fn new(wire: Wire) -> Self {
        Self {
            wire,
            wake: Arc::default(),
            obeyed: watch::Sender::new(0),
        }
    }

    /// Tells whether it obeys. Until [`Self::guide`] runs, it does not.
    pub fn obedience(&self) -> Obedience {
        let peer = self.wire.0.peer_cred().ok();
        Obedience {
            wake: Arc::clone(&self.wake),
            obeyed: self.obeyed.subscribe(),
            process: peer.and_then(|peer| peer.pid()),
        }
    }

    /// Has it obey whatever becomes stricter, until it has ended.
    pub async fn guide(mut self, published: Published, clock: Clock) {
        let mut told = Told::default();
        loop {
            let snapshot = published.load_full();
            if let Some(restraint) = told.news(&snapshot, clock.elapsed())
                && let Err(error) = self.tell(restraint).await
            {
                if !error.is_closed() {
                    tracing::warn!(%error, "the old process is told nothing more until it ends");
                    self.wire.closed().await;
                }
                break;
            }
            self.obeyed.send_replace(snapshot.generation);
            tokio::select! {
                () = self.wake.notified() => {}
                () = self.wire.closed() => break,
            }
        }
        tracing::info!("the old process has ended");
    }

    /// Returns when it obeys. One that is stopped or starved may do so late, and is waited for:
    /// whatever is ordered meanwhile follows then.
    async fn tell(&mut self, restraint: Restraint) -> Result<(), WireError> {
        let wire = &mut self.wire;
        let mut obeyed = pin!(async {
            wire.say_patiently(&FromNew::Obey(restraint)).await?;
            match wire.hear(FOREVER).await? {
                FromOld::Obeyed => Ok(()),
                other => Err(unexpected(other)),
            }
        });
        if let Ok(obeyed) = timeout(ANSWER, &mut obeyed).await {
            return obeyed;
        }
        tracing::warn!(
            "the old process has not confirmed for {ANSWER:?} that it obeys; still waiting for it"
        );
        obeyed.await?;
        tracing::info!("the old process has confirmed that it obeys");
        Ok(())
    }
}

impl Obedience {
    /// A snapshot was published: whatever it makes stricter, the old process is told.
    pub fn look(&self) {
        self.wake.notify_one();
    }

    /// Resolves when the old process obeys the snapshot of this generation, or has ended.
    ///
    /// # Errors
    /// [`Unconfirmed`], soon, if it does neither.
    pub fn confirmed(
        &self,
        generation: u64,
    ) -> impl Future<Output = Result<(), Unconfirmed>> + use<> {
        let (mut obeyed, process) = (self.obeyed.clone(), self.process);
        async move {
            let confirmed = obeyed.wait_for(|obeyed| *obeyed >= generation);
            // Whoever would tell otherwise is gone with the process.
            let waited = timeout(CONFIRM, confirmed).await;
            waited.map(drop).map_err(|_| Unconfirmed { process })
        }
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
