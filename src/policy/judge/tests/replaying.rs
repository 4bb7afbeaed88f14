//! A recording of live windows, judged again.

use super::*;
use crate::policy::judge::replay::recorded::{SAMPLES, closing, opening, row, sample};
use crate::policy::judge::replay::{Ending, Outcome};

/// All kinds of criteria, with the discount that is learnt on the way.
fn criteria() -> Criteria {
    let mut criteria = Criteria::default();
    let compared = [
        "latency worse than legacy by 10%",
        "p90 worse than legacy by 50%",
    ];
    let compared = compared.map(|text| text.parse::<Criterion>().expect("a criterion"));
    criteria.rollback.extend(compared);
    criteria
}

/// A rollout with sessions that fail as a whole, answers that come late, and a stage that begins in
/// the middle.
struct Live {
    judge: Judge,
    now: Timestamp,
    state: u64,
}

impl Live {
    fn draw(&mut self, end: u64) -> u64 {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % end
    }

    fn arm(&mut self, sessions: u64, later: usize, fails_in: u64) -> ArmCounts {
        let mut arm = ArmCounts {
            latency: vec![Clustered::default(); 2],
            ..ArmCounts::default()
        };
        for _ in 0..sessions {
            let cluster = self.draw(64) as usize;
            let is_bad = self.draw(fails_in) == 0;
            for _ in 0..5 {
                let event = |yes: bool| pair(1, u64::from(yes));
                let fails = is_bad && self.draw(2) == 0;
                arm.errors.count(cluster, event(fails));
                arm.availability.count(cluster, event(fails));
                let blamed = self.draw(40) == 0;
                arm.client_errors.count(cluster, event(blamed && !fails));
                // An error that comes fast is in no latency count.
                if !fails {
                    let bucket = 300 + later + self.draw(30) as usize;
                    arm.first_byte.record(bucket, 1);
                    arm.latency[0].count(cluster, event(bucket > 390));
                    arm.latency[1].count(cluster, event(bucket > 335));
                }
            }
        }
        arm
    }

    fn window(&mut self, later: usize, fails_in: u64) -> Window {
        let (few, many) = (self.draw(3), 5 + self.draw(10));
        Window {
            seconds: 0.1 + self.draw(7) as f64 / 1_000.0,
            new: self.arm(few, later, fails_in),
            legacy: self.arm(many, 0, 50),
            slower: None,
            streak: StreakReading::default(),
            legacy_available: true,
            new_available: true,
        }
    }

    fn observe(&mut self, window: &Window) -> Verdict {
        let seconds = Duration::from_secs_f64(window.seconds);
        self.now = self.now.plus(seconds);
        self.judge.observe(window, self.now)
    }
}

/// A recording on its way.
struct Recording {
    live: Live,
    opening: String,
    rows: Vec<String>,
    samples: Vec<String>,
    rolled_back: Option<usize>,
}

impl Recording {
    /// Begins after 3 000 windows that are not recorded, in the middle of failures in a row.
    fn begin() -> Self {
        let mut live = Live {
            judge: Judge::new(criteria(), at(0)),
            now: at(0),
            state: 7,
        };
        for _ in 0..3_000 {
            let window = live.window(0, 50);
            live.observe(&window);
        }
        Self {
            opening: opening("live", &live.judge, live.now),
            live,
            rows: Vec::new(),
            samples: Vec::new(),
            rolled_back: None,
        }
    }

    fn observe(&mut self, window: Window) {
        self.observe_then(window, |_, _| {});
    }

    /// As a rollout does: what follows from a verdict is done before the window is recorded.
    fn observe_then(&mut self, window: Window, then: impl FnOnce(&mut Judge, Timestamp)) {
        let verdict = self.live.observe(&window);
        then(&mut self.live.judge, self.live.now);
        let (judge, index) = (&self.live.judge, self.rows.len());
        self.rows.push(row(judge, window, 0, self.live.now));
        if index % 100 == 99 || matches!(verdict, Verdict::Fail(_)) {
            self.samples.push(sample(judge, index));
        }
        if matches!(verdict, Verdict::Fail(_)) {
            self.rolled_back.get_or_insert(index);
        }
    }

    fn learn(&mut self, window: Window) {
        self.live.now = self.live.now.plus(Duration::from_millis(100));
        self.live.judge.learn(&window);
        let judge = &self.live.judge;
        self.rows.push(row(judge, window, 0, self.live.now));
    }

    fn text(&self) -> String {
        let (rows, samples) = (self.rows.join(",\n"), self.samples.join(",\n"));
        let (opening, closing) = (&self.opening, closing(None, false));
        format!("{opening}{rows}{SAMPLES}{samples}{closing}")
    }

    fn replayed(&self) -> Ending {
        let mut outcome = judged(&self.text());
        outcome.traces.remove(0)
    }
}

fn judged(text: &str) -> Outcome {
    let outcome = File::parse(text).and_then(|file| file.judge());
    outcome.expect("a recording")
}

/// 3 000 windows, with a stage that begins in the middle, until a rollback.
fn recorded(later: usize, fails_in: u64) -> Recording {
    let mut recording = Recording::begin();
    for index in 0..3_000 {
        let window = recording.live.window(later, fails_in);
        if index == 999 {
            recording.observe_then(window, |judge, now| judge.begin_stage(Aim::Promote, now));
        } else {
            recording.observe(window);
        }
        if recording.rolled_back.is_some() {
            break;
        }
    }
    recording
}

/// All samples agree to the last bit, and the end is the same in every figure.
fn assert_agrees(recording: &Recording) -> Ending {
    let ending = recording.replayed();
    let agreement = ending.agreement.as_ref().expect("a recording");
    assert_eq!(agreement.differences, [""; 0]);
    assert_eq!((agreement.different, agreement.rounded), (0, 0));
    assert_eq!(agreement.samples, recording.samples.len());
    assert_eq!(ending.rollback_window, recording.rolled_back);
    ending
}

#[test]
fn a_recording_of_a_quiet_rollout_leads_to_the_same_evidence_and_discounts() {
    let recording = recorded(0, 50);
    let ending = assert_agrees(&recording);
    assert_eq!(ending.rollback_window, None);
    assert_eq!(ending.samples.len(), 30);
    let judge = &recording.live.judge;
    let conditions: Vec<_> = ending.conditions.into_iter().map(|(_, it)| it).collect();
    assert_eq!(conditions, judge.conditions());
    let needs: Vec<_> = ending.needs.into_iter().map(|(_, it)| it).collect();
    assert_eq!(needs, judge.needs());
    let discount = conditions[0].overdispersion;
    assert!(discount > 1.5, "sessions fail as a whole: {discount}");
    let lacking: Vec<String> = judge.lacking().map(|lack| lack.to_string()).collect();
    assert_eq!(ending.lacking, lacking);
}

#[test]
fn a_recording_of_a_rollback_ends_at_the_same_window_for_the_same_reason() {
    for (later, fails_in, reason) in [
        (0, 2, "error_rate worse than legacy by 25%"),
        (40, 50, "latency worse than legacy by 10%"),
    ] {
        let ending = assert_agrees(&recorded(later, fails_in));
        assert!(ending.rollback);
        assert_eq!(ending.condition.as_deref(), Some(reason));
    }
}

/// A rollback, legacy alone, a resume, other criteria, another legacy: whatever changes evidence
/// without a window must be in the recording.
#[test]
fn a_recording_holds_all_that_was_done_to_the_judge() {
    let mut recording = recorded(0, 2);
    let goes_on = |recording: &mut Recording, windows: usize| {
        for _ in 0..windows {
            let window = recording.live.window(0, 30);
            recording.observe(window);
        }
    };
    for _ in 0..200 {
        let window = recording.live.window(0, 2);
        recording.learn(window);
    }
    let now = recording.live.now;
    recording.live.judge.refresh(now);
    goes_on(&mut recording, 499);
    let window = recording.live.window(0, 30);
    recording.observe_then(window, |judge, now| {
        let mut others = criteria();
        others.rollback.remove(0);
        others.alpha = 0.02;
        judge.reconfigure(others, now);
        judge.begin_stage(Aim::Complete, now);
    });
    goes_on(&mut recording, 500);
    let now = recording.live.now;
    recording.live.judge.forget(now);
    goes_on(&mut recording, 500);
    let samples = recording.samples.len();
    assert!(samples >= 15, "{samples}");
    assert_agrees(&recording);
}

/// Failures in a row are no evidence, and a recording may begin in their middle.
#[test]
fn a_recording_begins_with_the_failures_in_a_row_that_were_forgiven() {
    let failing = |live: &mut Live, length| {
        let mut window = live.window(0, 50);
        window.streak.length = length;
        window.streak.clusters[..9].fill(length / 9);
        window
    };
    let mut recording = Recording::begin();
    let window = failing(&mut recording.live, 90);
    recording.live.judge.learn(&window);
    recording.opening = opening("live", &recording.live.judge, recording.live.now);
    for length in [91, 92, 93] {
        let window = failing(&mut recording.live, length);
        recording.observe(window);
    }
    let index = recording.rows.len() - 1;
    recording.samples.push(sample(&recording.live.judge, index));
    assert!(!assert_agrees(&recording).rollback);
}

#[test]
fn a_replay_that_finds_something_else_says_what() {
    let recording = recorded(0, 50);
    let text = recording.text();
    let first = serde_json::from_str::<serde_json::Value>(&recording.samples[0]).expect("JSON");
    let live = first["evidence"]["error_rate > 5%"].to_string();
    let (rows, samples) = text.split_once(SAMPLES).expect("it has samples");
    let samples = samples.replacen(&live, "123.5", 1);
    let outcome = judged(&format!("{rows}{SAMPLES}{samples}"));
    let agreement = outcome.traces[0].agreement.clone().expect("a recording");
    assert_eq!((agreement.samples, agreement.different), (30, 1));
    let difference = format!("window 99: evidence of harm, error_rate > 5%: {live}, live 123.5");
    assert_eq!(agreement.differences, [difference]);
}

#[test]
fn other_criteria_are_judged_from_the_same_beginning_and_held_against_nothing() {
    let recording = recorded(0, 2);
    let text = recording.text();
    let lenient = text.replacen("\"alpha\":0.01", "\"alpha\":1e-9", 1);
    assert_ne!(text, lenient);
    let ending = judged(&lenient).traces.remove(0);
    assert_eq!(ending.agreement, None);
    assert_ne!(ending.rollback_window, recording.rolled_back);

    for (this, other, complaint) in [
        (
            "{\"beyond\":0.5}",
            "{\"beyond\":0.7}",
            "not counted at 0.7 s",
        ),
        (
            "{\"worse_than_legacy\":0.5}",
            "{\"worse_than_legacy\":0.6}",
            "tells nothing of others",
        ),
    ] {
        let other = text.replacen(this, other, 1);
        let problem = File::parse(&other).and_then(|file| file.judge());
        let problem = problem.expect_err("it was not counted").to_string();
        assert!(problem.contains(complaint), "{problem}");
    }
}

/// The state is stored while a block is open, and must not lose it.
#[test]
fn a_judge_restored_in_the_middle_of_a_block_goes_on_bit_for_bit() {
    let mut live = Live {
        judge: Judge::new(criteria(), at(0)),
        now: at(0),
        state: 11,
    };
    for index in 0..600 {
        let window = live.window(2, 30);
        live.observe(&window);
        if index % 7 == 0 {
            let stored = serde_json::to_string(live.judge.evidence()).expect("serialisable");
            let evidence: Evidence = serde_json::from_str(&stored).expect("readable");
            assert_eq!(&evidence, live.judge.evidence());
            live.judge = Judge::restore(criteria(), evidence, live.now);
        }
    }
    let mut whole = Live {
        judge: Judge::new(criteria(), at(0)),
        now: at(0),
        state: 11,
    };
    for _ in 0..600 {
        let window = whole.window(2, 30);
        whole.observe(&window);
    }
    assert_eq!(whole.judge.evidence(), live.judge.evidence());
}
