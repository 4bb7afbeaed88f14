//! Sessions that browse: a few thousand cookies over a few dozen kept-alive connections.
//!
//! Each session keeps to one connection and asks one thing at a time, as a browser does. So its
//! answers have an order, without which "it changed arm" would mean nothing.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use tokio::task::JoinSet;

use crate::policy::arm::Arm;

use super::caller::{Answer, Caller};
use super::census::{Census, Failure, Seen};

/// So many that a tenth of them is close to 10 %, and so few that each comes several times a stage.
const SESSIONS: usize = 2_000;
const CONNECTIONS: usize = 32;
/// All connections together. A machine that cannot do as much does less, and the stages of the plan
/// last longer.
const REQUESTS_PER_SECOND: usize = 1_500;

const PATHS: [&str; 4] = ["/catalog", "/cart", "/orders/1042", "/profile"];

/// The traffic; it ends when this is dropped.
pub(super) struct Traffic {
    census: Arc<Mutex<Census>>,
    _browsers: JoinSet<()>,
}

impl Traffic {
    /// Sends the sessions through the door at `address`.
    pub(super) fn start(address: SocketAddr) -> Self {
        let census = Arc::new(Mutex::new(Census::of(SESSIONS)));
        let mut browsers = JoinSet::new();
        for number in 0..CONNECTIONS {
            let census = Arc::clone(&census);
            browsers.spawn(async move { browse(number, Caller::new(address), &census).await });
        }
        Self {
            census,
            _browsers: browsers,
        }
    }

    /// Who was answered by whom.
    pub(super) fn census(&self) -> MutexGuard<'_, Census> {
        lock(&self.census)
    }
}

/// The cookie's value, which is the session's key.
pub(super) fn session_key(session: usize) -> String {
    format!("visitor-{session:04}")
}

async fn browse(number: usize, mut caller: Caller, census: &Mutex<Census>) {
    let period = Duration::from_secs(1) * CONNECTIONS as u32 / REQUESTS_PER_SECOND as u32;
    // Evenly apart, so that the requests of all connections do not come in bursts.
    let mut due = Instant::now() + period * number as u32 / CONNECTIONS as u32;
    let mine = (number..SESSIONS).step_by(CONNECTIONS);
    for (turn, session) in mine.cycle().enumerate() {
        tokio::time::sleep_until(due.into()).await;
        // Behind schedule, the time that was lost is not made up for: a burst would measure the
        // demonstration's own machine.
        due = (due + period).max(Instant::now());
        let cookie = format!("session={}", session_key(session));
        let sent = lock(census).asked();
        let answer = caller.get(PATHS[turn % PATHS.len()], Some(&cookie)).await;
        let mut census = lock(census);
        let answer = answer.map_err(|error| Failure::Of(error.to_string()));
        match answer.and_then(seen) {
            Ok(seen) => census.answered(session, sent, seen, Instant::now()),
            Err(failure) => census.failed(sent, failure),
        }
    }
}

/// What the session saw, or why this counts as a failed GET.
fn seen(answer: Answer) -> Result<Seen, Failure> {
    let arm = answer.headers.get("cutover-arm");
    let arm = arm.and_then(|arm| arm.to_str().ok()?.parse().ok());
    match (answer.status, arm) {
        (StatusCode::OK, Some(arm)) => Ok(Seen {
            arm,
            rescued: answer.headers.contains_key("cutover-fallback"),
        }),
        (StatusCode::OK, None) => Err(Failure::Of("the answer did not name its arm".to_owned())),
        (StatusCode::INTERNAL_SERVER_ERROR, Some(Arm::Legacy)) => Err(Failure::OfLegacy),
        (status, _) => Err(Failure::Of(format!("the answer was {status}"))),
    }
}

/// A census is whole between any two of its methods, so a panic elsewhere has not spoilt it.
fn lock(census: &Mutex<Census>) -> MutexGuard<'_, Census> {
    census.lock().unwrap_or_else(PoisonError::into_inner)
}
