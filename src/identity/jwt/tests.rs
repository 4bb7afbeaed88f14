use std::sync::LazyLock;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

use super::*;
use crate::config::model::{JwtAlgorithm, Secret};

const NOW: u64 = 1_795_000_000;

/// A key pair: what the issuer signs with and what is configured here.
struct Keys {
    algorithm: JwtAlgorithm,
    signing: EncodingKey,
    configured: Secret,
}

fn key_pair(algorithm: &'static rcgen::SignatureAlgorithm) -> (String, Secret) {
    let pair = rcgen::KeyPair::generate_for(algorithm).expect("a supported algorithm");
    (
        pair.serialize_pem(),
        Secret(pair.public_key_pem().into_bytes()),
    )
}

static RSA: LazyLock<Keys> = LazyLock::new(|| {
    let (private, configured) = key_pair(&rcgen::PKCS_RSA_SHA256);
    Keys {
        algorithm: JwtAlgorithm::Rs256,
        signing: EncodingKey::from_rsa_pem(private.as_bytes()).expect("its own form"),
        configured,
    }
});

static EC: LazyLock<Keys> = LazyLock::new(|| {
    let (private, configured) = key_pair(&rcgen::PKCS_ECDSA_P256_SHA256);
    Keys {
        algorithm: JwtAlgorithm::Es256,
        signing: EncodingKey::from_ec_pem(private.as_bytes()).expect("its own form"),
        configured,
    }
});

static HMAC: LazyLock<Keys> = LazyLock::new(|| Keys {
    algorithm: JwtAlgorithm::Hs256,
    signing: EncodingKey::from_secret(b"correct horse"),
    configured: Secret(b"correct horse".to_vec()),
});

fn all() -> [&'static Keys; 3] {
    [&HMAC, &RSA, &EC]
}

impl Keys {
    fn source(&self) -> JwtSource {
        JwtSource {
            claim: "sub".to_owned(),
            header: AUTHORIZATION,
            algorithm: self.algorithm,
            key: self.configured.clone(),
            issuer: None,
            audience: None,
        }
    }

    fn verifier(&self) -> JwtVerifier {
        JwtVerifier::new(&self.source()).expect("a valid key")
    }

    fn sign(&self, claims: &Value) -> String {
        let algorithm = match self.algorithm {
            JwtAlgorithm::Hs256 => Algorithm::HS256,
            JwtAlgorithm::Rs256 => Algorithm::RS256,
            JwtAlgorithm::Es256 => Algorithm::ES256,
        };
        sign(algorithm, claims, &self.signing)
    }
}

fn sign(algorithm: Algorithm, claims: &Value, key: &EncodingKey) -> String {
    jsonwebtoken::encode(&Header::new(algorithm), claims, key).expect("a key that fits")
}

fn claim_of(verifier: &JwtVerifier, value: &str, now_seconds: u64) -> Claim {
    let mut headers = HeaderMap::new();
    let value = HeaderValue::from_str(value).expect("a header value");
    headers.insert(AUTHORIZATION, value);
    verifier.claim(&Fields::from(&headers), now_seconds)
}

fn value(text: &str) -> Claim {
    Claim::Value(Bytes::copy_from_slice(text.as_bytes()))
}

#[test]
fn a_verified_claim_is_the_key_with_each_algorithm() {
    for keys in all() {
        let verifier = keys.verifier();
        let token = keys.sign(&json!({"sub": "alice", "exp": NOW + 60}));
        // Twice: the second answer comes from memory.
        for _ in 0..2 {
            assert_eq!(
                claim_of(&verifier, &format!("Bearer {token}"), NOW),
                value("alice"),
                "{:?}",
                keys.algorithm
            );
        }
        assert_eq!(claim_of(&verifier, &token, NOW), value("alice"));
        assert_eq!(
            claim_of(&verifier, &format!("bEARER  {token}"), NOW),
            value("alice")
        );
    }
}

#[test]
fn a_token_signed_by_another_key_or_altered_is_unverifiable() {
    let (private, _) = key_pair(&rcgen::PKCS_ECDSA_P256_SHA256);
    let other = EncodingKey::from_ec_pem(private.as_bytes()).expect("its own form");
    let forged = sign(Algorithm::ES256, &json!({"sub": "alice"}), &other);
    assert_eq!(claim_of(&EC.verifier(), &forged, NOW), Claim::Unverifiable);

    for keys in all() {
        let verifier = keys.verifier();
        let alice = keys.sign(&json!({"sub": "alice"}));
        let mallory = keys.sign(&json!({"sub": "mallory"}));
        assert_eq!(claim_of(&verifier, &alice, NOW), value("alice"));
        let (_, signature) = alice.rsplit_once('.').expect("three parts");
        let (unsigned, _) = mallory.rsplit_once('.').expect("three parts");
        for token in [
            format!("{unsigned}.{signature}"),
            format!("{unsigned}."),
            unsigned.to_owned(),
            format!("{alice}x"),
            format!("{alice}.{signature}"),
            "...".to_owned(),
            "opaque".to_owned(),
        ] {
            let found = claim_of(&verifier, &token, NOW);
            assert_eq!(found, Claim::Unverifiable, "{:?} {token}", keys.algorithm);
        }
    }
}

#[test]
fn only_the_configured_algorithm_is_obeyed() {
    let claims = json!({"sub": "alice"});
    // The classic: the public key, which everybody has, used as a shared secret.
    for keys in [&*RSA, &*EC] {
        let public_as_secret = EncodingKey::from_secret(&keys.configured.0);
        let token = sign(Algorithm::HS256, &claims, &public_as_secret);
        assert_eq!(claim_of(&keys.verifier(), &token, NOW), Claim::Unverifiable);
    }
    // The right key with an algorithm that is not configured.
    for (keys, algorithm) in [
        (&*HMAC, Algorithm::HS512),
        (&*RSA, Algorithm::RS512),
        (&*RSA, Algorithm::PS256),
    ] {
        let token = sign(algorithm, &claims, &keys.signing);
        assert_eq!(claim_of(&keys.verifier(), &token, NOW), Claim::Unverifiable);
    }
    for keys in all() {
        for other in all() {
            let expected = if keys.algorithm == other.algorithm {
                value("alice")
            } else {
                Claim::Unverifiable
            };
            let token = other.sign(&claims);
            assert_eq!(claim_of(&keys.verifier(), &token, NOW), expected);
        }
    }
}

#[test]
fn a_token_without_a_signature_is_refused_whatever_it_calls_its_algorithm() {
    // {"alg":"none"}, {"alg":"None"} and {"alg":""}
    for header in [
        "eyJhbGciOiJub25lIn0",
        "eyJhbGciOiJOb25lIn0",
        "eyJhbGciOiIifQ",
    ] {
        for keys in all() {
            let token = keys.sign(&json!({"sub": "alice"}));
            let payload = token.split('.').nth(1).expect("three parts");
            let unsigned = format!("{header}.{payload}.");
            assert_eq!(
                claim_of(&keys.verifier(), &unsigned, NOW),
                Claim::Unverifiable
            );
        }
    }
}

#[test]
fn a_token_counts_between_nbf_and_exp_from_memory_too() {
    for keys in all() {
        let verifier = keys.verifier();
        let token = keys.sign(&json!({"sub": "alice", "nbf": NOW, "exp": NOW + 600}));
        for (now, expected) in [
            (NOW - 61, Claim::Unverifiable),
            (NOW - 60, value("alice")),
            (NOW, value("alice")),
            (NOW + 659, value("alice")),
            (NOW + 660, Claim::Unverifiable),
            (NOW + 100_000, Claim::Unverifiable),
        ] {
            assert_eq!(claim_of(&verifier, &token, now), expected, "{now}");
            assert_eq!(claim_of(&keys.verifier(), &token, now), expected, "{now}");
        }
    }
}

#[test]
fn times_that_are_no_times_make_a_token_unverifiable() {
    let verifier = HMAC.verifier();
    for claims in [
        json!({"sub": "alice", "exp": "tomorrow"}),
        json!({"sub": "alice", "exp": null}),
        json!({"sub": "alice", "exp": -5}),
        json!({"sub": "alice", "nbf": [NOW]}),
    ] {
        let token = HMAC.sign(&claims);
        assert_eq!(
            claim_of(&verifier, &token, NOW),
            Claim::Unverifiable,
            "{claims}"
        );
    }
    let fractional = HMAC.sign(&json!({"sub": "alice", "exp": NOW as f64 + 0.5}));
    assert_eq!(claim_of(&verifier, &fractional, NOW), value("alice"));
}

#[test]
fn issuer_and_audience_are_required_where_configured() {
    let verifier = JwtVerifier::new(&JwtSource {
        issuer: Some("https://login.example".to_owned()),
        audience: Some("shop".to_owned()),
        ..HMAC.source()
    })
    .expect("a valid key");
    let right = json!({"sub": "alice", "iss": "https://login.example", "aud": ["x", "shop"]});
    let with = |name: &str, value: Value| {
        let mut claims = right.clone();
        claims[name] = value;
        claims
    };
    for (claims, expected) in [
        (right.clone(), value("alice")),
        (
            with("iss", json!("https://evil.example")),
            Claim::Unverifiable,
        ),
        (with("iss", Value::Null), Claim::Unverifiable),
        (with("aud", json!("bank")), Claim::Unverifiable),
        (with("aud", json!([])), Claim::Unverifiable),
        (with("aud", json!(7)), Claim::Unverifiable),
        (json!({"sub": "alice"}), Claim::Unverifiable),
    ] {
        let token = HMAC.sign(&claims);
        assert_eq!(claim_of(&verifier, &token, NOW), expected, "{claims}");
    }
    // Whoever configures no audience accepts a token for any.
    let token = HMAC.sign(&right);
    assert_eq!(claim_of(&HMAC.verifier(), &token, NOW), value("alice"));
}

#[test]
fn a_claim_is_a_string_or_an_integer() {
    let verifier = JwtVerifier::new(&JwtSource {
        claim: "uid".to_owned(),
        ..HMAC.source()
    })
    .expect("a valid key");
    for (claim, expected) in [
        (json!("alice"), value("alice")),
        (json!("Zürich \u{1f600}"), value("Zürich \u{1f600}")),
        (json!(42), value("42")),
        (json!(-42), value("-42")),
        (json!(u64::MAX), value("18446744073709551615")),
        (json!(4.5), Claim::Absent),
        (json!(""), Claim::Absent),
        (json!(true), Claim::Absent),
        (json!(null), Claim::Absent),
        (json!(["alice"]), Claim::Absent),
        (json!({"id": "alice"}), Claim::Absent),
    ] {
        let token = HMAC.sign(&json!({ "uid": claim }));
        assert_eq!(claim_of(&verifier, &token, NOW), expected, "{claim}");
    }
    let token = HMAC.sign(&json!({"name": "alice"}));
    assert_eq!(claim_of(&verifier, &token, NOW), Claim::Absent);
}

#[test]
fn no_token_and_other_schemes_are_absent_and_not_counted() {
    let verifier = HMAC.verifier();
    assert_eq!(verifier.claim(&Fields::default(), NOW), Claim::Absent);
    for header in [
        "",
        "Basic YWxpY2U6c2VjcmV0",
        "Digest username=\"a\", realm=\"b\"",
    ] {
        assert_eq!(claim_of(&verifier, header, NOW), Claim::Absent, "{header}");
    }
}

#[test]
fn an_extension_that_must_be_understood_makes_a_token_unverifiable() {
    let header = Header {
        crit: Some(vec!["b64".to_owned()]),
        ..Header::new(Algorithm::HS256)
    };
    let token = jsonwebtoken::encode(&header, &json!({"sub": "alice"}), &HMAC.signing);
    let token = token.expect("a key that fits");
    assert_eq!(claim_of(&HMAC.verifier(), &token, NOW), Claim::Unverifiable);
}

#[test]
fn what_one_verifier_remembers_another_does_not_believe() {
    let token = HMAC.sign(&json!({"sub": "alice", "id": "42"}));
    let by_name = HMAC.verifier();
    let by_id = JwtVerifier::new(&JwtSource {
        claim: "id".to_owned(),
        ..HMAC.source()
    })
    .expect("a valid key");
    let elsewhere = JwtVerifier::new(&JwtSource {
        key: Secret(b"battery staple".to_vec()),
        ..HMAC.source()
    })
    .expect("a valid key");
    for _ in 0..2 {
        assert_eq!(claim_of(&by_name, &token, NOW), value("alice"));
        assert_eq!(claim_of(&by_id, &token, NOW), value("42"));
        assert_eq!(claim_of(&elsewhere, &token, NOW), Claim::Unverifiable);
    }
}

#[test]
fn more_tokens_than_a_worker_remembers_and_tokens_too_long_to_remember_are_verified_too() {
    let verifier = HMAC.verifier();
    let tokens: Vec<_> = (0..3 * Verified::SLOTS)
        .map(|n| HMAC.sign(&json!({ "sub": n })))
        .collect();
    for _ in 0..2 {
        for (n, token) in tokens.iter().enumerate() {
            assert_eq!(claim_of(&verifier, token, NOW), value(&n.to_string()));
        }
    }
    let long = "a".repeat(3 * Verified::LONGEST);
    let token = HMAC.sign(&json!({ "sub": &long }));
    for _ in 0..2 {
        assert_eq!(claim_of(&verifier, &token, NOW), value(&long));
    }
    let remembered = VERIFIED.with_borrow(|verified| {
        let tokens = verified.slots.iter().flatten();
        tokens.map(|token| token.token.len()).max()
    });
    assert!(remembered.is_some_and(|longest| longest <= Verified::LONGEST));
}
