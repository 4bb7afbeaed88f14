//! A split that is left alone while it is idle, beside one that is looked at with every tick.

use std::path::Path;

use proptest::prelude::*;

use super::super::terms;
use super::*;
use crate::config::load_text;
use crate::policy::arm::PerArm;
use crate::policy::class::Class;
use crate::policy::key::{Cluster, Salt};
use crate::policy::rollout::{By, Effect, Event, Phase};
use crate::policy::share::Share;
use crate::telemetry::WorkerId;
use crate::telemetry::tally::{Measure, Thresholds};

/// An eighth of a second: sums of them are exact, so that no rounding decides between two ticks.
const TICK: Duration = Duration::from_millis(125);
const WORKER: WorkerId = WorkerId(0);

/// The same counts and the same commands for both.
struct Twins {
    tally: Arc<SplitTally>,
    budget: Budget,
    now: Elapsed,
    /// When the process began.
    start: Timestamp,
    available: PerArm<bool>,
    watched: Twin,
    left_alone: Twin,
    clusters: Vec<Cluster>,
    draws: u64,
}

struct Twin {
    state: SplitState,
    /// When and what, in words.
    decisions: Vec<String>,
    windows: usize,
}

impl Twins {
    /// A split with these settings in a process that begins at `start`.
    fn of(settings: &str, start: &str) -> Self {
        let text = include_str!("../../../../config/quickstart.yaml");
        let text = text.replace("share: 10%", settings);
        let config = load_text(&text, Path::new("."), &|_| None).expect("a valid file");
        let start = Timestamp::parse(start).expect("a time");
        let terms = terms(&config, &config.splits[0]);
        let thresholds = Thresholds::of(config.splits[0].course.criteria(None));
        let tally = Arc::new(SplitTally::new(1, thresholds));
        let twin = || Twin {
            state: SplitState::new(
                Rollout::new("api", terms.clone(), start),
                &tally,
                None,
                Elapsed::default(),
            ),
            decisions: Vec::new(),
            windows: 0,
        };
        let salt = Salt::new("twins");
        Self {
            watched: twin(),
            left_alone: twin(),
            tally,
            budget: Budget::new(Share::ZERO, 10),
            now: Elapsed::default(),
            start,
            available: PerArm::from_fn(|_| true),
            clusters: (0_u32..200)
                .map(|key| salt.hash(&key.to_le_bytes()).cluster())
                .collect(),
            draws: 1,
        }
    }

    fn tick(&mut self) {
        self.now = self.now.plus(TICK);
        self.watched.state.wake();
        self.look();
    }

    /// As the control plane does between two ticks.
    fn command(&mut self, event: &Event) {
        self.watched.state.wake();
        self.left_alone.state.wake();
        self.look();
        for twin in [&mut self.watched, &mut self.left_alone] {
            twin.handle(event.clone(), self.start, self.now);
        }
    }

    fn look(&mut self) {
        for twin in [&mut self.watched, &mut self.left_alone] {
            let found = Circumstances {
                available: self.available,
                revision: twin.state.rollout.revision(),
                is_recorded: false,
            };
            let wall = at(self.start, self.now);
            let mut is_judged = false;
            for (window, end) in twin.state.tick(&self.budget, found, self.now) {
                is_judged = true;
                twin.windows += 1;
                twin.handle(Event::Observed(Box::new(window)), self.start, end);
            }
            if is_judged {
                twin.state.rest(wall);
            }
            if !twin.state.is_resting()
                && let Some(wish) = twin.state.rollout.wish(wall)
            {
                twin.handle(wish, self.start, self.now);
            }
        }
    }

    fn idle(&mut self, ticks: u32) {
        (0..ticks).for_each(|_| self.tick());
    }

    /// Ticks with so many requests each; of those of `new` these hundredths fail or are slow.
    fn busy(&mut self, ticks: u32, requests: u32, failing: u64, slow: u64) {
        for _ in 0..ticks {
            for request in 0..requests {
                let arm = Arm::ALL[(request % 2) as usize];
                let fails = self.draw(100) < failing && arm == Arm::New;
                let is_slow = self.draw(100) < slow && arm == Arm::New;
                self.book(arm, fails, is_slow);
            }
            self.tick();
        }
    }

    fn book(&mut self, arm: Arm, fails: bool, is_slow: bool) {
        let key = self.draw(200) as usize;
        let cluster = self.clusters[key];
        let counts = self.tally.arm(WORKER, arm);
        counts.book(
            if fails {
                Class::ServerError
            } else {
                Class::Success
            },
            Some(cluster),
        );
        for measure in Measure::ALL {
            for threshold in 0..self.tally.thresholds().on(measure).len() {
                counts.latency(measure, threshold, is_slow, Some(cluster));
            }
        }
        let milliseconds = if is_slow { 900 } else { 10 };
        counts.first_byte(Duration::from_millis(milliseconds));
        counts.total(Duration::from_millis(milliseconds));
        match (arm, fails) {
            (Arm::New, true) => self.tally.streak().failure(cluster),
            (Arm::New, false) => self.tally.streak().success(),
            (Arm::Legacy, _) => {}
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.draws = self
            .draws
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.draws >> 33) % below
    }

    /// Both know and have decided the same, and the one that was left alone had fewer windows.
    fn agree(&mut self) {
        assert_eq!(self.left_alone.decisions, self.watched.decisions);
        self.command(&Event::Pause { by: by() });
        let [watched, left_alone] = [&self.watched, &self.left_alone].map(|twin| {
            let judge = twin.state.rollout.judge();
            let (healthy, requests) = judge.progress();
            let evidence = judge.evidence_of_harm().chain(judge.evidence_of_health());
            let stage = twin.state.rollout.stage_seconds();
            evidence
                .chain([healthy, requests as f64, stage])
                .collect::<Vec<_>>()
        });
        for (one, other) in watched.iter().zip(&left_alone) {
            let difference = (one - other).abs();
            assert!(
                difference <= 1e-6 * one.abs().max(1.0),
                "{watched:?}\n{left_alone:?}"
            );
        }
        assert!(self.left_alone.windows <= self.watched.windows);
    }

    fn said(&self) -> Vec<&str> {
        let decisions = self.left_alone.decisions.iter();
        decisions.map(String::as_str).collect()
    }
}

impl Twin {
    fn handle(&mut self, event: Event, start: Timestamp, now: Elapsed) {
        // What is refused changes nothing, for neither of them.
        let effects = self.state.rollout.handle(event, at(start, now));
        for effect in effects.unwrap_or_default() {
            if let Effect::Announce(decision) = effect {
                let milliseconds = now.milliseconds();
                self.decisions.push(format!(
                    "{milliseconds} ms: {} from {} to {}",
                    decision.action, decision.from, decision.to
                ));
            }
        }
    }
}

fn at(start: Timestamp, elapsed: Elapsed) -> Timestamp {
    start.plus(Duration::from_millis(elapsed.milliseconds()))
}

fn by() -> By {
    By {
        actor: "alice".to_owned(),
        reason: String::new(),
    }
}

const MORNING: &str = "2026-11-20T09:59:50Z";

#[test]
fn an_idle_split_is_judged_once_a_second() {
    let mut twins = Twins::of("share: 10%", MORNING);
    twins.busy(20, 10, 0, 0);
    let before = twins.left_alone.windows;
    twins.idle(600);
    let windows = twins.left_alone.windows - before;
    assert!((75..=90).contains(&windows), "{windows}");
    twins.agree();
}

#[test]
fn a_stage_without_traffic_still_lasts_too_long_to_the_tick() {
    let settings = "stages: [10%, 100%]\n    rollout: {observe: 2s, timeout: 4500ms}";
    let mut twins = Twins::of(settings, MORNING);
    twins.idle(100);
    let expected = [
        "125 ms: advance from 0% to 10%",
        "4625 ms: timeout from 10% to 10%",
    ];
    assert_eq!(twins.said(), expected);
    assert_eq!(twins.left_alone.state.rollout.phase(), Phase::Paused);
    twins.agree();
    assert!(
        twins.left_alone.windows < 20,
        "{}",
        twins.left_alone.windows
    );
}

#[test]
fn a_stage_at_nothing_is_healthy_for_long_enough_to_the_tick() {
    let settings = "stages: [0%, 10%, 100%]\n    rollout: {observe: 3375ms}";
    let mut twins = Twins::of(settings, MORNING);
    twins.idle(100);
    assert_eq!(twins.said(), ["3375 ms: advance from 0% to 10%"]);
    twins.agree();
}

#[test]
fn a_lull_ends_when_the_calendar_opens_and_when_a_cool_down_ends() {
    let open = "windows: {open: [Mon-Sun 10:00-16:00]}";
    let settings = format!("stages: [0%, 10%, 100%]\n    rollout: {{observe: 1s, {open}}}");
    let mut twins = Twins::of(&settings, MORNING);
    twins.idle(200);
    assert_eq!(twins.said(), ["10000 ms: advance from 0% to 10%"]);
    twins.agree();

    let settings = "stages: [0%, 10%, 20%, 100%]\n    rollout: {observe: 1s, min_requests: 10, \
                    cool_down: 7250ms}\n    advance: off";
    let mut twins = Twins::of(settings, MORNING);
    twins.busy(40, 20, 0, 0);
    twins.idle(200);
    let expected = [
        "1000 ms: advance from 0% to 10%",
        "8250 ms: advance from 10% to 20%",
    ];
    assert_eq!(twins.said(), expected);
    twins.agree();
}

#[test]
fn a_breach_that_has_to_last_rolls_back_a_split_that_has_fallen_silent() {
    let settings = "share: 50%\n    rollback: ['error_rate > 5% for 3s', 'error_rate worse than \
                    legacy by 25% then notify']\n    \
                    analysis: {hard_fail: 1000, min_breach_windows: 1}";
    let mut twins = Twins::of(settings, MORNING);
    twins.busy(10, 40, 0, 0);
    twins.busy(3, 60, 90, 0);
    twins.idle(100);
    let said = twins.said();
    let expected = [
        "1375 ms: notify from 50% to 50%",
        "4250 ms: rollback from 50% to 0%",
    ];
    assert_eq!(said, expected, "the breach lasts since 1250 ms");
    twins.agree();
}

#[test]
fn an_arm_that_becomes_available_is_noticed_at_once() {
    let settings = "stages: [0%, 10%, 100%]\n    rollout: {observe: 2s}";
    let mut twins = Twins::of(settings, MORNING);
    twins.available.new = false;
    twins.idle(55);
    assert_eq!(twins.said(), [""; 0]);
    twins.available.new = true;
    twins.idle(55);
    assert_eq!(twins.said(), ["8875 ms: advance from 0% to 10%"]);
    twins.agree();
}

#[derive(Clone, Debug)]
enum Step {
    Idle(u32),
    Busy {
        ticks: u32,
        requests: u32,
        failing: u64,
        slow: u64,
    },
    Available(PerArm<bool>),
    Command(Event),
}

fn any_step() -> impl Strategy<Value = Step> {
    let command = prop_oneof![
        Just(Event::Pause { by: by() }),
        Just(Event::Resume {
            stage: None,
            by: by()
        }),
        Just(Event::Approve { by: by() }),
        Just(Event::Promote { by: by() }),
        Just(Event::Rollback { to: None, by: by() }),
        any::<bool>().prop_map(|active| Event::Emergency { active, by: by() }),
    ];
    let busy = (
        1_u32..25,
        1_u32..30,
        prop::sample::select(vec![0_u64, 0, 0, 3, 60]),
        prop::sample::select(vec![0_u64, 0, 4, 40]),
    );
    let busy = busy.prop_map(|(ticks, requests, failing, slow)| Step::Busy {
        ticks,
        requests,
        failing,
        slow,
    });
    let available = (any::<bool>(), any::<bool>());
    let available = available.prop_map(|(legacy, new)| Step::Available(PerArm { legacy, new }));
    prop_oneof![
        4 => (1_u32..140).prop_map(Step::Idle),
        4 => busy,
        1 => available,
        1 => command.prop_map(Step::Command),
    ]
}

fn any_settings() -> impl Strategy<Value = String> {
    let course = prop::sample::select(vec![
        "share: 40%",
        "stages: [0%, 10%, 50%, 100%]\n    advance: off",
        "stages: [10%, 30%, 100%]",
    ]);
    let on_timeout = prop::sample::select(vec!["hold", "rollback", "advance"]);
    let ramp = prop::sample::select(vec!["0s", "5s"]);
    let windows = prop::sample::select(vec![1_u32, 3]);
    let warm_up = prop::sample::select(vec!["0s", "1500ms"]);
    (course, on_timeout, ramp, windows, warm_up).prop_map(
        |(course, on_timeout, ramp, windows, warm_up)| {
            let plan = match course.starts_with("share") {
                true => "",
                false => &format!(
                    ", rollback_to: previous_stage, rollback_ramp: {ramp}, observe: 3s, min_requests: 20, timeout: 9s, on_timeout: {on_timeout}, \
                     cool_down: 2s, max_changes_per_day: 9"
                ),
            };
            format!(
                "{course}
    rollout: {{id: x{plan}}}
    rollback:
      - error_rate > 5%
      - p95 > 300ms for 2s
      - error_rate worse than legacy by 25%
      - latency worse than legacy by 10%
    analysis: {{min_breach_windows: {windows}, latency_warmup: {warm_up}}}"
            )
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// A tick in which nothing has happened is left out. Whoever leaves out one too many is late
    /// with what time alone brings; whoever mixes the time of silence with what ends it weighs
    /// requests otherwise. Either shows as a decision that only one of the two has made, or made at
    /// another tick.
    #[test]
    fn a_split_that_is_left_alone_decides_what_one_decides_that_is_always_watched(
        settings in any_settings(),
        steps in prop::collection::vec(any_step(), 1..30),
    ) {
        let mut twins = Twins::of(&settings, MORNING);
        for step in steps {
            match step {
                Step::Idle(ticks) => twins.idle(ticks),
                Step::Busy { ticks, requests, failing, slow } => {
                    twins.busy(ticks, requests, failing, slow);
                }
                Step::Available(available) => twins.available = available,
                Step::Command(event) => twins.command(&event),
            }
        }
        twins.agree();
    }
}
