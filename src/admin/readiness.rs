//! Whether a balancer should send traffic here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Where the process stands between its start and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// No snapshot is published yet.
    Starting,
    /// Traffic is served.
    Ready,
    /// Traffic is still served, but should go elsewhere.
    Draining,
}

impl Stage {
    /// The one word that `/readyz` answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Stage::Starting => "starting",
            Stage::Ready => "ready",
            Stage::Draining => "draining",
        }
    }
}

/// The process's [`Stage`], shared by whoever changes it and `/readyz`. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    stage: Arc<AtomicU8>,
}

impl Readiness {
    /// A process that is starting.
    pub fn starting() -> Self {
        Self::default()
    }

    /// Moves to `stage`, but never backwards: a stop that arrives while the first snapshot is
    /// being built must not be undone by its publication.
    pub fn advance(&self, stage: Stage) {
        // The flag guards no other data, so no ordering is needed.
        self.stage.fetch_max(stage as u8, Ordering::Relaxed);
    }

    /// Where the process stands.
    pub fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Relaxed) {
            0 => Stage::Starting,
            1 => Stage::Ready,
            _ => Stage::Draining,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draining_process_never_becomes_ready_again() {
        let readiness = Readiness::starting();
        assert_eq!(readiness.stage(), Stage::Starting);
        readiness.advance(Stage::Draining);
        readiness.advance(Stage::Ready);
        assert_eq!(readiness.stage(), Stage::Draining);
    }
}
