//! Clients that say nothing, nonsense, or everything very slowly.

use std::time::Duration;

use super::nobody_is_left;
use crate::harness::certificate::Certificate;
use crate::harness::client::{Client, Raw};
use crate::harness::proxy::{PLAIN_AND_TLS, Proxy, Site};
use crate::harness::upstream::Upstream;

/// What the configuration gives a head, and a handshake.
const PATIENCE: Duration = Duration::from_millis(300);

async fn start(upstream: &Upstream, certificate: &Certificate) -> Proxy {
    let endpoint = upstream.address();
    Site::new()
        .certified(certificate)
        .start_on(
            PLAIN_AND_TLS,
            &format!(
                "edge: {{header_timeout: 300ms, handshake_timeout: 300ms}}
backends: {{api: {{endpoints: ['{endpoint}']}}}}
routes: [{{backend: api}}]
"
            ),
        )
        .await
}

#[tokio::test]
async fn who_says_nothing_or_too_little_is_not_waited_for() {
    let upstream = Upstream::ok("api");
    let proxy = start(&upstream, &Certificate::new()).await;
    let beginnings: [&[u8]; 5] = [
        b"",
        // As HTTP/2 begins.
        b"PRI * HT",
        b"P",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    ];
    for beginning in beginnings {
        let mut client = Raw::connect(proxy.address()).await;
        client.write(beginning).await;
        client.read_to_end().await;
    }
    proxy.refused("no_request", beginnings.len() as f64).await;
    nobody_is_left(&proxy).await;
    assert!(upstream.received().is_empty());
}

#[tokio::test]
async fn a_head_that_trickles_has_no_more_time_than_any_other() {
    let upstream = Upstream::ok("api");
    let proxy = start(&upstream, &Certificate::new()).await;
    let mut client = Raw::connect(proxy.address()).await;
    client.write("GET / HTTP/1.1\r\nHost: a\r\n").await;
    assert!(client.trickle(b"X-Slow: yes\r\n").await >= PATIENCE);
    proxy.refused("no_request", 1.0).await;
    nobody_is_left(&proxy).await;
    assert!(upstream.received().is_empty());
}

#[tokio::test]
async fn a_client_that_rests_between_two_requests_was_not_turned_away() {
    let upstream = Upstream::ok("api");
    let proxy = start(&upstream, &Certificate::new()).await;
    let mut client = Raw::connect(proxy.address()).await;
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.read_head().await;
    client.read(3).await;
    assert!(client.read_to_end().await.is_empty());
    nobody_is_left(&proxy).await;
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("cutover_refused_total", &[]), 0.0);
}

#[tokio::test]
async fn a_tls_handshake_that_is_none_or_never_ends_is_over_in_time() {
    let upstream = Upstream::ok("api");
    let certificate = Certificate::new();
    let proxy = start(&upstream, &certificate).await;
    let secured = proxy.addresses()[1];
    let beginnings: [&[u8]; 5] = [
        b"",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\xff\xff\xff\xff\xff",
        // The beginning of one.
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        &[0xff; 4096],
    ];
    for beginning in beginnings {
        let mut client = Raw::connect(secured).await;
        client.write(beginning).await;
        client.read_to_end().await;
    }
    let mut client = Raw::connect(secured).await;
    let hello = b"\x16\x03\x01\x3f\xff\x01\x00\x3f\xfb\x03\x03";
    assert!(client.trickle(hello).await >= PATIENCE);
    proxy
        .refused("tls_handshake", beginnings.len() as f64 + 1.0)
        .await;
    nobody_is_left(&proxy).await;
    let mut client = Client::tls(secured, &certificate, &["http/1.1"]).await;
    assert_eq!(client.get("/", "").await.status, 200);
}
