//! The access log: one line for each request that was answered.
//!
//! A disk may be slow, full or gone, and no request may notice. So a worker writes its lines into
//! memory of its own and hands them on in bulk, one thread writes them, and what waits between the
//! two is bounded: beyond it lines are dropped and counted. A log with gaps that tells of its gaps
//! is worth more than a proxy that waits for it.

pub mod line;

use std::cell::{Cell, RefCell};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use crate::config::model::{self, LogDestination, LogFormat};

use self::line::Line;

/// Bytes that a worker gathers before it hands them on; less waits for its next tick.
const BATCH: usize = 32 * 1024;

/// Time for a file to be opened.
const PATIENCE: Duration = Duration::from_secs(1);

/// The access log of the process.
#[derive(Debug)]
pub struct AccessLog {
    jobs: Sender<Job>,
    counts: Arc<Counts>,
}

/// What has become of the lines.
#[derive(Debug, Default)]
struct Counts {
    /// Bytes handed on and not yet written.
    waiting: AtomicUsize,
    /// Bytes that may wait.
    limit: AtomicUsize,
    written: AtomicU64,
    dropped: AtomicU64,
}

/// A reading of the counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogReading {
    /// Lines written.
    pub written: u64,
    /// Lines that were lost, because too many waited or the disk refused them.
    pub dropped: u64,
}

enum Job {
    Write {
        text: Vec<u8>,
        lines: u64,
    },
    /// From now on there, or nowhere.
    Use(Option<Output>),
    /// Opens the file by its name again.
    Reopen,
    /// Everything before this is to be written, and somebody waits for it.
    End(Sender<()>),
}

/// Where lines go, opened.
#[derive(Debug)]
pub struct Output {
    destination: LogDestination,
    file: Option<File>,
    limit: usize,
}

impl Output {
    /// Opens what `settings` name. A file on a disk that hangs, or a pipe that nobody reads, would
    /// keep its caller for ever: so a thread of its own opens it, and is waited for at most
    /// [`PATIENCE`].
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn open(settings: &model::AccessLog) -> Result<Self, String> {
        let (reply, opened) = channel();
        let wanted = settings.clone();
        let opening = thread::Builder::new()
            .name("access-log-open".to_owned())
            // Nobody may be waiting any more.
            .spawn(move || drop(reply.send(Self::open_patiently(&wanted))));
        opening.map_err(|error| error.to_string())?;
        opened.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            let destination = &settings.destination;
            Err(format!(
                "the access log {destination} cannot be opened: nothing answers"
            ))
        })
    }

    fn open_patiently(settings: &model::AccessLog) -> Result<Self, String> {
        let file = match &settings.destination {
            LogDestination::Stdout => None,
            LogDestination::File(path) => Some(open(path).map_err(|error| {
                let destination = &settings.destination;
                format!("the access log {destination} cannot be opened: {error}")
            })?),
        };
        Ok(Self {
            destination: settings.destination.clone(),
            file,
            limit: settings.buffer,
        })
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        match &mut self.file {
            Some(file) => file.write_all(text),
            None => {
                let mut out = io::stdout().lock();
                out.write_all(text)?;
                out.flush()
            }
        }
    }

    /// After a rotation the old name stands for a new file.
    fn reopen(&mut self) -> io::Result<()> {
        if let LogDestination::File(path) = &self.destination {
            self.file = Some(open(path)?);
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

impl AccessLog {
    /// Starts the thread that writes; nothing is written before [`AccessLog::output`].
    ///
    /// # Errors
    /// Those of making a thread.
    pub fn start() -> io::Result<Self> {
        let (jobs, queue) = channel();
        let counts = Arc::new(Counts::default());
        let shared = Arc::clone(&counts);
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_all(&queue, &shared))?;
        Ok(Self { jobs, counts })
    }

    /// From now on lines go there; `None`: nowhere.
    pub fn output(&self, output: Option<Output>) {
        let limit = output.as_ref().map_or(0, |output| output.limit);
        self.counts.limit.store(limit, Ordering::Relaxed);
        let _ = self.jobs.send(Job::Use(output));
    }

    /// Opens the file by its name again, as after a rotation.
    pub fn reopen(&self) {
        let _ = self.jobs.send(Job::Reopen);
    }

    /// Waits until everything handed on so far is written, for at most `patience`.
    pub fn flush(&self, patience: Duration) {
        let (done, written) = channel();
        let _ = self.jobs.send(Job::End(done));
        let _ = written.recv_timeout(patience);
    }

    /// What has become of the lines.
    pub fn reading(&self) -> LogReading {
        LogReading {
            written: self.counts.written.load(Ordering::Relaxed),
            dropped: self.counts.dropped.load(Ordering::Relaxed),
        }
    }

    /// The pen of one worker.
    pub fn scribe(&self) -> Scribe {
        Scribe {
            jobs: self.jobs.clone(),
            counts: Arc::clone(&self.counts),
            text: RefCell::default(),
            lines: Cell::default(),
        }
    }
}

/// What one worker writes with.
#[derive(Debug)]
pub struct Scribe {
    jobs: Sender<Job>,
    counts: Arc<Counts>,
    text: RefCell<Vec<u8>>,
    lines: Cell<u64>,
}

impl Scribe {
    /// Writes a line into this worker's memory.
    pub fn write(&self, format: LogFormat, line: &Line<'_>) {
        let mut text = self.text.borrow_mut();
        if text.capacity() == 0 {
            // One allocation for hundreds of lines, with room for the longest behind the bound.
            text.reserve(BATCH + line::LONGEST);
        }
        line.write(format, &mut text);
        self.lines.set(self.lines.get() + 1);
        let is_full = text.len() >= BATCH;
        drop(text);
        if is_full {
            self.hand_on();
        }
    }

    /// Hands on what is there. To be called every tick, so that a quiet hour's lines are seen too.
    pub fn hand_on(&self) {
        let lines = self.lines.take();
        if lines == 0 {
            return;
        }
        let mut text = self.text.borrow_mut();
        let length = text.len();
        let counts = &self.counts;
        let waiting = counts.waiting.fetch_add(length, Ordering::Relaxed);
        if waiting + length > counts.limit.load(Ordering::Relaxed) {
            counts.waiting.fetch_sub(length, Ordering::Relaxed);
            counts.dropped.fetch_add(lines, Ordering::Relaxed);
            text.clear();
            return;
        }
        let text = std::mem::take(&mut *text);
        if self.jobs.send(Job::Write { text, lines }).is_err() {
            counts.waiting.fetch_sub(length, Ordering::Relaxed);
            counts.dropped.fetch_add(lines, Ordering::Relaxed);
        }
    }
}

impl Drop for Scribe {
    fn drop(&mut self) {
        self.hand_on();
    }
}

fn write_all(queue: &Receiver<Job>, counts: &Counts) {
    let mut output: Option<Output> = None;
    let mut was_failing = false;
    for job in queue {
        let result = match job {
            Job::Write { text, lines } => {
                let written = match &mut output {
                    Some(output) => output.write(&text),
                    // Switched off while these were under way.
                    None => Ok(()),
                };
                counts.waiting.fetch_sub(text.len(), Ordering::Relaxed);
                let count = if written.is_ok() {
                    &counts.written
                } else {
                    &counts.dropped
                };
                count.fetch_add(lines, Ordering::Relaxed);
                written
            }
            Job::Use(newest) => {
                output = newest;
                continue;
            }
            Job::Reopen => output.as_mut().map_or(Ok(()), Output::reopen),
            Job::End(done) => {
                // Nobody may be waiting any more.
                let _ = done.send(());
                continue;
            }
        };
        match result {
            Ok(()) => was_failing = false,
            Err(error) if !was_failing => {
                was_failing = true;
                tracing::error!(%error, "lines of the access log are lost");
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
