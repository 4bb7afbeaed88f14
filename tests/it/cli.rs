//! What a script sees of the program: exit codes, and what goes to which stream.

use std::process::{Command, Output};

fn cutover(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cutover"))
        .args(words)
        .env_remove("CUTOVER_ADMIN")
        .env_remove("CUTOVER_TOKEN")
        .output()
        .expect("the binary was built for this test")
}

#[test]
fn help_and_version_succeed_on_stdout() {
    for words in [&["help"] as &[&str], &["--version"], &["set", "--help"]] {
        let output = cutover(words);
        assert_eq!(output.status.code(), Some(0), "{words:?}");
        assert!(
            !output.stdout.is_empty() && output.stderr.is_empty(),
            "{words:?}"
        );
    }
}

#[test]
fn failures_have_their_exit_codes_and_one_sentence_on_stderr() {
    for (words, code) in [
        (&["set", "checkout", "25"] as &[&str], 2),
        (&["check", "--config", "/nonexistent/cutover.yaml"], 3),
        // Port 1 is reserved, and nobody listens there.
        (&["status", "--admin", "http://127.0.0.1:1"], 4),
    ] {
        let output = cutover(words);
        assert_eq!(output.status.code(), Some(code), "{words:?}");
        assert!(
            output.stdout.is_empty() && !output.stderr.is_empty(),
            "{words:?}"
        );
    }
}
