//! What was acknowledged survives SIGKILL, at whatever moment it comes.
//!
//! The program is killed two hundred times: between two commands, in the middle of one, and at the
//! very moment of an acknowledgement. After each restart it must stand where the last acknowledged
//! command left it, or where the one in flight would have; and its audit must hold exactly the
//! decisions that lead there, in their order. A much simpler twin says what that is.

use std::time::Duration;

use cutover::clock::Clock;
use cutover::control::history::History;
use cutover::control::protocol::Status;
use cutover::policy::rollout::Phase;
use serde_json::json;

use crate::harness::proxy::{Proxy, Site};

/// How often each of four programs is killed.
const ROUNDS: usize = 50;
/// Set to the number that a failure names, the same commands come again; their moments do not.
const SEED: &str = "CUTOVER_KILLS_SEED";

const SPLITS: [&str; 2] = ["checkout", "search"];
/// Nobody listens there, and nobody asks: nothing but commands moves a share.
const CONFIGURATION: &str = "\
backends:
  legacy: {endpoints: ['127.0.0.1:1']}
  new: {endpoints: ['127.0.0.1:1']}
splits:
  checkout: {legacy: legacy, new: new, key: [{header: X-User}], rollback: off}
  search: {legacy: legacy, new: new, key: [{header: X-User}], rollback: off}
routes:
  - {path_prefix: /checkout, split: checkout}
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
    let kept: usize = lanes.iter().map(|lane| lane.0).sum();
    let lost: usize = lanes.iter().map(|lane| lane.1).sum();
    assert!(
        kept > 0 && lost > 0,
        "the kills came too early or too late to prove anything: {kept} commands in flight were \
         kept, {lost} lost; {SEED}={seed}"
    );
}

/// Kills one program again and again. Returns how many commands in flight were kept and lost.
async fn kill_often(seed: u64, lane: u64) -> (usize, usize) {
    let mut chance = Chance(seed ^ lane.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut known = Twin::default();
    let (mut kept, mut lost) = (0, 0);
    let mut proxy = Site::new().start(CONFIGURATION).await;
    for round in 0..ROUNDS {
        let place = format!("lane {lane}, round {round}; {SEED}={seed}");
        for _ in 0..chance.below(6) {
            let command = Command::any(&mut chance);
            let reason = known.next_reason();
            let status = command.send(&proxy, &reason).await;
            known = known.after_answer(&command, &reason, status, &place);
        }
        let command = Command::any(&mut chance);
        let reason = known.next_reason();
        let possible = known.after(&command, &reason);
        // The disk takes about a millisecond for a decision.
        let moment = Duration::from_micros(chance.below(4_000));
        let is_hasty = chance.below(2) == 0;
        let answered = tokio::select! {
            status = command.send(&proxy, &reason) => Some(status),
            () = tokio::time::sleep(moment), if is_hasty => None,
        };
        let site = proxy.kill();
        if let Some(status) = answered {
            known = known.after_answer(&command, &reason, status, &place);
        }
        proxy = site.launch(&[]).await;
        let found = Found::of(&proxy).await;
        if found == known.expected() {
            lost += usize::from(answered.is_none() && possible.is_some());
        } else {
            assert!(
                answered.is_none(),
                "{place}: {command:?} was answered, but {found:#?}"
            );
            let possible = possible
                .unwrap_or_else(|| panic!("{place}: {command:?} would be refused, but {found:#?}"));
            assert_eq!(found, possible.expected(), "{place}: after {command:?}");
            known = possible;
            kept += 1;
        }
    }
    (kept, lost)
}

/// What an operator can ask for.
#[derive(Debug)]
enum Command {
    Set(usize, u16),
    Rollback(usize),
    Resume(usize),
    Emergency { split: Option<usize>, clear: bool },
}

impl Command {
    fn any(chance: &mut Chance) -> Self {
        let split = chance.below(SPLITS.len() as u64) as usize;
        match chance.below(8) {
            0..=2 => Command::Set(split, chance.below(101) as u16 * 100),
            3 => Command::Rollback(split),
            4 | 5 => Command::Resume(split),
            6 => Command::Emergency {
                split: (chance.below(2) == 0).then_some(split),
                clear: false,
            },
            _ => Command::Emergency {
                split: (chance.below(2) == 0).then_some(split),
                clear: true,
            },
        }
    }

    /// Returns the status of the answer.
    async fn send(&self, proxy: &Proxy, reason: &str) -> u16 {
        let path = |split: usize, action| format!("/api/v1/splits/{}/{action}", SPLITS[split]);
        let (path, body) = match *self {
            Command::Set(split, share) => {
                let share = format!("{}%", share / 100);
                (
                    path(split, "share"),
                    json!({"share": share, "reason": reason}),
                )
            }
            Command::Rollback(split) => (path(split, "rollback"), json!({"reason": reason})),
            Command::Resume(split) => (path(split, "resume"), json!({"reason": reason})),
            Command::Emergency { split, clear } => {
                let split = split.map(|split| SPLITS[split]);
                let body = json!({"split": split, "clear": clear, "reason": reason});
                ("/api/v1/emergency".to_owned(), body)
            }
        };
        proxy.change(&path, &body.to_string()).await.status
    }
}

/// The program as it should be, in a few lines.
#[derive(Clone, Debug, Default)]
struct Twin {
    splits: [TwinSplit; SPLITS.len()],
    emergency: bool,
    /// Split, action and reason of each decision, the oldest first.
    audit: Vec<(String, String, String)>,
    commands: usize,
}

#[derive(Clone, Debug, Default)]
struct TwinSplit {
    share: u16,
    is_latched: bool,
    emergency: bool,
}

impl Twin {
    /// A reason that no other command has.
    fn next_reason(&mut self) -> String {
        self.commands += 1;
        format!("command {}", self.commands)
    }

    /// This one after an acknowledgement, or unchanged after a refusal; and no other answer.
    fn after_answer(self, command: &Command, reason: &str, status: u16, place: &str) -> Self {
        match self.after(command, reason) {
            Some(next) => {
                assert_eq!(status, 200, "{place}: {command:?} of {self:#?}");
                next
            }
            None => {
                assert_eq!(status, 409, "{place}: {command:?} of {self:#?}");
                self
            }
        }
    }

    /// `None` if the command is refused.
    fn after(&self, command: &Command, reason: &str) -> Option<Self> {
        let mut next = self.clone();
        let (action, concerned) = match *command {
            Command::Set(split, share) => {
                if next.splits[split].is_latched && share > 0 {
                    return None;
                }
                next.splits[split].share = share;
                ("set", vec![split])
            }
            Command::Rollback(split) => {
                next.splits[split].is_latched = true;
                ("rollback", vec![split])
            }
            Command::Resume(split) => {
                if !next.splits[split].is_latched {
                    return None;
                }
                next.splits[split].is_latched = false;
                ("resume", vec![split])
            }
            Command::Emergency { split, clear } => {
                if clear && split.is_some() && next.emergency {
                    return None;
                }
                let concerned = match split {
                    Some(split) => vec![split],
                    None => {
                        next.emergency = !clear;
                        let all = 0..SPLITS.len();
                        all.filter(|split| !clear || next.splits[*split].emergency)
                            .collect()
                    }
                };
                for split in &concerned {
                    next.splits[*split].emergency = !clear;
                }
                let action = if clear {
                    "emergency_cleared"
                } else {
                    "emergency"
                };
                (action, concerned)
            }
        };
        for split in concerned {
            let entry = (
                SPLITS[split].to_owned(),
                action.to_owned(),
                reason.to_owned(),
            );
            next.audit.push(entry);
        }
        Some(next)
    }

    fn expected(&self) -> Found {
        let splits = self.splits.iter().map(|split| {
            let is_open = !split.is_latched && !split.emergency;
            let share = if is_open { split.share } else { 0 };
            (
                format!("{}%", share / 100),
                split.is_latched,
                split.emergency,
            )
        });
        Found {
            splits: splits.collect(),
            emergency: self.emergency,
            audit: self.audit.clone(),
        }
    }
}

/// What the program tells of itself.
#[derive(Debug, PartialEq)]
struct Found {
    /// Share, latch and emergency of each split.
    splits: Vec<(String, bool, bool)>,
    emergency: bool,
    /// The oldest first.
    audit: Vec<(String, String, String)>,
}

impl Found {
    async fn of(proxy: &Proxy) -> Self {
        let Status {
            splits, emergency, ..
        } = proxy.status().await;
        let splits = splits.into_iter().map(|split| {
            let is_latched = split.phase == Phase::RolledBack;
            (split.share, is_latched, split.emergency)
        });
        let history = proxy.ask("/api/v1/history?limit=1000").await;
        let history: History = serde_json::from_slice(&history.body).expect("a history");
        let decisions = history.decisions.into_iter().rev();
        Self {
            splits: splits.collect(),
            emergency,
            audit: decisions
                .map(|decision| (decision.split, decision.action, decision.reason))
                .collect(),
        }
    }
}

/// A stream of numbers that a seed repeats (SplitMix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % bound
    }
}
