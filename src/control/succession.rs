//! Another process takes over: this one stops deciding, and may have to begin again.
//!
//! The state store can be open in one process only, and whoever has it decides. So it is closed
//! before the successor is told to open it, and from then on nothing here changes a share but what
//! the successor tells to lower. What is counted meanwhile is kept: should the successor die before
//! it serves, it is judged as if nothing had happened.

use crate::handover::limits::{Limit, Limits};
use crate::policy::time::Elapsed;
use crate::snapshot::Snapshot;

use super::controller::Controller;
use super::keeper::NotKept;
use super::protocol::Refused;

/// Whether this process decides.
#[derive(Debug, Default)]
pub(super) enum Charge {
    /// It does.
    #[default]
    Held,
    /// Another does, and may tell what to obey.
    Released(Limits),
}

impl Charge {
    pub(super) const fn is_held(&self) -> bool {
        matches!(self, Charge::Held)
    }

    /// Why nothing can be ordered here, if nothing can.
    pub(super) fn refusal(&self) -> Option<Refused> {
        let because = "another process is taking over: ask again in a moment";
        (!self.is_held()).then(|| Refused::HandingOver(because.to_owned()))
    }

    /// Holds a snapshot to what the successor has told.
    pub(super) fn hold(&self, snapshot: &mut Snapshot) {
        if let Charge::Released(limits) = self {
            limits.hold(snapshot);
        }
    }

    fn obey(&mut self, limits: &[Limit], now: Elapsed) {
        if let Charge::Released(obeyed) = self {
            obeyed.obey(limits, now);
        }
    }
}

impl Controller {
    /// Judges a last time, saves everything, closes the store and decides no more.
    pub(super) async fn release(&mut self) -> Result<(), NotKept> {
        self.look();
        self.keeper.save(self.memory(), Vec::new()).await?;
        // From here on a successor may find the store open.
        self.charge = Charge::Released(Limits::default());
        let closed = self.keeper.close().await;
        if closed.is_err() {
            // It will be closed some time, and the next write opens it then.
            self.resume().await?;
        }
        closed
    }

    /// Decides again. The store is opened with the next write, or one of those after it.
    pub(super) async fn resume(&mut self) -> Result<(), NotKept> {
        self.charge = Charge::Held;
        let reopened = self.keeper.reopen();
        let saved = self.keeper.save(self.memory(), Vec::new());
        self.publish();
        reopened.map_err(|error| NotKept(error.to_string()))?;
        saved.await
    }

    /// Lowers what the successor has lowered.
    pub(super) fn obey(&mut self, limits: &[Limit]) {
        self.charge.obey(limits, self.world.clock.elapsed());
        self.publish();
        tracing::info!(?limits, "obeying the successor");
    }
}
