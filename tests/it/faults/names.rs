//! Upstreams that have a name, which moves or cannot be found.
//!
//! The program asks the system's resolver, and libnss_wrapper makes that read a file of the test's.

use std::net::{Ipv4Addr, SocketAddr};

use crate::harness::client::get;
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::{Place, Reply, Script, Upstream};
use crate::harness::{eventually, unjudged};

const MOVED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

fn named(place: &Place, name: &str) -> Upstream {
    place.start(name, |_| Script::answer(Reply::new(200)))
}

/// Everything goes to `new`, which is `api.example`, over a connection of its own each time.
async fn start(legacy: &Upstream, port: u16) -> Proxy {
    let site = Site::new().file("hosts", "127.0.0.1 api.example\n");
    let hosts = site.path().join("hosts");
    let site = site
        .environment("LD_PRELOAD", "libnss_wrapper.so")
        .environment("NSS_WRAPPER_HOSTS", hosts.to_str().expect("it is text"));
    let legacy = format!("{{endpoints: ['{}']}}", legacy.address());
    let new = format!("{{endpoints: ['api.example:{port}'], pool: {{max_idle: 0}}}}");
    let fallback = "fallback: {breaker: false}";
    site.start(&unjudged(&legacy, &new, fallback, "")).await
}

/// Who answers a GET, and why it is not `new` if it is not.
async fn who_answers(proxy: &Proxy) -> (String, Option<String>) {
    let answer = proxy.client().await.send(get("/", "alice")).await;
    assert_eq!(answer.status, 200);
    let name = answer.served_by().expect("a server answered").to_owned();
    (name, answer.field("cutover-fallback").map(str::to_owned))
}

#[tokio::test]
async fn a_server_that_moves_is_followed_by_its_name_and_nobody_notices() {
    let (legacy, place) = (Upstream::ok("legacy"), Place::new());
    let place_moved = place.beside(MOVED);
    let before = named(&place, "before");
    let proxy = start(&legacy, place.address().port()).await;
    assert_eq!(who_answers(&proxy).await, ("before".to_owned(), None));
    let after = named(&place_moved, "after");
    proxy.rewrite("hosts", format!("{MOVED} api.example\n"));
    drop(before);
    eventually("it is found where it is now", async || {
        let (name, reason) = who_answers(&proxy).await;
        match name.as_str() {
            "after" => true,
            _ => {
                assert_eq!(
                    (name.as_str(), reason.as_deref()),
                    ("legacy", Some("connect"))
                );
                false
            }
        }
    })
    .await;
    assert_eq!(
        after.address(),
        SocketAddr::from((MOVED, place.address().port()))
    );
}

#[tokio::test]
async fn a_name_that_is_not_found_any_more_takes_no_server_with_it() {
    let (legacy, place) = (Upstream::ok("legacy"), Place::new());
    let _new = named(&place, "new");
    let proxy = start(&legacy, place.address().port()).await;
    let by_new = ("new".to_owned(), None);
    assert_eq!(who_answers(&proxy).await, by_new);
    for (hosts, said) in [
        (
            "127.0.0.1 another.example\n",
            "using the addresses found before",
        ),
        (
            "127.0.0.1 api.example\n",
            "the endpoint's name is found again",
        ),
    ] {
        proxy.rewrite("hosts", hosts);
        eventually(said, async || {
            assert_eq!(who_answers(&proxy).await, by_new);
            proxy.log().contains(said)
        })
        .await;
    }
    assert!(legacy.received().is_empty());
}
