//! A changed file takes effect at once, as a whole or not at all, and costs nobody a request.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cutover::policy::arm::Arm;
use tokio::net::TcpStream;

use crate::harness::certificate::Certificate;
use crate::harness::client::Client;
use crate::harness::keys::keys;
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::{Gate, Reply, Script, Step, Upstream};
use crate::harness::{eventually, in_time, migration};

/// Two arms of a migration whose share is the file's.
struct Arms {
    legacy: Upstream,
    new: Upstream,
}

impl Arms {
    fn new() -> Self {
        Self {
            legacy: Upstream::ok("legacy"),
            new: Upstream::ok("new"),
        }
    }

    fn with(&self, settings: &str) -> String {
        migration(self.legacy.address(), self.new.address(), settings)
    }
}

async fn has_share(proxy: &Proxy, share: &str) {
    eventually("the file's share is in force", async || {
        proxy.split("api").await.share == share
    })
    .await;
}

/// Writes a file beside `path` and renames it over, as editors do.
fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("tmp");
    fs::write(&beside, text).expect("the directory is writable");
    fs::rename(beside, path).expect("so is the file");
}

#[tokio::test]
async fn a_file_takes_effect_that_is_written_in_place_or_renamed_over() {
    let arms = Arms::new();
    let proxy = Site::new().start(&arms.with("share: 10%")).await;
    let site = proxy.site();
    site.configure(&arms.with("share: 20%"));
    has_share(&proxy, "20%").await;
    let text = site.text(&arms.with("share: 30%"));
    replace(&site.configuration_path(), &text);
    has_share(&proxy, "30%").await;
    site.configure(&arms.with("share: 40%"));
    has_share(&proxy, "40%").await;
}

#[tokio::test]
async fn a_file_takes_effect_that_kubernetes_swaps() {
    let arms = Arms::new();
    let site = Site::new();
    let publish = |version: &str, settings: &str| {
        let directory = site.path().join(version);
        fs::create_dir(&directory).expect("the site is writable");
        let text = site.text(&arms.with(settings));
        fs::write(directory.join("cutover.yaml"), text).expect("the site is writable");
        let swapped = site.path().join("..data_tmp");
        symlink(version, &swapped).expect("the site is writable");
        fs::rename(swapped, site.path().join("..data")).expect("the site is writable");
    };
    publish("..2026_1", "share: 10%");
    symlink("..data/cutover.yaml", site.configuration_path()).expect("the site is writable");
    let proxy = site.clone().launch(&[]).await;
    has_share(&proxy, "10%").await;
    publish("..2026_2", "share: 20%");
    fs::remove_dir_all(site.path().join("..2026_1")).expect("nobody holds it");
    has_share(&proxy, "20%").await;
    publish("..2026_3", "share: 30%");
    has_share(&proxy, "30%").await;
}

#[tokio::test]
async fn a_signal_or_a_command_reads_the_file_although_nothing_has_changed() {
    let arms = Arms::new();
    let proxy = Site::new().start(&arms.with("share: 10%")).await;
    let loaded_at = async || proxy.status().await.config.loaded_at;
    let at_start = loaded_at().await;
    proxy.signal("HUP");
    eventually("it is loaded again", async || loaded_at().await != at_start).await;
    proxy.says(1, "cause=\"SIGHUP\"").await;
    let by_signal = loaded_at().await;
    let output = proxy.cutover(&["reload"]).await;
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("loaded "));
    assert_ne!(loaded_at().await, by_signal);
    let answer = proxy.change("/-/reload", "").await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_every_problem_is_shown_until_it_is_mended() {
    let arms = Arms::new();
    let proxy = Site::new().start(&arms.with("share: 10%")).await;
    let gauge = "cutover_config_last_reload_successful";
    proxy.counts(1.0, gauge, &[]).await;
    let loaded_at = proxy.status().await.config.loaded_at;
    let problems = "sahre: 20%, share: 120%, fallback: {enabled: perhaps}";
    proxy.site().configure(&arms.with(problems));
    proxy.counts(0.0, gauge, &[]).await;
    proxy.says(1, "the old one stays in force").await;
    let config = proxy.status().await.config;
    assert!(!config.last_reload_successful);
    assert_eq!(config.loaded_at, loaded_at);
    for part in ["sahre", "120%", "perhaps"] {
        let mut problems = config.problems.iter();
        assert!(
            problems.any(|problem| problem.contains(part)),
            "no {part} in {:?}",
            config.problems
        );
    }
    let table = proxy.cutover(&["status"]).await;
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.contains("CONFIG REFUSED") && table.contains("sahre"));
    let refused = proxy.cutover(&["reload"]).await;
    assert_eq!(refused.status.code(), Some(3));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("sahre") && said.contains("perhaps"), "{said}");
    assert_eq!(proxy.split("api").await.share, "10%");
    let answer = proxy.client().await.get("/", "alice").await;
    assert_eq!(answer.status, 200);

    proxy.site().configure(&arms.with("share: 20%"));
    proxy.counts(1.0, gauge, &[]).await;
    assert_eq!(proxy.split("api").await.share, "20%");
    assert!(proxy.status().await.config.problems.is_empty());
}

#[tokio::test]
async fn what_only_a_restart_can_change_is_refused_loudly() {
    let arms = Arms::new();
    let proxy = Site::new().start(&arms.with("share: 10%")).await;
    let site = proxy.site();
    let upgrade = "a restart or `cutover upgrade`";
    for (before, after, named, way) in [
        ("workers: 2", "workers: 3", "workers", upgrade),
        (
            "directory: state",
            "directory: elsewhere",
            "state",
            "a restart can",
        ),
        (
            "listeners: [{address: 127.0.0.1:0}",
            "listeners: [{address: 127.0.0.1:0}, {address: 127.0.0.1:0}",
            "listeners",
            upgrade,
        ),
        (
            "admin: {address: 127.0.0.1:0}",
            "admin: {}",
            "admin",
            upgrade,
        ),
    ] {
        let text = site.text(&arms.with("share: 20%"));
        let text = text.replacen(before, after, 1);
        fs::write(site.configuration_path(), text).expect("the site is writable");
        eventually("the change is refused by name", async || {
            let problems = proxy.status().await.config.problems;
            problems
                .iter()
                .any(|problem| problem.contains(named) && problem.contains(way))
        })
        .await;
        let gauge = "cutover_config_last_reload_successful";
        proxy.counts(0.0, gauge, &[]).await;
        assert_eq!(proxy.split("api").await.share, "10%", "all or nothing");
    }
    proxy.says(4, "the old one stays in force").await;
    site.configure(&arms.with("share: 20%"));
    has_share(&proxy, "20%").await;
}

#[tokio::test]
async fn a_share_holds_for_the_next_request_on_every_worker() {
    let arms = Arms::new();
    let proxy = Site::new().start(&arms.with("rollback: off")).await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(proxy.client().await);
    }
    for client in &mut clients {
        assert_eq!(client.get("/", "alice").await.served_by(), Some("legacy"));
    }
    for worker in ["0", "1"] {
        let open = (proxy.metrics().await).sum("cutover_client_connections", &[("worker", worker)]);
        assert!(open >= 1.0, "worker {worker} has no client");
    }
    for round in 0..20 {
        let (share, arm) = if round % 2 == 0 {
            ("100%", "new")
        } else {
            ("0%", "legacy")
        };
        let body = format!("{{\"share\": \"{share}\"}}");
        let answer = proxy.change("/api/v1/splits/api/share", &body).await;
        assert_eq!(answer.status, 200);
        for client in &mut clients {
            assert_eq!(client.get("/", "alice").await.served_by(), Some(arm));
        }
    }
}

#[tokio::test]
async fn a_change_of_one_backend_keeps_the_connections_of_the_others_and_what_is_in_flight() {
    let gate = Gate::new();
    let held = gate.clone();
    let arms = Arms {
        legacy: Upstream::ok("legacy"),
        new: Upstream::start("new", move |request| match request.target.as_str() {
            "/held" => Script::of([Step::Wait(held.clone()), Step::Answer(Reply::new(200))]),
            _ => Script::status(200),
        }),
    };
    let other = Upstream::ok("other");
    let patient = |configuration: String| {
        let pool = "{pool: {idle_timeout: 10m}, endpoints";
        configuration.replace("{endpoints", pool)
    };
    let settings = "share: 50%, rollback: off";
    let proxy = Site::new().start(&patient(arms.with(settings))).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(proxy.client().await);
    }
    let key = |arm| keys("api", "50%", arm).next().expect("there is one");
    let (of_legacy, of_new) = (key(Arm::Legacy), key(Arm::New));
    for client in &mut clients {
        let answer = client.get("/", &of_legacy).await;
        assert_eq!(answer.served_by(), Some("legacy"));
        assert_eq!(client.get("/", &of_new).await.served_by(), Some("new"));
    }
    let connections = arms.legacy.connections();
    let in_flight = {
        let (mut client, key) = (proxy.client().await, of_new.clone());
        tokio::spawn(async move { client.get("/held", &key).await })
    };
    arms.new.has_received("/held").await;

    let moved = migration(arms.legacy.address(), other.address(), settings);
    proxy.site().configure(&patient(moved));
    eventually("new has moved", async || {
        let backends = proxy.status().await.backends;
        backends[1].endpoints[0].address == other.address().to_string()
    })
    .await;
    for client in &mut clients {
        let answer = client.get("/", &of_legacy).await;
        assert_eq!(answer.served_by(), Some("legacy"));
        assert_eq!(client.get("/", &of_new).await.served_by(), Some("other"));
    }
    assert_eq!(arms.legacy.connections(), connections, "the pools are kept");
    assert!(!in_flight.is_finished());
    gate.open();
    let answer = in_flight.await.expect("it is answered");
    assert_eq!((answer.status, answer.served_by()), (200, Some("new")));
}

#[tokio::test]
async fn certificates_are_replaced_without_cutting_a_connection() {
    let arms = Arms::new();
    let (first, second) = (Certificate::new(), Certificate::new());
    let site = Site::new()
        .file("certificate.pem", &first.certificate_pem)
        .file("key.pem", &first.key_pem);
    let listeners = "[{address: 127.0.0.1:0, tls: {certificate: certificate.pem, key: key.pem}}]";
    let proxy = site.start_on(listeners, &arms.with("share: 10%")).await;
    let address = proxy.address();
    let mut http1 = Client::tls(address, &first, &["http/1.1"]).await;
    let mut http2 = Client::tls(address, &first, &["h2"]).await;
    assert_eq!(http1.get("/", "alice").await.status, 200);
    assert_eq!(http2.get("/", "alice").await.status, 200);
    let shows = async |certificate: &Certificate| {
        let stream = TcpStream::connect(address).await.expect("somebody listens");
        let connector = certificate.connector(&["http/1.1"]);
        let shaking = connector.connect(Certificate::name(), stream);
        in_time("a handshake", shaking).await.is_ok()
    };
    assert!(!shows(&second).await);

    let file = |name: &str| proxy.site().path().join(name);
    replace(&file("key.pem"), &second.key_pem);
    eventually("half a pair is refused", async || {
        !proxy.status().await.config.last_reload_successful
    })
    .await;
    assert!(shows(&first).await, "the old pair stays in force");
    replace(&file("certificate.pem"), &second.certificate_pem);
    eventually("the second is shown", async || shows(&second).await).await;
    assert!(!shows(&first).await);
    assert_eq!(http1.get("/", "alice").await.status, 200);
    assert_eq!(http2.get("/", "alice").await.status, 200);
}

/// The numbers are printed, and belong to the machine and the build; what is claimed is that every
/// reload takes effect and no request fails.
#[tokio::test]
async fn two_hundred_reloads_under_load_fail_no_request() {
    const RELOADS: usize = 200;
    let arms = Arms::new();
    let settings = |share: &str| arms.with(&format!("share: {share}, rollback: off"));
    let proxy = Site::new().start(&settings("0%")).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..2)
        .map(|caller| {
            let (address, is_over) = (proxy.address(), Arc::clone(&is_over));
            tokio::spawn(async move {
                let mut client = Client::http1(address).await;
                let mut pace = tokio::time::interval(Duration::from_millis(5));
                let mut answered = 0;
                while !is_over.load(Ordering::SeqCst) {
                    pace.tick().await;
                    let key = format!("{caller}-{answered}");
                    let answer = client.get("/", &key).await;
                    assert_eq!((answer.status, answer.is_whole), (200, true));
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    let mut prober = proxy.client().await;
    let (mut raising, mut lowering) = (Vec::new(), Vec::new());
    for reload in 0..RELOADS {
        let (share, arm, latencies) = match reload % 2 {
            0 => ("100%", "new", &mut raising),
            _ => ("0%", "legacy", &mut lowering),
        };
        let text = proxy.site().text(&settings(share));
        let path = proxy.site().configuration_path();
        let written = Instant::now();
        if reload % 4 < 2 {
            fs::write(path, text).expect("the site is writable");
        } else {
            replace(&path, &text);
        }
        in_time("the reload takes effect", async {
            while prober.get("/", "alice").await.served_by() != Some(arm) {}
        })
        .await;
        latencies.push(written.elapsed());
    }
    is_over.store(true, Ordering::SeqCst);
    let mut answered = 0;
    for caller in callers {
        answered += caller.await.expect("every request is answered");
    }
    assert!(answered > 0, "there was load");
    println!("{RELOADS} reloads among {answered} requests, from write to effect:");
    let all = [raising.as_slice(), lowering.as_slice()].concat();
    for (what, mut latencies) in [
        ("all", all),
        ("a higher share, which is on the disk first", raising),
        ("a lower share, which is not", lowering),
    ] {
        latencies.sort_unstable();
        let (count, last) = (latencies.len(), latencies.len() - 1);
        println!(
            "  {what}: p50 {:?}, p99 {:?}, slowest {:?}",
            latencies[count / 2],
            latencies[count * 99 / 100],
            latencies[last]
        );
    }
}
