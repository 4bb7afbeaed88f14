//! Answers that come before the request was read to its end: over HTTP/1 no other request can follow,
//! and a client that is not told sends it into a closed door.

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
