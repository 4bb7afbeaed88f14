//! The old process, as its successor sees it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::inherited::Inherited;
use super::restraint::{Restraint, Told};
use super::wire::{FromNew, FromOld, Wire, WireError};
use super::{ANSWER, CONFIRM, FOREVER, SOCKET, TURN};
use crate::clock::Clock;
use crate::snapshot::Published;

/// Between two looks whether a process has ended whose connection is closed.
const LOOK: Duration = Duration::from_millis(20);

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
    /// Its number among the machine's processes, where the system tells it.
    process: Option<i32>,
    /// Is readable once the process has ended; `None` where the system does not tell.
    exit: Option<OwnedFd>,
    wake: Arc<Notify>,
    obeyed: watch::Sender<Obeyed>,
}

/// What an old process has confirmed last.
#[derive(Clone, Copy, Debug, Default)]
struct Obeyed {
    /// Of the snapshot that it obeys.
    generation: u64,
    /// The still older process that had not confirmed to it by then.
    unconfirmed: Option<Unconfirmed>,
}

/// Whether an old process obeys yet, for whoever has given an order.
#[derive(Debug)]
pub struct Obedience {
    wake: Arc<Notify>,
    obeyed: watch::Receiver<Obeyed>,
    process: Option<i32>,
}

/// An old process has not confirmed in time that it obeys.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, thiserror::Error)]
#[error(
    "the old process{}, which still serves the connections that it has kept, has not confirmed \
     within {CONFIRM:?} that it obeys: on those, the earlier order may hold until it does or ends",
    .process.map_or_else(String::new, |process| format!(" {process}"))
)]
pub struct Unconfirmed {
    /// Its number among the machine's processes, where the system tells it.
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
        let peer = wire.0.peer_cred().ok();
        // A process that we cannot see, in another container, has the number 0.
        let process = peer.and_then(|peer| peer.pid()).filter(|pid| *pid > 0);
        Self {
            wire,
            process,
            exit: process.and_then(exit_of),
            wake: Arc::default(),
            obeyed: watch::Sender::default(),
        }
    }

    /// Tells whether it obeys. Until [`Self::guide`] runs, it does not.
    pub fn obedience(&self) -> Obedience {
        Obedience {
            wake: Arc::clone(&self.wake),
            obeyed: self.obeyed.subscribe(),
            process: self.process,
        }
    }

    /// Has it obey whatever becomes stricter, until it has ended.
    pub async fn guide(mut self, published: Published, clock: Clock) {
        if let Err(error) = self.tell_all(&published, clock).await
            && !error.is_closed()
        {
            tracing::warn!(%error, "the old process is told nothing more until it ends");
        }
        self.ended().await;
        tracing::info!("the old process has ended");
    }

    /// Returns when there is nobody left to be told.
    async fn tell_all(&mut self, published: &Published, clock: Clock) -> Result<(), WireError> {
        let mut told = Told::default();
        let mut unconfirmed = None;
        loop {
            let snapshot = published.load_full();
            let news = told.news(&snapshot, clock.elapsed());
            // Whoever had not confirmed may have by now: that much is asked again.
            if let Some(restraint) = news.or_else(|| unconfirmed.map(|_| Restraint::default())) {
                unconfirmed = self.tell(restraint).await?;
            }
            self.obeyed.send_replace(Obeyed {
                generation: snapshot.generation,
                unconfirmed,
            });
            tokio::select! {
                () = self.wake.notified() => {}
                () = self.wire.closed() => return Ok(()),
            }
        }
    }

    /// Resolves when the process has ended. That the connection is closed says less: a process
    /// that failed to understand us may close it and go on with what it keeps.
    async fn ended(&self) {
        self.wire.closed().await;
        if let Some(exit) = &self.exit {
            while !has_ended(exit) {
                sleep(LOOK).await;
            }
        }
    }

    /// Returns when it obeys, with the still older process that had not confirmed to it in time.
    /// One that is stopped or starved may do so late, and is waited for: whatever is ordered
    /// meanwhile follows then.
    async fn tell(&mut self, restraint: Restraint) -> Result<Option<Unconfirmed>, WireError> {
        let wire = &mut self.wire;
        let mut obeyed = pin!(async {
            wire.say_patiently(&FromNew::Obey(restraint)).await?;
            match wire.hear(FOREVER).await? {
                FromOld::Obeyed { unconfirmed } => Ok(unconfirmed),
                other => Err(unexpected(other)),
            }
        });
        if let Ok(obeyed) = timeout(ANSWER, &mut obeyed).await {
            return obeyed;
        }
        tracing::warn!(
            "the old process has not confirmed for {ANSWER:?} that it obeys; still waiting for it"
        );
        let unconfirmed = obeyed.await?;
        tracing::info!("the old process has confirmed that it obeys");
        Ok(unconfirmed)
    }
}

impl Obedience {
    /// A snapshot was published: whatever it makes stricter, the old process is told.
    pub fn look(&self) {
        self.wake.notify_one();
    }

    /// Resolves when the old process, and all that are still older, obey the snapshot of this
    /// generation, or have ended.
    ///
    /// # Errors
    /// [`Unconfirmed`], after this time at the latest, names one that does neither.
    pub fn confirmed(
        &self,
        generation: u64,
        within: Duration,
    ) -> impl Future<Output = Result<(), Unconfirmed>> + use<> {
        let (mut obeyed, process) = (self.obeyed.clone(), self.process);
        async move {
            let confirmed = obeyed.wait_for(|obeyed| obeyed.generation >= generation);
            match timeout(within, confirmed).await {
                Ok(Ok(obeyed)) => obeyed.unconfirmed.map_or(Ok(()), Err),
                // Whoever would tell otherwise is gone with the process.
                Ok(Err(_)) => Ok(()),
                Err(_) => Err(Unconfirmed { process }),
            }
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

/// What tells when this process, which still runs, has ended.
fn exit_of(process: i32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(process)?, PidfdFlags::empty()).ok()
}

/// Also where nobody has buried it yet.
fn has_ended(exit: &OwnedFd) -> bool {
    let mut events = [PollFd::new(exit, PollFlags::IN)];
    let at_once = Timespec::default();
    poll(&mut events, Some(&at_once)).is_ok_and(|ready| ready > 0)
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
