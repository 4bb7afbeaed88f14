//! What the documents promise can be typed.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use cutover::config::load_text;

use crate::project::{fenced, files, read, root};

fn cutover(words: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_cutover"))
        .args(words)
        .output()
        .expect("the binary was built for this test")
}

/// README.md, CHANGELOG.md and everything in docs, with their names.
fn documents() -> Vec<(String, String)> {
    let mut paths = files(&["docs"], "md");
    paths.extend(["README.md".into(), "CHANGELOG.md".into()]);
    paths
        .into_iter()
        .map(|path| (path.display().to_string(), read(&path)))
        .collect()
}

#[test]
fn every_configuration_in_the_readme_loads() {
    let blocks = fenced(&read("README.md"), "yaml");
    assert!(!blocks.is_empty());
    for block in blocks {
        if let Err(problems) = load_text(&block, Path::new(""), &|_| None) {
            panic!("{problems}\n{block}");
        }
    }
}

#[test]
fn the_readme_shows_the_quickstart_as_it_is() {
    let blocks = fenced(&read("README.md"), "yaml");
    assert_eq!(blocks[0], read("config/quickstart.yaml"));
}

#[test]
fn ci_runs_what_the_readme_says() {
    let script = read(".ci/run");
    let command = script.lines().last().expect("a command");
    let shown = fenced(&read("README.md"), "sh");
    assert!(shown.iter().any(|block| block.trim() == command));
    assert!(root().join(command).exists());
}

#[test]
fn every_command_that_is_shown_can_be_typed() {
    let mut unknown = BTreeSet::new();
    for (name, text) in documents() {
        // As code in a sentence, and at the start of a line of a block.
        let blocks = fenced(&text, "sh").join("");
        let lines = blocks
            .lines()
            .filter_map(|line| line.strip_prefix("cutover "));
        let spans = text.split('`').skip(1).step_by(2);
        let spans = spans.filter_map(|span| span.strip_prefix("cutover "));
        for command in lines.chain(spans) {
            let command = command.split_whitespace().next().expect("a command");
            if !cutover(&[command, "--help"]).status.success() {
                unknown.insert(format!("{name}: cutover {command}"));
            }
        }
    }
    assert_eq!(unknown, BTreeSet::new());
}

#[test]
fn the_exit_codes_are_those_of_the_help() {
    let help = String::from_utf8(cutover(&["help"]).stdout).expect("text");
    let (_, codes) = help.split_once("Exit codes:\n").expect("exit codes");
    for line in codes.lines().filter(|line| !line.is_empty()) {
        let (code, meaning) = line.trim().split_once("  ").expect("two columns");
        let row = format!("| {code} | {meaning} |\n");
        for document in ["README.md", "docs/operating.md"] {
            assert!(read(document).contains(&row), "{document}: {row}");
        }
    }
}

#[test]
fn every_path_of_the_admin_api_is_documented() {
    let document = read("docs/api.md");
    let routes = read("src/admin/mod.rs");
    let paths = routes.split(".route(").skip(1);
    let paths: Vec<_> = paths.filter_map(|rest| rest.split('"').nth(1)).collect();
    assert!(
        paths.len() > 10,
        "the routes are no longer written as this test reads them"
    );
    for path in paths {
        assert!(
            document.contains(&format!(" | `{path}` | ")),
            "{path} is not in docs/api.md"
        );
    }
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    let mut broken = Vec::new();
    for (name, text) in documents() {
        let folder = Path::new(&name).parent().expect("a folder");
        for link in text.split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap_or_default();
            let is_elsewhere = target.starts_with("http") || target.is_empty();
            if !is_elsewhere && !root().join(folder).join(target).exists() {
                broken.push(format!("{name}: {target}"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}
