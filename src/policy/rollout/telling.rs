//! What happened to a plan, in one sentence that a tired person understands.

use super::sentence::signature;
use super::{By, Rollout};
use crate::policy::duration;
use crate::policy::plan::OnTimeout;
use crate::policy::share::Share;
use crate::policy::time::Timestamp;
use crate::policy::wording::{grouped, odds};

/// The engine took the next step.
pub(super) fn advanced(rollout: &Rollout, was: Share, proof: &str, now: Timestamp) -> String {
    let (split, clock) = (&rollout.split, now.clock());
    let (share, place) = (rollout.filed_share(), place(rollout));
    format!("Advanced new of {split} from {was} to {share} ({place}) at {clock}: {proof}.")
}

/// The engine took the next step without proof, since its plan says so.
pub(super) fn advanced_late(
    rollout: &Rollout,
    was: Share,
    lasted: f64,
    lacking: &str,
    now: Timestamp,
) -> String {
    let (split, clock) = (&rollout.split, now.clock());
    let (share, place) = (rollout.filed_share(), place(rollout));
    let lasted = duration::print(std::time::Duration::from_secs(lasted.max(0.0) as u64));
    format!(
        "Advanced new of {split} from {was} to {share} ({place}) at {clock} without proof, since \
         its stage had lasted {lasted} and `on_timeout` says so. Lacking: {lacking}"
    )
}

/// The last stage is proven.
pub(super) fn completed(rollout: &Rollout, now: Timestamp) -> String {
    let (split, clock) = (&rollout.split, now.clock());
    let (share, proof) = (rollout.filed_share(), proof(rollout));
    format!(
        "Completed the plan of {split} at {share} at {clock}: {proof}. It is still watched, and \
         can still be rolled back."
    )
}

/// What has been proven in the present stage.
pub(super) fn proof(rollout: &Rollout) -> String {
    let (healthy, requests) = rollout.progress();
    let healthy = std::time::Duration::from_secs(healthy.max(0.0) as u64);
    let healthy = duration::print(healthy);
    if rollout.is_idle() {
        return format!("endpoints of new in good health for {healthy}");
    }
    let needs = rollout.needs();
    let proven: Vec<String> = needs
        .iter()
        .filter(|need| need.evidence >= need.threshold)
        .map(|need| format!("{} at {} : 1", need.requirement, odds(need.evidence)))
        .collect();
    let proven = if proven.is_empty() {
        "nothing was to be proven".to_owned()
    } else {
        proven.join(", ")
    };
    let requests = grouped(requests);
    format!("{proven}, over {requests} requests and {healthy} in good health")
}

/// What becomes of a stage that is undecided for too long.
#[derive(Clone, Copy)]
pub(super) enum Ending {
    /// What its plan says.
    Done(OnTimeout),
    /// The same, if the engine did more than advise.
    Advised(OnTimeout),
    /// No rollback, as legacy could take nobody.
    Withheld,
}

pub(super) fn timed_out(
    rollout: &Rollout,
    ending: Ending,
    lacking: &str,
    now: Timestamp,
) -> String {
    let (split, clock, place) = (&rollout.split, now.clock(), place(rollout));
    let lasted = std::time::Duration::from_secs(rollout.stage_seconds() as u64);
    let lasted = duration::print(lasted);
    let share = rollout.filed_share();
    let what = |then| match then {
        OnTimeout::Rollback => "rolled back",
        OnTimeout::Hold | OnTimeout::Advance => "paused",
    };
    let way_on = match ending {
        Ending::Done(OnTimeout::Hold | OnTimeout::Advance) => {
            " `resume` gives it the same time once more, `promote` goes on without proof."
        }
        _ => "",
    };
    let ending = match ending {
        Ending::Done(then) => format!("is {} at {clock}", what(then)),
        Ending::Advised(then) => format!("would be {} at {clock}, were it not advice", what(then)),
        Ending::Withheld => format!(
            "is held at {clock}: not rolled back, since legacy has no healthy endpoint and moving \
             everyone there would help nobody; a person may"
        ),
    };
    format!(
        "The {place} of {split} at {share} is undecided after {lasted} and {ending}. Lacking: \
         {lacking}{way_on}"
    )
}

/// Something keeps the engine from a step that is proven.
pub(super) fn holding(rollout: &Rollout, because: &str, now: Timestamp) -> String {
    let (split, clock) = (&rollout.split, now.clock());
    let share = rollout.filed_share();
    format!("Holding new of {split} at {share} at {clock}: all is proven. {because}")
}

/// The engine would have taken the next step.
pub(super) fn advised_advance(rollout: &Rollout, now: Timestamp) -> String {
    let (split, clock) = (&rollout.split, now.clock());
    let proof = proof(rollout);
    let next = rollout.next_stage().map(|stage| stage.share);
    let next = next.map_or_else(|| "the end".to_owned(), |share| share.to_string());
    format!("Would advance new of {split} to {next} at {clock}: {proof}. Only advising.")
}

/// A person went to a stage.
pub(super) fn moved(
    rollout: &Rollout,
    was: Share,
    was_paused: bool,
    obstacle: Option<&str>,
    by: &By,
    now: Timestamp,
) -> String {
    let (split, clock, by) = (&rollout.split, now.clock(), signature(by));
    let (share, place) = (rollout.filed_share(), place(rollout));
    let effect = match obstacle {
        Some(obstacle) => format!("{obstacle} keeps it at {was} for now"),
        None if was_paused => format!("it was paused at {was}, and goes on by itself from here"),
        None => format!("it was at {was}"),
    };
    format!("Took new of {split} to {share} ({place}) at {clock} {by}; {effect}.")
}

pub(super) fn paused(rollout: &Rollout, again: bool, by: &By, now: Timestamp) -> String {
    let (split, clock, by) = (&rollout.split, now.clock(), signature(by));
    if again {
        return format!("Paused {split} at {clock} {by}; it was paused already.");
    }
    let share = rollout.standing().share;
    format!("Paused {split} at {share} at {clock} {by}; harm still rolls it back.")
}

pub(super) fn approved(
    rollout: &Rollout,
    next: Share,
    again: bool,
    by: &By,
    now: Timestamp,
) -> String {
    let (split, clock, by) = (&rollout.split, now.clock(), signature(by));
    let effect = if again {
        "it was approved already"
    } else {
        "it goes on once everything else is proven"
    };
    format!("Approved {next} for new of {split} at {clock} {by}; {effect}.")
}

/// `stage 2 of 6`.
fn place(rollout: &Rollout) -> String {
    let count = rollout.plan().map_or(0, |plan| plan.stages().len());
    match rollout.position() {
        Some(index) => format!("stage {} of {count}", index + 1),
        None => format!("start before stage 1 of {count}"),
    }
}
