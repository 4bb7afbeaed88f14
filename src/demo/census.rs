//! Which arm answered which session, and whether it was allowed to.
//!
//! The first answer shows where a session is at home. From then on it has **changed arm** when an
//! answer comes from anywhere else, with two exceptions. A session of `new` is answered by legacy
//!
//! - where the answer names a rescue (`Cutover-Fallback`): `new` was its arm and failed;
//! - in [`Era::Away`], from the death of the new API until the operator's resume has returned,
//!   because then the share may be 0.
//!
//! Nothing excuses the opposite: a session of legacy that sees `new` has changed arm, whatever
//! happens to the new API.

use std::time::Instant;

use crate::policy::arm::Arm;

/// What the demonstration is doing to the sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Era {
    /// The share is fixed.
    Steady,
    /// The new API may be dead and the share 0.
    Away,
    /// Whoever watches may change the share, so that any move may have been ordered.
    Free,
}

/// An answer as a session saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// `Cutover-Arm`: who answered.
    pub(super) arm: Arm,
    /// Whether `Cutover-Fallback` says that legacy stood in.
    pub(super) rescued: bool,
}

/// Every session and what became of its requests.
pub(super) struct Census {
    era: Era,
    sessions: Vec<Session>,
    figures: Figures,
}

#[derive(Clone, Copy, Default)]
struct Session {
    home: Option<Arm>,
    last: Option<Arm>,
    answers: u32,
}

/// What was counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    /// GETs that ended, one way or the other.
    pub(super) gets: u64,
    /// Those without a 200 that names its arm.
    pub(super) failed: u64,
    /// What happened to the first of them.
    pub(super) first_failed: Option<String>,
    /// Answers by which a session changed arm.
    pub(super) strays: u64,
    /// The first of them.
    pub(super) first_stray: Option<String>,
    /// When the first rescued answer came.
    pub(super) first_rescue: Option<Instant>,
    /// Rescued answers.
    pub(super) rescued: u64,
    /// Answers of `new`.
    pub(super) by_new: u64,
    /// Answers that sessions of `new` got from legacy as a matter of course, not by a rescue.
    pub(super) sent_to_legacy: u64,
    /// All sessions.
    pub(super) sessions: usize,
    /// Sessions that were answered at all.
    pub(super) seen: usize,
    /// Sessions that were answered at least twice, so that they could have changed arm.
    pub(super) seen_twice: usize,
    /// Sessions at home on `new`.
    pub(super) home_new: usize,
    /// Sessions whose latest answer came from `new`.
    pub(super) on_new: usize,
}

impl Census {
    /// Nobody has been answered yet.
    pub(super) fn of(sessions: usize) -> Self {
        Self {
            era: Era::Steady,
            sessions: vec![Session::default(); sessions],
            figures: Figures::default(),
        }
    }

    /// What is done to the sessions now; to be kept by a request until its answer.
    pub(super) const fn era(&self) -> Era {
        self.era
    }

    /// What is done to the sessions from now on.
    pub(super) const fn enter(&mut self, era: Era) {
        self.era = era;
    }

    /// A request of `session`, sent in the era `sent`, was answered.
    pub(super) fn answered(&mut self, session: usize, sent: Era, seen: Seen, now: Instant) {
        let era = self.lenient(sent);
        let figures = &mut self.figures;
        figures.gets += 1;
        if seen.rescued {
            figures.rescued += 1;
            figures.first_rescue.get_or_insert(now);
        }
        if seen.arm == Arm::New {
            figures.by_new += 1;
        }
        let session_number = session;
        let session = &mut self.sessions[session];
        session.answers += 1;
        session.last = Some(seen.arm);
        match session.home {
            None => session.home = home_shown_by(seen, era),
            Some(home) => {
                if home == Arm::New && seen.arm == Arm::Legacy && !seen.rescued {
                    figures.sent_to_legacy += 1;
                }
                if has_changed_arm(home, seen, era) {
                    figures.strays += 1;
                    figures.first_stray.get_or_insert_with(|| {
                        let rescued = if seen.rescued { " by a rescue" } else { "" };
                        format!(
                            "session {session_number} of {home} got {}{rescued}",
                            seen.arm
                        )
                    });
                }
            }
        }
    }

    /// A request was not answered as it should have been.
    pub(super) fn failed(&mut self, how: String) {
        self.figures.gets += 1;
        self.figures.failed += 1;
        self.figures.first_failed.get_or_insert(how);
    }

    /// What was counted so far.
    pub(super) fn figures(&self) -> Figures {
        let count = |of: fn(&Session) -> bool| self.sessions.iter().filter(|s| of(s)).count();
        Figures {
            sessions: self.sessions.len(),
            seen: count(|session| session.answers > 0),
            seen_twice: count(|session| session.answers > 1),
            home_new: count(|session| session.home == Some(Arm::New)),
            on_new: count(|session| session.last == Some(Arm::New)),
            ..self.figures.clone()
        }
    }

    /// A request that was under way while the era changed is judged by the more lenient one.
    fn lenient(&self, sent: Era) -> Era {
        match (sent, self.era) {
            (Era::Free, _) | (_, Era::Free) => Era::Free,
            (Era::Away, _) | (_, Era::Away) => Era::Away,
            (Era::Steady, Era::Steady) => Era::Steady,
        }
    }
}

/// The home that a first answer shows, if it shows one.
fn home_shown_by(seen: Seen, era: Era) -> Option<Arm> {
    match (seen.arm, seen.rescued, era) {
        (Arm::New, _, _) | (Arm::Legacy, true, _) => Some(Arm::New),
        (Arm::Legacy, false, Era::Steady) => Some(Arm::Legacy),
        (Arm::Legacy, false, Era::Away | Era::Free) => None,
    }
}

fn has_changed_arm(home: Arm, seen: Seen, era: Era) -> bool {
    match (home, seen.arm) {
        _ if era == Era::Free => false,
        (Arm::Legacy, Arm::New) => true,
        // Legacy stands in for sessions of `new` only.
        (Arm::Legacy, Arm::Legacy) => seen.rescued,
        (Arm::New, Arm::New) => false,
        (Arm::New, Arm::Legacy) => !seen.rescued && era != Era::Away,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEGACY: Seen = Seen {
        arm: Arm::Legacy,
        rescued: false,
    };
    const NEW: Seen = Seen {
        arm: Arm::New,
        rescued: false,
    };
    const RESCUED: Seen = Seen {
        arm: Arm::Legacy,
        rescued: true,
    };

    /// How many answers strayed in a session that saw these, one after the other.
    fn strays(answers: &[(Era, Seen)]) -> u64 {
        let mut census = Census::of(1);
        for (era, seen) in answers {
            census.enter(*era);
            census.answered(0, *era, *seen, Instant::now());
        }
        census.figures().strays
    }

    #[test]
    fn a_session_that_sees_the_other_arm_has_changed() {
        let steady = |seen| (Era::Steady, seen);
        assert_eq!(strays(&[steady(LEGACY), steady(LEGACY)]), 0);
        assert_eq!(strays(&[steady(LEGACY), steady(NEW)]), 1);
        assert_eq!(strays(&[steady(NEW), steady(LEGACY), steady(NEW)]), 1);
    }

    #[test]
    fn a_rescue_is_no_change_for_a_session_of_new_and_impossible_for_one_of_legacy() {
        let steady = |seen| (Era::Steady, seen);
        assert_eq!(strays(&[steady(NEW), steady(RESCUED), steady(NEW)]), 0);
        assert_eq!(strays(&[steady(RESCUED), steady(NEW)]), 0);
        assert_eq!(strays(&[steady(RESCUED), steady(LEGACY)]), 1);
        assert_eq!(strays(&[steady(LEGACY), steady(RESCUED)]), 1);
    }

    #[test]
    fn while_the_new_api_is_away_its_sessions_may_move_and_no_others() {
        let answers = [(Era::Steady, NEW), (Era::Away, LEGACY), (Era::Steady, NEW)];
        assert_eq!(strays(&answers), 0);
        assert_eq!(strays(&[(Era::Steady, LEGACY), (Era::Away, NEW)]), 1);
        assert_eq!(
            strays(&[(Era::Away, LEGACY), (Era::Steady, NEW)]),
            0,
            "an answer while away shows no home"
        );
    }

    #[test]
    fn an_answer_that_crosses_into_another_era_is_judged_leniently() {
        let mut census = Census::of(1);
        census.answered(0, Era::Steady, NEW, Instant::now());
        census.answered(0, Era::Away, LEGACY, Instant::now());
        census.enter(Era::Away);
        census.answered(0, Era::Steady, LEGACY, Instant::now());
        census.enter(Era::Steady);
        assert_eq!(census.figures().strays, 0);
        census.answered(0, Era::Steady, LEGACY, Instant::now());
        assert_eq!(census.figures().strays, 1);
    }

    #[test]
    fn sessions_are_counted_once_however_often_they_come() {
        let mut census = Census::of(3);
        for (session, seen) in [(0, NEW), (0, NEW), (1, LEGACY)] {
            census.answered(session, Era::Steady, seen, Instant::now());
        }
        census.failed("no answer".into());
        let figures = census.figures();
        let sessions = (figures.sessions, figures.seen, figures.seen_twice);
        assert_eq!(sessions, (3, 2, 1));
        assert_eq!((figures.home_new, figures.on_new), (1, 1));
        assert_eq!((figures.gets, figures.failed), (4, 1));
    }
}
