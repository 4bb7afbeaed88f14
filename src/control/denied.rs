//! Denying networks by hand, and what ends that.
//!
//! Somebody who denies a network is being attacked, so it is in force at once and saved afterwards:
//! a disk that hangs must not keep the attacker in. It is in force for the next request of every
//! connection, those that are open already included, and costs nobody else anything.

use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::policy::denials::{Denial, Denials};
use crate::policy::duration;
use crate::policy::rollout::{By, Decision};
use crate::policy::share::Share;
use crate::policy::time::Timestamp;

use super::command::Proviso;
use super::controller::{Controller, Done};
use super::operate::Scope;
use super::protocol::Refused;

/// The answer: `GET /api/v1/denied`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denied {
    /// In the order of their addresses, IPv4 first.
    pub denied: Vec<DeniedNetwork>,
}

/// A network that somebody has denied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeniedNetwork {
    /// Such as `192.0.2.0/24`; an address has the longest prefix there is.
    pub network: IpNet,
    /// Why and until when.
    #[serde(flatten)]
    pub denial: Denial,
}

impl Controller {
    /// Denies a network from the next request on.
    pub(super) fn deny(
        &mut self,
        network: IpNet,
        span: Option<Duration>,
        by: By,
        proviso: Proviso,
    ) -> Result<Done, Refused> {
        self.check(Scope::All, proviso)?;
        if network.prefix_len() == 0 {
            return Err(Refused::Precondition(format!(
                "{network} is everybody: say in `edge.allow` whom to serve, or deny a smaller \
                 network"
            )));
        }
        let now = self.world.clock.wall();
        let mut denials = Denials::clone(self.world.denials());
        let denial = Denial {
            since: now,
            until: span.map(|span| now.plus(span)),
            actor: by.actor.clone(),
            reason: by.reason.clone(),
        };
        let said = match span {
            Some(span) => format!("{network} is denied for {}.", duration::print(span)),
            None => format!("{network} is denied until somebody ends it."),
        };
        let added = denials.add(network, denial);
        added.map_err(|error| Refused::Precondition(error.to_string()))?;
        self.change_denials(denials, "deny", by, said, proviso)
    }

    /// Ends the denial of a network.
    pub(super) fn end_denial(
        &mut self,
        network: IpNet,
        by: By,
        proviso: Proviso,
    ) -> Result<Done, Refused> {
        self.check(Scope::All, proviso)?;
        let mut denials = Denials::clone(self.world.denials());
        let is_ended = denials.remove(&network).is_some();
        let others = denials.around(&network);
        let others: Vec<String> = others.iter().map(IpNet::to_string).collect();
        let others = others.join(", ");
        if !is_ended {
            let what = match others.as_str() {
                "" => "see `cutover deny` for what is, and `edge.deny` in the file".to_owned(),
                others => format!("it lies in {others}, which is"),
            };
            return Err(Refused::Precondition(format!(
                "{network} is not denied by hand: {what}"
            )));
        }
        let said = match others.as_str() {
            "" => format!("{network} is denied no more, unless the file says so."),
            others => format!("{network} is denied no more by itself, but lies in {others}."),
        };
        self.change_denials(denials, "deny_ended", by, said, proviso)
    }

    /// Ends the denials whose time is over.
    pub(super) fn end_old_denials(&mut self) {
        let now = self.world.clock.wall();
        let end = self.world.next_end_of_denial();
        if end.is_none_or(|end| now < end) {
            return;
        }
        let mut denials = Denials::clone(self.world.denials());
        let ended = denials.expire(now);
        self.world.deny_only(denials);
        self.publish();
        let decisions = ended.iter().map(|network| {
            let by = By {
                actor: "engine".to_owned(),
                reason: "its time is over".to_owned(),
            };
            let said = format!("{network} is denied no more: its time is over.");
            noted(now, "deny_ended", by, said)
        });
        let decisions = decisions.collect();
        self.keeper.save_in_passing(self.memory(), decisions);
    }

    /// What is denied by hand.
    pub(super) fn denied(&self) -> Denied {
        let denials = self.world.denials().iter();
        let denied = denials.map(|(network, denial)| DeniedNetwork {
            network: *network,
            denial: denial.clone(),
        });
        Denied {
            denied: denied.collect(),
        }
    }

    fn change_denials(
        &mut self,
        denials: Denials,
        action: &str,
        by: By,
        sentence: String,
        proviso: Proviso,
    ) -> Result<Done, Refused> {
        let done = self.done(Scope::All, sentence.clone());
        if proviso.dry_run {
            return Ok(Done::new(done.outcome.rehearsed()));
        }
        self.world.deny_only(denials);
        self.publish();
        let decision = noted(self.world.clock.wall(), action, by, sentence);
        let saved = self.keeper.save(self.memory(), vec![decision]);
        Ok(done.after(saved))
    }
}

/// An entry of the audit that is about no split. Tells the log as well.
fn noted(at: Timestamp, action: &str, by: By, sentence: String) -> Decision {
    tracing::info!(action, actor = %by.actor, reason = %by.reason, "{sentence}");
    Decision {
        at: at.rfc3339(),
        split: String::new(),
        actor: by.actor,
        action: action.to_owned(),
        reason: by.reason,
        from: Share::ZERO,
        to: Share::ZERO,
        revision: 0,
        phase: None,
        stage: None,
        conditions: Vec::new(),
        needs: Vec::new(),
        sentence,
    }
}
