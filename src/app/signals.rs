//! The signals that end the process, have it replaced, or its access log opened anew.

use std::io;
use std::pin::pin;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::edge;

/// The signals that the process as a whole obeys.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Taken by what it wakes.
    reopen: Option<Signal>,
    pub(super) is_hasty: bool,
    /// Whether the next wish for an end is what happens anyway.
    is_ending: bool,
}

impl Signals {
    pub(super) fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reopen: Some(signal(SignalKind::user_defined1())?),
            is_hasty: false,
            is_ending: false,
        })
    }

    /// What asks for an upgrade. To be installed early: by default it ends the process.
    pub(super) fn upgrades() -> io::Result<Signal> {
        signal(SignalKind::user_defined2())
    }

    /// Resolves when the process is asked to end. A person at a terminal wants no delay.
    pub(super) async fn stop_asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => self.is_hasty = true,
        }
    }

    /// Opens the access log anew whenever it was rotated.
    pub(super) fn reopening(
        &mut self,
        entrance: Arc<edge::Shared>,
    ) -> impl Future<Output = ()> + use<> {
        let reopen = self.reopen.take();
        async move {
            let (Some(mut reopen), Some(log)) = (reopen, entrance.access_log()) else {
                return;
            };
            while reopen.recv().await.is_some() {
                log.reopen();
            }
        }
    }

    /// The process ends without having been asked to, so that the first wish asks for nothing new:
    /// whoever stops a service signals all its processes, and the old one is not to cut anybody.
    pub(super) fn ends_by_itself(&mut self) {
        self.is_ending = true;
    }

    /// What `future` returns, unless the process is asked again to end.
    pub(super) async fn unless_again<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        loop {
            tokio::select! {
                output = &mut future => return Some(output),
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
            if !std::mem::take(&mut self.is_ending) {
                return None;
            }
            tracing::info!("asked to end, which it does already; a second signal cuts");
        }
    }
}
