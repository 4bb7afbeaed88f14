//! What is fixed by hand: pinned keys, tokens that carry an arm, and that what `explain` says is
//! what happens.

use std::process::Output;
use std::sync::Arc;

use cutover::policy::arm::Arm;
use cutover::policy::assign::{Cause, Explanation};
use serde_json::Value;

use super::{Servers, arm_of, configuration, start, with_fields};
use crate::harness::client::Client;
use crate::harness::eventually;
use crate::harness::keys::Population;
use crate::harness::proxy::{Proxy, Site};

const ROUTES: &str = "  - {path_prefix: /other, split: other}\n  - {split: api}";

/// Two splits that nobody has moved yet, each with a secret of its own.
const SPLITS: &str = "  api: {legacy: legacy, new: new, key: [{header: X-User}], keyless: legacy, \
                      pin_secret: the-secret-of-the-first-of-the-two-splits}
  other: {legacy: legacy, new: new, key: [{header: X-User}], keyless: legacy, \
  pin_secret: the-secret-of-the-other-of-the-two-splits}";

async fn arm_of_key(client: &mut Client, key: &str) -> Arm {
    arm_of(client, with_fields("/", &[("x-user", key)])).await
}

/// Prints a token with the command line.
async fn pin(proxy: &Proxy, split: &str, arm: &str, lifetime: &str) -> String {
    let words = [
        "pin",
        "--config",
        "cutover.yaml",
        "--split",
        split,
        "--arm",
        arm,
        "--for",
        lifetime,
    ];
    let output = proxy.cutover(&words).await;
    assert!(output.status.success(), "{output:?}");
    let token = String::from_utf8(output.stdout).expect("tokens are ASCII");
    token.trim().to_owned()
}

async fn ignored(proxy: &Proxy, split: &str) -> f64 {
    let metrics = proxy.metrics().await;
    metrics.sum("cutover_unverifiable_tokens_total", &[("split", split)])
}

#[tokio::test]
async fn an_edit_of_the_pins_file_moves_its_keys_and_nobody_else() {
    let split = "  api: {legacy: legacy, new: new, share: 50%, key: [{header: X-User}], \
                 pins: {keys: {alice: new, bob: legacy}, file: pins.txt}}";
    let site = Site::new().file("pins.txt", "# testers\ncarol new\ndave legacy\n");
    let (proxy, _servers) = start(site, split, "  - {split: api}").await;
    let mut client = proxy.client().await;
    let expect = [
        ("alice", Arm::New),
        ("bob", Arm::Legacy),
        ("carol", Arm::New),
        ("dave", Arm::Legacy),
    ];
    for (key, arm) in expect {
        assert_eq!(arm_of_key(&mut client, key).await, arm, "{key}");
    }

    // Nobody asks for a reload; the file is watched.
    proxy.rewrite(
        "pins.txt",
        "carol legacy\n\n  # dave goes with his hash again\nerin new\n",
    );
    eventually("carol moves", async || {
        arm_of_key(&mut client, "carol").await == Arm::Legacy
    })
    .await;
    let population = Population::new("api", "50%");
    assert_eq!(arm_of_key(&mut client, "erin").await, Arm::New);
    assert_eq!(
        arm_of_key(&mut client, "dave").await,
        population.arm("dave")
    );
    assert_eq!(arm_of_key(&mut client, "alice").await, Arm::New);
    for number in 0..20 {
        let key = format!("user-{number}");
        assert_eq!(
            arm_of_key(&mut client, &key).await,
            population.arm(&key),
            "{key}"
        );
    }

    // A file with a mistake changes nothing and is shown.
    proxy.rewrite("pins.txt", "carol new\nerin sideways\n");
    proxy
        .counts(0.0, "cutover_config_last_reload_successful", &[])
        .await;
    assert_eq!(arm_of_key(&mut client, "carol").await, Arm::Legacy);
    let problems = proxy.status().await.config.problems.join("\n");
    assert!(problems.contains("pins.txt:2"), "{problems}");
}

#[tokio::test]
async fn a_token_fixes_the_arm_in_a_header_or_a_cookie_and_the_header_goes_first() {
    let (proxy, _servers) = start(Site::new(), SPLITS, ROUTES).await;
    let mut client = proxy.client().await;
    let token = pin(&proxy, "api", "new", "1h").await;
    let back = pin(&proxy, "api", "legacy", "1h").await;
    let (cookie, back_cookie) = (
        format!("a=1; cutover_pin={token}"),
        format!("cutover_pin={back}"),
    );
    for (fields, arm) in [
        (&[("cutover-pin", token.as_str())][..], Arm::New),
        (&[("cookie", &cookie)], Arm::New),
        (
            &[("cutover-pin", &token), ("cookie", &back_cookie)],
            Arm::New,
        ),
        (&[("cutover-pin", &back), ("cookie", &cookie)], Arm::Legacy),
        (&[("cutover-pin", ""), ("cookie", &cookie)], Arm::New),
        (&[], Arm::Legacy),
    ] {
        // It needs no session key.
        assert_eq!(
            arm_of(&mut client, with_fields("/", fields)).await,
            arm,
            "{fields:?}"
        );
    }
    assert_eq!(ignored(&proxy, "api").await, 0.0);
    proxy
        .counts(0.0, "cutover_requests_total", &[("evidence", "true")])
        .await;
}

#[tokio::test]
async fn an_expired_a_foreign_and_a_forged_token_are_ignored_and_counted() {
    let (proxy, _servers) = start(Site::new(), SPLITS, ROUTES).await;
    let mut client = proxy.client().await;
    let short = pin(&proxy, "api", "new", "1s").await;
    eventually("the token expires", async || {
        let request = with_fields("/", &[("cutover-pin", &short)]);
        arm_of(&mut client, request).await == Arm::Legacy
    })
    .await;
    assert_eq!(ignored(&proxy, "api").await, 1.0);
    let foreign = pin(&proxy, "other", "new", "1h").await;
    let forged = format!("{}x", pin(&proxy, "api", "new", "1h").await);
    let cookie = format!("cutover_pin={foreign}");
    for (number, fields) in [
        ("cutover-pin", foreign.as_str()),
        ("cookie", &cookie),
        ("cutover-pin", &forged),
        ("cutover-pin", "let me in"),
    ]
    .into_iter()
    .enumerate()
    {
        let arm = arm_of(&mut client, with_fields("/", &[fields])).await;
        assert_eq!(arm, Arm::Legacy, "{fields:?}");
        assert_eq!(
            ignored(&proxy, "api").await,
            2.0 + number as f64,
            "{fields:?}"
        );
    }
    let request = with_fields("/other", &[("cutover-pin", &foreign)]);
    assert_eq!(
        arm_of(&mut client, request).await,
        Arm::New,
        "where it belongs it holds"
    );
    assert_eq!(ignored(&proxy, "other").await, 0.0);
}

#[tokio::test]
async fn a_token_holds_after_a_rollback_and_not_under_an_emergency() {
    let (proxy, _servers) = start(Site::new(), SPLITS, ROUTES).await;
    let mut client = proxy.client().await;
    let token = pin(&proxy, "api", "new", "1h").await;
    for (words, arm) in [
        (&["set", "api", "10%"][..], Arm::New),
        (&["rollback", "api", "--reason", "a drill"], Arm::New),
        (&["emergency", "api", "--reason", "a drill"], Arm::Legacy),
        (&["emergency", "api", "--clear"], Arm::New),
    ] {
        let output = proxy.cutover(words).await;
        assert!(output.status.success(), "{output:?}");
        let request = with_fields("/", &[("cutover-pin", &token)]);
        assert_eq!(arm_of(&mut client, request).await, arm, "{words:?}");
    }
}

#[tokio::test]
async fn no_field_of_the_proxys_own_crosses_from_a_client_to_an_upstream() {
    let (proxy, servers) = start(Site::new(), SPLITS, ROUTES).await;
    let token = pin(&proxy, "api", "new", "1h").await;
    let fields = [
        ("cutover-pin", token.as_str()),
        ("cutover-replay", "1"),
        ("Cutover-Shadow", "1"),
        ("CUTOVER-ANYTHING", "1"),
        ("x-cutover", "is somebody else's"),
    ];
    let arm = arm_of(&mut proxy.client().await, with_fields("/", &fields)).await;
    assert_eq!(arm, Arm::New);
    let received = servers.0[1].1.received();
    let own = |name: &str| name.to_ascii_lowercase().starts_with("cutover-");
    let crossed: Vec<_> = received[0]
        .fields
        .iter()
        .filter(|(name, _)| own(name))
        .collect();
    assert!(crossed.is_empty(), "{crossed:?}");
    assert_eq!(received[0].field("x-cutover"), Some("is somebody else's"));
}

/// Keys that ordinary sessions have, and some that try to be something else.
fn two_hundred_keys() -> Vec<String> {
    let odd = [
        "--help",
        "-o",
        "a b",
        "a&b=c#d",
        "100%",
        "%61",
        "ключ",
        "🦀",
        "'quoted'",
        "\"double\"",
        "/../x",
        "alice",
        "bob",
        "carol",
    ];
    let ordinary = (0..200 - odd.len()).map(|number| format!("session-{number}"));
    odd.into_iter().map(str::to_owned).chain(ordinary).collect()
}

#[tokio::test]
async fn what_explain_says_online_and_offline_is_what_happens_to_two_hundred_keys() {
    let split = "  api: {legacy: legacy, new: new, share: 35%, salt: sea, key: [{header: X-User}], \
                 keyless: legacy, pins: {keys: {alice: new, bob: legacy}, file: pins.txt}}";
    let site = Site::new().file("pins.txt", "carol new\n");
    let (proxy, _servers) = start(site, split, "  - {split: api}").await;
    let (proxy, keys) = (Arc::new(proxy), two_hundred_keys());
    let population = Population::new("sea", "35%");
    let mut client = proxy.client().await;
    let mut seen = Vec::new();
    for key in &keys {
        let online = proxy.explain("api", key).await;
        assert_eq!(arm_of_key(&mut client, key).await, online.arm, "{key}");
        if online.cause == Cause::Hash {
            assert_eq!(online.arm, population.arm(key), "{key}");
        }
        seen.push(online);
    }
    for (key, arm) in [
        ("alice", Arm::New),
        ("bob", Arm::Legacy),
        ("carol", Arm::New),
    ] {
        let online = seen
            .iter()
            .find(|seen| seen.key == key)
            .expect("it was asked");
        assert_eq!((online.arm, online.cause), (arm, Cause::Pin));
    }
    let of_new = seen.iter().filter(|seen| seen.arm == Arm::New).count();
    assert!((40..=100).contains(&of_new), "{of_new} of 200 at 35 %");

    // Processes are slow to start, so several at a time.
    for (keys, seen) in keys.chunks(4).zip(seen.chunks(4)) {
        let asked: Vec<_> = keys
            .iter()
            .map(|key| {
                let (proxy, key) = (Arc::clone(&proxy), key.clone());
                tokio::spawn(async move { explain_offline(&proxy, &key).await })
            })
            .collect();
        for (asked, online) in asked.into_iter().zip(seen) {
            assert_eq!(same(&asked.await.unwrap()), same(online));
        }
    }
}

#[tokio::test]
async fn an_address_copied_from_a_log_is_explained_and_pinned_as_its_requests_go() {
    let split = "  api: {legacy: legacy, new: new, share: 50%, key: [client_ip], keyless: legacy, \
                 pins: {keys: {'2001:db8:ffff::7': new}}}";
    let routes = "  - {split: api}\nedge: {trusted_proxies: [127.0.0.0/8]}";
    let (proxy, _servers) = start(Site::new(), split, routes).await;
    let mut client = proxy.client().await;
    for household in 1..=16 {
        let typed = format!("2001:db8:0:{household:x}:a:b:c:d");
        let request = with_fields("/", &[("x-forwarded-for", &typed)]);
        let arm = arm_of(&mut client, request).await;
        for explained in [
            proxy.explain("api", &typed).await,
            explain_offline(&proxy, &typed).await,
        ] {
            let Explanation { key, bucket, .. } = explained;
            assert_eq!(key, format!("2001:db8:0:{household:x}::"));
            assert_eq!(Arm::New == arm, bucket < 5_000, "{typed}");
        }
    }
    for of_household in ["2001:db8:ffff::7", "2001:db8:ffff:0:9::1"] {
        let request = with_fields("/", &[("x-forwarded-for", of_household)]);
        assert_eq!(arm_of(&mut client, request).await, Arm::New);
        let explained = proxy.explain("api", of_household).await;
        assert_eq!((explained.arm, explained.cause), (Arm::New, Cause::Pin));
    }
}

/// What must be the same wherever one asks.
fn same(explanation: &Explanation) -> (&str, u16, u8, &str, Arm, Cause) {
    let Explanation {
        key,
        bucket,
        cluster,
        share,
        arm,
        cause,
        ..
    } = explanation;
    (key, *bucket, *cluster, share, *arm, *cause)
}

async fn explain_offline(proxy: &Proxy, key: &str) -> Explanation {
    let words = [
        "explain",
        "--config",
        "cutover.yaml",
        "--split",
        "api",
        "--key",
        key,
        "-o",
        "json",
    ];
    let output = proxy.cutover(&words).await;
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("it is what the library says it is")
}

#[tokio::test]
async fn the_command_asks_a_running_instance_about_what_no_file_knows() {
    let servers = Servers::start(&["legacy", "new"]);
    let split = "  api: {legacy: legacy, new: new, key: [{header: X-User}]}";
    let configuration = configuration(&servers, split, "  - {split: api}");
    let proxy = Site::new().start(&configuration).await;
    let explain = async |words: &[&str]| -> Output {
        let words = [
            &[
                "explain",
                "--split",
                "api",
                "--key",
                "a&b --key=x",
                "-o",
                "json",
            ],
            words,
        ];
        proxy.cutover(&words.concat()).await
    };
    let set = proxy.cutover(&["set", "api", "100%"]).await;
    assert!(set.status.success(), "{set:?}");
    for (words, arm, cause) in [
        (&[][..], "new", "hash"),
        // The file fixes no share, and knows nothing of the operator's.
        (&["--config", "cutover.yaml"], "legacy", "hash"),
    ] {
        let output = explain(words).await;
        let told: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
        assert_eq!(
            (&told["arm"], &told["cause"]),
            (&arm.into(), &cause.into()),
            "{told}"
        );
        assert_eq!(told["key"], "a&b --key=x");
    }
    let emergency = ["emergency", "--reason", "a drill"];
    assert!(proxy.cutover(&emergency).await.status.success());
    let told: Value = serde_json::from_slice(&explain(&[]).await.stdout).expect("it is JSON");
    assert_eq!(
        (&told["arm"], &told["cause"]),
        (&"legacy".into(), &"emergency".into())
    );
    let unknown = ["explain", "--split", "no-such", "--key", "x"];
    let unknown = proxy.cutover(&unknown).await;
    assert_eq!(unknown.status.code(), Some(2));
    let message = String::from_utf8_lossy(&unknown.stderr);
    assert!(
        message.contains("api"),
        "it names the valid ones: {message}"
    );
}
