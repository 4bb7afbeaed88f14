//! Clients that break off: whoever worked for them is told at once.

use std::time::{Duration, Instant};

use crate::harness::client::{Client, Raw, get};
use crate::harness::migration;
use crate::harness::proxy::Site;
use crate::harness::upstream::{Received, Script, Step, Upstream};

const AT_ONCE: Duration = Duration::from_secs(2);

fn slow(request: &Received) -> Script {
    let begun = "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nbegun";
    match request.target.ends_with("/begun") {
        true => Script::write(begun).then(Step::AwaitDeparture),
        false => Script::hang(),
    }
}

#[tokio::test]
async fn a_client_that_breaks_off_frees_the_upstream_at_once() {
    let (legacy, new) = (
        Upstream::start("legacy", slow),
        Upstream::start("new", slow),
    );
    let configuration = migration(
        legacy.address(),
        new.address(),
        "share: 100%, rollback: off",
    );
    let proxy = Site::new().start(&configuration).await;
    for phase in ["waiting", "begun"] {
        let target = format!("/reset/{phase}");
        let mut client = Raw::connect(proxy.address()).await;
        let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\nX-User: alice\r\n\r\n");
        client.write(head).await;
        new.has_received(&target).await;
        if phase == "begun" {
            client.read_head().await;
        }
        let left = Instant::now();
        client.reset();
        new.was_departed(&target).await;
        assert!(left.elapsed() < AT_ONCE, "{target}: {:?}", left.elapsed());

        // One stream of a connection that goes on.
        let target = format!("/stream/{phase}");
        let mut client = Client::http2(proxy.address()).await;
        {
            let begun = client.begin(get(&target, "alice"));
            tokio::select! {
                answer = begun => drop(answer.expect("it has begun")),
                () = new.has_received(&target), if phase == "waiting" => {}
            }
        }
        let left = Instant::now();
        new.was_departed(&target).await;
        assert!(left.elapsed() < AT_ONCE, "{target}: {:?}", left.elapsed());

        let target = format!("/connection/{phase}");
        let asking = tokio::spawn({
            let (address, target) = (proxy.address(), target.clone());
            async move { Client::http2(address).await.get(&target, "alice").await }
        });
        new.has_received(&target).await;
        let left = Instant::now();
        asking.abort();
        new.was_departed(&target).await;
        assert!(left.elapsed() < AT_ONCE, "{target}: {:?}", left.elapsed());
    }
    let cancelled = [("arm", "new"), ("class", "cancelled")];
    proxy
        .counts(6.0, "cutover_requests_total", &cancelled)
        .await;
    assert!(legacy.received().is_empty());
    for gauge in ["cutover_endpoint_connections", "cutover_client_connections"] {
        proxy.counts(0.0, gauge, &[]).await;
    }
}
