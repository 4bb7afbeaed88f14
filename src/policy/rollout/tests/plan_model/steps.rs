//! What may happen to a plan, drawn at random, and written so briefly that a failure can be read.

use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::*;
use super::{SECOND, Ticks, span};
use crate::policy::calendar::{Calendar, WeeklyWindow};
use crate::policy::criteria::Action;
use crate::policy::plan::{OnTimeout, Plan, Retreat, Stage};

/// One thing that happens.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Windows of this length, one after the other. If the disk is fast, what is wished for after
    /// one is given before the next; if it is slow, it may come later, or never.
    Watch {
        weather: Weather,
        length: Ticks,
        windows: u8,
        disk_is_fast: bool,
    },
    /// The disk is done with a step that was wished for at some time, or at none.
    Advance,
    Set(Share, bool),
    Stage(usize),
    Promote,
    Pause,
    Approve,
    Rollback(Option<Retreat>),
    Resume,
    Emergency(bool),
    Edit(Edit),
    /// The process ends and comes back, after the file was edited or not.
    Restart(Option<Edit>),
    /// The clock is set to this hour of the day.
    Clock(u8),
}

/// How `new` and legacy do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weather {
    Good,
    Dead,
    BothDead,
    Silent,
    Unavailable,
    LegacyGone,
}

/// What is changed in the file.
#[derive(Clone, Debug)]
pub(super) enum Edit {
    Plan(Vec<StageSketch>),
    ByHand(Option<Share>),
    Rules(RulesSketch),
    Id(u8),
    NewBackend(u8),
}

/// All that the file says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sketch {
    pub(super) course: CourseSketch,
    pub(super) rules: RulesSketch,
    pub(super) id: u8,
    pub(super) backend: u8,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum CourseSketch {
    ByHand(Option<Share>),
    Plan(Vec<StageSketch>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct StageSketch {
    pub(super) share: Share,
    pub(super) approval: bool,
    pub(super) mornings_only: bool,
    pub(super) timeout: Option<Ticks>,
    pub(super) on_timeout: OnTimeout,
    pub(super) observe: Ticks,
    pub(super) min_requests: u64,
    pub(super) action: Action,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct RulesSketch {
    pub(super) retreat: Retreat,
    pub(super) ramp: Ticks,
    pub(super) cool_down: Ticks,
    pub(super) max_changes: usize,
    pub(super) advise: bool,
}

impl Weather {
    pub(super) fn window(self, length: Ticks) -> Window {
        let new = match self {
            Weather::Silent => ArmCounts::default(),
            Weather::Dead | Weather::BothDead => requests(true),
            Weather::Good | Weather::Unavailable | Weather::LegacyGone => requests(false),
        };
        Window {
            seconds: span(length).as_secs_f64(),
            new,
            legacy: requests(self == Weather::BothDead),
            slower: None,
            streak: StreakReading::default(),
            legacy_available: self != Weather::LegacyGone,
            new_available: self != Weather::Unavailable,
        }
    }
}

impl Sketch {
    pub(super) fn edited(&self, edit: &Edit) -> Sketch {
        let mut edited = self.clone();
        match edit {
            Edit::Plan(stages) => edited.course = CourseSketch::Plan(stages.clone()),
            Edit::ByHand(share) => edited.course = CourseSketch::ByHand(*share),
            Edit::Rules(rules) => edited.rules = rules.clone(),
            Edit::Id(id) => edited.id = *id,
            Edit::NewBackend(backend) => edited.backend = *backend,
        }
        edited
    }

    pub(super) fn terms(&self) -> Terms {
        let course = match &self.course {
            CourseSketch::ByHand(share) => by_hand(*share, Criteria::default()),
            CourseSketch::Plan(stages) => {
                let stages = stages.iter().map(StageSketch::stage).collect();
                Course::Planned(Plan::new(stages).expect("a plan"))
            }
        };
        Terms {
            course,
            rules: Rules {
                retreat: self.rules.retreat,
                ramp: span(self.rules.ramp),
                cool_down: span(self.rules.cool_down),
                max_changes_per_day: self.rules.max_changes,
                advise: self.rules.advise,
            },
            rollout_id: format!("r{}", self.id),
            backends: PerArm {
                legacy: "legacy".to_owned(),
                new: format!("new{}", self.backend),
            },
            ..terms(None)
        }
    }
}

impl StageSketch {
    fn stage(&self) -> Stage {
        let mut criteria = Criteria {
            advance: Vec::new(),
            observe: span(self.observe),
            min_requests: self.min_requests,
            ..Criteria::default()
        };
        for criterion in &mut criteria.rollback {
            criterion.action = self.action;
        }
        Stage {
            share: self.share,
            criteria,
            approval: self.approval,
            calendar: self.mornings_only.then(mornings),
            timeout: self.timeout.map(span),
            on_timeout: self.on_timeout,
        }
    }
}

/// Every day until noon.
fn mornings() -> Calendar {
    let monday = jiff::civil::Weekday::Monday;
    let window = WeeklyWindow {
        days: monday.cycle_forward().take(7).collect(),
        from: jiff::civil::time(0, 0, 0, 0),
        to: Some(jiff::civil::time(12, 0, 0, 0)),
    };
    Calendar::new(jiff::tz::TimeZone::UTC, vec![window])
}

fn any_share() -> impl Strategy<Value = Share> {
    select(vec![0, 5, 10, 30, 50, 100]).prop_map(share)
}

pub(super) fn any_sketch() -> impl Strategy<Value = Sketch> {
    (any_stages(), any_rules()).prop_map(|(stages, rules)| Sketch {
        course: CourseSketch::Plan(stages),
        rules,
        id: 0,
        backend: 0,
    })
}

fn any_stages() -> impl Strategy<Value = Vec<StageSketch>> {
    let shares = btree_set(any_share(), 1..=5);
    let rest = vec(any_rest_of_a_stage(), 5);
    (shares, rest).prop_map(|(shares, rest)| {
        let stages = shares.into_iter().zip(rest);
        stages
            .map(|(share, rest)| StageSketch { share, ..rest })
            .collect()
    })
}

fn any_rest_of_a_stage() -> impl Strategy<Value = StageSketch> {
    let rarely = || proptest::bool::weighted(0.15);
    let timeout = option::weighted(0.3, select(vec![4, 8, 16]));
    let on_timeout = select(vec![
        OnTimeout::Hold,
        OnTimeout::Rollback,
        OnTimeout::Advance,
    ]);
    let action = prop_oneof![
        6 => Just(Action::Rollback),
        1 => Just(Action::Hold),
        1 => Just(Action::Notify),
    ];
    let observe = select(vec![0, 1, 2, 4]);
    let min_requests = select(vec![0, 64, 128, 1_024]);
    (
        rarely(),
        rarely(),
        timeout,
        on_timeout,
        observe,
        min_requests,
        action,
    )
        .prop_map(
            |(approval, mornings_only, timeout, on_timeout, observe, min_requests, action)| {
                StageSketch {
                    share: Share::ZERO,
                    approval,
                    mornings_only,
                    timeout,
                    on_timeout,
                    observe,
                    min_requests,
                    action,
                }
            },
        )
}

fn any_rules() -> impl Strategy<Value = RulesSketch> {
    let retreat = select(vec![Retreat::Zero, Retreat::PreviousStage]);
    let ramp = select(vec![0, SECOND]);
    let cool_down = select(vec![0, 0, 2, SECOND]);
    let max_changes = select(vec![2, 4, 24]);
    let advise = proptest::bool::weighted(0.1);
    (retreat, ramp, cool_down, max_changes, advise).prop_map(
        |(retreat, ramp, cool_down, max_changes, advise)| RulesSketch {
            retreat,
            ramp,
            cool_down,
            max_changes,
            advise,
        },
    )
}

fn any_edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        4 => any_stages().prop_map(Edit::Plan),
        2 => option::of(any_share()).prop_map(Edit::ByHand),
        2 => any_rules().prop_map(Edit::Rules),
        1 => (0_u8..3).prop_map(Edit::Id),
        1 => (0_u8..2).prop_map(Edit::NewBackend),
    ]
}

pub(super) fn any_step() -> impl Strategy<Value = Step> {
    let weather = prop_oneof![
        10 => Just(Weather::Good),
        2 => Just(Weather::Dead),
        2 => Just(Weather::BothDead),
        1 => Just(Weather::Silent),
        1 => Just(Weather::Unavailable),
        2 => Just(Weather::LegacyGone),
    ];
    let length = prop_oneof![20 => Just(1), 1 => Just(8 * 3_600 * SECOND)];
    let watch = (weather, length, 1_u8..7, proptest::bool::weighted(0.8)).prop_map(
        |(weather, length, windows, disk_is_fast)| Step::Watch {
            weather,
            length,
            windows,
            disk_is_fast,
        },
    );
    let retreat = select(vec![
        None,
        Some(Retreat::Zero),
        Some(Retreat::PreviousStage),
    ]);
    prop_oneof![
        20 => watch,
        3 => Just(Step::Advance),
        2 => (any_share(), any::<bool>()).prop_map(|(share, file)| Step::Set(share, file)),
        2 => (0_usize..7).prop_map(Step::Stage),
        3 => Just(Step::Promote),
        1 => Just(Step::Pause),
        2 => Just(Step::Approve),
        2 => retreat.prop_map(Step::Rollback),
        4 => Just(Step::Resume),
        1 => Just(Step::Emergency(true)),
        2 => Just(Step::Emergency(false)),
        3 => any_edit().prop_map(Step::Edit),
        2 => option::weighted(0.4, any_edit()).prop_map(Step::Restart),
        1 => (0_u8..24).prop_map(Step::Clock),
    ]
}
