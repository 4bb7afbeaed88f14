//! What is read, what is said of it, and what needs a restart.

use super::*;

#[test]
fn the_files_that_were_read_are_listed_even_when_they_are_gone() {
    let directory = production_directory();
    let path = directory.path().join("quick.yaml");
    let text = QUICKSTART.replace(
        "    share: 10%\n",
        "    share: 10%\n    pins: {file: pins.txt}\n",
    );
    std::fs::write(&path, text).expect("writable");
    let config = load(&path).expect("valid");
    let pins = directory.path().join("pins.txt");
    assert_eq!(config.files, [path, pins.clone()]);
    std::fs::remove_file(&pins).expect("present");
    let problems = load(&directory.path().join("quick.yaml")).expect_err("pins are gone");
    assert_eq!(problems.files, config.files, "its return must be noticed");
}

#[test]
fn problems_print_as_editors_and_people_read_them() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("cutover.yaml");
    std::fs::write(&path, QUICKSTART.replace("10%", "10")).expect("writable");
    let all = load(&path)
        .expect_err("a share without percent")
        .to_string();
    let expected = format!(
        "{}:14:12: splits.api.share: `10` is no percentage (write 0% to 100% with at most two \
         decimals, such as `12.5%`)",
        path.display()
    );
    assert_eq!(all, expected);
    let absent = load(&directory.path().join("absent.yaml"))
        .expect_err("absent")
        .to_string();
    assert!(absent.contains("absent.yaml: cannot be read: "), "{absent}");
    std::fs::write(&path, b"\xff\xfe").expect("writable");
    assert!(
        load(&path)
            .expect_err("bytes")
            .to_string()
            .contains("UTF-8")
    );
}

#[test]
fn what_needs_a_restart_is_named_and_nothing_else() {
    let old = load_minimal("").expect("valid");
    let change = |from: &str, to: &str| {
        let new = load_text(&QUICKSTART.replace(from, to), Path::new("."), &environment);
        old.restart_only_changes(&new.expect("valid"))
    };
    assert_eq!(change("10%", "20%"), [""; 0]);
    assert_eq!(change("9001", "9003"), [""; 0]);
    assert_eq!(change("127.0.0.1:8080", "127.0.0.1:8081"), ["listeners"]);
    let behind = "  - {address: 127.0.0.1:8080, proxy_protocol: true}
edge: {trusted_proxies: [10.0.0.0/8]}";
    assert_eq!(change("  - address: 127.0.0.1:8080", behind), ["listeners"]);
    let several = "workers: 77\ndrain: {delay: 9s}\nadmin: {address: 127.0.0.1:9901}\nroutes:";
    assert_eq!(
        change("routes:", several),
        ["admin.address", "workers", "drain.delay"]
    );
}
