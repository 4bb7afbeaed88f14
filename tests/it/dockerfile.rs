//! The Dockerfile speaks of files, names and ports that exist.
//!
//! An image cannot be built where these tests run, so everything that would make the build or the
//! container fail is looked up instead.

use std::path::Path;

use cutover::config::load_text;
use cutover::config::model::Config;

use crate::project::{read, root};

/// The instructions of one kind, without their first word; continued lines are one.
fn instructions(word: &str) -> Vec<String> {
    let text = read("Dockerfile").replace("\\\n", " ");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.strip_prefix(word)?.strip_prefix(' '))
        .map(str::to_owned)
        .collect()
}

fn the(word: &str) -> String {
    instructions(word).pop().expect("such an instruction")
}

/// The words of an instruction in JSON form.
fn words(instruction: &str) -> Vec<String> {
    serde_json::from_str(instruction).expect("a JSON list of words")
}

/// The sources and the target of every COPY from the build context.
fn copied() -> Vec<(Vec<String>, String)> {
    let copies = instructions("COPY").into_iter();
    copies
        .filter(|copy| !copy.starts_with("--from="))
        .map(|copy| {
            let mut names: Vec<String> = copy.split_whitespace().map(str::to_owned).collect();
            let target = names.pop().expect("a target");
            (names, target)
        })
        .collect()
}

/// What the container would start with.
fn config() -> Config {
    let environment = |name: &str| match name {
        "LEGACY" => Some("legacy:8080".to_owned()),
        "NEW" => Some("new:8080".to_owned()),
        "CUTOVER_TOKEN" => Some("a secret".to_owned()),
        _ => None,
    };
    load_text(
        &read("config/container.yaml"),
        Path::new("/etc/cutover"),
        &environment,
    )
    .expect("a valid configuration")
}

#[test]
fn everything_that_is_copied_exists_and_suffices_for_the_build() {
    let sources: Vec<String> = copied()
        .into_iter()
        .flat_map(|(sources, _)| sources)
        .collect();
    for source in &sources {
        assert!(root().join(source).exists(), "{source}");
        let ignored = read(".dockerignore");
        assert!(!ignored.lines().any(|line| line == source), "{source}");
    }
    for needed in ["Cargo.toml", "Cargo.lock", "src"] {
        assert!(sources.iter().any(|source| source == needed), "{needed}");
    }
    assert!(!root().join("build.rs").exists(), "build.rs is not copied");
}

#[test]
fn it_builds_the_binary_of_this_package_with_its_compiler() {
    let manifest = read("Cargo.toml");
    let build = instructions("RUN")
        .into_iter()
        .find(|run| run.starts_with("cargo build"))
        .expect("a build");
    let mut arguments = build.split_whitespace().skip(2);
    while let Some(argument) = arguments.next() {
        match argument {
            "--release" | "--locked" => {}
            "--bin" => {
                let name = arguments.next().expect("a name");
                let target = format!("[[bin]]\nname = \"{name}\"\n");
                assert!(manifest.contains(&target), "no binary {name}");
            }
            other => panic!("{other}: no such feature or option is known to this test"),
        }
    }
    let minimum = manifest
        .lines()
        .find_map(|line| line.strip_prefix("rust-version = "))
        .expect("a version")
        .trim_matches('"');
    assert!(
        instructions("FROM")[0].starts_with(&format!("rust:{minimum}-")),
        "Cargo.toml asks for Rust {minimum}"
    );
    let copies = instructions("COPY");
    assert!(
        copies
            .iter()
            .any(|copy| copy.starts_with("--from=build /src/target/release/cutover ")),
        "the binary is taken from where cargo leaves it"
    );
}

#[test]
fn the_container_runs_what_it_contains() {
    let entrypoint = words(&the("ENTRYPOINT"));
    let health = the("HEALTHCHECK");
    let (_, health) = health.split_once("CMD ").expect("a command");
    let health = words(health);
    let binary = instructions("COPY")
        .into_iter()
        .find_map(|copy| {
            let rest = copy.strip_prefix("--from=build /src/target/release/")?;
            rest.split_whitespace().nth(1).map(str::to_owned)
        })
        .expect("the binary");
    assert_eq!(entrypoint, [binary.as_str()]);
    assert_eq!(health, [binary.as_str(), "status"]);

    let command = words(&the("CMD"));
    let [serve, config, path] = command.as_slice() else {
        panic!("{command:?}");
    };
    assert_eq!((serve.as_str(), config.as_str()), ("serve", "--config"));
    let source = copied()
        .into_iter()
        .find_map(|(sources, target)| (target == *path).then_some(sources))
        .expect("the configuration is copied to where it is read");
    assert_eq!(source, ["config/container.yaml"]);
}

#[test]
fn ports_and_state_are_where_the_configuration_has_them() {
    let config = config();
    let mut ports: Vec<u16> = config
        .listeners
        .iter()
        .map(|listener| listener.address.port())
        .collect();
    ports.push(config.process.admin.address.port());
    let exposed: Vec<u16> = the("EXPOSE")
        .split_whitespace()
        .map(|port| port.parse().expect("a port"))
        .collect();
    assert_eq!(exposed, ports);
    for address in config.listeners.iter().map(|listener| listener.address) {
        assert!(address.ip().is_unspecified(), "unreachable from outside");
    }

    let volume = words(&the("VOLUME"));
    assert_eq!(
        volume.iter().map(Path::new).collect::<Vec<_>>(),
        [config.process.state_directory.as_path()]
    );
    let user = the("USER");
    assert_ne!(user, "root");
    assert!(
        instructions("COPY")
            .iter()
            .any(|copy| copy.contains(&format!("--chown={user} ")) && copy.ends_with(&volume[0])),
        "a new volume belongs to the user who writes to it"
    );
}
