//! The loop's decisions where the disk or the connections fail it.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tempfile::TempDir;
use tokio::task::LocalSet;

use super::*;
use crate::clock::Clock;
use crate::config;
use crate::control::command::{Author, Change, Command, Order, Proviso};
use crate::control::history::HistoryQuery;
use crate::control::reload::Loaded;
use crate::policy::arm::Arm;
use crate::policy::class::Class;
use crate::policy::rollout::{By, Event, Phase, Standing};
use crate::state::{Saved, Store};
use crate::telemetry::WorkerId;
use crate::telemetry::access_log::LogReading;
use crate::telemetry::edge::{EdgeLoad, EdgeTally};

/// A controller without threads.
struct Site {
    directory: TempDir,
    controller: Controller,
    /// The ends of the warm-ups asked for, in order.
    warm_ups: Rc<RefCell<Vec<oneshot::Sender<()>>>>,
}

/// Two splits with these settings, and a backend that wants a connection beforehand.
fn text(a: &str, b: &str) -> String {
    format!(
        "listeners: [{{address: 127.0.0.1:0}}]
admin: {{address: 127.0.0.1:0}}
state: {{directory: state}}
backends:
  legacy: {{endpoints: ['127.0.0.1:1']}}
  new: {{endpoints: ['127.0.0.1:1'], pool: {{warm: 1}}}}
  newer: {{endpoints: ['127.0.0.1:1']}}
splits:
  a: {{legacy: legacy, new: new, key: [{{header: X-User}}], {a}}}
  b: {{legacy: legacy, new: new, key: [{{header: X-User}}], {b}}}
routes:
  - {{path_prefix: /a, split: a}}
  - {{split: b}}
"
    )
}

impl Site {
    fn new(a: &str, b: &str, keeper: Keeper) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("cutover.yaml");
        std::fs::write(&path, text(a, b)).expect("it is writable");
        let config = config::load(&path).expect("tests write valid files");
        let made = World::new(Clock::start(), config, Saved::default());
        let (mut world, _) = made.expect("it can be put in force");
        let published = Controller::first_snapshot(&mut world);
        let warm_ups = Rc::new(RefCell::new(Vec::new()));
        let asked = Rc::clone(&warm_ups);
        let data_plane = DataPlane {
            connections: Box::new(Vec::new),
            warm: Box::new(move |_| {
                let (end, ended) = oneshot::channel();
                asked.borrow_mut().push(end);
                Box::pin(async {
                    let _ = ended.await;
                })
            }),
            prepare: Box::new(|_| Ok(Box::new(|| ()))),
            sweep_edge: Box::new(|| ()),
            edge_load: Box::new(|| EdgeLoad {
                requests_in_flight: 0,
                remembered_addresses: 0,
                requests_on_common_allowance: 0,
                log: LogReading::default(),
            }),
            edge: Arc::new(EdgeTally::default()),
            handovers: Arc::default(),
            bearable_connections: usize::MAX,
        };
        let watcher = Watcher::new(vec![path.clone()]);
        let controller = Controller::new(world, published, data_plane, keeper, path, watcher);
        Self {
            directory,
            controller,
            warm_ups,
        }
    }

    async fn reload(&mut self, a: &str, b: &str) {
        self.reload_text(&text(a, b)).await;
    }

    async fn reload_text(&mut self, text: &str) {
        let path = self.directory.path().join("cutover.yaml");
        std::fs::write(&path, text).expect("it is writable");
        let config = config::load(&path).expect("tests write valid files");
        self.controller.conclude_reload(Loaded::of(config)).await;
    }

    fn problems(&self) -> &[String] {
        &self.controller.last_reload.problems
    }

    /// What the data plane obeys.
    fn published(&self) -> Vec<Standing> {
        self.controller.published.load().standings.to_vec()
    }

    fn shares(&self) -> Vec<String> {
        let standings = self.published().into_iter();
        standings
            .map(|standing| standing.share.to_string())
            .collect()
    }
}

fn without_a_store() -> Keeper {
    Keeper::start(None).expect("it needs no thread")
}

fn by() -> By {
    By {
        actor: "alice".to_owned(),
        reason: String::new(),
    }
}

fn set(percent: u16) -> Event {
    Event::Set {
        share: Share::from_basis_points(percent * 100).expect("a share"),
        override_file: true,
        by: by(),
    }
}

async fn in_a_local_set(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn a_store_that_fails_refuses_what_rises_and_nothing_else_of_a_file() {
    const BEFORE: &str = "share: 50%";
    in_a_local_set(async {
        let kinds = [
            ("rises", "share: 60%", "50%"),
            ("falls", "share: 40%", "40%"),
            ("stays", "share: 50%, rollback: ['error_rate > 7%']", "50%"),
        ];
        for (a, settings_of_a, share_of_a) in kinds {
            for (b, settings_of_b, share_of_b) in kinds {
                let mut site = Site::new(BEFORE, BEFORE, without_a_store());
                site.reload(settings_of_a, settings_of_b).await;
                let case = format!("a {a}, b {b}");
                let is_refused = !site.problems().is_empty();
                assert_eq!(is_refused, a == "rises" || b == "rises", "{case}");
                assert_eq!(site.shares(), [share_of_a, share_of_b], "{case}");
                let tried_again = site.controller.reloads.is_due_again();
                assert_eq!(tried_again, is_refused, "{case}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_store_that_fails_refuses_no_emergency_and_no_rollback_however_often() {
    in_a_local_set(async {
        let mut site = Site::new("share: 50%", "share: 50%", without_a_store());
        let controller = &mut site.controller;
        for splits in [Some("a"), None, None] {
            let declared = controller
                .declare(splits, false, by(), Proviso::default())
                .await;
            assert!(declared.is_ok(), "emergency for {splits:?}");
        }
        for split in ["a", "b", "a"] {
            let event = Event::Rollback { to: None, by: by() };
            assert!(
                controller
                    .decide_one(split, &event, Proviso::default())
                    .await
                    .is_ok()
            );
        }
        let cleared = controller
            .declare(None, true, by(), Proviso::default())
            .await;
        assert!(cleared.is_err(), "that would let more reach new");
        assert!(site.published().iter().all(|standing| standing.emergency));
    })
    .await;
}

#[tokio::test]
async fn a_disk_that_hangs_delays_no_rollback() {
    in_a_local_set(async {
        let (keeper, _disk) = Keeper::hanging();
        let mut site = Site::new("share: 50%", "share: 50%", keeper);
        let event = Event::Rollback { to: None, by: by() };
        let Poll::Ready(Ok(done)) =
            pin!(site.controller.decide_one("a", &event, Proviso::default()))
                .poll(&mut Context::from_waker(Waker::noop()))
        else {
            panic!("it waits");
        };
        assert_eq!(site.shares(), ["0%", "50%"]);
        site.controller.tick();

        let (reply, answer) = oneshot::channel();
        site.controller.tell(done, vec![reply]);
        let outcome = answer.await.expect("it is answered").expect("it is done");
        assert!(outcome.sentence.contains("a restart may forget it"));
        assert!(!site.controller.keeper.is_healthy());
        let refused = site
            .controller
            .decide_one("b", &set(60), Proviso::default())
            .await;
        assert!(matches!(refused, Err(Refused::StoreFailed(_))));
        assert_eq!(site.shares(), ["0%", "50%"]);
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_read_in_time_is_an_error_and_delays_no_rollback() {
    in_a_local_set(async {
        let (keeper, _disk) = Keeper::hanging();
        let mut site = Site::new("share: 50%", "share: 50%", keeper);
        let ask = |controller: &Controller| {
            let (reply, answer) = oneshot::channel();
            let query = HistoryQuery {
                split: None,
                since: None,
                limit: 20,
            };
            controller.tell_history(query, reply);
            answer
        };
        let waiting: Vec<_> = (0..4).map(|_| ask(&site.controller)).collect();
        let event = Event::Rollback { to: None, by: by() };
        assert!(
            site.controller
                .decide_one("a", &event, Proviso::default())
                .await
                .is_ok()
        );
        assert_eq!(site.shares(), ["0%", "50%"]);
        let one_too_many = ask(&site.controller).await.expect("an answer");
        let refused = one_too_many.expect_err("the queue is the decisions'");
        assert!(
            refused.to_string().contains("others are reading"),
            "{refused}"
        );
        for answer in waiting {
            let refused = answer.await.expect("an answer").expect_err("no disk");
            assert!(refused.to_string().contains("does not answer"), "{refused}");
        }
    })
    .await;
}

#[tokio::test]
async fn failures_from_before_a_resume_do_not_undo_it() {
    in_a_local_set(async {
        for by_command in [true, false] {
            let store = tempfile::tempdir().expect("a temporary directory");
            let store = Store::open(store.path()).expect("it is writable");
            let keeper = Keeper::start(Some(store)).expect("threads can be made");
            let mut site = Site::new("share: 50%", "share: 50%", keeper);
            let event = Event::Rollback { to: None, by: by() };
            assert!(
                site.controller
                    .decide_one("a", &event, Proviso::default())
                    .await
                    .is_ok()
            );

            let tally = &site.controller.world.routing.splits[0].tally;
            for key in 0..20_u8 {
                let cluster = Salt::new("a").hash(&[key]).cluster();
                tally
                    .arm(WorkerId(0), Arm::New)
                    .book(Class::Transport, Some(cluster));
                tally.streak().failure(cluster);
            }
            if by_command {
                let split = "a".to_owned();
                let author = Author {
                    actor: "alice".to_owned(),
                    reason: String::new(),
                };
                let (reply, _answer) = oneshot::channel();
                let resume = Order {
                    command: Command::Change {
                        split,
                        change: Change::Resume { stage: None },
                    },
                    author,
                    proviso: Proviso::default(),
                };
                site.controller.carry_out(resume, reply).await;
            } else {
                site.reload("share: 50%, rollout: {id: r2}", "share: 50%")
                    .await;
            }
            site.controller.tick();
            let rollout = &site.controller.world.splits[0].rollout;
            assert_eq!(rollout.phase(), Phase::Progressing, "{by_command}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_share_that_waits_for_connections_keeps_nobody_and_a_later_decision_wins() {
    in_a_local_set(async {
        let store = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(store.path()).expect("it is writable");
        let keeper = Keeper::start(Some(store)).expect("threads can be made");
        let mut site = Site::new("share: 0%", "share: 0%", keeper);
        let controller = &mut site.controller;
        for split in ["a", "b"] {
            assert!(
                controller
                    .decide_one(split, &set(10), Proviso::default())
                    .await
                    .is_ok()
            );
        }
        assert_eq!(site.shares(), ["0%", "0%"], "both wait at the same time");
        let ends: Vec<_> = site.warm_ups.borrow_mut().drain(..).collect();
        let event = Event::Rollback { to: None, by: by() };
        assert!(
            site.controller
                .decide_one("a", &event, Proviso::default())
                .await
                .is_ok()
        );
        for end in ends {
            end.send(()).expect("each warm-up goes on");
        }
        let warmed = site.controller.warm_ups.next_end().await;
        site.controller.publish_warmed(&warmed);
        assert_eq!(warmed, "b");
        assert_eq!(site.shares(), ["0%", "10%"]);
    })
    .await;
}

#[tokio::test]
async fn a_share_that_a_successor_keeps_at_nothing_does_not_rise_with_each_order() {
    in_a_local_set(async {
        let store = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(store.path()).expect("it is writable");
        let keeper = Keeper::start(Some(store)).expect("threads can be made");
        let mut site = Site::new("share: 10%", "share: 10%", keeper);
        site.controller.release().await.expect("the store is fine");
        let told = |split: &str| {
            let text = format!(
                r#"{{"ceilings": [{{"split": "{split}", "share": "0%", "emergency": false,
                "streams_end_in": null}}]}}"#
            );
            serde_json::from_str(&text).expect("that is how it is told")
        };
        let obeyed = site.controller.obey(told("a")).await;
        assert!(obeyed.is_ok());
        let obeyed = site.controller.obey(told("b")).await;
        assert!(obeyed.is_ok());
        assert_eq!(site.shares(), ["0%", "0%"]);
        assert!(site.warm_ups.borrow().is_empty(), "nothing has risen");
    })
    .await;
}

#[tokio::test]
async fn an_arm_that_gets_another_backend_is_counted_and_cut_off_afresh() {
    in_a_local_set(async {
        let mut site = Site::new("share: 50%", "share: 50%", without_a_store());
        let before = Arc::clone(&site.controller.world.routing);
        let repointed = text("share: 50%", "share: 50%").replacen(
            "a: {legacy: legacy, new: new,",
            "a: {legacy: legacy, new: newer,",
            1,
        );
        site.reload_text(&repointed).await;
        assert_eq!(site.problems(), [""; 0]);
        let after = &site.controller.world.routing;
        let splits = before.splits.iter().zip(&after.splits);
        let kept: Vec<_> = splits
            .map(|(before, after)| {
                let breakers = before.breaker.as_ref().zip(after.breaker.as_ref());
                let (one, other) = breakers.expect("it is on by default");
                (
                    Arc::ptr_eq(&before.tally, &after.tally),
                    Arc::ptr_eq(one, other),
                )
            })
            .collect();
        assert_eq!(kept, [(false, false), (true, true)]);
    })
    .await;
}

/// A plan whose first step is ready at once.
const HASTY: &str = "stages: [0%, 10%, 50%], rollout: {observe: 1ms}";

/// A site with a disk, and a step of split `a` that waits for it.
async fn on_the_brink(state: &TempDir) -> Site {
    let store = Store::open(state.path()).expect("a new store");
    let keeper = Keeper::start(Some(store)).expect("a thread");
    let mut site = Site::new(HASTY, "share: 20%", keeper);
    while site.controller.advances.steps().next().is_none() {
        site.controller.tick();
        tokio::task::yield_now().await;
    }
    site
}

/// What a kill would leave now: the shares after a restart, and the actions of the audit.
async fn left_by(site: Site, state: &TempDir) -> (Vec<String>, Vec<String>) {
    site.controller.keeper.finish().await;
    let store = Store::open(state.path()).expect("the store");
    let config = config::load(&site.directory.path().join("cutover.yaml"));
    let config = config.expect("tests write valid files");
    let saved = store.load().expect("it is readable");
    let (world, _) = World::new(Clock::start(), config, saved).expect("it can be put in force");
    let shares = world.standings().map(|it| it.share.to_string()).collect();
    let audit = store.history(100).expect("readable").into_iter().rev();
    (shares, audit.map(|decision| decision.action).collect())
}

#[tokio::test]
async fn a_step_that_waits_for_the_disk_is_in_everything_that_is_saved_meanwhile() {
    in_a_local_set(async {
        let state = tempfile::tempdir().expect("a temporary directory");
        let mut site = on_the_brink(&state).await;
        site.reload(HASTY, "share: 30%").await;
        assert_eq!(site.shares()[0], "0%", "the step still waits");
        site.controller.advances.next().await;
        // As a notice of another split would have it saved before the step is taken.
        site.controller.remember();
        site.controller.conclude_advances();
        assert_eq!(site.shares()[0], "0%", "connections first");
        assert_eq!(site.controller.world.splits[0].rollout.position(), Some(1));
        let (shares, _) = left_by(site, &state).await;
        assert_eq!(shares, ["10%", "30%"]);
    })
    .await;
}

#[tokio::test]
async fn a_step_that_something_was_decided_against_is_withdrawn() {
    in_a_local_set(async {
        for (what, change) in [
            ("pause", Change::Pause),
            ("rollback", Change::Rollback { to: None }),
        ] {
            let state = tempfile::tempdir().expect("a temporary directory");
            let mut site = on_the_brink(&state).await;
            let event = change.event(by());
            let decided = site.controller.decide_one("a", &event, Proviso::default());
            assert!(decided.await.is_ok(), "{what}");
            site.controller.advances.next().await;
            site.controller.conclude_advances();
            assert_eq!(
                site.controller.world.splits[0].rollout.position(),
                Some(0),
                "{what}"
            );
            let (shares, audit) = left_by(site, &state).await;
            assert_eq!(shares, ["0%", "20%"], "{what}");
            assert_eq!(audit, ["advance", what, "withdrawn"]);
        }
    })
    .await;
}

#[tokio::test]
async fn a_step_to_another_share_than_was_saved_is_not_taken() {
    in_a_local_set(async {
        let state = tempfile::tempdir().expect("a temporary directory");
        let mut site = on_the_brink(&state).await;
        let edited = "stages: [0%, 5%, 50%], rollout: {observe: 1ms}";
        site.reload(edited, "share: 20%").await;
        site.controller.advances.next().await;
        site.controller.conclude_advances();
        assert_eq!(site.controller.world.splits[0].rollout.position(), Some(0));
        let (shares, audit) = left_by(site, &state).await;
        assert_eq!(shares, ["0%", "20%"]);
        assert_eq!(audit.last().map(String::as_str), Some("withdrawn"));
    })
    .await;
}
