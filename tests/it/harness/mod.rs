//! What a test needs to put the real binary between real sockets.
//!
//! Reading order: [`proxy`] is the program under test, [`upstream`] the servers behind it,
//! [`client`] whoever is in front. A test waits for conditions ([`eventually`]), never for
//! durations: a machine under load makes it slower, not red.

pub(crate) mod certificate;
pub(crate) mod chance;
pub(crate) mod client;
pub(crate) mod frames;
pub(crate) mod keys;
pub(crate) mod metrics;
pub(crate) mod proxy;
#[cfg(test)]
mod tests;
pub(crate) mod traffic;
pub(crate) mod upstream;
pub(crate) mod witness;

use std::fmt::Display;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

/// Longer than anything takes that happens at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Between two looks at a condition.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// One split, `api`, keyed by `X-User`, with these further settings (`share: 50%, rollback: off`),
/// and the one route to it.
pub(crate) fn migration(legacy: impl Display, new: impl Display, settings: &str) -> String {
    format!(
        "backends:
  legacy: {{endpoints: ['{legacy}']}}
  new: {{endpoints: ['{new}']}}
splits:
  api: {{legacy: legacy, new: new, key: [{{header: X-User}}], keyless: legacy, {settings}}}
routes: [{{split: api}}]
"
    )
}

/// The split `api` with everything on `new` and nothing that rolls it back, so that a test can watch
/// it fail for longer; its backends, a further setting and routes before its own written out.
pub(crate) fn unjudged(legacy: &str, new: &str, split: &str, routes: &str) -> String {
    format!(
        "backends:
  legacy: {legacy}
  new: {new}
splits:
  api:
    legacy: legacy
    new: new
    share: 100%
    key: [{{header: X-User}}]
    keyless: legacy
    response_headers: true
    rollback: off
    analysis: {{hard_fail: 1000000}}
    {split}
routes:
{routes}
  - {{split: api}}
"
    )
}

/// Waits until `condition` holds, and says `what` never happened if it does not.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    found(async || match condition().await {
        true => Ok(()),
        false => Err(format!("never happened: {what}")),
    })
    .await;
}

/// What `look` finds, which says what it saw as long as it does not.
pub(crate) async fn found<T>(mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) => assert!(started.elapsed() < PATIENCE, "{seen}"),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// How a program that we have started ends by itself.
pub(crate) async fn ended(child: &mut Child) -> ExitStatus {
    found(async || {
        let status = child.try_wait().expect("it is our child");
        status.ok_or_else(|| "it never ended".to_owned())
    })
    .await
}

/// What `future` returns; a test that hangs says where.
pub(crate) async fn in_time<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("never happened: {what}"),
    }
}
