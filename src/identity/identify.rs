//! Who sends a request, and hence which arm it gets.
//!
//! Everything that a configuration can settle is settled at reload, in [`Identifier::new`]. What
//! remains per request is to find a few bytes and to hash them, where they lie: a key from a
//! cookie, a header, the query or the address costs no allocation and no lock.
//!
//! Nothing here judges a request. Whatever a stranger sends (repeated, empty, enormous, not text,
//! badly quoted) is a key or the absence of one, and the request is served either way.

use std::collections::HashMap;
use std::net::IpAddr;

use bytes::Bytes;
use http::Uri;

use super::cookie::CookieIssuer;
use super::jwt::{Claim, JwtVerifier};
use super::pin::{PIN_COOKIE, PinVerifier};
use crate::config::jwt_key::JwtKeyError;
use crate::config::model::{KeySource, Keyless, Split};
use crate::message::name::{COOKIE, CUTOVER_PIN};
use crate::message::{Fields, Name};
use crate::policy::address_key::AddressKey;
use crate::policy::arm::Arm;
use crate::policy::assign::{Assignment, Circumstances, assign};
use crate::policy::key::Salt;
use crate::policy::share::Share;

/// What a request and the moment say.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'r> {
    /// The request's fields.
    pub fields: &'r Fields,
    /// The request's target.
    pub uri: &'r Uri,
    /// The client's address, trusted proxies looked through.
    pub client: IpAddr,
    /// Whether the client's connection is encrypted: an issued cookie is then `Secure`.
    pub secure: bool,
    /// The share in effect.
    pub share: Share,
    /// Whether an emergency covers the split.
    pub emergency: bool,
    /// Seconds since the Unix epoch; tokens expire by it.
    pub now_seconds: u64,
}

/// Where a request goes, and what the client must be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Identified {
    /// The arm and its cause.
    pub assignment: Assignment,
    /// `Set-Cookie` for the answer, which then also needs `Cache-Control: private`, so that no
    /// cache hands one session to everybody.
    pub issued_cookie: Option<Vec<u8>>,
    /// Whether a token came that is forged, expired, or not for this split. It was ignored.
    pub unverifiable_token: bool,
}

/// Finds the session key of a split's requests and assigns their arm.
#[derive(Debug)]
pub struct Identifier {
    salt: Salt,
    /// In order; what a keyless request falls back on is the last of them.
    sources: Vec<Source>,
    issuer: Option<CookieIssuer>,
    pins: HashMap<Box<[u8]>, Arm>,
    pin_tokens: Option<PinVerifier>,
}

impl Identifier {
    /// Prepares a split's identification.
    ///
    /// # Errors
    /// [`IdentifierError`] if a key cannot verify what it is configured for, or the issued cookie
    /// cannot be written.
    pub fn new(split: &Split) -> Result<Self, IdentifierError> {
        let mut sources = split
            .key
            .iter()
            .map(Source::new)
            .collect::<Result<Vec<_>, _>>()?;
        let mut issuer = None;
        match &split.keyless {
            Keyless::ClientIp => sources.push(Source::ClientIp),
            Keyless::IssueCookie(cookie) => {
                issuer = Some(CookieIssuer::new(cookie).ok_or(IdentifierError::IssuedCookie)?);
                sources.push(Source::Cookie(cookie.name.as_bytes().into()));
            }
            Keyless::Legacy => {}
        }
        let pin_tokens = match &split.pin_secret {
            Some(secret) if secret.0.is_empty() => return Err(IdentifierError::EmptyPinSecret),
            secret => secret.as_ref().map(|s| PinVerifier::new(&split.name, s)),
        };
        let pins = split.pins.iter();
        Ok(Self {
            salt: Salt::new(&split.salt),
            sources,
            issuer,
            pins: pins
                .map(|(key, arm)| (key.as_bytes().into(), *arm))
                .collect(),
            pin_tokens,
        })
    }

    /// Finds the request's session key and assigns its arm.
    pub fn identify(&self, request: RequestFacts<'_>) -> Identified {
        let mut unverifiable_token = false;
        let mut issued_cookie = None;
        let mut key = self.received_key(&request, &mut unverifiable_token);
        if key.is_none()
            && let Some(issuer) = &self.issuer
            && let Some(issued) = issuer.issue(request.secure)
        {
            key = Some(SessionKey::Issued(issued.value));
            issued_cookie = Some(issued.header);
        }
        let key = key.as_ref().map(SessionKey::as_bytes);
        // Nothing overrides an emergency, so its busy hour need not verify signatures.
        let token = match &self.pin_tokens {
            Some(tokens) if !request.emergency => {
                pin_token_arm(tokens, &request, &mut unverifiable_token)
            }
            _ => None,
        };
        let assignment = assign(Circumstances {
            emergency: request.emergency,
            pinned: key.and_then(|key| self.pins.get(key).copied()),
            token,
            hash: key.map(|key| self.salt.hash(key)),
            share: request.share,
        });
        Identified {
            assignment,
            issued_cookie,
            unverifiable_token,
        }
    }

    fn received_key<'r>(
        &self,
        request: &RequestFacts<'r>,
        unverifiable_token: &mut bool,
    ) -> Option<SessionKey<'r>> {
        let received = |bytes: Option<&'r [u8]>| {
            let present = bytes.filter(|bytes| !bytes.is_empty());
            present.map(SessionKey::Received)
        };
        self.sources.iter().find_map(|source| match source {
            Source::Cookie(name) => received(cookie(request.fields, name)),
            Source::Header(name) => received(request.fields.get(name)),
            Source::Query(name) => received(query_parameter(request.uri, name)),
            Source::Jwt(verifier) => match verifier.claim(request.fields, request.now_seconds) {
                Claim::Absent => None,
                Claim::Unverifiable => {
                    *unverifiable_token = true;
                    None
                }
                Claim::Value(value) => Some(SessionKey::Claim(value)),
            },
            Source::ClientIp => Some(SessionKey::Address(AddressKey::new(request.client))),
        })
    }
}

/// A split whose requests cannot be identified as configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentifierError {
    /// A key that cannot verify tokens.
    #[error("cannot verify JSON Web Tokens: {0}")]
    Jwt(#[from] JwtKeyError),
    /// An empty secret verifies what anybody signs.
    #[error("the secret of the pin tokens is empty")]
    EmptyPinSecret,
    /// Name or attributes that no `Set-Cookie` can carry.
    #[error(
        "the issued cookie's name must be a token, and its attributes free of `;` and of control \
         characters"
    )]
    IssuedCookie,
}

/// One place where a session key may be, ready to be looked at.
#[derive(Debug)]
enum Source {
    Cookie(Box<[u8]>),
    Header(Name),
    Query(Box<[u8]>),
    Jwt(Box<JwtVerifier>),
    ClientIp,
}

impl Source {
    fn new(source: &KeySource) -> Result<Self, JwtKeyError> {
        Ok(match source {
            KeySource::Cookie(name) => Source::Cookie(name.as_bytes().into()),
            KeySource::Header(name) => Source::Header(Name::from(name)),
            KeySource::Query(name) => Source::Query(name.as_bytes().into()),
            KeySource::Jwt(source) => Source::Jwt(Box::new(JwtVerifier::new(source)?)),
            KeySource::ClientIp => Source::ClientIp,
        })
    }
}

/// A session key where it lies.
enum SessionKey<'r> {
    Received(&'r [u8]),
    Claim(Bytes),
    Address(AddressKey),
    Issued([u8; 32]),
}

impl SessionKey<'_> {
    fn as_bytes(&self) -> &[u8] {
        match self {
            SessionKey::Received(bytes) => bytes,
            SessionKey::Claim(bytes) => bytes,
            SessionKey::Address(address) => address.as_bytes(),
            SessionKey::Issued(value) => value,
        }
    }
}

/// The arm that a pin token asks for: the header's, else the cookie's.
fn pin_token_arm(
    tokens: &PinVerifier,
    request: &RequestFacts<'_>,
    unverifiable_token: &mut bool,
) -> Option<Arm> {
    let present = |token: &&[u8]| !token.is_empty();
    let header = request.fields.get(&CUTOVER_PIN);
    let cookie = || cookie(request.fields, PIN_COOKIE.as_bytes()).filter(present);
    let token = header.filter(present).or_else(cookie)?;
    let arm = tokens.arm(token, request.now_seconds);
    *unverifiable_token |= arm.is_none();
    arm
}

/// The value of the first cookie called `name`, as received.
///
/// HTTP/2 sends each cookie as a field of its own and some clients repeat the field, so all fields
/// are read in order. Browsers quote nothing and servers disagree about quotes, so they are kept.
pub fn cookie<'r>(fields: &'r Fields, name: &[u8]) -> Option<&'r [u8]> {
    let lines = fields.get_all(&COOKIE);
    let mut pairs = lines.flat_map(|line| line.split(|&byte| byte == b';'));
    pairs.find_map(|pair| {
        let (found, value) = name_and_value(pair);
        (found.trim_ascii() == name).then(|| value.trim_ascii())
    })
}

/// The value of the first query parameter called `name`, as received: not percent-decoded.
pub fn query_parameter<'r>(uri: &'r Uri, name: &[u8]) -> Option<&'r [u8]> {
    let mut pairs = uri.query()?.as_bytes().split(|&byte| byte == b'&');
    pairs.find_map(|pair| {
        let (found, value) = name_and_value(pair);
        (found == name).then_some(value)
    })
}

/// Cuts at the first `=`; without one, the value is empty.
fn name_and_value(pair: &[u8]) -> (&[u8], &[u8]) {
    match pair.iter().position(|&byte| byte == b'=') {
        Some(at) => (&pair[..at], &pair[at + 1..]),
        None => (pair, &[]),
    }
}

#[cfg(test)]
mod tests;
