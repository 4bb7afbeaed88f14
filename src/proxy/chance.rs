//! What a request may still try within a backend, and where it waits.
//!
//! Apart from the attempt because the rules must be read together to be believed: each kind of
//! mishap is forgiven once and uses up no other's forgiveness, so that every request comes to an
//! end. A full pool is no failure: whoever meets one tries a neighbour that is thought well, never
//! one that is known to be dead, and else waits; and a neighbour that fails does not end the wait
//! that was due before it was asked.

use std::time::Duration;

use crate::config::model::Protocol;
use crate::policy::class::{Diversion, Failure};
use crate::policy::fallback::Repetition;
use crate::snapshot::BackendPlan;
use crate::upstream::http1::exchange::ExchangeFailed;
use crate::upstream::http1::upload::RequestBody;
use crate::upstream::pool::{Freed, Pool};

use super::attempt::{Call, NotOpened, Try, Unanswered, within};

/// Time to wait for a connection to a full pool where somebody else could answer.
const PATIENCE_WITH_FALLBACK: Duration = Duration::from_millis(250);

/// What the tries within a backend so far have met.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Chance {
    /// The endpoint whose kept connection was stale: no kept one any more, and another endpoint if
    /// there is any.
    pub(super) stale: Option<usize>,
    /// The endpoint that could not be reached, whose pool was full, or towards which the machine had
    /// no port left: any but this one.
    excluded: Option<usize>,
    /// Whether the excluded endpoint's pool was full, so that the request may come back and wait.
    is_full: bool,
    /// How long to wait for a connection to a full pool.
    patience: Option<Duration>,
    /// How a try failed of which nothing was sent.
    earlier: Option<Failure>,
}

impl Chance {
    /// The chance after a stale connection to this endpoint, if it is the first one.
    fn with_fresh_connections(self, index: usize) -> Option<Chance> {
        self.stale.is_none().then_some(Chance {
            stale: Some(index),
            ..self
        })
    }

    /// The chance after every pool was found full, if it is the first one: the time that a connection
    /// may take, or as long as nobody notices where somebody else may answer. Over HTTP/2 nobody
    /// waits, since there a full pool is full of connections with room.
    fn with_patience(self, plan: &BackendPlan, how: Try) -> Option<Chance> {
        let settings = &plan.backend.settings;
        let connect = settings.timeouts.connect;
        let patience = match how.is_last_resort {
            true => connect,
            false => connect.min(PATIENCE_WITH_FALLBACK),
        };
        let is_first = self.patience.is_none() && settings.protocol == Protocol::Http1;
        is_first.then_some(Chance {
            patience: Some(patience),
            ..self
        })
    }

    /// The chance after an endpoint that took nothing, if it is the first one.
    fn without_endpoint(self, index: usize) -> Option<Chance> {
        self.excluded.is_none().then_some(Chance {
            excluded: Some(index),
            ..self
        })
    }

    /// The chance after an endpoint whose pool was full, if none was excluded before.
    fn without_full_endpoint(self, index: usize) -> Option<Chance> {
        let chance = self.without_endpoint(index)?;
        Some(Chance {
            is_full: true,
            ..chance
        })
    }

    /// Back to the endpoint whose pool was full, to wait there, after its neighbour at `index` took
    /// nothing either; even if it was waited for at the neighbour, whose own pool may have been full
    /// of others that found out that it is dead.
    fn back_to_full(self, plan: &BackendPlan, how: Try, index: usize) -> Option<(usize, Chance)> {
        let full = self.excluded.filter(|_| self.is_full)?;
        let patient = match self.patience {
            Some(_) => self,
            None => self.with_patience(plan, how)?,
        };
        let chance = Chance {
            excluded: Some(index),
            is_full: false,
            ..patient
        };
        Some((full, chance))
    }

    /// The end of a request whose last try did not take place: what failed before it counts.
    pub(super) fn diverted(self, diversion: Diversion, body: RequestBody) -> Unanswered {
        match self.earlier {
            Some(failure) => Unanswered::Failed {
                failure,
                sent: false,
                body,
            },
            None => Unanswered::Diverted { diversion, body },
        }
    }
}

impl Call<'_> {
    /// The endpoint for this chance.
    pub(super) fn pick(&self, plan: &BackendPlan, how: Try, chance: Chance) -> Option<usize> {
        self.pick_available(plan, chance).or_else(|| {
            let count = plan.backend.endpoints.len();
            let now = self.worker.deadlines.now();
            let start = usize::try_from(now.milliseconds()).unwrap_or(0);
            let mut any = (0..count).map(|offset| (start + offset) % count);
            any.find(|index| Some(*index) != chance.excluded)
                .filter(|_| how.is_last_resort)
        })
    }

    fn pick_available(&self, plan: &BackendPlan, chance: Chance) -> Option<usize> {
        let now = self.worker.deadlines.now();
        let Chance {
            stale, excluded, ..
        } = chance;
        // An endpoint that dies looks like one that closes what is idle; and having nothing pending
        // any more, it would look like the best choice.
        let picked = plan.backend.pick(now, excluded.or(stale));
        picked.or_else(|| plan.backend.pick(now, excluded))
    }

    /// Where and how a request goes on that could not be tried at the endpoint at `index`.
    pub(super) fn after_diversion(
        &self,
        plan: &BackendPlan,
        how: Try,
        (index, chance): (usize, Chance),
        diversion: Diversion,
    ) -> Option<(usize, Chance)> {
        if diversion == Diversion::PoolFull {
            let elsewhere = chance.without_full_endpoint(index).and_then(|next| {
                let other = self.pick_available(plan, next)?;
                Some((other, next))
            });
            let wait = || Some((index, chance.with_patience(plan, how)?));
            return elsewhere.or_else(wait);
        }
        let elsewhere = chance.without_endpoint(index).and_then(|next| {
            let other = self.pick(plan, how, next)?;
            Some((other, next))
        });
        elsewhere.or_else(|| chance.back_to_full(plan, how, index))
    }

    /// Where and how a try that failed at the endpoint at `index` is repeated within the backend, if
    /// it may be.
    pub(super) fn after_failure(
        &self,
        plan: &BackendPlan,
        how: Try,
        (index, chance): (usize, Chance),
        failed: &ExchangeFailed,
    ) -> Option<(usize, Chance)> {
        let is_harmless = !failed.sent || (failed.stale && self.repetition == Repetition::Safe);
        if !is_harmless || !failed.body.is_replayable() {
            return None;
        }
        let chance = Chance {
            // The stale connection says nothing about the endpoint.
            earlier: match failed.stale {
                true => chance.earlier,
                false => Some(failed.failure),
            },
            ..chance
        };
        let elsewhere = chance.without_endpoint(index);
        let next = match failed.stale {
            true => chance
                .with_fresh_connections(index)
                .or_else(|| elsewhere.filter(|_| !failed.sent)),
            false => elsewhere,
        };
        let next = next.and_then(|next| Some((self.pick(plan, how, next)?, next)));
        let back = || chance.back_to_full(plan, how, index);
        next.or_else(|| back().filter(|_| !failed.sent))
    }

    /// The right to open a connection, or one that another request is done with: not so where a kept
    /// one was stale, for what is handed on is a kept one as well.
    pub(super) async fn right_to_connect(
        &self,
        pool: &Pool,
        chance: Chance,
    ) -> Result<Freed, NotOpened> {
        let freed = match chance.patience {
            None => pool.acquire().map(Freed::Right),
            Some(patience) => {
                self.deadline.set(patience);
                let freed = async {
                    match chance.stale {
                        Some(_) => pool.permitted().await.map(Freed::Right),
                        None => pool.freed().await,
                    }
                };
                within(&self.deadline, freed).await.flatten()
            }
        };
        freed.ok_or(NotOpened::NotTried(Diversion::PoolFull))
    }
}
