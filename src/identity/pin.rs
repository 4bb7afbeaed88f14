//! Pin tokens: signed, expiring permission to use one arm of one split.
//!
//! A tester or a partner is put on an arm without touching the configuration. The token is a
//! capability, so it names its split and its end, it is verified with that split's own secret, and
//! its audience keeps a token made for something else with the same secret from passing as one.

use std::collections::HashSet;
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::config::model::Secret;
use crate::policy::arm::Arm;

/// The cookie that carries a pin token.
pub const PIN_COOKIE: &str = "cutover_pin";

const AUDIENCE: &str = "cutover-pin";

/// Makes a pin token for `cutover pin`, valid from now on for `valid_for`.
///
/// `now_seconds` counts from the Unix epoch.
pub fn issue(
    secret: &Secret,
    split: &str,
    arm: Arm,
    valid_for: Duration,
    now_seconds: u64,
) -> String {
    let claims = Claims {
        aud: AUDIENCE.to_owned(),
        split: split.to_owned(),
        arm,
        exp: now_seconds.saturating_add(valid_for.as_secs()),
    };
    let key = EncodingKey::from_secret(&secret.0);
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)
        .expect("the claims are plain data, and HMAC takes any key")
}

/// Verifies the pin tokens of one split.
#[derive(Debug)]
pub(super) struct PinVerifier {
    split: String,
    key: DecodingKey,
    validation: Validation,
}

impl PinVerifier {
    pub(super) fn new(split: &str, secret: &Secret) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&[AUDIENCE]);
        validation.required_spec_claims = HashSet::from(["aud".to_owned()]);
        // The time is judged here, by the clock that the caller gives and without leeway: unlike a
        // session's token, nothing breaks when a pin ends a little early.
        validation.validate_exp = false;
        Self {
            split: split.to_owned(),
            key: DecodingKey::from_secret(&secret.0),
            validation,
        }
    }

    /// The arm that `token` asks for, if it is genuine, for this split, and not expired.
    pub(super) fn arm(&self, token: &[u8], now_seconds: u64) -> Option<Arm> {
        let decoded = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation).ok()?;
        let claims = decoded.claims;
        let is_ours = decoded.header.crit.is_none() && claims.split == self.split;
        (is_ours && now_seconds < claims.exp).then_some(claims.arm)
    }
}

#[derive(Serialize, Deserialize)]
struct Claims {
    aud: String,
    split: String,
    arm: Arm,
    exp: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_000_000;
    const HOUR: Duration = Duration::from_secs(3600);

    fn secret(text: &str) -> Secret {
        Secret(text.as_bytes().to_vec())
    }

    fn verified(token: &str, now_seconds: u64) -> Option<Arm> {
        let verifier = PinVerifier::new("checkout", &secret("correct horse"));
        verifier.arm(token.as_bytes(), now_seconds)
    }

    #[test]
    fn a_token_fixes_the_arm_until_it_expires() {
        for arm in Arm::ALL {
            let token = issue(&secret("correct horse"), "checkout", arm, HOUR, NOW);
            assert_eq!(verified(&token, NOW), Some(arm));
            assert_eq!(verified(&token, NOW + 3599), Some(arm));
            assert_eq!(verified(&token, NOW + 3600), None);
        }
    }

    #[test]
    fn a_token_for_another_split_fixes_nothing() {
        let token = issue(&secret("correct horse"), "search", Arm::New, HOUR, NOW);
        assert_eq!(verified(&token, NOW), None);
    }

    #[test]
    fn a_token_signed_with_another_secret_or_altered_fixes_nothing() {
        let forged = issue(&secret("battery staple"), "checkout", Arm::New, HOUR, NOW);
        assert_eq!(verified(&forged, NOW), None);

        let genuine = issue(&secret("correct horse"), "checkout", Arm::New, HOUR, NOW);
        let longer = issue(&secret("guess"), "checkout", Arm::New, HOUR * 24, NOW);
        let (head, signature) = genuine.rsplit_once('.').expect("three parts");
        let (longer_head, _) = longer.rsplit_once('.').expect("three parts");
        assert_eq!(verified(&format!("{longer_head}.{signature}"), NOW), None);
        assert_eq!(verified(&format!("{head}."), NOW), None);
        assert_eq!(verified(head, NOW), None);
        assert_eq!(verified("", NOW), None);
    }

    #[test]
    fn a_token_made_for_something_else_with_the_same_secret_fixes_nothing() {
        let claims = serde_json::json!({
            "aud": "billing", "split": "checkout", "arm": "new", "exp": NOW + 60,
        });
        let key = EncodingKey::from_secret(b"correct horse");
        for (algorithm, claims) in [
            (Algorithm::HS256, claims.clone()),
            (Algorithm::HS512, {
                let mut claims = claims.clone();
                claims["aud"] = AUDIENCE.into();
                claims
            }),
            (Algorithm::HS256, {
                let mut claims = claims.clone();
                claims.as_object_mut().expect("an object").remove("aud");
                claims
            }),
            (Algorithm::HS256, {
                let mut claims = claims;
                claims["aud"] = AUDIENCE.into();
                claims.as_object_mut().expect("an object").remove("exp");
                claims
            }),
        ] {
            let token = jsonwebtoken::encode(&Header::new(algorithm), &claims, &key);
            let token = token.expect("an HMAC takes any key");
            assert_eq!(verified(&token, NOW), None, "{algorithm:?} {claims}");
        }
    }
}
