//! Signals that are asked for: a task for each, on the runtime of the control plane.
//!
//! A source may be down, slow, or answer nonsense, and the judge must go on meanwhile. So each has a
//! task of its own, which asks, waits for the answer within a limit, and only then for the next
//! turn: however slow a source is, it is never asked twice at once. Whatever it answers is a
//! reading; nothing here fails. On a reload the tasks of signals that did not change go on where
//! they were.

mod answer;
mod source;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::pending;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::config::model::{Poll, Split};
use crate::policy::signal::{Reading, bounded};

use self::source::Source;

/// Readings that wait for the controller. A source whose reading finds no room waits with its next
/// question.
const WAITING: usize = 64;

/// The signals that are asked for. Dropping it ends all questions.
#[derive(Debug)]
pub struct Signals {
    /// By names of split and signal.
    running: BTreeMap<(String, String), Running>,
    begun: u64,
    tell: mpsc::Sender<Told>,
    told: mpsc::Receiver<Told>,
}

#[derive(Debug)]
struct Running {
    /// Tells the task from an earlier one of the same signal.
    number: u64,
    poll: Poll,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
struct Told {
    split: String,
    signal: String,
    number: u64,
    reading: Reading,
}

impl Default for Signals {
    fn default() -> Self {
        let (tell, told) = mpsc::channel(WAITING);
        Self {
            running: BTreeMap::new(),
            begun: 0,
            tell,
            told,
        }
    }
}

impl Signals {
    /// Makes the questions under way those that `splits` ask for. A new signal is asked for at once.
    /// Must be called on a runtime, the control plane's.
    pub fn reconcile(&mut self, splits: &[Split]) {
        let mut before = std::mem::take(&mut self.running);
        for split in splits {
            for signal in &split.signals {
                let Some(poll) = &signal.poll else {
                    continue;
                };
                let key = (split.name.clone(), signal.terms.name.clone());
                let running = before.remove(&key).filter(|running| running.poll == *poll);
                let running = running.unwrap_or_else(|| self.begin(&key, poll));
                self.running.insert(key, running);
            }
        }
    }

    fn begin(&mut self, (split, signal): &(String, String), poll: &Poll) -> Running {
        self.begun += 1;
        let watch = Watch {
            split: split.clone(),
            signal: signal.clone(),
            number: self.begun,
            interval: poll.interval,
            tell: self.tell.clone(),
        };
        Running {
            number: self.begun,
            poll: poll.clone(),
            task: tokio::spawn(watch.run(Source::new(poll.clone()))),
        }
    }

    /// The next reading, with the names of its split and its signal. Nothing is lost if this is
    /// dropped.
    pub async fn next(&mut self) -> (String, String, Reading) {
        loop {
            let Some(told) = self.told.recv().await else {
                // We hold a sender ourselves.
                return pending().await;
            };
            let Told {
                split,
                signal,
                number,
                reading,
            } = told;
            let key = (split, signal);
            // What another source of the same name has said is no reading of this one.
            if self
                .running
                .get(&key)
                .is_some_and(|running| running.number == number)
            {
                let (split, signal) = key;
                return (split, signal, reading);
            }
        }
    }
}

struct Watch {
    split: String,
    signal: String,
    number: u64,
    interval: std::time::Duration,
    tell: mpsc::Sender<Told>,
}

impl Watch {
    async fn run(self, mut source: Source) {
        let mut turns = interval(self.interval);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut was_silent = false;
        loop {
            turns.tick().await;
            let reading = source.read().await;
            let error = reading.new.as_ref().err();
            let error = error.or(reading
                .legacy
                .as_ref()
                .and_then(|legacy| legacy.as_ref().err()));
            self.announce(was_silent, error.map(String::as_str));
            was_silent = error.is_some();
            let told = Told {
                split: self.split.clone(),
                signal: self.signal.clone(),
                number: self.number,
                reading,
            };
            if self.tell.send(told).await.is_err() {
                return;
            }
        }
    }

    fn announce(&self, was_silent: bool, error: Option<&str>) {
        let (split, signal) = (&self.split, &self.signal);
        match error {
            Some(error) if !was_silent => {
                let reason = bounded(error);
                tracing::warn!(%split, %signal, %reason, "signal without a value");
            }
            None if was_silent => tracing::info!(%split, %signal, "signal has a value again"),
            Some(_) | None => {}
        }
    }
}
