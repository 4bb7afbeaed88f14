//! A good API goes from nobody to everybody, and no person does anything.

use std::io::Write;

use crate::policy::arm::Arm;
use crate::policy::rollout::{Decision, Phase};
use crate::terminal::{count, seconds};

use super::{Impossible, LOOK, Story};
use crate::demo::view;

/// The shares of the plan in the configuration that come after 0 %.
const SHARES: [&str; 5] = ["10%", "30%", "50%", "80%", "100%"];
/// Where it is looked whether a share is what it says.
const TENTH: &str = "10%";
/// How far the sessions' part may be from it: four standard deviations of 2 000 tosses.
const TOLERANCE: f64 = 0.027;

impl<W: Write> Story<'_, W> {
    pub(super) async fn it_is_promoted_by_itself(&mut self) -> Result<(), Impossible> {
        let sessions = count(self.figures().sessions as u64);
        self.act(&format!(
            "{sessions} sessions arrive; the plan goes from 0% to 100% where the new API proves itself"
        ));
        let mut at_a_tenth = None;
        let (status, figures) = self
            .watch(LOOK, |status, figures| {
                if status.share == TENTH {
                    at_a_tenth = Some(figures.clone());
                }
                status.phase == Phase::Completed && figures.on_new == figures.sessions
            })
            .await?;
        let at_a_tenth = at_a_tenth.unwrap_or_default();
        let part = at_a_tenth.on_new as f64 / at_a_tenth.seen.max(1) as f64;
        self.check(
            "10% of the sessions were on new at 10%",
            at_a_tenth.seen == figures.sessions && (part - 0.1).abs() < TOLERANCE,
            format!(
                "{} of {} ({:.1}%)",
                count(at_a_tenth.on_new as u64),
                count(at_a_tenth.seen as u64),
                part * 100.0
            ),
        );
        let steps = self.steps_to_completion().await?;
        self.check(
            "the engine took it through each stage to completion",
            is_the_plan(&steps),
            told(&steps),
        );
        self.check(
            "every session ended on new",
            figures.on_new == figures.sessions && status.share == "100%",
            format!("{} of {sessions}", count(figures.on_new as u64)),
        );
        self.check_sessions_stay("no session went back while the share rose", &figures);
        let is_calm = |arm: Arm| {
            let measured = &status.arms[arm];
            measured.requests > 0 && measured.errors == 0 && measured.p95_seconds.is_some()
        };
        let told = |arm: Arm| {
            let p95 = status.arms[arm].p95_seconds;
            let p95 = p95.map_or_else(|| "unknown".to_owned(), seconds);
            let errors = view::error_rate(&status, arm);
            format!("{arm} errors {errors} p95 {p95}")
        };
        self.check(
            "errors and latency are measured per arm",
            is_calm(Arm::Legacy) && is_calm(Arm::New),
            format!("{}, {}", told(Arm::Legacy), told(Arm::New)),
        );
        self.check_no_get_failed("no GET failed", &figures);
        Ok(())
    }

    /// What the audit has of the rollout. It is written beside the loop that decides, so the last
    /// line of it may come a moment late.
    async fn steps_to_completion(&mut self) -> Result<Vec<Decision>, Impossible> {
        let patience = self.patience();
        loop {
            let decisions = self.operator.history().await;
            let decisions = decisions.map_err(|why| self.proxy.lost(&why))?;
            let is_whole = decisions
                .iter()
                .any(|decision| decision.action == "complete");
            if is_whole || patience.has_ended() {
                return Ok(decisions);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Whether the engine took each step of the plan, in order and without a detour.
fn is_the_plan(decisions: &[Decision]) -> bool {
    let by_engine = decisions.iter().all(|decision| decision.actor == "engine");
    let advances = decisions
        .iter()
        .filter(|decision| decision.action == "advance");
    let shares = advances.map(|decision| decision.to.to_string());
    let completed = decisions.last().map(|decision| decision.action.as_str());
    by_engine && shares.eq(SHARES) && completed == Some("complete")
}

fn told(decisions: &[Decision]) -> String {
    let steps = decisions
        .iter()
        .map(|decision| match decision.action.as_str() {
            "advance" => decision.to.to_string(),
            action => action.to_owned(),
        });
    let steps: Vec<String> = steps.collect();
    steps.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(actor: &str, action: &str, to: &str) -> Decision {
        Decision {
            at: "2026-11-20T12:00:00Z".into(),
            split: "api".into(),
            actor: actor.into(),
            action: action.into(),
            reason: String::new(),
            from: "0%".parse().unwrap(),
            to: to.parse().unwrap(),
            revision: 1,
            phase: None,
            stage: None,
            conditions: Vec::new(),
            needs: Vec::new(),
            sentence: String::new(),
        }
    }

    fn steps() -> Vec<Decision> {
        let advances = SHARES.map(|share| decision("engine", "advance", share));
        let complete = decision("engine", "complete", "100%");
        advances.into_iter().chain([complete]).collect()
    }

    #[test]
    fn a_stage_that_is_left_out_or_helped_along_breaks_the_claim() {
        assert!(is_the_plan(&steps()));
        let mut skipped = steps();
        skipped.remove(2);
        assert!(!is_the_plan(&skipped));
        let mut helped = steps();
        helped[3].actor = "local".into();
        assert!(!is_the_plan(&helped));
        assert!(!is_the_plan(&steps()[..5]), "it has not completed");
        assert_eq!(told(&steps()), "10%, 30%, 50%, 80%, 100%, complete");
    }
}
