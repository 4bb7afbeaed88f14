//! Plans and a naive twin under the same random events.
//!
//! A state machine that raises shares by itself is wrong in the combinations that nobody thinks of:
//! an edit after completion, harm in the middle of a ramp, a disk that is done after an emergency.
//! So both go through random lives, and agree after every step on all that can be asked: share,
//! phase, position, what the next step waits for, what is refused. The twin takes the judge's word
//! for whether a window passes, breaches or is to be held, and for nothing else.

use super::*;

mod steps;
mod twin;

use proptest::prelude::*;

use self::steps::{Edit, Sketch, Step, any_sketch, any_step};
use self::twin::Twin;
use crate::policy::judge::Lack;

/// Watched time in eighths of a second, whose sums are exact.
type Ticks = u32;
const SECOND: Ticks = 8;

fn span(ticks: Ticks) -> Duration {
    Duration::from_millis(125) * ticks
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn plan_and_twin_agree_on_everything_but_the_judgement(
        file in any_sketch(),
        steps in proptest::collection::vec(any_step(), 1..80),
    ) {
        live(file, &steps);
    }
}

/// Both go through the same life.
fn live(file: Sketch, steps: &[Step]) {
    let mut pair = Pairing {
        rollout: Rollout::new("shop", file.terms(), at(0)),
        twin: Twin::new(file),
        now: at(0),
    };
    pair.agree();
    for step in steps {
        pair.take(step);
        pair.agree();
    }
}

/// The rollout and its twin.
struct Pairing {
    rollout: Rollout,
    twin: Twin,
    now: Timestamp,
}

impl Pairing {
    fn take(&mut self, step: &Step) {
        let by = alice();
        let (twin, now) = (&self.twin, self.now);
        let mut after = twin.clone();
        let (may, event) = match step {
            Step::Watch {
                weather,
                length,
                windows,
                disk_is_fast,
            } => {
                for _ in 0..*windows {
                    self.watch(&weather.window(*length), *length, *weather);
                    self.agree();
                    if *disk_is_fast && self.rollout.wish(self.now).is_some() {
                        self.advance();
                        self.agree();
                    }
                }
                return;
            }
            Step::Restart(edit) => return self.restart(edit.as_ref()),
            Step::Advance => return self.advance(),
            Step::Clock(hour) => {
                // The next such hour, or the last: a clock may be set either way.
                self.now = at(i64::from(*hour) * 3_600_000);
                return;
            }
            Step::Set(share, override_file) => {
                let (share, override_file) = (*share, *override_file);
                let event = Event::Set {
                    share,
                    override_file,
                    by,
                };
                (after.set(share, override_file), event)
            }
            Step::Stage(number) => {
                let number = *number;
                (after.go_to(number), Event::Stage { number, by })
            }
            Step::Promote => (after.promote(), Event::Promote { by }),
            Step::Pause => (after.pause(), Event::Pause { by }),
            Step::Approve => (after.approve(), Event::Approve { by }),
            Step::Rollback(to) => {
                after.rolled_back_by(*to);
                (true, Event::Rollback { to: *to, by })
            }
            Step::Resume => {
                let is_suspected = self.rollout.is_suspected();
                (
                    after.resume(is_suspected),
                    Event::Resume { stage: None, by },
                )
            }
            Step::Emergency(active) => {
                after.emergency = *active;
                (true, emergency(*active))
            }
            Step::Edit(edit) => {
                after.configure(edit);
                (true, Event::Configured(Box::new(after.file.terms())))
            }
        };
        after.note_change(twin.standing());
        let record = self.rollout.record();
        let terms = self.rollout.terms().clone();
        match self.rollout.handle(event, now) {
            Err(refusal) => {
                assert!(!may, "{refusal}");
                assert_eq!(self.rollout.record(), record, "a refusal changes nothing");
            }
            Ok(effects) => {
                assert!(may, "not refused");
                self.follow(after, record.state.revision, &effects);
                let told = matches!(effects.last(), Some(Effect::Announce(_)));
                if let Step::Edit(_) = step {
                    let is_edited = *self.rollout.terms() != terms;
                    assert_eq!(told, is_edited, "whatever an edit changes is told");
                } else {
                    assert!(told, "a command is always announced");
                }
            }
        }
    }

    fn watch(&mut self, window: &Window, length: Ticks, weather: steps::Weather) {
        self.now = self.now.plus(span(length));
        let mut after = self.twin.clone();
        let is_judged = after.pass(length, weather);
        let before_decision = after.standing();
        let word = is_judged.then(|| {
            let mut judge = self.rollout.judge().clone();
            let verdict = judge.observe(window, self.now);
            (verdict, judge.lacking().collect())
        });
        after.decide(word, self.now);
        after.note_change(before_decision);
        let revision = self.rollout.revision();
        let before = self.rollout.standing();
        let event = Event::Observed(Box::new(window.clone()));
        let effects = self.rollout.handle(event, self.now).expect("not refused");
        let standing = self.rollout.standing();
        assert!(!standing.exceeds(before), "a window never raises a share");
        self.follow(after, revision, &effects);
    }

    /// The step that is wished for, or was at some time.
    fn advance(&mut self) {
        let mut after = self.twin.clone();
        let lacks = self.lacks();
        let may = after.advance(&lacks, self.now);
        after.note_change(self.twin.standing());
        assert_eq!(self.rollout.wish(self.now).is_some(), may);
        let record = self.rollout.record();
        match self.rollout.handle(Event::Advance(None), self.now) {
            Err(refusal) => {
                assert!(!may, "{refusal}");
                assert_eq!(self.rollout.record(), record, "a refusal changes nothing");
            }
            Ok(effects) => {
                assert!(may, "not refused");
                self.could_advance();
                let kinds: Vec<_> = effects.iter().map(std::mem::discriminant).collect();
                assert_eq!(kinds.len(), 3, "kept, in force, told: {effects:?}");
                self.follow(after, record.state.revision, &effects);
            }
        }
    }

    /// What must hold whenever the engine raises a share, said once more without the twin's list.
    fn could_advance(&self) {
        let Twin { file, time, .. } = &self.twin;
        let twin = &self.twin;
        assert!(
            !twin.emergency && twin.latch.is_none(),
            "nothing stands against it"
        );
        assert!(
            !twin.is_paused && twin.operator.is_none(),
            "nobody stands against it"
        );
        assert!(!twin.is_completed && !file.rules.advise);
        assert!(twin.is_approved || !twin.needs_approval(), "approved");
        assert!(!twin.is_closed(self.now), "the calendar is open");
        assert!(!twin.is_cooling_down());
        assert!(twin.changes_of_a_day() < file.rules.max_changes);
        let Some(stage) = twin.stage() else {
            return;
        };
        if stage.share == Share::ZERO {
            assert!(
                time.available >= stage.observe,
                "in good health for long enough"
            );
        } else if twin.goes_on_unproven() {
            assert_ne!(time.requests, 0, "not without any request");
        } else {
            assert!(time.judged >= stage.observe, "observed for long enough");
            assert!(
                time.requests >= stage.min_requests.max(1),
                "enough requests"
            );
        }
    }

    /// The twin goes on to `after`, and the effects carry that out in the order that is safe.
    fn follow(&mut self, after: Twin, revision: u64, effects: &[Effect]) {
        let (before, standing) = (self.twin.standing(), after.standing());
        let announced = effects.iter().filter_map(|effect| match effect {
            Effect::Announce(decision) => Some(&*decision.action),
            Effect::Publish(_) | Effect::Persist => None,
        });
        let announced: Vec<&str> = announced.collect();
        assert_eq!(
            self.rollout.revision(),
            revision + announced.len() as u64,
            "each decision is told"
        );
        let is_known = |action: &&str| Decision::ACTIONS.contains(action);
        assert!(announced.iter().all(is_known), "{announced:?}");
        match effects {
            _ if standing == before => {
                let publishes = |effect: &Effect| matches!(effect, Effect::Publish(_));
                assert!(!effects.iter().any(publishes), "{effects:?}");
            }
            [Effect::Persist, Effect::Publish(published), ..] => {
                assert!(standing.exceeds(before), "harm waits for no disk");
                assert_eq!(*published, standing);
            }
            [Effect::Publish(published), Effect::Persist, ..] => {
                assert!(!standing.exceeds(before), "kept before it is in force");
                assert_eq!(*published, standing);
            }
            _ => panic!("{before:?} became {standing:?} by {effects:?}"),
        }
        let is_kept = effects.contains(&Effect::Persist);
        let same = Twin {
            file: after.file.clone(),
            time: after.time.clone(),
            look: after.look,
            // A step of a ramp that nobody notices may be taken once more after a crash.
            latch: self.twin.latch.and(after.latch),
            ..self.twin.clone()
        };
        assert!(is_kept || same == after, "what changed is kept");
        self.twin = after;
    }

    fn restart(&mut self, edit: Option<&Edit>) {
        let stored = serde_json::to_string(&self.rollout.record()).expect("serialisable");
        let record: Record = serde_json::from_str(&stored).expect("readable");
        assert_eq!(record, self.rollout.record());
        let mut after = self.twin.clone();
        after.look = None;
        if let Some(edit) = edit {
            after.configure(edit);
            after.note_change(self.twin.standing());
        }
        let revision = self.rollout.revision();
        let terms = after.file.terms();
        let is_same = terms == *self.rollout.terms();
        let (restored, effects) = Rollout::restore("shop", record, terms, self.now);
        if is_same {
            assert_eq!(effects, [], "a restart changes nothing");
            assert_eq!(restored.record(), self.rollout.record());
            assert_eq!(restored.conditions(), self.rollout.conditions());
            assert_eq!(restored.needs(), self.rollout.needs());
        }
        self.rollout = restored;
        self.follow(after, revision, &effects);
    }

    fn lacks(&self) -> Vec<Lack> {
        self.rollout.judge().lacking().collect()
    }

    /// Both say the same of everything that can be asked.
    fn agree(&self) {
        let Pairing { rollout, twin, now } = self;
        assert_eq!(rollout.standing(), twin.standing());
        assert_eq!(rollout.phase(), twin.phase());
        assert_eq!(rollout.position(), twin.position);
        assert_eq!(rollout.override_share(), twin.operator);
        assert_eq!(rollout.approved_by().is_some(), twin.is_approved);
        assert_eq!(rollout.needs_approval(), twin.needs_approval());

        let waits: Vec<String> = rollout.waits(*now).iter().map(kind).collect();
        let lacks = self.lacks();
        assert_eq!(waits, twin.waits(&lacks, *now));
        let may = twin.may_advance(&lacks, *now);
        assert_eq!(rollout.wish(*now).is_some(), may);

        let seconds = |ticks| span(ticks).as_secs_f64();
        let time = &twin.time;
        assert_eq!(rollout.stage_seconds(), seconds(time.stage));
        let since_change = time.changes.last().map(|at| time.watched - at);
        let since_change = since_change.filter(|ticks| *ticks < 86_400 * SECOND);
        let since_change = since_change.map(seconds);
        assert_eq!(rollout.seconds_since_change(), since_change);
        let (healthy, requests) = rollout.progress();
        if twin.intended() == Share::ZERO {
            assert_eq!((healthy, requests), (seconds(time.available), 0));
        } else {
            assert!(healthy <= seconds(time.judged), "only watched time counts");
            assert_eq!(requests, time.requests);
        }
    }
}

/// The name of what is waited for, without its figures.
fn kind(wait: &Wait) -> String {
    let printed = format!("{wait:?}");
    let end = printed.find(|letter: char| !letter.is_alphabetic());
    printed[..end.unwrap_or(printed.len())].to_owned()
}
