//! Who is on the other end of a client's connection, and whose request it is.

use std::cell::OnceCell;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::message::Fields;
use crate::message::name::{X_FORWARDED_FOR, X_FORWARDED_PROTO};
use crate::upstream::list::members;

/// The other end of a client's connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Its address: as the socket says, or a balancer that speaks the PROXY protocol.
    pub address: SocketAddr,
    /// Whether the connection is TLS.
    pub secure: bool,
}

impl Peer {
    /// The address without the wrapping that a dual-stack socket puts around IPv4.
    pub fn ip(&self) -> IpAddr {
        self.address.ip().to_canonical()
    }

    /// Whether this peer's word about other addresses is believed.
    pub fn is_trusted(&self, trusted_proxies: &[IpNet]) -> bool {
        contains(trusted_proxies, self.ip())
    }
}

/// Who sends one request: its connection's other end, and what that is believed about others.
///
/// Lists, limits, the log, the split's key and the upstream all ask, some of them once more for each
/// try. So everything is found once, and travels with the request; the walk through
/// `X-Forwarded-For` not before somebody wants to know where it ends.
#[derive(Clone, Debug)]
pub struct Caller {
    peer: IpAddr,
    is_peer_secure: bool,
    is_peer_trusted: bool,
    client: OnceCell<IpAddr>,
}

impl Caller {
    /// The caller behind `peer`, which is believed if it is one of `trusted_proxies`.
    pub fn new(peer: Peer, trusted_proxies: &[IpNet]) -> Self {
        let ip = peer.ip();
        Self {
            peer: ip,
            is_peer_secure: peer.secure,
            is_peer_trusted: contains(trusted_proxies, ip),
            client: OnceCell::new(),
        }
    }

    /// The address of the connection's other end, without the wrapping of a dual-stack socket.
    pub const fn peer(&self) -> IpAddr {
        self.peer
    }

    /// Whether the connection is TLS.
    pub const fn is_peer_secure(&self) -> bool {
        self.is_peer_secure
    }

    /// Whether the peer's word about others is believed.
    pub const fn is_peer_trusted(&self) -> bool {
        self.is_peer_trusted
    }

    /// Whether the client's own connection is TLS: this one, or by the word of a trusted proxy.
    pub fn is_secure(&self, fields: &Fields) -> bool {
        let is_https = || {
            let claimed = fields.get(&X_FORWARDED_PROTO);
            claimed.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"https"))
        };
        self.is_peer_secure || (self.is_peer_trusted && is_https())
    }

    /// The client's address: the peer's own, unless the peer is a trusted proxy; then the last
    /// address of `X-Forwarded-For`, from right to left, that is not a trusted proxy's. Fields and
    /// proxies are looked at when it is asked for the first time.
    pub fn client(&self, fields: &Fields, trusted_proxies: &[IpNet]) -> IpAddr {
        if !self.is_peer_trusted {
            return self.peer;
        }
        *self
            .client
            .get_or_init(|| forwarded_for(self.peer, fields, trusted_proxies))
    }
}

/// Where the walk from `proxy`, which is trusted, through `X-Forwarded-For` ends.
fn forwarded_for(proxy: IpAddr, fields: &Fields, trusted_proxies: &[IpNet]) -> IpAddr {
    let mut client = proxy;
    let lines = fields.get_all(&X_FORWARDED_FOR);
    let hops = lines.rev().flat_map(|line| members(line).rev());
    for hop in hops {
        // What does not parse was not written by a proxy that deserves trust; the walk ends at
        // the last address that did.
        let Some(address) = parse_hop(hop) else { break };
        client = address;
        if !contains(trusted_proxies, client) {
            break;
        }
    }
    client
}

/// Whether any of `networks` contains `address`.
pub fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// An address, with or without a port; IPv6 may stand in brackets, and does before a port.
fn parse_hop(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?;
    let bare = || text.parse::<IpAddr>().ok();
    let with_port = || Some(text.parse::<SocketAddr>().ok()?.ip());
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let address = bare().or_else(with_port);
    let address = address.or_else(|| bracketed().map(IpAddr::V6))?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(peer: &str, forwarded: &[&str]) -> String {
        let peer = Peer {
            address: SocketAddr::new(peer.parse().expect("an address"), 1),
            secure: false,
        };
        let mut fields = Fields::default();
        for line in forwarded {
            fields.append(&X_FORWARDED_FOR, line.as_bytes());
        }
        let trusted = ["10.0.0.0/8".parse().expect("a network")];
        let caller = Caller::new(peer, &trusted);
        caller.client(&fields, &trusted).to_string()
    }

    #[test]
    fn a_stranger_cannot_claim_another_address() {
        assert_eq!(client("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
    }

    #[test]
    fn trusted_proxies_are_walked_from_the_right() {
        assert_eq!(client("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(
            client("10.0.0.1", &["6.6.6.6, 198.51.100.7", "10.0.0.2"]),
            "198.51.100.7",
            "what a stranger wrote further left is not believed"
        );
        assert_eq!(client("10.0.0.1", &["nonsense, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn addresses_are_read_with_ports_and_brackets_and_between_empty_items() {
        for (forwarded, expected) in [
            ("192.0.2.7:4711", "192.0.2.7"),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:db8::7]:4711", "2001:db8::7"),
            ("[::ffff:192.0.2.7]:4711", "192.0.2.7"),
            (" ,192.0.2.7\t, ,, 10.0.0.2 ,", "192.0.2.7"),
            (",,, ,", "10.0.0.1"),
        ] {
            assert_eq!(client("10.0.0.1", &[forwarded]), expected, "{forwarded}");
        }
        let lines = ["192.0.2.7, 198.51.100.7:1", "", "[::ffff:10.0.0.3]:1", ","];
        assert_eq!(client("10.0.0.1", &lines), "198.51.100.7");
    }

    #[test]
    fn nothing_left_of_what_is_no_address_is_believed() {
        for garbage in [
            "unknown",
            "_hidden",
            "192.0.2.256",
            "192.0.2.7 8",
            "192.0.2.7:65536",
            "2001:db8::7%eth0",
            "[192.0.2.7]",
            "[2001:db8::7",
            "\"192.0.2.7\"",
            "for=192.0.2.7",
        ] {
            let line = format!("198.51.100.7, {garbage}, 10.0.0.2");
            assert_eq!(client("10.0.0.1", &[&line]), "10.0.0.2", "{garbage}");
        }
    }

    #[test]
    fn who_asks_is_found_once_whoever_wants_to_know() {
        let trusted = ["10.0.0.0/8".parse().expect("a network")];
        let peer = Peer {
            address: "10.0.0.1:1".parse().expect("an address"),
            secure: false,
        };
        let caller = Caller::new(peer, &trusted);
        assert!(caller.is_peer_trusted());
        let mut fields = Fields::default();
        fields.append(&X_FORWARDED_FOR, b"192.0.2.7");
        let client = caller.client(&fields, &trusted);
        assert_eq!(client, IpAddr::from([192, 0, 2, 7]));
        // Nothing of the list is read again.
        assert_eq!(caller.client(&Fields::default(), &trusted), client);
        assert!(!Caller::new(peer, &[]).is_peer_trusted());
    }

    proptest! {
        /// Whatever strangers write to the left, the address found is one that a trusted proxy wrote:
        /// the last that is not itself trusted.
        #[test]
        fn what_a_stranger_writes_never_decides(
            claims in proptest::collection::vec("[ -~]{0,40}", 0..4),
            stranger: [u8; 4],
            proxies in proptest::collection::vec(any::<[u8; 3]>(), 0..4),
            is_one_line: bool,
        ) {
            prop_assume!(stranger[0] != 10);
            let stranger = IpAddr::from(stranger);
            let mut list = claims;
            list.push(stranger.to_string());
            list.extend(proxies.iter().map(|[b, c, d]| format!("10.{b}.{c}.{d}")));
            let joined = [list.join(", ")];
            let lines = if is_one_line { &joined[..] } else { &list[..] };
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            prop_assert_eq!(client("10.0.0.1", &lines), stranger.to_string());
        }
    }

    #[test]
    fn a_mapped_address_is_the_address_it_maps() {
        assert_eq!(client("::ffff:192.0.2.1", &[]), "192.0.2.1");
    }
}
