//! Which arm answered which session, and whether it was allowed to.
//!
//! The first answer shows where a session is at home. From then on it has **changed arm** when an
//! answer comes from anywhere else, with two exceptions. A session of `new` is answered by legacy
//!
//! - where the answer names a rescue (`Cutover-Fallback`): `new` was its arm and failed;
//! - in [`Era::Away`], from the harm done to the new API until the operator's resume has returned,
//!   because then the share may be 0.
//!
//! In the opposite direction there is one: while the share rises ([`Era::Rising`]) sessions move to
//! `new`, each once and for good. Otherwise a session of legacy that sees `new` has changed arm,
//! whatever happens to the new API.

use std::time::Instant;

use crate::policy::arm::Arm;

/// What the demonstration is doing to the sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Era {
    /// The share is fixed.
    Steady,
    /// The share may rise, and does not fall.
    Rising,
    /// The new API may be harmed and the share 0.
    Away,
    /// Somebody may change the share, so that any move may have been ordered.
    Free,
}

/// A request that was sent, to be kept until its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    era: Era,
    /// Counts the eras.
    number: u64,
}

/// An answer as a session saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// `Cutover-Arm`: who answered.
    pub(super) arm: Arm,
    /// Whether `Cutover-Fallback` says that legacy stood in.
    pub(super) rescued: bool,
}

/// Why there was no proper answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Legacy answered with an error.
    OfLegacy,
    /// Anything else, in words.
    Of(String),
}

/// Every session and what became of its requests.
pub(super) struct Census {
    present: Sent,
    sessions: Vec<Session>,
    figures: Figures,
    /// Requests of the present era without an answer so far.
    under_way: usize,
}

#[derive(Clone, Copy, Default)]
struct Session {
    home: Option<Arm>,
    last: Option<Arm>,
}

/// What was counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    /// GETs that ended, one way or the other.
    pub(super) gets: u64,
    /// Those without a 200 that names its arm, legacy's own errors left out.
    pub(super) failed: u64,
    /// What happened to the first of them.
    pub(super) first_failed: Option<String>,
    /// Errors that legacy itself answered with: nobody stands in for it.
    pub(super) errors_of_legacy: u64,
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
    /// Sessions at home on `new`.
    pub(super) home_new: usize,
    /// Sessions whose latest answer came from `new`.
    pub(super) on_new: usize,
    /// Requests of earlier eras without an answer so far.
    pub(super) crossing: usize,
}

impl Census {
    /// Nobody has been answered yet.
    pub(super) fn of(sessions: usize) -> Self {
        Self {
            present: Sent {
                era: Era::Rising,
                number: 0,
            },
            sessions: vec![Session::default(); sessions],
            figures: Figures::default(),
            under_way: 0,
        }
    }

    /// What is done to the sessions from now on.
    pub(super) const fn enter(&mut self, era: Era) {
        self.present = Sent {
            era,
            number: self.present.number + 1,
        };
        self.figures.crossing += self.under_way;
        self.under_way = 0;
    }

    /// Forgets where the sessions are at home: another rollout has begun.
    pub(super) fn forget_homes(&mut self) {
        self.sessions.fill(Session::default());
    }

    /// A request is sent.
    pub(super) const fn asked(&mut self) -> Sent {
        self.under_way += 1;
        self.present
    }

    /// A request of `session` was answered.
    pub(super) fn answered(&mut self, session: usize, sent: Sent, seen: Seen, now: Instant) {
        self.ended(sent);
        let era = self.lenient(sent.era);
        let figures = &mut self.figures;
        if seen.rescued {
            figures.rescued += 1;
            figures.first_rescue.get_or_insert(now);
        }
        if seen.arm == Arm::New {
            figures.by_new += 1;
        }
        let session_number = session;
        let session = &mut self.sessions[session];
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
                if era == Era::Rising && (seen.arm == Arm::New || seen.rescued) {
                    session.home = Some(Arm::New);
                }
            }
        }
    }

    /// A request was not answered as it should have been.
    pub(super) fn failed(&mut self, sent: Sent, failure: Failure) {
        self.ended(sent);
        match failure {
            Failure::OfLegacy => self.figures.errors_of_legacy += 1,
            Failure::Of(how) => {
                self.figures.failed += 1;
                self.figures.first_failed.get_or_insert(how);
            }
        }
    }

    /// What was counted so far.
    pub(super) fn figures(&self) -> Figures {
        let count = |of: fn(&Session) -> bool| self.sessions.iter().filter(|s| of(s)).count();
        Figures {
            sessions: self.sessions.len(),
            seen: count(|session| session.last.is_some()),
            home_new: count(|session| session.home == Some(Arm::New)),
            on_new: count(|session| session.last == Some(Arm::New)),
            ..self.figures.clone()
        }
    }

    fn ended(&mut self, sent: Sent) {
        self.figures.gets += 1;
        let waiting = if sent.number == self.present.number {
            &mut self.under_way
        } else {
            &mut self.figures.crossing
        };
        *waiting = waiting.saturating_sub(1);
    }

    /// A request that was under way while the era changed is judged by the more lenient one.
    fn lenient(&self, sent: Era) -> Era {
        match (sent, self.present.era) {
            (Era::Free, _) | (_, Era::Free) => Era::Free,
            (Era::Away, _) | (_, Era::Away) => Era::Away,
            (Era::Rising, _) | (_, Era::Rising) => Era::Rising,
            (Era::Steady, Era::Steady) => Era::Steady,
        }
    }
}

/// The home that a first answer shows, if it shows one.
fn home_shown_by(seen: Seen, era: Era) -> Option<Arm> {
    match (era, seen.arm, seen.rescued) {
        (Era::Free, _, _) | (Era::Away, Arm::Legacy, false) => None,
        (_, Arm::New, _) | (_, Arm::Legacy, true) => Some(Arm::New),
        (Era::Steady | Era::Rising, Arm::Legacy, false) => Some(Arm::Legacy),
    }
}

fn has_changed_arm(home: Arm, seen: Seen, era: Era) -> bool {
    match (home, seen.arm) {
        _ if era == Era::Free => false,
        (Arm::Legacy, Arm::New) => era != Era::Rising,
        // Legacy stands in for sessions of `new` only.
        (Arm::Legacy, Arm::Legacy) => seen.rescued && era != Era::Rising,
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
            let sent = census.asked();
            census.answered(0, sent, *seen, Instant::now());
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
    fn while_the_share_rises_sessions_move_to_new_and_never_back() {
        let rising = |seen| (Era::Rising, seen);
        assert_eq!(strays(&[rising(LEGACY), rising(NEW), rising(NEW)]), 0);
        assert_eq!(strays(&[rising(LEGACY), rising(RESCUED), rising(NEW)]), 0);
        assert_eq!(strays(&[rising(LEGACY), rising(NEW), rising(LEGACY)]), 1);
        assert_eq!(strays(&[rising(NEW), (Era::Steady, LEGACY)]), 1);
    }

    #[test]
    fn an_answer_that_crosses_into_another_era_is_judged_leniently() {
        let mut census = Census::of(1);
        let mut answer = |sent_in: Era, answered_in: Era, seen| {
            census.enter(sent_in);
            let sent = census.asked();
            if answered_in != sent_in {
                census.enter(answered_in);
                assert_eq!(census.figures().crossing, 1);
            }
            census.answered(0, sent, seen, Instant::now());
            assert_eq!(census.figures().crossing, 0);
            census.figures().strays
        };
        assert_eq!(answer(Era::Steady, Era::Steady, NEW), 0);
        assert_eq!(answer(Era::Steady, Era::Away, LEGACY), 0);
        assert_eq!(answer(Era::Away, Era::Steady, LEGACY), 0);
        assert_eq!(answer(Era::Steady, Era::Steady, LEGACY), 1);
    }

    #[test]
    fn another_rollout_begins_without_homes() {
        let mut census = Census::of(1);
        let mut answer = |era, seen| {
            census.enter(era);
            let sent = census.asked();
            census.answered(0, sent, seen, Instant::now());
            census.forget_homes();
            census.figures().strays
        };
        assert_eq!(answer(Era::Rising, NEW), 0);
        assert_eq!(answer(Era::Steady, LEGACY), 0);
        assert_eq!(answer(Era::Steady, NEW), 0);
    }

    #[test]
    fn sessions_are_counted_once_however_often_they_come() {
        let mut census = Census::of(3);
        for (session, seen) in [(0, NEW), (0, NEW), (1, LEGACY)] {
            let sent = census.asked();
            census.answered(session, sent, seen, Instant::now());
        }
        for failure in [Failure::Of("no answer".into()), Failure::OfLegacy] {
            let sent = census.asked();
            census.failed(sent, failure);
        }
        let figures = census.figures();
        assert_eq!((figures.sessions, figures.seen), (3, 2));
        assert_eq!((figures.home_new, figures.on_new), (1, 1));
        assert_eq!((figures.gets, figures.failed), (5, 1));
        assert_eq!(figures.errors_of_legacy, 1);
    }
}
