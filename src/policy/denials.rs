//! Networks that somebody has denied while under attack.
//!
//! Such a denial is typed at night, so it holds whole and at once: no more specific entry of the
//! file's lists takes a part of it back, and whoever wants that part back ends the denial. It may
//! end by itself, because what is typed at night is forgotten in the morning.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::addresses::AddressRules;
use super::time::Timestamp;

/// Networks that are denied, each with its reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Denials(BTreeMap<IpNet, Denial>);

/// Why a network is denied, and until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Denial {
    /// When it was denied, by the clock on the wall.
    #[serde(with = "rfc3339")]
    pub since: Timestamp,
    /// When it ends, by the clock on the wall; absent: when somebody ends it.
    #[serde(default, with = "rfc3339_or_absent")]
    pub until: Option<Timestamp>,
    /// Who denied it.
    pub actor: String,
    /// What that person gave as the reason.
    pub reason: String,
}

/// There are as many denials as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} networks are denied already, and no more may be: deny a network instead of its addresses, \
     or list them in `edge.deny_file`",
    Denials::MAX
)]
pub struct TooMany;

impl Denials {
    /// Networks that may be denied at the same time.
    pub const MAX: usize = 10_000;

    /// Denies a network, or says anew why and until when.
    ///
    /// # Errors
    /// [`TooMany`]; nothing changed.
    pub fn add(&mut self, network: IpNet, denial: Denial) -> Result<(), TooMany> {
        if self.0.len() >= Self::MAX && !self.0.contains_key(&network) {
            return Err(TooMany);
        }
        self.0.insert(network, denial);
        Ok(())
    }

    /// Ends the denial of exactly this network.
    pub fn remove(&mut self, network: &IpNet) -> Option<Denial> {
        self.0.remove(network)
    }

    /// Whether exactly this network is denied.
    pub fn contains(&self, network: &IpNet) -> bool {
        self.0.contains_key(network)
    }

    /// The denied networks around this one, itself included, the widest first.
    pub fn around(&self, network: &IpNet) -> Vec<IpNet> {
        let mut around: Vec<IpNet> = self.0.keys().copied().collect();
        around.retain(|denied| denied.contains(network));
        around.sort_by_key(IpNet::prefix_len);
        around
    }

    /// Takes out those whose time is over.
    pub fn expire(&mut self, now: Timestamp) -> Vec<IpNet> {
        let is_over = |denial: &Denial| denial.until.is_some_and(|until| until <= now);
        let expired = self.0.extract_if(.., |_, denial| is_over(denial));
        expired.map(|(network, _)| network).collect()
    }

    /// When the next one ends by itself.
    pub fn next_end(&self) -> Option<Timestamp> {
        self.0.values().filter_map(|denial| denial.until).min()
    }

    /// Rules that admit everybody else.
    pub fn rules(&self) -> AddressRules {
        let networks: Vec<IpNet> = self.0.keys().copied().collect();
        AddressRules::new(&[], &networks)
    }

    /// All of them in the order of their addresses.
    pub fn iter(&self) -> impl Iterator<Item = (&IpNet, &Denial)> {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Those that were denied before. None of them is let in for being one too many: the limit is for
/// those that are added.
impl FromIterator<(IpNet, Denial)> for Denials {
    fn from_iter<I: IntoIterator<Item = (IpNet, Denial)>>(denials: I) -> Self {
        Self(denials.into_iter().collect())
    }
}

mod rfc3339 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::policy::time::Timestamp;

    pub(super) fn serialize<S: Serializer>(
        at: &Timestamp,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&at.rfc3339())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        Timestamp::parse(&text).map_err(D::Error::custom)
    }
}

mod rfc3339_or_absent {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use crate::policy::time::Timestamp;

    #[expect(
        clippy::ref_option,
        reason = "serde calls it with a reference to the field"
    )]
    pub(super) fn serialize<S: Serializer>(
        at: &Option<Timestamp>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        at.map(Timestamp::rfc3339).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        let at = text.map(|text| Timestamp::parse(&text)).transpose();
        at.map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denial(until: Option<i64>) -> Denial {
        Denial {
            since: Timestamp::default(),
            until: until.map(Timestamp::from_milliseconds),
            actor: "alice".to_owned(),
            reason: "a flood".to_owned(),
        }
    }

    fn network(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn a_denial_holds_until_its_time_is_over_or_for_ever() {
        let mut denials = Denials::default();
        for (text, until) in [
            ("192.0.2.0/24", None),
            ("198.51.100.7/32", Some(2_000)),
            ("2001:db8::/32", Some(1_000)),
        ] {
            denials.add(network(text), denial(until)).unwrap();
        }
        assert_eq!(
            denials.next_end(),
            Some(Timestamp::from_milliseconds(1_000))
        );
        assert_eq!(denials.expire(Timestamp::from_milliseconds(999)), []);
        let now = Timestamp::from_milliseconds(1_000);
        assert_eq!(denials.expire(now), [network("2001:db8::/32")]);
        assert_eq!(denials.expire(now), []);
        let rules = denials.rules();
        assert!(!rules.admits("192.0.2.9".parse().unwrap()));
        assert!(rules.admits("2001:db8::1".parse().unwrap()));
        let later = Timestamp::from_milliseconds(i64::MAX);
        assert_eq!(denials.expire(later), [network("198.51.100.7/32")]);
        assert_eq!(denials.next_end(), None);
        assert_eq!(denials.len(), 1);
    }

    #[test]
    fn the_networks_around_an_address_are_found_from_the_widest() {
        let texts = ["10.1.2.3/32", "10.0.0.0/8", "10.1.0.0/16", "10.2.0.0/16"];
        let denials: Denials = texts
            .map(|text| (network(text), denial(None)))
            .into_iter()
            .collect();
        let around = denials.around(&network("10.1.2.3/32"));
        assert_eq!(
            around,
            ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32"].map(network)
        );
        assert_eq!(denials.around(&network("11.0.0.0/8")), []);
    }

    #[test]
    fn beyond_the_bound_nothing_is_added_but_what_is_there_may_change() {
        let address = |number: u32| IpNet::from(std::net::IpAddr::from(number.to_be_bytes()));
        let mut denials = Denials::default();
        for number in 0..Denials::MAX as u32 {
            denials.add(address(number), denial(None)).unwrap();
        }
        assert_eq!(denials.add(address(u32::MAX), denial(None)), Err(TooMany));
        assert_eq!(denials.add(address(0), denial(Some(1))), Ok(()));
        assert!(denials.remove(&address(0)).is_some());
        assert_eq!(denials.add(address(u32::MAX), denial(None)), Ok(()));
    }

    #[test]
    fn a_denial_is_written_so_that_people_can_read_it() {
        let written = serde_json::to_string(&denial(Some(1_795_000_000_250))).unwrap();
        assert!(written.contains("2026-11-18T"), "{written}");
        let read: Denial = serde_json::from_str(&written).unwrap();
        assert_eq!(read, denial(Some(1_795_000_000_250)));
    }
}
