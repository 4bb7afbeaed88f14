//! Heads cross as their senders have spelled them, and what precedes an answer crosses as well.

use bytes::Bytes;

use crate::harness::client::{Client, Raw};
use crate::harness::proxy::Site;
use crate::harness::upstream::{Gate, Script, Step, Upstream};

use super::start;

const HINT: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nLINK: </b>\r\nX-Gone: 1\r\n\
                    Connection: X-Gone\r\nCutover-Arm: new\r\nContent-Length: 5\r\n\r\n";

#[tokio::test]
async fn fields_cross_in_the_spelling_and_the_order_of_their_senders() {
    let upstream = Upstream::start("api", |_| {
        Script::write(
            "HTTP/1.1 200 OK\r\nx-B: 1\r\nCONTENT-length: 2\r\netag:   \"e\" \r\nX-b: 2\r\n\
             set-COOKIE: a=b\r\nEMPTY:\r\nDATE: now\r\nX-b: 3\r\n\r\nok",
        )
    });
    let proxy = start(upstream.address(), "").await;
    let mut client = Raw::connect(proxy.address()).await;
    client
        .write(
            "POST / HTTP/1.1\r\nhOST: a.example\r\nx-B: 1\r\nUSER-agent:me \r\ncontent-LENGTH: 2\r\n\
             Connection: x-gone\r\nX-b: 2\r\nX-Gone: 1\r\ncookie:\ta=b\r\nx-b: 3\nempty:\r\n\r\nhi",
        )
        .await;
    let head = client.read_head().await;
    let fields = head.split_once("\r\n").expect("a line").1;
    let fields: Vec<_> = fields
        .lines()
        .filter(|line| !line.starts_with("X-Request-Id"))
        .collect();
    assert_eq!(
        fields,
        [
            "x-B: 1",
            "CONTENT-length: 2",
            "etag: \"e\"",
            "X-b: 2",
            "set-COOKIE: a=b",
            "EMPTY: ",
            "DATE: now",
            "X-b: 3",
            ""
        ]
    );
    let received = &upstream.received_for("/")[0];
    let fields = received.fields.iter();
    let fields =
        fields.filter(|(name, _)| !name.starts_with("X-Forwarded-") && name != "X-Request-Id");
    let fields: Vec<_> = fields
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    assert_eq!(
        fields,
        [
            "Host: a.example",
            "x-B: 1",
            "USER-agent: me",
            "content-LENGTH: 2",
            "X-b: 2",
            "cookie: a=b",
            "x-b: 3",
            "empty: "
        ]
    );
    assert_eq!(received.body, b"hi");
}

#[tokio::test]
async fn what_precedes_an_answer_is_passed_on_when_it_comes() {
    let gate = Gate::new();
    let upstream = {
        let gate = gate.clone();
        Upstream::start("api", move |_| {
            let before =
                format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n{HINT}");
            Script::of([
                Step::ReadBody,
                Step::Write(before.into()),
                Step::Wait(gate.clone()),
                Step::Write(Bytes::from(
                    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                )),
            ])
        })
    };
    let proxy = start(upstream.address(), "").await;
    let mut client = Raw::connect(proxy.address()).await;
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.read_head().await, "HTTP/1.1 102 Processing\r\n\r\n");
    assert_eq!(
        client.read_head().await,
        "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nLINK: </b>\r\n\r\n"
    );
    gate.open();
    assert!(client.read_head().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(client.read(2).await, b"ok");
    proxy
        .counts(0.0, "cutover_informational_answers_dropped_total", &[])
        .await;

    // Who cannot understand it gets the answer alone.
    let mut client = Raw::connect(proxy.address()).await;
    client.write("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert!(client.read_head().await.starts_with("HTTP/1.0 200 "));
    let answer = Client::http2(proxy.address()).await.get("/", "").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.field("link"), None);
    proxy
        .counts(4.0, "cutover_informational_answers_dropped_total", &[])
        .await;
}

#[tokio::test]
async fn a_client_that_was_told_something_is_still_rescued() {
    let new = Upstream::start("new", |_| {
        Script::of([Step::ReadBody, Step::Write(HINT.into()), Step::Close])
    });
    let legacy = Upstream::ok("legacy");
    let configuration = format!(
        "backends:
  old: {{endpoints: ['{}']}}
  new: {{endpoints: ['{}']}}
splits:
  api: {{legacy: old, new: new, share: 100%, key: [{{header: X-User-Id}}]}}
routes: [{{split: api}}]
",
        legacy.address(),
        new.address()
    );
    let proxy = Site::new().start(&configuration).await;
    let mut client = Raw::connect(proxy.address()).await;
    client
        .write("GET / HTTP/1.1\r\nHost: a\r\nX-User-Id: 7\r\n\r\n")
        .await;
    assert!(client.read_head().await.starts_with("HTTP/1.1 103 "));
    let head = client.read_head().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.contains("legacy"), "{head}");
}
