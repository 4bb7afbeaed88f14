use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn client(header: &[u8]) -> Option<SocketAddr> {
    let parsed = parse(header).expect("it is a header");
    let parsed = parsed.expect("it is whole");
    assert_eq!(parsed.length, header.len());
    parsed.client
}

/// As a balancer writes it.
fn line(client: SocketAddr, own: SocketAddr) -> Vec<u8> {
    let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (client.ip(), own.ip());
    format!(
        "PROXY {family} {from} {to} {} {}\r\n",
        client.port(),
        own.port()
    )
    .into_bytes()
}

fn binary(command: u8, family: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("tests write short headers");
    [
        SIGNATURE,
        &[command, family],
        &length.to_be_bytes(),
        content,
    ]
    .concat()
}

/// As a balancer writes it, with whatever else it has to say.
fn binary_of(client: SocketAddr, own: SocketAddr, more: &[u8]) -> Vec<u8> {
    let bytes = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let ports = [client.port().to_be_bytes(), own.port().to_be_bytes()].concat();
    let content = [&bytes(client.ip())[..], &bytes(own.ip()), &ports, more].concat();
    let family = if client.is_ipv4() { 0x11 } else { 0x21 };
    binary(0x21, family, &content)
}

#[test]
fn both_versions_tell_the_address_of_the_client() {
    for (text, address) in [
        (
            "PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n",
            "192.0.2.7:4711",
        ),
        ("PROXY TCP6 2001:db8::7 ::1 0 65535\r\n", "[2001:db8::7]:0"),
    ] {
        let address = address.parse().unwrap();
        assert_eq!(client(text.as_bytes()), Some(address), "{text}");
        let own = SocketAddr::new(address.ip(), 443);
        assert_eq!(client(&binary_of(address, own, b"")), Some(address));
    }
}

#[test]
fn a_balancer_may_speak_for_itself_or_not_know_its_client() {
    for header in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN ffff:f:f:f::f whatever 1 1\r\n".to_vec(),
        binary(0x20, 0x00, b""),
        binary(0x20, 0x11, &[7; 12]),
        binary(0x20, 0xff, b"skipped"),
        binary(0x21, 0x00, b"\x04\0\x01x"),
        binary(0x21, 0x12, &[7; 12]),
        binary(0x21, 0x31, &[0; 216]),
    ] {
        assert_eq!(client(&header), None, "{header:?}");
    }
}

#[test]
fn what_is_almost_a_header_is_refused() {
    for text in [
        "PROXY\r\n",
        "PROXY \r\n",
        "PROXY  TCP4 192.0.2.7 10.0.0.1 1 2\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 1\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 1 2 3\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 1 2 \r\n",
        "PROXY TCP4 192.0.2.7  10.0.0.1 1 2\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 1 65536\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 +1 2\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 01 2\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 1 2\n\r\n",
        "PROXY TCP4 192.0.02.7 10.0.0.1 1 2\r\n",
        "PROXY TCP4 2001:db8::7 ::1 1 2\r\n",
        "PROXY TCP6 192.0.2.7 10.0.0.1 1 2\r\n",
        "PROXY TCP5 192.0.2.7 10.0.0.1 1 2\r\n",
        "PROXY UNKNOWNED\r\n",
        "proxy TCP4 192.0.2.7 10.0.0.1 1 2\r\n",
        "GET / HTTP/1.1\r\n",
        "\x16\x03\x01",
    ] {
        assert_eq!(parse(text.as_bytes()), Err(Malformed), "{text:?}");
    }
    for header in [
        binary(0x11, 0x11, &[7; 12]),
        binary(0x22, 0x11, &[7; 12]),
        binary(0x21, 0x11, &[7; 11]),
        binary(0x21, 0x21, &[7; 35]),
        binary(0x21, 0x13, &[7; 12]),
        binary(0x21, 0x41, &[7; 12]),
        binary(0x21, 0x00, &[7; LONGEST]),
    ] {
        assert_eq!(parse(&header), Err(Malformed), "{header:?}");
    }
}

#[test]
fn a_line_that_does_not_end_is_not_waited_for() {
    let endless = [b"PROXY UNKNOWN ".to_vec(), vec![b'a'; 200]].concat();
    assert_eq!(parse(&endless[..LONGEST_LINE - 1]), Ok(None));
    assert_eq!(parse(&endless[..LONGEST_LINE]), Err(Malformed));
    let mut longest = endless[..LONGEST_LINE].to_vec();
    longest[LONGEST_LINE - 2..].copy_from_slice(b"\r\n");
    assert_eq!(client(&longest), None);
}

fn address() -> impl Strategy<Value = SocketAddr> {
    let any_port = || any::<u16>();
    prop_oneof![
        (any::<[u8; 4]>(), any_port()).prop_map(SocketAddr::from),
        (any::<[u8; 16]>(), any_port()).prop_map(SocketAddr::from),
    ]
}

proptest! {
    /// A balancer's header comes back as it was meant, however much has come of what follows it;
    /// and no part of it is taken for the whole.
    #[test]
    fn what_was_written_is_read_and_nothing_behind_it(
        client in address(),
        port: u16,
        more in vec(any::<u8>(), 0..64),
        after in vec(any::<u8>(), 0..64),
    ) {
        let own = SocketAddr::new(client.ip(), port);
        for header in [line(client, own), binary_of(client, own, &more)] {
            let whole = Ok(Some(Header { client: Some(client), length: header.len() }));
            prop_assert_eq!(parse(&[&header[..], &after].concat()), whole);
            for part in 0..header.len() {
                prop_assert_eq!(parse(&header[..part]), Ok(None), "{} bytes", part);
            }
        }
    }

    /// Nothing that comes makes the parser panic, wait for more than the longest header, or claim
    /// more than has come; and what it has decided, further bytes do not change.
    #[test]
    fn nonsense_is_refused_within_the_longest_header(
        beginning in prop_oneof![
            Just(Vec::new()),
            Just(WORD.to_vec()),
            Just(b"PROXY TCP4 1.2.3.4 ".to_vec()),
            Just(SIGNATURE.to_vec()),
            Just([SIGNATURE, &[0x21, 0x11]].concat()),
        ],
        rest in vec(any::<u8>(), 0..2 * LONGEST),
        part in 0.0..1.0,
    ) {
        let bytes = [beginning, rest].concat();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a length")]
        let some = &bytes[..(bytes.len() as f64 * part) as usize];
        match parse(some) {
            Ok(None) => prop_assert!(some.len() < LONGEST),
            Ok(Some(header)) => {
                prop_assert!(header.length <= some.len());
                prop_assert_eq!(parse(&bytes), Ok(Some(header)));
            }
            Err(refusal) => prop_assert_eq!(parse(&bytes), Err(refusal)),
        }
    }
}
