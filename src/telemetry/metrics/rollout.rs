//! What `/metrics` says of a rollout: where it stands, what it waits for, and all its evidence.
//!
//! A dashboard that has to ask for the status as well shows two moments at once, and an alert
//! cannot ask at all. So each figure that `cutover status` shows of a rollout is here too, from the
//! same structures. What is not known is absent rather than 0, since an error rate of 0 without a
//! single request reads like good news.

use super::exporter::Exporter;
use super::scene::SplitScene;
use super::{logarithm, truth};
use crate::policy::arm::Arm;
use crate::policy::rollout::{Condition, Decision, Need, Outlook, Phase, StageProgress};
use crate::policy::signal::SignalState;

/// Everything of one rollout.
pub(super) fn rollout(exporter: &Exporter, split: &SplitScene<'_>) {
    let gauge = |name, help, value| {
        exporter
            .gauge(name, help)
            .set(&[("split", split.name)], value)
    };
    let outlook = split.outlook;
    let phase = exporter.gauge(
        "cutover_phase",
        "1 for the phase that the rollout is in, 0 for the others.",
    );
    for candidate in Phase::ALL {
        let labels = [("split", split.name), ("phase", candidate.as_str())];
        phase.set(&labels, truth(candidate == split.phase));
    }
    let decisions = exporter.counter(
        "cutover_decisions_total",
        "Decisions announced since the start, by what was done.",
    );
    for (action, count) in Decision::ACTIONS.into_iter().zip(split.announced) {
        decisions.set(&[("split", split.name), ("action", action)], count);
    }
    gauge(
        "cutover_split_rolled_back",
        "1 while a rollback latches the share, else 0.",
        truth(split.phase == Phase::RolledBack),
    );
    gauge(
        "cutover_held",
        "1 while a breach is held instead of rolled back, else 0.",
        truth(outlook.held),
    );
    gauge(
        "cutover_advise_only",
        "1 while the engine only says what it would do, else 0.",
        truth(outlook.advise),
    );
    if let Some(seconds) = outlook.seconds_since_change {
        gauge(
            "cutover_seconds_since_change",
            "Watched seconds since the share last changed; absent if it did not within a day.",
            seconds,
        );
    }
    if !outlook.stages.is_empty() {
        plan(&gauge, outlook);
    }
    for condition in split.conditions {
        self::condition(exporter, split.name, condition);
    }
    for need in &outlook.needs {
        gate(exporter, split.name, need);
    }
    for signal in split.signals {
        self::signal(exporter, split.name, signal);
    }
}

/// The plan: where it is, and what its next step waits for.
fn plan(gauge: &impl Fn(&'static str, &'static str, f64), outlook: &Outlook) {
    gauge(
        "cutover_stages",
        "Stages that the plan has.",
        outlook.stages.len() as f64,
    );
    gauge(
        "cutover_stage",
        "The present stage of the plan, from 1; 0 before the first.",
        outlook.stage.as_ref().map_or(0.0, |it| it.number as f64),
    );
    gauge(
        "cutover_next_step_waits",
        "How many things the next step of the plan waits for.",
        outlook.lacking.len() as f64,
    );
    gauge(
        "cutover_approval_needed",
        "1 while somebody has to approve the next step, else 0.",
        truth(outlook.approval_needed),
    );
    if let Some(seconds) = outlook.seconds_to_come {
        gauge(
            "cutover_next_step_seconds",
            "Seconds until nothing is lacking if traffic goes on as it does; absent if it takes more.",
            seconds,
        );
    }
    if let Some(stage) = &outlook.stage {
        self::stage(gauge, stage);
    }
}

/// What the present stage has had, and what it needs.
fn stage(gauge: &impl Fn(&'static str, &'static str, f64), stage: &StageProgress) {
    gauge(
        "cutover_stage_share_ratio",
        "The share of the present stage, from 0 to 1; what is in effect may be lower.",
        stage.share.ratio(),
    );
    gauge(
        "cutover_stage_watched_seconds",
        "Watched seconds since the stage began, pauses left out.",
        stage.watched_seconds,
    );
    gauge(
        "cutover_stage_healthy_seconds",
        "Seconds in good health that the stage has had.",
        stage.healthy_seconds,
    );
    gauge(
        "cutover_stage_observe_seconds",
        "Seconds in good health that the stage needs.",
        stage.observe_seconds,
    );
    gauge(
        "cutover_stage_requests",
        "Requests of new that the stage has had.",
        stage.requests as f64,
    );
    gauge(
        "cutover_stage_min_requests",
        "Requests of new that the stage needs; 0 where nobody is sent to new.",
        stage.min_requests as f64,
    );
}

/// A criterion that rolls back, holds or notifies.
fn condition(exporter: &Exporter, split: &str, condition: &Condition) {
    let criterion = condition.criterion.as_str();
    let labels = [("split", split), ("condition", criterion)];
    let gauge = |name, help, value| {
        if let Some(value) = value {
            exporter.gauge(name, help).set(&labels, value);
        }
    };
    gauge(
        "cutover_criterion_value_ratio",
        "The part of the requests counted that has the event; absent without any.",
        condition.value,
    );
    gauge(
        "cutover_criterion_limit_ratio",
        "The part that is allowed; absent while legacy, being the measure, does not tell.",
        condition.limit,
    );
    gauge(
        "cutover_criterion_samples",
        "Requests of new counted since trouble is thought to have begun.",
        Some(condition.samples as f64),
    );
    gauge(
        "cutover_criterion_events",
        "Events among the requests counted.",
        Some(condition.events as f64),
    );
    gauge(
        "cutover_evidence_log10",
        "Evidence that new breaches the condition, as the decimal logarithm of the odds.",
        Some(logarithm(condition.evidence)),
    );
    gauge(
        "cutover_evidence_threshold_log10",
        "The evidence at which the condition acts, as a decimal logarithm.",
        Some(logarithm(condition.threshold)),
    );
    exporter
        .gauge(
            "cutover_overdispersion",
            "Events of one session come in bunches of about this size; evidence is divided by it.",
        )
        .set(
            &[("split", split), ("event", criterion)],
            condition.overdispersion,
        );
}

/// A requirement of an advance.
fn gate(exporter: &Exporter, split: &str, need: &Need) {
    let labels = [("split", split), ("gate", need.requirement.as_str())];
    let gauge = |name, help, value| {
        if let Some(value) = value {
            exporter.gauge(name, help).set(&labels, value);
        }
    };
    gauge(
        "cutover_gate_value_ratio",
        "The part of the stage's requests that has the event; absent without any.",
        need.value,
    );
    gauge(
        "cutover_gate_limit_ratio",
        "The part that must be undercut; absent while legacy, being the measure, does not tell.",
        need.limit,
    );
    gauge(
        "cutover_gate_samples",
        "Requests of new counted in the stage.",
        Some(need.samples as f64),
    );
    gauge(
        "cutover_gate_evidence_log10",
        "Evidence that new meets the requirement, as the decimal logarithm of the odds.",
        Some(logarithm(need.evidence)),
    );
    gauge(
        "cutover_gate_threshold_log10",
        "The evidence at which the requirement counts as proven, as a decimal logarithm.",
        Some(logarithm(need.threshold)),
    );
}

/// What others measure, and what is asked of it.
fn signal(exporter: &Exporter, split: &str, signal: &SignalState) {
    let labels = [("split", split), ("signal", signal.name.as_str())];
    let gauge = |name, help, value| {
        if let Some(value) = value {
            exporter.gauge(name, help).set(&labels, value);
        }
    };
    for (arm, value) in [(Arm::New, signal.value), (Arm::Legacy, signal.legacy)] {
        let Some(value) = value else { continue };
        let [split, signal] = labels;
        exporter
            .gauge(
                "cutover_signal_value",
                "The last value, however old, in the unit of its source; absent before the first.",
            )
            .set(&[split, signal, ("arm", arm.as_str())], value);
    }
    gauge(
        "cutover_signal_age_seconds",
        "How old the last value of new is; absent before the first.",
        signal.age_seconds,
    );
    gauge(
        "cutover_signal_fresh",
        "1 while the value is fresh, and so is legacy's where it is the measure, else 0.",
        Some(truth(signal.fresh)),
    );
    for condition in &signal.conditions {
        let labels = [
            ("split", split),
            ("signal", signal.name.as_str()),
            ("condition", condition.sentence.as_str()),
        ];
        if let Some(limit) = condition.limit {
            exporter
                .gauge(
                    "cutover_signal_limit",
                    "The limit on the signal, in its unit; absent while there is nothing to tell it from.",
                )
                .set(&labels, limit);
        }
        exporter
            .gauge(
                "cutover_signal_passes",
                "1 while what is asked of the signal is known to hold, else 0.",
            )
            .set(&labels, truth(condition.verdict == "pass"));
    }
}
