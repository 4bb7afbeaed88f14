//! The PROXY protocol: a balancer tells for whom it connects.

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::nobody_is_left;
use crate::harness::certificate::Certificate;
use crate::harness::client::Raw;
use crate::harness::in_time;
use crate::harness::proxy::{Proxy, Site, TLS};
use crate::harness::upstream::Upstream;

const LINE: &str = "PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n";

/// A listener for balancers, plain or with `tls`, whose header must come within 300 ms.
async fn start(upstream: &Upstream, tls: &str, edge: &str) -> Proxy {
    let endpoint = upstream.address();
    let certificate = Certificate::new();
    start_with(
        &certificate,
        tls,
        &format!(
            "edge: {{header_timeout: 300ms, {edge}}}
backends: {{api: {{endpoints: ['{endpoint}']}}}}
routes: [{{backend: api}}]
"
        ),
    )
    .await
}

async fn start_with(certificate: &Certificate, tls: &str, configuration: &str) -> Proxy {
    Site::new()
        .certified(certificate)
        .start_on(
            &format!("[{{address: 127.0.0.1:0, proxy_protocol: true, {tls}}}]"),
            configuration,
        )
        .await
}

const TRUSTED: &str = "trusted_proxies: [127.0.0.0/8, 10.0.0.0/8]";

/// A header of version 2 for a client at 2001:db8::7, with something else behind the addresses.
fn binary() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\x00\x29".to_vec();
    header.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
    header.extend([0; 15]);
    header.extend([1, 0x12, 0x34, 0x01, 0xbb]);
    header.extend(b"\x04\x00\x02ok");
    header
}

/// The `X-Forwarded-For` that the upstream gets, asked over a connection that begins with `header`.
async fn forwarded(proxy: &Proxy, upstream: &Upstream, header: &[u8], fields: &str) -> String {
    let mut client = Raw::connect(proxy.address()).await;
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    client.write([header, request.as_bytes()].concat()).await;
    let answer = client.read_head().await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let received = upstream.received();
    let last = received.last().expect("it was forwarded");
    let forwarded = last.field("x-forwarded-for");
    forwarded.expect("the client is told").to_owned()
}

#[tokio::test]
async fn what_a_trusted_balancer_says_is_the_address_of_the_client() {
    let upstream = Upstream::ok("api");
    let proxy = start(&upstream, "", &format!("{TRUSTED}, deny: [192.0.2.66]")).await;
    for (header, client) in [
        (LINE.as_bytes(), "192.0.2.7"),
        (&binary(), "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00", "127.0.0.1"),
    ] {
        assert_eq!(forwarded(&proxy, &upstream, header, "").await, client);
    }
    // Lists see that address too.
    let mut denied = Raw::connect(proxy.address()).await;
    denied.write("PROXY TCP4 192.0.2.66 10.0.0.1 1 2\r\n").await;
    denied.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(denied.read_head().await.starts_with("HTTP/1.1 403 "));
}

#[tokio::test]
async fn the_walk_through_forwarded_addresses_begins_with_the_one_the_balancer_told() {
    let upstream = Upstream::ok("api");
    let proxy = start(&upstream, "", TRUSTED).await;
    let claim = "X-Forwarded-For: 198.51.100.1\r\n";
    // The balancer is trusted; whoever it speaks for is not.
    assert_eq!(
        forwarded(&proxy, &upstream, LINE.as_bytes(), claim).await,
        "192.0.2.7"
    );
    // Unless that is a trusted proxy itself.
    let of_proxy = b"PROXY TCP4 10.0.0.9 10.0.0.1 1 2\r\n";
    assert_eq!(
        forwarded(&proxy, &upstream, of_proxy, claim).await,
        "198.51.100.1, 10.0.0.9"
    );
}

#[tokio::test]
async fn a_header_may_come_in_pieces_and_never_takes_a_byte_of_the_client() {
    let upstream = Upstream::ok("api");
    let proxy = start(&upstream, "", TRUSTED).await;
    for header in [LINE.as_bytes().to_vec(), binary()] {
        for piece in [1, 7, header.len() - 1] {
            let mut client = Raw::connect(proxy.address()).await;
            for bytes in header.chunks(piece) {
                client.write(bytes).await;
                tokio::task::yield_now().await;
            }
            client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let answer = client.read_head().await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
    }
}

#[tokio::test]
async fn the_header_stands_before_tls_and_before_http2() {
    let upstream = Upstream::ok("api");
    let certificate = Certificate::new();
    let endpoint = upstream.address();
    let configuration = format!(
        "edge: {{{TRUSTED}}}
backends: {{api: {{endpoints: ['{endpoint}']}}}}
routes: [{{backend: api}}]
"
    );
    let proxy = start_with(&certificate, TLS, &configuration).await;
    for protocol in ["h2", "http/1.1"] {
        let mut stream = TcpStream::connect(proxy.address())
            .await
            .expect("it listens");
        stream.write_all(&binary()).await.expect("it reads");
        let connector = certificate.connector(&[protocol]);
        let connecting = connector.connect(Certificate::name(), stream);
        let mut stream = in_time("a TLS handshake", connecting)
            .await
            .expect("TLS is spoken");
        if protocol == "h2" {
            let (mut sender, connection) =
                http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                    .await
                    .expect("the preface can be written");
            tokio::spawn(connection);
            let request = http::Request::get("https://localhost/").body(Empty::<Bytes>::new());
            let asking = sender.send_request(request.expect("it is valid"));
            assert_eq!(
                in_time("an answer", asking)
                    .await
                    .expect("it comes")
                    .status(),
                200
            );
        } else {
            let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            stream.write_all(request).await.expect("it reads");
            let mut answer = String::new();
            // It may end without a TLS goodbye.
            let _ = in_time("an answer", stream.read_to_string(&mut answer)).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        }
    }
    for request in upstream.received() {
        assert_eq!(request.field("x-forwarded-for"), Some("2001:db8::7"));
    }
    assert_eq!(upstream.received().len(), 2);
}

#[tokio::test]
async fn a_stranger_is_neither_believed_nor_served() {
    let upstream = Upstream::ok("api");
    let proxy = start(&upstream, "", "trusted_proxies: [10.0.0.0/8]").await;
    for beginning in [LINE, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let mut stranger = Raw::connect(proxy.address()).await;
        stranger.write(beginning).await;
        assert!(stranger.read_to_end().await.is_empty());
    }
    proxy.refused("proxy_protocol_stranger", 2.0).await;
    nobody_is_left(&proxy).await;
    assert!(upstream.received().is_empty());
}

#[tokio::test]
async fn who_begins_without_a_header_or_too_slowly_is_not_served() {
    let upstream = Upstream::ok("api");
    let proxy = start(&upstream, "", TRUSTED).await;
    let beginnings = [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n".as_bytes(),
        b"PROXY TCP4 192.0.2.7\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        b"\x16\x03\x01",
        // The rest never comes.
        b"PROXY TCP4 192",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00",
        b"",
    ];
    for beginning in beginnings {
        let mut client = Raw::connect(proxy.address()).await;
        client.write(beginning).await;
        assert!(client.read_to_end().await.is_empty());
    }
    proxy
        .refused("proxy_protocol_invalid", beginnings.len() as f64)
        .await;
    nobody_is_left(&proxy).await;
    assert!(upstream.received().is_empty());
}
