//! How much a head may hold, and how long it may take to come.

use crate::harness::client::{Client, Raw, get};
use crate::harness::upstream::Upstream;
use crate::harness::witness::Witness;

use super::{seen, start};

/// A GET with these further lines.
fn request(target: &str, lines: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

/// Lines of this many fields, and of about this many bytes together.
fn fields(count: usize, bytes: usize) -> String {
    let value = "v".repeat((bytes / count).saturating_sub(9).max(1));
    (0..count)
        .map(|number| format!("X-{number:03}: {value}\r\n"))
        .collect()
}

#[tokio::test]
async fn heads_up_to_the_limits_are_served_and_larger_ones_are_refused_and_counted() {
    let witness = Witness::start();
    let path = |length: usize| format!("/{}", "p".repeat(length - 1));
    for (edge, most_fields, most_bytes, most_target) in [
        ("", 99, 32 * 1024, 16 * 1024),
        (
            "max_fields: 20, max_head: 8KiB, max_target: 2KiB",
            19,
            8 * 1024,
            2 * 1024,
        ),
        (
            "max_fields: 500, max_head: 256KiB, max_target: 60KiB",
            499,
            256 * 1024,
            60 * 1024,
        ),
    ] {
        let proxy = start(witness.address(), edge).await;
        for (request, status) in [
            (request("/", &fields(most_fields, most_bytes - 200)), 200),
            (request("/", &fields(most_fields + 1, 100 * 16)), 431),
            (request("/", &fields(10, most_bytes)), 431),
            (request(&path(most_target), ""), 200),
            (request(&path(most_target + 1), ""), 414),
            (request(&path(most_bytes + 1), ""), 414),
        ] {
            let mut client = Raw::connect(proxy.address()).await;
            client.write(&request).await;
            let head = client.read_head().await;
            let what = (edge, &request[..40]);
            assert!(
                head.starts_with(&format!("HTTP/1.1 {status} ")),
                "{what:?}: {head}"
            );
        }
        let mut client = Client::http2(proxy.address()).await;
        for (count, status) in [(most_fields, 200), (most_fields + 2, 431)] {
            let mut request = get("/", "");
            let headers = request.headers_mut();
            headers.clear();
            for number in 0..count {
                let name = format!("x-{number}").parse::<http::HeaderName>().unwrap();
                headers.append(name, "v".parse().unwrap());
            }
            assert_eq!(client.send(request).await.status, status, "{edge}: {count}");
        }
        proxy.refused("head_too_large", 3.0).await;
        proxy.refused("target_too_long", 2.0).await;
        let mut client = Raw::connect(proxy.address()).await;
        client.write("GET / HTTP/1.1\r\nHost : a\r\n\r\n").await;
        client.skip_to_end().await;
        proxy.refused("malformed", 1.0).await;
    }
    seen(&witness);
}

#[tokio::test]
async fn a_head_that_is_never_finished_ends_its_connection_in_time() {
    let upstream = Upstream::ok("api");
    let proxy = start(upstream.address(), "header_timeout: 300ms").await;
    for beginning in [
        "",
        "P",
        "PRI * HTTP/2.0\r\n\r\nSM",
        "G",
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\nGET / HT",
    ] {
        let mut client = Raw::connect(proxy.address()).await;
        client.write(beginning).await;
        let answer = String::from_utf8(client.read_to_end().await).unwrap();
        let answers = answer.matches("HTTP/1.1 200 ").count();
        assert_eq!(
            answers,
            beginning.matches("\r\n\r\nGET").count(),
            "{beginning}: {answer}"
        );
    }
    // A head that trickles is given no more time for that.
    let mut client = Raw::connect(proxy.address()).await;
    client.write("GET / HTTP/1.1\r\nHost: a\r\n").await;
    client.trickle(b"X: y\r\n").await;
    assert_eq!(upstream.received().len(), 1);
}

#[tokio::test]
async fn via_is_told_to_both_sides_behind_what_others_have_told() {
    let witness = Witness::start();
    let proxy = start(witness.address(), "via: edge.example").await;
    let mut client = Raw::connect(proxy.address()).await;
    client
        .write(request("/1", "Via: 1.0 before\r\nConnection: via\r\n"))
        .await;
    let head = client.read_head().await;
    assert!(head.contains("\r\nVia: 1.1 edge.example\r\n"), "{head}");
    let mut old = Raw::connect(proxy.address()).await;
    old.write("GET /2 HTTP/1.0\r\nVia: 1.0 before\r\n\r\n")
        .await;
    old.read_to_end().await;
    let answer = Client::http2(proxy.address()).await.get("/3", "").await;
    assert_eq!(answer.field("via"), Some("1.1 edge.example"));
    let told: Vec<_> = seen(&witness)
        .iter()
        .map(|seen| seen.values("via").join(", "))
        .collect();
    assert_eq!(
        told,
        [
            "1.1 edge.example",
            "1.0 before, 1.0 edge.example",
            "2.0 edge.example",
        ]
    );

    let silent = start(witness.address(), "").await;
    let mut client = Raw::connect(silent.address()).await;
    client.write(request("/4", "Via: 1.0 before\r\n")).await;
    assert!(!client.read_head().await.contains("Via"));
    assert_eq!(seen(&witness)[3].values("via"), ["1.0 before"]);
}
