//! Which client addresses may come in.
//!
//! Lists of networks overlap: a network is denied, one address in it is allowed after all. The rule
//! is that the most specific entry decides, and of two equal ones the denial. Looking for it in
//! the lists would cost every request their length, so they are flattened once, into the points at
//! which the decision changes; a request finds its place among these by bisection.

// Addresses without sockets: `core` has nothing that could do input or output.
use core::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

/// The network that a text names. An address stands for itself, what lies behind the prefix is
/// dropped, and IPv4 written as IPv6 is IPv4, because so are the addresses of clients.
pub fn network(text: &str) -> Option<IpNet> {
    let network = match text.parse::<IpNet>() {
        Ok(network) => network.trunc(),
        Err(_) => IpNet::from(text.parse::<IpAddr>().ok()?),
    };
    let IpNet::V6(version_6) = network else {
        return Some(network);
    };
    let mapped = version_6.network().to_ipv4_mapped();
    let length = version_6.prefix_len().checked_sub(96);
    let version_4 = mapped.zip(length);
    let version_4 = version_4.and_then(|(address, length)| Ipv4Net::new(address, length).ok());
    Some(version_4.map_or(network, IpNet::V4))
}

/// Lists of allowed and denied networks, ready to be asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AddressRules {
    version_4: Vec<Step>,
    version_6: Vec<Step>,
}

/// From `start` to the next step, addresses are decided like this.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Step {
    start: u128,
    is_admitted: bool,
}

impl AddressRules {
    /// Where `allow` is empty, whoever is not denied is admitted; else only whom it contains.
    pub fn new(allow: &[IpNet], deny: &[IpNet]) -> Self {
        if allow.is_empty() && deny.is_empty() {
            return Self::default();
        }
        let by_default = allow.is_empty();
        let mut version_4 = Vec::new();
        let mut version_6 = Vec::new();
        let allowed = allow.iter().map(|network| (network, true));
        for (network, is_admitted) in allowed.chain(deny.iter().map(|network| (network, false))) {
            let entry = Entry {
                start: number(network.network()),
                end: number(network.broadcast()),
                is_admitted,
            };
            match network {
                IpNet::V4(_) => version_4.push(entry),
                IpNet::V6(_) => version_6.push(entry),
            }
        }
        Self {
            version_4: flatten(version_4, by_default),
            version_6: flatten(version_6, by_default),
        }
    }

    /// Rules that admit whom both admit.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self {
            version_4: both(&self.version_4, &other.version_4),
            version_6: both(&self.version_6, &other.version_6),
        }
    }

    /// Whether everybody is admitted, so that nobody need be looked at.
    pub fn admit_everybody(&self) -> bool {
        self.version_4.is_empty() && self.version_6.is_empty()
    }

    /// Whether this client may come in.
    pub fn admits(&self, client: IpAddr) -> bool {
        let steps = match client {
            IpAddr::V4(_) => &self.version_4,
            IpAddr::V6(_) => &self.version_6,
        };
        decision(steps, number(client))
    }
}

fn decision(steps: &[Step], client: u128) -> bool {
    let after = steps.partition_point(|step| step.start <= client);
    // Without steps there are no rules; with rules, the first step starts at zero.
    after == 0 || steps[after - 1].is_admitted
}

/// The decision changes only where one of the two does.
fn both(one: &[Step], other: &[Step]) -> Vec<Step> {
    let starts = one.iter().chain(other).map(|step| step.start);
    let mut starts: Vec<u128> = starts.collect();
    starts.sort_unstable();
    starts.dedup();
    let mut steps = Steps(Vec::new());
    for start in starts {
        steps.change(start, decision(one, start) && decision(other, start));
    }
    steps.0
}

/// One entry of a list: all addresses from `start` to `end`, both included.
struct Entry {
    start: u128,
    end: u128,
    is_admitted: bool,
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// Walks over the entries from left to right. Of two networks, either one contains the other or
/// they are apart, so those around the present place form a stack, the most specific on top.
fn flatten(mut entries: Vec<Entry>, by_default: bool) -> Vec<Step> {
    // Of equal networks the denial comes last, and so to lie on top.
    entries.sort_by_key(|entry| (entry.start, u128::MAX - entry.end, !entry.is_admitted));
    let mut steps = Steps(vec![Step {
        start: 0,
        is_admitted: by_default,
    }]);
    let mut around: Vec<Entry> = Vec::new();
    let decision = |around: &[Entry]| around.last().map_or(by_default, |entry| entry.is_admitted);
    for entry in entries {
        while let Some(inner) = around.pop_if(|inner| inner.end < entry.start) {
            steps.change(inner.end + 1, decision(&around));
        }
        steps.change(entry.start, entry.is_admitted);
        around.push(entry);
    }
    while let Some(inner) = around.pop() {
        // After the last address of all nothing is left to decide.
        if let Some(next) = inner.end.checked_add(1) {
            steps.change(next, decision(&around));
        }
    }
    steps.0
}

struct Steps(Vec<Step>);

impl Steps {
    fn change(&mut self, start: u128, is_admitted: bool) {
        self.0.pop_if(|last| last.start == start);
        if self.0.last().map(|last| last.is_admitted) != Some(is_admitted) {
            self.0.push(Step { start, is_admitted });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn networks(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn admits(rules: &AddressRules, client: &str) -> bool {
        rules.admits(client.parse().unwrap())
    }

    #[test]
    fn without_lists_everybody_is_admitted() {
        let rules = AddressRules::new(&[], &[]);
        assert!(rules.admit_everybody());
        assert!(admits(&rules, "192.0.2.1") && admits(&rules, "2001:db8::1"));
    }

    #[test]
    fn the_most_specific_entry_decides() {
        let allow = networks(&["10.1.2.0/24", "0.0.0.0/0", "::/0"]);
        let deny = networks(&["10.0.0.0/8", "10.1.2.3/32", "2001:db8::/32"]);
        let rules = AddressRules::new(&allow, &deny);
        for (client, expected) in [
            ("9.255.255.255", true),
            ("10.0.0.0", false),
            ("10.1.2.2", true),
            ("10.1.2.3", false),
            ("10.1.2.4", true),
            ("10.255.255.255", false),
            ("11.0.0.0", true),
            ("255.255.255.255", true),
            ("2001:db8::1", false),
            ("2001:db9::1", true),
        ] {
            assert_eq!(admits(&rules, client), expected, "{client}");
        }
    }

    #[test]
    fn of_two_equal_entries_the_denial_decides() {
        let both = networks(&["192.0.2.0/24"]);
        assert!(!admits(&AddressRules::new(&both, &both), "192.0.2.9"));
    }

    #[test]
    fn an_allow_list_shuts_out_everybody_else_in_both_families() {
        let rules = AddressRules::new(&networks(&["192.0.2.0/24"]), &[]);
        assert!(admits(&rules, "192.0.2.9"));
        assert!(!admits(&rules, "192.0.3.0"));
        assert!(!admits(&rules, "2001:db8::1"));
    }

    /// The rule as it is written, without the flattening.
    fn naive(allow: &[IpNet], deny: &[IpNet], client: IpAddr) -> bool {
        let longest = |networks: &[IpNet]| {
            let around = networks.iter().filter(|network| network.contains(&client));
            around.map(IpNet::prefix_len).max()
        };
        match (longest(allow), longest(deny)) {
            (Some(allowed), Some(denied)) => allowed > denied,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => allow.is_empty(),
        }
    }

    fn any_network() -> impl Strategy<Value = IpNet> {
        // A small part of the space, so that networks meet each other, and its end.
        let version_4 = (any::<u8>(), 0_u8..=32).prop_map(|(byte, length)| {
            let address = IpAddr::from([255, 255, 255, byte]);
            IpNet::new(address, length).unwrap().trunc()
        });
        let version_6 = (any::<u8>(), 0_u8..=128).prop_map(|(byte, length)| {
            let address = IpAddr::from((u128::MAX - 255 + u128::from(byte)).to_be_bytes());
            IpNet::new(address, length).unwrap().trunc()
        });
        prop_oneof![version_4, version_6]
    }

    #[test]
    fn a_network_is_read_as_the_one_that_clients_come_from() {
        for (text, expected) in [
            ("192.0.2.7", "192.0.2.7/32"),
            ("192.0.2.7/24", "192.0.2.0/24"),
            ("2001:DB8::7/32", "2001:db8::/32"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
            ("::ffff:192.0.2.7/120", "192.0.2.0/24"),
            ("::/0", "::/0"),
        ] {
            let found = network(text).map(|network| network.to_string());
            assert_eq!(found.as_deref(), Some(expected), "{text}");
        }
        for text in ["", "192.0.2", "192.0.2.0/33", "example.com", "192.0.2.7:80"] {
            assert_eq!(network(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn two_sets_of_rules_together_admit_whom_both_admit(
            allow in prop::collection::vec(any_network(), 0..5),
            deny in prop::collection::vec(any_network(), 0..5),
            denied_besides in prop::collection::vec(any_network(), 0..5),
        ) {
            let one = AddressRules::new(&allow, &deny);
            let other = AddressRules::new(&[], &denied_besides);
            let together = one.and(&other);
            let admits_everybody = one.admit_everybody() && other.admit_everybody();
            prop_assert_eq!(together.admit_everybody(), admits_everybody);
            for last in 0..=255_u8 {
                for client in [
                    IpAddr::from([255, 255, 255, last]),
                    IpAddr::from((u128::MAX - 255 + u128::from(last)).to_be_bytes()),
                ] {
                    let expected = one.admits(client) && other.admits(client);
                    prop_assert_eq!(together.admits(client), expected, "{}", client);
                }
            }
        }

        #[test]
        fn the_steps_decide_like_the_lists(
            allow in prop::collection::vec(any_network(), 0..6),
            deny in prop::collection::vec(any_network(), 0..6),
        ) {
            let rules = AddressRules::new(&allow, &deny);
            for last in 0..=255_u8 {
                for client in [
                    IpAddr::from([255, 255, 255, last]),
                    IpAddr::from((u128::MAX - 255 + u128::from(last)).to_be_bytes()),
                ] {
                    prop_assert_eq!(
                        rules.admits(client),
                        naive(&allow, &deny, client),
                        "{}", client
                    );
                }
            }
        }
    }
}
