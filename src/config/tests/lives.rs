//! The examples in `config/` walked through their whole life on a manual clock: on to the end with
//! a good arm, and back and on again with one that fails half way.

use jiff::tz::TimeZone;

use super::examples::example;
use super::*;
use crate::policy::judge::window::{ArmCounts, Clustered, Latencies, Pair, StreakReading, Window};
use crate::policy::rollout::{By, Decision, Effect, Event, Phase, Rollout, Terms, Wait};
use crate::policy::time::Timestamp;

const SECONDS: Duration = Duration::from_secs(10);
const MINUTES: Duration = Duration::from_secs(600);
const HOUR: f64 = 3_600.0;

/// One split of an example, its clock, and what was decided when.
struct Life {
    rollout: Rollout,
    now: Timestamp,
    window: Duration,
    requests_per_second: f64,
    decisions: Vec<(Timestamp, Decision)>,
}

impl Life {
    /// The first split of an example, from this moment on.
    fn of(name: &str, begins: &str, window: Duration, requests_per_second: f64) -> Self {
        Self::of_split(name, 0, begins, window, requests_per_second)
    }

    fn of_split(name: &str, split: usize, begins: &str, window: Duration, rate: f64) -> Self {
        let config = example(name);
        let split = &config.splits[split];
        let terms = Terms {
            course: split.course.clone(),
            rules: split.rules,
            signals: Vec::new(),
            rollout_id: split.rollout_id.clone(),
            backends: config.names_of_arms(split),
        };
        let now = Timestamp::parse(begins).expect("a time");
        Self {
            rollout: Rollout::new(&split.name, terms, now),
            now,
            window,
            requests_per_second: rate,
            decisions: Vec::new(),
        }
    }

    /// A window in which this part of the requests to `new` fails, and what is wished for after it.
    fn tick(&mut self, failing: f64) {
        self.now = self.now.plus(self.window);
        let share = self.rollout.standing().share.ratio();
        let requests = self.requests_per_second * self.window.as_secs_f64();
        let window = Window {
            seconds: self.window.as_secs_f64(),
            new: self.requests(requests * share, failing),
            legacy: self.requests(requests * (1.0 - share), 0.0),
            slower: None,
            streak: StreakReading::default(),
            legacy_available: true,
            new_available: true,
        };
        self.tell(Event::Observed(Box::new(window)));
        if let Some(wish) = self.rollout.wish(self.now) {
            self.tell(wish);
        }
    }

    /// Requests of as many sessions as there are groups, answered within 20 to 30 milliseconds.
    fn requests(&self, count: f64, failing: f64) -> ArmCounts {
        let of_each = (count / 64.0).round() as u64;
        let failed = (of_each as f64 * failing).round() as u64;
        let counted = |n, e| {
            let mut all = Clustered::default();
            for cluster in 0..64 {
                all.count(cluster, Pair { n, e });
            }
            all
        };
        let answered = of_each - failed;
        let limits = self.rollout.judge().criteria().latency_limits();
        let durations = || {
            let mut all = Latencies::default();
            for bucket in 245..265 {
                all.record(bucket, answered * 64 / 20);
            }
            all
        };
        ArmCounts {
            errors: counted(of_each, failed),
            client_errors: counted(of_each, 0),
            availability: counted(of_each, failed),
            fallback: counted(of_each, 0),
            latency: vec![counted(answered, 0); limits.first_byte.len()],
            total_latency: vec![counted(answered, 0); limits.total.len()],
            first_byte: durations(),
            total: durations(),
        }
    }

    fn tell(&mut self, event: Event) {
        let effects = self.rollout.handle(event, self.now).expect("not refused");
        for effect in effects {
            if let Effect::Announce(decision) = effect {
                self.decisions.push((self.now, *decision));
            }
        }
    }

    fn waits(&self) -> Vec<Wait> {
        self.rollout.waits(self.now)
    }

    /// A good arm until `condition` holds; people approve whatever only they can bring.
    fn until(&mut self, what: &str, condition: impl Fn(&Life) -> bool) {
        for _ in 0..30 * 24 * 6 {
            if condition(self) {
                return;
            }
            if matches!(self.waits()[..], [Wait::Approval(_)]) {
                self.tell(Event::Approve { by: somebody() });
            }
            self.tick(0.0);
        }
        let waits: Vec<String> = self.waits().iter().map(ToString::to_string).collect();
        panic!("never {what}: at {} since {waits:?}", self.share());
    }

    /// A good arm for this long, and nobody who does anything.
    fn good_hours(&mut self, hours: u32) {
        let end = self.now.plus(Duration::from_secs(3_600) * hours);
        while self.now < end {
            self.tick(0.0);
        }
    }

    fn completes(&mut self) {
        self.until("completed", |life| life.rollout.phase() == Phase::Completed);
    }

    fn reaches(&mut self, share: &str) {
        self.until(share, |life| life.share() == share);
    }

    /// `new` fails until that is decided.
    fn harm(&mut self) -> Decision {
        let before = self.decisions.len();
        for _ in 0..10 {
            self.tick(1.0);
            if let Some((_, decision)) = self.decisions.get(before) {
                return decision.clone();
            }
        }
        panic!("nobody noticed: {:?}", self.rollout.conditions());
    }

    fn share(&self) -> String {
        self.rollout.standing().share.to_string()
    }

    /// The share after each decision of this kind.
    fn shares_of(&self, action: &str) -> Vec<String> {
        let of_kind = self.decisions.iter().filter(|(_, it)| it.action == action);
        of_kind.map(|(_, it)| it.to.to_string()).collect()
    }

    /// Watched seconds from the first decision to the last.
    fn lasted(&self) -> f64 {
        let (first, last) = (self.decisions.first(), self.decisions.last());
        let span = last.zip(first).map(|(last, first)| last.0.since(first.0));
        span.expect("there were decisions").as_secs_f64()
    }
}

fn somebody() -> By {
    By {
        actor: "somebody".to_owned(),
        reason: String::new(),
    }
}

/// Such as `Mon 12:00`, on the clock on the wall.
fn on_the_wall(zone: &str, at: Timestamp) -> String {
    let at = jiff::Timestamp::from_millisecond(at.milliseconds()).expect("in our days");
    let zone = TimeZone::get(zone).expect("a zone");
    at.to_zoned(zone).strftime("%a %H:%M").to_string()
}

#[test]
fn six_stages_take_about_ten_minutes() {
    let mut life = Life::of("six-stage", "2026-03-02T10:00:00Z", SECONDS, 300.0);
    life.completes();
    assert_eq!(
        life.shares_of("advance"),
        ["10%", "30%", "50%", "80%", "100%"]
    );
    assert_eq!(life.shares_of("complete"), ["100%"]);
    // A minute at 0 % comes before the first decision, and one in each of the other five stages.
    let lasted = life.lasted();
    assert!((5.0 * 60.0..15.0 * 60.0).contains(&lasted), "{lasted} s");
}

#[test]
fn six_stages_go_back_to_zero_and_on_again() {
    let mut life = Life::of("six-stage", "2026-03-02T10:00:00Z", SECONDS, 300.0);
    life.reaches("50%");
    let decision = life.harm();
    assert_eq!(
        (&*decision.action, life.share().as_str()),
        ("rollback", "0%")
    );
    life.good_hours(1);
    assert_eq!(life.rollout.phase(), Phase::RolledBack, "nobody came");
    life.tell(Event::Resume {
        stage: None,
        by: somebody(),
    });
    assert_eq!(life.share(), "50%", "the interrupted stage");
    life.completes();
    assert_eq!(
        life.shares_of("advance"),
        ["10%", "30%", "50%", "80%", "100%"]
    );
}

#[test]
fn the_conservative_plan_takes_its_four_days() {
    let mut life = Life::of("conservative", "2026-03-02T10:00:00Z", MINUTES, 50.0);
    assert_eq!(life.rollout.phase(), Phase::Pending);
    life.completes();
    assert_eq!(life.shares_of("advance"), ["10%", "50%", "100%"]);
    let days = life.lasted() / (24.0 * HOUR);
    assert!((4.0..4.1).contains(&days), "{days} days");

    let mut life = Life::of("conservative", "2026-03-02T10:00:00Z", MINUTES, 50.0);
    life.reaches("50%");
    life.good_hours(12);
    let decision = life.harm();
    assert_eq!(
        (&*decision.action, life.share().as_str()),
        ("rollback", "0%")
    );
    let rolled_back = life.now;
    life.tell(Event::Resume {
        stage: None,
        by: somebody(),
    });
    life.reaches("100%");
    let again = life.now.since(rolled_back).as_secs_f64() / HOUR;
    assert!(
        (24.0..25.0).contains(&again),
        "the stage is observed anew: {again} h"
    );
    life.completes();
}

#[test]
fn a_stage_a_day_never_begins_while_nobody_is_there_summer_and_winter() {
    for (begins, what) in [
        ("2026-03-27T07:00:00Z", "the clocks go forward on Sunday"),
        ("2026-10-23T06:00:00Z", "the clocks go back on Sunday"),
    ] {
        let mut life = Life::of("day-by-day", begins, MINUTES, 100.0);
        life.completes();
        let advances = life
            .decisions
            .iter()
            .filter(|(_, it)| it.action == "advance");
        let advances =
            advances.map(|(at, it)| (on_the_wall("Europe/Berlin", *at), it.to.to_string()));
        let advances: Vec<_> = advances.collect();
        let on = |day: &str, share: &str| (day.to_owned(), share.to_owned());
        assert_eq!(
            advances,
            [
                on("Fri 09:00", "1%"),
                on("Mon 12:00", "5%"),
                on("Tue 09:00", "20%"),
                on("Wed 09:00", "50%"),
                on("Thu 09:00", "100%"),
            ],
            "{what}"
        );
    }
}

#[test]
fn a_bad_day_costs_one_day_and_a_second_one_everything() {
    // A Monday.
    let mut life = Life::of("day-by-day", "2026-03-02T06:00:00Z", MINUTES, 100.0);
    life.reaches("20%");
    assert_eq!(on_the_wall("Europe/Berlin", life.now), "Wed 09:00");
    // At night, when no share may rise.
    life.good_hours(15);
    assert_eq!(life.harm().action, "rollback");
    assert_eq!(life.share(), "5%", "a rollback waits for no window");
    assert_eq!(life.harm().action, "rollback");
    assert_eq!(life.share(), "0%");
    life.tell(Event::Resume {
        stage: None,
        by: somebody(),
    });
    assert_eq!(life.share(), "20%");
    let before = life.decisions.len();
    life.completes();
    let later = life.decisions[before..].iter();
    let later: Vec<_> = later
        .map(|(at, it)| (on_the_wall("Europe/Berlin", *at), &*it.action))
        .collect();
    // Thursday's twenty hours begin after midnight and end in the evening.
    assert_eq!(later[0], ("Fri 09:00".to_owned(), "advance"));
    assert_eq!(later[1], ("Mon 12:00".to_owned(), "advance"));
    assert_eq!(later[2].1, "complete");
}

#[test]
fn blue_green_switches_when_somebody_says_so_and_back_by_itself() {
    let mut life = Life::of("blue-green", "2026-03-02T10:00:00Z", SECONDS, 200.0);
    life.good_hours(6);
    assert_eq!(life.share(), "0%", "nobody said so");
    assert!(matches!(life.waits()[..], [Wait::Approval(Share::ALL)]));
    life.completes();
    assert_eq!(life.shares_of("advance"), ["100%"]);
    let decision = life.harm();
    assert_eq!(
        (&*decision.action, life.share().as_str()),
        ("rollback", "0%")
    );
    life.tell(Event::Resume {
        stage: None,
        by: somebody(),
    });
    assert_eq!(life.share(), "100%");
    life.completes();
}

#[test]
fn the_manual_plan_moves_with_people_only_and_its_neighbour_only_advises() {
    let mut life = Life::of("manual", "2026-03-02T10:00:00Z", MINUTES, 100.0);
    for (share, next) in [("0%", "10%"), ("10%", "50%"), ("50%", "100%")] {
        life.good_hours(3 * 24);
        assert_eq!(life.share(), share, "three days without anybody");
        assert_eq!(life.rollout.phase(), Phase::Progressing);
        life.tell(Event::Approve { by: somebody() });
        life.tick(0.0);
        assert_eq!(life.share(), next);
    }
    life.completes();
    assert_eq!(life.harm().action, "rollback");
    assert_eq!(life.share(), "0%");
    life.tell(Event::Resume {
        stage: None,
        by: somebody(),
    });
    life.completes();

    // Undecided for two days: without any request there is no proof, and no decision either.
    let mut life = Life::of("manual", "2026-03-02T10:00:00Z", MINUTES, 100.0);
    life.reaches("10%");
    life.requests_per_second = 0.0;
    life.good_hours(2 * 24);
    assert_eq!(
        (life.rollout.phase(), life.share().as_str()),
        (Phase::Paused, "10%")
    );

    let mut life = Life::of_split("manual", 1, "2026-03-02T10:00:00Z", MINUTES, 100.0);
    life.tick(0.0);
    assert_eq!(life.harm().action, "advise");
    assert_eq!(life.share(), "5%");
}
