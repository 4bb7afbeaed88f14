//! What crosses with a handover: new connections over TLS, clients that ignore their farewell, and
//! whoever stops a process that leaves already.

use std::time::{Duration, Instant};

use crate::harness::certificate::Certificate;
use crate::harness::client::{Answer, Client, get};
use crate::harness::frames::{Frames, GOAWAY, Outcome, get as asking};
use crate::harness::migration;
use crate::harness::proxy::{ONLY_TLS, Proxy, Site};
use crate::harness::upstream::{Gate, Reply, Script, Step, Upstream};

use super::load::{Load, echo};
use super::{ATTEMPTS, Heir, plain};

/// Far beyond the patience of any test.
const PATIENT: &str = "drain: {deadline: 10m}\n";

/// The time that a client is given that has connected and not asked yet.
const GIVEN: Duration = Duration::from_millis(500);

/// Waits at the gate for `/slow`, and answers all else.
fn slow(name: &str, gate: &Gate) -> Upstream {
    let gate = gate.clone();
    Upstream::start(name, move |request| {
        let reply = Step::Answer(Reply::new(200));
        match request.target.as_str() {
            "/slow" => Script::of([Step::Wait(gate.clone()), reply]),
            _ => Script::of([reply]),
        }
    })
}

#[tokio::test]
async fn new_connections_over_tls_lose_nothing_when_the_process_is_replaced() {
    let upstream = echo();
    let certificate = Certificate::new();
    let site = Site::new().linked().certified(&certificate);
    // Shorter than usual, so that the load lasts until nobody is waited for any more.
    let configuration = format!("drain: {{deadline: 3s}}\n{}", plain(&upstream));
    let mut proxy = site.start_on(ONLY_TLS, &configuration).await;
    let load = Load::over_tls(proxy.address(), &[&certificate]);
    load.goes_on(100).await;
    proxy.signal("USR2");
    let heir = Heir::of(&proxy, proxy.process()).await;
    load.goes_on(100).await;
    assert_eq!(proxy.ended().await.code(), Some(0), "the old one leaves");
    load.goes_on(100).await;
    let answered = load.ends_without_loss().await;
    assert_eq!(upstream.received().len(), answered, "none was run twice");
    drop(heir);
}

#[tokio::test]
async fn a_request_to_the_admin_api_that_crosses_with_the_handover_is_answered() {
    let upstream = echo();
    for _ in 0..ATTEMPTS {
        let proxy = Site::new().linked().start(&plain(&upstream)).await;
        let mut client = Client::http1(proxy.admin()).await;
        // It is accepted before the one that is answered.
        assert_eq!(proxy.ask("/livez").await.status, 200);
        let asked = Instant::now();
        proxy.signal("USR2");
        proxy.says(1, "draining: another process serves").await;
        let answer = client.begin(get("/livez", "")).await;
        let is_late = asked.elapsed() >= GIVEN;
        drop(Heir::of(&proxy, proxy.process()).await);
        if answer.is_ok() || !is_late {
            assert_eq!(answer.expect("a request in time is answered").status(), 200);
            return;
        }
    }
    panic!("the machine is too slow for this test");
}

#[tokio::test]
async fn a_first_signal_to_a_process_that_was_replaced_cuts_nobody_and_a_second_does() {
    for is_cut in [false, true] {
        let gate = Gate::new();
        let upstream = slow("api", &gate);
        let configuration = format!("{PATIENT}{}", plain(&upstream));
        let mut proxy = Site::new().linked().start(&configuration).await;
        let mut client = proxy.client().await;
        let slow = tokio::spawn(async move {
            let response = client.begin(get("/slow", "")).await;
            match response {
                Ok(response) => Some(Answer::read(response).await.status),
                Err(_) => None,
            }
        });
        upstream.has_received("/slow").await;
        proxy.signal("USR2");
        let heir = Heir::of(&proxy, proxy.process()).await;
        proxy.says(1, "draining: another process serves").await;
        proxy.signal("TERM");
        proxy.says(1, "a second signal cuts").await;
        assert!(!slow.is_finished());
        if is_cut {
            proxy.signal("TERM");
        } else {
            gate.open();
        }
        let status = slow.await.expect("the client does not panic");
        assert_eq!(status, if is_cut { None } else { Some(200) });
        assert_eq!(proxy.ended().await.code(), Some(0));
        drop(heir);
    }
}

/// An HTTP/2 client that is being answered while the process is replaced.
struct Crossing {
    gate: Gate,
    legacy: Upstream,
    new: Upstream,
    proxy: Proxy,
    client: Frames,
    _heir: Heir,
}

impl Crossing {
    /// Everything is on `new`; the client waits at the gate for `/slow`, and the successor serves.
    async fn begin() -> Self {
        let gate = Gate::new();
        let (legacy, new) = (slow("legacy", &gate), slow("new", &gate));
        let settings = "share: 100%, rollback: off";
        let configuration = migration(legacy.address(), new.address(), settings);
        let proxy = Site::new()
            .linked()
            .start(&format!("{PATIENT}{configuration}"))
            .await;
        let mut client = Frames::connect(proxy.address()).await;
        client.ask(1, &of("/slow", "anyone")).await;
        new.has_received("/slow").await;
        proxy.signal("USR2");
        let heir = Heir::of(&proxy, proxy.process()).await;
        Self {
            gate,
            legacy,
            new,
            proxy,
            client,
            _heir: heir,
        }
    }

    /// Moves everything to legacy, at the successor.
    async fn lower(&self) {
        let lowered = self.proxy.cutover(&["rollback", "api", "--to", "0"]).await;
        assert!(lowered.status.success(), "{lowered:?}");
    }
}

#[tokio::test]
async fn http2_that_acknowledges_goaway_and_asks_on_is_assigned_nothing_by_the_old_process() {
    let mut crossing = Crossing::begin().await;
    crossing.client.is_refused_from(1).await;
    crossing.lower().await;
    crossing.client.ask(3, &of("/late", "anyone")).await;
    crossing.gate.open();
    assert!(matches!(
        crossing.client.outcome(1).await,
        Outcome::Answered(200, _)
    ));
    assert_eq!(crossing.client.outcome(3).await, Outcome::Gone(None));
    let late = |upstream: &Upstream| upstream.count(|request| request.target == "/late");
    assert_eq!((late(&crossing.legacy), late(&crossing.new)), (0, 0));
}

#[tokio::test]
async fn http2_that_does_not_even_acknowledge_goaway_is_assigned_as_the_successor_says() {
    let mut crossing = Crossing::begin().await;
    while crossing.client.next().await.expect("it stays open").kind != GOAWAY {}
    // All that its successor began with.
    crossing.proxy.says(1, "obeying the successor").await;
    crossing.lower().await;
    crossing.proxy.says(2, "obeying the successor").await;
    crossing.client.ask(3, &of("/late", "anyone")).await;
    assert!(matches!(
        crossing.client.outcome(3).await,
        Outcome::Answered(200, _)
    ));
    crossing.legacy.has_received("/late").await;
}

/// The fields of a GET of `target` with a session key.
fn of<'text>(target: &'text str, key: &'text str) -> Vec<(&'text str, &'text [u8])> {
    let mut fields = asking(target);
    fields.push(("x-user", key.as_bytes()));
    fields
}
