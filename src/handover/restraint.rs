//! What an old process obeys until it ends.
//!
//! It decides nothing any more, yet still assigns sessions on the connections that it kept. When
//! its successor takes share from a new arm, the old one must as well; when the successor gives
//! more, it need not. So ceilings only ever sink, and cannot be mistaken for a second decider. Who
//! is denied by hand is told whole whenever it changes: it says nothing of shares.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::policy::denials::Denials;
use crate::policy::share::{Share, percentage};
use crate::policy::time::Elapsed;
use crate::snapshot::Snapshot;

/// What has become stricter since the last time that an old process was told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restraint {
    /// Of the splits of which less may reach the new arm than before.
    pub ceilings: Vec<Ceiling>,
    /// All networks that are denied by hand; absent where they are the same as before.
    #[serde(default)]
    pub denied: Option<Vec<IpNet>>,
}

/// The most that may reach the new arm of one split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ceiling {
    /// Its name.
    split: String,
    #[serde(with = "percentage")]
    share: Share,
    emergency: bool,
    /// In how many milliseconds the streams of the new arm are closed, if they are.
    streams_end_in: Option<u64>,
}

/// What an old process was told so far, as its successor remembers it.
#[derive(Debug, Default)]
pub(super) struct Told {
    ceilings: Ceilings,
    denials: Option<Arc<Denials>>,
}

/// The most that may reach each new arm. A split that is not in it has no ceiling.
#[derive(Debug, Default)]
pub struct Ceilings(BTreeMap<String, Most>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Most {
    share: Share,
    emergency: bool,
    streams_end: Option<Elapsed>,
}

impl Told {
    /// Notes what of this snapshot is stricter than all that was noted before, and returns it; none
    /// where nothing is.
    pub(super) fn news(&mut self, snapshot: &Snapshot, now: Elapsed) -> Option<Restraint> {
        let ceilings = self.ceilings.sink_to(snapshot, now);
        let denials = &snapshot.denials;
        let known = self.denials.as_ref();
        let is_known = known.is_some_and(|known| Arc::ptr_eq(known, denials));
        let denied = (!is_known).then(|| denials.iter().map(|(network, _)| *network).collect());
        self.denials = Some(Arc::clone(denials));
        let is_news = !ceilings.is_empty() || denied.is_some();
        is_news.then_some(Restraint { ceilings, denied })
    }
}

impl Ceilings {
    /// Notes what of this snapshot is less than all that was noted before, and returns it.
    fn sink_to(&mut self, snapshot: &Snapshot, now: Elapsed) -> Vec<Ceiling> {
        let splits = snapshot.routing.splits.iter().enumerate();
        let ceilings = splits.map(|(index, split)| {
            let standing = snapshot.standings[index];
            let end = snapshot.streams_end[index];
            let left = end.map(|end| end.since(now).as_millis());
            Ceiling {
                split: split.name.clone(),
                share: standing.share,
                emergency: standing.emergency,
                streams_end_in: left.map(|left| u64::try_from(left).unwrap_or(u64::MAX)),
            }
        });
        let news = ceilings.filter(|ceiling| self.sink(ceiling, now));
        news.collect()
    }

    /// Takes ceilings over where they are lower than those so far.
    pub fn obey(&mut self, ceilings: &[Ceiling], now: Elapsed) {
        for ceiling in ceilings {
            self.sink(ceiling, now);
        }
    }

    /// Holds a snapshot to the ceilings.
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

    /// Whether this ceiling was news.
    fn sink(&mut self, ceiling: &Ceiling, now: Elapsed) -> bool {
        let left = ceiling.streams_end_in.map(Duration::from_millis);
        let told = Most {
            share: ceiling.share,
            emergency: ceiling.emergency,
            streams_end: left.map(|left| now.plus(left)),
        };
        let Some(most) = self.0.get_mut(&ceiling.split) else {
            self.0.insert(ceiling.split.clone(), told);
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

    fn ceiling(share: &str, emergency: bool, streams_end_in: Option<u64>) -> Ceiling {
        Ceiling {
            split: "api".to_owned(),
            share: share.parse().unwrap(),
            emergency,
            streams_end_in,
        }
    }

    #[test]
    fn ceilings_only_sink() {
        let at = Elapsed::from_milliseconds;
        let mut ceilings = Ceilings::default();
        assert!(ceilings.sink(&ceiling("30%", false, None), at(0)));
        assert!(!ceilings.sink(&ceiling("100%", false, None), at(1)));
        assert!(ceilings.sink(&ceiling("0%", false, Some(500)), at(1_000)));
        assert!(!ceilings.sink(&ceiling("0%", false, Some(100)), at(1_400)));
        assert!(ceilings.sink(&ceiling("10%", true, None), at(2_000)));
        assert!(!ceilings.sink(&ceiling("10%", false, None), at(3_000)));
        let most = Most {
            share: Share::ZERO,
            emergency: true,
            streams_end: Some(at(1_500)),
        };
        assert_eq!(ceilings.0["api"], most);
    }
}
