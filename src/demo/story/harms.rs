//! Harm is done to the new API, and the rollout is rolled back for the right reason.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::control::protocol::SplitStatus;
use crate::policy::rollout::{Decision, Phase};
use crate::terminal::count;

use super::{Impossible, LOOK, LOOK_CLOSELY, NO_SHARE, Story};
use crate::demo::apis::Conduct;
use crate::demo::cannot;
use crate::demo::census::Era;
use crate::demo::harm::{Deed, Harm};
use crate::demo::scratch::Rollout;

/// Answers of `new` by which a rollout has begun well.
const GOOD_BEGINNING: u64 = 300;

/// How a rollout ended.
pub(super) struct RolledBack {
    pub(super) struck: Instant,
    /// From the harm to share 0, or to the end of patience.
    pub(super) took: Duration,
    pub(super) status: SplitStatus,
    /// The engine's, if it took one.
    pub(super) decision: Option<Decision>,
}

impl<W: Write> Story<'_, W> {
    /// A rollout of its own to half of the sessions, harmed once it has begun well.
    pub(super) async fn harm_is_noticed(&mut self, harm: &Harm) -> Result<(), Impossible> {
        self.act(harm.title);
        self.begin_rollout(harm).await?;
        let before = self.figures();
        let end = self.strike(harm).await?;
        let reason = end
            .decision
            .as_ref()
            .map(|decision| decision.reason.as_str());
        let is_explained = reason.is_some_and(|reason| harm.explains(reason));
        self.check(
            &format!("{}: rolled back for the right reason", harm.what),
            end.status.share == NO_SHARE && end.status.phase == Phase::RolledBack && is_explained,
            account(&end),
        );
        self.traffic.census().enter(Era::Free);
        let (_, after) = self.watch(LOOK, |_, figures| figures.crossing == 0).await?;
        let failed = after.failed - before.failed;
        let rescued = after.rescued - before.rescued;
        let of_legacy = match after.errors_of_legacy - before.errors_of_legacy {
            0 => String::new(),
            errors => format!("; {} were legacy's own answers", count(errors)),
        };
        self.check(
            &format!("{}: no GET failed because of it", harm.what),
            failed == 0 && after.crossing == 0 && after.errors_of_legacy <= self.legacy.errors(),
            format!(
                "{failed} of {}, {} rescued{of_legacy}",
                count(after.gets - before.gets),
                count(rescued)
            ),
        );
        self.new.behave(Conduct::Sound);
        self.legacy.behave(Conduct::Sound);
        Ok(())
    }

    /// Begins another rollout, as somebody does who deploys by commit, and waits until it goes well.
    async fn begin_rollout(&mut self, harm: &Harm) -> Result<(), Impossible> {
        self.legacy.behave(harm.legacy);
        self.traffic.census().enter(Era::Free);
        let rollout = Rollout::Half { id: harm.rollout };
        self.scratch
            .write_config(self.places, rollout)
            .map_err(|error| cannot("write a configuration", &error))?;
        self.watch(LOOK, |status, figures| {
            status.rollout_id == harm.rollout && status.share == "50%" && figures.crossing == 0
        })
        .await?;
        let begun = {
            let mut census = self.traffic.census();
            census.forget_homes();
            census.enter(Era::Steady);
            census.figures()
        };
        self.watch(LOOK, |_, figures| {
            figures.by_new >= begun.by_new + GOOD_BEGINNING
        })
        .await?;
        Ok(())
    }

    /// Does the harm, and waits until the share is 0.
    pub(super) async fn strike(&mut self, harm: &Harm) -> Result<RolledBack, Impossible> {
        self.traffic.census().enter(Era::Away);
        let struck = Instant::now();
        match harm.deed {
            Deed::Die => self.new.die().await,
            Deed::Behave(conduct) => self.new.behave(conduct),
        }
        let (status, _) = self
            .watch(LOOK_CLOSELY, |status, _| status.share == NO_SHARE)
            .await?;
        let took = struck.elapsed();
        let decision = status.last_decision.clone();
        let is_rollback =
            |decision: &Decision| decision.action == "rollback" && decision.actor == "engine";
        Ok(RolledBack {
            struck,
            took,
            status,
            decision: decision.filter(is_rollback),
        })
    }
}

/// When and why it was rolled back, and after how many requests.
fn account(end: &RolledBack) -> String {
    let Some(decision) = &end.decision else {
        return "the engine recorded no rollback".to_owned();
    };
    let mut criteria = decision.conditions.iter();
    let fired = criteria.find(|condition| condition.criterion == decision.reason);
    let requests = fired.map_or_else(String::new, |condition| {
        let (events, samples) = (count(condition.events), count(condition.samples));
        format!(", {events} of {samples} requests")
    });
    let took = end.took.as_secs_f64();
    format!("after {took:.2} s, {}{requests}", decision.reason)
}
