//! What an old process obeys until it ends.
//!
//! It decides nothing any more, yet still assigns sessions on the connections that it kept. When
//! its successor takes share from a new arm, the old one must as well; when the successor gives
//! more, it need not. So limits only ever sink, and cannot be mistaken for a second decider.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::share::{Share, percentage};
use crate::policy::time::Elapsed;
use crate::snapshot::Snapshot;

/// The most that may reach the new arm of one split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Its name.
    split: String,
    #[serde(with = "percentage")]
    share: Share,
    emergency: bool,
    /// In how many milliseconds the streams of the new arm are closed, if they are.
    streams_end_in: Option<u64>,
}

/// The most that may reach each new arm. Without any, there are no limits.
#[derive(Debug, Default)]
pub struct Limits(BTreeMap<String, Most>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Most {
    share: Share,
    emergency: bool,
    streams_end: Option<Elapsed>,
}

impl Limits {
    /// Notes what of this snapshot is less than all that was noted before, and returns it.
    pub fn sink_to(&mut self, snapshot: &Snapshot, now: Elapsed) -> Vec<Limit> {
        let splits = snapshot.routing.splits.iter().enumerate();
        let limits = splits.map(|(index, split)| {
            let standing = snapshot.standings[index];
            let end = snapshot.streams_end[index];
            let left = end.map(|end| end.since(now).as_millis());
            Limit {
                split: split.name.clone(),
                share: standing.share,
                emergency: standing.emergency,
                streams_end_in: left.map(|left| u64::try_from(left).unwrap_or(u64::MAX)),
            }
        });
        let news = limits.filter(|limit| self.sink(limit, now));
        news.collect()
    }

    /// Takes limits over where they are less than those so far.
    pub fn obey(&mut self, limits: &[Limit], now: Elapsed) {
        for limit in limits {
            self.sink(limit, now);
        }
    }

    /// Holds a snapshot to the limits.
    pub fn hold(&self, snapshot: &mut Snapshot) {
        for (index, split) in snapshot.routing.splits.iter().enumerate() {
            let Some(most) = self.0.get(&split.name) else {
                continue;
            };
            let standing = &mut snapshot.standings[index];
            standing.share = standing.share.min(most.share);
            standing.emergency |= most.emergency;
            let end = &mut snapshot.streams_end[index];
            *end = earlier(*end, most.streams_end);
        }
    }

    /// Whether this limit was news.
    fn sink(&mut self, limit: &Limit, now: Elapsed) -> bool {
        let left = limit.streams_end_in.map(Duration::from_millis);
        let told = Most {
            share: limit.share,
            emergency: limit.emergency,
            streams_end: left.map(|left| now.plus(left)),
        };
        let Some(most) = self.0.get_mut(&limit.split) else {
            self.0.insert(limit.split.clone(), told);
            return true;
        };
        let sunk = Most {
            share: most.share.min(told.share),
            emergency: most.emergency || told.emergency,
            // The first end told stays: another clock tells it a little differently each time.
            streams_end: most.streams_end.or(told.streams_end),
        };
        std::mem::replace(most, sunk) != sunk
    }
}

fn earlier(one: Option<Elapsed>, other: Option<Elapsed>) -> Option<Elapsed> {
    one.into_iter().chain(other).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(share: &str, emergency: bool, streams_end_in: Option<u64>) -> Limit {
        Limit {
            split: "api".to_owned(),
            share: share.parse().unwrap(),
            emergency,
            streams_end_in,
        }
    }

    #[test]
    fn limits_only_sink() {
        let at = Elapsed::from_milliseconds;
        let mut limits = Limits::default();
        assert!(limits.sink(&limit("30%", false, None), at(0)));
        assert!(!limits.sink(&limit("100%", false, None), at(1)));
        assert!(limits.sink(&limit("0%", false, Some(500)), at(1_000)));
        assert!(!limits.sink(&limit("0%", false, Some(100)), at(1_400)));
        assert!(limits.sink(&limit("10%", true, None), at(2_000)));
        assert!(!limits.sink(&limit("10%", false, None), at(3_000)));
        let most = Most {
            share: Share::ZERO,
            emergency: true,
            streams_end: Some(at(1_500)),
        };
        assert_eq!(limits.0["api"], most);
    }
}
