//! A recording of live windows, judged again.

use super::*;
use crate::policy::criteria::Requirement;
use crate::policy::judge::replay::{
    Mark, Outcome, RECORDED_COLUMNS, recorded_config, recorded_row,
};

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

/// Records 3 000 windows after as many that are not recorded, then judges the recording.
fn recorded_and_replayed(later: usize, fails_in: u64) -> (Live, Option<usize>, Outcome) {
    let mut live = Live {
        judge: Judge::new(criteria(), at(0)),
        now: at(0),
        state: 7,
    };
    for _ in 0..3_000 {
        let window = live.window(0, 50);
        live.observe(&window);
    }
    let config = recorded_config(&criteria(), &live.judge, live.now);
    let mut rows = Vec::new();
    let mut samples = Vec::new();
    let mut rolled_back = None;
    for index in 0..3_000 {
        let window = live.window(later, fails_in);
        let mark = if index == 1_000 {
            live.judge.begin_stage(Aim::Promote, live.now);
            Mark::Stage(Aim::Promote)
        } else {
            Mark::None
        };
        rows.push(recorded_row(&live.judge, mark, &window));
        let verdict = live.observe(&window);
        if index % 500 == 499 {
            samples.push((index, evidence(&live.judge)));
        }
        if matches!(verdict, Verdict::Fail(_)) {
            rolled_back = Some(index);
            break;
        }
    }
    let wanted: Vec<_> = samples
        .iter()
        .map(|(index, _)| serde_json::json!({ "window": index }))
        .collect();
    let text = serde_json::json!({ "traces": [{
        "name": "live",
        "config": config,
        "columns": RECORDED_COLUMNS,
        "windows": rows,
        "samples": wanted,
    }]})
    .to_string();
    let outcome = File::parse(&text)
        .and_then(|file| file.judge())
        .expect("a recording");
    for ((index, (harm, health)), sample) in samples.iter().zip(&outcome.traces[0].samples) {
        assert_eq!(sample.window, *index);
        let values = |evidence: &serde_json::Map<String, serde_json::Value>| -> Vec<f64> {
            evidence.values().map(number).collect()
        };
        let by_name = |names: Vec<String>, evidence: &[f64]| -> Vec<f64> {
            let mut named: Vec<_> = names.into_iter().zip(evidence.iter().copied()).collect();
            named.sort_by(|one, other| one.0.cmp(&other.0));
            named.into_iter().map(|(_, evidence)| evidence).collect()
        };
        let criteria = criteria();
        let harms = criteria.rollback.iter().map(Criterion::to_string).collect();
        let proofs = criteria
            .advance
            .iter()
            .map(Requirement::to_string)
            .collect();
        assert_eq!(
            values(&sample.evidence),
            by_name(harms, harm),
            "bit for bit"
        );
        assert_eq!(values(&sample.good), by_name(proofs, health), "bit for bit");
    }
    (live, rolled_back, outcome)
}

fn evidence(judge: &Judge) -> (Vec<f64>, Vec<f64>) {
    let harm = judge.evidence_of_harm().collect();
    (harm, judge.evidence_of_health().collect())
}

#[test]
fn a_recording_of_a_quiet_rollout_leads_to_the_same_evidence_and_discounts() {
    let (live, rolled_back, outcome) = recorded_and_replayed(0, 50);
    let ending = &outcome.traces[0];
    assert_eq!((rolled_back, ending.rollback_window), (None, None));
    assert_eq!(ending.samples.len(), 6);
    let phi = |condition: &Condition| condition.overdispersion;
    let found: Vec<f64> = ending.conditions.iter().map(|(_, c)| phi(c)).collect();
    let expected: Vec<f64> = live.judge.conditions().iter().map(phi).collect();
    assert_eq!(found, expected);
    assert!(found[0] > 1.5, "sessions fail as a whole: {}", found[0]);
    let lacking: Vec<String> = live.judge.lacking().map(|lack| lack.to_string()).collect();
    assert_eq!(ending.lacking, lacking);
}

#[test]
fn a_recording_of_a_rollback_ends_at_the_same_window_for_the_same_reason() {
    for (later, fails_in, reason) in [
        (0, 2, "error_rate worse than legacy by 25%"),
        (40, 50, "latency worse than legacy by 10%"),
    ] {
        let (_, rolled_back, outcome) = recorded_and_replayed(later, fails_in);
        assert!(rolled_back.is_some());
        let ending = &outcome.traces[0];
        assert_eq!(ending.rollback_window, rolled_back);
        assert_eq!(ending.condition.as_deref(), Some(reason));
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
