//! Every way in which a file can be wrong, with the place and the remedy.

use super::*;

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
        ("edge: {quota: 5}", "known here: allow, "),
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
fn further_certificates_and_the_roots_of_clients_are_read_as_strictly() {
    let directory = production_directory();
    let further = "certificate: tls/edge.pem, key: tls/edge.key, certificates: [{";
    for (tls, wrong) in [
        (
            format!("{further}certificate: tls/edge.pem, key: pins.txt}}]"),
            "certificates[0].key",
        ),
        (
            format!("{further}certificate: absent.pem, key: tls/edge.key}}]"),
            "certificates[0].certificate",
        ),
        (
            "certificate: tls/edge.pem, key: tls/edge.key, \
             client_certificates: {roots: pins.txt}"
                .to_owned(),
            "client_certificates.roots",
        ),
    ] {
        let text = QUICKSTART.replace("8080", &format!("8080\n    tls: {{{tls}}}"));
        let all = load_text(&text, directory.path(), &environment).expect_err(wrong);
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
fn a_limit_of_a_route_has_one_rate_and_its_name_is_its_own() {
    for (limits, key, part) in [
        ("rate_limit: {burst: 5}", "rate_limit", "has no rate"),
        (
            "rate_limit: {requests_per_second: 1, requests_per_minute: 1}",
            "rate_limit",
            "a rate per second and one per minute",
        ),
        ("name: 'log in'", "name", "no name for a route"),
        ("name: other", "name", "another route has the name `other`"),
        ("max_requests: 0", "max_requests", ""),
        ("max_body: 5", "max_body", ""),
        (
            "rate_limit: {requests_per_minute: 0}",
            "rate_limit.requests_per_minute",
            "",
        ),
        (
            "rate_limit: {requests_per_minute: 1, key: ip}",
            "rate_limit.key",
            "",
        ),
    ] {
        let text = QUICKSTART.replace(
            "routes:\n",
            &format!("routes:\n  - {{path: /o, split: api, name: other}}\n  - {{path: /x, split: api, {limits}}}\n"),
        );
        let problems = problems(&text);
        let found: Vec<_> = problems
            .iter()
            .map(|one| (one.key.as_str(), &one.message))
            .collect();
        let expected = format!("routes[1].{key}");
        assert!(
            found.len() == 1 && found[0].0 == expected && found[0].1.contains(part),
            "{limits}: {found:?}"
        );
    }
}

#[test]
fn problems_of_a_list_of_addresses_name_its_line_and_an_empty_allow_list_is_one() {
    let directory = production_directory();
    let problems = |key: &str, contents: &str| {
        std::fs::write(directory.path().join("list.txt"), contents).expect("writable");
        let text = format!("{QUICKSTART}\nedge: {{{key}: list.txt}}\n");
        let all = load_text(&text, directory.path(), &environment).expect_err(contents);
        let problems = all.problems.into_iter();
        let problems = problems.filter(|one| one.key == format!("edge.{key}"));
        problems.map(|one| one.message).collect::<Vec<_>>()
    };
    let mixed = "# flood\n192.0.2.1 # a scanner\n192.0.2\n\n10.0.0.0/33\n2001:db8::/32\n";
    for key in ["deny_file", "allow_file"] {
        let lines: Vec<_> = problems(key, mixed);
        let places: Vec<_> = lines.iter().map(|line| &line[..10]).collect();
        assert_eq!(places, ["list.txt:3", "list.txt:5"], "{key}: {lines:?}");
        assert_eq!(problems(key, &"nonsense\n".repeat(1_000)).len(), 20);
    }
    let too_many = "192.0.2.1\n".repeat(100_001);
    let said = problems("deny_file", &too_many);
    assert!(said[0].starts_with("list.txt:100001: "), "{said:?}");
    let said = problems("allow_file", "# nobody yet\n");
    assert!(said[0].contains("everybody would be served"), "{said:?}");
    std::fs::write(directory.path().join("list.txt"), "# nobody yet\n").expect("writable");
    let text = format!("{QUICKSTART}\nedge: {{deny: [10.0.0.1], deny_file: list.txt}}\n");
    let config = load_text(&text, directory.path(), &environment).expect("denying nobody is fine");
    assert_eq!(config.edge.deny.len(), 1);
}

#[test]
fn a_pinned_address_is_pinned_by_its_key_and_a_whole_network_is_warned_of() {
    let load = |key: &str, pins: &str| {
        let text = QUICKSTART.replace("[{cookie: cutover}]", key);
        let text = text.replace("share: 10%", &format!("pins: {{keys: {{{pins}}}}}"));
        load_text(&text, Path::new("."), &environment)
    };
    let pinned = |key: &str, pins: &str| {
        let config = load(key, pins).expect("valid");
        let keys = config.splits[0].pins.keys().cloned();
        let about_networks = config
            .warnings
            .iter()
            .filter(|one| one.message.contains("/64"));
        (keys.collect::<Vec<_>>(), about_networks.count())
    };
    let two = "'2001:db8::5': new, '::ffff:192.0.2.7': legacy";
    let keys = ["192.0.2.7", "2001:db8::"].map(str::to_owned).to_vec();
    assert_eq!(pinned("[client_ip]", two), (keys, 1));
    let (both, _) = pinned("[{header: X-User}, client_ip]", "'2001:db8::5': new");
    assert_eq!(both, ["2001:db8::", "2001:db8::5"]);
    let meant = pinned("[client_ip]", "'2001:db8::': new");
    assert_eq!(meant, (vec!["2001:db8::".to_owned()], 0));
    let all = load("[client_ip]", "'2001:db8::5': new, '2001:db8::6': legacy");
    let all = all.expect_err("one key, two arms");
    let message = "`2001:db8::6` is pinned to legacy, but its session key `2001:db8::` to new";
    assert_eq!(all.problems[0].message, message);
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
fn changes_of_key_are_warned_of_once_for_all_splits() {
    let text = QUICKSTART.replace("[{cookie: cutover}]", "[{header: X-User}]");
    let split = text.find("splits:").expect("there are splits");
    let other = "splits:\n  web: {legacy: new-api, new: legacy-api, key: [{header: X-User}]}\n";
    let text = text[..split].to_owned() + other + &text[split + "splits:\n".len()..];
    let config = load_text(&text, Path::new("."), &environment).expect("valid");
    let told: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    let told: Vec<&String> = told
        .iter()
        .filter(|one| one.contains("may change arm"))
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("splits.web.key") && told[0].contains("holds for api"),
        "{told:?}"
    );
}

#[test]
fn a_listener_for_balancers_needs_to_know_whom_to_trust() {
    let file = |edge: &str| {
        format!(
            "listeners: [{{address: '127.0.0.1:0', proxy_protocol: true}}]
edge: {{{edge}}}
backends: {{api: {{endpoints: ['127.0.0.1:9001']}}}}
routes: [{{backend: api}}]
"
        )
    };
    let [problem] = &problems(&file(""))[..] else {
        panic!("there is one mistake");
    };
    assert_eq!((problem.line, problem.column), (1, 54));
    assert_eq!(problem.key, "listeners[0].proxy_protocol");
    assert!(problem.remedy.contains("edge.trusted_proxies"), "{problem}");
    let trusting = file("trusted_proxies: [10.0.0.0/8]");
    assert!(problems(&trusting).is_empty());
}
