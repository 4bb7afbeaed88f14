//! Clients of every kind that go on while the program is replaced, and tell what became of each
//! request.
//!
//! They do what any client does: a connection that was announced to end is used no more, and a
//! request that was never sent is sent on the next one. A request that was sent and not answered is
//! what the program must not lose; it is counted, and not repeated.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_rustls::TlsConnector;

use crate::harness::certificate::Certificate;
use crate::harness::client::{Answer, Client};
use crate::harness::eventually;
use crate::harness::upstream::{Reply, Script, Upstream};

/// Requests a second over all clients. Two busy cores carry this in a debug build; an environment
/// variable raises it.
const RATE: usize = 500;
/// Clients of each kind.
const CALLERS: usize = 6;

/// How a client treats its connections.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// HTTP/1.1, one after the other on one connection.
    KeptAlive,
    /// HTTP/2, on one connection.
    Multiplexed,
    /// HTTP/1.1, a connection for each request.
    Fresh,
    /// HTTP/2, the same.
    FreshMultiplexed,
}

/// GETs that go on until they are ended.
pub(super) struct Load {
    is_over: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    callers: Vec<JoinHandle<Tally>>,
}

/// What became of the requests.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Answered as they should be.
    pub(super) answered: usize,
    /// Sent, and then the connection ended.
    pub(super) lost: Vec<String>,
    /// Answered otherwise.
    pub(super) wrong: Vec<String>,
}

/// A server that answers each request with its own target.
pub(super) fn echo() -> Upstream {
    Upstream::start("api", |request| {
        Script::answer(Reply::new(200).body(request.target.clone()))
    })
}

impl Load {
    /// Clients of every kind at this address.
    pub(super) fn begin(address: SocketAddr) -> Self {
        Self::with_trust(address, Vec::new())
    }

    /// Clients of every kind at this address, all of which speak TLS and trust these.
    pub(super) fn over_tls(address: SocketAddr, trusted: &[&Certificate]) -> Self {
        let protocols = ["http/1.1", "h2"];
        let connector = |protocol| Certificate::connector_of(trusted, None, &[protocol]);
        Self::with_trust(address, protocols.map(connector).to_vec())
    }

    fn with_trust(address: SocketAddr, connectors: Vec<TlsConnector>) -> Self {
        let rate = std::env::var("CUTOVER_TEST_RATE").ok();
        let rate = rate.and_then(|rate| rate.parse().ok()).unwrap_or(RATE);
        let kinds = [
            Kind::KeptAlive,
            Kind::Multiplexed,
            Kind::Fresh,
            Kind::FreshMultiplexed,
        ];
        let pace = Duration::from_secs(1) * u32::try_from(kinds.len() * CALLERS).expect("few")
            / u32::try_from(rate).expect("tests are modest");
        let is_over = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let callers = kinds
            .iter()
            .flat_map(|kind| std::iter::repeat_n(*kind, CALLERS));
        let callers = callers.enumerate().map(|(index, kind)| {
            let caller = Caller {
                address,
                kind,
                index,
                connectors: connectors.clone(),
                is_over: Arc::clone(&is_over),
                answered: Arc::clone(&answered),
            };
            tokio::spawn(caller.call(pace))
        });
        Self {
            callers: callers.collect(),
            is_over,
            answered,
        }
    }

    /// Waits for this many more answers.
    pub(super) async fn goes_on(&self, answers: usize) {
        let goal = self.answered.load(Ordering::SeqCst) + answers;
        eventually("the callers are answered", async || {
            self.answered.load(Ordering::SeqCst) >= goal
        })
        .await;
    }

    /// Ends it, and says that nothing was lost; so many requests were answered.
    pub(super) async fn ends_without_loss(self) -> usize {
        self.is_over.store(true, Ordering::SeqCst);
        let mut all = Tally::default();
        for caller in self.callers {
            let tally = caller.await.expect("callers do not panic");
            all.answered += tally.answered;
            all.lost.extend(tally.lost);
            all.wrong.extend(tally.wrong);
        }
        assert!(all.lost.is_empty() && all.wrong.is_empty(), "{all:?}");
        all.answered
    }
}

struct Caller {
    address: SocketAddr,
    kind: Kind,
    index: usize,
    /// For HTTP/1.1 and for HTTP/2; none to speak in clear.
    connectors: Vec<TlsConnector>,
    is_over: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
}

impl Caller {
    async fn call(self, pace: Duration) -> Tally {
        let mut tally = Tally::default();
        let mut client = self.connect().await;
        let mut pace = tokio::time::interval(pace);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for number in 0.. {
            pace.tick().await;
            if self.is_over.load(Ordering::SeqCst) {
                break;
            }
            let target = format!("/{}/{number}", self.index);
            let response = loop {
                match send(&mut client, &target).await {
                    Sent::Answered(response) => break Ok(response),
                    Sent::Never => client = self.connect().await,
                    Sent::Lost(error) => break Err(error),
                }
            };
            let response = match response {
                Ok(response) => response,
                Err(error) => {
                    let kind = self.kind;
                    tally.lost.push(format!("{kind:?} {target}: {error:?}"));
                    client = self.connect().await;
                    continue;
                }
            };
            let answer = Answer::read(response).await;
            if answer.status == 200 && answer.is_whole && answer.body == target {
                tally.answered += 1;
            } else {
                tally.wrong.push(format!("{target}: {answer:?}"));
            }
            self.answered.fetch_add(1, Ordering::SeqCst);
            let is_told = answer.field("connection") == Some("close");
            if is_told || matches!(self.kind, Kind::Fresh | Kind::FreshMultiplexed) {
                client = self.connect().await;
            }
        }
        tally
    }

    async fn connect(&self) -> Client {
        let is_multiplexed = matches!(self.kind, Kind::Multiplexed | Kind::FreshMultiplexed);
        match self.connectors.get(usize::from(is_multiplexed)) {
            Some(connector) => Client::over_tls(self.address, connector).await,
            None if is_multiplexed => Client::http2(self.address).await,
            None => Client::http1(self.address).await,
        }
    }
}

enum Sent {
    Answered(Response<Incoming>),
    /// The connection had ended, or was announced to; nobody has looked at the request.
    Never,
    /// The connection ended before an answer came.
    Lost(hyper::Error),
}

async fn send(client: &mut Client, target: &str) -> Sent {
    let request = |uri: String| {
        let request = Request::get(uri).header("host", "api.example");
        let request = request.body(Full::new(Bytes::new()));
        request.expect("tests write valid requests")
    };
    let result = match client {
        Client::Http1(sender) => {
            if sender.ready().await.is_err() {
                return Sent::Never;
            }
            let request = request(target.to_owned());
            sender.try_send_request(request).await
        }
        Client::Http2(sender) => {
            if sender.ready().await.is_err() {
                return Sent::Never;
            }
            let request = request(format!("http://api.example{target}"));
            sender.try_send_request(request).await
        }
    };
    match result {
        Ok(response) => Sent::Answered(response),
        Err(mut error) => match error.take_message() {
            Some(_unsent) => Sent::Never,
            None if is_refused(error.error()) => Sent::Never,
            None => Sent::Lost(error.into_error()),
        },
    }
}

/// Whether GOAWAY says of a request that it was not looked at, be it that the client sent it too late
/// or not at all. Whoever is cut after GOAWAY sees another error.
fn is_refused(error: &hyper::Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref());
    source.is_some_and(|error: &h2::Error| {
        error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
    })
}
