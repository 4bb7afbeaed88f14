//! Session keys whose arm is known beforehand.

use cutover::policy::arm::Arm;
use cutover::policy::key::Salt;
use cutover::policy::share::Share;

/// All keys there are, divided by one salt and one share.
pub(crate) struct Population {
    salt: Salt,
    share: Share,
}

impl Population {
    /// Divided by the salt `salt` at `share`.
    pub(crate) fn new(salt: &str, share: &str) -> Self {
        Self {
            salt: Salt::new(salt),
            share: share.parse().expect("tests write valid shares"),
        }
    }

    /// The arm of a key.
    pub(crate) fn arm(&self, key: &str) -> Arm {
        if self.share.contains(self.salt.hash(key.as_bytes()).bucket()) {
            Arm::New
        } else {
            Arm::Legacy
        }
    }
}

/// Session keys that belong to `arm` at `share` under `salt`, without end and without repetition.
pub(crate) fn keys(salt: &str, share: &str, arm: Arm) -> impl Iterator<Item = String> {
    let population = Population::new(salt, share);
    let all = (0_u64..).map(|number| format!("user-{number}"));
    all.filter(move |key| population.arm(key) == arm)
}
