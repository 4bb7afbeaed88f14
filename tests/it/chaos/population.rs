//! The clients: sessions with a cookie, over connections long and short, of both protocols, some of
//! whom leave; and what each of them must be able to rely on.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cutover::policy::arm::Arm;
use http::Request;
use http_body_util::Full;
use tokio::task::JoinSet;

use super::storm::{Notes, lock};
use crate::harness::chance::Chance;
use crate::harness::client::{Answer, Client};
use crate::harness::keys::Population as Keys;

/// Requests over a connection that is kept.
const PER_CONNECTION: u64 = 30;
/// Beyond what is kept for a replay.
const LARGE_BODY: usize = 100 * 1024;

/// What is known of the world at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    /// Counts the phases; in those with an odd number, legacy is well.
    pub(super) phase: u64,
    /// Counts the changes.
    pub(super) change: u64,
    /// The share in effect; none while it is being changed.
    pub(super) share: Option<String>,
}

/// What clients found.
#[derive(Default)]
pub(super) struct Ledger {
    /// Answers that came, whole or not.
    pub(super) answered: AtomicU64,
    /// Requests whose client did not wait.
    pub(super) left: AtomicU64,
    /// Answers of legacy in place of `new`.
    pub(super) fallbacks: AtomicU64,
    /// Answers that broke off.
    pub(super) truncated: AtomicU64,
    /// Safe requests answered well, during phases in which only `new` has faults.
    pub(super) spared: AtomicU64,
    /// Answers whose arm could be checked.
    pub(super) checked: AtomicU64,
    /// What must not happen.
    pub(super) broken_promises: Mutex<Vec<String>>,
}

/// What all clients share.
pub(super) struct Shared {
    pub(super) view: Mutex<View>,
    pub(super) ledger: Ledger,
    pub(super) notes: Arc<Mutex<Notes>>,
    pub(super) is_over: AtomicBool,
}

impl Shared {
    fn view(&self) -> View {
        lock(&self.view).clone()
    }
}

/// Clients that go on until it is over.
pub(super) fn populate(
    clients: u64,
    address: SocketAddr,
    seed: u64,
    shared: &Arc<Shared>,
) -> JoinSet<()> {
    let clients = (0..clients).map(|number| Person {
        number,
        address,
        chance: Chance::lane(seed, number),
        requests: 0,
        shared: Arc::clone(shared),
    });
    clients.map(Person::live).collect()
}

struct Person {
    number: u64,
    address: SocketAddr,
    chance: Chance,
    requests: u64,
    shared: Arc<Shared>,
}

/// A request, and what is needed to judge its answer.
struct Question {
    method: &'static str,
    target: String,
    session: String,
    body: usize,
}

impl Question {
    fn request(&self) -> Request<Full<Bytes>> {
        Request::builder()
            .method(self.method)
            .uri(&self.target)
            .header("cookie", format!("theme=dark; session={}", self.session))
            .body(Full::new(Bytes::from(vec![b'b'; self.body])))
            .expect("tests write valid requests")
    }
}

impl Person {
    async fn live(mut self) {
        while !self.shared.is_over.load(Ordering::SeqCst) {
            let kind = self.chance.below(10);
            let mut client = match kind {
                0..=5 => Client::http1(self.address).await,
                _ => Client::http2(self.address).await,
            };
            let requests = match kind {
                0..=1 => 1,
                _ => 1 + self.chance.below(PER_CONNECTION),
            };
            for _ in 0..requests {
                if !self.ask(&mut client).await || self.shared.is_over.load(Ordering::SeqCst) {
                    break;
                }
                let pause = Duration::from_micros(self.chance.below(8_000));
                tokio::time::sleep(pause).await;
            }
            if self.chance.below(4) == 0 {
                self.leave(client).await;
            }
        }
    }

    fn question(&mut self) -> Question {
        self.requests += 1;
        let method = ["GET", "GET", "GET", "HEAD", "POST"][self.chance.below(5) as usize];
        let body = match (method, self.chance.below(10)) {
            ("POST", 0) => LARGE_BODY,
            ("POST", _) => 100,
            _ => 0,
        };
        Question {
            method,
            target: format!("/{method}/{}/{}", self.number, self.requests),
            session: format!("{}-{}", self.number, self.chance.below(10)),
            body,
        }
    }

    /// Asks; whether the connection can be used further.
    async fn ask(&mut self, client: &mut Client) -> bool {
        let question = self.question();
        let before = self.shared.view();
        let ledger = &self.shared.ledger;
        let answer = match client.begin(question.request()).await {
            Ok(response) => Some(Answer::read(response).await),
            Err(_) => None,
        };
        ledger.answered.fetch_add(1, Ordering::Relaxed);
        let after = self.shared.view();
        let is_whole = answer.as_ref().is_some_and(|answer| answer.is_whole);
        if !is_whole {
            ledger.truncated.fetch_add(1, Ordering::Relaxed);
            if !lock(&self.shared.notes).broken.contains(&question.target) {
                let what = "broke off, and no server had begun it";
                self.complain(&question, what, answer.as_ref());
            }
        }
        if let Some(answer) = &answer {
            self.judge(&question, answer, &before, &after);
        }
        let is_last = |answer: Answer| answer.field("connection") == Some("close");
        is_whole && !answer.is_some_and(is_last)
    }

    /// Asks, and goes before the answer has come.
    async fn leave(&mut self, mut client: Client) {
        let question = self.question();
        let patience = Duration::from_micros(self.chance.below(10_000));
        let ledger = &self.shared.ledger;
        ledger.left.fetch_add(1, Ordering::Relaxed);
        // Whether something came meanwhile makes no difference.
        let _ = tokio::time::timeout(patience, client.begin(question.request())).await;
    }

    fn judge(&self, question: &Question, answer: &Answer, before: &View, after: &View) {
        let ledger = &self.shared.ledger;
        let fallback = answer.field("cutover-fallback");
        if fallback.is_some() {
            ledger.fallbacks.fetch_add(1, Ordering::Relaxed);
        }
        let is_safe = question.method != "POST";
        if is_safe && before.phase == after.phase && before.phase % 2 == 1 {
            // That `new` does not find something is its answer, and listed nowhere as a failure.
            if matches!(answer.status, 200 | 404) {
                ledger.spared.fetch_add(1, Ordering::Relaxed);
            } else {
                let what = "failed, although legacy is well";
                self.complain(question, what, Some(answer));
            }
        }
        if let Some(share) = &after.share
            && before.change == after.change
        {
            let assigned = match (fallback, answer.field("cutover-arm")) {
                (Some(_), _) | (None, Some("new")) => Arm::New,
                (None, _) => Arm::Legacy,
            };
            let expected = Keys::new("api", share).arm(&question.session);
            ledger.checked.fetch_add(1, Ordering::Relaxed);
            if assigned != expected {
                let what = format!("is on {assigned}, and belongs to {expected} at {share}");
                self.complain(question, &what, Some(answer));
            }
        }
    }

    fn complain(&self, question: &Question, what: &str, answer: Option<&Answer>) {
        let Question {
            target, session, ..
        } = question;
        let view = self.shared.view();
        let complaint = format!("{target} of {session} {what}: {answer:?}, {view:?}");
        lock(&self.shared.ledger.broken_promises).push(complaint);
    }
}
