//! One death of `new`, and what is kept of a rollout that lives.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use cutover::state::Document;
use serde_json::{Value, json};

use super::arm::{Arm, Death};
use super::callers::Callers;
use super::{Impossible, Proxy};

/// Requests to `new` before it dies: two seconds of health.
const HEALTHY: u64 = 200;
/// Requests to `new` after share 0 was seen, in which nothing may fail any more.
const AFTERWARDS: u64 = 50;

/// What one death has cost.
pub(super) struct Run {
    pub(super) death: Death,
    /// From the first failed attempt to share 0.
    pub(super) span: Duration,
    /// Attempts on `new` that failed.
    pub(super) attempts: u64,
    /// Answers to clients that were no 200.
    pub(super) bad_answers: u64,
}

impl Run {
    pub(super) async fn make(death: Death, number: u32) -> Result<Self, Impossible> {
        let (legacy, new) = (Arm::start()?, Arm::start()?);
        let proxy = Proxy::start(legacy.address(), new.address())?;
        let mut callers = Callers::begin(proxy.listener())?;
        callers
            .until("new is asked", |seen| seen.new >= HEALTHY)
            .await?;
        // Verdicts come every 100 ms; deaths shall come at every moment between two of them.
        tokio::time::sleep(Duration::from_millis(u64::from(number * 37 % 100))).await;
        let new = match death {
            Death::Refused => {
                drop(new);
                None
            }
            Death::Status500 => {
                new.fail();
                Some(new)
            }
        };
        let seen = callers
            .until("the share is 0", |seen| seen.share_zero.is_some())
            .await?;
        let (Some(begin), Some(end)) = (seen.first_failure, seen.share_zero) else {
            return Err("the share was 0 before anything had failed".into());
        };
        let goal = seen.new + AFTERWARDS;
        let seen = callers.until("it goes on", |seen| seen.new >= goal).await?;
        let attempts = match &new {
            // Who was asked knows best.
            Some(new) => new.failures(),
            None => proxy.failed_attempts().await?,
        };
        Ok(Self {
            death,
            span: end.duration_since(begin),
            attempts,
            bad_answers: seen.bad,
        })
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "death": self.death.as_str(),
            "milliseconds_to_share_0": self.milliseconds(),
            "failed_attempts": self.attempts,
            "bad_answers": self.bad_answers,
        })
    }

    pub(super) fn milliseconds(&self) -> f64 {
        (self.span.as_secs_f64() * 1e4).round() / 10.0
    }
}

impl Display for Run {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (span, attempts, bad) = (self.milliseconds(), self.attempts, self.bad_answers);
        write!(
            f,
            "share 0 after {span} ms, {attempts} failed attempts, {bad} bad answers"
        )
    }
}

/// What is kept of a rollout under the default criteria.
pub(super) struct Kept {
    after: Duration,
    record_bytes: usize,
    store_bytes: u64,
}

/// Lets both arms live for a while, and looks at what is kept.
pub(super) async fn kept_after(after: Duration) -> Result<Kept, Impossible> {
    let (legacy, new) = (Arm::start()?, Arm::start()?);
    let proxy = Proxy::start(legacy.address(), new.address())?;
    let mut callers = Callers::begin(proxy.listener())?;
    let goal = after.as_secs() * 100;
    callers
        .until("the traffic goes on", |seen| seen.new >= goal)
        .await?;
    let document: Document = serde_json::from_str(&proxy.ask("/api/v1/state").await?)?;
    let record = document.rollouts.get("api").ok_or("there is no record")?;
    Ok(Kept {
        after,
        record_bytes: serde_json::to_vec(record)?.len(),
        store_bytes: proxy.store_bytes()?,
    })
}

impl Kept {
    pub(super) fn to_json(&self) -> Value {
        json!({
            "after_seconds": self.after.as_secs(),
            "record_bytes": self.record_bytes,
            "store_bytes": self.store_bytes,
        })
    }
}

impl Display for Kept {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let seconds = self.after.as_secs();
        let (record, store) = (self.record_bytes, self.store_bytes);
        write!(
            f,
            "State after {seconds} s at 200 requests/s, default criteria: the record has {record} \
             bytes, the store {store}."
        )
    }
}
