//! Everything at once: both arms go through faults, shares move, the file changes, clients of every
//! kind come, stay and leave. Whatever happens, some things must hold.
//!
//! - A session is on the arm that its key and the share say.
//! - While only `new` has faults, no safe request fails, whatever `new` does before its first byte;
//!   and an answer that breaks off is one that a server had begun.
//! - Each request is one outcome, and a write is begun at one server at most.
//! - Afterwards there are no more connections, files and memory than before.
//!
//! It lasts a minute, or as many seconds as `CUTOVER_CHAOS_SECONDS` says. A failure names its seed;
//! with `CUTOVER_CHAOS_SEED` set to it the same faults come again, if not at the same moments.

mod operator;
mod population;
mod storm;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cutover::clock::Clock;
use cutover::policy::arm::Arm;

use self::operator::{configuration, operate};
use self::population::{Ledger, Shared, View, populate};
use self::storm::{Storm, lock};
use crate::harness::chance::Chance;
use crate::harness::proxy::{Proxy, Site};
use crate::harness::{eventually, in_time};

const SECONDS: &str = "CUTOVER_CHAOS_SECONDS";
const SEED: &str = "CUTOVER_CHAOS_SEED";

const CLIENTS: u64 = 24;
/// Answers before the storm, so that memory and files are taken that stay.
const CALM: u64 = 2_000;
/// Between two looks at whether it is alive.
const WATCH: Duration = Duration::from_millis(100);
/// The memory that the storm may leave taken: what an allocator does not give back at once, and a
/// history of some hundred decisions.
const MEMORY: usize = 32 * 1024 * 1024;

#[tokio::test]
async fn in_a_storm_sessions_stay_safe_requests_succeed_and_everything_is_counted_once() {
    let number = |name| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse().expect("a number"))
    };
    let seed = number(SEED).unwrap_or_else(|| Clock::start().now().milliseconds().unsigned_abs());
    let length = Duration::from_secs(number(SECONDS).unwrap_or(60));
    let mut storm = Storm::new(seed);
    let proxy = Site::new().start(&configuration(&storm, 0)).await;
    let shared = Arc::new(Shared {
        view: Mutex::new(View::default()),
        ledger: Ledger::default(),
        notes: storm.shared_notes(),
        is_over: false.into(),
    });
    let files = proxy.open_files();
    let mut clients = populate(CLIENTS, proxy.address(), seed, &shared);
    eventually("all are served before the storm", async || {
        shared.ledger.answered.load(Ordering::SeqCst) >= CALM
    })
    .await;
    let memory = proxy.memory();

    let until = Instant::now() + length;
    let mut operator = Chance::lane(seed, 2_000);
    let variants: Vec<String> = (0..32)
        .map(|variant| configuration(&storm, variant))
        .collect();
    let operating = async {
        while Instant::now() < until {
            operate(&proxy, &shared, &mut operator, |variant| {
                variants[variant as usize].clone()
            })
            .await;
            let pause = Duration::from_millis(200 + operator.below(600));
            tokio::time::sleep(pause).await;
        }
    };
    let watching = async {
        while Instant::now() < until {
            for path in ["/livez", "/readyz"] {
                assert_eq!(proxy.ask(path).await.status, 200, "{path}; {SEED}={seed}");
            }
            tokio::time::sleep(WATCH).await;
        }
    };
    let storming = rage(&mut storm, &shared, seed, until);
    tokio::join!(operating, watching, storming);

    shared.is_over.store(true, Ordering::SeqCst);
    in_time("the clients end", async {
        while let Some(ended) = clients.join_next().await {
            ended.expect("clients do not panic");
        }
    })
    .await;
    check_ledger(&shared.ledger, seed);
    check_counts(&proxy, &shared.ledger, seed).await;
    let twice: Vec<_> = {
        let notes = storm.notes();
        let twice = notes.writes.iter().filter(|(_, count)| **count > 1);
        twice
            .map(|(target, count)| (target.clone(), *count))
            .collect()
    };
    assert!(twice.is_empty(), "run twice: {twice:?}; {SEED}={seed}");
    check_leaks(&proxy, files, memory, seed).await;
    assert!(!proxy.log().contains("panicked"), "{SEED}={seed}");
}

/// Faults come and go, on both arms or on `new` alone, until it is over; then all is well.
async fn rage(storm: &mut Storm, shared: &Shared, seed: u64, until: Instant) {
    let mut chance = Chance::lane(seed, 3_000);
    while Instant::now() < until {
        let spares_legacy = lock(&shared.view).phase.is_multiple_of(2);
        if spares_legacy {
            storm.calm(Arm::Legacy);
        }
        // What began before this belongs to no phase.
        lock(&shared.view).phase += 1;
        let phase = Instant::now() + Duration::from_millis(1_000 + chance.below(3_000));
        while Instant::now() < phase.min(until) {
            let arm = match chance.below(3) {
                0 if !spares_legacy => Arm::Legacy,
                _ => Arm::New,
            };
            storm.change(&mut chance, arm);
            let until_the_next = Duration::from_millis(50 + chance.below(150));
            tokio::time::sleep(until_the_next).await;
        }
    }
    storm.calm(Arm::Legacy);
    storm.calm(Arm::New);
}

fn check_ledger(ledger: &Ledger, seed: u64) {
    let broken = lock(&ledger.broken_promises);
    let some: Vec<_> = broken.iter().take(20).collect();
    assert!(
        broken.is_empty(),
        "{}: {some:#?}; {SEED}={seed}",
        broken.len()
    );
    let read = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::SeqCst);
    let (answered, left) = (read(&ledger.answered), read(&ledger.left));
    let (fallbacks, truncated) = (read(&ledger.fallbacks), read(&ledger.truncated));
    let (spared, checked) = (read(&ledger.spared), read(&ledger.checked));
    let tale = format!(
        "{answered} answered, {left} left, {fallbacks} by legacy in place of new, {truncated} broke \
         off, {spared} safe ones while only new had faults, {checked} arms checked; {SEED}={seed}"
    );
    eprintln!("{tale}");
    let proves = [answered, left, fallbacks, truncated, spared, checked];
    assert!(proves.iter().all(|count| *count > 20), "too little: {tale}");
}

/// What clients found and what was counted are the same.
async fn check_counts(proxy: &Proxy, ledger: &Ledger, seed: u64) {
    let read = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::SeqCst) as f64;
    let (answered, left) = (read(&ledger.answered), read(&ledger.left));
    proxy.counts(0.0, "cutover_requests_in_flight", &[]).await;
    proxy.counts(0.0, "cutover_client_connections", &[]).await;
    let metrics = proxy.metrics().await;
    let sum = |name, labels: &[(&str, &str)]| metrics.sum(name, labels);
    assert_eq!(sum("cutover_refused_total", &[]), 0.0, "{SEED}={seed}");
    let diverted = sum("cutover_diverted_total", &[]);
    let booked = sum("cutover_requests_total", &[]) + diverted;
    assert!(
        (answered..=answered + left).contains(&booked),
        "{booked} booked, {answered} answered, {left} left; {SEED}={seed}"
    );
    let cancelled = sum("cutover_requests_total", &[("class", "cancelled")]);
    assert!(
        cancelled <= left,
        "{cancelled} cancelled, {left} left; {SEED}={seed}"
    );

    let replayed = sum("cutover_fallbacks_total", &[])
        - sum("cutover_fallbacks_total", &[("result", "cancelled")]);
    let told = read(&ledger.fallbacks);
    assert!(
        (told..=told + left).contains(&(replayed + diverted)),
        "{replayed} replayed, {diverted} diverted, {told} told; {SEED}={seed}"
    );
}

async fn check_leaks(proxy: &Proxy, files: usize, memory: usize, seed: u64) {
    for gauge in [
        "cutover_endpoint_pending_requests",
        "cutover_endpoint_connections",
    ] {
        proxy.counts(0.0, gauge, &[]).await;
    }
    eventually("its files are closed", async || proxy.open_files() <= files).await;
    let more = proxy.memory().saturating_sub(memory);
    eprintln!("{more} bytes more than before");
    assert!(
        more < MEMORY,
        "{more} bytes more than before; {SEED}={seed}"
    );
}
