//! What requests on one connection must not do to each other.

use std::time::Duration;

use h2::server::Builder;
use http::Request;
use http_body_util::BodyExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::harness::client::{Client, Raw, get};
use crate::harness::proxy::Site;
use crate::harness::{eventually, in_time};

use super::api::{Api, say, say_much};
use super::{all_to, one_worker};

/// More than every window, buffer and socket on the way holds.
const MUCH: usize = 64 * 1024 * 1024;

#[tokio::test]
async fn slow_readers_do_not_stall_their_neighbours() {
    let api = Api::start(async |request, respond| match request.uri().path() {
        "/much" => say_much(respond, MUCH).await,
        _ => say(respond, "at once"),
    })
    .await;
    let site = Site::new().beginning(&one_worker());
    let settings = ", pool: {max_connections: 1}";
    let proxy = site.start(&all_to(api.address, settings)).await;
    let mut slow = Vec::new();
    for _ in 0..100 {
        let mut reader = Raw::connect(proxy.address()).await;
        reader
            .write("GET /much HTTP/1.1\r\nHost: a.example\r\n\r\n")
            .await;
        let head = reader.read_head().await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        slow.push(reader);
    }
    let mut client = proxy.client().await;
    for _ in 0..20 {
        let answer = client.get("/", "somebody").await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b"at once"[..]));
    }
    assert_eq!(api.connections(), 1);
    let mebibytes = proxy.memory() / (1024 * 1024);
    assert!(mebibytes < 200, "{mebibytes} MiB for 100 slow readers");
}

#[tokio::test]
async fn a_large_answer_takes_constant_memory() {
    let api = Api::start(async |_, respond| say_much(respond, 16 * MUCH).await).await;
    let proxy = Site::new().start(&all_to(api.address, "")).await;
    let mut client = Client::http2(proxy.address()).await;
    let response = client.begin(get("/", "somebody")).await;
    let mut body = response.expect("there is an answer").into_body();
    let mut length = 0;
    while let Some(frame) = in_time("the body goes on", body.frame()).await {
        let data = frame.expect("it is whole").into_data();
        length += data.expect("there are no trailers").len();
    }
    assert_eq!(length, 16 * MUCH);
    let mebibytes = proxy.peak_memory() / (1024 * 1024);
    assert!(mebibytes < 100, "{mebibytes} MiB");
}

#[tokio::test]
async fn more_requests_than_a_connection_takes_get_another() {
    let mut builder = Builder::new();
    builder.max_concurrent_streams(2);
    let api = Api::start_with(&builder, async |_, respond| {
        // Until the client leaves.
        std::future::pending::<()>().await;
        drop(respond);
    })
    .await;
    let site = Site::new().beginning(&one_worker());
    let settings = ", pool: {max_connections: 3}";
    let proxy = site.start(&all_to(api.address, settings)).await;
    let mut waiting = Vec::new();
    for count in 1..=6 {
        let mut client = Raw::connect(proxy.address()).await;
        client
            .write("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
            .await;
        waiting.push(client);
        eventually("it is asked", async || api.requests() == count).await;
    }
    assert_eq!(api.connections(), 3);
    let refused = proxy.client().await.get("/", "somebody").await;
    assert_eq!(refused.status, 503, "all places are taken");
    assert_eq!(api.requests(), 6);
}

#[tokio::test]
async fn a_burst_opens_few_connections_and_they_close_when_idle() {
    let api = Api::start(async |_, respond| say(respond, "fine")).await;
    let site = Site::new().beginning(&one_worker());
    let settings = ", pool: {idle_timeout: 500ms}";
    let proxy = site.start(&all_to(api.address, settings)).await;
    let mut burst = JoinSet::new();
    for _ in 0..200 {
        let address = proxy.address();
        burst.spawn(async move {
            let mut client = Client::http1(address).await;
            client.get("/", "somebody").await.status
        });
    }
    for status in burst.join_all().await {
        assert_eq!(status, 200);
    }
    assert!(api.connections() <= 3, "{} connections", api.connections());
    eventually("idle connections are closed", async || {
        proxy.endpoint("api", api.address).await.connections == 0
    })
    .await;
}

#[tokio::test]
async fn requests_that_their_clients_leave_cost_others_nothing() {
    let api = Api::start(async |request, respond| match request.uri().path() {
        "/much" => say_much(respond, MUCH).await,
        "/silent" => {
            std::future::pending::<()>().await;
            drop(respond);
        }
        _ => say(respond, "fine"),
    })
    .await;
    let site = Site::new().beginning(&one_worker());
    let proxy = site.start(&all_to(api.address, "")).await;
    for round in 0..200 {
        let target = if round % 2 == 0 { "/much" } else { "/silent" };
        let stream = TcpStream::connect(proxy.address()).await;
        let (mut sender, connection) = h2::client::handshake(stream.expect("it listens"))
            .await
            .expect("it speaks HTTP/2");
        tokio::spawn(connection);
        let before = api.requests();
        let request = Request::get(format!("http://a.example{target}")).body(());
        let asked = sender.send_request(request.expect("it is valid"), true);
        eventually("it is asked", async || api.requests() > before).await;
        // Over HTTP/1 it could be a client that has said all and still listens.
        drop(asked.expect("the connection is open"));
        eventually("it is left", async || {
            proxy.endpoint("api", api.address).await.pending == 0
        })
        .await;
        if round % 20 == 0 {
            let answer = proxy.client().await.get("/", "somebody").await;
            assert_eq!(answer.body, "fine");
        }
    }
    // Servers count what is cancelled on a connection, and some give up at a hundred.
    assert!(api.connections() >= 3, "{} connections", api.connections());
    tokio::time::timeout(Duration::from_secs(20), async {
        while proxy.endpoint("api", api.address).await.connections > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("connections that were given up are closed");
}
