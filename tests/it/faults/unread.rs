//! Answers that come before the request was read to its end: over HTTP/1 no other request can follow,
//! and a client that is not told sends it into a closed door.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::harness::client::Raw;
use crate::harness::proxy::Site;
use crate::harness::upstream::{Refusing, Script, Step, Upstream};

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_says_that_the_connection_ends() {
    let hasty = Upstream::start("hasty", |_| {
        let answer = "HTTP/1.1 413 Whatever\r\nContent-Length: 0\r\n\r\n";
        Script::of([Step::Write(answer.into()), Step::AwaitDeparture])
    });
    let (hasty, gone) = (hasty.address(), Refusing::new());
    let gone = gone.address();
    let proxy = Site::new()
        .start(&format!(
            "edge: {{deny: [127.0.0.9/32], trusted_proxies: [127.0.0.1/32]}}
backends:
  hasty: {{endpoints: ['{hasty}']}}
  gone: {{endpoints: ['{gone}']}}
routes:
  - {{path_prefix: /hasty, backend: hasty}}
  - {{path_prefix: /gone, backend: gone}}
"
        ))
        .await;
    for (target, from, status) in [
        ("/hasty", "127.0.0.1", "413"),
        ("/gone", "127.0.0.1", "502"),
        ("/nowhere", "127.0.0.1", "404"),
        ("/gone", "127.0.0.9", "403"),
    ] {
        for (framing, is_begun) in [
            ("Content-Length: 200000", true),
            ("Transfer-Encoding: chunked", false),
        ] {
            let mut client = Raw::connect(proxy.address()).await;
            let head = format!(
                "POST {target} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {from}\r\n{framing}\r\n\r\n"
            );
            client.write(head).await;
            if is_begun {
                client.write("begun").await;
            }
            let head = client.read_head().await.to_ascii_lowercase();
            let name = format!("{target} from {from}, {framing}: {head}");
            assert!(head.contains(&format!(" {status} ")), "{name}");
            assert!(head.contains("\r\nconnection: close\r\n"), "{name}");
            // Whoever says that no more will come need not be listened to.
            client.finish().await;
            client.skip_to_end().await;
        }
    }
    // What was read is no reason to part.
    for (target, status) in [("/gone", "502"), ("/nowhere", "404")] {
        let mut client = Raw::connect(proxy.address()).await;
        for _ in 0..2 {
            client
                .write(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"))
                .await;
            let head = client.read_head().await.to_ascii_lowercase();
            assert!(head.contains(&format!(" {status} ")), "{target}: {head}");
            assert!(!head.contains("connection:"), "{target}: {head}");
            let length = head
                .split_once("content-length: ")
                .and_then(|(_, rest)| rest.split("\r\n").next()?.parse().ok());
            client.read(length.expect("its length is told")).await;
        }
    }
}

/// What a client reads that sends the whole of a request before it reads anything.
fn read_after_all_was_sent(address: SocketAddr, head: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).expect("somebody listens");
    let sent = stream.write_all(head.as_bytes());
    sent.and_then(|()| stream.write_all(body))
        .expect("all of it is taken");
    let mut answer = String::new();
    match stream.read_to_string(&mut answer) {
        Ok(_) => answer,
        Err(error) => format!("{error} after {answer}"),
    }
}

#[tokio::test]
async fn whoever_reads_only_when_all_is_sent_can_read_why_it_was_refused() {
    let gone = Refusing::new();
    let gone = gone.address();
    let proxy = Site::new()
        .start(&format!(
            "edge: {{deny: [127.0.0.9/32], trusted_proxies: [127.0.0.1/32]}}
backends:
  gone: {{endpoints: ['{gone}']}}
routes:
  - {{path_prefix: /gone, backend: gone}}
  - {{path_prefix: /rare, backend: gone, rate_limit: {{key: client_ip, requests_per_minute: 1, burst: 1}}}}
"
        ))
        .await;
    let address = proxy.address();
    for (target, from, status) in [
        ("/nowhere", "127.0.0.1", "404"),
        ("/nowhere", "127.0.0.9", "403"),
        ("/gone", "127.0.0.1", "502"),
        ("/rare", "127.0.0.1", "502"),
        ("/rare", "127.0.0.1", "429"),
    ] {
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {from}\r\nContent-Length: 4194304\r\n\r\n"
        );
        let answer = tokio::task::spawn_blocking(move || {
            read_after_all_was_sent(address, &head, &vec![b'x'; 4 << 20])
        })
        .await
        .expect("it sends all");
        let expected = format!("HTTP/1.1 {status} ");
        assert!(
            answer.starts_with(&expected),
            "{target} from {from}: {answer}"
        );
    }
}

#[tokio::test]
async fn a_refused_request_whose_body_is_empty_ends_no_connection() {
    let endpoint = Refusing::new();
    let endpoint = endpoint.address();
    let proxy = Site::new()
        .start(&format!(
            "edge: {{deny: [127.0.0.0/8]}}
backends: {{api: {{endpoints: ['{endpoint}']}}}}
routes: [{{backend: api}}]
"
        ))
        .await;
    let mut client = Raw::connect(proxy.address()).await;
    for _ in 0..2 {
        client
            .write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
            .await;
        let head = client.read_head().await;
        assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
        client.read("this address may not come here\n".len()).await;
    }
}
