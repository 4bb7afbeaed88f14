//! Where a session's key is looked for, and what counts as one.

use cutover::policy::arm::Arm;
use http::header::{CACHE_CONTROL, SET_COOKIE};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::{Servers, arm_of, configuration, start, with_fields};
use crate::harness::client::Client;
use crate::harness::keys::{Population, keys};
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::{Reply, Script, Upstream};

const TO_THE_SPLIT: &str = "  - {split: api}";

/// A split at 50 % with these keys.
fn split(settings: &str) -> String {
    format!("  api: {{legacy: legacy, new: new, share: 50%, {settings}}}")
}

/// Keys of both arms.
fn some_keys() -> impl Iterator<Item = (String, Arm)> {
    Arm::ALL
        .into_iter()
        .flat_map(|arm| keys("api", "50%", arm).take(8).map(move |key| (key, arm)))
}

#[tokio::test]
async fn the_first_source_that_is_present_decides() {
    let settings = "key: [{cookie: sid}, {header: X-User}, {query: user}], keyless: legacy";
    let (proxy, _servers) = start(Site::new(), &split(settings), TO_THE_SPLIT).await;
    let mut client = proxy.client().await;
    let population = Population::new("api", "50%");
    for (key, arm) in some_keys() {
        // A key of the other arm, which is not to be looked at.
        let other = if arm == Arm::New {
            Arm::Legacy
        } else {
            Arm::New
        };
        let other = keys("api", "50%", other).next().expect("there are enough");
        let (cookie, other_cookie) = (format!("a=1; sid={key}"), format!("sid={key}; sid={other}"));
        let (query, other_query) = (format!("/?a&user={key}"), format!("/?user={other}"));
        let twice = format!("/?user={key}&user={other}");
        for (target, fields) in [
            ("/", &[("cookie", cookie.as_str())][..]),
            ("/", &[("cookie", &other_cookie)]),
            (&other_query, &[("cookie", &cookie), ("x-user", &other)]),
            (&other_query, &[("x-user", &key)]),
            (&other_query, &[("x-user", &key), ("x-user", &other)]),
            // Empty counts as absent.
            (&other_query, &[("cookie", "sid="), ("x-user", &key)]),
            (&query, &[]),
            (&query, &[("x-user", ""), ("cookie", "sid=; sidx=1")]),
            (&twice, &[]),
        ] {
            let found = arm_of(&mut client, with_fields(target, fields)).await;
            assert_eq!(found, arm, "{target} {fields:?}");
        }
    }
    // As received: nothing is decoded.
    for key in ["a%20b", "a+b", "%61"] {
        let target = format!("/?user={key}");
        let found = arm_of(&mut client, with_fields(&target, &[])).await;
        assert_eq!(found, population.arm(key), "{key}");
    }
}

#[tokio::test]
async fn a_request_without_a_key_stays_on_legacy_and_is_no_evidence_where_the_split_says_so() {
    let split =
        "  api: {legacy: legacy, new: new, share: 100%, key: [{cookie: sid}], keyless: legacy}";
    let (proxy, _servers) = start(Site::new(), split, TO_THE_SPLIT).await;
    let mut client = proxy.client().await;
    for fields in [&[][..], &[("cookie", "sid=")]] {
        let arm = arm_of(&mut client, with_fields("/", fields)).await;
        assert_eq!(arm, Arm::Legacy);
    }
    let labels = [("split", "api"), ("arm", "legacy"), ("evidence", "false")];
    proxy.counts(2.0, "cutover_requests_total", &labels).await;
    proxy.counts(2.0, "cutover_requests_total", &[]).await;
}

#[tokio::test]
async fn a_clients_address_is_its_key_and_only_a_trusted_proxy_may_say_it() {
    let servers = Servers::start(&["legacy", "new"]);
    let split = split("key: [client_ip]");
    let text = |edge: &str| format!("{edge}{}", configuration(&servers, &split, TO_THE_SPLIT));
    let trusting = text("edge: {trusted_proxies: [127.0.0.0/8, 10.0.0.0/8]}\n");
    let proxy = Site::new().start(&trusting).await;
    let mut client = proxy.client().await;
    let population = Population::new("api", "50%");
    for last in 0..20 {
        let four = format!("192.0.2.{last}");
        let six = format!("2001:db8:0:{last}::");
        for (forwarded, key) in [
            (four.clone(), &four),
            (format!("::ffff:{four}"), &four),
            (format!("6.6.6.6, {four}, 10.0.0.1"), &four),
            (format!("2001:db8:0:{last}::7"), &six),
            (format!("2001:0DB8:0000:{last}:ffff:1:2:3"), &six),
        ] {
            let request = with_fields("/", &[("x-forwarded-for", &forwarded)]);
            let found = arm_of(&mut client, request).await;
            assert_eq!(found, population.arm(key), "{forwarded}");
        }
    }
    // Nobody is trusted any more: now everybody here is 127.0.0.1.
    proxy.reconfigure(&text("")).await;
    for last in 0..20 {
        let forwarded = format!("192.0.2.{last}");
        let request = with_fields("/", &[("x-forwarded-for", &forwarded)]);
        assert_eq!(
            arm_of(&mut client, request).await,
            population.arm("127.0.0.1")
        );
    }
}

/// What signs tokens, and how the configuration says to verify them.
struct Issuer {
    algorithm: Algorithm,
    key: EncodingKey,
    settings: String,
}

impl Issuer {
    /// One of each kind; the public keys are files of the site.
    fn all(site: Site) -> (Site, [Self; 3]) {
        let pair = |algorithm| rcgen::KeyPair::generate_for(algorithm).expect("it is supported");
        let rsa = pair(&rcgen::PKCS_RSA_SHA256);
        let ec = pair(&rcgen::PKCS_ECDSA_P256_SHA256);
        let site = site
            .file("rsa.pem", rsa.public_key_pem())
            .file("ec.pem", ec.public_key_pem());
        let rsa = EncodingKey::from_rsa_pem(rsa.serialize_pem().as_bytes());
        let ec = EncodingKey::from_ec_pem(ec.serialize_pem().as_bytes());
        let public_key = |file| format!("public_key: '${{file:{file}}}'");
        let issuers = [
            Self {
                algorithm: Algorithm::HS256,
                key: EncodingKey::from_secret(SECRET.as_bytes()),
                settings: format!("algorithm: HS256, secret: {SECRET}"),
            },
            Self {
                algorithm: Algorithm::RS256,
                key: rsa.expect("it is its own form"),
                settings: format!("algorithm: RS256, {}", public_key("rsa.pem")),
            },
            Self {
                algorithm: Algorithm::ES256,
                key: ec.expect("it is its own form"),
                settings: format!("algorithm: ES256, {}", public_key("ec.pem")),
            },
        ];
        (site, issuers)
    }

    /// The value of `Authorization`.
    fn sign(&self, claims: &Value) -> String {
        bearer(self.algorithm, claims, &self.key)
    }

    fn name(&self) -> String {
        format!("{:?}", self.algorithm).to_lowercase()
    }
}

const SECRET: &str = "correct-horse-battery-staple-and-more";

fn bearer(algorithm: Algorithm, claims: &Value, key: &EncodingKey) -> String {
    let token = jsonwebtoken::encode(&Header::new(algorithm), claims, key);
    format!("Bearer {}", token.expect("the key fits the algorithm"))
}

/// A split for each issuer, with its name as path, and after the token a header as key.
async fn start_with_issuers() -> (Proxy, Servers, [Issuer; 3]) {
    let (site, issuers) = Issuer::all(Site::new());
    let mut splits = String::new();
    let mut routes = String::new();
    for issuer in &issuers {
        let (name, settings) = (issuer.name(), &issuer.settings);
        splits.push_str(&format!(
            "  {name}: {{legacy: legacy, new: new, share: 50%, salt: api, keyless: legacy, \
             key: [{{jwt: {{claim: sub, {settings}}}}}, {{header: X-User}}]}}\n"
        ));
        routes.push_str(&format!("  - {{path: /{name}, split: {name}}}\n"));
    }
    let (proxy, servers) = start(site, &splits, &routes).await;
    (proxy, servers, issuers)
}

async fn ask(client: &mut Client, issuer: &Issuer, fields: &[(&str, &str)]) -> Arm {
    let target = format!("/{}", issuer.name());
    arm_of(client, with_fields(&target, fields)).await
}

#[tokio::test]
async fn a_verified_claim_is_a_key_whatever_the_kind_of_signature() {
    let (proxy, _servers, issuers) = start_with_issuers().await;
    let mut client = proxy.client().await;
    let population = Population::new("api", "50%");
    for issuer in &issuers {
        for (key, arm) in some_keys() {
            let token = issuer.sign(&json!({ "sub": key }));
            // Asked twice: the second time the token is known.
            for _ in 0..2 {
                let found = ask(&mut client, issuer, &[("authorization", &token)]).await;
                assert_eq!(found, arm, "{} {key}", issuer.name());
            }
        }
        let number = issuer.sign(&json!({ "sub": 4711 }));
        let found = ask(&mut client, issuer, &[("authorization", &number)]).await;
        assert_eq!(
            found,
            population.arm("4711"),
            "a number counts as it is written"
        );
    }
    assert_eq!(unverifiable(&proxy).await, 0.0);
}

async fn unverifiable(proxy: &Proxy) -> f64 {
    let metrics = proxy.metrics().await;
    metrics.sum("cutover_unverifiable_tokens_total", &[])
}

#[tokio::test]
async fn a_forged_token_counts_as_absent_and_is_counted() {
    let (proxy, _servers, issuers) = start_with_issuers().await;
    let mut client = proxy.client().await;
    let mut of_new = keys("api", "50%", Arm::New);
    let mut of_legacy = keys("api", "50%", Arm::Legacy);
    let mut forgeries = 0.0;
    for (number, issuer) in issuers.iter().enumerate() {
        // He would rather be somebody whose arm is `new`.
        let claims = json!({ "sub": of_new.next() });
        let genuine = issuer.sign(&claims);
        let (signed, _) = genuine.rsplit_once('.').expect("a token has parts");
        let other = &issuers[(number + 1) % issuers.len()];
        let past = json!({ "sub": of_new.next(), "exp": 1_600_000_000 });
        let guess = EncodingKey::from_secret(b"guess");
        let none = "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJyb290In0.".to_owned();
        for (what, token) in [
            ("another key", bearer(Algorithm::HS256, &claims, &guess)),
            ("another algorithm", other.sign(&claims)),
            ("no signature", format!("{signed}.")),
            ("a part missing", signed.to_owned()),
            ("no algorithm", none),
            ("expired", issuer.sign(&past)),
            ("no token", "Bearer let-me-in".to_owned()),
        ] {
            let found = ask(&mut client, issuer, &[("authorization", &token)]).await;
            assert_eq!(found, Arm::Legacy, "{} {what}", issuer.name());
            forgeries += 1.0;
            assert_eq!(
                unverifiable(&proxy).await,
                forgeries,
                "{} {what}",
                issuer.name()
            );
            // The next source is looked at, as if there were no token.
            for (key, arm) in [(of_new.next(), Arm::New), (of_legacy.next(), Arm::Legacy)] {
                let key = key.expect("there are enough");
                let fields = [("authorization", token.as_str()), ("x-user", &key)];
                assert_eq!(ask(&mut client, issuer, &fields).await, arm, "{what}");
                forgeries += 1.0;
            }
        }
        let absent = ask(&mut client, issuer, &[]).await;
        assert_eq!(
            absent,
            Arm::Legacy,
            "and where there is none, nothing is counted"
        );
    }
    assert_eq!(unverifiable(&proxy).await, forgeries);
}

#[tokio::test]
async fn issuer_and_audience_are_required_where_the_split_names_them() {
    let jwt = format!(
        "key: [{{jwt: {{claim: sub, algorithm: HS256, secret: {SECRET}, header: X-Token, \
         issuer: us, audience: api}}}}], keyless: legacy"
    );
    let (proxy, _servers) = start(Site::new(), &split(&jwt), TO_THE_SPLIT).await;
    let mut client = proxy.client().await;
    let key = keys("api", "50%", Arm::New).next();
    let secret = EncodingKey::from_secret(SECRET.as_bytes());
    for (claims, arm) in [
        (json!({ "sub": key, "iss": "us", "aud": "api" }), Arm::New),
        (
            json!({ "sub": key, "iss": "us", "aud": ["x", "api"] }),
            Arm::New,
        ),
        (
            json!({ "sub": key, "iss": "them", "aud": "api" }),
            Arm::Legacy,
        ),
        (json!({ "sub": key, "iss": "us", "aud": "x" }), Arm::Legacy),
        (json!({ "sub": key, "iss": "us" }), Arm::Legacy),
        (json!({ "sub": key, "aud": "api" }), Arm::Legacy),
    ] {
        let token = bearer(Algorithm::HS256, &claims, &secret);
        let found = arm_of(&mut client, with_fields("/", &[("x-token", &token)])).await;
        assert_eq!(found, arm, "{claims}");
    }
    assert_eq!(unverifiable(&proxy).await, 4.0);
}

#[tokio::test]
async fn an_issued_cookie_bears_its_attributes_beside_those_of_the_upstream() {
    let settings = "key: [{header: X-User}], keyless: {issue_cookie: {name: sid, path: /app, \
                    domain: example.com, max_age: session, same_site: Strict}}";
    let answer = |name: &str| {
        Upstream::start(name, |_| {
            let reply = Reply::new(200).field("Set-Cookie", "theirs=1");
            Script::answer(reply.field("Cache-Control", "public, max-age=60"))
        })
    };
    let servers = Servers(vec![("legacy", answer("legacy")), ("new", answer("new"))]);
    let configuration = configuration(&servers, &split(settings), TO_THE_SPLIT);
    let proxy = Site::new().start(&configuration).await;
    let mut client = proxy.client().await;
    let first = client.send(with_fields("/", &[])).await;
    let cookies: Vec<_> = first
        .headers
        .get_all(SET_COOKIE)
        .iter()
        .map(|value| value.to_str().expect("cookies are ASCII"))
        .collect();
    let [theirs, ours] = cookies[..] else {
        panic!("{cookies:?}");
    };
    assert_eq!(theirs, "theirs=1");
    let (pair, attributes) = ours.split_once("; ").expect("there are attributes");
    assert_eq!(
        attributes,
        "Path=/app; Domain=example.com; HttpOnly; SameSite=Strict"
    );
    let value = pair.strip_prefix("sid=").expect("it has the name");
    assert!(
        value.len() == 32 && value.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{value}"
    );
    // No cache may hand this session to others.
    let caching: Vec<_> = first.headers.get_all(CACHE_CONTROL).iter().collect();
    assert_eq!(caching, ["private, max-age=60"]);
    let arm = Population::new("api", "50%").arm(value);
    assert_eq!(
        first.served_by(),
        Some(arm.as_str()),
        "the value is the key at once"
    );

    for fields in [
        &[("cookie", pair)][..],
        &[("x-user", "alice"), ("cookie", pair)],
        &[("x-user", "alice")],
    ] {
        let answer = client.send(with_fields("/", fields)).await;
        let cookies = answer.headers.get_all(SET_COOKIE).iter().count();
        assert_eq!(cookies, 1, "who has a key gets none: {fields:?}");
        assert_eq!(answer.field("cache-control"), Some("public, max-age=60"));
    }
    let answer = client.send(with_fields("/", &[("cookie", pair)])).await;
    assert_eq!(answer.served_by(), Some(arm.as_str()));
}

#[tokio::test]
async fn an_answer_that_nobody_may_store_stays_so_beside_an_issued_cookie() {
    let answer = |name: &str| {
        Upstream::start(name, |_| {
            Script::answer(Reply::new(200).field("Cache-Control", "no-store"))
        })
    };
    let servers = Servers(vec![("legacy", answer("legacy")), ("new", answer("new"))]);
    let settings = "key: [{header: X-User}], keyless: {issue_cookie: {same_site: None}}";
    let configuration = configuration(&servers, &split(settings), TO_THE_SPLIT);
    let proxy = Site::new().start(&configuration).await;
    let answer = proxy.client().await.send(with_fields("/", &[])).await;
    assert_eq!(answer.field("cache-control"), Some("no-store"));
    let cookie = answer.field("set-cookie").expect("a cookie is issued");
    // Browsers drop it otherwise, and would be given a new session each time.
    assert!(cookie.ends_with("; SameSite=None; Secure"), "{cookie}");
}
