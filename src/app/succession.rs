//! Finding a successor: started by us on request, or by whoever starts one.
//!
//! Nothing that a candidate does or fails to do may hurt: until it serves, this process goes on,
//! and what was given away is taken back.

use std::io;
use std::net::TcpListener;
use std::pin::pin;
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::control::protocol::ControlHandle;
use crate::handover::START;
use crate::handover::last_words::LastWords;
use crate::handover::program::Program;
use crate::handover::successor::{Candidate, Described, Doorstep, Heir, Unheard};
use crate::handover::upgrade::Wishes;
use crate::telemetry::handover::HandoverTally;

use super::admin::Latch;

/// Between two looks whether a started process has ended.
const LOOK: Duration = Duration::from_millis(20);
/// For a started process that does not take over to say why, and end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// All that it takes to be succeeded.
pub(super) struct Succession {
    /// `None` where the socket could not be made, as the log tells.
    pub(super) doorstep: Option<Doorstep>,
    pub(super) sockets: Vec<(Described, Arc<TcpListener>)>,
    pub(super) program: io::Result<Program>,
    pub(super) control: ControlHandle,
    pub(super) signal: Signal,
    pub(super) wishes: Wishes,
    /// Of the admin API.
    pub(super) latch: Latch,
    pub(super) tally: Arc<HandoverTally>,
}

type Reply = oneshot::Sender<Result<Option<u32>, String>>;

enum Asked {
    /// Somebody wants an upgrade, and may wait for it.
    Upgrade(Option<Reply>),
    /// Somebody has started a successor.
    Candidate(Candidate),
}

/// What an attempt to be succeeded has begun. Whatever ends the attempt, a wish that this process
/// stops included, it is either an heir's or undone: a successor that was told to open the store
/// and then heard nothing more would take us for dead.
#[derive(Default)]
struct Attempt {
    child: Option<Started>,
    candidate: Option<Candidate>,
    /// Whether the state store may be closed for it.
    is_released: bool,
}

/// A process that we have started. It ends with its owner here, unless it is the heir.
struct Started {
    child: Child,
    words: LastWords,
    is_heir: bool,
}

impl Drop for Started {
    fn drop(&mut self) {
        if !self.is_heir {
            // It may have ended by itself.
            let _ = self.child.kill();
        }
    }
}

impl Succession {
    /// Resolves when another process has taken over; with none when this one is to stop before.
    pub(super) async fn heir(mut self, stop: impl Future<Output = ()>) -> Option<Heir> {
        let mut stop = pin!(stop);
        loop {
            let asked = tokio::select! {
                () = &mut stop => return None,
                asked = self.asked() => asked,
            };
            let (candidate, reply) = match asked {
                Asked::Upgrade(reply) => (None, reply),
                Asked::Candidate(candidate) => (Some(candidate), None),
            };
            let mut attempt = Attempt::default();
            // Whoever says the last word is an heir at once: nothing is awaited behind it.
            let ended = tokio::select! {
                () = &mut stop => None,
                () = self.wishes.taken_back() => Some(Err(
                    "an order came that could not wait for it: ask for the upgrade again"
                        .to_owned(),
                )),
                ended = self.attempt(&mut attempt, candidate) => Some(ended),
            };
            let Some(result) = ended else {
                let because = "the old process was asked to stop".to_owned();
                self.undo(attempt, because).await;
                return None;
            };
            let (told, heir) = match result {
                Ok(heir) => {
                    // Who is told of it must find the heir when it asks next.
                    self.latch.close();
                    if let Some(child) = &mut attempt.child {
                        child.is_heir = true;
                    }
                    (Ok(heir.process()), Some(heir))
                }
                Err(because) => {
                    self.undo(attempt, because.clone()).await;
                    (Err(because), None)
                }
            };
            if let Some(reply) = reply {
                // Whoever asked may have gone.
                let _ = reply.send(told);
            }
            if let Some(heir) = heir {
                if let Some(doorstep) = self.doorstep {
                    doorstep.bequeath();
                }
                return Some(heir);
            }
        }
    }

    /// Hands over to this candidate, or to one that it starts.
    async fn attempt(
        &self,
        attempt: &mut Attempt,
        candidate: Option<Candidate>,
    ) -> Result<Heir, String> {
        match candidate {
            Some(candidate) => self.hand_over(attempt, candidate).await,
            None => self.upgrade(attempt).await,
        }
    }

    /// Takes back what was given away.
    async fn undo(&self, attempt: Attempt, because: String) {
        self.tally.failed();
        let process = attempt.candidate.as_ref().and_then(Candidate::process);
        tracing::error!(%because, candidate = process, "not replaced; this process goes on");
        if let Some(candidate) = attempt.candidate {
            candidate.refuse(because).await;
        }
        // It may hold the store.
        if let Some(child) = attempt.child {
            child.end().await;
        }
        if attempt.is_released
            && let Ok(Err(error)) = self.control.resume().await
        {
            tracing::error!(%error, "the state store is not back yet; going on in memory");
        }
    }

    async fn asked(&mut self) -> Asked {
        loop {
            tokio::select! {
                _ = self.signal.recv() => {
                    tracing::info!("SIGUSR2: looking for a successor");
                    return Asked::Upgrade(None);
                }
                Some(wish) = self.wishes.next() => {
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
    async fn upgrade(&self, attempt: &mut Attempt) -> Result<Heir, String> {
        if std::process::id() == 1 {
            return Err(
                "this is the first process of a container, which would end with it: \
                        replace the container instead"
                    .to_owned(),
            );
        }
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
        let (child, words) = program
            .start()
            .map_err(|error| format!("cannot start {path}: {error}"))?;
        tracing::info!(process = child.id(), program = %path, "a successor is started");
        let child = attempt.child.insert(Started {
            child,
            words,
            is_heir: false,
        });
        let candidate = self.first_to_knock(child).await?;
        match self.hand_over(attempt, candidate).await {
            Ok(heir) => Ok(heir),
            Err(because) => {
                // Nobody judges until then. Where the new process still has the store, it is opened
                // when that has ended.
                if attempt.is_released && matches!(self.control.resume().await, Ok(Ok(()))) {
                    attempt.is_released = false;
                }
                Err(attempt.explained(because).await)
            }
        }
    }

    async fn first_to_knock(&self, child: &mut Started) -> Result<Candidate, String> {
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
            ended = child.ended() => {
                let words = child.words.heard();
                let words = words.unwrap_or_else(|| "what it said is in the log".to_owned());
                Err(format!("the new process ended at once ({ended}): {words}"))
            }
            () = sleep(START) => Err(format!("the new process asked for nothing within {START:?}")),
        }
    }

    async fn hand_over(&self, attempt: &mut Attempt, candidate: Candidate) -> Result<Heir, String> {
        tracing::info!(
            version = candidate.version(),
            process = candidate.process(),
            "a successor asks to take over"
        );
        let failed = |error: Unheard| not_taken(&error.to_string());
        let candidate = attempt.candidate.insert(candidate);
        candidate.equip(&self.sockets).await.map_err(failed)?;
        attempt.is_released = true;
        match self.control.release().await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(format!("the state cannot be handed over: {error}")),
            Err(error) => return Err(error.to_string()),
        }
        candidate.install().await.map_err(failed)?;
        candidate.confirm().await.map_err(failed)?;
        let candidate = attempt.candidate.take();
        let candidate = candidate.expect("it was put there above");
        Ok(Heir::from(candidate))
    }
}

impl Attempt {
    /// Why the process that we have started does not take over: what it says of that if it has
    /// ended, else what can be seen from here.
    async fn explained(&mut self, because: String) -> String {
        let Some(child) = &mut self.child else {
            return because;
        };
        match timeout(LAST_WORDS, child.ended()).await {
            Ok(_) => child
                .words
                .heard()
                .map_or(because, |words| not_taken(&words)),
            Err(_) => because,
        }
    }
}

impl Started {
    async fn ended(&mut self) -> String {
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return status.to_string(),
                Ok(None) => sleep(LOOK).await,
                Err(error) => return error.to_string(),
            }
        }
    }

    /// Ends it; returns when it holds nothing any more.
    async fn end(mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = timeout(START, self.ended()).await;
    }
}

fn not_taken(because: &str) -> String {
    format!("the new process does not take over: {because}")
}

async fn knocked(doorstep: Option<&Doorstep>) -> Result<Candidate, Unheard> {
    match doorstep {
        Some(doorstep) => doorstep.knocked().await,
        None => std::future::pending().await,
    }
}
