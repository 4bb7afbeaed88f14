//! A client's address as a session key, and a session key as people type it.
//!
//! Requests are not assigned by the address that a log shows, but by a text that is the same for
//! all of a household. An operator who copies the address from the log, to ask where it goes or to
//! pin it, means that text: whoever hashes what was typed speaks of nobody.

// Addresses without sockets: `core` has nothing that could do input or output.
use core::net::{IpAddr, Ipv6Addr};
use std::fmt::{self, Write};

/// A client's address as a session key: canonical text, IPv4-mapped as IPv4, IPv6 by its /64,
/// since a household or a telephone changes the rest at will.
#[derive(Clone, Copy, Debug)]
pub struct AddressKey {
    text: [u8; Self::LONGEST],
    length: usize,
}

impl AddressKey {
    /// Eight groups of four digits and the colons between them.
    const LONGEST: usize = 39;

    /// The key of whoever comes from there.
    pub fn new(client: IpAddr) -> Self {
        let network = household(client);
        let mut key = Self {
            text: [0; Self::LONGEST],
            length: 0,
        };
        write!(key, "{network}").expect("no address is longer than 39 characters");
        key
    }

    /// What is hashed.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[..self.length]
    }

    fn as_str(&self) -> &str {
        str::from_utf8(self.as_bytes()).expect("an address is printed in ASCII")
    }
}

/// What counts as one client: an IPv4 address, or the /64 of an IPv6 address.
pub fn household(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let prefix = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(prefix))
        }
    }
}

/// Prints into the key itself: a request's key costs no allocation.
impl Write for AddressKey {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let end = self.length + part.len();
        let place = self.text.get_mut(self.length..end).ok_or(fmt::Error)?;
        place.copy_from_slice(part.as_bytes());
        self.length = end;
        Ok(())
    }
}

/// Whether the session keys of a split are clients' addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// None is.
    Never,
    /// Those of requests without any other key are.
    Sometimes,
    /// All are.
    Always,
}

/// A session key that somebody typed.
#[derive(Clone, Copy, Debug)]
pub struct TypedKey<'t> {
    typed: &'t str,
    /// What it stands for, if it is an address that is not its own key.
    address: Option<AddressKey>,
    addresses: Addresses,
}

impl<'t> TypedKey<'t> {
    /// Where keys are addresses, if only sometimes, one that looks like an address is taken for
    /// one.
    pub fn new(typed: &'t str, addresses: Addresses) -> Self {
        let address = match addresses {
            Addresses::Never => None,
            Addresses::Sometimes | Addresses::Always => typed.parse().ok().map(AddressKey::new),
        };
        Self {
            typed,
            address: address.filter(|key| key.as_str() != typed),
            addresses,
        }
    }

    /// What is hashed.
    pub fn text(&self) -> &str {
        self.address.as_ref().map_or(self.typed, AddressKey::as_str)
    }

    /// The address that was typed, where another text is hashed in its place.
    pub fn address(&self) -> Option<&'t str> {
        self.address.map(|_| self.typed)
    }

    /// Whether a request may have exactly what was typed as its key, although something else is
    /// taken to be meant.
    pub fn is_ambiguous(&self) -> bool {
        self.address.is_some() && self.addresses == Addresses::Sometimes
    }

    /// Whether it stands for more addresses than the one that was typed.
    pub fn is_one_of_many(&self) -> bool {
        self.address.is_some() && self.text().contains(':')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typed_address_stands_for_the_key_that_its_requests_have() {
        for (typed, text, is_one_of_many) in [
            ("2001:db8:0:1:aaaa::5", "2001:db8:0:1::", true),
            ("2001:DB8:0:1:0:0:0:0", "2001:db8:0:1::", true),
            ("::ffff:203.0.113.7", "203.0.113.7", false),
        ] {
            let key = TypedKey::new(typed, Addresses::Always);
            assert_eq!(key.text(), text);
            assert_eq!(key.address(), Some(typed));
            assert_eq!(key.is_one_of_many(), is_one_of_many, "{typed}");
            assert!(!key.is_ambiguous());
            assert!(TypedKey::new(typed, Addresses::Sometimes).is_ambiguous());
            let sessions = TypedKey::new(typed, Addresses::Never);
            assert_eq!((sessions.text(), sessions.address()), (typed, None));
        }
    }

    #[test]
    fn what_is_no_address_or_its_own_key_is_hashed_as_typed() {
        for typed in ["alice", "", "203.0.113.7", "2001:db8:0:1::", "1.2.3.4:80"] {
            for addresses in [Addresses::Sometimes, Addresses::Always] {
                let key = TypedKey::new(typed, addresses);
                assert_eq!((key.text(), key.address()), (typed, None));
                assert!(!key.is_ambiguous() && !key.is_one_of_many());
            }
        }
    }
}
