//! TLS to endpoints: whom the proxy trusts, by which name, and what becomes of requests to others.

use std::net::SocketAddr;
use std::time::Duration;

use super::{backend, start};
use crate::harness::certificate::Certificate;
use crate::harness::client::request;
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::{Reply, Script, Step, Upstream};

/// A legacy in clear and a `new` at `endpoint` with these TLS settings; `roots.pem` is there.
async fn start_tls(site: Site, legacy: &Upstream, endpoint: &str, tls: &str) -> Proxy {
    let legacy = backend([legacy.address()], "");
    let new = format!("{{endpoints: ['{endpoint}'], tls: {tls}}}");
    start(site, &legacy, &new, "").await
}

fn secure(certificate: &Certificate) -> Upstream {
    Upstream::start_tls("new", certificate, |_| Script::status(200))
}

fn by_name(address: SocketAddr) -> String {
    format!("localhost:{}", address.port())
}

#[tokio::test]
async fn an_upstream_is_verified_and_asked_for_by_its_configured_name_else_by_its_host() {
    let certificate = Certificate::new();
    let (legacy, new) = (Upstream::ok("legacy"), secure(&certificate));
    let address = new.address().to_string();
    let name = Some("localhost".to_owned());
    for (endpoint, tls, expected) in [
        (
            &address,
            "{roots: roots.pem, server_name: localhost}",
            &name,
        ),
        (&by_name(new.address()), "{roots: roots.pem}", &name),
        // An address is verified, but is no name to ask for (RFC 6066 §3).
        (&address, "{roots: roots.pem}", &None),
    ] {
        let site = Site::new().file("roots.pem", &certificate.certificate_pem);
        let proxy = start_tls(site, &legacy, endpoint, tls).await;
        let mut client = proxy.client().await;
        for _ in 0..2 {
            assert_eq!(
                client.get("/", "alice").await.served_by(),
                Some("new"),
                "{tls}"
            );
        }
        let received = new.received();
        let [.., first, second] = received.as_slice() else {
            panic!("both requests came");
        };
        assert_eq!(first.server_name, *expected, "{tls}");
        assert_eq!(
            first.connection, second.connection,
            "a handshake serves many requests"
        );
    }
    assert!(legacy.received().is_empty());
}

#[tokio::test]
async fn without_roots_of_its_own_a_backend_trusts_those_of_the_system() {
    let certificate = Certificate::new();
    let (legacy, new) = (Upstream::ok("legacy"), secure(&certificate));
    let site = Site::new().file("system.pem", &certificate.certificate_pem);
    let system = site.path().join("system.pem");
    let site = site.environment("SSL_CERT_FILE", &system.display().to_string());
    let proxy = start_tls(site, &legacy, &new.address().to_string(), "{}").await;
    let answer = proxy.client().await.get("/", "alice").await;
    assert_eq!((answer.status, answer.served_by()), (200, Some("new")));
}

#[tokio::test]
async fn an_upstream_that_cannot_prove_its_name_gets_no_request_and_legacy_answers() {
    let (certificate, other) = (Certificate::new(), Certificate::new());
    let ended = Certificate::of(&["127.0.0.1"], |params| {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    let (ending, plain) = (secure(&ended), Upstream::ok("new"));
    let secure = secure(&certificate);
    for (what, server, roots, tls) in [
        (
            "wrong name",
            &secure,
            &certificate,
            "{roots: roots.pem, server_name: api.example}",
        ),
        ("unknown root", &secure, &other, "{roots: roots.pem}"),
        ("ended", &ending, &ended, "{roots: roots.pem}"),
        ("no TLS", &plain, &certificate, "{roots: roots.pem}"),
    ] {
        let legacy = Upstream::ok("legacy");
        let site = Site::new().file("roots.pem", &roots.certificate_pem);
        let address = server.address().to_string();
        let proxy = start_tls(site, &legacy, &address, tls).await;
        let mut client = proxy.client().await;
        let write = request("POST", "/", "alice", "a write");
        let answer = client.send(write).await;
        assert_eq!(
            (answer.status, answer.served_by()),
            (200, Some("legacy")),
            "{what}"
        );
        assert_eq!(answer.field("cutover-fallback"), Some("tls"), "{what}");
        let answer = client.get("/bare", "alice").await;
        assert_eq!((answer.status, answer.served_by()), (502, None), "{what}");
        let failed = [("backend", "new"), ("result", "tls")];
        proxy.counts(2.0, "cutover_attempts_total", &failed).await;
        let booked = [("split", "api"), ("arm", "new"), ("class", "transport")];
        proxy.counts(1.0, "cutover_requests_total", &booked).await;
        assert_eq!(
            proxy.endpoint("new", server.address()).await.health,
            "unreachable"
        );
        assert!(server.received().is_empty(), "{what}");
    }
}

#[tokio::test]
async fn large_uploads_arrive_whole_at_an_upstream_that_reads_slowly() {
    let certificate = Certificate::new();
    let legacy = Upstream::ok("legacy");
    let new = Upstream::start_tls("new", &certificate, |_| {
        let slowly = [Step::ReadSome, Step::Pause(Duration::from_millis(5))];
        let beginning = slowly.into_iter().cycle().take(100);
        Script::of(beginning.chain([Step::Answer(Reply::new(200))]))
    });
    let site = Site::new().file("roots.pem", &certificate.certificate_pem);
    let address = by_name(new.address());
    let proxy = start_tls(site, &legacy, &address, "{roots: roots.pem}").await;
    let mut client = proxy.client().await;
    let lengths = [2 << 20, (4 << 20) + 1, 6 << 20];
    for length in lengths {
        let upload = request("POST", "/", "alice", vec![b'x'; length]);
        let answer = client.send(upload).await;
        assert_eq!((answer.status, answer.served_by()), (200, Some("new")));
    }
    let received = new.received();
    let received = received.iter().map(|request| request.body.len());
    assert!(received.eq(lengths), "every byte came");
}
