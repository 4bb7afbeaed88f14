//! The commands that need a file and no running instance.

use std::io::{Read, Write};
use std::net::TcpListener;

use serde_json::Value;
use tempfile::TempDir;

use super::*;

/// A directory with one configuration file in it.
struct Files {
    directory: TempDir,
}

impl Files {
    fn with(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("cutover.yaml"), text).unwrap();
        Self { directory }
    }

    /// A valid file whose arms are at these addresses.
    fn between(legacy: &str, new: &str) -> Self {
        Self::with(&format!(
            "\
listeners:
  - address: 127.0.0.1:0
backends:
  old: {{endpoints: ['{legacy}']}}
  shiny: {{endpoints: ['{new}']}}
splits:
  checkout:
    legacy: old
    new: shiny
    key: [{{cookie: session}}]
    share: 25%
    pins: {{keys: {{tester: new}}}}
    pin_secret: correct horse battery staple, and more
  search:
    legacy: old
    new: shiny
    key: [client_ip]
routes:
  - {{path_prefix: /search, split: search}}
  - {{split: checkout}}
"
        ))
    }

    fn valid() -> Self {
        Self::between("127.0.0.1:1", "127.0.0.1:2")
    }

    /// Runs `cutover` with these words and this file.
    fn run(&self, words: &[&str]) -> Result<Answer, Failure> {
        let path = self.directory.path().join("cutover.yaml");
        let mut all = vec!["cutover"];
        all.extend(words);
        all.extend(["--config", path.to_str().unwrap()]);
        Cli::try_parse_from(all).unwrap().run(Ink::Plain)
    }

    fn json(&self, words: &[&str]) -> (Value, Exit) {
        let answer = self.run(&[words, &["-o", "json"]].concat()).unwrap();
        (serde_json::from_str(&answer.text).unwrap(), answer.exit)
    }
}

#[test]
fn a_valid_file_is_said_to_be_valid_and_the_exit_code_is_0() {
    let answer = Files::valid().run(&["check"]).unwrap();
    assert_eq!(answer.exit, Exit::Success);
    let last = answer.text.lines().last().unwrap();
    assert!(
        last.ends_with("is valid: 1 listener, 2 backends, 2 splits, 2 routes"),
        "{last}"
    );
    assert!(
        answer.text.starts_with("warning: "),
        "a login changes the key: {}",
        answer.text
    );
    let (json, exit) = Files::valid().json(&["check"]);
    assert_eq!((&json["valid"], exit), (&Value::Bool(true), Exit::Success));
}

#[test]
fn a_wrong_file_is_exit_code_3_with_every_problem_and_its_place() {
    let files = Files::with("listeners:\n  - adress: 127.0.0.1:0\nspilts: {}\n");
    let failure = files.run(&["check"]).unwrap_err();
    assert_eq!(failure.exit, Exit::Config);
    assert!(
        failure.message.contains("adress") && failure.message.contains("spilts"),
        "{failure}"
    );
    let (json, exit) = files.json(&["check"]);
    assert_eq!(exit, Exit::Config);
    let problems = json["problems"].as_array().unwrap();
    assert!(problems.len() >= 2, "{json}");
    assert!(
        problems.iter().any(|problem| problem["line"] == 2),
        "{json}"
    );
    for words in [
        &["pin", "--split", "a", "--arm", "new"] as &[&str],
        &["explain", "--split", "a", "--key", "b"],
        &["test"],
    ] {
        assert_eq!(
            files.run(words).unwrap_err().exit,
            Exit::Config,
            "{words:?}"
        );
    }
}

#[test]
fn a_key_that_serve_would_refuse_is_refused_by_check_with_its_place() {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    for pem in [pair.public_key_pem(), certificate.cert.pem()] {
        let files = Files::with(
            "\
listeners: [{address: 127.0.0.1:0}]
backends: {old: {endpoints: [127.0.0.1:1]}, shiny: {endpoints: [127.0.0.1:2]}}
splits:
  checkout:
    legacy: old
    new: shiny
    key: [{jwt: {claim: sub, algorithm: ES256, public_key: '${file:jwt.pem}'}}]
routes: [{split: checkout}]
",
        );
        std::fs::write(files.directory.path().join("jwt.pem"), pem).unwrap();
        let (json, exit) = files.json(&["check"]);
        assert_eq!(exit, Exit::Config);
        let problem = &json["problems"][0];
        assert_eq!(problem["key"], "splits.checkout.key[0].jwt.public_key");
        assert_eq!(problem["line"], 7);
    }
}

#[test]
fn a_key_is_explained_from_the_file_alone() {
    let files = Files::valid();
    let (json, _) = files.json(&["explain", "--split", "checkout", "--key", "tester"]);
    assert_eq!(
        (&json["arm"], &json["cause"]),
        (&"new".into(), &"pin".into())
    );
    let (json, _) = files.json(&["explain", "--split", "search", "--key", "-dashed"]);
    assert_eq!(
        (&json["arm"], &json["cause"]),
        (&"legacy".into(), &"hash".into())
    );
    assert!(json["bucket"].is_u64() && json["share"] == "0%", "{json}");
    let text = files
        .run(&["explain", "--split", "checkout", "--key", "tester"])
        .unwrap()
        .text;
    assert!(text.contains("arm      new\n"), "{text}");
}

#[test]
fn a_split_that_is_not_there_is_exit_code_2_and_the_valid_ones_are_named() {
    for words in [
        &["explain", "--split", "nope", "--key", "a"] as &[&str],
        &["pin", "--split", "nope", "--arm", "new"],
        &["test", "--split", "nope"],
    ] {
        let failure = Files::valid().run(words).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage, "{words:?}");
        assert!(failure.message.contains("checkout, search"), "{failure}");
    }
    let arm = parse_error(&[
        "cutover", "pin", "--config", "f", "--split", "a", "--arm", "newer",
    ]);
    assert_eq!(arm.exit_code(), 2);
    assert!(arm.to_string().contains("`legacy` or `new`"), "{arm}");
}

#[test]
fn a_token_that_can_be_guessed_is_warned_of() {
    for (token, warnings) in [("fifteen bytes..", 1), ("sixteen bytes...", 0)] {
        let tokens = format!("[{{name: alice, role: operate, token: {token}}}]");
        let files = Files::with(&format!(
            "listeners: [{{address: 127.0.0.1:0}}]
admin: {{tokens: {tokens}}}
backends: {{api: {{endpoints: ['127.0.0.1:1']}}}}
routes: [{{backend: api}}]
"
        ));
        let (json, exit) = files.json(&["check"]);
        assert_eq!(exit, Exit::Success, "{json}");
        let found = json["warnings"].as_array().unwrap();
        assert_eq!(found.len(), warnings, "{json}");
        assert!(
            found
                .iter()
                .all(|one| one["key"] == "admin.tokens[0].token"),
            "{json}"
        );
    }
}

#[test]
fn a_pin_token_is_printed_alone_and_only_where_it_would_count() {
    let files = Files::valid();
    let words = ["pin", "--split", "checkout", "--arm", "new", "--for", "30m"];
    let token = files.run(&words).unwrap().text;
    assert_eq!(token.trim_end().split('.').count(), 3, "{token}");
    let (json, _) = files.json(&words);
    assert_eq!(
        (&json["split"], &json["arm"]),
        (&"checkout".into(), &"new".into())
    );
    let part = |token: &str| token.split('.').next().map(str::to_owned);
    assert_eq!(part(json["token"].as_str().unwrap()), part(&token));
    assert!(
        json["expires_at"].as_str().unwrap().ends_with('Z'),
        "{json}"
    );
    let words = ["pin", "--split", "search", "--arm", "new"];
    assert_eq!(files.run(&words).unwrap_err().exit, Exit::Refused);
}

#[test]
fn the_schema_is_a_json_object() {
    let cli = Cli::try_parse_from(["cutover", "schema"]).unwrap();
    let schema: Value = serde_json::from_str(&cli.run(Ink::Plain).unwrap().text).unwrap();
    assert!(schema["properties"]["splits"].is_object());
}

/// Answers every connection with `status`, and tells what it was asked.
fn server(status: &'static str) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (heard, asked) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            let mut buffer = [0; 1024];
            while !head.ends_with(b"\r\n\r\n") {
                let read = stream.read(&mut buffer).unwrap();
                assert_ne!(read, 0, "the request's head is whole");
                head.extend_from_slice(&buffer[..read]);
            }
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok");
            stream.write_all(answer.as_bytes()).unwrap();
            // Not every test listens.
            let _ = heard.send(String::from_utf8(head).unwrap());
        }
    });
    (address, asked)
}

#[test]
fn the_smoke_test_asks_every_endpoint_of_both_arms() {
    let ((legacy, of_legacy), (new, of_new)) = (server("200 OK"), server("204 No Content"));
    let files = Files::between(&legacy, &new);
    let words = [
        "test",
        "--split",
        "checkout",
        "--path",
        "/api/health?deep=1",
    ];
    let (json, exit) = files.json(&words);
    assert_eq!(exit, Exit::Success, "{json}");
    for (asked, address) in [(of_legacy, &legacy), (of_new, &new)] {
        let head = asked.recv().unwrap();
        assert!(
            head.starts_with("GET /api/health?deep=1 HTTP/1.1\r\n"),
            "{head}"
        );
        assert!(head.contains(&format!("host: {address}\r\n")), "{head}");
    }
    let statuses: Vec<_> = json
        .as_array()
        .unwrap()
        .iter()
        .map(|t| &t["status"])
        .collect();
    assert_eq!(statuses, [200, 204]);
}

#[test]
fn the_smoke_test_fails_with_exit_code_1_where_an_arm_is_dead_or_broken() {
    let (legacy, _) = server("200 OK");
    let (broken, _) = server("500 Oops");
    for (new, word) in [(broken.as_str(), "500"), ("127.0.0.1:1", "cannot connect")] {
        let answer = Files::between(&legacy, new).run(&["test"]).unwrap();
        assert_eq!(answer.exit, Exit::Failure);
        assert!(
            answer.text.contains("FAILED") && answer.text.contains(word),
            "{}",
            answer.text
        );
        assert!(
            answer.text.contains("passed"),
            "legacy did: {}",
            answer.text
        );
    }
}
