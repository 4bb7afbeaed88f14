//! Steps of plans that wait for the disk.
//!
//! A step that raises a share is on the disk before it is in force, and a disk may take its time.
//! The judge must not wait with it: so a step is saved beside the loop, as if it had been taken, and
//! taken when that is done. What is decided meanwhile wins, since the rollout is asked once more.

use std::fmt;
use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use crate::policy::rollout::Decision;

use super::keeper::NotKept;

/// Time after which a step that could not be saved is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// The steps that wait.
#[derive(Debug, Default)]
pub(super) struct Advances {
    waiting: Vec<Advance>,
    /// When another may be tried, after one has failed.
    not_before: Option<Instant>,
}

struct Advance {
    split: String,
    decisions: Vec<Decision>,
    kept: Kept,
}

/// A step that waits no longer.
#[derive(Debug)]
pub(super) struct Concluded {
    pub(super) split: String,
    /// What it was promised to announce.
    pub(super) decisions: Vec<Decision>,
    /// Whether it is on the disk.
    pub(super) kept: Result<(), NotKept>,
}

type Kept = Pin<Box<dyn Future<Output = Result<(), NotKept>>>>;

impl Advances {
    /// Whether a step of this split may begin to wait.
    pub(super) fn has_room_for(&self, split: &str) -> bool {
        let is_early = self.not_before.is_some_and(|at| Instant::now() < at);
        !is_early && self.splits().all(|waiting| waiting != split)
    }

    /// The splits whose step waits.
    pub(super) fn splits(&self) -> impl Iterator<Item = &str> {
        self.waiting.iter().map(|advance| advance.split.as_str())
    }

    /// A step waits until `kept` resolves.
    pub(super) fn begin(
        &mut self,
        split: String,
        decisions: Vec<Decision>,
        kept: impl Future<Output = Result<(), NotKept>> + 'static,
    ) {
        self.waiting.push(Advance {
            split,
            decisions,
            kept: Box::pin(kept),
        });
    }

    /// The next step that is on the disk, or failed to get there. Nothing is lost if this is
    /// dropped.
    pub(super) async fn next(&mut self) -> Concluded {
        if self.waiting.is_empty() {
            pending::<()>().await;
        }
        let waiting = &mut self.waiting;
        let (index, kept) = poll_fn(|context| {
            let ended = waiting.iter_mut().enumerate().find_map(|(index, advance)| {
                match advance.kept.as_mut().poll(context) {
                    Poll::Ready(kept) => Some((index, kept)),
                    Poll::Pending => None,
                }
            });
            ended.map_or(Poll::Pending, Poll::Ready)
        })
        .await;
        let advance = self.waiting.swap_remove(index);
        self.not_before = kept.is_err().then(|| Instant::now() + AGAIN);
        Concluded {
            split: advance.split,
            decisions: advance.decisions,
            kept,
        }
    }
}

impl fmt::Debug for Advance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.split)
    }
}
