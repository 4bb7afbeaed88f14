//! How the process begins, and what it says where it cannot.

use std::net::TcpListener;
use std::process::Output;

use cutover::policy::arm::Arm;
use cutover::policy::rollout::Phase;
use cutover::state::Store;

use crate::harness::keys::keys;
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::{Refusing, Upstream};
use crate::harness::{eventually, migration};

/// A split at half of the keys, whose backends are of no importance.
fn any_migration() -> String {
    migration("127.0.0.1:1", "127.0.0.1:1", "share: 50%")
}

fn said(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("it speaks UTF-8")
}

/// That it refused in one sentence which names `file` and the way to start all the same.
fn names_the_file_and_the_remedy(output: &Output, file: &str) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let lines: Vec<_> = said.lines().collect();
    let [sentence] = lines[..] else {
        panic!("one sentence, not: {said}");
    };
    for part in ["cutover: ", file, "--recover-share"] {
        assert!(sentence.contains(part), "no `{part}` in: {sentence}");
    }
}

async fn health_of(proxy: &Proxy, backend: &str) -> String {
    let backends = proxy.status().await.backends;
    let found = backends.iter().find(|found| found.name == backend);
    found.expect("it is configured").endpoints[0].health.clone()
}

#[tokio::test]
async fn an_invalid_configuration_is_refused_with_everything_that_is_wrong_with_it() {
    let site = Site::new();
    site.configure(
        "backends: {api: {endpoints: ['127.0.0.1']}}
splits: {checkout: {legacy: api, new: next, sahre: 5%, share: 120%}}
routes: [{backend: apo}]
",
    );
    let output = site.refusal(&[]).await;
    let said = said(&output);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(output.stdout.is_empty());
    let file = site.configuration_path().display().to_string();
    for (place, part) in [
        (":5:", "endpoints"),
        (":6:", "next"),
        (":6:", "sahre"),
        (":6:", "120%"),
        (":7:", "apo"),
    ] {
        let problem = said
            .lines()
            .find(|line| line.contains(&format!("{file}{place}")) && line.contains(part));
        assert!(problem.is_some(), "no `{part}` at {place} in: {said}");
    }
    assert!(
        !site.path().join("state").exists(),
        "nothing was made before the refusal"
    );
}

#[tokio::test]
async fn a_port_that_is_taken_is_refused_in_one_sentence() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let taken = taken.local_addr().map(|address| (taken, address));
    let (_taken, address) = taken.expect("a bound listener has an address");
    for beginning in [
        format!("listeners: [{{address: '{address}'}}]\nadmin: {{address: '127.0.0.1:0'}}\n"),
        format!("listeners: [{{address: '127.0.0.1:0'}}]\nadmin: {{address: '{address}'}}\n"),
    ] {
        let site = Site::new().beginning(&beginning);
        site.configure(&any_migration());
        let output = site.refusal(&[]).await;
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(&address.to_string()), "{said}");
        assert!(output.stdout.is_empty(), "it announces nothing");
    }
}

#[tokio::test]
async fn an_upstream_that_is_not_there_keeps_nothing_from_starting_and_is_told_everywhere() {
    let legacy = Upstream::ok("legacy");
    let refusing = Refusing::new();
    let endpoint = refusing.address().to_string();
    let configuration = migration(legacy.address(), refusing.address(), "share: 50%");
    let proxy = Site::new().start(&configuration).await;
    eventually("the status calls it unreachable", async || {
        health_of(&proxy, "new").await == "unreachable"
    })
    .await;
    assert_eq!(health_of(&proxy, "legacy").await, "healthy");
    let labels = [("backend", "new"), ("endpoint", endpoint.as_str())];
    proxy
        .counts(0.0, "cutover_endpoint_reachable", &labels)
        .await;
    proxy.says(1, "upstream unreachable at start").await;
    let warned = proxy.log();
    let warning = warned
        .lines()
        .find(|line| line.contains("upstream unreachable at start"));
    let warning = warning.expect("the log warns");
    assert!(warning.contains(&endpoint), "{warning}");
    let mut client = proxy.client().await;
    for arm in Arm::ALL {
        let key = keys("api", "50%", arm).next().expect("there is always one");
        let answer = client.get("/", &key).await;
        assert_eq!(answer.served_by(), Some("legacy"), "{arm}");
    }

    let _new = refusing.repaired("new");
    eventually("the status calls it healthy again", async || {
        health_of(&proxy, "new").await == "healthy"
    })
    .await;
    proxy
        .counts(1.0, "cutover_endpoint_reachable", &labels)
        .await;
    proxy.says(1, "endpoint reachable again").await;
}

#[tokio::test]
async fn a_route_whose_only_upstream_is_not_there_answers_502_until_it_is() {
    let refusing = Refusing::new();
    let endpoint = refusing.address();
    let proxy = Site::new()
        .start(&format!(
            "backends: {{api: {{endpoints: ['{endpoint}']}}}}\nroutes: [{{backend: api}}]\n"
        ))
        .await;
    let mut client = proxy.client().await;
    assert_eq!(client.get("/", "").await.status, 502);
    let _upstream = refusing.repaired("api");
    assert_eq!(client.get("/", "").await.status, 200, "at once");
}

#[tokio::test]
async fn a_state_directory_that_is_none_is_refused() {
    let site = Site::new().file("state", "a file");
    site.configure(&any_migration());
    names_the_file_and_the_remedy(&site.refusal(&[]).await, "state");
}

#[tokio::test]
async fn without_a_state_store_the_operator_may_start_all_the_same_and_the_gauge_says_so() {
    let (legacy, new) = (Upstream::ok("legacy"), Upstream::ok("new"));
    let site = Site::new().file("state", "a file");
    site.configure(&migration(legacy.address(), new.address(), "share: 50%"));
    let proxy = site.launch(&["--recover-share", "25%"]).await;
    assert!(!proxy.status().await.store_healthy);
    proxy.counts(0.0, "cutover_state_store_healthy", &[]).await;
    assert_eq!(proxy.split("api").await.share, "25%");
    let refused = proxy.cutover(&["set", "api", "30%", "--override"]).await;
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert_eq!(
        proxy.split("api").await.share,
        "25%",
        "what cannot be kept does not rise"
    );
    let rolled_back = proxy.cutover(&["rollback", "api"]).await;
    assert_eq!(rolled_back.status.code(), Some(0), "{}", said(&rolled_back));
    assert_eq!(proxy.split("api").await.share, "0%", "but it falls");
    let key = keys("api", "25%", Arm::New).next().expect("there is one");
    let answer = proxy.client().await.get("/", &key).await;
    assert_eq!(answer.served_by(), Some("legacy"));
}

#[tokio::test]
async fn a_start_that_finds_no_state_file_says_so_and_the_next_does_not() {
    const SAID: &str = "beginning without earlier decisions";
    let site = Site::new();
    site.configure(&any_migration());
    let proxy = site.launch(&[]).await;
    proxy.says(1, SAID).await;
    let proxy = proxy.kill().launch(&[]).await;
    assert!(!proxy.log().contains(SAID));
}

#[tokio::test]
async fn a_damaged_state_file_is_refused_and_stays_as_it_is() {
    let site = Site::new();
    site.configure(&any_migration());
    let directory = site.path().join("state");
    std::fs::create_dir(&directory).expect("the directory is writable");
    let file = directory.join(Store::FILE_NAME);
    for damage in ["", "not a state file"] {
        std::fs::write(&file, damage).expect("the directory is writable");
        let output = site.refusal(&[]).await;
        names_the_file_and_the_remedy(&output, Store::FILE_NAME);
        let found = std::fs::read(&file).expect("it is still there");
        assert_eq!(found, damage.as_bytes());
    }
}

#[tokio::test]
async fn a_state_file_of_a_newer_version_is_refused() {
    let site = Site::new();
    site.configure(&any_migration());
    let directory = site.path().join("state");
    drop(Store::open(&directory).expect("the directory is writable"));
    let file = directory.join(Store::FILE_NAME);
    let database = redb::Database::open(file).expect("it was just made");
    let transaction = database.begin_write().expect("nobody else writes");
    let meta = redb::TableDefinition::<&str, u64>::new("meta");
    let mut meta = transaction.open_table(meta).expect("the table is there");
    meta.insert("format", 1_000).expect("the disk has room");
    drop(meta);
    transaction.commit().expect("the disk has room");
    drop(database);
    let output = site.refusal(&[]).await;
    names_the_file_and_the_remedy(&output, Store::FILE_NAME);
    assert!(said(&output).contains("newer cutover"), "{}", said(&output));
}

#[tokio::test]
async fn the_operator_names_the_share_to_start_with_where_the_state_is_lost() {
    for (recover, share, phase) in [
        ("legacy", "0%", Phase::RolledBack),
        ("25%", "25%", Phase::Progressing),
    ] {
        let (legacy, new) = (Upstream::ok("legacy"), Upstream::ok("new"));
        let site = Site::new();
        site.configure(&migration(legacy.address(), new.address(), "share: 50%"));
        let directory = site.path().join("state");
        std::fs::create_dir(&directory).expect("the directory is writable");
        std::fs::write(directory.join(Store::FILE_NAME), "damage").expect("so is this one");

        let proxy = site.launch(&["--recover-share", recover]).await;
        let split = proxy.split("api").await;
        assert_eq!((split.share.as_str(), split.phase), (share, phase));
        let decision = split.last_decision.expect("it is a decision");
        assert_eq!(decision.actor, "operator");
        assert_eq!(decision.reason, "--recover-share");
        let kept = std::fs::read_dir(&directory).expect("it is there");
        let kept = kept.filter_map(Result::ok).find(|entry| {
            let name = entry.file_name();
            name.to_string_lossy().contains("aside")
        });
        let kept = kept.expect("the damaged file is kept");
        assert_eq!(std::fs::read(kept.path()).expect("readable"), b"damage");

        let proxy = proxy.kill().launch(&[]).await;
        let split = proxy.split("api").await;
        assert_eq!((split.share.as_str(), split.phase), (share, phase));
    }
}

#[tokio::test]
async fn a_state_directory_in_use_is_refused_whatever_the_operator_says() {
    let proxy = Site::new().start(&any_migration()).await;
    for arguments in [&[] as &[&str], &["--recover-share", "legacy"]] {
        let output = proxy.site().refusal(arguments).await;
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains("in use by another process"), "{said}");
    }
    assert_eq!(proxy.split("api").await.share, "50%", "the first goes on");
}
