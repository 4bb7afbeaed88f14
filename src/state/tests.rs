//! The store against restarts, damage and SIGKILL.

use std::io::{BufRead, BufReader};
use std::ops::Bound;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use redb::BackendError;
use redb::backends::FileBackend;

use super::*;
use crate::policy::arm::PerArm;
use crate::policy::criteria::Action;
use crate::policy::denials::Denial;
use crate::policy::plan::{Course, Rules};
use crate::policy::rollout::{By, Effect, Event, Phase, Rollout, Terms};
use crate::policy::share::Share;

/// A rollout that an operator has set to `basis_points`, and the decision that says so.
pub(crate) fn rollout_at(basis_points: u16) -> (Rollout, Decision) {
    let terms = Terms {
        course: Course::ByHand {
            share: None,
            criteria: Box::default(),
        },
        rules: Rules::default(),
        rollout_id: "r1".to_owned(),
        signals: Vec::new(),
        backends: PerArm::from_fn(|arm| arm.to_string()),
    };
    let mut rollout = Rollout::new("shop", terms, Timestamp::default());
    let set = Event::Set {
        share: Share::from_basis_points(basis_points).unwrap(),
        override_file: false,
        by: By {
            actor: "alice".to_owned(),
            reason: "test".to_owned(),
        },
    };
    let mut effects = rollout.handle(set, Timestamp::default()).unwrap();
    let Some(Effect::Announce(decision)) = effects.pop() else {
        panic!("no decision");
    };
    (rollout, *decision)
}

impl Store {
    /// Saves these rollouts and the emergency.
    pub(crate) fn save_all<'a>(
        &self,
        rollouts: impl IntoIterator<Item = (&'a str, &'a Record)>,
        emergency: bool,
    ) -> Result<(), StoreError> {
        let changes = Changes {
            emergency: Some(emergency),
            denials: None,
        };
        self.commit(rollouts, changes, []).map(drop)
    }

    fn append_audit(&self, decision: &Decision) -> Result<(), StoreError> {
        self.commit([], Changes::default(), [decision]).map(drop)
    }

    fn write(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let transaction = begin(&self.database)?;
        change(&transaction)?;
        transaction.commit()?;
        Ok(())
    }

    /// The last decisions of all splits, at most so many, the latest first.
    pub(crate) fn history(&self, limit: usize) -> Result<Vec<Decision>, StoreError> {
        self.reading()?.history(&Wanted {
            split: None,
            since: None,
            limit,
        })
    }
}

/// A file on a disk that can be full.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    is_full: Arc<AtomicBool>,
    gate: Arc<Gate>,
}

/// What a disk waits for before it says that something is written.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// Whoever holds it hangs the disk.
    pub(crate) lock: Mutex<()>,
    /// Whether somebody waits for the disk since this was last cleared.
    pub(crate) is_waited_for: AtomicBool,
}

impl Disk {
    fn room(&self) -> io::Result<()> {
        if self.is_full.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.room()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.room()?;
        self.gate.is_waited_for.store(true, Ordering::Relaxed);
        let _open = self.gate.lock.lock().unwrap();
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.room()?;
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }
}

/// A new store in `directory` whose disk is full whenever the other value says so, until the store
/// is opened again.
pub(crate) fn on_a_disk_that_fills(directory: &Path) -> (Store, Arc<AtomicBool>) {
    let is_full = Arc::new(AtomicBool::new(false));
    let store = on_a_disk(directory, &is_full, &Arc::default());
    (store, is_full)
}

/// A new store in `directory` whose disk hangs while somebody holds the gate.
pub(crate) fn on_a_disk_that_hangs(directory: &Path) -> (Store, Arc<Gate>) {
    let gate = Arc::default();
    let store = on_a_disk(directory, &Arc::default(), &gate);
    (store, gate)
}

fn on_a_disk(directory: &Path, is_full: &Arc<AtomicBool>, gate: &Arc<Gate>) -> Store {
    let Store { file, is_new, .. } = Store::open(directory).unwrap();
    let handle = OpenOptions::new().read(true).write(true).open(&file);
    let disk = Disk {
        file: FileBackend::new(handle.unwrap()).unwrap(),
        is_full: Arc::clone(is_full),
        gate: Arc::clone(gate),
    };
    Store {
        database: Builder::new().create_with_backend(disk).unwrap(),
        file,
        is_new,
    }
}

fn share_in(store: &Store) -> Option<u16> {
    let saved = store.load().unwrap();
    let record = saved.rollouts.get("shop")?.clone();
    let (rollout, _) = rollout_at(0);
    let terms = rollout.terms().clone();
    let (restored, _) = Rollout::restore("shop", record, terms, Timestamp::default());
    Some(restored.standing().share.basis_points())
}

#[test]
fn a_new_store_is_empty_and_a_reopened_one_finds_everything() {
    let directory = tempfile::tempdir().unwrap();
    let nested = directory.path().join("state").join("cutover");
    let store = Store::open(&nested).unwrap();
    assert_eq!(store.load().unwrap(), Saved::default());
    assert_eq!(store.history(10).unwrap(), []);

    let (first, first_decision) = rollout_at(100);
    let (second, second_decision) = rollout_at(2_500);
    store.save_all([("shop", &first.record())], false).unwrap();
    let records = [("shop", &second.record()), ("search", &first.record())];
    store.save_all(records, true).unwrap();
    store.append_audit(&first_decision).unwrap();
    store.append_audit(&second_decision).unwrap();
    drop(store);

    let store = Store::open(&nested).unwrap();
    let saved = store.load().unwrap();
    assert!(saved.emergency);
    assert_eq!(saved.rollouts["shop"], second.record());
    assert_eq!(saved.rollouts["search"], first.record());
    let latest_first = [second_decision.clone(), first_decision];
    assert_eq!(store.history(10).unwrap(), latest_first);
    assert_eq!(store.history(1).unwrap(), [second_decision]);
}

#[test]
fn rollouts_that_are_not_saved_again_stay_as_they_were() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let (rollout, _) = rollout_at(700);
    store
        .save_all([("shop", &rollout.record())], false)
        .unwrap();
    store.save_all([], false).unwrap();
    assert_eq!(share_in(&store), Some(700));
}

#[track_caller]
fn assert_refused(directory: &Path, names: &Path, remedy: &str) -> OpenError {
    let error = Store::open(directory).expect_err("refused");
    let message = error.to_string();
    assert!(message.contains(&names.display().to_string()), "{message}");
    assert!(message.contains(remedy), "{message}");
    error
}

#[test]
fn a_damaged_file_is_refused_and_left_as_it_is() {
    let garbage = b"once upon a time ".repeat(4_000);
    let mut truncated = {
        let directory = tempfile::tempdir().unwrap();
        drop(Store::open(directory.path()).unwrap());
        fs::read(directory.path().join(Store::FILE_NAME)).unwrap()
    };
    truncated.truncate(5_000);
    for contents in [garbage, truncated, Vec::new()] {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(Store::FILE_NAME);
        fs::write(&file, &contents).unwrap();
        let error = assert_refused(directory.path(), &file, "--recover-share");
        assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
        assert_eq!(fs::read(&file).unwrap(), contents);

        let aside = Store::set_aside(directory.path(), Timestamp::default()).unwrap();
        assert_eq!(fs::read(aside).unwrap(), contents);
        let store = Store::open(directory.path()).unwrap();
        assert_eq!(store.load().unwrap(), Saved::default());
    }
}

/// The library alone would take this file: it looks at checksums only after a crash.
#[test]
fn a_single_wrong_digit_is_noticed_at_every_start() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(Store::FILE_NAME);
    let store = Store::open(directory.path()).unwrap();
    let (rollout, _) = rollout_at(1_234);
    store
        .save_all([("shop", &rollout.record())], false)
        .unwrap();
    drop(store);

    let mut contents = fs::read(&file).unwrap();
    let written = b"\"operator_share\":1234";
    let places: Vec<usize> = contents
        .windows(written.len())
        .enumerate()
        .filter_map(|(place, found)| (found == written).then_some(place))
        .collect();
    assert!(!places.is_empty());
    for place in places {
        contents[place + written.len() - 1] = b'9';
    }
    fs::write(&file, &contents).unwrap();
    for _ in 0..2 {
        let error = assert_refused(directory.path(), &file, "--recover-share");
        assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
        assert_eq!(fs::read(&file).unwrap(), contents);
    }
}

#[test]
fn a_newer_file_or_record_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(Store::FILE_NAME);
    let store = Store::open(directory.path()).unwrap();
    let set_format = |store: &Store, format: u64| {
        let change = |transaction: &WriteTransaction| {
            transaction.open_table(META)?.insert("format", format)?;
            Ok(())
        };
        store.write(change).unwrap();
    };
    set_format(&store, FORMAT + 1);
    drop(store);
    let error = assert_refused(directory.path(), &file, "start that version again");
    assert!(matches!(error, OpenError::Newer { .. }), "{error:?}");

    let other = tempfile::tempdir().unwrap();
    let store = Store::open(other.path()).unwrap();
    let future = |transaction: &WriteTransaction| {
        let json = r#"{"version": 4, "moon": "full"}"#;
        transaction.open_table(ROLLOUTS)?.insert("shop", json)?;
        Ok(())
    };
    store.write(future).unwrap();
    let error = store.load().expect_err("refused");
    assert!(
        matches!(error, OpenError::Newer { found: 4, .. }),
        "{error:?}"
    );
}

#[test]
fn an_unreadable_record_is_refused_with_the_name_of_its_split() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let scribble = |transaction: &WriteTransaction| {
        let mut rollouts = transaction.open_table(ROLLOUTS)?;
        rollouts.insert("shop", r#"{"version": 1}"#)?;
        Ok(())
    };
    store.write(scribble).unwrap();
    let message = store.load().expect_err("refused").to_string();
    assert!(message.contains("record of shop"), "{message}");

    let claim = |transaction: &WriteTransaction| {
        let mut rollouts = transaction.open_table(ROLLOUTS)?;
        rollouts.insert("shop", VERSION_1.replace(":1,", ":0,").as_str())?;
        Ok(())
    };
    store.write(claim).unwrap();
    let message = store.load().expect_err("refused").to_string();
    assert!(message.contains("shop claims version 0"), "{message}");
}

/// As version 1 wrote it after a rollback by hand of a share that another hand had set; of the
/// evidence, which nothing here can read, only the beginning.
const VERSION_1: &str = r#"{"version":1,"rollout_id":"r1","file_share":null,"phase":"rolled_back",
"operator_share":2500,"emergency":false,"last_hold":null,"last_decision":{"at":
"2026-11-20T13:50:22.285Z","split":"shop","actor":"local","action":"rollback","reason":
"carts are empty","from":2500,"to":0,"conditions":[{"criterion":"error_rate > 5%","value":1.0,
"limit":0.05,"samples":5,"events":5,"evidence":2084.086312559114,"threshold":200.0,"since":
"2026-11-20T13:49:40.383Z","overdispersion":1.5,"verdict":"fail","withheld_by":"when_legacy_too"},
{"criterion":"p95 > 500ms","value":null,"limit":0.05,"samples":0,"events":0,"evidence":
0.5000795196759277,"threshold":200.0,"since":null,"overdispersion":1.5,"verdict":"inconclusive",
"withheld_by":null}],"sentence":
"Rolled back new of shop at 13:50:22 by local (carts are empty); it was at 25%."},"evidence":
{"watches":[{"criterion":{"metric":"error_rate","limit":0.05},"kernel":0.05}],"clusters_seen":
1152921509170258952,"legacy_available":true}}"#;

#[test]
fn a_record_of_version_1_keeps_its_latch_and_shares_and_gathers_evidence_afresh() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let written: serde_json::Value = serde_json::from_str(VERSION_1).unwrap();
    let decision = written["last_decision"].to_string();
    let as_version_1 = |transaction: &WriteTransaction| {
        transaction
            .open_table(ROLLOUTS)?
            .insert("shop", VERSION_1)?;
        transaction
            .open_table(AUDIT)?
            .insert(0, decision.as_str())?;
        Ok(())
    };
    store.write(as_version_1).unwrap();

    let record = store.load().unwrap().rollouts["shop"].clone();
    let (other, _) = rollout_at(0);
    let now = Timestamp::default();
    let restore = |record| Rollout::restore("shop", record, other.terms().clone(), now);
    let (mut restored, effects) = restore(record.clone());
    assert_eq!(effects, [], "nothing has changed");
    assert_eq!(restored.phase(), Phase::RolledBack);
    assert_eq!(restored.standing().share, Share::ZERO);
    assert_eq!(
        restored.override_share(),
        Share::from_basis_points(2_500).ok()
    );
    let fresh = Rollout::new("shop", other.terms().clone(), now);
    assert_eq!(restored.conditions(), fresh.conditions());

    let by = By {
        actor: "alice".to_owned(),
        reason: "mended".to_owned(),
    };
    restored
        .handle(Event::Resume { stage: None, by }, now)
        .unwrap();
    assert_eq!(restored.standing().share.basis_points(), 2_500);

    let decisions = store.history(1).unwrap();
    assert_eq!(restore(record.clone()).0.last_decision(), decisions.first());
    let condition = &decisions[0].conditions[0];
    assert_eq!(
        (condition.limit, condition.action),
        (Some(0.05), Action::Rollback)
    );

    // What is no longer configured is kept as well, and from now on as this version's.
    store.save_all([("shop", &record)], false).unwrap();
    assert_eq!(record.version, Record::VERSION);
    assert_eq!(store.load().unwrap().rollouts["shop"], record);
}

#[test]
fn a_directory_that_cannot_be_written_is_refused() {
    // Permissions do not stop root, under whom tests may run; a regular file stops everyone.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("occupied");
    fs::write(&file, "not a directory").unwrap();
    let below = file.join("state");
    let error = assert_refused(&below, &below, "may write to");
    assert!(matches!(error, OpenError::Directory { .. }), "{error:?}");
}

#[test]
fn a_second_process_is_refused_while_the_first_runs() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(Store::FILE_NAME);
    let _first = Store::open(directory.path()).unwrap();
    let error = assert_refused(directory.path(), &file, "stop that one first");
    assert!(matches!(error, OpenError::Locked { .. }), "{error:?}");
}

#[test]
fn the_audit_keeps_its_latest_decisions_and_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let (_, decision) = rollout_at(1);
    let json = serde_json::to_string(&decision).unwrap();
    let fill = |transaction: &WriteTransaction| {
        let mut audit = transaction.open_table(AUDIT)?;
        for number in 0..AUDIT_LIMIT {
            audit.insert(number, json.as_str())?;
        }
        Ok(())
    };
    store.write(fill).unwrap();
    let (_, later) = rollout_at(8_000);
    let (_, latest) = rollout_at(9_000);
    assert_eq!(
        store
            .commit([], Changes::default(), [&later, &latest])
            .unwrap(),
        2
    );
    let history = store.history(usize::MAX).unwrap();
    assert_eq!(history.len() as u64, AUDIT_LIMIT);
    assert_eq!(history[..2], [latest, later]);
}

/// Names the directory in which a child process of the test below writes until it is killed.
const WRITER_DIRECTORY: &str = "CUTOVER_TEST_WRITER_DIRECTORY";

#[test]
fn what_was_acknowledged_survives_sigkill() {
    if let Some(directory) = std::env::var_os(WRITER_DIRECTORY) {
        write_until_killed(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    for round in 0..10 {
        let acknowledged = kill_a_writer(directory.path(), 3 + 2 * round);
        let store = Store::open(directory.path()).unwrap();
        let saved = share_in(&store).expect("a record");
        // The writer may have finished further writes before the signal reached it.
        assert!(saved >= acknowledged, "{saved} after {acknowledged}");
        let audited = store.history(1).unwrap()[0].to.basis_points();
        assert_eq!(saved, audited, "what is saved without its decision");
    }
}

/// Runs this very test in a child process as the writer, and kills it after so many
/// acknowledgements. Returns the last one.
fn kill_a_writer(directory: &Path, acknowledgements: usize) -> u16 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("state::tests::what_was_acknowledged_survives_sigkill")
        .env(WRITER_DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let acknowledged = lines
        .map(|line| line.unwrap())
        .filter_map(|line| line.strip_prefix("saved ")?.parse().ok())
        .nth(acknowledgements);
    child.kill().unwrap();
    child.wait().unwrap();
    acknowledged.expect("the writer wrote")
}

/// Saves rising shares and says so after each.
fn write_until_killed(directory: &Path) -> ! {
    let store = Store::open(directory).unwrap();
    let next = share_in(&store).map_or(0, |share| share + 1);
    for basis_points in next.. {
        let (rollout, decision) = rollout_at(basis_points);
        let record = rollout.record();
        store
            .commit([("shop", &record)], Changes::default(), [&decision])
            .unwrap();
        println!("\nsaved {basis_points}");
    }
    unreachable!("killed long before");
}

#[test]
fn what_is_denied_is_saved_whole_and_a_file_of_an_earlier_version_denies_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    assert!(
        store.load().unwrap().denials.is_empty(),
        "there is no table"
    );
    let denial = |reason: &str| Denial {
        since: Timestamp::from_milliseconds(1_000),
        until: Some(Timestamp::from_milliseconds(2_000)),
        actor: "alice".to_owned(),
        reason: reason.to_owned(),
    };
    let network = |text: &str| crate::policy::addresses::network(text).unwrap();
    for networks in [
        &[("192.0.2.0/24", "a flood"), ("2001:db8::/32", "a scan")][..],
        &[("192.0.2.0/24", "another flood"), ("10.0.0.1", "a loop")],
        &[],
    ] {
        let entries = networks.iter();
        let entries = entries.map(|(text, reason)| (network(text), denial(reason)));
        let denials: Denials = entries.collect();
        let changes = Changes {
            denials: Some(&denials),
            ..Changes::default()
        };
        store.commit([], changes, []).unwrap();
        assert_eq!(store.load().unwrap().denials, denials);
        store.commit([], Changes::default(), []).unwrap();
        assert_eq!(
            store.load().unwrap().denials,
            denials,
            "nobody said otherwise"
        );
    }
}

#[test]
fn of_more_denied_networks_than_may_be_the_oldest_are_left_out_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let entries = (0..Denials::MAX as u32 + 3).map(|number| {
        let network = ipnet::IpNet::from(std::net::IpAddr::from(number.to_be_bytes()));
        let denial = Denial {
            since: Timestamp::from_milliseconds(i64::from(number)),
            until: None,
            actor: "alice".to_owned(),
            reason: String::new(),
        };
        (network, denial)
    });
    let changes = Changes {
        denials: Some(&entries.collect()),
        ..Changes::default()
    };
    store.commit([], changes, []).unwrap();
    let saved = store.load().unwrap();
    assert_eq!(
        (saved.denials.len(), saved.denials_dropped),
        (Denials::MAX, 3)
    );
    let first = saved.denials.iter().next().unwrap().0.to_string();
    assert_eq!(first, "0.0.0.3/32");
}
