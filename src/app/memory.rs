//! The state at the start: what an earlier process left, or what the operator says instead.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Recover, ServeError};
use crate::clock::Clock;
use crate::config::model::Config;
use crate::control::world::World;
use crate::policy::plan::Retreat;
use crate::policy::rollout::{By, Effect, Event};
use crate::state::{OpenError, Saved, Store};

/// Who closes a store may still have a reader at it.
const CLOSING: Duration = Duration::from_secs(5);
/// Between two looks whether it is closed.
const LOOK: Duration = Duration::from_millis(20);

/// Opens the store that another process has just closed, and otherwise as [`open`].
pub(super) async fn open_after(
    config: &Config,
    recover: Option<Recover>,
    clock: Clock,
) -> Result<(Option<Store>, Option<Saved>), ServeError> {
    let begun = Instant::now();
    loop {
        match open(config, recover, clock) {
            Err(ServeError::State(OpenError::Locked { .. })) if begun.elapsed() < CLOSING => {
                sleep(LOOK).await;
            }
            opened => return opened,
        }
    }
}

/// Opens the state store and reads what an earlier process left; `None` where it cannot be used
/// and the operator has said how to start all the same.
pub(super) fn open(
    config: &Config,
    recover: Option<Recover>,
    clock: Clock,
) -> Result<(Option<Store>, Option<Saved>), ServeError> {
    let directory = &config.process.state_directory;
    let opened = Store::open(directory).and_then(|store| store.load().map(|saved| (store, saved)));
    let error = match opened {
        Ok((store, saved)) => {
            if recover.is_some() {
                tracing::warn!("--recover-share is ignored: the state store is in order");
            }
            if store.is_new() {
                let file = store.file().display();
                tracing::warn!(%file, "no state file: beginning without earlier decisions");
            }
            return Ok((Some(store), Some(saved)));
        }
        // Another process decides there; two deciders are worse than none.
        Err(error @ OpenError::Locked { .. }) => return Err(error.into()),
        Err(error) if recover.is_none() => return Err(error.into()),
        Err(error) => error,
    };
    tracing::error!(%error, "starting without the earlier state, as --recover-share asks");
    let fresh = Store::set_aside(directory, clock.now()).and_then(|aside| {
        tracing::warn!(file = %aside.display(), "the unusable state file is kept here");
        Store::open(directory).map_err(io::Error::other)
    });
    match fresh {
        Ok(store) => Ok((Some(store), None)),
        Err(error) => {
            tracing::error!(%error, "there is no state store: nothing survives a restart");
            Ok((None, None))
        }
    }
}

/// Gives every split the share that the operator named for a start without memory.
pub(super) fn recover_shares(world: &mut World, recover: Recover) -> Vec<Effect> {
    let now = world.clock.now();
    let by = By {
        actor: "operator".to_owned(),
        reason: "--recover-share".to_owned(),
    };
    let event = match recover {
        Recover::Legacy => Event::Rollback {
            to: Some(Retreat::Zero),
            by,
        },
        Recover::Share(share) => Event::Set {
            share,
            override_file: true,
            by,
        },
    };
    let splits = world.splits.iter_mut();
    splits
        .flat_map(|state| match state.rollout.handle(event.clone(), now) {
            Ok(effects) => effects,
            Err(refusal) => {
                tracing::error!(split = state.rollout.split(), %refusal, "not recovered");
                Vec::new()
            }
        })
        .collect()
}
