//! What a scalar means, and what must not be seen of it.

use super::*;

#[test]
fn words_that_other_yaml_readers_take_for_truth_values_stay_words() {
    let config = problems(&QUICKSTART.replace("share: 10%", "salt: no"));
    assert_eq!(config, []);
    for value in ["yes", "no", "on", "off", "1", "~", "\"false\"", "[true]"] {
        let all = split_problems(&format!("shared_state: {value}"));
        assert_eq!(all.len(), 1, "{value}: {all:?}");
        assert!(all[0].remedy.contains("`true` or `false`"), "{}", all[0]);
    }
    for value in ["12", "1.10", "true", "0x1F", "-3", ".5", "1e3"] {
        let all = split_problems(&format!("salt: {value}"));
        assert_eq!(all.len(), 1, "{value}: {all:?}");
        assert!(all[0].remedy.contains("quotes"), "{}", all[0]);
        assert_eq!(split_problems(&format!("salt: \"{value}\"")), []);
    }
}

#[test]
fn substituted_values_are_what_the_place_wants() {
    let text = QUICKSTART.replace("share: 10%", "share: ${SHARE:-5%}\n    salt: ${NUMBER}");
    let config = load_text(
        &format!("{text}\nworkers: ${{NUMBER}}\n"),
        Path::new("."),
        &environment,
    )
    .expect("valid");
    assert_eq!(config.process.workers, 4);
    assert_eq!(config.splits[0].salt, "4");
    assert_eq!(
        config.splits[0].course.file_share(),
        Share::from_basis_points(500).ok()
    );
}

#[test]
fn secrets_are_in_no_message_and_in_no_debug_output() {
    let directory = production_directory();
    let config = load_text(PRODUCTION, directory.path(), &environment).expect("valid");
    let mut seen = format!("{config:?}");
    // A secret in every scalar where it does not belong.
    for place in [
        "10%",
        "127.0.0.1:8080",
        "legacy-api",
        "client_ip",
        "cutover",
        "/healthz",
    ] {
        let broken = PRODUCTION.replace(place, "\"${SECRET}\"");
        if let Err(all) = load_text(&broken, directory.path(), &environment) {
            write!(seen, "{all} {all:?}").expect("a string takes everything");
        }
    }
    let typed = PRODUCTION.replace("${PIN_SECRET}", "too-short-a-secret");
    let all = load_text(&typed, directory.path(), &environment).expect_err("too short");
    write!(seen, "{all} {all:?}").expect("a string takes everything");
    for secret in SECRETS.into_iter().chain(["too-short-a-secret"]) {
        assert!(!seen.contains(secret), "{secret} in {seen}");
    }
}
