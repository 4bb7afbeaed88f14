//! What the control plane does: judging ten times a second, and taking in a changed file.

use std::cell::Cell;
use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use cutover::clock::Clock;
use cutover::config;
use cutover::config::model::Config;
use cutover::control::world::{TICK, World};
use cutover::policy::arm::Arm;
use cutover::policy::class::Class;
use cutover::policy::criteria::Criteria;
use cutover::policy::judge::Judge;
use cutover::policy::judge::window::{ArmCounts, Latencies, Window};
use cutover::policy::key::Salt;
use cutover::policy::share::Share;
use cutover::policy::time::Timestamp;
use cutover::snapshot::Snapshot;
use cutover::state::Saved;
use cutover::telemetry::tally::{Measure, SplitReading, SplitTally, Thresholds};

use super::exchange::WORKER;

/// Splits of somebody who migrates everything.
const MANY: usize = 1_000;
/// Different windows before they come again.
const WINDOWS: usize = 256;
/// Requests of both arms in a window: 1,000 a second.
const REQUESTS: usize = 100;
/// Sessions that they come from.
const SESSIONS: u64 = 5_000;

/// A window of a busy split at 10 % of the keys, under the default criteria.
pub(super) fn judge() -> Box<dyn FnMut()> {
    let criteria = Criteria::default();
    let windows = windows(&criteria);
    let mut now = Timestamp::from_milliseconds(0);
    let mut judge = Judge::new(criteria, now);
    let mut turn = 0;
    Box::new(move || {
        turn = (turn + 1) % windows.len();
        now = now.plus(TICK);
        black_box(judge.observe(black_box(&windows[turn]), now));
    })
}

/// What the workers' counters say of traffic with few errors and the usual long tail.
fn windows(criteria: &Criteria) -> Vec<Window> {
    let thresholds = Thresholds::of(criteria);
    let tally = SplitTally::new(1, thresholds.clone());
    let salt = Salt::new("api");
    let share = Share::from_basis_points(1_000).expect("a share");
    let mut chance = Chance(7);
    let mut before = tally.reading();
    (0..WINDOWS)
        .map(|_| {
            for _ in 0..REQUESTS {
                let session = chance.next() % SESSIONS;
                let hash = salt.hash(&session.to_le_bytes());
                let arm = match share.contains(hash.bucket()) {
                    true => Arm::New,
                    false => Arm::Legacy,
                };
                let cluster = hash.cluster();
                let class = match chance.next() % 1_000 {
                    0..2 => Class::ServerError,
                    2..40 => Class::ClientError,
                    _ => Class::Success,
                };
                let counts = tally.arm(WORKER, arm);
                counts.book(class, Some(cluster));
                // Most are quick, one in 64 takes eight times as long, and so on.
                let tail = chance.next().trailing_zeros() / 6;
                let first_byte = Duration::from_millis((10 + chance.next() % 40) << (3 * tail));
                let total = first_byte + Duration::from_millis(chance.next() % 10);
                counts.first_byte(first_byte);
                counts.total(total);
                for (measure, took) in [(Measure::FirstByte, first_byte), (Measure::Total, total)] {
                    for (index, threshold) in thresholds.on(measure).iter().enumerate() {
                        counts.latency(measure, index, took >= *threshold, Some(cluster));
                    }
                }
            }
            let reading = tally.reading();
            let since = |arm| counted(&reading, arm).since(&counted(&before, arm));
            let window = Window {
                seconds: TICK.as_secs_f64(),
                new: since(Arm::New),
                legacy: since(Arm::Legacy),
                slower: None,
                streak: reading.streak.clone(),
                legacy_available: true,
                new_available: true,
            };
            before = reading;
            window
        })
        .collect()
}

fn counted(reading: &SplitReading, arm: Arm) -> ArmCounts {
    let figures = &reading.figures[arm];
    ArmCounts {
        first_byte: Latencies::from_buckets(figures.first_byte.counts().iter().copied()),
        total: Latencies::from_buckets(figures.total.counts().iter().copied()),
        ..reading.evidence[arm].clone()
    }
}

/// The same draws in each run, whatever becomes of libraries.
struct Chance(u64);

impl Chance {
    /// Xorshift: good enough to look like traffic.
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// A tick while many splits have no traffic: they are left alone.
pub(super) fn tick_over_silence() -> Box<dyn FnMut()> {
    let config = parsed(&many_splits(), Path::new("."), "10%");
    let (mut world, _) = world(config);
    Box::new(move || {
        black_box(world.observe());
    })
}

/// A tick in which each of as many splits is judged.
pub(super) fn tick_with_verdicts() -> Box<dyn FnMut()> {
    let config = parsed(&many_splits(), Path::new("."), "10%");
    let (mut world, _) = world(config);
    Box::new(move || {
        world.wake();
        black_box(world.observe());
    })
}

/// A share changes in the file that shows every option.
pub(super) fn reload_of_production() -> Box<dyn FnMut()> {
    // Whatever kind of key the file shows, this is the one that is made here.
    let text = include_str!("../../config/production.yaml").replace("RS256", "ES256");
    let directory = tempfile::tempdir().expect("a temporary directory");
    write_files(directory.path());
    let mut reload = reload(text, directory.path());
    Box::new(move || {
        reload();
        // The files are needed as long as somebody reads them.
        black_box(&directory);
    })
}

/// A share changes in a file with many splits and as many routes.
pub(super) fn reload_of_many_splits() -> Box<dyn FnMut()> {
    Box::new(reload(many_splits(), Path::new(".")))
}

/// Parses, checks, compiles, plans and publishes a file in which one share is another each time.
fn reload(text: String, base: &Path) -> impl FnMut() + use<> {
    let base = base.to_owned();
    let (mut world, first) = world(parsed(&text, &base, "10%"));
    let published = ArcSwap::new(first);
    let is_higher = Cell::new(false);
    move || {
        is_higher.set(!is_higher.get());
        let share = if is_higher.get() { "20%" } else { "10%" };
        let plan = world.plan(parsed(&text, &base, share));
        black_box(world.adopt(plan.expect("it can be put in force")));
        published.store(Arc::new(world.snapshot()));
    }
}

fn parsed(text: &str, base: &Path, share: &str) -> Config {
    let environment = |name: &str| match name {
        "CHECKOUT_SHARE" => Some(share.to_owned()),
        "READ_TOKEN" | "METRICS_TOKEN" => Some("the reader's token".to_owned()),
        "PIN_SECRET" => Some("a pin secret of more than thirty-two bytes".to_owned()),
        _ => None,
    };
    let config = config::load_text(text, base, &environment);
    config.unwrap_or_else(|problems| panic!("{problems}"))
}

fn world(config: Config) -> (World, Arc<Snapshot>) {
    let world = World::new(Clock::start(), config, Saved::default());
    let (mut world, _) = world.expect("it can be built");
    let snapshot = Arc::new(world.snapshot());
    (world, snapshot)
}

fn many_splits() -> String {
    let mut text = "listeners: [{address: '127.0.0.1:0'}]\n\
                    backends: {old: {endpoints: ['127.0.0.1:1']}, fresh: {endpoints: ['127.0.0.1:2']}}\n\
                    splits:\n"
        .to_owned();
    let mut share = "${CHECKOUT_SHARE}";
    for split in 0..MANY {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "  tenant-{split}: {{legacy: old, new: fresh, share: '{share}'}}"
        );
        share = "10%";
    }
    text.push_str("routes:\n");
    for split in 0..MANY {
        let _ = writeln!(
            text,
            "  - {{split: tenant-{split}, host: tenant-{split}.example.com}}"
        );
    }
    text
}

/// Writes what production.yaml names.
fn write_files(directory: &Path) {
    let write = |name: &str, contents: &str| {
        let path = directory.join(name);
        let parent = path.parent().expect("within the directory");
        fs::create_dir_all(parent).expect("writable");
        fs::write(path, contents).expect("writable");
    };
    let names = vec!["shop.example.com".to_owned()];
    let certified = rcgen::generate_simple_self_signed(names).expect("a certificate");
    let (certificate, key) = (certified.cert.pem(), certified.signing_key.serialize_pem());
    for name in [
        "edge.pem",
        "partners.pem",
        "clients-ca.pem",
        "internal-ca.pem",
    ] {
        write(&format!("tls/{name}"), &certificate);
    }
    write("tls/edge.key", &key);
    write("tls/partners.key", &key);
    write(
        "tls/jwt-public.pem",
        &certified.signing_key.public_key_pem(),
    );
    write("secrets/operate-token", "the operator's token\n");
    write("pins.txt", "bob@example.com new\n");
    write("denied.txt", "198.51.100.0/24\n");
    write("allowed.txt", "0.0.0.0/0\n::/0\n");
}
