//! Clients that take their time: with a body, and with an answer.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::nobody_is_left;
use crate::harness::client::Raw;
use crate::harness::proxy::{Proxy, Site};
use crate::harness::traffic::halted;
use crate::harness::upstream::{Reply, Script, Step, Upstream};

const MIB: usize = 1024 * 1024;

async fn start(upstream: &Upstream, edge: &str) -> Proxy {
    let endpoint = upstream.address();
    let configuration = format!(
        "edge: {{{edge}}}
backends: {{api: {{endpoints: ['{endpoint}']}}}}
routes: [{{backend: api}}]
"
    );
    Site::new().start(&configuration).await
}

/// An upstream whose answers are this long, but for those to `/beside`.
fn flooding(length: usize) -> Upstream {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    Upstream::start("api", move |request| match request.target.as_str() {
        "/beside" => Script::status(200),
        _ => Script::write(head.clone()).then(Step::Flood(length)),
    })
}

/// A tenth of a second, in which a client under test does nothing. What it does in between is its
/// pace.
async fn dawdle() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Sends a body of this length, `piece` of it ten times a second; the status it gets.
async fn upload(proxy: &Proxy, length: usize, piece: usize) -> String {
    let mut client = Raw::connect(proxy.address()).await;
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    client.write(head).await;
    let mut left = length;
    while left > 0 {
        let piece = vec![b'x'; piece.min(left)];
        left -= piece.len();
        if !client.try_write(&piece).await || client.has_heard() {
            break;
        }
        dawdle().await;
    }
    let head = client.read_head().await;
    head.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_body_that_trickles_is_answered_408_and_one_that_keeps_the_rate_is_not() {
    let upstream = Upstream::start("api", |_| Script::of([Step::Answer(Reply::new(200))]));
    let proxy = start(&upstream, "min_rate: 4KiB").await;
    let started = Instant::now();
    // 100 bytes a second, and 10 KiB a second.
    let (slow, fast) = tokio::join!(upload(&proxy, MIB, 10), upload(&proxy, 120 * 1024, 1024));
    assert_eq!((&slow[..], &fast[..]), ("408", "200"));
    assert!(started.elapsed() >= Duration::from_secs(10));
    proxy.refused("client_timeout", 1.0).await;
    nobody_is_left(&proxy).await;
}

/// A client that has begun to read an answer to this.
async fn reading(proxy: &Proxy, request: &str) -> Raw {
    let mut client = Raw::connect(proxy.address()).await;
    client.write(request).await;
    let head = client.read_head().await;
    assert!(head.starts_with("HTTP/1.1 "), "{head}");
    client
}

/// Reads `piece` ten times a second while `condition` holds; how much came.
async fn read_slowly(client: &mut Raw, piece: usize, condition: impl Fn() -> bool) -> usize {
    let mut taken = 0;
    while condition() {
        let count = client.read(piece).await.len();
        taken += count;
        if count == 0 {
            break;
        }
        dawdle().await;
    }
    taken
}

#[tokio::test]
async fn a_reader_that_trickles_is_cut_and_one_that_keeps_the_rate_or_has_a_tunnel_is_not() {
    const LENGTH: usize = 16 * MIB;
    const SLOW: usize = 1024;
    let upstream = Upstream::start("api", |request| {
        let head = match request.field("upgrade") {
            Some(_) => "101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat".to_owned(),
            None => format!("200 OK\r\nContent-Length: {LENGTH}"),
        };
        Script::write(format!("HTTP/1.1 {head}\r\n\r\n")).then(Step::Flood(LENGTH))
    });
    let proxy = start(&upstream, "min_rate: 100KiB").await;
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let offer = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n";
    let mut slow = reading(&proxy, get).await;
    let until_end = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let mut fast = reading(&proxy, until_end).await;
    let mut tunnel = reading(&proxy, offer).await;
    // Longer than the slow one has lasted.
    let is_over = Cell::new(false);
    let until_over = || !is_over.get();
    // 10 KiB a second, 1.25 MiB a second, and a tunnel at 10 KiB a second.
    let (count, whole, _) = tokio::join!(
        read_slowly(&mut slow, SLOW, || true),
        async {
            let whole = read_slowly(&mut fast, 128 * 1024, || true).await;
            is_over.set(true);
            whole
        },
        read_slowly(&mut tunnel, SLOW, until_over),
    );
    assert!(
        count < LENGTH,
        "{count} bytes at {SLOW} bytes ten times a second"
    );
    assert_eq!(whole, LENGTH);
    assert!(!tunnel.has_ended());
    proxy.refused("slow_reader", 1.0).await;
    drop((fast, tunnel));
    nobody_is_left(&proxy).await;
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut_and_counted() {
    let upstream = flooding(64 * MIB);
    let proxy = start(&upstream, "header_timeout: 300ms").await;
    let mut client = Raw::connect(proxy.address()).await;
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    proxy.refused("slow_reader", 1.0).await;
    nobody_is_left(&proxy).await;
    proxy.counts(0.0, "cutover_requests_in_flight", &[]).await;
}

/// What the proxy may keep for each client that does not read: what was read of the upstream at once,
/// and what hyper gathers before it writes.
const KEPT: usize = MIB;

#[tokio::test]
async fn clients_that_do_not_read_cost_a_bounded_part_of_what_their_upstream_sends() {
    const CLIENTS: usize = 20;
    let upstream = flooding(64 * MIB);
    let proxy = start(&upstream, "").await;
    let before = proxy.peak_memory();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = Raw::connect(proxy.address()).await;
        client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.read_head().await;
        clients.push(client);
    }
    let flooded = halted(&proxy, &upstream).await;
    assert!(flooded < CLIENTS * 64 * MIB, "somebody has read");
    let grown = proxy.peak_memory().saturating_sub(before);
    assert!(
        grown < CLIENTS * KEPT,
        "{grown} bytes for {CLIENTS} clients"
    );
    drop(clients);
    nobody_is_left(&proxy).await;
}
