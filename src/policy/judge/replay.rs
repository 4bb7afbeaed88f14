//! What would it have done? Recorded windows, judged again.
//!
//! A replay that has its own reading of the rules proves nothing about the live judge, so there is
//! none here: a file's rows become [`Window`]s, its settings become
//! [`Criteria`](crate::policy::criteria::Criteria), and the same [`Judge`] gets both. What the live
//! judge derives from durations (which requests were slower than legacy) a recording holds as
//! counts, since that is what it judged.
//!
//! A file has `traces` and may have `kernels`, single calls with their arguments, to check other
//! implementations against this one. A trace has `config`, `columns` that name what the rows of
//! `windows` hold, and `samples` that say after which windows the evidence is wanted. The `config`
//! has the flat names of the analysis specification, laid over the file's `defaults`; or, in a
//! [`recorded`] live rollout, its criteria.

mod config;
mod functions;
pub mod recorded;
mod rows;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use self::config::Setting;
use self::recorded::{Agreement, Beginning};
use self::rows::Reader;
use super::window::Window;
use super::{Breach, Judge, Look, Mark, Verdict};
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
    /// What was known when a live rollout's recording began; nothing, if absent.
    beginning: Option<Beginning>,
    columns: Vec<String>,
    windows: Vec<Vec<Value>>,
    #[serde(default)]
    samples: Vec<Wanted>,
    /// Whether more was wanted than a recording may hold.
    #[serde(default)]
    truncated: bool,
}

/// After which window the evidence is wanted; in a recording, also what the live judge found.
#[derive(Debug, Deserialize)]
struct Wanted {
    window: usize,
    #[serde(default)]
    evidence: Map<String, Value>,
    #[serde(default)]
    good: Map<String, Value>,
    #[serde(default)]
    overdispersion: Map<String, Value>,
    verdict: Option<String>,
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
    /// Whether the split is rolled back; nothing is judged after that, except in a recording, which
    /// tells what was done then.
    pub rollback: bool,
    /// The first window, from 0, whose verdict is a rollback.
    pub rollback_window: Option<usize>,
    /// The criterion that is the reason.
    pub condition: Option<String>,
    /// The first window whose verdict lets the split advance.
    pub first_advance: Option<usize>,
    /// The evidence after the windows for which it is wanted.
    pub samples: Vec<Sample>,
    /// The criteria as they stand at the rollback or at the end, with their names.
    #[serde(skip)]
    pub conditions: Vec<(String, Condition)>,
    /// The requirements as they stand then, with their names.
    #[serde(skip)]
    pub needs: Vec<(String, Need)>,
    /// What an advance lacks then, in sentences.
    #[serde(skip)]
    pub lacking: Vec<String>,
    /// Whether a recording's replay finds what was found live; none where that is not known, or
    /// other criteria are asked about.
    #[serde(skip)]
    pub agreement: Option<Agreement>,
    /// Whether the recording was cut short.
    #[serde(skip)]
    pub is_truncated: bool,
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
    /// By which the evidence is divided, of each criterion and requirement.
    #[serde(skip)]
    pub overdispersion: Map<String, Value>,
    /// What was found, and for which criterion.
    #[serde(skip)]
    pub verdict: String,
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
        // Names follow the criteria, which may change on the way.
        let mut setting = setting.clone();
        let beginning = self.beginning.as_ref();
        let is_as_live = beginning.is_some_and(|it| it.is_by(&setting.criteria));
        let asked = beginning.filter(|_| !is_as_live);
        if let Some(beginning) = asked {
            setting.criteria = beginning.asked(setting.criteria)?;
        }
        let criteria = setting.criteria.clone();
        let mut now = beginning.map_or(Timestamp::default(), Beginning::at);
        let mut judge = match beginning {
            Some(beginning) => beginning.judge(criteria),
            None => Judge::new(criteria, now),
        };
        let mut wanted: Vec<&Wanted> = self.samples.iter().collect();
        wanted.sort_by_key(|wanted| wanted.window);
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
            agreement: is_as_live.then(Agreement::default),
            is_truncated: self.truncated,
        };
        for (index, cells) in self.windows.iter().enumerate() {
            let row = reader
                .read(cells)
                .map_err(|message| format!("windows[{index}]: {message}"))?;
            let begin = now;
            now = row.at.unwrap_or(now.plus(duration_of(&row.window)));
            for mark in row.marks {
                match mark {
                    Mark::Stage(aim) => judge.begin_stage(aim, begin),
                    Mark::Afresh => judge.refresh(begin),
                    Mark::Forgotten => judge.forget(begin),
                    Mark::Criteria(criteria) => match asked {
                        // Whoever asks about other criteria asks about no third ones.
                        Some(beginning) => beginning
                            .same_counts(&criteria)
                            .map_err(|message| format!("windows[{index}]: {message}"))?,
                        None => {
                            setting = Setting::live((*criteria).clone());
                            judge.reconfigure(*criteria, begin);
                        }
                    },
                }
            }
            if !row.is_judged {
                judge.learn(&row.window);
                continue;
            }
            let verdict = judge.observe(&row.window, now);
            // Where nothing is judged there is no evidence to show.
            while let Some(unjudged) = wanted.next_if(|wanted| wanted.window < index) {
                ending.compare(unjudged, None);
            }
            if let Some(wanted) = wanted.next_if(|wanted| wanted.window == index) {
                let sample = setting.sample(index, judge.last_look());
                ending.compare(wanted, Some(&sample));
                ending.samples.push(sample);
            }
            match verdict {
                Verdict::Pass if !ending.rollback => {
                    ending.first_advance.get_or_insert(index);
                }
                Verdict::Fail(breach) if !ending.rollback => {
                    ending.rollback = true;
                    ending.rollback_window = Some(index);
                    ending.condition = Some(setting.name_of(&breach));
                    setting.finish(&mut ending, &judge);
                    // What would have been done then, only a recording tells.
                    if self.beginning.is_none() {
                        break;
                    }
                }
                _ => {}
            }
        }
        for unjudged in wanted {
            ending.compare(unjudged, None);
        }
        if !ending.rollback {
            setting.finish(&mut ending, &judge);
        }
        Ok(ending)
    }
}

impl Ending {
    fn compare(&mut self, live: &Wanted, replayed: Option<&Sample>) {
        // A sample without a verdict only asks for the evidence.
        if let Some(agreement) = &mut self.agreement
            && live.verdict.is_some()
        {
            agreement.compare(live, replayed);
        }
    }
}

impl Setting {
    fn sample(&self, window: usize, look: &Look) -> Sample {
        let harm = || self.conditions.iter().cloned().zip(&look.harm);
        let health = || self.gates.iter().cloned().zip(&look.health);
        let of_harm = harm().map(|(name, it)| (name, it.overdispersion.into()));
        let of_health = health().map(|(name, it)| (name, it.overdispersion.into()));
        Sample {
            window,
            evidence: harm()
                .map(|(name, it)| (name, it.evidence.into()))
                .collect(),
            good: health()
                .map(|(name, it)| (name, it.evidence.into()))
                .collect(),
            overdispersion: of_harm.chain(of_health).collect(),
            verdict: look
                .verdict
                .as_ref()
                .map_or_else(String::new, |verdict| self.words(verdict)),
        }
    }

    fn words(&self, verdict: &Verdict) -> String {
        match verdict {
            Verdict::Pass => "pass".to_owned(),
            Verdict::Fail(breach) => format!("fail: {}", self.name_of(breach)),
            Verdict::Hold(breach, None) => format!("hold: {}", self.name_of(breach)),
            Verdict::Hold(breach, Some(guard)) => {
                format!("hold: {}, withheld: {guard}", self.name_of(breach))
            }
            Verdict::Inconclusive(_) => "inconclusive".to_owned(),
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

fn duration_of(window: &Window) -> std::time::Duration {
    std::time::Duration::try_from_secs_f64(window.seconds).unwrap_or_default()
}
