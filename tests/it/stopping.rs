//! How the program ends: what is under way is finished, and only then, or when time is up, it goes.

use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::harness::client::{Answer, Client, get};
use crate::harness::eventually;
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::{Gate, Reply, Script, Step, Upstream};

/// One server that answers `/held` when the gate opens.
async fn start(gate: &Gate, drain: &str) -> (Proxy, Upstream) {
    let held = gate.clone();
    let server = Upstream::start("api", move |request| match request.target.as_str() {
        "/held" => Script::of([Step::Wait(held.clone()), Step::Answer(Reply::new(200))]),
        _ => Script::status(200),
    });
    let address = server.address();
    let configuration = format!(
        "drain: {drain}
backends:
  api: {{endpoints: ['{address}']}}
routes:
  - {{backend: api}}
"
    );
    (Site::new().start(&configuration).await, server)
}

#[tokio::test]
async fn what_is_in_flight_finishes_and_the_program_ends_well() {
    let gate = Gate::new();
    let (mut proxy, server) = start(&gate, "{deadline: 20s}").await;
    let idle = proxy.client().await;
    let mut clients = [
        Client::http1(proxy.address()).await,
        Client::http2(proxy.address()).await,
    ];
    let [http1, http2] = &mut clients;
    let (one, two) = tokio::join!(async { http1.begin(get("/held", "")).await }, async {
        let answered = http2.begin(get("/held", ""));
        let stopped = async {
            eventually("both are in flight", async || {
                server.count(|request| request.target == "/held") == 2
            })
            .await;
            proxy.signal("TERM");
            let address = proxy.address();
            eventually("no new connection is taken", async || {
                TcpStream::connect(address).await.is_err()
            })
            .await;
            gate.open();
        };
        tokio::join!(answered, stopped).0
    });
    for answer in [one, two] {
        let answer = Answer::read(answer.expect("it was in flight")).await;
        assert_eq!((answer.status, answer.is_whole), (200, true));
    }
    drop(idle);
    let status = proxy.ended().await;
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_at_the_deadline() {
    let gate = Gate::new();
    let (mut proxy, server) = start(&gate, "{deadline: 500ms}").await;
    let mut client = proxy.client().await;
    let cut = tokio::spawn(async move { client.begin(get("/held", "")).await.is_err() });
    server.has_received("/held").await;
    let asked = Instant::now();
    proxy.signal("TERM");
    proxy.ended().await;
    assert!(
        asked.elapsed() >= Duration::from_millis(400),
        "it was given its time"
    );
    assert!(cut.await.expect("waiting does not panic"));
}

#[tokio::test]
async fn it_is_unready_but_serves_until_balancers_have_noticed_or_it_is_told_twice() {
    let gate = Gate::new();
    let (mut proxy, _server) = start(&gate, "{delay: 1m}").await;
    let mut client = proxy.client().await;
    proxy.signal("TERM");
    eventually("it says that it is not ready", async || {
        !proxy.is_ready().await
    })
    .await;
    assert_eq!(client.get("/", "").await.status, 200);
    assert_eq!(
        proxy.client().await.get("/", "").await.status,
        200,
        "a new connection"
    );
    proxy.signal("TERM");
    proxy.ended().await;
}
