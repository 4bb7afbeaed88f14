//! The recording of a live rollout: how it is written, and whether its replay agrees with it.
//!
//! It is a file like any other, with one trace, and with two things more. `beginning` is all that
//! the judge knew when the recording began, so evidence need not start cold. The `samples` hold
//! what the live judge found after some of the windows, so a replay can say whether it is one.
//!
//! Pieces are text, because they are made while traffic flows: a row is written once, when its
//! window has been judged, and an export is no more than joining what is there.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::config::Setting;
use super::{Sample, Wanted};
use crate::policy::criteria::{Criteria, Harm, LatencyLimits, Metric};
use crate::policy::judge::streak::Streak;
use crate::policy::judge::window::{ArmCounts, Latencies, Window};
use crate::policy::judge::{Evidence, Judge};
use crate::policy::time::Timestamp;

/// What the rows of a recording hold.
const COLUMNS: [&str; 4] = ["at", "marks", "judged", "window"];

/// Between the rows and the samples of a recording. Rows, and samples, are separated by commas.
pub const SAMPLES: &str = "\n],\"samples\":[\n";

/// Different processors round the last bit of an exponential differently; what is one different
/// count moves evidence by far more.
const ROUNDING: f64 = 1e-9;

/// As many differences are named; the others are counted.
const NAMED: usize = 3;

/// What a live judge went by, and all it knew, when its recording began.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Beginning {
    at: Timestamp,
    /// The same as in `config`, unless somebody asks what others would have done.
    criteria: Criteria,
    evidence: Evidence,
    streak: Streak,
}

impl Beginning {
    /// A judge that goes on from here by `criteria`.
    pub(super) fn judge(&self, criteria: Criteria) -> Judge {
        let mut judge = Judge::restore(criteria, self.evidence.clone(), self.at);
        judge.streak.clone_from(&self.streak);
        judge
    }

    pub(super) const fn at(&self) -> Timestamp {
        self.at
    }

    /// Other criteria than the live ones, for the windows as they were counted.
    ///
    /// # Errors
    /// What the windows do not tell: slowness was counted for certain limits, and against legacy
    /// for certain comparisons, and the durations are gone.
    pub(super) fn asked(&self, mut criteria: Criteria) -> Result<Criteria, String> {
        let counted = self.criteria.latency_limits();
        let named = LatencyLimits::of(std::iter::once(&criteria));
        for (limits, counted) in [
            (&named.first_byte, &counted.first_byte),
            (&named.total, &counted.total),
        ] {
            if let Some(limit) = limits.iter().find(|limit| !counted.contains(limit)) {
                return Err(format!(
                    "config: slow answers were not counted at {limit} s, only at {counted:?}"
                ));
            }
        }
        criteria.counted = Some(counted);
        self.same_counts(&criteria)?;
        Ok(criteria)
    }

    /// Whether windows are counted for `criteria` as they are at the beginning.
    ///
    /// # Errors
    /// A sentence that says what is counted otherwise.
    pub(super) fn same_counts(&self, criteria: &Criteria) -> Result<(), String> {
        let sentence = if compared(criteria).ne(compared(&self.criteria)) {
            "slowness against legacy is counted for the live criteria and tells nothing of others"
        } else if criteria.latency_limits() != self.criteria.latency_limits() {
            "slow answers are counted at other limits from here on; only the live criteria know"
        } else {
            return Ok(());
        };
        Err(sentence.to_owned())
    }

    /// Whether a replay by `criteria` can find what the live judge found.
    pub(super) fn is_by(&self, criteria: &Criteria) -> bool {
        self.criteria == *criteria
    }
}

/// The comparisons for which windows hold counts of their own.
fn compared(criteria: &Criteria) -> impl Iterator<Item = (Metric, Harm)> {
    let criteria = criteria.rollback.iter();
    let compared = criteria.filter(|criterion| {
        criterion.metric.is_latency() && matches!(criterion.harm, Harm::WorseThanLegacy(_))
    });
    compared.map(|criterion| (criterion.metric, criterion.harm))
}

/// The text before the first row: what `judge` goes by and all it knows.
pub fn opening(name: &str, judge: &Judge, now: Timestamp) -> String {
    let beginning = Beginning {
        at: now,
        criteria: judge.criteria.clone(),
        evidence: judge.evidence.clone(),
        streak: judge.streak.clone(),
    };
    format!(
        "{{\"traces\":[{{\"name\":{},\"config\":{{\"criteria\":{}}},\"beginning\":{},\
         \"columns\":{},\"windows\":[\n",
        text(&name),
        text(&judge.criteria),
        text(&beginning),
        text(&COLUMNS),
    )
}

/// The row of a window that ended at `now` and that `judge` has just taken in. Of the marks before
/// it the first `known` are part of the beginning.
pub fn row(judge: &Judge, mut window: Window, known: usize, now: Timestamp) -> String {
    let look = judge.last_look();
    // Durations were needed to count what is slower than legacy, and that is counted.
    for arm in [&mut window.new, &mut window.legacy] {
        *arm = ArmCounts {
            first_byte: Latencies::default(),
            total: Latencies::default(),
            ..std::mem::take(arm)
        };
    }
    window.slower = Some(look.slower.clone());
    let marks = look.marks.get(known..).unwrap_or_default();
    text(&(now, marks, look.verdict.is_some(), window))
}

/// What `judge` found in row `index`, which it has just taken in.
pub fn sample(judge: &Judge, index: usize) -> String {
    let look = judge.last_look();
    // The verdict may have changed the criteria; what was found is named by those before.
    let criteria = Criteria {
        rollback: look.harm.iter().map(|figures| figures.of).collect(),
        advance: look.health.iter().map(|figures| figures.of).collect(),
        ..Criteria::default()
    };
    let sample = Setting::live(criteria).sample(index, look);
    text(&serde_json::json!({
        "window": sample.window,
        "evidence": sample.evidence,
        "good": sample.good,
        "overdispersion": sample.overdispersion,
        "verdict": sample.verdict,
    }))
}

/// The text after the last sample: why the recording ended, and whether more was wanted than it
/// may hold.
pub fn closing(ended: Option<&str>, is_truncated: bool) -> String {
    let (ended, truncated) = (text(&ended), text(&is_truncated));
    format!("\n],\"ended\":{ended},\"truncated\":{truncated}}}]}}\n")
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("a recording has no maps whose keys are not text")
}

/// Whether a replay finds what was found live.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Agreement {
    /// Samples of the live judge.
    pub samples: usize,
    /// How many of them are not the same within the rounding of other processors.
    pub different: usize,
    /// The first differences, in sentences.
    pub differences: Vec<String>,
    /// How many are not the same to the last bit.
    pub rounded: usize,
}

impl Agreement {
    /// Holds a live sample against the replay's; none if the replay judged nothing there.
    pub(super) fn compare(&mut self, live: &Wanted, replayed: Option<&Sample>) {
        self.samples += 1;
        let mut differences = Vec::new();
        let mut is_rounded = false;
        let window = live.window;
        match replayed {
            None => differences.push(format!("window {window}: nothing is judged there")),
            Some(sample) => {
                for (what, live, replayed) in [
                    ("evidence of harm", &live.evidence, &sample.evidence),
                    ("evidence of health", &live.good, &sample.good),
                    (
                        "overdispersion",
                        &live.overdispersion,
                        &sample.overdispersion,
                    ),
                ] {
                    for name in names(live, replayed) {
                        let (live, replayed) = (live.get(name), replayed.get(name));
                        is_rounded |= live != replayed;
                        if !is_same(live, replayed) {
                            let [live, replayed] = [live, replayed].map(number);
                            differences.push(format!(
                                "window {window}: {what}, {name}: {replayed}, live {live}"
                            ));
                        }
                    }
                }
                if live.verdict.as_ref() != Some(&sample.verdict) {
                    let live = live.verdict.as_deref().unwrap_or("unknown");
                    let verdict = &sample.verdict;
                    differences.push(format!("window {window}: verdict {verdict}, live {live}"));
                }
            }
        }
        self.rounded += usize::from(is_rounded);
        self.different += usize::from(!differences.is_empty());
        let room = NAMED.saturating_sub(self.differences.len());
        self.differences.extend(differences.into_iter().take(room));
    }

    /// Whether the replay found what was found live.
    pub const fn is_whole(&self) -> bool {
        self.different == 0
    }
}

/// What either of them names.
fn names<'a>(
    live: &'a Map<String, Value>,
    replayed: &'a Map<String, Value>,
) -> impl Iterator<Item = &'a String> {
    let missing = live.keys().filter(|name| !replayed.contains_key(*name));
    replayed.keys().chain(missing)
}

fn is_same(live: Option<&Value>, replayed: Option<&Value>) -> bool {
    let [Some(live), Some(replayed)] =
        [live, replayed].map(|number| number.and_then(Value::as_f64))
    else {
        return live == replayed;
    };
    (live - replayed).abs() <= ROUNDING * live.abs().max(replayed.abs())
}

fn number(number: Option<&Value>) -> String {
    number.map_or_else(|| "nothing".to_owned(), Value::to_string)
}
