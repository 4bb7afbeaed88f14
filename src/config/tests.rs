mod examples;
mod plans;
mod signals;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value as Json;

use super::model::*;
use super::*;
use crate::policy::arm::Arm;
use crate::policy::criteria::{Criteria, Criterion, Overdispersion};
use crate::policy::share::Share;

const QUICKSTART: &str = include_str!("../../config/quickstart.yaml");
const PRODUCTION: &str = include_str!("../../config/production.yaml");

/// Values that must never be seen in a message.
const SECRETS: [&str; 3] = [
    "the-reader's-token",
    "the-operator's-token",
    "a pin secret of more than thirty-two bytes",
];

fn environment(name: &str) -> Option<String> {
    match name {
        "READ_TOKEN" => Some(SECRETS[0].to_owned()),
        "PIN_SECRET" => Some(SECRETS[2].to_owned()),
        "NUMBER" => Some("4".to_owned()),
        "SECRET" => Some(SECRETS[0].to_owned()),
        _ => None,
    }
}

/// A directory with every file that production.yaml names.
fn production_directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let write = |name: &str, contents: &str| {
        let path = directory.path().join(name);
        let parent = path.parent().expect("within the directory");
        std::fs::create_dir_all(parent).expect("writable");
        std::fs::write(path, contents).expect("writable");
    };
    let names = vec!["shop.example.com".to_owned()];
    let certified = rcgen::generate_simple_self_signed(names).expect("a certificate");
    write("tls/edge.pem", &certified.cert.pem());
    write("tls/edge.key", &certified.signing_key.serialize_pem());
    write("tls/internal-ca.pem", &certified.cert.pem());
    write("tls/jwt-public.pem", RSA_PUBLIC_KEY);
    write("secrets/operate-token", &format!("{}\n", SECRETS[1]));
    write(
        "pins.txt",
        "# testers\nbob@example.com new\n\nold customer legacy\n",
    );
    write("production.yaml", PRODUCTION);
    directory
}

const RSA_PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAsWM7g1DU7xKzw4gxbVSk
c63zadi47Zq2f8aOEjWjpE45Mw/2FsdMaynoYXTD6R/J1tGgnWxiPBzzC4GrnJux
qGK3IBBbJOLuXlCf61vlNUilxz8GDKbJeE+jUlREHrP0/1vGP59TyAfbokzwq8V0
uyUPwS63bB2gnYcpXyki69v0O1zEhUFEDEy3YELcJZvAk5q360rkd7r7yYZVSb3l
qtbw/wDj11jmDW8Xe+fuMI7R60WF5pttpxfvj7SVLVCdPvuXfHp/orOthJKPeCIQ
qqmL8VVITmQD1D4Dz6A+Cux3EDIjWCxS9qV0wzj09o+F9zZ4dtNy8lhTcULEwEei
4QIDAQAB
-----END PUBLIC KEY-----
";

fn load_minimal(more: &str) -> Result<Config, Problems> {
    let text = format!("{QUICKSTART}{more}");
    load_text(&text, Path::new("."), &environment)
}

/// Problems of a split's keys added to the quickstart's split.
fn split_problems(keys: &str) -> Vec<Problem> {
    problems(&QUICKSTART.replace("    share: 10%\n", &format!("    {keys}\n")))
}

fn problems(text: &str) -> Vec<Problem> {
    let result = load_text(text, Path::new("/nonexistent"), &environment);
    result.err().map(|all| all.problems).unwrap_or_default()
}

#[test]
fn the_quickstart_means_what_it_says() {
    let config = load_minimal("").expect("valid");
    assert_eq!(config.warnings, []);
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.backends[1].name, "new-api");
    assert_eq!(config.backends[1].endpoints, ["127.0.0.1:9002"]);
    let split = &config.splits[0];
    assert_eq!(split.arms[Arm::New], BackendId(1));
    assert_eq!(
        split.course.file_share(),
        Share::from_basis_points(1_000).ok()
    );
    assert_eq!(*split.course.criteria(None), Criteria::default());
    assert_eq!(split.salt, "api");
    assert_eq!(split.rollout_id, "1");
    assert_eq!(config.routes[0].target, Target::Split(SplitId(0)));
    assert_eq!(config.process.admin.address.to_string(), "127.0.0.1:9900");
}

#[test]
fn a_limit_may_be_on_the_whole_answer() {
    let rollback = "rollback: ['total_p95 > 2s', 'total_p99 > 10s then hold']";
    assert_eq!(split_problems(rollback), Vec::new());
    for wrong in ["rollback: [total_p42 > 2s]", "rollback: [total > 2s]"] {
        assert!(!split_problems(wrong).is_empty(), "{wrong}");
    }
}

#[test]
fn every_option_in_production_yaml_loads_and_lands_in_its_place() {
    let directory = production_directory();
    let config = load_text(PRODUCTION, directory.path(), &environment).expect("valid");
    assert_eq!(config.process.workers, 4);
    assert_eq!(
        config.process.state_directory,
        Path::new("/var/lib/cutover")
    );
    assert_eq!(config.process.admin.tokens[0].secret, SECRETS[0]);
    assert_eq!(config.process.admin.tokens[1].secret, SECRETS[1]);
    assert_eq!(config.process.admin.tokens[1].role, Role::Operate);
    assert!(config.listeners[1].tls.is_some());
    let limit = config.edge.rate_limit.as_ref().expect("written");
    assert_eq!((limit.requests_per_second, limit.burst), (100, 200));
    let new = &config.backends[1];
    assert_eq!(new.timeouts.total, Some(Duration::from_secs(120)));
    assert_eq!(new.pool.warm, 2);
    let split = &config.splits[0];
    assert_eq!(split.key.len(), 4);
    assert!(matches!(&split.key[0], KeySource::Jwt(jwt) if jwt.claim == "sub"));
    assert_eq!(split.pins["alice@example.com"], Arm::New);
    assert_eq!(split.pins["old customer"], Arm::Legacy);
    assert_eq!(split.fallback.body_limit, 65_536);
    let rollback: Vec<String> = split
        .course
        .criteria(None)
        .rollback
        .iter()
        .map(Criterion::to_string)
        .collect();
    assert_eq!(
        rollback,
        [
            "error_rate > 2%",
            "p95 > 400ms",
            "p99 > 1500ms",
            "error_rate worse than legacy by 25%",
            "client_error_rate worse than legacy by 25%",
        ]
    );
    assert_eq!(
        split.course.criteria(None).overdispersion,
        Overdispersion::Auto
    );
    assert_eq!(config.splits[1].fallback.breaker, None);
    let route = &config.routes[0].matches;
    assert_eq!(route.path, Some(PathMatch::Prefix("/checkout".to_owned())));
    assert_eq!(
        route.headers[0],
        (http::HeaderName::from_static("x-beta"), None)
    );
    assert!(!config.routes[3].fallback);
}

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

/// Removes every line of production.yaml whose value is said to be the default: the meaning must
/// not change. So the comments, the schema and the program state the same defaults.
#[test]
fn the_defaults_that_the_example_states_are_those_in_force() {
    let directory = production_directory();
    let full = load_text(PRODUCTION, directory.path(), &environment).expect("valid");
    let is_default = |line: &&str| {
        let comment = line
            .split_once('#')
            .map_or("", |(_, comment)| comment.trim());
        comment == "default" || comment.starts_with("default;") || comment.starts_with("default.")
    };
    let (removed, kept): (Vec<&str>, Vec<&str>) = PRODUCTION
        .lines()
        .filter(|line| !line.trim_start().starts_with('#') && !line.is_empty())
        .partition(is_default);
    assert!(removed.len() > 35, "only {} lines say so", removed.len());
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut text = String::new();
    for (index, line) in kept.iter().enumerate() {
        // A mapping of which every key was removed is an empty one.
        let code = line.split('#').next().unwrap_or_default().trim_end();
        let next = kept.get(index + 1).map_or(0, |next| indent(next));
        let empty = if code.ends_with(':') && next <= indent(line) {
            " {}"
        } else {
            ""
        };
        writeln!(text, "{code}{empty}").expect("a string takes everything");
    }
    let short = load_text(&text, directory.path(), &environment);
    let short = short.unwrap_or_else(|all| panic!("{all}"));
    // Warnings carry line numbers.
    let without_warnings = |config| Config {
        warnings: Vec::new(),
        ..config
    };
    assert_eq!(without_warnings(short), without_warnings(full));
}

#[test]
fn ten_mistakes_are_reported_at_once_each_with_its_place_and_a_remedy() {
    let text = "\
listeners:
  - address: localhost:8080
admin: {address: 0.0.0.0:9900}
worker: 2
backends:
  legacy-api: {endpoints: []}
  new-api:
    endpoints: [127.0.0.1:9002]
    timeouts: {conect: 5, first_byte: 0s}
splits:
  checkout:
    legacy: legacy-ap
    share: 110%
    shared_state: yes
    salt: 12
    share: 20%
    pin_secret: ${MISSING}
    analysis: {alpha: 0.5}
routes:
  - {split: chekout, methods: [get]}
  - {path: /x}
";
    let found: Vec<_> = problems(text)
        .into_iter()
        .map(|problem| {
            assert!(!problem.remedy.is_empty(), "{problem}");
            (problem.line, problem.column, problem.key)
        })
        .collect();
    let expected = [
        (2, 14, "listeners[0].address"),
        (3, 18, "admin.address"),
        (4, 1, "worker"),
        (6, 27, "backends.legacy-api.endpoints"),
        (9, 16, "backends.new-api.timeouts.conect"),
        (9, 24, "backends.new-api.timeouts.connect"),
        (9, 39, "backends.new-api.timeouts.first_byte"),
        (11, 3, "splits.checkout.new"),
        (12, 13, "splits.checkout.legacy"),
        (13, 12, "splits.checkout.share"),
        (14, 19, "splits.checkout.shared_state"),
        (15, 11, "splits.checkout.salt"),
        (16, 5, "splits.checkout.share"),
        (17, 17, "splits.checkout.pin_secret"),
        (18, 23, "splits.checkout.analysis.alpha"),
        (20, 13, "routes[0].split"),
        (20, 32, "routes[0].methods[0]"),
        (21, 5, "routes[1]"),
    ];
    let expected = expected.map(|(line, column, key)| (line, column, key.to_owned()));
    assert_eq!(found, expected);
}

#[test]
fn a_slip_of_the_pen_is_answered_with_what_was_probably_meant() {
    for (wrong, right) in [
        ("lisener: []", "did you mean `listeners`?"),
        ("Edge: {}", "did you mean `edge`?"),
        ("edge: {max-requests: 5}", "did you mean `max_requests`?"),
        (
            "edge: {quota: 5}",
            "known here: allow, deny, header_timeout",
        ),
        ("drain: {<<: 5s}", "merge keys are not supported"),
    ] {
        let all = load_minimal(&format!("\n{wrong}\n"))
            .expect_err(wrong)
            .to_string();
        assert!(all.contains("unknown key") && all.contains(right), "{all}");
    }
    let all = problems(&QUICKSTART.replace("new: new-api", "new: new-apo"));
    assert!(
        all[0].remedy.contains("did you mean `new-api`?"),
        "{}",
        all[0]
    );
    let all = split_problems("keyless: legasy");
    // `keyless` stands in the quickstart already.
    assert!(
        all.iter().any(|one| one.message.contains("line")),
        "{all:?}"
    );
}

/// Each mistake that the shape alone does not show, with the key it must be reported under.
#[test]
fn what_is_meant_is_judged_too() {
    let long = "x".repeat(64);
    for (keys, key, part) in [
        ("key: []", "splits.api.key", "empty"),
        (
            "key: [client_ip, {cookie: a}]",
            "splits.api.key[1]",
            "never looked at",
        ),
        (
            "key: [{jwt: {claim: sub, algorithm: HS256}}]",
            "splits.api.key[0].jwt.secret",
            "needs",
        ),
        (
            "key: [{jwt: {claim: a, algorithm: HS256, secret: s, public_key: p}}]",
            "splits.api.key[0].jwt.public_key",
            "no use",
        ),
        (
            "key: [{jwt: {claim: a, algorithm: RS256, public_key: nonsense}}]",
            "splits.api.key[0].jwt.public_key",
            "no RSA public key",
        ),
        (
            "key: [{jwt: {claim: a, algorithm: ES256, public_key: nonsense}}]",
            "splits.api.key[0].jwt.public_key",
            "no P-256 public key",
        ),
        (
            "key: [{jwt: {claim: a, algorithm: HS256, secret: '-----BEGIN PUBLIC KEY-----'}}]",
            "splits.api.key[0].jwt.secret",
            "PEM file",
        ),
        (
            "key: [{jwt: {claim: a, algorithm: ES256, public_key: '-----BEGIN CERTIFICATE-----'}}]",
            "splits.api.key[0].jwt.public_key",
            "no P-256 public key",
        ),
        (
            "key: [{jwt: {claim: a, algorithm: none}}]",
            "splits.api.key[0].jwt.algorithm",
            "`none`",
        ),
        (
            "key: [{cookies: a}]",
            "splits.api.key[0]",
            "none of the keys",
        ),
        ("key: client_ip", "splits.api.key", "not possible"),
        ("pin_secret: short", "splits.api.pin_secret", "5 bytes"),
        (
            "pins: {file: absent.txt}",
            "splits.api.pins.file",
            "cannot read",
        ),
        (
            "pins: {keys: {a: both}}",
            "splits.api.pins.keys.a",
            "`both`",
        ),
        (
            "rollback: [p95 > 1s, p95 > 2s]",
            "splits.api.rollback[1]",
            "already",
        ),
        (
            "rollback: [p95 > 1s, p50 > 1s, p90 > 1s, p99 > 1s, p98 > 1s]",
            "splits.api.rollback[4]",
            "",
        ),
        ("rollback: on", "splits.api.rollback", "`on`"),
        (
            "analysis: {overdispersion: 0.5}",
            "splits.api.analysis.overdispersion",
            "0.5",
        ),
        (
            "fallback: {statuses: [200]}",
            "splits.api.fallback.statuses[0]",
            "200",
        ),
        (
            "fallback: {breaker: true}",
            "splits.api.fallback.breaker",
            "true",
        ),
        (
            "fallback: {breaker: {open_for: 0s}}",
            "splits.api.fallback.breaker.open_for",
            "0s",
        ),
        (
            "response_headers: \"true\"",
            "splits.api.response_headers",
            "quotes",
        ),
        ("rollout: {id: 2.10}", "splits.api.rollout.id", "number"),
        ("rollout:", "splits.api.rollout", "no value"),
    ] {
        let all = split_problems(keys);
        let hit = all
            .iter()
            .any(|one| one.key == key && one.message.contains(part));
        assert!(
            hit && all.iter().all(|one| one.line > 0),
            "{keys}: {all:#?}"
        );
    }
    for (from, to, key) in [
        (
            "127.0.0.1:9001]",
            "127.0.0.1:9001, 127.0.0.1:9001]",
            "backends.legacy-api.endpoints[1]",
        ),
        (
            "- {split: api}",
            "- {split: api, backend: new-api}",
            "routes[0]",
        ),
        (
            "- {split: api}",
            "- {split: api, path: /a, path_prefix: /a}",
            "routes[0]",
        ),
        (
            "- {split: api}",
            "- {split: api}\n  - {split: api, path_prefix: /}",
            "routes[1]",
        ),
        (
            "- {split: api}",
            "- {split: api, headers: {\"a b\": c}}",
            "routes[0].headers.a b",
        ),
        ("- {split: api}", "- {backend: other}", "routes[0].backend"),
        (
            "127.0.0.1:8080",
            "127.0.0.1:8080\n  - address: 127.0.0.1:8080",
            "listeners[1].address",
        ),
        ("127.0.0.1:8080", "127.0.0.1:9900", "admin.address"),
        (
            "127.0.0.1:8080",
            "127.0.0.1:8080\n    tls: {certificate: a, key: b}",
            "listeners[0].tls.key",
        ),
        ("  api:", &format!("  {long}:"), &format!("splits.{long}")),
    ] {
        let all = problems(&QUICKSTART.replace(from, to));
        assert!(
            all.iter().any(|one| one.key == key && one.line > 0),
            "{to}: {all:#?}"
        );
    }
}

#[test]
fn a_certificate_must_be_one_and_its_key_must_belong_to_it() {
    let directory = production_directory();
    let other = rcgen::generate_simple_self_signed(vec!["x".to_owned()]).expect("a certificate");
    std::fs::write(
        directory.path().join("other.key"),
        other.signing_key.serialize_pem(),
    )
    .expect("writable");
    for (certificate, key, wrong) in [
        ("tls/edge.pem", "other.key", "key"),
        ("tls/edge.pem", "pins.txt", "key"),
        ("pins.txt", "tls/edge.key", "certificate"),
        ("absent.pem", "tls/edge.key", "certificate"),
    ] {
        let tls = format!("8080\n    tls: {{certificate: {certificate}, key: {key}}}");
        let text = QUICKSTART.replace("8080", &tls);
        let all = load_text(&text, directory.path(), &environment).expect_err(certificate);
        let keys: Vec<_> = all.problems.iter().map(|one| one.key.as_str()).collect();
        assert_eq!(keys, [format!("listeners[0].tls.{wrong}")], "{all}");
    }
}

#[test]
fn problems_of_a_pins_file_name_its_line() {
    let directory = production_directory();
    std::fs::write(
        directory.path().join("pins.txt"),
        "alice new\nbob\ncarol both\nalice new\n",
    )
    .expect("writable");
    let text = QUICKSTART.replace("share: 10%", "pins: {file: pins.txt}");
    let all = load_text(&text, directory.path(), &environment).expect_err("three mistakes");
    let places: Vec<_> = all.problems.iter().map(|one| &one.message[..10]).collect();
    assert_eq!(places, ["pins.txt:2", "pins.txt:3", "pins.txt:4"]);
}

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

#[test]
fn a_reference_to_a_thing_that_was_reported_is_not_reported_again() {
    // The split is damaged, the route that names it is not.
    let all = problems(&QUICKSTART.replace("    new: new-api\n", ""));
    assert_eq!(all.len(), 1, "{all:?}");
    let all = problems(&QUICKSTART.replace("- {split: api}", "- nonsense"));
    assert_eq!(all.len(), 1, "{all:?}");
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
    let several = "workers: 77\ndrain: {delay: 9s}\nadmin: {address: 127.0.0.1:9901}\nroutes:";
    assert_eq!(
        change("routes:", several),
        ["admin.address", "workers", "drain.delay"]
    );
}

#[test]
fn an_issued_cookie_that_is_also_looked_for_is_no_change_of_key() {
    let warnings = |key: &str| -> Vec<String> {
        let text = QUICKSTART.replace("[{cookie: cutover}]", key);
        let config = load_text(&text, Path::new("."), &environment).expect("valid");
        config.warnings.into_iter().map(|one| one.key).collect()
    };
    assert_eq!(warnings("[{cookie: cutover}]"), [""; 0]);
    assert_eq!(warnings("[{header: X-User}]"), ["splits.api.key"]);
    assert_eq!(warnings("[client_ip]"), ["splits.api.keyless"]);
}

#[test]
fn the_schema_describes_every_key_and_admits_no_other() {
    fn walk(schema: &Json, path: &str) {
        if let Some(properties) = schema["properties"].as_object() {
            assert_eq!(
                schema["additionalProperties"], false,
                "{path} admits unknown keys"
            );
            for (name, property) in properties {
                let path = format!("{path}.{name}");
                // Of an alternative with a single key, the whole is described.
                let whole = (properties.len() == 1).then_some(&schema["description"]);
                let described = [Some(&property["description"]), whole];
                assert!(
                    described.into_iter().flatten().any(Json::is_string),
                    "{path} has no description"
                );
                walk(property, &path);
            }
        }
        for several in ["oneOf", "anyOf"] {
            for one in schema[several].as_array().into_iter().flatten() {
                assert_ne!(one["type"], "null", "{path} may be null");
                walk(one, path);
            }
        }
        assert!(
            !schema["type"].is_array(),
            "{path} has several types: {schema}"
        );
    }
    let schema = schema();
    walk(&schema, "");
    for (name, definition) in schema["$defs"].as_object().expect("definitions") {
        walk(definition, name);
    }
    let required = ["listeners", "backends", "routes"];
    for name in required {
        assert!(
            schema["required"]
                .as_array()
                .expect("a list")
                .contains(&name.into())
        );
    }
    assert_eq!(
        schema["required"].as_array().map(Vec::len),
        Some(required.len())
    );
}

proptest! {
    #[test]
    fn no_text_makes_loading_panic(text in "[ -~\n]{0,200}") {
        let _ = load_text(&text, Path::new("/nonexistent"), &environment);
    }

    #[test]
    fn no_mutation_of_an_example_makes_loading_panic(
        cut in 0usize..6_000,
        length in 0usize..40,
        insert in "[\\[\\]{}:,&*#|>'\"%$!~a-z0-9\n \u{e4}-]{0,8}",
    ) {
        let characters: Vec<char> = PRODUCTION.chars().collect();
        let start = cut.min(characters.len());
        let end = (start + length).min(characters.len());
        let text: String = characters[..start]
            .iter()
            .copied()
            .chain(insert.chars())
            .chain(characters[end..].iter().copied())
            .collect();
        if let Err(all) = load_text(&text, Path::new("/nonexistent"), &environment) {
            for problem in &all.problems {
                prop_assert!(problem.line > 0, "{}", problem);
                prop_assert!(!problem.remedy.is_empty());
            }
        }
    }

    /// The check lets nothing through that the structures cannot take.
    #[test]
    fn what_passes_the_schema_can_be_read(
        line in 0usize..200,
        value in "(~|true|1|-1|0.5|x|\"\"|\\[\\]|\\{\\}|\\[x\\]|\\{x: y\\}|5s|10%|99999999999999999999)",
    ) {
        let lines: Vec<String> = PRODUCTION
            .lines()
            .enumerate()
            .map(|(index, text)| match text.split_once(": ") {
                Some((key, _)) if index == line => format!("{key}: {value}"),
                _ => text.to_owned(),
            })
            .collect();
        if let Err(all) = load_text(&lines.join("\n"), Path::new("/nonexistent"), &environment) {
            for problem in &all.problems {
                prop_assert!(!problem.remedy.contains("mistake of cutover"), "{}", all);
            }
        }
    }
}
