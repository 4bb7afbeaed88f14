//! Backups of what survives a restart, with the real program.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::harness::migration;
use crate::harness::proxy::{Proxy, Site};

fn configuration() -> String {
    migration("127.0.0.1:1", "127.0.0.1:1", "rollback: off")
}

/// Runs the command line where no instance is.
fn offline(directory: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
    command.args(words).current_dir(directory);
    command
        .output()
        .expect("the binary was built for this test")
}

fn text(output: Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    String::from_utf8(output.stdout).expect("it speaks UTF-8")
}

async fn history(proxy: &Proxy) -> String {
    text(proxy.cutover(&["history"]).await)
}

#[tokio::test]
async fn a_backup_of_a_running_instance_brings_its_state_to_another_machine() {
    let proxy = Site::new().start(&configuration()).await;
    for words in [
        &["set", "api", "25%", "--reason", "week 2"] as &[&str],
        &["rollback", "api", "--reason", "carts are empty"],
        &["emergency", "--reason", "orders are lost"],
    ] {
        text(proxy.cutover(words).await);
    }
    let told = history(&proxy).await;
    let latest = told.lines().last().expect("three decisions");
    for part in ["api", "local", "emergency", "0% -> 0%", "orders are lost"] {
        assert!(latest.contains(part), "no `{part}` in: {latest}");
    }
    assert_eq!(told.lines().count(), 4, "{told}");

    let backup = text(proxy.cutover(&["state", "export"]).await);
    let path = proxy.site().path().join("state.json");
    std::fs::write(&path, &backup).expect("the directory is writable");
    for words in [
        &["state", "export", "--directory", "state"] as &[&str],
        &[
            "state",
            "import",
            "state.json",
            "--directory",
            "state",
            "--replace",
        ],
    ] {
        let refused = proxy.cutover(words).await;
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(5), "{said}");
        assert!(said.contains("in use by another process"), "{said}");
    }

    let site = Site::new().file("state.json", &backup);
    let words = ["state", "import", "state.json", "--directory", "state"];
    text(offline(site.path(), &words));
    let refused = offline(site.path(), &words);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(5), "{said}");
    assert!(said.contains("--replace"), "{said}");
    let again = offline(site.path(), &["state", "export", "--directory", "state"]);
    let [mut again, mut backup] =
        [text(again), backup].map(|text| serde_json::from_str::<Value>(&text).expect("a document"));
    for document in [&mut again, &mut backup] {
        document["at"].take();
    }
    assert_eq!(again, backup);

    let other = site.start(&configuration()).await;
    assert_eq!(history(&other).await, told);
    assert!(other.status().await.emergency);
    let (there, here) = (other.split("api").await, proxy.split("api").await);
    assert_eq!(
        (there.phase, there.last_decision),
        (here.phase, here.last_decision)
    );
}

#[tokio::test]
async fn a_misspelt_split_has_no_history_and_one_that_left_the_file_has() {
    let proxy = Site::new().start(&configuration()).await;
    text(proxy.cutover(&["set", "api", "25%"]).await);
    let misspelt = proxy.cutover(&["history", "apo"]).await;
    let said = String::from_utf8_lossy(&misspelt.stderr);
    assert_eq!(misspelt.status.code(), Some(2), "{said}");
    assert!(said.contains("the splits are: api"), "{said}");
    proxy
        .reconfigure("backends: {api: {endpoints: ['127.0.0.1:1']}}\nroutes: [{backend: api}]\n")
        .await;
    let told = text(proxy.cutover(&["history", "api"]).await);
    assert!(told.contains("0% -> 25%"), "{told}");
    let later = ["history", "--since", "2999-01-01"];
    assert_eq!(text(proxy.cutover(&later).await), "Nothing was decided.\n");
}
