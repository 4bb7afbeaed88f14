use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use http::header::COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};
use jsonwebtoken::{EncodingKey, Header};
use proptest::prelude::*;

use super::*;
use crate::config::model::{
    BackendId, FallbackSettings, IssuedCookie, JwtAlgorithm, JwtSource, Secret,
};
use crate::identity::pin;
use crate::policy::arm::PerArm;
use crate::policy::assign::Cause;
use crate::policy::plan::{Course, Rules};

const NOW: u64 = 1_795_000_000;
const CLIENT: &str = "203.0.113.7";

fn split(key: Vec<KeySource>, keyless: Keyless) -> Split {
    Split {
        signals: Vec::new(),
        name: "checkout".to_owned(),
        arms: PerArm::from_fn(|arm| BackendId(arm as u16)),
        key,
        keyless,
        salt: "checkout".to_owned(),
        course: Course::ByHand {
            share: None,
            criteria: Box::default(),
        },
        rules: Rules::default(),
        shared_state: false,
        fallback: FallbackSettings {
            enabled: true,
            statuses: Vec::new(),
            body_limit: 0,
            budget: Share::ZERO,
            budget_floor: 0,
            breaker: None,
        },
        pins: BTreeMap::new(),
        pin_secret: None,
        stream_grace: Duration::from_secs(30),
        response_headers: false,
        rollout_id: String::new(),
    }
}

fn identifier(key: Vec<KeySource>, keyless: Keyless) -> Identifier {
    Identifier::new(&split(key, keyless)).expect("a valid split")
}

fn cookie_source(name: &str) -> KeySource {
    KeySource::Cookie(name.to_owned())
}

fn header_source(name: &'static str) -> KeySource {
    KeySource::Header(HeaderName::from_static(name))
}

fn query_source(name: &str) -> KeySource {
    KeySource::Query(name.to_owned())
}

/// A request in the making; by default it carries nothing at all.
#[derive(Clone)]
struct Request {
    headers: HeaderMap,
    uri: Uri,
    client: IpAddr,
    secure: bool,
    share: Share,
    emergency: bool,
}

fn request() -> Request {
    Request {
        headers: HeaderMap::new(),
        uri: Uri::from_static("/"),
        client: CLIENT.parse().expect("an address"),
        secure: false,
        share: Share::ZERO,
        emergency: false,
    }
}

impl Request {
    fn header(mut self, name: &'static str, value: impl AsRef<[u8]>) -> Self {
        let value = HeaderValue::from_bytes(value.as_ref()).expect("a header value");
        self.headers.append(name, value);
        self
    }

    fn target(mut self, uri: &str) -> Self {
        self.uri = uri.parse().expect("a target");
        self
    }

    fn client(mut self, address: &str) -> Self {
        self.client = address.parse().expect("an address");
        self
    }

    fn through(&self, identifier: &Identifier) -> Identified {
        identifier.identify(RequestFacts {
            fields: &Fields::from(&self.headers),
            uri: &self.uri,
            client: self.client,
            secure: self.secure,
            share: self.share,
            emergency: self.emergency,
            now_seconds: NOW,
        })
    }
}

/// What a request with this session key gets at share zero.
fn hashed(key: impl AsRef<[u8]>) -> Assignment {
    assign(Circumstances {
        emergency: false,
        pinned: None,
        token: None,
        hash: Some(Salt::new("checkout").hash(key.as_ref())),
        share: Share::ZERO,
    })
}

#[track_caller]
fn assert_key(identifier: &Identifier, request: &Request, key: impl AsRef<[u8]>) {
    let identified = request.through(identifier);
    assert_eq!(identified.assignment, hashed(key));
    assert_eq!(identified.issued_cookie, None);
    assert!(!identified.unverifiable_token);
}

#[test]
fn the_first_present_source_gives_the_key_and_empty_is_absent() {
    let identifier = identifier(
        vec![
            cookie_source("session"),
            header_source("x-user"),
            query_source("user"),
        ],
        Keyless::ClientIp,
    );
    let request = request().target("/path?user=carol&x=1");
    assert_key(&identifier, &request, "carol");
    let request = request.header("x-user", "bob");
    assert_key(&identifier, &request, "bob");
    let with_empty_cookie = request.clone().header("cookie", "session=; a=b");
    assert_key(&identifier, &with_empty_cookie, "bob");
    let request = request.header("cookie", "a=b; session=alice");
    assert_key(&identifier, &request, "alice");
}

#[test]
fn of_what_is_repeated_the_first_counts() {
    let by_header = identifier(vec![header_source("x-user")], Keyless::ClientIp);
    let request = request().header("x-user", "a").header("x-user", "b");
    assert_key(&by_header, &request, "a");

    let by_query = identifier(vec![query_source("u")], Keyless::ClientIp);
    assert_key(&by_query, &request.clone().target("/?u=a&u=b"), "a");

    let by_cookie = identifier(vec![cookie_source("s")], Keyless::ClientIp);
    for lines in [
        &["s=a; s=b"][..],
        &["s=a", "s=b"],
        &["x=1; s=a", "y=2", "s=b"],
        &["x=1", "s=a"],
    ] {
        let request = lines.iter().fold(self::request(), |request, line| {
            request.header("cookie", line)
        });
        assert_key(&by_cookie, &request, "a");
    }
}

#[test]
fn a_cookie_is_taken_as_received_from_lines_however_odd() {
    let identifier = identifier(vec![cookie_source("s")], Keyless::ClientIp);
    for (line, key) in [
        (&b"s=a"[..], &b"a"[..]),
        (b"s=\"a b\"", b"\"a b\""),
        (b"s=a=b==", b"a=b=="),
        (b" ;; =; ss=no;xs=no;S=no; s =  a\t;", b"a"),
        (b"s=\xff\x80", b"\xff\x80"),
        (b"s=a%20b+c", b"a%20b+c"),
        (b"s=a,t=b", b"a,t=b"),
    ] {
        let request = request().header("cookie", line);
        assert_key(&identifier, &request, key);
    }
    for line in ["s", "s;s=late", "ss=1", "=s", ";", ""] {
        assert_key(&identifier, &request().header("cookie", line), CLIENT);
    }
}

#[test]
fn a_query_parameter_is_taken_as_received() {
    let identifier = identifier(vec![query_source("user")], Keyless::ClientIp);
    for (target, key) in [
        ("/?user=a%20b", "a%20b"),
        ("/?x&user=a=b", "a=b"),
        ("/?users=x&user=a", "a"),
        ("http://host.example/p?&&user=a#f", "a"),
        ("/?user=", CLIENT),
        ("/?user", CLIENT),
        ("/?", CLIENT),
        ("/?User=a", CLIENT),
        ("*", CLIENT),
    ] {
        assert_key(&identifier, &request().target(target), key);
    }
}

#[test]
fn a_header_need_not_be_text_and_may_be_enormous() {
    let identifier = identifier(vec![header_source("x-user")], Keyless::ClientIp);
    let bytes = [0x80, 0xff, b'a'];
    assert_key(&identifier, &request().header("x-user", bytes), bytes);
    let enormous = vec![b'k'; 1 << 20];
    assert_key(
        &identifier,
        &request().header("x-user", &enormous),
        &enormous,
    );
}

#[test]
fn an_address_is_canonical_text_and_an_ipv6_address_its_first_half() {
    let identifier = identifier(Vec::new(), Keyless::ClientIp);
    for (client, key) in [
        ("203.0.113.7", "203.0.113.7"),
        ("255.255.255.255", "255.255.255.255"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:0:1:2:3:4:5", "2001:db8:0:1::"),
        ("2001:0DB8::1:0:0:9", "2001:db8::"),
        ("::1", "::"),
        (
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "ffff:ffff:ffff:ffff::",
        ),
    ] {
        assert_key(&identifier, &request().client(client), key);
    }
}

#[test]
fn keyless_requests_may_always_go_to_legacy_and_are_no_evidence() {
    let identifier = identifier(vec![cookie_source("s")], Keyless::Legacy);
    let everybody = Request {
        share: Share::ALL,
        ..request()
    };
    let assignment = everybody.through(&identifier).assignment;
    assert_eq!(
        (assignment.arm, assignment.cause),
        (Arm::Legacy, Cause::Keyless)
    );
    assert!(!assignment.is_evidence() && assignment.bucket.is_none());
}

fn issued_cookie() -> IssuedCookie {
    IssuedCookie {
        name: "cutover".to_owned(),
        path: "/".to_owned(),
        domain: None,
        max_age: Some(Duration::from_secs(31_536_000)),
        same_site: "Lax".to_owned(),
    }
}

fn issued(identifier: &Identifier, request: &Request) -> (Assignment, String) {
    let identified = request.through(identifier);
    let header = identified.issued_cookie.expect("a cookie");
    let text = String::from_utf8(header).expect("text");
    (identified.assignment, text)
}

#[test]
fn a_client_without_a_key_is_issued_one_and_keeps_its_arm() {
    let identifier = identifier(
        vec![cookie_source("session")],
        Keyless::IssueCookie(issued_cookie()),
    );
    let mut values = HashSet::new();
    for _ in 0..100 {
        let (assignment, header) = issued(&identifier, &request());
        let rest = header.strip_prefix("cutover=").expect("its name");
        let (value, attributes) = rest.split_once("; ").expect("attributes");
        assert_eq!(
            attributes,
            "Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax"
        );
        assert!(value.len() == 32 && value.bytes().all(|b| b.is_ascii_hexdigit()));
        assert_eq!(assignment, hashed(value));
        // The next request brings it back and is not issued another.
        let next = request().header("cookie", format!("cutover={value}"));
        assert_key(&identifier, &next, value);
        assert!(values.insert(value.to_owned()), "issued twice: {value}");
    }
    let own = request().header("cookie", "cutover=abc; session=alice");
    assert_key(&identifier, &own, "alice");
}

#[test]
fn an_issued_cookie_carries_the_attributes_configured() {
    let of = |cookie: IssuedCookie, secure: bool| {
        let identifier = identifier(Vec::new(), Keyless::IssueCookie(cookie));
        let request = Request {
            secure,
            ..request()
        };
        let (_, header) = issued(&identifier, &request);
        let (_, attributes) = header.split_once("; ").expect("attributes");
        attributes.to_owned()
    };
    let session = IssuedCookie {
        path: "/shop".to_owned(),
        domain: Some("example.com".to_owned()),
        max_age: None,
        ..issued_cookie()
    };
    assert_eq!(
        of(session, true),
        "Path=/shop; Domain=example.com; HttpOnly; SameSite=Lax; Secure"
    );
    // Browsers refuse `None` without `Secure`, whatever the connection to us is.
    let embedded = IssuedCookie {
        same_site: "None".to_owned(),
        max_age: None,
        ..issued_cookie()
    };
    assert_eq!(
        of(embedded, false),
        "Path=/; HttpOnly; SameSite=None; Secure"
    );
}

#[test]
fn a_cookie_that_cannot_be_written_is_refused_at_once() {
    let refused = |cookie: IssuedCookie| {
        let split = split(Vec::new(), Keyless::IssueCookie(cookie));
        Identifier::new(&split).expect_err("refused")
    };
    for name in ["", "a b", "a;b", "a=b", "ä"] {
        let cookie = IssuedCookie {
            name: name.to_owned(),
            ..issued_cookie()
        };
        assert_eq!(refused(cookie), IdentifierError::IssuedCookie, "{name}");
    }
    for path in ["/; Secure", "/\r\nX-Evil: 1"] {
        let cookie = IssuedCookie {
            path: path.to_owned(),
            ..issued_cookie()
        };
        assert_eq!(refused(cookie), IdentifierError::IssuedCookie, "{path}");
    }
}

#[test]
fn a_pinned_key_has_its_arm_whatever_the_share_but_not_under_emergency() {
    let mut split = split(vec![header_source("x-user")], Keyless::Legacy);
    split.pins.insert("alice".to_owned(), Arm::New);
    split.pins.insert("bob".to_owned(), Arm::Legacy);
    let identifier = Identifier::new(&split).expect("a valid split");
    let of = |user: &str, share: Share, emergency: bool| {
        let request = Request {
            share,
            emergency,
            ..request().header("x-user", user)
        };
        let assignment = request.through(&identifier).assignment;
        (assignment.arm, assignment.cause)
    };
    assert_eq!(of("alice", Share::ZERO, false), (Arm::New, Cause::Pin));
    assert_eq!(of("bob", Share::ALL, false), (Arm::Legacy, Cause::Pin));
    assert_eq!(of("carol", Share::ALL, false), (Arm::New, Cause::Hash));
    assert_eq!(
        of("alice", Share::ALL, true),
        (Arm::Legacy, Cause::Emergency)
    );
}

fn with_pin_tokens() -> (Identifier, Secret) {
    let secret = Secret(b"correct horse".to_vec());
    let mut split = split(vec![header_source("x-user")], Keyless::Legacy);
    split.pin_secret = Some(secret.clone());
    split.pins.insert("bob".to_owned(), Arm::Legacy);
    (Identifier::new(&split).expect("a valid split"), secret)
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_pin_token_in_a_header_or_a_cookie_fixes_the_arm_with_or_without_a_key() {
    let (identifier, secret) = with_pin_tokens();
    let token = pin::issue(&secret, "checkout", Arm::New, HOUR, NOW);
    for request in [
        request().header("cutover-pin", &token),
        request().header("cookie", format!("a=b; cutover_pin={token}")),
        request()
            .header("x-user", "alice")
            .header("cutover-pin", &token),
    ] {
        let identified = request.through(&identifier);
        let assignment = identified.assignment;
        assert_eq!((assignment.arm, assignment.cause), (Arm::New, Cause::Token));
        assert!(!identified.unverifiable_token && !assignment.is_evidence());
    }
    let pinned = request()
        .header("x-user", "bob")
        .header("cutover-pin", &token);
    assert_eq!(pinned.through(&identifier).assignment.cause, Cause::Pin);
    let emergency = Request {
        emergency: true,
        ..request().header("cutover-pin", &token)
    };
    assert_eq!(
        emergency.through(&identifier).assignment.cause,
        Cause::Emergency
    );
}

#[test]
fn an_expired_a_forged_and_another_splits_pin_token_is_ignored_and_counted() {
    let (identifier, secret) = with_pin_tokens();
    let guess = Secret(b"guess".to_vec());
    for token in [
        pin::issue(&secret, "checkout", Arm::New, HOUR, NOW - 3600),
        pin::issue(&guess, "checkout", Arm::New, HOUR, NOW),
        pin::issue(&secret, "search", Arm::New, HOUR, NOW),
        "nonsense".to_owned(),
    ] {
        let request = request()
            .header("x-user", "alice")
            .header("cutover-pin", &token);
        let identified = request.through(&identifier);
        assert_eq!(identified.assignment, hashed("alice"));
        assert!(identified.unverifiable_token, "{token}");
    }
    let plain = request().header("x-user", "alice");
    assert!(!plain.through(&identifier).unverifiable_token);
}

#[test]
fn without_a_pin_secret_tokens_are_not_even_looked_at() {
    let identifier = identifier(vec![header_source("x-user")], Keyless::Legacy);
    let secret = Secret(Vec::new());
    let token = pin::issue(&secret, "checkout", Arm::New, HOUR, NOW);
    let request = request()
        .header("x-user", "alice")
        .header("cutover-pin", token);
    assert_key(&identifier, &request, "alice");

    let mut split = split(Vec::new(), Keyless::Legacy);
    split.pin_secret = Some(secret);
    let refused = Identifier::new(&split).expect_err("an empty secret");
    assert_eq!(refused, IdentifierError::EmptyPinSecret);
}

#[test]
fn an_unverifiable_jwt_is_absent_and_counted() {
    let source = JwtSource {
        claim: "sub".to_owned(),
        header: http::header::AUTHORIZATION,
        algorithm: JwtAlgorithm::Hs256,
        key: Secret(b"correct horse".to_vec()),
        issuer: None,
        audience: None,
    };
    let sources = vec![KeySource::Jwt(source), header_source("x-device")];
    let identifier = identifier(sources, Keyless::ClientIp);
    let bearer = |secret: &str| {
        let key = EncodingKey::from_secret(secret.as_bytes());
        let claims = serde_json::json!({"sub": "alice"});
        let token = jsonwebtoken::encode(&Header::default(), &claims, &key);
        let value = format!("Bearer {}", token.expect("an HMAC takes any key"));
        request()
            .header("authorization", value)
            .header("x-device", "d1")
    };
    assert_key(&identifier, &bearer("correct horse"), "alice");
    let forged = bearer("battery staple").through(&identifier);
    assert_eq!(forged.assignment, hashed("d1"));
    assert!(forged.unverifiable_token);
}

fn hostile_value() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        4 => prop::sample::select(b"s=; \"\t,.&?%".to_vec()),
        1 => any::<u8>(),
    ];
    prop::collection::vec(byte, 0..200)
}

proptest! {
    /// The first cookie called `s`, found by the plainest reading of the lines.
    #[test]
    fn cookies_however_hostile_are_read_like_the_plainest_reader_does(
        lines in prop::collection::vec(hostile_value(), 0..5),
    ) {
        let mut request = request();
        let mut text = Vec::new();
        for line in lines {
            if let Ok(value) = HeaderValue::from_bytes(&line) {
                text.extend_from_slice(value.as_bytes());
                text.push(b';');
                request.headers.append(COOKIE, value);
            }
        }
        let expected = text.split(|&byte| byte == b';').find_map(|pair| {
            let mut halves = pair.splitn(2, |&byte| byte == b'=');
            let name = halves.next()?.trim_ascii();
            (name == b"s").then(|| halves.next().unwrap_or_default().trim_ascii())
        });
        let expected = expected.filter(|value| !value.is_empty());
        let identifier = identifier(vec![cookie_source("s")], Keyless::ClientIp);
        assert_key(&identifier, &request, expected.unwrap_or(CLIENT.as_bytes()));
    }

    #[test]
    fn every_request_is_served_whatever_it_carries(
        cookie in hostile_value(),
        header in hostile_value(),
        token in hostile_value(),
        target in "/[a-z?&=%s.]{0,40}",
        client in any::<u128>(),
    ) {
        let mut split = split(
            vec![cookie_source("s"), header_source("x-user"), query_source("s")],
            Keyless::IssueCookie(issued_cookie()),
        );
        split.key.insert(0, KeySource::Jwt(JwtSource {
            claim: "sub".to_owned(),
            header: http::header::AUTHORIZATION,
            algorithm: JwtAlgorithm::Hs256,
            key: Secret(b"correct horse".to_vec()),
            issuer: None,
            audience: None,
        }));
        split.pin_secret = Some(Secret(b"correct horse".to_vec()));
        let identifier = Identifier::new(&split).expect("a valid split");
        let mut request = request().target(&target);
        request.client = IpAddr::V6(std::net::Ipv6Addr::from_bits(client));
        for (name, bytes) in [
            ("cookie", &cookie),
            ("x-user", &header),
            ("authorization", &token),
            ("cutover-pin", &token),
        ] {
            if let Ok(value) = HeaderValue::from_bytes(bytes) {
                request.headers.append(name, value);
            }
        }
        let identified = request.through(&identifier);
        prop_assert_eq!(identified.assignment.arm, Arm::Legacy);
        prop_assert!(identified.assignment.bucket.is_some());
    }
}
