//! Whether a rollout stands still.
//!
//! Somebody who waits for a rollout, perhaps a script, must not wait all night for a person who does
//! not know of it: what evidence and time will bring is worth waiting for, what only a person brings
//! is not.

use serde::{Deserialize, Serialize};

use super::{Phase, Rollout, Wait};
use crate::policy::time::Timestamp;

/// What a rollout stands still for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rest {
    /// For a person: nothing else moves it on.
    Person,
    /// For its calendar.
    Calendar {
        /// Until it opens.
        seconds: u64,
    },
}

impl Rollout {
    /// What it stands still for; none while evidence or time may move it on, or complete it, and
    /// once it is completed. Without a plan only a person moves it.
    pub fn rest(&self, now: Timestamp) -> Option<Rest> {
        if self.plan().is_none() {
            return Some(Rest::Person);
        }
        if self.phase() == Phase::Completed {
            return None;
        }
        let waits = self.waits(now);
        let is_stopped = waits.iter().any(|wait| {
            matches!(
                wait,
                Wait::Emergency | Wait::Latch | Wait::Pause | Wait::OperatorShare(_)
            )
        });
        if is_stopped {
            return Some(Rest::Person);
        }
        let may_change =
            |wait: &Wait| wait.is_of_proof() || matches!(wait, Wait::Look | Wait::CoolDown(_));
        if waits.iter().any(may_change) {
            return None;
        }
        // A person may also change a share that has changed too often today.
        let needs_person = waits.iter().any(|wait| {
            matches!(
                wait,
                Wait::Approval(_) | Wait::Advising | Wait::Flapping { .. } | Wait::Calendar(None)
            )
        });
        if needs_person {
            return Some(Rest::Person);
        }
        waits.iter().find_map(|wait| match wait {
            Wait::Calendar(Some(opens)) => {
                let left = opens.milliseconds().saturating_sub(now.milliseconds());
                let seconds = u64::try_from(left).unwrap_or_default().div_ceil(1000);
                Some(Rest::Calendar { seconds })
            }
            _ => None,
        })
    }
}
