//! What can be wrong with a new API, and what must be found.
//!
//! Everything about a harm is said here and nowhere else: how it is told, what the APIs do, and on
//! which grounds a rollback is right. A rollback on other grounds is a broken claim, since a
//! sentence that names the wrong reason sends its reader to the wrong place.

use super::apis::Conduct;

/// One way of being harmful.
#[derive(Debug)]
pub(super) struct Harm {
    /// The id of the rollout that it befalls.
    pub(super) rollout: &'static str,
    /// What happens, as the title of an act.
    pub(super) title: &'static str,
    /// The same as the beginning of a claim.
    pub(super) what: &'static str,
    /// What the new API does.
    pub(super) deed: Deed,
    /// What legacy does all the time.
    pub(super) legacy: Conduct,
    /// ANY of these must be named as the reason.
    pub(super) grounds: &'static [Ground],
}

/// What the new API does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// It dies.
    Die,
    /// It answers, in its way.
    Behave(Conduct),
}

/// Why a rollout is rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ground {
    /// A criterion, as the file writes it.
    Criterion(&'static str),
    /// Requests in a row that all failed.
    Streak,
}

const ERRORS: Ground = Ground::Criterion("error_rate > 5%");
const MORE_ERRORS: Ground = Ground::Criterion("error_rate worse than legacy by 25%");
const SLOW: Ground = Ground::Criterion("p95 > 500ms");
const SLOWER: Ground = Ground::Criterion("p95 worse than legacy by 10%");

/// The harm that everybody thinks of first. It befalls the rollout that went through the plan.
pub(super) const DEATH: Harm = Harm {
    rollout: "first",
    title: "The new API dies: its port is closed, its connections are reset",
    what: "dead",
    deed: Deed::Die,
    legacy: Conduct::Sound,
    grounds: &[Ground::Streak, ERRORS, MORE_ERRORS],
};

/// The others, from loud to quiet.
pub(super) const OTHERS: [Harm; 5] = [
    Harm {
        rollout: "half-errors",
        title: "Every second answer of the new API is a 500",
        what: "50% errors",
        deed: Deed::Behave(Conduct::Failing(5_000)),
        legacy: Conduct::Sound,
        grounds: &[Ground::Streak, ERRORS, MORE_ERRORS],
    },
    Harm {
        rollout: "hung",
        title: "The new API takes requests and never answers",
        what: "hung",
        deed: Deed::Behave(Conduct::Hanging),
        legacy: Conduct::Sound,
        grounds: &[SLOW],
    },
    Harm {
        rollout: "slow",
        title: "The slowest tenth of the new API takes twice as long as legacy's; its median is as ever",
        what: "p95 doubled",
        deed: Deed::Behave(Conduct::Straggling),
        legacy: Conduct::Sound,
        grounds: &[SLOWER],
    },
    Harm {
        rollout: "few-errors",
        title: "2% of the new API's answers are a 500, and 0.1% of legacy's always were",
        what: "2% errors, 0.1% on legacy",
        deed: Deed::Behave(Conduct::Failing(200)),
        legacy: Conduct::Failing(10),
        grounds: &[MORE_ERRORS],
    },
    Harm {
        rollout: "degrading",
        title: "With each second, another half percent of the new API's answers is a 500",
        what: "slowly degrading",
        deed: Deed::Behave(Conduct::Degrading(50)),
        legacy: Conduct::Sound,
        grounds: &[MORE_ERRORS, ERRORS],
    },
];

impl Harm {
    /// Whether `reason` is one of its grounds.
    pub(super) fn explains(&self, reason: &str) -> bool {
        self.grounds.iter().any(|ground| match ground {
            Ground::Criterion(criterion) => reason == *criterion,
            Ground::Streak => reason.ends_with("failures in a row"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_harm_is_explained_by_its_own_grounds_alone() {
        assert!(DEATH.explains("18 failures in a row"));
        assert!(DEATH.explains("error_rate > 5%"));
        assert!(!DEATH.explains("client_error_rate worse than legacy by 25%"));
        assert!(!DEATH.explains("p95 > 500ms"));
    }

    #[test]
    fn every_harm_is_a_rollout_of_its_own() {
        let mut ids: Vec<&str> = OTHERS.iter().map(|harm| harm.rollout).collect();
        ids.push(DEATH.rollout);
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), OTHERS.len() + 1);
    }
}
