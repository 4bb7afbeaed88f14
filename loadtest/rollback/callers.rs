//! Clients: 100 requests/s with keys of each arm, evenly spaced, whatever the answers are.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cutover::policy::arm::Arm;
use cutover::policy::key::Salt;
use cutover::policy::share::Share;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval_at};

use super::Impossible;

/// Of each arm. Half of them wait while the other half is answered, should an answer take long.
const CALLERS: u32 = 2;
/// Between two requests of one caller: with two, 100 requests/s.
const PACE: Duration = Duration::from_millis(20);
/// Sessions of each caller.
const SESSIONS: usize = 500;

/// What all callers have seen together.
#[derive(Clone, Default)]
pub(super) struct Seen(Arc<Mutex<Sight>>);

#[derive(Clone, Copy, Default)]
pub(super) struct Sight {
    /// Requests with keys of `new`.
    pub(super) new: u64,
    /// When the first request was sent that `new` has failed.
    pub(super) first_failure: Option<Instant>,
    /// When the first answer came that shows share 0.
    pub(super) share_zero: Option<Instant>,
    /// Answers that were no 200.
    pub(super) bad: u64,
}

impl Seen {
    pub(super) fn now(&self) -> Sight {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Sight> {
        // It is whole between any two changes, so a panic elsewhere has not spoilt it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Callers; they stop when dropped.
pub(super) struct Callers {
    tasks: JoinSet<Result<(), Impossible>>,
    seen: Seen,
}

impl Callers {
    pub(super) fn begin(address: SocketAddr) -> Result<Self, Impossible> {
        let seen = Seen::default();
        let mut tasks = JoinSet::new();
        let begin = Instant::now();
        let (salt, share) = (Salt::new("api"), "50%".parse::<Share>()?);
        let arm_of = |key: &str| match share.contains(salt.hash(key.as_bytes()).bucket()) {
            true => Arm::New,
            false => Arm::Legacy,
        };
        for number in 0..CALLERS * 2 {
            let arm = if number % 2 == 0 {
                Arm::New
            } else {
                Arm::Legacy
            };
            let keys = (0_u64..).map(|session| format!("caller-{number}-session-{session}"));
            let keys = keys.filter(|key| arm_of(key) == arm).take(SESSIONS);
            let offset = PACE / (CALLERS * 2) * number;
            let call = call(address, arm, keys.collect(), begin + offset, seen.clone());
            tasks.spawn(call);
        }
        Ok(Self { tasks, seen })
    }

    /// Waits until what was seen is as wanted. An end of a caller is an error, and so is a wait
    /// without end.
    pub(super) async fn until(
        &mut self,
        what: &str,
        is_wanted: impl Fn(Sight) -> bool,
    ) -> Result<Sight, Impossible> {
        const PATIENCE: Duration = Duration::from_secs(120);
        let deadline = Instant::now() + PATIENCE;
        while !is_wanted(self.seen.now()) {
            if Instant::now() > deadline {
                return Err(format!("it never happened that {what}").into());
            }
            tokio::select! {
                ended = self.tasks.join_next() => {
                    ended.ok_or("there are no callers")???;
                    return Err("a caller has ended".into());
                }
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
        }
        Ok(self.seen.now())
    }
}

async fn call(
    address: SocketAddr,
    arm: Arm,
    keys: Vec<String>,
    begin: Instant,
    seen: Seen,
) -> Result<(), Impossible> {
    let mut connection = Connection::open(address).await?;
    let mut pace = interval_at(begin.into(), PACE);
    // What was late is not made up for: a burst would be another rate.
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for key in keys.iter().cycle() {
        pace.tick().await;
        let sent = Instant::now();
        let answer = connection.get("/", key).await?;
        let arrived = Instant::now();
        let has = |name, value: Option<&str>| {
            let field = answer.headers().get(name);
            field.is_some_and(|field| value.is_none_or(|value| field == value))
        };
        let is_substitute = has("cutover-fallback", None);
        let is_legacy = has("cutover-arm", Some("legacy"));
        {
            let mut sight = seen.lock();
            sight.bad += u64::from(answer.status() != 200);
            if arm == Arm::New {
                sight.new += 1;
                if is_substitute {
                    let first = sight.first_failure.get_or_insert(sent);
                    *first = sent.min(*first);
                } else if is_legacy {
                    sight.share_zero.get_or_insert(arrived);
                }
            }
        }
        answer.into_body().collect().await?;
    }
    Ok(())
}

/// One kept-alive connection.
pub(super) struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    host: String,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr) -> Result<Self, Impossible> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // Whoever sends learns of its end.
        tokio::spawn(async move { drop(connection.await) });
        let host = address.to_string();
        Ok(Self { sender, host })
    }

    pub(super) async fn get(
        &mut self,
        path: &str,
        user: &str,
    ) -> Result<Response<Incoming>, Impossible> {
        let request = Request::get(path)
            .header("host", &self.host)
            .header("x-user", user)
            .body(Empty::new())?;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }
}
