//! Splits: one migration each.

use std::collections::BTreeMap;

use super::criteria::settings;
use super::rollout::{March, rules};
use super::{Compiler, Names};
use crate::config::jwt_key::decoding_key;
use crate::config::model::{
    BackendId, BreakerSettings, FallbackSettings, IssuedCookie, JwtAlgorithm, JwtSource, KeySource,
    Keyless, Secret, Split, addresses,
};
use crate::config::notation::Written;
use crate::config::raw::{self, List};
use crate::policy::address_key::{Addresses, TypedKey};
use crate::policy::arm::{Arm, PerArm};

/// Bytes of a secret that a machine cannot guess (RFC 7518 §3.2 asks as many of HS256).
const MIN_SECRET_BYTES: usize = 32;

impl Compiler<'_, '_> {
    pub(super) fn split(&mut self, name: String, split: raw::Split, backends: &Names) -> Split {
        let path = format!("splits.{name}");
        let arms = PerArm {
            legacy: self.arm(&path, Arm::Legacy, split.legacy, backends),
            new: self.arm(&path, Arm::New, split.new, backends),
        };
        if arms.legacy == arms.new {
            let remedy = "name two backends, or this split compares a backend with itself";
            self.warning(
                &format!("{path}.new"),
                "both arms are the same backend",
                remedy,
            );
        }
        let key = self.key_sources(&path, split.key);
        let keyless = keyless(split.keyless);
        self.warn_of_changing_keys(&path, &key, &keyless);
        let pins = self.pins(&path, split.pins);
        let pins = self.pinned_addresses(&path, pins, addresses(&key, &keyless));
        let pin_secret = split.pin_secret.map(|secret| {
            if secret.len() < MIN_SECRET_BYTES {
                let message = format!("this secret has {} bytes", secret.len());
                let remedy = format!(
                    "use at least {MIN_SECRET_BYTES} random bytes, such as from `openssl rand -hex \
                     32`"
                );
                self.problem(&format!("{path}.pin_secret"), message, remedy);
            }
            Secret(secret.into_bytes())
        });
        let rollout_id = split.rollout.id.clone();
        let rules = rules(&split.rollout);
        let signals = self.signals(&path, split.signals);
        let march = March {
            share: split.share.map(|Written(share)| share),
            stages: split.stages,
            rollout: split.rollout,
            draft: self.draft(&path, &signals, split.rollback, split.advance),
            settings: settings(split.analysis),
        };
        let course = self.course(&path, march);
        Split {
            arms,
            key,
            keyless,
            salt: split.salt.unwrap_or_else(|| name.clone()),
            course,
            rules,
            signals,
            shared_state: split.shared_state,
            fallback: fallback(split.fallback),
            pins,
            pin_secret,
            stream_grace: split.stream_grace.0,
            response_headers: split.response_headers,
            rollout_id,
            name,
        }
    }

    fn arm(&mut self, path: &str, arm: Arm, name: Option<String>, backends: &Names) -> BackendId {
        let index = name.and_then(|name| self.lookup(&format!("{path}.{arm}"), &name, backends));
        // Two different stand-ins, so that nothing is said about equal arms.
        BackendId(index.unwrap_or(match arm {
            Arm::Legacy => u16::MAX - 1,
            Arm::New => u16::MAX,
        }))
    }

    fn key_sources(&mut self, split: &str, sources: List<raw::KeySource>) -> Vec<KeySource> {
        let mut compiled: Vec<KeySource> = Vec::new();
        for (index, source) in sources.numbered() {
            let path = format!("{split}.key[{index}]");
            let source = match source {
                raw::KeySource::ClientIp => KeySource::ClientIp,
                raw::KeySource::Cookie(Written(name)) => KeySource::Cookie(name.0),
                raw::KeySource::Header(Written(name)) => KeySource::Header(name),
                raw::KeySource::Query(name) => KeySource::Query(name.0),
                raw::KeySource::Jwt(jwt) => KeySource::Jwt(self.jwt(&format!("{path}.jwt"), jwt)),
            };
            if compiled.contains(&KeySource::ClientIp) {
                let remedy = "put `client_ip` last, or remove what follows it";
                self.problem(
                    &path,
                    "this is never looked at: `client_ip`, before it, is always present",
                    remedy,
                );
            }
            compiled.push(source);
        }
        compiled
    }

    fn jwt(&mut self, path: &str, jwt: raw::Jwt) -> JwtSource {
        let algorithm = match jwt.algorithm {
            Some(raw::Algorithm::Hs256) | None => JwtAlgorithm::Hs256,
            Some(raw::Algorithm::Rs256) => JwtAlgorithm::Rs256,
            Some(raw::Algorithm::Es256) => JwtAlgorithm::Es256,
        };
        let (wanted, other) = match algorithm {
            JwtAlgorithm::Hs256 => ("secret", "public_key"),
            JwtAlgorithm::Rs256 | JwtAlgorithm::Es256 => ("public_key", "secret"),
        };
        let (key, surplus) = match algorithm {
            JwtAlgorithm::Hs256 => (jwt.secret, jwt.public_key),
            JwtAlgorithm::Rs256 | JwtAlgorithm::Es256 => (jwt.public_key, jwt.secret),
        };
        // Which of the two is wanted is unknown while the algorithm is.
        if jwt.algorithm.is_some() {
            if surplus.is_some() {
                let message = format!("the algorithm has no use for `{other}`");
                // A public key taken for a shared secret would let anyone sign.
                let remedy = format!("remove it; give `{wanted}`");
                self.problem(&format!("{path}.{other}"), message, remedy);
            }
            match &key {
                Some(key) => self.judge_jwt_key(&format!("{path}.{wanted}"), algorithm, key),
                None if self.is_damaged(path, wanted) => {}
                None => {
                    let message = format!("the algorithm needs `{wanted}`");
                    let remedy = match algorithm {
                        JwtAlgorithm::Hs256 => "add the shared secret, such as `${JWT_SECRET}`",
                        _ => "add the public key in PEM, such as `${file:jwt.pem}`",
                    };
                    self.problem(&format!("{path}.{wanted}"), message, remedy);
                }
            }
        }
        JwtSource {
            claim: jwt.claim.unwrap_or_default(),
            header: jwt.header.0,
            algorithm,
            key: Secret(key.unwrap_or_default().into_bytes()),
            issuer: jwt.issuer,
            audience: jwt.audience,
        }
    }

    fn judge_jwt_key(&mut self, path: &str, algorithm: JwtAlgorithm, key: &str) {
        if let Err(error) = decoding_key(algorithm, key.as_bytes()) {
            self.problem(path, error.to_string(), error.remedy());
        } else if algorithm == JwtAlgorithm::Hs256 && key.len() < MIN_SECRET_BYTES {
            let message = format!("this secret has {} bytes", key.len());
            let remedy = format!("HS256 asks for at least {MIN_SECRET_BYTES} random bytes");
            self.warning(path, message, remedy);
        }
    }

    /// Someone whose key source changes, by logging in for instance, may change arm: stickiness
    /// holds per key, not per person.
    fn warn_of_changing_keys(&mut self, split: &str, key: &[KeySource], keyless: &Keyless) {
        let after = match keyless {
            _ if key.contains(&KeySource::ClientIp) => {
                if *keyless != Keyless::ClientIp {
                    self.warning(
                        &format!("{split}.keyless"),
                        "this has no effect: with `client_ip` in `key`, every request has a key",
                        "name other sources in `key`, such as `[{cookie: session}]`",
                    );
                }
                None
            }
            // The cookie that is issued is the very one that is looked for: no change.
            Keyless::IssueCookie(cookie) => Some(KeySource::Cookie(cookie.name.clone())),
            Keyless::ClientIp => Some(KeySource::ClientIp),
            Keyless::Legacy => None,
        };
        let mut sources: Vec<&KeySource> = key.iter().chain(&after).collect();
        sources.dedup();
        if let [.., before, last] = sources[..] {
            let message = format!(
                "someone known by {} who gains {} (by logging in, say) may change arm",
                describe(last),
                describe(before)
            );
            self.changing_keys.push((split.to_owned(), message));
        }
    }

    /// Most files have one scheme for all of their splits, and the same sentence for each would
    /// drown the other warnings: so the first is told, and the others are named.
    pub(super) fn tell_of_changing_keys(&mut self) {
        let mut changing = std::mem::take(&mut self.changing_keys).into_iter();
        let Some((first, mut message)) = changing.next() else {
            return;
        };
        let others: Vec<String> = changing
            .map(|(split, _)| split.trim_start_matches("splits.").to_owned())
            .collect();
        if !others.is_empty() {
            message.push_str(&format!("; much the same holds for {}", others.join(", ")));
        }
        let remedy = "fine if it is rare; else use one source that never changes";
        self.warning(&format!("{first}.key"), message, remedy);
    }

    fn pins(&mut self, split: &str, pins: raw::Pins) -> BTreeMap<String, Arm> {
        let mut arms: BTreeMap<String, Arm> = pins
            .keys
            .into_iter()
            .map(|(key, arm)| (key, arm.into()))
            .collect();
        let path = format!("{split}.pins.file");
        let Some(file) = pins.file else {
            return arms;
        };
        let Some(bytes) = self.read_file(&path, &file) else {
            return arms;
        };
        let Ok(text) = String::from_utf8(bytes) else {
            let message = format!("{file}: is not UTF-8 text");
            self.problem(&path, message, "save the file as UTF-8");
            return arms;
        };
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let place = format!("{file}:{}", index + 1);
            let pin = line
                .rsplit_once(char::is_whitespace)
                .and_then(|(key, arm)| Some((key.trim_end(), arm.parse::<Arm>().ok()?)));
            let Some((key, arm)) = pin else {
                let message = format!("{place}: this is no key with an arm");
                self.problem(
                    &path,
                    message,
                    "write `KEY legacy` or `KEY new` on each line",
                );
                continue;
            };
            if arms.insert(key.to_owned(), arm).is_some() {
                let message = format!("{place}: this key is pinned already");
                let remedy = "pin each key once, here or under `pins.keys`";
                self.problem(&path, message, remedy);
            }
        }
        arms
    }

    /// The pins by the keys that requests have. Where an address is only one of several sources, a
    /// pin holds for what was typed as well.
    fn pinned_addresses(
        &mut self,
        split: &str,
        pins: BTreeMap<String, Arm>,
        addresses: Addresses,
    ) -> BTreeMap<String, Arm> {
        let path = format!("{split}.pins");
        let mut arms = BTreeMap::new();
        let mut is_warned = false;
        for (typed, arm) in &pins {
            let key = TypedKey::new(typed, addresses);
            let text = key.text();
            if key.is_ambiguous() {
                arms.insert(typed.clone(), *arm);
            }
            // A split may pin thousands, and one line is enough to look at them all.
            if key.is_one_of_many() && !is_warned {
                is_warned = true;
                let message =
                    format!("`{typed}` is known by its /64, so this pins everybody in `{text}/64`");
                let remedy = format!("write `{text}` if that is meant; else use a pin token");
                self.warning(&path, message, remedy);
            }
            let other = arms.insert(text.to_owned(), *arm);
            if let Some(other) = other.filter(|other| other != arm) {
                let message = format!(
                    "`{typed}` is pinned to {arm}, but its session key `{text}` to {other}"
                );
                self.problem(&path, message, format!("pin `{text}` once"));
            }
        }
        arms
    }

    /// Whether `key` within `path` was reported when the shape was checked.
    pub(super) fn is_damaged(&self, path: &str, key: &str) -> bool {
        self.damaged.contains(&format!("{path}.{key}"))
    }
}

fn keyless(keyless: raw::Keyless) -> Keyless {
    match keyless {
        raw::Keyless::ClientIp => Keyless::ClientIp,
        raw::Keyless::Legacy => Keyless::Legacy,
        raw::Keyless::IssueCookie(cookie) => Keyless::IssueCookie(IssuedCookie {
            name: cookie.name.0.0,
            path: cookie.path.0.0,
            domain: cookie.domain.map(|Written(domain)| domain.0),
            max_age: cookie.max_age.0.0,
            same_site: match cookie.same_site {
                raw::SameSite::Lax => "Lax",
                raw::SameSite::Strict => "Strict",
                raw::SameSite::None => "None",
            }
            .to_owned(),
        }),
    }
}

fn fallback(fallback: raw::Fallback) -> FallbackSettings {
    FallbackSettings {
        enabled: fallback.enabled,
        statuses: fallback.statuses.sound().collect(),
        body_limit: fallback.body_limit.0.0,
        budget: fallback.budget.0,
        budget_floor: fallback.budget_floor,
        breaker: match fallback.breaker {
            raw::BreakerOrFalse::On(breaker) => Some(BreakerSettings {
                consecutive_failures: breaker.consecutive_failures,
                open_for: breaker.open_for.0.0,
            }),
            raw::BreakerOrFalse::Off(raw::False) => None,
        },
    }
}

fn describe(source: &KeySource) -> String {
    match source {
        KeySource::Cookie(name) => format!("the cookie `{name}`"),
        KeySource::Header(name) => format!("the header `{name}`"),
        KeySource::Query(name) => format!("the parameter `{name}`"),
        KeySource::Jwt(jwt) => format!("the claim `{}`", jwt.claim),
        KeySource::ClientIp => "the client's address".to_owned(),
    }
}
