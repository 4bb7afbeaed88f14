//! Callers that go on while a test changes something around them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cutover::policy::arm::Arm;
use tokio::task::JoinHandle;

use super::client::Client;
use super::eventually;
use super::keys::keys;
use super::proxy::Proxy;
use super::upstream::Upstream;

/// GETs that go on until they are stopped, of keys of legacy and of new in turn, as they are at half
/// of the keys of the split `api`.
pub(crate) struct Traffic {
    is_over: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    callers: Vec<JoinHandle<Record>>,
}

/// What callers were answered.
#[derive(Default)]
pub(crate) struct Record {
    /// In each caller's order.
    pub(crate) statuses: Vec<u16>,
    /// When an answer first told of a fallback.
    pub(crate) first_fallback: Option<Instant>,
}

impl Traffic {
    /// `callers` clients with one request every `pace` each.
    pub(crate) fn begin(address: SocketAddr, callers: usize, pace: Duration) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let callers = (0..callers).map(|caller| {
            let (is_over, answered) = (Arc::clone(&is_over), Arc::clone(&answered));
            tokio::spawn(async move {
                let mut record = Record::default();
                let mut client = Client::http1(address).await;
                let mut pace = tokio::time::interval(pace);
                // Legacy's first, so that at no time `new` has seen more.
                let of = |arm| keys("api", "50%", arm).skip(caller * 1_000);
                for (legacy, new) in of(Arm::Legacy).zip(of(Arm::New)) {
                    for key in [legacy, new] {
                        pace.tick().await;
                        if is_over.load(Ordering::SeqCst) {
                            return record;
                        }
                        let answer = client.get("/", &key).await;
                        if answer.field("cutover-fallback").is_some() {
                            record.first_fallback.get_or_insert_with(Instant::now);
                        }
                        record.statuses.push(answer.status);
                        answered.fetch_add(1, Ordering::SeqCst);
                    }
                }
                record
            })
        });
        Self {
            callers: callers.collect(),
            is_over,
            answered,
        }
    }

    /// Waits for this many more answers.
    pub(crate) async fn goes_on(&self, answers: usize) {
        let goal = self.answered.load(Ordering::SeqCst) + answers;
        eventually("the callers are answered", async || {
            self.answered.load(Ordering::SeqCst) >= goal
        })
        .await;
    }

    /// Ends it; everything that was answered.
    pub(crate) async fn end(self) -> Record {
        self.is_over.store(true, Ordering::SeqCst);
        let mut all = Record::default();
        for caller in self.callers {
            let record = caller.await.expect("every request is answered");
            all.statuses.extend(record.statuses);
            all.first_fallback = [all.first_fallback, record.first_fallback]
                .into_iter()
                .flatten()
                .min();
        }
        all
    }
}

/// Waits until the floods of `upstream` come to a halt, and says how many bytes they came to.
///
/// They have halted when nothing of them is taken while all of many new clients are answered for
/// `/beside`: whoever could take more of them was awake, since it had others to serve.
pub(crate) async fn halted(proxy: &Proxy, upstream: &Upstream) -> usize {
    const CLIENTS: usize = 32;
    let mut taken = 0;
    eventually("the floods come to a halt", async || {
        let before = std::mem::replace(&mut taken, upstream.flooded());
        let is_same = taken > 0 && before == taken;
        for _ in 0..CLIENTS {
            let answer = proxy.client().await.get("/beside", "").await;
            assert_eq!(answer.status, 200);
        }
        is_same && upstream.flooded() == taken
    })
    .await;
    taken
}
