//! Finding a successor: started by us on request, or by whoever starts one.
//!
//! Nothing that a candidate does or fails to do may hurt: until it serves, this process goes on,
//! and what was given away is taken back.

use std::io;
use std::net::TcpListener;
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use crate::control::protocol::ControlHandle;
use crate::handover::START;
use crate::handover::program::Program;
use crate::handover::successor::{Candidate, Described, Doorstep, Heir, Unheard};
use crate::handover::upgrade::Wish;
use crate::telemetry::handover::HandoverTally;

/// Between two looks whether a started process has ended.
const LOOK: Duration = Duration::from_millis(20);

/// All that it takes to be succeeded.
pub(super) struct Succession {
    /// `None` where the socket could not be made, as the log tells.
    pub(super) doorstep: Option<Doorstep>,
    pub(super) sockets: Vec<(Described, Arc<TcpListener>)>,
    pub(super) program: io::Result<Program>,
    pub(super) control: ControlHandle,
    pub(super) signal: Signal,
    pub(super) wishes: mpsc::Receiver<Wish>,
    pub(super) tally: Arc<HandoverTally>,
}

type Reply = oneshot::Sender<Result<u32, String>>;

enum Asked {
    /// Somebody wants an upgrade, and may wait for it.
    Upgrade(Option<Reply>),
    /// Somebody has started a successor.
    Candidate(Candidate),
}

impl Succession {
    /// Resolves when another process has taken over.
    pub(super) async fn heir(mut self) -> Heir {
        loop {
            let (result, reply) = match self.asked().await {
                Asked::Upgrade(reply) => (self.upgrade().await, reply),
                Asked::Candidate(candidate) => (self.hand_over(candidate, None).await, None),
            };
            let told = match &result {
                Ok(heir) => Ok(heir.process().unwrap_or_default()),
                Err(because) => {
                    self.tally.failed();
                    tracing::error!(%because, "not replaced; this process goes on");
                    Err(because.clone())
                }
            };
            if let Some(reply) = reply {
                // Whoever asked may have gone.
                let _ = reply.send(told);
            }
            if let Ok(heir) = result {
                if let Some(doorstep) = self.doorstep {
                    doorstep.bequeath();
                }
                return heir;
            }
        }
    }

    async fn asked(&mut self) -> Asked {
        loop {
            tokio::select! {
                _ = self.signal.recv() => {
                    tracing::info!("SIGUSR2: looking for a successor");
                    return Asked::Upgrade(None);
                }
                Some(wish) = self.wishes.recv() => {
                    tracing::info!(actor = wish.actor, reason = wish.reason, "an upgrade is asked for");
                    return Asked::Upgrade(Some(wish.reply));
                }
                candidate = knocked(self.doorstep.as_ref()) => match candidate {
                    Ok(candidate) => return Asked::Candidate(candidate),
                    Err(error) => {
                        tracing::warn!(%error, "somebody knocked in vain");
                        // Without descriptors it fails at once, again and again.
                        sleep(LOOK).await;
                    }
                },
            }
        }
    }

    /// Starts a successor and hands over to it.
    async fn upgrade(&self) -> Result<Heir, String> {
        if self.doorstep.is_none() {
            return Err(
                "there is no socket to hand over through; the log of the start says why, \
                        `stop` and `start` help"
                    .to_owned(),
            );
        }
        let program = self.program.as_ref();
        let program =
            program.map_err(|error| format!("it is not known what runs here: {error}"))?;
        let path = program.path().display();
        let mut child = program
            .start()
            .map_err(|error| format!("cannot start {path}: {error}"))?;
        tracing::info!(process = child.id(), program = %path, "a successor is started");
        let candidate = match self.first_to_knock(&mut child).await {
            Ok(candidate) => candidate,
            Err(because) => {
                bury(&mut child).await;
                return Err(because);
            }
        };
        self.hand_over(candidate, Some(&mut child)).await
    }

    async fn first_to_knock(&self, child: &mut Child) -> Result<Candidate, String> {
        let knocking = async {
            loop {
                match knocked(self.doorstep.as_ref()).await {
                    Ok(candidate) => return candidate,
                    Err(error) => tracing::warn!(%error, "somebody knocked in vain"),
                }
                sleep(LOOK).await;
            }
        };
        tokio::select! {
            candidate = knocking => Ok(candidate),
            ended = ended(child) => Err(format!(
                "the new process ended at once ({ended}); its last words are in the log"
            )),
            () = sleep(START) => Err(format!("the new process asked for nothing within {START:?}")),
        }
    }

    async fn hand_over(
        &self,
        mut candidate: Candidate,
        child: Option<&mut Child>,
    ) -> Result<Heir, String> {
        tracing::info!(
            version = candidate.version(),
            "a successor asks to take over"
        );
        let failed = |error| format!("the new process does not take over: {error}");
        let equipped = candidate.equip(&self.sockets).await.map_err(failed);
        if let Err(because) = equipped {
            drop(candidate);
            bury_if_ours(child).await;
            return Err(because);
        }
        if let Err(because) = self.release().await {
            candidate.refuse(because.clone()).await;
            bury_if_ours(child).await;
            return Err(because);
        }
        let heir = match candidate.install().await {
            Ok(()) => candidate.confirm().await,
            Err(error) => {
                drop(candidate);
                Err(error)
            }
        };
        match heir.map_err(failed) {
            Ok(heir) => Ok(heir),
            Err(because) => {
                // It may hold the store.
                bury_if_ours(child).await;
                if let Ok(Err(error)) = self.control.resume().await {
                    tracing::error!(%error, "the state store is not back yet; going on in memory");
                }
                Err(because)
            }
        }
    }

    async fn release(&self) -> Result<(), String> {
        match self.control.release().await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("the state cannot be handed over: {error}")),
            Err(error) => Err(error.to_string()),
        }
    }
}

async fn knocked(doorstep: Option<&Doorstep>) -> Result<Candidate, Unheard> {
    match doorstep {
        Some(doorstep) => doorstep.knocked().await,
        None => std::future::pending().await,
    }
}

async fn ended(child: &mut Child) -> String {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.to_string(),
            Ok(None) => sleep(LOOK).await,
            Err(error) => return error.to_string(),
        }
    }
}

async fn bury_if_ours(child: Option<&mut Child>) {
    if let Some(child) = child {
        bury(child).await;
    }
}

/// Ends a process that is of no use; returns when it holds nothing any more.
async fn bury(child: &mut Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = timeout(START, ended(child)).await;
}
