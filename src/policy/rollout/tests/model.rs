//! The state machine and a naive twin under the same random events.
//!
//! The twin keeps five plain fields and computes the share from the order of precedence, nothing
//! else. It takes the judge's word for when to roll back, and checks everything else: what is in
//! effect, what is refused, the order of effects, and that a restart changes nothing.

use proptest::prelude::*;

use super::*;
use crate::policy::criteria::Harm;

#[derive(Clone, Debug)]
enum Step {
    Good,
    Dead,
    BothDead,
    Set(Share, bool),
    Rollback,
    Resume,
    Emergency(bool),
    FileShare(Option<Share>),
    Id(u8),
    Limit(u8),
    Restart,
}

fn any_share() -> impl Strategy<Value = Share> {
    prop_oneof![Just(0), Just(10), Just(25), Just(100)].prop_map(share)
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Good),
        2 => Just(Step::Dead),
        1 => Just(Step::BothDead),
        3 => (any_share(), any::<bool>()).prop_map(|(share, file)| Step::Set(share, file)),
        1 => Just(Step::Rollback),
        2 => Just(Step::Resume),
        2 => any::<bool>().prop_map(Step::Emergency),
        2 => proptest::option::of(any_share()).prop_map(Step::FileShare),
        1 => (0_u8..3).prop_map(Step::Id),
        1 => (2_u8..6).prop_map(Step::Limit),
        2 => Just(Step::Restart),
    ]
}

/// The naive twin.
struct Model {
    emergency: bool,
    latched: bool,
    /// The judge's word.
    is_suspected: bool,
    operator: Option<Share>,
    terms: Terms,
}

impl Model {
    fn standing(&self) -> Standing {
        let file = self.terms.course.file_share().unwrap_or(Share::ZERO);
        let share = match self {
            Model {
                emergency: true, ..
            }
            | Model { latched: true, .. } => Share::ZERO,
            Model {
                operator: Some(share),
                ..
            } => *share,
            _ => file,
        };
        Standing {
            share,
            emergency: self.emergency,
        }
    }

    /// Applies a person's or the file's step; whether it is allowed.
    fn apply(&mut self, step: &Step) -> bool {
        match step {
            Step::Good | Step::Dead | Step::BothDead | Step::Restart => {}
            Step::Set(share, override_file) => {
                let raises = self.latched && *share > Share::ZERO;
                if raises || (self.terms.course.file_share().is_some() && !override_file) {
                    return false;
                }
                self.operator = (self.terms.course.file_share() != Some(*share)).then_some(*share);
            }
            Step::Rollback => self.latched = true,
            Step::Resume if !self.latched && !self.is_suspected => return false,
            Step::Resume => self.latched = false,
            Step::Emergency(active) => self.emergency = *active,
            Step::FileShare(share) => {
                if self.terms.course.file_share() != *share {
                    self.operator = None;
                }
                let criteria = self.terms.course.criteria(None).clone();
                self.terms.course = by_hand(*share, criteria);
            }
            Step::Id(id) => {
                let id = format!("r{id}");
                self.latched &= self.terms.rollout_id == id;
                self.terms.rollout_id = id;
            }
            Step::Limit(percent) => {
                let mut criteria = self.terms.course.criteria(None).clone();
                criteria.rollback[0].harm = Harm::Beyond(f64::from(*percent) / 100.0);
                self.terms.course = by_hand(self.terms.course.file_share(), criteria);
            }
        }
        true
    }

    fn event(&self, step: &Step) -> Option<Event> {
        Some(match step {
            Step::Good => good(),
            Step::Dead => dead(),
            Step::BothDead => both_dead(),
            Step::Set(share, override_file) => Event::Set {
                share: *share,
                override_file: *override_file,
                by: alice(),
            },
            Step::Rollback => Event::Rollback {
                to: None,
                by: alice(),
            },
            Step::Resume => resume(),
            Step::Emergency(active) => emergency(*active),
            Step::FileShare(_) | Step::Id(_) | Step::Limit(_) => {
                Event::Configured(Box::new(self.terms.clone()))
            }
            Step::Restart => return None,
        })
    }
}

fn is_observation(step: &Step) -> bool {
    matches!(step, Step::Good | Step::Dead | Step::BothDead)
}

/// Effects by kind, in order.
fn kinds(effects: &[Effect]) -> Vec<&'static str> {
    let kinds = effects.iter().map(|effect| match effect {
        Effect::Publish(_) => "publish",
        Effect::Persist => "persist",
        Effect::Announce(_) => "announce",
    });
    kinds.collect()
}

fn check_effects(before: Standing, after: Standing, effects: &[Effect]) {
    let kinds = kinds(effects);
    if after == before {
        let quiet: [&[&str]; 3] = [&[], &["persist"], &["persist", "announce"]];
        assert!(quiet.contains(&&kinds[..]), "{kinds:?}");
        return;
    }
    let rises = after.share > before.share || (before.emergency && !after.emergency);
    if rises {
        assert_eq!(kinds, ["persist", "publish", "announce"]);
    } else {
        assert_eq!(kinds, ["publish", "persist", "announce"]);
    }
    assert!(effects.contains(&Effect::Publish(after)));
}

fn restarted(rollout: &Rollout, terms: Terms, now: Timestamp) -> Rollout {
    let stored = serde_json::to_string(&rollout.record()).expect("serialisable");
    let record: Record = serde_json::from_str(&stored).expect("readable");
    assert_eq!(record, rollout.record());
    let (restored, effects) = Rollout::restore("shop", record, terms, now);
    assert_eq!(effects, [], "a restart changes nothing");
    assert_eq!(restored.standing(), rollout.standing());
    assert_eq!(restored.conditions(), rollout.conditions());
    assert_eq!(restored.record(), rollout.record());
    restored
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn rollout_and_twin_agree_on_everything_but_when_to_roll_back(
        file in proptest::option::of(any_share()),
        steps in proptest::collection::vec(any_step(), 1..60),
    ) {
        let mut model = Model {
            emergency: false,
            latched: false,
            is_suspected: false,
            operator: None,
            terms: terms(file),
        };
        let mut rollout = Rollout::new("shop", model.terms.clone(), at(0));
        let mut now = at(0);
        for step in &steps {
            now = now.plus(Duration::from_millis(100));
            let before = rollout.standing();
            model.is_suspected = rollout.is_suspected();
            let allowed = model.apply(step);
            let Some(event) = model.event(step) else {
                rollout = restarted(&rollout, model.terms.clone(), now);
                continue;
            };
            match rollout.handle(event, now) {
                Err(refusal) => {
                    prop_assert!(!allowed, "{:?}: {}", step, refusal);
                    prop_assert_eq!(rollout.standing(), before);
                }
                Ok(effects) => {
                    prop_assert!(allowed, "{:?}", step);
                    if is_observation(step) {
                        let rolled_back = rollout.phase() == Phase::RolledBack && !model.latched;
                        if rolled_back {
                            prop_assert!(before.share > Share::ZERO && !matches!(step, Step::Good));
                            model.latched = true;
                        }
                        prop_assert!(rollout.standing().share <= before.share);
                    }
                    check_effects(before, rollout.standing(), &effects);
                }
            }
            prop_assert_eq!(rollout.standing(), model.standing(), "{:?}", step);
            prop_assert_eq!(rollout.phase() == Phase::RolledBack, model.latched);
            prop_assert_eq!(rollout.override_share(), model.operator);
        }
    }
}
