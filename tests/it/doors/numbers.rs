//! How many connections there may be, and how many requests on each.

use super::nobody_is_left;
use crate::harness::certificate::Certificate;
use crate::harness::client::{Client, Raw, get};
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::Upstream;
use crate::harness::{eventually, in_time};

async fn start(upstream: &Upstream, listener: &str, edge: &str) -> Proxy {
    let certificate = Certificate::new();
    let endpoint = upstream.address();
    Site::new()
        .certified(&certificate)
        .start_on(
            &format!("[{{address: 127.0.0.1:0, {listener}}}]"),
            &format!(
                "edge: {{{edge}}}
backends: {{api: {{endpoints: ['{endpoint}']}}}}
routes: [{{backend: api}}]
"
            ),
        )
        .await
}

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Whether a request on it is answered; if not, it has been closed.
async fn is_served(client: &mut Raw) -> bool {
    client.write(REQUEST).await;
    let head = client.read_head().await;
    client.read(3).await;
    head.starts_with("HTTP/1.1 200 ")
}

#[tokio::test]
async fn more_connections_of_one_address_than_it_may_have_are_closed_until_one_has_ended() {
    let upstream = Upstream::ok("api");
    let proxy = start(&upstream, "", "max_connections_per_address: 2").await;
    let mut first = Raw::connect(proxy.address()).await;
    let mut second = Raw::connect(proxy.address()).await;
    assert!(is_served(&mut first).await && is_served(&mut second).await);
    for _ in 0..3 {
        let mut third = Raw::connect(proxy.address()).await;
        assert!(third.read_to_end().await.is_empty());
    }
    proxy.refused("address_connections", 3.0).await;
    assert!(is_served(&mut first).await, "those it has stay");
    drop(second);
    proxy.counts(1.0, "cutover_client_connections", &[]).await;
    let mut third = Raw::connect(proxy.address()).await;
    assert!(is_served(&mut third).await);
    drop((first, third));
    nobody_is_left(&proxy).await;
}

#[tokio::test]
async fn connections_are_counted_by_the_address_that_a_balancer_told_and_ipv6_by_its_network() {
    let upstream = Upstream::ok("api");
    let edge = "max_connections_per_address: 1, trusted_proxies: [127.0.0.1]";
    let proxy = start(&upstream, "proxy_protocol: true", edge).await;
    let mut open = Vec::new();
    for (client, has_room) in [
        ("TCP4 192.0.2.1 10.0.0.1", true),
        ("TCP4 192.0.2.1 10.0.0.1", false),
        ("TCP4 192.0.2.2 10.0.0.1", true),
        ("TCP6 2001:db8::1 ::1", true),
        ("TCP6 2001:db8::2 ::1", false),
        ("TCP6 2001:db8:0:1::2 ::1", true),
        // The balancer itself comes for many.
        ("TCP4 127.0.0.1 127.0.0.1", true),
        ("TCP4 127.0.0.1 127.0.0.1", true),
    ] {
        let mut connection = Raw::connect(proxy.address()).await;
        let header = format!("PROXY {client} 1 2\r\n{REQUEST}");
        connection.write(header).await;
        let answer = connection.read_head().await;
        assert_eq!(answer.starts_with("HTTP/1.1 200 "), has_room, "{client}");
        open.push(connection);
    }
    proxy.refused("address_connections", 2.0).await;
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_until_one_has_ended() {
    let upstream = Upstream::ok("api");
    let proxy = start(&upstream, "", "max_connections: 2").await;
    let mut first = Raw::connect(proxy.address()).await;
    let mut second = Raw::connect(proxy.address()).await;
    assert!(is_served(&mut first).await && is_served(&mut second).await);
    // The kernel lets it in; we do not, for the time being.
    let mut waiting = Raw::connect(proxy.address()).await;
    waiting.write(REQUEST).await;
    assert!(is_served(&mut first).await);
    assert_eq!(upstream.received().len(), 3);
    drop(second);
    let head = waiting.read_head().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("cutover_refused_total", &[]), 0.0);
}

#[tokio::test]
async fn after_its_last_request_an_http1_client_is_told_to_connect_anew() {
    let upstream = Upstream::ok("api");
    let proxy = start(&upstream, "", "max_requests_per_connection: 3").await;
    let mut client = Raw::connect(proxy.address()).await;
    // Sent at once: what comes after the last is not begun.
    client.write(REQUEST.repeat(4)).await;
    for number in 1..=3 {
        let head = client.read_head().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let says_close = head
            .to_ascii_lowercase()
            .contains("\r\nconnection: close\r\n");
        assert_eq!(says_close, number == 3, "{number}: {head}");
        assert_eq!(client.read(3).await, b"api");
    }
    assert!(client.read_to_end().await.is_empty());
    assert_eq!(upstream.received().len(), 3);
}

#[tokio::test]
async fn after_its_last_request_an_http2_client_is_sent_away_and_loses_nothing() {
    let upstream = Upstream::ok("api");
    let proxy = start(&upstream, "", "max_requests_per_connection: 3").await;
    let mut client = Client::http2(proxy.address()).await;
    for number in 1..=3 {
        let response = client.begin(get("/", "")).await.expect("it is served");
        let answer = in_time("an answer", crate::harness::client::Answer::read(response)).await;
        assert_eq!(
            (answer.status, &answer.body[..]),
            (200, &b"api"[..]),
            "{number}"
        );
    }
    let Client::Http2(sender) = client else {
        panic!("it speaks HTTP/2");
    };
    eventually("the connection ends", async || sender.is_closed()).await;
    nobody_is_left(&proxy).await;
}
