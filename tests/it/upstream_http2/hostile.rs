//! Upstreams that abuse the protocol, or are dead and do not say so.

use crate::harness::client::request;
use crate::harness::eventually;
use crate::harness::proxy::{Proxy, Site};

use super::all_to;
use super::frames::{
    CONTINUATION, Connection, END_HEADERS, END_STREAM, GOAWAY, HEADERS, INTERNAL_ERROR, OK,
    RST_STREAM, SETTINGS, Server, field,
};

/// Enough to notice that nothing bounds it.
const MANY: usize = 20_000;
/// SETTINGS_INITIAL_WINDOW_SIZE.
const INITIAL_WINDOW: u16 = 4;

const IMPATIENT: &str = ", timeouts: {first_byte: 500ms, body_idle: 500ms}";

/// What the upstream does to each request.
#[derive(Clone, Copy, Debug)]
enum Abuse {
    Settings,
    Continuations,
    LongHead,
    ManyFields,
    Resets,
    Garbage,
    ConnectionField,
    NoStatus,
    GoodbyeToAll,
}

impl Abuse {
    async fn commit(self, connection: &mut Connection, stream: u32) {
        match self {
            Abuse::Settings => {
                for _ in 0..MANY {
                    connection.send(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]).await;
                }
            }
            Abuse::Continuations => {
                connection.send(HEADERS, 0, stream, OK).await;
                for _ in 0..MANY {
                    connection.send(CONTINUATION, 0, stream, &[]).await;
                }
            }
            Abuse::LongHead => {
                connection.send(HEADERS, 0, stream, OK).await;
                let block = field("a", &"x".repeat(120)).repeat(100);
                for _ in 0..100 {
                    connection.send(CONTINUATION, 0, stream, &block).await;
                }
                connection
                    .send(CONTINUATION, END_HEADERS, stream, &[])
                    .await;
            }
            Abuse::ManyFields => {
                let block = [OK, &field("a", "").repeat(3000)].concat();
                connection
                    .send(HEADERS, END_HEADERS | END_STREAM, stream, &block)
                    .await;
            }
            Abuse::Resets => {
                for _ in 0..MANY {
                    let reason = INTERNAL_ERROR.to_be_bytes();
                    connection.send(RST_STREAM, 0, stream, &reason).await;
                }
            }
            Abuse::Garbage => {
                connection
                    .send(0x48, 0x54, 0x5450_2f31, b".1 200 OK\r\n")
                    .await
            }
            Abuse::ConnectionField => {
                let block = [OK, &field("transfer-encoding", "chunked")].concat();
                connection.send(HEADERS, END_HEADERS, stream, &block).await;
            }
            Abuse::NoStatus => {
                let block = field("a", "b");
                connection
                    .send(HEADERS, END_HEADERS | END_STREAM, stream, &block)
                    .await;
            }
            Abuse::GoodbyeToAll => {
                connection
                    .send(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 11])
                    .await;
            }
        }
    }
}

async fn forgets_everything(proxy: &Proxy, server: &Server) {
    eventually("no connection and no request is left", async || {
        let endpoint = proxy.endpoint("api", server.address).await;
        (endpoint.pending, endpoint.connections) == (0, 0)
    })
    .await;
}

#[tokio::test]
async fn no_abuse_hangs_or_leaks() {
    for abuse in [
        Abuse::Settings,
        Abuse::Continuations,
        Abuse::LongHead,
        Abuse::ManyFields,
        Abuse::Resets,
        Abuse::Garbage,
        Abuse::ConnectionField,
        Abuse::NoStatus,
        Abuse::GoodbyeToAll,
    ] {
        let server = Server::start(move |_, mut connection| async move {
            while let Some(stream) = connection.request().await {
                abuse.commit(&mut connection, stream).await;
            }
        })
        .await;
        let settings = format!("{IMPATIENT}, pool: {{idle_timeout: 200ms}}");
        let proxy = Site::new().start(&all_to(server.address, &settings)).await;
        let before = proxy.memory();
        for _ in 0..5 {
            let answer = proxy.client().await.get("/", "somebody").await;
            assert!(
                matches!(answer.status, 502 | 504),
                "{abuse:?}: {}",
                answer.status
            );
        }
        forgets_everything(&proxy, &server).await;
        let grown = proxy.memory().saturating_sub(before) / (1024 * 1024);
        assert!(grown < 32, "{abuse:?}: {grown} MiB");
    }
}

#[tokio::test]
async fn a_window_that_stays_shut_is_not_waited_for_longer_than_allowed() {
    let server = Server::start_with(&[(INITIAL_WINDOW, 0)], |_, mut connection| async move {
        connection.read_to_end().await;
    })
    .await;
    let settings = format!("{IMPATIENT}, pool: {{idle_timeout: 200ms}}");
    let proxy = Site::new().start(&all_to(server.address, &settings)).await;
    let mut client = proxy.client().await;
    let answer = client
        .send(request("POST", "/", "somebody", "content"))
        .await;
    assert_eq!(answer.status, 504);
    forgets_everything(&proxy, &server).await;
}

#[tokio::test]
async fn a_connection_that_is_dead_swallows_no_second_request() {
    let server = Server::start(|number, mut connection| async move {
        if number == 0 {
            let Some(stream) = connection.request().await else {
                return;
            };
            connection.answer(stream, "first").await;
            connection.is_alive = false;
            connection.read_to_end().await;
        } else {
            connection.answer_all("other").await;
        }
    })
    .await;
    let site = Site::new().beginning(&super::one_worker());
    let settings = format!("{IMPATIENT}, pool: {{idle_timeout: 1m}}");
    let proxy = site.start(&all_to(server.address, &settings)).await;
    let mut client = proxy.client().await;
    assert_eq!(client.get("/", "somebody").await.body, "first");
    assert_eq!(client.get("/", "somebody").await.status, 504);
    assert_eq!(client.get("/", "somebody").await.body, "other");
    eventually("the dead connection is closed", async || {
        proxy.endpoint("api", server.address).await.connections == 1
    })
    .await;
}

#[tokio::test]
async fn a_slow_answer_does_not_end_a_connection_that_is_alive() {
    let server = Server::start(|number, mut connection| async move {
        let mut count = 0;
        while let Some(stream) = connection.request().await {
            count += 1;
            // The second is never answered.
            if count != 2 {
                connection.answer(stream, &number.to_string()).await;
            }
        }
    })
    .await;
    let site = Site::new().beginning(&super::one_worker());
    let settings = format!("{IMPATIENT}, pool: {{idle_timeout: 1m}}");
    let proxy = site.start(&all_to(server.address, &settings)).await;
    let mut client = proxy.client().await;
    assert_eq!(client.get("/", "somebody").await.body, "0");
    assert_eq!(client.get("/", "somebody").await.status, 504);
    // For a round trip nobody knows whether it is alive, and others are opened.
    eventually("the first connection is used again", async || {
        client.get("/", "somebody").await.body == "0"
    })
    .await;
}
