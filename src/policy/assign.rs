//! Which arm a request belongs to, and why.
//!
//! The one place that knows the order of causes: an emergency, then a pinned key, then a signed pin
//! token, then the hash of the session key. Whatever an operator fixed by hand says nothing about
//! how the arms fare with ordinary users, so only a hashed assignment is evidence.

use serde::{Deserialize, Serialize};

use super::address_key::TypedKey;
use super::arm::Arm;
use super::key::{Cluster, KeyHash, Salt};
use super::share::{Bucket, Share};

/// Why a request was given its arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// An emergency sends everybody to legacy.
    Emergency,
    /// The key is pinned by the configuration or by the pins file.
    Pin,
    /// A signed pin token came with the request.
    Token,
    /// The hash of the session key, compared with the share.
    Hash,
    /// There is no session key, and such requests stay on legacy.
    Keyless,
}

impl Cause {
    /// The word used in labels, headers and pages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Cause::Emergency => "emergency",
            Cause::Pin => "pin",
            Cause::Token => "token",
            Cause::Hash => "hash",
            Cause::Keyless => "keyless",
        }
    }
}

/// What decides the arm of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Circumstances {
    /// Whether an emergency covers the split.
    pub emergency: bool,
    /// The arm that the configuration or the pins file fixes for the key.
    pub pinned: Option<Arm>,
    /// The arm that a verified pin token asks for.
    pub token: Option<Arm>,
    /// The hash of the session key; absent for a request without one.
    pub hash: Option<KeyHash>,
    /// The share in effect.
    pub share: Share,
}

/// The arm of one request, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The arm.
    pub arm: Arm,
    /// The key's slot; absent for a request without a session key.
    pub bucket: Option<Bucket>,
    /// The key's group; absent for a request without a session key.
    pub cluster: Option<Cluster>,
    /// What decided.
    pub cause: Cause,
}

impl Assignment {
    /// Whether the outcome of this request says anything about ordinary users of its arm.
    pub const fn is_evidence(&self) -> bool {
        matches!(self.cause, Cause::Hash)
    }
}

/// Assigns a request to an arm.
pub fn assign(circumstances: Circumstances) -> Assignment {
    let Circumstances {
        emergency,
        pinned,
        token,
        hash,
        share,
    } = circumstances;
    let (cause, arm) = match (pinned, token, hash) {
        _ if emergency => (Cause::Emergency, Arm::Legacy),
        (Some(arm), _, _) => (Cause::Pin, arm),
        (None, Some(arm), _) => (Cause::Token, arm),
        (None, None, Some(hash)) if share.contains(hash.bucket()) => (Cause::Hash, Arm::New),
        (None, None, Some(_)) => (Cause::Hash, Arm::Legacy),
        (None, None, None) => (Cause::Keyless, Arm::Legacy),
    };
    Assignment {
        arm,
        bucket: hash.map(KeyHash::bucket),
        cluster: hash.map(KeyHash::cluster),
        cause,
    }
}

/// A question that an operator asks: where does this key go?
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Name of the split.
    pub split: &'a str,
    /// The split's salt.
    pub salt: Salt,
    /// The session key.
    pub key: TypedKey<'a>,
    /// The arm that the configuration or the pins file fixes for the key.
    pub pinned: Option<Arm>,
    /// The share in effect, or the one supposed.
    pub share: Share,
    /// Whether an emergency covers the split.
    pub emergency: bool,
}

/// Where a key goes and why: the answer of `cutover explain` and of the admin API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Name of the split.
    pub split: String,
    /// The session key as it is hashed: of an address, the text that stands for it.
    pub key: String,
    /// The key's slot, `0..10_000`.
    pub bucket: u16,
    /// The key's group, `0..64`.
    pub cluster: u8,
    /// The share in effect, such as `10%`.
    pub share: String,
    /// The arm of a request with this key and without a pin token.
    pub arm: Arm,
    /// What decides.
    pub cause: Cause,
    /// All of it in one sentence.
    pub sentence: String,
}

/// Explains where a key goes. It follows [`assign`], so it cannot differ from what a request sees.
pub fn explain(question: Question<'_>) -> Explanation {
    let hash = question.salt.hash(question.key.text().as_bytes());
    let assignment = assign(Circumstances {
        emergency: question.emergency,
        pinned: question.pinned,
        token: None,
        hash: Some(hash),
        share: question.share,
    });
    let (arm, share, bucket) = (assignment.arm, question.share, hash.bucket());
    let reason = if question.emergency {
        "an emergency sends everybody there".to_owned()
    } else if question.pinned.is_some() {
        format!("the key is pinned to it, whatever the share ({share})")
    } else if arm == Arm::New {
        let limit = share.basis_points();
        format!(
            "its bucket {} is below {limit}, the share of {share}",
            bucket.index()
        )
    } else {
        format!(
            "its bucket {} is not below {}, the share of {share}; it moves to new when the share \
             reaches {}",
            bucket.index(),
            share.basis_points(),
            bucket.first_share(),
        )
    };
    Explanation {
        split: question.split.to_owned(),
        key: question.key.text().to_owned(),
        bucket: bucket.index(),
        cluster: hash.cluster().number(),
        share: share.to_string(),
        arm,
        cause: assignment.cause,
        sentence: format!(
            "On split {}, {} goes to {arm}: {reason}.{}",
            question.split,
            named(question.key),
            doubt(question.key),
        ),
    }
}

/// The key as it is hashed, and what it stands for.
fn named(key: TypedKey<'_>) -> String {
    let text = key.text().escape_debug();
    match key.address() {
        Some(address) => format!("key \"{text}\", which is that of a client at {address},"),
        None => format!("key \"{text}\""),
    }
}

/// Says that something else may have been meant.
fn doubt(key: TypedKey<'_>) -> String {
    match key.address() {
        Some(address) if key.is_ambiguous() => format!(
            " A cookie or a field with the value {address} would be hashed as it is, and may go \
             elsewhere."
        ),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests;
