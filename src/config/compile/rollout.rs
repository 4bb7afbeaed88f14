//! Who moves a split's share: a person, or the engine along a plan.
//!
//! An option that would do nothing is refused rather than ignored: whoever writes
//! `rollback_to: previous_stage` relies on it.

use std::time::Duration;

use jiff::tz::{TimeZone, TimeZoneDatabase};

use super::Compiler;
use super::criteria::Draft;
use crate::config::check::closest;
use crate::config::notation::Written;
use crate::config::raw::{self, List};
use crate::policy::calendar::{Calendar, WeeklyWindow};
use crate::policy::criteria::Criteria;
use crate::policy::duration;
use crate::policy::plan::{Course, LARGEST_BLIND_STEP, OnTimeout, Plan, Rules, Stage};
use crate::policy::share::Share;

/// All that a split says about how its share moves.
pub(super) struct March {
    pub(super) share: Option<Share>,
    pub(super) stages: Option<List<raw::Stage>>,
    pub(super) rollout: raw::Rollout,
    pub(super) draft: Draft,
    /// How criteria are judged.
    pub(super) settings: Criteria,
}

/// What stages have that say nothing of their own.
struct Wide {
    draft: Draft,
    settings: Criteria,
    approval: bool,
    zone: TimeZone,
    calendar: Option<Calendar>,
    timeout: Option<Duration>,
    on_timeout: OnTimeout,
}

impl Compiler<'_, '_> {
    pub(super) fn course(&mut self, split: &str, march: March) -> Course {
        let by_hand = |share, criteria| Course::ByHand {
            share,
            criteria: Box::new(criteria),
        };
        let March {
            share,
            stages,
            rollout,
            draft,
            settings,
        } = march;
        let (observe, min_requests) = (rollout.observe.0, rollout.min_requests);
        let settings = Criteria {
            observe,
            min_requests,
            ..settings
        };
        let Some(stages) = stages else {
            // Nothing is to be proven where nothing advances.
            let criteria = Criteria {
                advance: Vec::new(),
                signal_advance: Vec::new(),
                ..draft.criteria(&settings)
            };
            self.judge_latency_limits(split, &[&criteria]);
            if !self.is_damaged(split, "stages") {
                self.refuse_idle_options(split);
            }
            return by_hand(share, criteria);
        };
        if share.is_some() {
            let remedy = "keep `share` to move it by hand, or `stages` to have it moved";
            self.problem(
                &format!("{split}.share"),
                "there are `stages` too, and they decide the share",
                remedy,
            );
        }
        let pace = rules(&rollout);
        let windows = self.calendar(&format!("{split}.rollout.windows"), rollout.windows, None);
        let (zone, calendar) = windows.unzip();
        let wide = Wide {
            draft,
            settings,
            approval: rollout.approval,
            zone: zone.unwrap_or(TimeZone::UTC),
            calendar,
            timeout: rollout.timeout.map(|Written(timeout)| timeout.0),
            on_timeout: rollout.on_timeout.into(),
        };
        let (numbers, stages) = self.stages(split, &wide, stages);
        self.judge_steps(split, &numbers, &stages);
        self.judge_last(split, &numbers, &stages);
        self.judge_timeouts(split, &numbers, &stages);
        self.judge_pace(split, &numbers, &stages, &pace);
        let criteria: Vec<&Criteria> = stages.iter().map(|stage| &stage.criteria).collect();
        self.judge_latency_limits(split, &criteria);
        // What is no plan was reported, and the result is thrown away.
        Plan::new(stages).map_or_else(|_| by_hand(None, Criteria::default()), Course::Planned)
    }

    /// The sound stages, and the number of each in the file.
    fn stages(
        &mut self,
        split: &str,
        wide: &Wide,
        stages: List<raw::Stage>,
    ) -> (Vec<usize>, Vec<Stage>) {
        let mut drafts = Vec::new();
        let mut numbers = Vec::new();
        let mut compiled = Vec::new();
        for (index, stage) in stages.numbered() {
            let own = match stage {
                raw::Stage::Share(share) => raw::OwnStage::at(share),
                raw::Stage::Own(own) => *own,
            };
            let Some(Written(share)) = own.share else {
                continue;
            };
            let path = format!("{split}.stages[{index}].windows");
            let own_calendar = self.calendar(&path, own.windows, Some(&wide.zone));
            let draft = self.stage_draft(split, index, &wide.draft, own.rollback, own.advance);
            let settings = Criteria {
                observe: own
                    .observe
                    .map_or(wide.settings.observe, |Written(time)| time),
                min_requests: own.min_requests.unwrap_or(wide.settings.min_requests),
                ..wide.settings.clone()
            };
            let own_timeout = own.timeout.map(|Written(timeout)| timeout.0);
            numbers.push(index);
            compiled.push(Stage {
                share,
                criteria: draft.criteria(&settings),
                approval: own.approval.unwrap_or(wide.approval),
                calendar: own_calendar
                    .map(|(_, calendar)| calendar)
                    .or_else(|| wide.calendar.clone()),
                timeout: own_timeout.or(wide.timeout),
                on_timeout: own.on_timeout.map_or(wide.on_timeout, OnTimeout::from),
            });
            drafts.push(draft);
        }
        self.judge_contradictions(split, &drafts);
        (numbers, compiled)
    }

    /// A zone and its windows; none where none were written.
    fn calendar(
        &mut self,
        path: &str,
        windows: Option<raw::Windows>,
        otherwise: Option<&TimeZone>,
    ) -> Option<(TimeZone, Calendar)> {
        let windows = windows?;
        let zone = match windows.time_zone {
            Some(name) => self.time_zone(&format!("{path}.time_zone"), &name),
            None => otherwise.cloned(),
        };
        let zone = zone.unwrap_or(TimeZone::UTC);
        let open = windows.open.into_iter().flat_map(List::numbered);
        let open: Vec<(usize, WeeklyWindow)> = open
            .map(|(index, Written(window))| (index, window))
            .collect();
        self.judge_commas(&format!("{path}.open"), &open);
        let open = open.into_iter().map(|(_, window)| window).collect();
        Some((zone.clone(), Calendar::new(zone, open)))
    }

    /// In a list with brackets YAML takes `Mon,Wed 22:00-02:00` apart, and would open the whole of
    /// Monday to somebody who meant two nights.
    fn judge_commas(&mut self, list: &str, windows: &[(usize, WeeklyWindow)]) {
        for pair in windows.windows(2) {
            let [(first, day), (second, next)] = pair else {
                continue;
            };
            let place = |index: &usize| self.positions.get(&format!("{list}[{index}]"));
            let (Some(begin), Some(end)) = (place(first), place(second)) else {
                continue;
            };
            // A name of three letters and a comma, with nothing after it.
            let is_one_word = begin.line == end.line && end.column == begin.column + 4;
            if is_one_word && day.is_whole_day() && !next.is_whole_day() {
                let message = format!("YAML reads two windows here, all of `{day}` and `{next}`");
                let remedy = format!(
                    "put `\"{day},{next}\"` in quotes, or a space after the comma if two are meant"
                );
                self.problem(&format!("{list}[{first}]"), message, remedy);
            }
        }
    }

    fn time_zone(&mut self, key: &str, name: &str) -> Option<TimeZone> {
        // What the machine has installed must not decide when a share rises.
        let database = TimeZoneDatabase::bundled();
        if let Ok(zone) = database.get(name) {
            return Some(zone);
        }
        let names: Vec<String> = database.available().map(|name| name.to_string()).collect();
        let remedy = match closest(name, names.iter().map(String::as_str)) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => {
                "write a name of the IANA database, such as `Europe/Berlin`, or `UTC`".to_owned()
            }
        };
        self.problem(key, format!("there is no time zone `{name}`"), remedy);
        None
    }

    /// Options that only a plan obeys.
    fn refuse_idle_options(&mut self, split: &str) {
        for option in [
            "advance",
            "rollout.observe",
            "rollout.min_requests",
            "rollout.approval",
            "rollout.windows",
            "rollout.timeout",
            "rollout.on_timeout",
            "rollout.cool_down",
            "rollout.max_changes_per_day",
            "rollout.rollback_to",
            "rollout.rollback_ramp",
        ] {
            let key = format!("{split}.{option}");
            if self.is_written(&key) {
                let message = "this would do nothing: the split has no `stages`";
                let remedy = "add `stages`, or remove it; without a plan a person moves the share, \
                              and a rollback goes to 0 at once";
                self.problem(&key, message, remedy);
            }
        }
    }

    /// Shares that do not rise, and a first step that nothing speaks for.
    fn judge_steps(&mut self, split: &str, numbers: &[usize], stages: &[Stage]) {
        let steps = numbers.windows(2).zip(stages.windows(2));
        for (number, step) in steps {
            let (before, share) = (step[0].share, step[1].share);
            let relation = match share.cmp(&before) {
                std::cmp::Ordering::Greater => continue,
                std::cmp::Ordering::Equal => "repeats",
                std::cmp::Ordering::Less => "falls below",
            };
            let message = format!(
                "stage {} ({share}) {relation} stage {} ({before})",
                number[1] + 1,
                number[0] + 1,
            );
            let remedy = "let each stage have a larger share than the one before it";
            self.problem(&format!("{split}.stages[{}]", number[1]), message, remedy);
        }
        let idle = stages.iter().position(|stage| stage.share == Share::ZERO);
        let first = idle.map_or(0, |idle| idle + 1);
        let is_approved = idle.is_some_and(|idle| stages[idle].approval);
        if let (Some(stage), Some(number)) = (stages.get(first), numbers.get(first))
            && stage.share > LARGEST_BLIND_STEP
            && !is_approved
        {
            let message = format!(
                "the first step, to {}, waits for an approval: before it nothing is proven",
                stage.share
            );
            let remedy = "say so with `{share: 0%, approval: true}` before it, or begin with at \
                          most 10%";
            self.warning(&format!("{split}.stages[{number}]"), message, remedy);
        }
    }

    /// What only leads to a larger share, in the stage after which there is none.
    fn judge_last(&mut self, split: &str, numbers: &[usize], stages: &[Stage]) {
        let (Some(number), Some(stage)) = (numbers.last(), stages.last()) else {
            return;
        };
        // One that is damaged is reported, and may be the last.
        if self.is_written(&format!("{split}.stages[{}]", number + 1)) {
            return;
        }
        let own = |option: &str| format!("{split}.stages[{number}].{option}");
        for (key, is_meant) in [(own("approval"), stage.approval), (own("windows"), true)] {
            if is_meant && self.is_written(&key) {
                let message = "this would do nothing: no larger share comes after the last stage";
                let remedy = "move it to the stage before, which it is to hold back, or remove it";
                self.problem(&key, message, remedy);
            }
        }
    }

    fn judge_timeouts(&mut self, split: &str, numbers: &[usize], stages: &[Stage]) {
        let wide = format!("{split}.rollout");
        let remedy = "add a `timeout`, or remove it: nothing ever times out";
        let message = "this would do nothing: there is no `timeout`";
        if self.is_written(&format!("{wide}.on_timeout"))
            && stages.iter().all(|stage| stage.timeout.is_none())
        {
            self.problem(&format!("{wide}.on_timeout"), message, remedy);
        }
        let mut reported = Vec::new();
        for (number, stage) in numbers.iter().zip(stages) {
            let own = format!("{split}.stages[{number}]");
            let Some(timeout) = stage.timeout else {
                if self.is_written(&format!("{own}.on_timeout")) {
                    self.problem(&format!("{own}.on_timeout"), message, remedy);
                }
                continue;
            };
            let observe = stage.criteria.observe;
            if timeout < observe {
                let key = [format!("{own}.timeout"), format!("{own}.observe")]
                    .into_iter()
                    .find(|key| self.is_written(key))
                    .unwrap_or_else(|| format!("{wide}.timeout"));
                // Stages with nothing of their own repeat one mistake.
                if reported.contains(&key) {
                    continue;
                }
                let message = format!(
                    "stage {} would time out after {}, before it was observed for {}",
                    number + 1,
                    duration::print(timeout),
                    duration::print(observe),
                );
                let remedy = "let `timeout` be longer than `observe`";
                self.problem(&key, message, remedy);
                reported.push(key);
            }
        }
    }

    /// Plans that are sound and yet end or stop where hardly anybody means them to.
    fn judge_pace(&mut self, split: &str, numbers: &[usize], stages: &[Stage], rules: &Rules) {
        if let (Some(number), Some(last)) = (numbers.last(), stages.last())
            && last.share < Share::ALL
        {
            let message = format!(
                "the plan ends at {}: the engine goes no further",
                last.share
            );
            let remedy = "add `100%` at the end, unless it is meant to stay there";
            self.warning(&format!("{split}.stages[{number}]"), message, remedy);
        }
        let timeouts = stages.iter().filter_map(|stage| stage.timeout);
        if let Some(timeout) = timeouts.min().filter(|timeout| *timeout < rules.cool_down) {
            let message = format!(
                "a stage that times out after {} ends within the cool-down of {}",
                duration::print(timeout),
                duration::print(rules.cool_down),
            );
            let remedy = "let `timeout` be longer than `cool_down`";
            self.warning(&format!("{split}.rollout.cool_down"), message, remedy);
        }
        let steps = stages.iter().filter(|stage| stage.share > Share::ZERO);
        let (steps, most) = (steps.count(), rules.max_changes_per_day);
        if most < steps {
            let message = format!(
                "the plan has {steps} steps, and only {most} are taken within a day: it waits on \
                 the way"
            );
            let remedy = "allow as many as there are steps, unless it is meant to take days";
            let key = format!("{split}.rollout.max_changes_per_day");
            self.warning(&key, message, remedy);
        }
    }

    /// Whether the file has this key; a default has no place in it.
    fn is_written(&self, key: &str) -> bool {
        self.positions.contains_key(key)
    }
}

impl raw::OwnStage {
    /// A stage with nothing of its own but its share.
    const fn at(share: Written<Share>) -> Self {
        Self {
            share: Some(share),
            observe: None,
            min_requests: None,
            approval: None,
            windows: None,
            timeout: None,
            on_timeout: None,
            advance: None,
            rollback: None,
        }
    }
}

/// Rules of the whole rollout.
pub(super) fn rules(rollout: &raw::Rollout) -> Rules {
    Rules {
        retreat: rollout.rollback_to.into(),
        ramp: rollout.rollback_ramp.0,
        cool_down: rollout.cool_down.0,
        max_changes_per_day: rollout.max_changes_per_day,
        advise: rollout.advise,
    }
}
