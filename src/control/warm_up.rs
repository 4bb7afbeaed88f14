//! Shares that wait for the connections of their backend.
//!
//! Opening connections takes as long as the other end wants, and the judge must go on meanwhile. So
//! a warm-up is a task of its own whose end is an event like any other, and a decision that comes
//! in between wins: an end that nobody waits for any more is dropped.

use std::collections::BTreeMap;
use std::future::pending;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::data_plane::Warmed;

/// The warm-ups under way, by name of the split.
#[derive(Debug, Default)]
pub(super) struct WarmUps {
    running: BTreeMap<String, WarmUp>,
    tasks: JoinSet<(String, u64)>,
    begun: u64,
}

#[derive(Debug)]
struct WarmUp {
    /// Tells the warm-up from an earlier one of the same split.
    number: u64,
    /// Dropped when nothing waits for this warm-up any more.
    over: watch::Sender<()>,
}

impl WarmUps {
    /// Whether a split waits.
    pub(super) fn is_running(&self, split: &str) -> bool {
        self.running.contains_key(split)
    }

    /// Lets a split wait until `warmed` resolves.
    pub(super) fn begin(&mut self, split: &str, warmed: Warmed) {
        self.begun += 1;
        let number = self.begun;
        let (over, _) = watch::channel(());
        let split = split.to_owned();
        self.running.insert(split.clone(), WarmUp { number, over });
        self.tasks.spawn_local(async move {
            warmed.await;
            (split, number)
        });
    }

    /// Forgets the splits that no longer wait.
    pub(super) fn keep(&mut self, waits: impl Fn(&str) -> bool) {
        self.running.retain(|split, _| waits(split));
    }

    /// The next split whose connections are open. Nothing is lost if this is dropped.
    pub(super) async fn next_end(&mut self) -> String {
        loop {
            match self.tasks.join_next().await {
                Some(Ok((split, number))) => {
                    let running = self.running.get(&split);
                    if running.is_some_and(|warm_up| warm_up.number == number) {
                        return split;
                    }
                }
                Some(Err(error)) => tracing::error!(%error, "a warm-up has failed"),
                None => pending().await,
            }
        }
    }

    /// Resolves when no split waits for a warm-up that is under way now.
    pub(super) fn settled(&self) -> impl Future<Output = ()> + use<> {
        let running: Vec<_> = self
            .running
            .values()
            .map(|warm_up| warm_up.over.subscribe())
            .collect();
        async {
            for mut over in running {
                // The only news is that the sender is gone.
                let _ = over.changed().await;
            }
        }
    }
}
