//! What would it have done? Recorded windows, judged again.
//!
//! A replay that has its own reading of the rules proves nothing about the live judge, so there is
//! none here: a file's rows become [`Window`]s, its settings become [`Criteria`], and the same
//! [`Judge`] gets both. What the live judge derives from durations (which requests were slower than
//! legacy) a recording holds as counts, since that is what it judged.
//!
//! A file has `traces` and may have `kernels`, single calls with their arguments, to check other
//! implementations against this one. A trace has `config`, `columns` that name what the rows of
//! `windows` hold, and `samples` that say after which windows the evidence is wanted. The `config`
//! has the flat names of the analysis specification, laid over the file's `defaults`; or, in a
//! recording of a live rollout, the criteria and the evidence at its beginning (see
//! [`recorded_config`] and [`recorded_row`]).

mod config;
mod functions;
mod rows;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::rows::Mark;

use self::config::Setting;
use self::rows::Reader;
use super::window::Window;
use super::{Breach, Judge, Verdict};
use crate::policy::criteria::Criteria;
use crate::policy::rollout::{Condition, Need};
use crate::policy::time::Timestamp;

/// A file of recorded windows.
#[derive(Debug, Deserialize)]
pub struct File {
    #[serde(default)]
    defaults: Map<String, Value>,
    #[serde(default)]
    kernels: Vec<Map<String, Value>>,
    #[serde(default)]
    traces: Vec<Trace>,
}

/// A recorded sequence of windows.
#[derive(Debug, Deserialize)]
struct Trace {
    #[serde(default)]
    name: String,
    #[serde(default)]
    config: Map<String, Value>,
    columns: Vec<String>,
    windows: Vec<Vec<Value>>,
    #[serde(default)]
    samples: Vec<Wanted>,
}

/// After which window the evidence is wanted.
#[derive(Debug, Deserialize)]
struct Wanted {
    window: usize,
}

/// What a file's contents lead to, in its order.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// What each call returns.
    pub kernels: Vec<Vec<f64>>,
    /// How each trace ends.
    pub traces: Vec<Ending>,
}

/// How a trace ends.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ending {
    /// The trace's name.
    #[serde(skip)]
    pub name: String,
    /// How many windows it has.
    #[serde(skip)]
    pub windows: usize,
    /// Whether the split is rolled back; nothing is judged after that.
    pub rollback: bool,
    /// The first window, from 0, whose verdict is a rollback.
    pub rollback_window: Option<usize>,
    /// The criterion that is the reason.
    pub condition: Option<String>,
    /// The first window whose verdict lets the split advance.
    pub first_advance: Option<usize>,
    /// The evidence after the windows for which it is wanted.
    pub samples: Vec<Sample>,
    /// The criteria as they stand at the end, with their names.
    #[serde(skip)]
    pub conditions: Vec<(String, Condition)>,
    /// The requirements as they stand at the end, with their names.
    #[serde(skip)]
    pub needs: Vec<(String, Need)>,
    /// What an advance lacks at the end, in sentences.
    #[serde(skip)]
    pub lacking: Vec<String>,
}

/// The evidence after one window, by names.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// The window, from 0.
    pub window: usize,
    /// Of each criterion.
    pub evidence: Map<String, Value>,
    /// Of each requirement.
    pub good: Map<String, Value>,
}

/// Why a file cannot be judged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct Problem {
    /// Where, such as `traces[3] "slow"`.
    pub place: String,
    /// What is wrong with it.
    pub message: String,
}

impl File {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Problem`] if the text is no JSON of the right shape.
    pub fn parse(text: &str) -> Result<File, Problem> {
        // A list would do for a structure whose fields are all optional, and be an empty file.
        let object: Result<Map<String, Value>, _> = serde_json::from_str(text);
        let file = object.and_then(|object| File::deserialize(Value::Object(object)));
        file.map_err(|error| Problem {
            place: "the file".to_owned(),
            message: error.to_string(),
        })
    }

    /// Makes every call and judges every trace.
    ///
    /// # Errors
    /// [`Problem`] with the first part that cannot be understood.
    pub fn judge(&self) -> Result<Outcome, Problem> {
        let kernels = self.kernels.iter().enumerate().map(|(index, call)| {
            functions::call(call).map_err(|message| Problem {
                place: format!("kernels[{index}]"),
                message,
            })
        });
        let traces = self.traces.iter().enumerate().map(|(index, trace)| {
            trace.judge(&self.defaults).map_err(|message| Problem {
                place: format!("traces[{index}] \"{}\"", trace.name),
                message,
            })
        });
        Ok(Outcome {
            kernels: kernels.collect::<Result<_, _>>()?,
            traces: traces.collect::<Result<_, _>>()?,
        })
    }
}

impl Trace {
    fn judge(&self, defaults: &Map<String, Value>) -> Result<Ending, String> {
        let setting = Setting::of(defaults, &self.config, &self.columns)?;
        let reader = Reader::new(&self.columns, &setting)?;
        let mut judge = setting.judge();
        let mut now = setting.start;
        let mut wanted: Vec<usize> = self.samples.iter().map(|sample| sample.window).collect();
        wanted.sort_unstable();
        let mut wanted = wanted.into_iter().peekable();
        let mut ending = Ending {
            name: self.name.clone(),
            windows: self.windows.len(),
            rollback: false,
            rollback_window: None,
            condition: None,
            first_advance: None,
            samples: Vec::new(),
            conditions: Vec::new(),
            needs: Vec::new(),
            lacking: Vec::new(),
        };
        for (index, row) in self.windows.iter().enumerate() {
            let (mark, window) = reader
                .read(row)
                .map_err(|message| format!("windows[{index}]: {message}"))?;
            let begin = now;
            now = now.plus(duration_of(&window));
            match mark {
                Mark::None => {}
                Mark::Stage(aim) => judge.begin_stage(aim, begin),
                Mark::Afresh => judge.refresh(begin),
                Mark::Idle => {
                    judge.learn(&window);
                    continue;
                }
            }
            let verdict = judge.observe(&window, now);
            // Where nothing is judged there is no evidence to show.
            while wanted.next_if(|window| *window < index).is_some() {}
            if wanted.next_if_eq(&index).is_some() {
                ending.samples.push(setting.sample(index, &judge));
            }
            match verdict {
                Verdict::Pass => {
                    ending.first_advance.get_or_insert(index);
                }
                Verdict::Fail(breach) => {
                    ending.rollback = true;
                    ending.rollback_window = Some(index);
                    ending.condition = Some(setting.name_of(&breach));
                    break;
                }
                Verdict::Hold(..) | Verdict::Inconclusive(_) => {}
            }
        }
        setting.finish(&mut ending, &judge);
        Ok(ending)
    }
}

impl Setting {
    fn judge(&self) -> Judge {
        match &self.evidence {
            Some(evidence) => Judge::restore(self.criteria.clone(), evidence.clone(), self.start),
            None => Judge::new(self.criteria.clone(), self.start),
        }
    }

    fn sample(&self, window: usize, judge: &Judge) -> Sample {
        let named = |names: &[String], evidence: &mut dyn Iterator<Item = f64>| {
            let names = names.iter().cloned();
            names.zip(evidence.map(Value::from)).collect()
        };
        Sample {
            window,
            evidence: named(&self.conditions, &mut judge.evidence_of_harm()),
            good: named(&self.gates, &mut judge.evidence_of_health()),
        }
    }

    fn name_of(&self, breach: &Breach) -> String {
        let Breach::Limit(limit) = breach else {
            return "hard_fail".to_owned();
        };
        let criteria = self.criteria.rollback.iter();
        let named = criteria.zip(&self.conditions);
        let mut names = named.filter(|(criterion, _)| **criterion == limit.criterion);
        names
            .next()
            .map_or_else(|| limit.criterion.to_string(), |(_, name)| name.clone())
    }

    fn finish(&self, ending: &mut Ending, judge: &Judge) {
        let conditions = self.conditions.iter().cloned();
        ending.conditions = conditions.zip(judge.conditions()).collect();
        let needs = self.gates.iter().cloned();
        ending.needs = needs.zip(judge.needs()).collect();
        ending.lacking = judge.lacking().map(|lack| lack.to_string()).collect();
    }
}

/// What the rows of a live rollout's recording hold, for the trace's `columns`.
pub const RECORDED_COLUMNS: [&str; 2] = ["mark", "window"];

/// The `config` of a live rollout's recording: what the judge goes by, and all it knows.
pub fn recorded_config(criteria: &Criteria, judge: &Judge, now: Timestamp) -> Value {
    serde_json::json!({
        "criteria": criteria,
        "evidence": judge.evidence(),
        "start": now,
    })
}

/// One row of a live rollout's recording; to be made before `judge` gets the window.
pub fn recorded_row(judge: &Judge, mark: Mark, window: &Window) -> Value {
    rows::write(mark, window, judge.slower(window))
}

fn duration_of(window: &Window) -> std::time::Duration {
    std::time::Duration::try_from_secs_f64(window.seconds).unwrap_or_default()
}
