//! What was acknowledged survives SIGKILL, at whatever moment it comes.
//!
//! The program is killed two hundred times: between two commands, in the middle of one, at the very
//! moment of an acknowledgement, and while its engine takes a step by itself. After each restart it
//! must stand where the last acknowledged command left it, or where the one in flight would have;
//! its audit must hold exactly the decisions that lead there, in their order; and a step of the
//! engine that anybody has seen is never taken back. A much simpler twin says what that is.

mod twin;

use std::time::Duration;

use cutover::clock::Clock;
use cutover::control::history::History;
use cutover::control::protocol::{SplitStatus, Status};
use serde_json::json;

use self::twin::{Command, SPLITS, SplitFound, Twin};
use crate::harness::chance::Chance;
use crate::harness::eventually;
use crate::harness::proxy::{Proxy, Site};

/// How often each of four programs is killed.
const ROUNDS: usize = 50;
/// Set to the number that a failure names, the same commands come again; their moments do not.
const SEED: &str = "CUTOVER_KILLS_SEED";

/// Nobody listens there, and nobody asks: nothing but commands moves a share, except that `stock`
/// is taken to its second stage by the engine, soon after it begins or is sent back to the first.
const CONFIGURATION: &str = "\
backends:
  legacy: {endpoints: ['127.0.0.1:1']}
  new: {endpoints: ['127.0.0.1:1']}
splits:
  checkout: {legacy: legacy, new: new, key: [{header: X-User}], rollback: off}
  search: {legacy: legacy, new: new, key: [{header: X-User}], rollback: off}
  catalog:
    legacy: legacy
    new: new
    key: [{header: X-User}]
    rollback: off
    stages: [0%, {share: 10%, approval: true}, 30%, 100%]
    rollout: {observe: 7d}
  stock:
    legacy: legacy
    new: new
    key: [{header: X-User}]
    rollback: off
    stages: [{share: 0%, observe: 100ms}, {share: 10%, observe: 7d}, 100%]
    rollout: {max_changes_per_day: 1000}
routes:
  - {path_prefix: /checkout, split: checkout}
  - {path_prefix: /catalog, split: catalog}
  - {path_prefix: /stock, split: stock}
  - {split: search}
";

#[tokio::test]
async fn a_kill_at_any_moment_costs_nothing_that_was_acknowledged() {
    let seed = match std::env::var(SEED) {
        Ok(seed) => seed.parse().expect("a number"),
        Err(_) => Clock::start().now().milliseconds().unsigned_abs(),
    };
    let lanes = tokio::join!(
        kill_often(seed, 0),
        kill_often(seed, 1),
        kill_often(seed, 2),
        kill_often(seed, 3),
    );
    let lanes = [lanes.0, lanes.1, lanes.2, lanes.3];
    let sum = |of: fn(&Tolls) -> usize| -> usize { lanes.iter().map(of).sum() };
    let (kept, lost) = (sum(|lane| lane.kept), sum(|lane| lane.lost));
    assert!(
        kept > 0 && lost > 0,
        "the kills came too early or too late to prove anything: {kept} commands in flight were \
         kept, {lost} lost; {SEED}={seed}"
    );
    let steps = sum(|lane| lane.steps_seen);
    assert!(
        steps > 0,
        "the engine took no step before a kill; {SEED}={seed}"
    );
}

/// What the kills of one program met.
#[derive(Default)]
struct Tolls {
    /// Commands in flight that were kept.
    kept: usize,
    /// Commands in flight that were lost.
    lost: usize,
    /// Steps of the engine that were waited for.
    steps_seen: usize,
}

/// Kills one program again and again.
async fn kill_often(seed: u64, lane: u64) -> Tolls {
    let mut chance = Chance::lane(seed, lane);
    let mut known = Twin::default();
    let mut tolls = Tolls::default();
    let mut seen = Vec::new();
    let mut proxy = Site::new().start(CONFIGURATION).await;
    for round in 0..ROUNDS {
        let place = format!("lane {lane}, round {round}; {SEED}={seed}");
        for _ in 0..chance.below(6) {
            let command = Command::any(&mut chance);
            let reason = known.next_reason();
            let status = send(&command, &proxy, &reason).await;
            known = known.after_answer(&command, &reason, status, &place);
        }
        if known.awaits_engine() {
            match chance.below(3) {
                0 => {
                    let found = wait_for_engine(&proxy).await;
                    known = known.moved_by_engine(&found, &seen);
                    assert_eq!(found.without_engine(), known.expected(), "{place}");
                    seen = found.audit;
                    tolls.steps_seen += 1;
                }
                // The kill may come while the step is on its way to the disk.
                1 => tokio::time::sleep(Duration::from_micros(chance.below(250_000))).await,
                _ => {}
            }
        }
        let command = Command::any(&mut chance);
        let reason = known.next_reason();
        let possible = known.after(&command, &reason);
        // The disk takes about a millisecond for a decision.
        let moment = Duration::from_micros(chance.below(4_000));
        let is_hasty = chance.below(2) == 0;
        let answered = tokio::select! {
            status = send(&command, &proxy, &reason) => Some(status),
            () = tokio::time::sleep(moment), if is_hasty => None,
        };
        let site = proxy.kill();
        if let Some(status) = answered {
            known = known.after_answer(&command, &reason, status, &place);
        }
        proxy = site.launch(&[]).await;
        let found = Found::of(&proxy).await;
        assert!(
            found.audit.starts_with(&seen),
            "{place}: decisions that were seen are gone: {seen:#?}, but {found:#?}"
        );
        let lost = known.moved_by_engine(&found, &seen);
        if found.without_engine() == lost.expected() {
            tolls.lost += usize::from(answered.is_none() && possible.is_some());
            known = lost;
        } else {
            assert!(
                answered.is_none(),
                "{place}: {command:?} was answered, and {lost:#?} is known, but {found:#?}"
            );
            let possible = possible
                .unwrap_or_else(|| panic!("{place}: {command:?} would be refused, but {found:#?}"));
            let kept = possible.moved_by_engine(&found, &seen);
            assert_eq!(
                found.without_engine(),
                kept.expected(),
                "{place}: after {command:?}"
            );
            known = kept;
            tolls.kept += 1;
        }
        seen = found.audit;
    }
    tolls
}

/// Asks for it; returns the status of the answer.
async fn send(command: &Command, proxy: &Proxy, reason: &str) -> u16 {
    let of = |split: usize, action, mut body: serde_json::Value| {
        body["reason"] = reason.into();
        (format!("/api/v1/splits/{}/{action}", SPLITS[split]), body)
    };
    let percent = |share: u16| format!("{}%", share / 100);
    let (path, body) = match *command {
        Command::Set(split, share) => of(split, "share", json!({"share": percent(share)})),
        Command::Stage(split, number) => of(split, "stage", json!({"stage": number})),
        Command::Promote(split) => of(split, "promote", json!({})),
        Command::Pause(split) => of(split, "pause", json!({})),
        Command::Approve(split) => of(split, "approve", json!({})),
        Command::Rollback(split) => of(split, "rollback", json!({})),
        Command::StepBack(split) => of(split, "rollback", json!({"to": "previous"})),
        Command::Resume(split) => of(split, "resume", json!({})),
        Command::Emergency { split, clear } => {
            let split = split.map(|split| SPLITS[split]);
            let body = json!({"split": split, "clear": clear, "reason": reason});
            ("/api/v1/emergency".to_owned(), body)
        }
    };
    proxy.change(&path, &body.to_string()).await.status
}

/// Waits until the engine has taken its step, and sees where everything stands then.
async fn wait_for_engine(proxy: &Proxy) -> Found {
    let has_moved = async || {
        let stage = proxy.split(SPLITS[twin::OF_ENGINE]).await.outlook.stage;
        stage.is_some_and(|stage| stage.number == 2)
    };
    eventually("the engine takes its step", has_moved).await;
    Found::of(proxy).await
}

/// What the program tells of itself.
#[derive(Clone, Debug, PartialEq)]
struct Found {
    splits: Vec<SplitFound>,
    emergency: bool,
    /// Split, action and reason of each decision, the oldest first.
    audit: Vec<Entry>,
}

/// Split, action and reason of a decision.
type Entry = (String, String, String);

impl Found {
    async fn of(proxy: &Proxy) -> Self {
        let mut status = proxy.status().await;
        loop {
            let history = proxy.ask("/api/v1/history?limit=1000").await;
            let history: History = serde_json::from_slice(&history.body).expect("a history");
            let now = proxy.status().await;
            // The engine may have taken a step between two answers.
            let is_one_moment = now.revision == status.revision;
            status = now;
            if is_one_moment {
                return Self::told(status, history);
            }
        }
    }

    fn told(status: Status, history: History) -> Self {
        let decisions = history.decisions.into_iter().rev();
        Self {
            splits: status.splits.into_iter().map(split_found).collect(),
            emergency: status.emergency,
            audit: decisions
                .map(|decision| (decision.split, decision.action, decision.reason))
                .collect(),
        }
    }

    /// The same without what the engine did: when it does it no twin can know.
    fn without_engine(&self) -> Self {
        let of_people = |entry: &&Entry| !twin::is_of_engine(entry);
        Self {
            audit: self.audit.iter().filter(of_people).cloned().collect(),
            ..self.clone()
        }
    }
}

fn split_found(split: SplitStatus) -> SplitFound {
    let stage = split.outlook.stage;
    SplitFound {
        share: split.share,
        phase: split.phase,
        emergency: split.emergency,
        stage: stage.as_ref().map(|stage| stage.number),
        is_approved: stage.is_some_and(|stage| stage.approved_by.is_some()),
    }
}
