//! Session keys from the claims of JSON Web Tokens.
//!
//! An unverified claim would let anyone choose whose session he is. So a token counts only if it
//! carries a valid signature by the one algorithm that is configured: what the token's own header
//! says is compared and never obeyed, which closes both the `none` algorithm and the trick of
//! signing with a public key as if it were a shared secret.
//!
//! Checking an RSA signature costs more than everything else a request costs here, and a session
//! sends the same token many times. Each worker therefore remembers the tokens it has verified, in
//! a table of fixed size: a token is recognised by all of its bytes, only until it expires, and only
//! by the verifier that has checked it.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use jsonwebtoken::{DecodingKey, Validation};
use serde_json::{Map, Value};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::config::jwt_key::{JwtKeyError, decoding_key};
use crate::config::model::JwtSource;
use crate::message::{Fields, Name};

/// How far the clocks of issuer and proxy may differ.
const LEEWAY_SECONDS: u64 = 60;

/// What a request's token says about the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// There is no token, or it is valid and lacks the claim.
    Absent,
    /// There is a token, and it is not to be trusted.
    Unverifiable,
    /// The claim of a verified token, not empty.
    Value(Bytes),
}

/// Verifies the tokens of one source.
#[derive(Debug)]
pub(super) struct JwtVerifier {
    /// Tells the verifiers of this process apart in the workers' tables, over reloads too.
    id: u64,
    source: JwtSource,
    header: Name,
    key: DecodingKey,
    validation: Validation,
}

impl JwtVerifier {
    /// Reads the key and prepares everything that does not depend on the token.
    pub(super) fn new(source: &JwtSource) -> Result<Self, JwtKeyError> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);

        let (algorithm, key) = decoding_key(source.algorithm, &source.key.0)?;
        let mut validation = Validation::new(algorithm);
        // Times are judged here, by the clock that the caller gives.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = source.audience.is_some();
        validation.aud = source.audience.iter().cloned().map(one).next();
        validation.iss = source.issuer.iter().cloned().map(one).next();
        // Without this a token that lacks the claim would pass for one that has the right value.
        validation.required_spec_claims = [
            source.audience.as_ref().map(|_| "aud"),
            source.issuer.as_ref().map(|_| "iss"),
        ]
        .into_iter()
        .flatten()
        .map(str::to_owned)
        .collect();
        Ok(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            header: Name::from(&source.header),
            source: source.clone(),
            key,
            validation,
        })
    }

    /// The claim of the token in `fields`, of a repeated one the first.
    pub(super) fn claim(&self, fields: &Fields, now_seconds: u64) -> Claim {
        let Some(token) = fields.get(&self.header).and_then(bearer_token) else {
            return Claim::Absent;
        };
        VERIFIED.with_borrow_mut(|verified| {
            let hash = xxh3_64_with_seed(token, self.id);
            if let Some(known) = verified.find(self.id, hash, token) {
                return known.claim(now_seconds);
            }
            let Some(checked) = self.verify(token) else {
                return Claim::Unverifiable;
            };
            let claim = checked.claim(now_seconds);
            verified.remember(self.id, hash, token, checked);
            claim
        })
    }

    /// Checks everything about a token but the time.
    fn verify(&self, token: &[u8]) -> Option<Checked> {
        let decoded =
            jsonwebtoken::decode::<Map<String, Value>>(token, &self.key, &self.validation).ok()?;
        // RFC 7515 §4.1.11: extensions that must be understood and are not make a token invalid.
        if decoded.header.crit.is_some() {
            return None;
        }
        let claims = decoded.claims;
        let time = |name| match claims.get(name) {
            None => Some(None),
            Some(value) => seconds(value).map(Some),
        };
        let (not_before, expires) = (time("nbf")?, time("exp")?);
        let from = not_before.unwrap_or(0).saturating_sub(LEEWAY_SECONDS);
        let until = expires.map_or(u64::MAX, |at| at.saturating_add(LEEWAY_SECONDS));
        let value = match claims.get(&self.source.claim) {
            Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
            Some(Value::Number(number)) if !number.is_f64() => Some(number.to_string()),
            _ => None,
        };
        Some(Checked {
            value: value.map(Bytes::from),
            valid: from..until,
        })
    }
}

fn one(value: String) -> HashSet<String> {
    HashSet::from([value])
}

/// A `NumericDate` of RFC 7519, which may have decimals.
fn seconds(value: &Value) -> Option<u64> {
    // The cast saturates: before 1970 becomes 1970, and the far future the farthest.
    let whole = |seconds: f64| seconds as u64;
    value.as_u64().or_else(|| value.as_f64().map(whole))
}

/// The token in a header's value. Another scheme, such as `Basic`, is no token.
fn bearer_token(value: &[u8]) -> Option<&[u8]> {
    let token = match value.split_at_checked(7) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(b"bearer ") => rest.trim_ascii(),
        _ => value,
    };
    (!token.is_empty() && !token.contains(&b' ')).then_some(token)
}

/// What verifying a token has found out.
struct Checked {
    value: Option<Bytes>,
    /// Seconds since the Unix epoch.
    valid: Range<u64>,
}

impl Checked {
    fn claim(&self, now_seconds: u64) -> Claim {
        if !self.valid.contains(&now_seconds) {
            return Claim::Unverifiable;
        }
        let value = self.value.clone();
        value.map_or(Claim::Absent, Claim::Value)
    }
}

thread_local! {
    static VERIFIED: RefCell<Verified> = const { RefCell::new(Verified { slots: Vec::new() }) };
}

/// The tokens that a worker has verified, one per slot; a newcomer takes the slot of whoever is
/// there.
struct Verified {
    /// Empty until the first token comes, so that who uses no tokens pays no memory.
    slots: Vec<Option<VerifiedToken>>,
}

struct VerifiedToken {
    verifier: u64,
    hash: u64,
    token: Box<[u8]>,
    checked: Checked,
}

impl Verified {
    const SLOTS: usize = 512;
    /// Longer tokens are verified each time, so that a worker's table stays within a megabyte.
    const LONGEST: usize = 2048;

    fn find(&self, verifier: u64, hash: u64, token: &[u8]) -> Option<&Checked> {
        let known = self.slots.get(Self::slot(hash))?.as_ref()?;
        // The hash first: a comparison that stops at the first difference must not tell a stranger
        // how much of his guess was right.
        let is_same = known.verifier == verifier && known.hash == hash && *known.token == *token;
        is_same.then_some(&known.checked)
    }

    fn remember(&mut self, verifier: u64, hash: u64, token: &[u8], checked: Checked) {
        if token.len() > Self::LONGEST {
            return;
        }
        if self.slots.is_empty() {
            self.slots.resize_with(Self::SLOTS, || None);
        }
        self.slots[Self::slot(hash)] = Some(VerifiedToken {
            verifier,
            hash,
            token: token.into(),
            checked,
        });
    }

    const fn slot(hash: u64) -> usize {
        // The remainder is below `SLOTS`, whatever the width of a pointer.
        (hash % Self::SLOTS as u64) as usize
    }
}

#[cfg(test)]
mod tests;
