//! The running program is replaced by another, and no request notices.

mod crossing;
mod failing;
mod load;
mod systemd;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cutover::policy::arm::Arm;

use self::load::{Load, echo};
use crate::harness::certificate::Certificate;
use crate::harness::client::{Answer, Raw, get};
use crate::harness::keys::keys;
use crate::harness::proxy::{ONLY_TLS, Proxy, Site};
use crate::harness::upstream::{Gate, Reply, Script, Step, Upstream};
use crate::harness::{eventually, migration};

/// Attempts that a machine under load may spoil.
const ATTEMPTS: usize = 5;

/// A process that nobody else will end. It was started by one of ours, and takes its admin address.
struct Heir(u32);

impl Drop for Heir {
    fn drop(&mut self) {
        // It may have ended by itself.
        let number = self.0.to_string();
        let _ = Command::new("kill").args(["-9", &number]).output();
    }
}

impl Heir {
    /// Waits until another process than this one answers at the admin address.
    async fn of(proxy: &Proxy, earlier: u32) -> Self {
        let mut heir = earlier;
        eventually("another process has taken over", async || {
            heir = proxy.status().await.process;
            heir != earlier
        })
        .await;
        Self(heir)
    }
}

fn plain(upstream: &Upstream) -> String {
    let endpoint = upstream.address();
    format!("backends: {{api: {{endpoints: ['{endpoint}']}}}}\nroutes: [{{backend: api}}]\n")
}

/// A session key of the split `api`.
fn keyed(share: &str, arm: Arm) -> String {
    keys("api", share, arm).next().expect("there are many")
}

/// Has the link that a site's program was started by lead elsewhere.
fn relink(site: &Site, to: impl AsRef<Path>) {
    let draft = site.path().join("draft-link");
    std::os::unix::fs::symlink(to, &draft).expect("the directory is writable");
    std::fs::rename(draft, site.path().join("cutover")).expect("the directory is writable");
}

#[tokio::test]
async fn sigusr2_replaces_the_process_under_load_and_no_request_is_lost() {
    let upstream = echo();
    let mut proxy = Site::new().linked().start(&plain(&upstream)).await;
    let load = Load::begin(proxy.address());
    load.goes_on(300).await;
    proxy.signal("USR2");
    let heir = Heir::of(&proxy, proxy.process()).await;
    load.goes_on(300).await;
    assert_eq!(proxy.ended().await.code(), Some(0), "the old one leaves");
    load.goes_on(300).await;
    let answered = load.ends_without_loss().await;
    assert_eq!(upstream.received().len(), answered, "none was run twice");
    proxy
        .counts(1.0, "cutover_handovers_total", &[("result", "taken_over")])
        .await;
    drop(heir);
}

#[tokio::test]
async fn two_upgrades_in_a_row_keep_what_was_decided_and_lose_no_request() {
    let (legacy, new) = (echo(), echo());
    let settings = "share: 50%, rollback: off";
    let configuration = migration(legacy.address(), new.address(), settings);
    let mut proxy = Site::new().linked().start(&configuration).await;
    let rolled_back = proxy
        .cutover(&["rollback", "api", "--reason", "carts are empty"])
        .await;
    assert!(rolled_back.status.success());
    let before = proxy.split("api").await;
    let load = Load::begin(proxy.address());
    load.goes_on(100).await;

    let upgraded = proxy.cutover(&["upgrade", "--reason", "2.5"]).await;
    assert_eq!(upgraded.status.code(), Some(0), "{upgraded:?}");
    let first = Heir::of(&proxy, proxy.process()).await;
    let said = String::from_utf8_lossy(&upgraded.stdout).into_owned();
    assert!(
        said.starts_with(&format!("Process {} serves now", first.0)),
        "{said}"
    );
    load.goes_on(100).await;
    let upgraded = proxy.cutover(&["upgrade"]).await;
    assert_eq!(upgraded.status.code(), Some(0), "{upgraded:?}");
    let second = Heir::of(&proxy, first.0).await;
    load.goes_on(100).await;
    load.ends_without_loss().await;

    let after = proxy.split("api").await;
    assert_eq!(
        (after.phase, after.revision),
        (before.phase, before.revision)
    );
    assert_eq!(after.share, "0%");
    let last = after.last_decision.expect("it was decided");
    assert_eq!(last.reason, "carts are empty");
    assert!(proxy.status().await.store_healthy);
    assert_eq!(
        proxy.ended().await.code(),
        Some(0),
        "the first one has left"
    );
    drop((first, second));
}

#[tokio::test]
async fn who_is_told_of_an_upgrade_asks_the_successor_from_then_on() {
    let (legacy, new) = (echo(), echo());
    let configuration = migration(legacy.address(), new.address(), "");
    let proxy = Site::new().linked().start(&configuration).await;
    let mut heirs = Vec::new();
    for _ in 0..3 {
        let upgraded = proxy.cutover(&["upgrade"]).await;
        assert_eq!(upgraded.status.code(), Some(0), "{upgraded:?}");
        let said = String::from_utf8_lossy(&upgraded.stdout).into_owned();
        for _ in 0..10 {
            let process = proxy.status().await.process;
            assert!(
                said.contains(&format!("Process {process} serves now")),
                "{said}"
            );
        }
        let earlier = heirs.last().map_or(proxy.process(), |heir: &Heir| heir.0);
        heirs.push(Heir::of(&proxy, earlier).await);
    }
}

#[tokio::test]
async fn the_old_process_obeys_when_its_successor_lowers_a_share() {
    let (legacy, new) = (Upstream::ok("legacy"), Upstream::ok("new"));
    let settings = "share: 100%, rollback: off";
    let configuration = migration(legacy.address(), new.address(), settings);
    let proxy = Site::new().linked().start(&configuration).await;
    // They stay with the old process, which tells them to leave only with an answer.
    let mut first = proxy.client().await;
    assert_eq!(first.get("/", "anyone").await.served_by(), Some("new"));
    let mut second = proxy.client().await;
    assert_eq!(second.get("/", "anyone").await.served_by(), Some("new"));
    proxy.signal("USR2");
    let heir = Heir::of(&proxy, proxy.process()).await;
    // All that its successor began with.
    proxy.says(1, "obeying the successor").await;
    let kept = first.get("/", "anyone").await;
    assert_eq!(kept.served_by(), Some("new"), "its share is as it was");
    assert_eq!(kept.field("connection"), Some("close"));

    // The order returns when the old one obeys: nothing is waited for behind it.
    let lowered = proxy.cutover(&["rollback", "api", "--to", "0"]).await;
    assert!(lowered.status.success(), "{lowered:?}");
    let obeyed = second.get("/", "anyone").await;
    assert_eq!(obeyed.served_by(), Some("legacy"));
    assert_eq!(
        obeyed.field("connection"),
        Some("close"),
        "the old one has answered"
    );
    drop(heir);
}

#[tokio::test]
async fn who_is_denied_after_an_upgrade_is_denied_by_the_old_process_too() {
    let upstream = Upstream::ok("api");
    let proxy = Site::new().linked().start(&plain(&upstream)).await;
    let mut kept = proxy.client().await;
    assert_eq!(kept.get("/", "").await.status, 200);
    let mut pardoned = proxy.client().await;
    assert_eq!(pardoned.get("/", "").await.status, 200);
    proxy.signal("USR2");
    let heir = Heir::of(&proxy, proxy.process()).await;
    let denied = proxy
        .cutover(&["deny", "127.0.0.1", "--reason", "a flood"])
        .await;
    assert!(denied.status.success(), "{denied:?}");
    let refused = kept.get("/", "").await;
    assert_eq!(refused.status, 403);
    assert_eq!(
        refused.field("connection"),
        Some("close"),
        "the old one has answered"
    );
    let ended = proxy.cutover(&["deny", "127.0.0.1", "--remove"]).await;
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(pardoned.get("/", "").await.status, 200);
    drop(heir);
}

#[tokio::test]
async fn an_order_says_plainly_that_a_stopped_old_process_does_not_obey_yet() {
    let (legacy, new) = (Upstream::ok("legacy"), Upstream::ok("new"));
    let settings = "share: 100%, rollback: off";
    let configuration = migration(legacy.address(), new.address(), settings);
    let proxy = Site::new().linked().start(&configuration).await;
    let mut kept = proxy.client().await;
    assert_eq!(kept.get("/", "anyone").await.served_by(), Some("new"));
    proxy.signal("USR2");
    let heir = Heir::of(&proxy, proxy.process()).await;
    proxy.says(1, "obeying the successor").await;
    proxy.freeze().await;
    let lowered = proxy.cutover(&["rollback", "api", "--to", "0"]).await;
    assert!(lowered.status.success(), "{lowered:?}");
    let said = String::from_utf8_lossy(&lowered.stdout).into_owned();
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let unconfirmed = format!("but the old process {}", proxy.process());
    assert!(said.contains(&unconfirmed), "{said}");
    assert!(said.contains("has not confirmed within 1s"), "{said}");
    let mut fresh = proxy.client().await;
    assert_eq!(fresh.get("/", "anyone").await.served_by(), Some("legacy"));

    // It follows as soon as it can, and then the next order need not wait.
    proxy.signal("CONT");
    proxy.says(2, "obeying the successor").await;
    assert_eq!(kept.get("/", "anyone").await.served_by(), Some("legacy"));
    let declared = proxy
        .cutover(&["emergency", "--reason", "sure is sure"])
        .await;
    let said = String::from_utf8_lossy(&declared.stdout).into_owned();
    assert!(declared.status.success(), "{declared:?}");
    assert!(!said.contains("not confirmed"), "{said}");
    drop(heir);
}

#[tokio::test]
async fn an_order_names_a_stopped_process_that_was_replaced_two_upgrades_ago() {
    let upstream = Upstream::ok("api");
    let configuration = format!("drain: {{deadline: 10m}}\n{}", plain(&upstream));
    let proxy = Site::new().linked().start(&configuration).await;
    let mut first = proxy.client().await;
    assert_eq!(first.get("/", "").await.status, 200);
    proxy.signal("USR2");
    let middle = Heir::of(&proxy, proxy.process()).await;
    proxy.says(1, "obeying the successor").await;
    proxy.freeze().await;
    let mut second = proxy.client().await;
    assert_eq!(second.get("/", "").await.status, 200);
    let upgraded = proxy.cutover(&["upgrade"]).await;
    assert_eq!(upgraded.status.code(), Some(0), "{upgraded:?}");
    let last = Heir::of(&proxy, middle.0).await;

    let unconfirmed = format!("but the old process {}", proxy.process());
    let denied = async |network: &str| {
        let denied = proxy
            .cutover(&["deny", network, "--reason", "a flood"])
            .await;
        assert!(denied.status.success(), "{denied:?}");
        let said = String::from_utf8_lossy(&denied.stdout).into_owned();
        said.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    // A machine under load may keep the one between them from answering in time.
    eventually("an order names who does not obey", async || {
        denied("192.0.2.1").await.contains(&unconfirmed)
    })
    .await;
    proxy.signal("CONT");
    eventually("an order is confirmed by all", async || {
        !denied("192.0.2.2").await.contains("not confirmed")
    })
    .await;
    drop((last, middle));
}

#[tokio::test]
async fn what_is_in_flight_at_an_upgrade_is_answered_by_the_old_process() {
    let gate = Gate::new();
    let waiting = gate.clone();
    let upstream = Upstream::start("api", move |request| match request.target.as_str() {
        "/slow" => Script::of([Step::Wait(waiting.clone()), Step::Answer(Reply::new(200))]),
        _ => Script::status(200),
    });
    let mut proxy = Site::new().linked().start(&plain(&upstream)).await;
    let mut slow = proxy.client().await;
    let slow = tokio::spawn(async move {
        let response = slow.begin(get("/slow", "")).await;
        Answer::read(response.expect("it is answered")).await
    });
    upstream.has_received("/slow").await;
    let mut silent = Raw::connect(proxy.address()).await;
    silent.write("GET / HTTP/1.1\r\nHost: api").await;
    proxy.signal("USR2");
    let heir = Heir::of(&proxy, proxy.process()).await;
    proxy.says(1, "draining: another process serves").await;
    silent.write(".example\r\n\r\n").await;
    assert!(silent.read_head().await.starts_with("HTTP/1.1 200 "));
    gate.open();
    let answer = slow.await.expect("the client does not panic");
    assert_eq!((answer.status, answer.is_whole), (200, true));
    assert_eq!(proxy.ended().await.code(), Some(0));
    drop(heir);
}

#[tokio::test]
async fn reloads_every_tenth_of_a_second_under_load_lose_no_request() {
    let (one, other) = (echo(), echo());
    let proxy = Site::new().start(&plain(&one)).await;
    let load = Load::begin(proxy.address());
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..10 {
        for upstream in [&other, &one] {
            pace.tick().await;
            proxy.reconfigure(&plain(upstream)).await;
        }
    }
    load.goes_on(100).await;
    load.ends_without_loss().await;
}

#[tokio::test]
async fn certificates_are_reloaded_under_load_and_no_request_is_lost() {
    let upstream = echo();
    let (one, other) = (Certificate::new(), Certificate::new());
    let site = Site::new().certified(&one);
    let proxy = site.start_on(ONLY_TLS, &plain(&upstream)).await;
    let load = Load::over_tls(proxy.address(), &[&one, &other]);
    for _ in 0..3 {
        for certificate in [&other, &one] {
            load.goes_on(50).await;
            proxy.rewrite("edge.key", &certificate.key_pem);
            proxy.rewrite("edge.pem", &certificate.certificate_pem);
            let answer = proxy.change("/api/v1/reload", "{}").await;
            assert_eq!(answer.status, 200, "{:?}", answer.body);
        }
    }
    load.goes_on(50).await;
    load.ends_without_loss().await;
}
