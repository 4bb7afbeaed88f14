//! Another process takes over: this one stops deciding, and may have to begin again.
//!
//! The state store can be open in one process only, and whoever has it decides. So it is closed
//! before the successor is told to open it, and from then on nothing here changes a share but what
//! the successor tells to lower, and nobody is denied but whom the successor denies. What is counted
//! meanwhile is kept: should the successor die before it serves, it is judged as if nothing had
//! happened.

use std::time::Duration;

use crate::handover::CONFIRM_FURTHER;
use crate::handover::predecessor::{Obedience, Unconfirmed};
use crate::handover::restraint::{Ceilings, Restraint};
use crate::policy::denials::{Denial, Denials};
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
    Released(Ceilings),
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
        if let Charge::Released(ceilings) = self {
            ceilings.hold(snapshot);
        }
    }
}

impl Controller {
    /// Judges a last time, saves everything, closes the store and decides no more.
    pub(super) async fn release(&mut self) -> Result<(), NotKept> {
        self.world.wake();
        self.look();
        self.keeper.save(self.memory(), Vec::new()).await?;
        // From here on a successor may find the store open.
        self.charge = Charge::Released(Ceilings::default());
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

    /// Lowers what the successor has lowered, and denies whom it denies. Resolves when this is in
    /// force; with an error if a still older process has not confirmed in time that it obeys.
    pub(super) fn obey(
        &mut self,
        restraint: Restraint,
    ) -> impl Future<Output = Result<(), Unconfirmed>> + use<> {
        // Without news the successor only asks whether a still older process obeys by now.
        let is_news = restraint != Restraint::default();
        let Restraint { ceilings, denied } = restraint;
        let networks = denied.as_ref().map(Vec::len);
        if let Charge::Released(obeyed) = &mut self.charge {
            obeyed.obey(&ceilings, self.world.clock.elapsed());
            if let Some(denied) = denied {
                let since = self.world.clock.wall();
                let denials = denied.into_iter().map(|network| {
                    let told = Denial {
                        since,
                        until: None,
                        actor: "successor".to_owned(),
                        reason: String::new(),
                    };
                    (network, told)
                });
                self.world.deny_only(Denials::from_iter(denials));
            }
        }
        self.publish();
        if is_news {
            tracing::info!(?ceilings, denied = networks, "obeying the successor");
        }
        self.obeyed(CONFIRM_FURTHER)
    }

    /// From now on an old process is to obey what is published here. It is told by whoever guides
    /// it.
    pub fn guide(&mut self, old: Obedience) {
        self.old = Some(old);
    }

    /// Resolves when an old process, if there is one, obeys all that is published by now, or has
    /// not confirmed within this time that it does.
    pub(super) fn obeyed(
        &self,
        within: Duration,
    ) -> impl Future<Output = Result<(), Unconfirmed>> + use<> {
        let generation = self.world.generation();
        let old = self.old.as_ref();
        let confirmed = old.map(|old| old.confirmed(generation, within));
        async {
            match confirmed {
                Some(confirmed) => confirmed.await,
                None => Ok(()),
            }
        }
    }
}
