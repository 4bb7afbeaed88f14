//! What was decided and what is saved, for whoever asks.
//!
//! The control loop only passes the question on: the disk is read elsewhere, the answer is put into
//! words there as well, and waits in a task of its own. So nobody who asks for ten thousand
//! decisions keeps the judge from deciding.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::task::spawn_local;

use crate::policy::duration;
use crate::policy::rollout::Decision;
use crate::policy::time::{InvalidTime, Timestamp};
use crate::state::{StoreError, Wanted};

use super::controller::Controller;
use super::keeper::NotKept;
use super::protocol::Refused;

/// Which decisions of the audit are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Those of this split, configured or not any more; absent: of all.
    pub split: Option<String>,
    /// Those from then on.
    pub since: Option<Since>,
    /// At most so many, the latest; within [`HistoryQuery::LIMITS`].
    pub limit: usize,
}

impl HistoryQuery {
    /// How many may be asked for.
    pub const LIMITS: std::ops::RangeInclusive<usize> = 1..=1000;
    /// How many are told where nobody says.
    pub const DEFAULT_LIMIT: usize = 20;
}

/// From when on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// A point in time.
    At(Timestamp),
    /// So long ago.
    Ago(Duration),
}

impl FromStr for Since {
    type Err = InvalidSince;

    fn from_str(text: &str) -> Result<Self, InvalidSince> {
        match duration::parse(text) {
            Ok(ago) => Ok(Since::Ago(ago)),
            Err(_) => Ok(Since::At(Timestamp::parse(text)?)),
        }
    }
}

/// The text says no point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}; or say how long ago, such as `90m` or `7d`")]
pub struct InvalidSince(#[from] InvalidTime);

/// The answer: `GET /api/v1/history`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// The latest first.
    pub decisions: Vec<Decision>,
}

/// JSON, or why there is none.
pub type Written = Result<String, Refused>;

impl Controller {
    /// Answers with a [`History`], in time and without keeping the judge.
    pub(super) fn tell_history(&self, query: HistoryQuery, reply: oneshot::Sender<Written>) {
        let unknown = query.split.as_deref().map(|split| self.find(split));
        let unknown = unknown.and_then(Result::err);
        let now = self.world.clock.now();
        let wanted = Wanted {
            split: query.split,
            since: query.since.map(|since| since.from(now)),
            limit: query.limit.min(*HistoryQuery::LIMITS.end()),
        };
        let read = self.keeper.read(move |reading| {
            let decisions = reading.history(&wanted)?;
            let is_empty = decisions.is_empty();
            let json = serde_json::to_string(&History { decisions }).map_err(StoreError::Value)?;
            Ok((json, is_empty))
        });
        spawn_local(async move {
            let answer = match (read.await, unknown) {
                // One that left the configuration has a history; a misspelt one has none.
                (Ok((_, true)), Some(unknown)) => Err(unknown),
                (Ok((json, _)), _) => Ok(json),
                (Err(error), _) => Err(unread(&error)),
            };
            // Whoever asked may have gone.
            let _ = reply.send(answer);
        });
    }
}

impl Since {
    fn from(self, now: Timestamp) -> Timestamp {
        match self {
            Since::At(at) => at,
            Since::Ago(ago) => {
                let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
                Timestamp::from_milliseconds(now.milliseconds().saturating_sub(ago))
            }
        }
    }
}

impl Controller {
    /// Answers with a [`Document`](crate::state::Document), in time and without keeping the judge.
    pub(super) fn tell_state(&self, reply: oneshot::Sender<Written>) {
        let now = self.world.clock.now();
        let read = self.keeper.read_alone(move |reading| reading.export(now));
        spawn_local(async move {
            // Whoever asked may have gone.
            let _ = reply.send(read.await.map_err(|error| unread(&error)));
        });
    }
}

fn unread(error: &NotKept) -> Refused {
    Refused::StoreFailed(format!("the state store cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_or_how_long_ago() {
        let now = Timestamp::parse("2026-11-20T14:00:00Z").unwrap();
        for (text, from) in [
            ("2h", "2026-11-20T12:00:00Z"),
            ("2026-11-19", "2026-11-19T00:00:00Z"),
        ] {
            let since: Since = text.parse().unwrap();
            assert_eq!(since.from(now), Timestamp::parse(from).unwrap(), "{text}");
        }
        let refused = "soon".parse::<Since>().unwrap_err().to_string();
        assert!(refused.contains("`90m`"), "{refused}");
    }
}
