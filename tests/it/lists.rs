//! Who may not come in: by the file's lists, by lists in files of their own, and by hand.

use bytes::Bytes;
use cutover::control::denied::Denied;
use cutover::control::history::History;
use cutover::control::protocol::Status;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};

use crate::harness::client::{Client, Raw};
use crate::harness::eventually;
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::Upstream;

fn configuration(edge: &str, upstream: &Upstream) -> String {
    let address = upstream.address();
    format!(
        "edge: {{trusted_proxies: [127.0.0.0/8], {edge}}}
backends: {{api: {{endpoints: ['{address}']}}}}
routes: [{{backend: api}}]
"
    )
}

/// The status of a request that a trusted proxy sends for `address`.
async fn asked_for(client: &mut Client, address: &str) -> u16 {
    let request = Request::get("/")
        .header("x-forwarded-for", address)
        .body(Full::new(Bytes::new()))
        .expect("tests write valid requests");
    client.send(request).await.status
}

/// Asks for a change of what is denied; the status and the answer.
async fn deny(proxy: &Proxy, body: &Value) -> (u16, String) {
    let answer = proxy.change("/api/v1/denied", &body.to_string()).await;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    (answer.status, text)
}

async fn denied(proxy: &Proxy) -> Vec<String> {
    let answer = proxy.ask("/api/v1/denied").await;
    let denied: Denied = serde_json::from_slice(&answer.body).expect("it is what it says it is");
    let networks = denied.denied.iter().map(|entry| entry.network.to_string());
    networks.collect()
}

#[tokio::test]
async fn what_is_denied_by_hand_is_denied_at_once_on_connections_that_are_open_already() {
    let upstream = Upstream::ok("api");
    let allowed = configuration("allow: [0.0.0.0/0, '::/0', 192.0.2.7]", &upstream);
    let proxy = Site::new().start(&allowed).await;
    // Two workers, each with connections that have been used before, over both protocols.
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Client::http1(proxy.address()).await);
        clients.push(Client::http2(proxy.address()).await);
    }
    for client in &mut clients {
        assert_eq!(asked_for(client, "192.0.2.7").await, 200);
    }
    let accepted = "cutover_client_connections_accepted_total";
    let connections = proxy.metrics().await.sum(accepted, &[]);
    let answer = deny(
        &proxy,
        &json!({"network": "192.0.2.0/24", "reason": "a flood"}),
    )
    .await;
    assert_eq!(answer.0, 200, "{answer:?}");
    for client in &mut clients {
        assert_eq!(asked_for(client, "192.0.2.7").await, 403, "a whole network");
        assert_eq!(asked_for(client, "192.0.3.1").await, 200);
    }
    let answer = deny(&proxy, &json!({"network": "192.0.2.1/24", "remove": true})).await;
    assert_eq!(answer.0, 200, "{answer:?}");
    for client in &mut clients {
        assert_eq!(asked_for(client, "192.0.2.7").await, 200);
    }
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum(accepted, &[]), connections, "none was closed");
    let labels = [("reason", "denied")];
    assert_eq!(metrics.sum("cutover_refused_total", &labels), 8.0);
}

#[tokio::test]
async fn addresses_of_both_families_are_denied_however_they_are_written() {
    let upstream = Upstream::ok("api");
    let proxy = Site::new().start(&configuration("", &upstream)).await;
    let mut client = proxy.client().await;
    for (network, shown, inside, outside) in [
        (
            "198.51.100.7",
            "198.51.100.7/32",
            "198.51.100.7",
            "198.51.100.8",
        ),
        (
            "::ffff:203.0.113.0/120",
            "203.0.113.0/24",
            "203.0.113.9",
            "203.0.114.0",
        ),
        (
            "2001:DB8:0::/48",
            "2001:db8::/48",
            "2001:db8::9",
            "2001:db8:1::",
        ),
    ] {
        let (status, said) = deny(&proxy, &json!({"network": network, "reason": "scan"})).await;
        assert_eq!(status, 200, "{said}");
        assert_eq!(denied(&proxy).await, [shown]);
        assert_eq!(asked_for(&mut client, inside).await, 403, "{network}");
        assert_eq!(asked_for(&mut client, outside).await, 200, "{network}");
        let mapped = format!("::ffff:{inside}");
        if !inside.contains(':') {
            assert_eq!(asked_for(&mut client, &mapped).await, 403, "{network}");
        }
        let (status, said) = deny(&proxy, &json!({"network": network, "remove": true})).await;
        assert_eq!(status, 200, "{said}");
    }
    // Nobody is asked for a word here: the peer itself is denied.
    let mut stranger = Raw::connect(proxy.address()).await;
    let (status, said) = deny(&proxy, &json!({"network": "127.0.0.1", "reason": "me"})).await;
    assert_eq!(status, 200, "{said}");
    stranger.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = stranger.read_head().await;
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
}

#[tokio::test]
async fn what_is_denied_survives_a_kill_and_is_told_with_who_and_why() {
    let upstream = Upstream::ok("api");
    let proxy = Site::new().start(&configuration("", &upstream)).await;
    let words = ["deny", "192.0.2.0/24", "--reason", "a flood of logins"];
    let output = proxy.cutover(&words).await;
    assert!(output.status.success(), "{output:?}");
    let words = ["deny", "2001:db8::/32", "--for", "7d", "--reason", "a scan"];
    assert!(proxy.cutover(&words).await.status.success());
    let proxy = proxy.kill().launch(&[]).await;
    let mut client = proxy.client().await;
    assert_eq!(asked_for(&mut client, "192.0.2.1").await, 403);
    assert_eq!(asked_for(&mut client, "2001:db8::1").await, 403);
    assert_eq!(asked_for(&mut client, "198.51.100.1").await, 200);
    let listed = proxy.cutover(&["deny"]).await;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    for part in [
        "192.0.2.0/24",
        "a flood of logins",
        "somebody ends it",
        "local",
        "2001:db8::/32",
    ] {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    let output = proxy.cutover(&["deny", "--remove", "192.0.2.0/24"]).await;
    assert!(output.status.success(), "{output:?}");
    let proxy = proxy.kill().launch(&[]).await;
    assert_eq!(denied(&proxy).await, ["2001:db8::/32"]);
    let history = proxy.ask("/api/v1/history").await;
    let history: History = serde_json::from_slice(&history.body).expect("it is a history");
    let told = history.decisions.iter();
    let told: Vec<_> = told
        .map(|one| (one.action.as_str(), one.actor.as_str(), one.reason.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("deny_ended", "local", ""),
            ("deny", "local", "a scan"),
            ("deny", "local", "a flood of logins"),
        ]
    );
    let table = proxy.cutover(&["history"]).await;
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.contains("192.0.2.0/24 is denied no more"), "{table}");
}

#[tokio::test]
async fn a_denial_ends_when_its_time_is_over_also_while_nobody_was_there_to_see_it() {
    let upstream = Upstream::ok("api");
    let proxy = Site::new().start(&configuration("", &upstream)).await;
    let body = |span: &str| json!({"network": "192.0.2.1", "for": span, "reason": "a flood"});
    let (status, said) = deny(&proxy, &body("1h")).await;
    assert!(status == 200 && said.contains("for 1h"), "{said}");
    let mut client = proxy.client().await;
    assert_eq!(asked_for(&mut client, "192.0.2.1").await, 403);
    // Saying it anew replaces what was said.
    let (status, said) = deny(&proxy, &body("300ms")).await;
    assert_eq!(status, 200, "{said}");
    eventually("the time is over", async || {
        asked_for(&mut client, "192.0.2.1").await == 200
    })
    .await;
    assert!(denied(&proxy).await.is_empty());
    let (status, said) = deny(&proxy, &body("200ms")).await;
    assert_eq!(status, 200, "{said}");
    let proxy = proxy.kill().launch(&[]).await;
    eventually("it ended meanwhile", async || {
        denied(&proxy).await.is_empty()
    })
    .await;
    assert_eq!(asked_for(&mut proxy.client().await, "192.0.2.1").await, 200);
    eventually("the audit tells of it", async || {
        let history = proxy.ask("/api/v1/history").await;
        let history: History = serde_json::from_slice(&history.body).expect("it is a history");
        let by_engine = history.decisions.iter().filter(|one| one.actor == "engine");
        by_engine.count() == 2
    })
    .await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_a_rehearsal_denies_nobody() {
    let upstream = Upstream::ok("api");
    let proxy = Site::new().start(&configuration("", &upstream)).await;
    let network = "192.0.2.0/24";
    for (body, status, part) in [
        (
            json!({"network": "192.0.2", "reason": "x"}),
            400,
            "no address and no network",
        ),
        (json!({"network": network}), 400, "needs a `reason`"),
        (
            json!({"network": network, "reason": "x", "for": "soon"}),
            400,
            "duration",
        ),
        (
            json!({"network": network, "remove": true, "for": "1h"}),
            400,
            "leave",
        ),
        (
            json!({"network": network, "remove": true}),
            409,
            "not denied by hand",
        ),
        (json!({"network": "::/0", "reason": "x"}), 409, "everybody"),
        (
            json!({"network": network, "reason": "x", "expected_revision": 9}),
            409,
            "revision",
        ),
        (
            json!({"network": network, "reason": "x", "dry_run": true}),
            200,
            "Nothing was done",
        ),
    ] {
        let (found, said) = deny(&proxy, &body).await;
        assert!(
            found == status && said.contains(part),
            "{body}: {found} {said}"
        );
    }
    assert!(denied(&proxy).await.is_empty());
    let (status, _) = deny(&proxy, &json!({"network": network, "reason": "x"})).await;
    assert_eq!(status, 200);
    let (status, said) = deny(&proxy, &json!({"network": "192.0.2.7", "remove": true})).await;
    assert!(
        status == 409 && said.contains("it lies in 192.0.2.0/24"),
        "{said}"
    );
    let output = proxy.cutover(&["deny", network]).await;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    // The status stays readable whatever was denied: the admin API is another door.
    let _: Status = proxy.status().await;
}

#[tokio::test]
async fn a_list_in_a_file_is_in_force_once_it_is_saved_and_a_bad_one_keeps_the_old() {
    let upstream = Upstream::ok("api");
    let edge = "deny: [10.0.0.0/8], deny_file: denied.txt, allow_file: allowed.txt";
    let site = Site::new()
        .file(
            "denied.txt",
            "# scanners\n192.0.2.0/24\n2001:db8::/32 # a flood\n",
        )
        .file("allowed.txt", "0.0.0.0/0\n::/0\n192.0.2.7\n");
    let proxy = site.start(&configuration(edge, &upstream)).await;
    let mut client = proxy.client().await;
    for (address, status) in [
        ("10.0.0.1", 403),
        ("192.0.2.8", 403),
        ("192.0.2.7", 200),
        ("2001:db8::1", 403),
        ("198.51.100.1", 200),
    ] {
        assert_eq!(asked_for(&mut client, address).await, status, "{address}");
    }
    proxy.rewrite("denied.txt", "198.51.100.0/24\n");
    eventually("the new list is in force", async || {
        asked_for(&mut client, "198.51.100.1").await == 403
    })
    .await;
    assert_eq!(asked_for(&mut client, "192.0.2.8").await, 200);
    assert_eq!(
        asked_for(&mut client, "10.0.0.1").await,
        403,
        "the file's own"
    );
    proxy.rewrite("denied.txt", "192.0.2.0/24\n192.0.2.0.0\n");
    eventually("the bad line is told", async || {
        let problems = proxy.status().await.config.problems;
        problems
            .iter()
            .any(|problem| problem.contains("denied.txt:2: "))
    })
    .await;
    assert_eq!(
        asked_for(&mut client, "198.51.100.1").await,
        403,
        "the old list"
    );
    assert_eq!(asked_for(&mut client, "192.0.2.8").await, 200);
    // What is denied by hand outlives the reload that mends the file.
    let (status, said) = deny(&proxy, &json!({"network": "203.0.113.1", "reason": "x"})).await;
    assert_eq!(status, 200, "{said}");
    proxy.rewrite("denied.txt", "# nobody\n");
    eventually("the list is empty", async || {
        asked_for(&mut client, "198.51.100.1").await == 200
    })
    .await;
    assert_eq!(asked_for(&mut client, "203.0.113.1").await, 403);
}
