//! Steps of plans that wait for the disk.
//!
//! A step that raises a share is on the disk before it is in force, and a disk may take its time.
//! The judge must not wait with it: so a step is saved beside the loop, as if it had been taken, and
//! taken when that is done. What is decided meanwhile wins, since the rollout is asked once more.

use std::fmt;
use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::policy::rollout::Decision;

use super::keeper::NotKept;

/// Time after which a step that could not be saved is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// Time after which a step is tried again that something stood against in the last moment.
const SOON: Duration = Duration::from_secs(1);

/// The steps that wait.
#[derive(Debug, Default)]
pub(super) struct Advances {
    waiting: Vec<Advance>,
    /// When another may be tried, after one was not taken.
    not_before: Option<Instant>,
    /// Whether the last one could not be saved.
    is_failing: bool,
}

/// A step that waits, or has waited.
pub(super) struct Advance {
    /// What it will announce.
    pub(super) decision: Decision,
    kept: Kept,
}

enum Kept {
    Pending(Pin<Box<dyn Future<Output = Result<(), NotKept>>>>),
    Ended(Result<(), NotKept>),
}

impl Advances {
    /// Whether a step of this split may begin to wait.
    pub(super) fn has_room_for(&self, split: &str) -> bool {
        let is_early = self.not_before.is_some_and(|at| Instant::now() < at);
        !is_early && self.steps().all(|waiting| waiting.split != split)
    }

    /// The steps that are not taken yet: all that is saved must tell of them.
    pub(super) fn steps(&self) -> impl Iterator<Item = &Decision> {
        self.waiting.iter().map(|advance| &advance.decision)
    }

    /// A step waits until `kept` resolves.
    pub(super) fn begin(
        &mut self,
        decision: Decision,
        kept: impl Future<Output = Result<(), NotKept>> + 'static,
    ) {
        let kept = Kept::Pending(Box::pin(kept));
        self.waiting.push(Advance { decision, kept });
    }

    /// Resolves when a step is on the disk, or failed to get there: [`Advances::take`] gives it
    /// away. Nothing is lost if this is dropped.
    pub(super) async fn next(&mut self) {
        if self.waiting.is_empty() {
            pending::<()>().await;
        }
        poll_fn(|context| {
            let mut waiting = self.waiting.iter_mut();
            let has_ended = waiting.any(|advance| advance.has_ended(context));
            if has_ended {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// A step that waits no longer, and whether it is on the disk.
    pub(super) fn take(&mut self) -> Option<(Decision, Result<(), NotKept>)> {
        let mut waiting = self.waiting.iter();
        let ended = waiting.position(|advance| matches!(advance.kept, Kept::Ended(_)))?;
        match self.waiting.swap_remove(ended) {
            Advance {
                decision,
                kept: Kept::Ended(kept),
            } => Some((decision, kept)),
            Advance { .. } => None,
        }
    }

    /// A step was taken.
    pub(super) fn succeed(&mut self) {
        self.not_before = None;
        self.is_failing = false;
    }

    /// A step was not taken because something stood against it.
    pub(super) fn wait_a_moment(&mut self) {
        self.not_before = Some(Instant::now() + SOON);
        self.is_failing = false;
    }

    /// A step was not taken because it could not be saved. Whether this is news.
    pub(super) fn fail(&mut self) -> bool {
        self.not_before = Some(Instant::now() + AGAIN);
        !std::mem::replace(&mut self.is_failing, true)
    }
}

impl Advance {
    fn has_ended(&mut self, context: &mut Context<'_>) -> bool {
        if let Kept::Pending(kept) = &mut self.kept {
            match kept.as_mut().poll(context) {
                Poll::Ready(result) => self.kept = Kept::Ended(result),
                Poll::Pending => return false,
            }
        }
        true
    }
}

impl fmt::Debug for Advance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.decision.split)
    }
}
