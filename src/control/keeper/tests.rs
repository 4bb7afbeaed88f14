//! The keeper against a disk that fails and recovers.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::policy::time::Timestamp;
use crate::state::tests::{on_a_disk_that_fills, on_a_disk_that_hangs, rollout_at};

/// Writes come now and then; each may find the disk well again.
const UNTIL_THE_NEXT_WRITE: Duration = Duration::from_millis(50);

/// A keeper whose disk has just become full.
struct Failed {
    directory: TempDir,
    keeper: Keeper,
}

impl Failed {
    /// The first write that fails is this one's.
    async fn at(memory: Memory) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (store, is_full) = on_a_disk_that_fills(directory.path());
        let keeper = Keeper::start(Some(store)).unwrap();
        keeper.save(at(100), Vec::new()).await.unwrap();
        is_full.store(true, Ordering::Relaxed);
        keeper
            .save(memory, Vec::new())
            .await
            .expect_err("the disk is full");
        assert!(!keeper.is_healthy());
        Self { directory, keeper }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join(Store::FILE_NAME)
    }

    /// Stops, and reads what a restart would find.
    async fn restart(self) -> Store {
        self.keeper.finish().await;
        Store::open(self.directory.path()).unwrap()
    }
}

fn at(basis_points: u16) -> Memory {
    let (rollout, _) = rollout_at(basis_points);
    Memory {
        rollouts: vec![("shop".to_owned(), rollout.record())],
        emergency: false,
        denials: Arc::default(),
    }
}

fn emergency() -> Memory {
    Memory {
        emergency: true,
        ..at(0)
    }
}

#[tokio::test]
async fn whoever_saves_after_the_disk_has_recovered_succeeds_and_nothing_is_missing() {
    let failed = Failed::at(at(2_500)).await;
    let (rollout, decision) = rollout_at(0);
    failed
        .keeper
        .save(emergency(), vec![decision.clone()])
        .await
        .unwrap();
    assert!(failed.keeper.is_healthy());
    let store = failed.restart().await;
    let saved = store.load().unwrap();
    assert!(saved.emergency);
    assert_eq!(saved.rollouts["shop"], rollout.record());
    assert_eq!(store.history(10).unwrap(), [decision]);
}

#[tokio::test]
async fn what_could_not_be_saved_is_saved_with_a_later_write_of_something_else() {
    let failed = Failed::at(emergency()).await;
    let (_, decision) = rollout_at(0);
    let healed = async {
        while !failed.keeper.is_healthy() {
            let decisions = vec![decision.clone()];
            failed.keeper.save_in_passing(emergency(), decisions);
            tokio::time::sleep(UNTIL_THE_NEXT_WRITE).await;
        }
    };
    let healed = timeout(2 * PATIENCE, healed).await;
    healed.expect("the store is opened again");
    assert!(failed.restart().await.load().unwrap().emergency);
}

#[tokio::test]
async fn a_file_that_is_missing_or_damaged_after_a_failure_is_neither_made_again_nor_replaced() {
    let failed = Failed::at(at(2_500)).await;
    let file = failed.file();
    let away = file.with_extension("away");
    fs::rename(&file, &away).unwrap();
    let error = failed
        .keeper
        .save(at(2_500), Vec::new())
        .await
        .expect_err("no file");
    assert!(error.0.contains(Store::FILE_NAME), "{error}");
    assert!(!file.exists());

    fs::write(&file, "damage").unwrap();
    let error = failed
        .keeper
        .save(at(2_500), Vec::new())
        .await
        .expect_err("damaged");
    assert!(error.0.contains("is damaged"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), b"damage");
    assert!(!failed.keeper.is_healthy());

    fs::rename(&away, &file).unwrap();
    failed.keeper.save(emergency(), Vec::new()).await.unwrap();
    assert!(failed.restart().await.load().unwrap().emergency);
}

#[tokio::test]
async fn a_promise_that_fails_leaves_no_trace() {
    let failed = Failed::at(at(2_500)).await;
    let file = failed.file();
    let away = file.with_extension("away");
    fs::rename(&file, &away).unwrap();
    let (_, decision) = rollout_at(5_000);
    let promised = failed.keeper.promise(at(5_000), vec![decision]);
    promised.await.expect_err("no file");
    fs::rename(&away, &file).unwrap();
    let (_, later) = rollout_at(2_500);
    let decisions = vec![later.clone()];
    failed.keeper.save(at(2_500), decisions).await.unwrap();
    assert_eq!(failed.restart().await.history(10).unwrap(), [later]);
}

#[tokio::test]
async fn a_promise_that_comes_too_late_is_withdrawn_and_the_next_is_not_even_begun() {
    let directory = tempfile::tempdir().unwrap();
    let (store, gate) = on_a_disk_that_hangs(directory.path());
    let keeper = Keeper::start(Some(store)).unwrap();
    keeper.save(at(2_500), Vec::new()).await.unwrap();
    gate.is_waited_for.store(false, Ordering::Relaxed);
    let (_, late) = rollout_at(5_000);
    let (_, later) = rollout_at(6_000);
    {
        let _hangs = gate.lock.lock().unwrap();
        let promised = keeper.promise(at(5_000), vec![late.clone()]);
        let next = keeper.promise(at(6_000), vec![later]);
        while !gate.is_waited_for.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        // Nobody waits any longer.
        drop((promised, next));
    }
    keeper.save(at(2_500), Vec::new()).await.unwrap();
    keeper.finish().await;
    let history = Store::open(directory.path()).unwrap().history(10).unwrap();
    assert_eq!(history.len(), 2, "{history:#?}");
    assert_eq!(history[1], late);
    assert_eq!(history[0].action, "withdrawn");
    assert_eq!((history[0].from, history[0].to), (late.to, late.from));
}

#[test]
fn what_could_not_be_written_of_a_split_is_not_lost_to_a_later_save_of_another() {
    let directory = tempfile::tempdir().unwrap();
    let (store, is_full) = on_a_disk_that_fills(directory.path());
    let mut writer = Writer::new(store);
    is_full.store(true, Ordering::Relaxed);
    writer.remember(at(2_500));
    writer.write().expect_err("the disk is full");
    let of_another = |basis_points| {
        let mut memory = at(basis_points);
        memory.rollouts[0].0 = "blog".to_owned();
        memory
    };
    writer.remember(of_another(0));
    writer.remember(of_another(5_000));
    writer.write().expect("it can be opened again");
    drop(writer);
    let saved = Store::open(directory.path()).unwrap().load().unwrap();
    let (shop, blog) = (rollout_at(2_500).0, rollout_at(5_000).0);
    assert_eq!(saved.rollouts["shop"], shop.record());
    assert_eq!(saved.rollouts["blog"], blog.record(), "the newest of it");
}

#[test]
fn decisions_that_cannot_be_written_are_kept_up_to_a_limit_and_those_lost_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (store, is_full) = on_a_disk_that_fills(directory.path());
    let mut writer = Writer::new(store);
    is_full.store(true, Ordering::Relaxed);
    let decisions: Vec<Decision> = (1..=writer::BACKLOG as u16 + 3)
        .map(|basis_points| rollout_at(basis_points).1)
        .collect();
    writer.add(decisions.clone());
    writer.write().expect_err("the disk is full");
    assert!(!writer.is_due(), "the disk is given a moment");
    assert_eq!(writer.missing(), decisions.len() as u64);
    writer.write().expect("it can be opened again");
    assert_eq!(writer.missing(), 0);
    assert_eq!(writer.dropped(), 3);
    drop(writer);
    let mut history = Store::open(directory.path())
        .unwrap()
        .history(1_000)
        .unwrap();
    history.reverse();
    assert_eq!(history, decisions[3..]);
}

#[tokio::test]
async fn one_export_is_made_at_a_time_and_leaves_the_others_their_readings() {
    let (keeper, _disk) = Keeper::hanging();
    let first = keeper.read_alone(|reading| reading.export(Timestamp::default()));
    let second = keeper.read_alone(|reading| reading.export(Timestamp::default()));
    let error = second.await.expect_err("one at a time");
    assert!(error.0.contains("another export"), "{error}");
    drop(first);
    let directory = tempfile::tempdir().unwrap();
    let keeper = Keeper::start(Some(Store::open(directory.path()).unwrap())).unwrap();
    for _ in 0..2 {
        let export = keeper.read_alone(|reading| reading.export(Timestamp::default()));
        assert!(export.await.unwrap().contains("audit"));
    }
}
