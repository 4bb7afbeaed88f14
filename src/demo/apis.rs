//! The two APIs behind the proxy: small, and mortal, and as bad as they are told to be.
//!
//! What an API does wrong it does to every session alike, by the number of the answer: so the part
//! that fails is what was asked for, and no matter of luck.
//!
//! Its death must be a real one. An API that answers 500 is still there; here the listener is gone
//! and open connections are reset, as if the process had been killed. Its port stays claimed
//! meanwhile by a socket that does not listen: otherwise the system could give it to somebody else,
//! even to the proxy's own connection attempt, which would then talk to itself.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::{JoinHandle, JoinSet};
use xxhash_rust::xxh3::xxh3_64;

use crate::policy::arm::Arm;

/// Connections that wait for being accepted; the proxy opens far fewer.
const BACKLOG: u32 = 256;

/// Of so many answers a part is told.
const WHOLE: u64 = 10_000;

/// How an API answers while it is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conduct {
    /// As it should.
    Sound,
    /// With a 500, so many of 10 000 times.
    Failing(u64),
    /// With a 500, and so many of 10 000 times more often with each second.
    Degrading(u64),
    /// One answer in ten takes twice as long as legacy's slowest tenth; the others are as quick as
    /// ever.
    Straggling,
    /// Not at all; requests are taken.
    Hanging,
}

/// One of the two APIs.
pub(super) struct Api {
    address: SocketAddr,
    manner: Arc<Manner>,
    /// Holds the port while nobody listens.
    _claim: TcpSocket,
    server: Option<JoinHandle<()>>,
}

impl Api {
    /// Claims a port and serves it, in a sound way.
    pub(super) fn start(arm: Arm) -> io::Result<Self> {
        let claim = socket(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let mut api = Self {
            address: claim.local_addr()?,
            manner: Arc::new(Manner::sound(arm)),
            _claim: claim,
            server: None,
        };
        api.revive()?;
        Ok(api)
    }

    /// Where it listens, unless it is dead.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers like this from now on.
    pub(super) fn behave(&self, conduct: Conduct) {
        self.manner.change(conduct);
    }

    /// How many of its answers were errors so far.
    pub(super) fn errors(&self) -> u64 {
        self.manner.errors.load(Ordering::Relaxed)
    }

    /// Dies: nobody listens any more, and whoever is connected is reset.
    pub(super) async fn die(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            // Ends with the cancellation just asked for.
            let _ = server.await;
        }
    }

    /// Listens at the same address again.
    pub(super) fn revive(&mut self) -> io::Result<()> {
        let listener = socket(self.address)?.listen(BACKLOG)?;
        self.server = Some(tokio::spawn(serve(listener, Arc::clone(&self.manner))));
        Ok(())
    }
}

/// A socket bound to `address` that tolerates another of ours there.
fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// What all connections to an API share.
struct Manner {
    arm: Arm,
    /// With the moment from which on it is so.
    conduct: Mutex<(Conduct, Instant)>,
    answers: AtomicU64,
    errors: AtomicU64,
}

impl Manner {
    fn sound(arm: Arm) -> Self {
        Self {
            arm,
            conduct: Mutex::new((Conduct::Sound, Instant::now())),
            answers: AtomicU64::new(0),
            errors: AtomicU64::new(0),
        }
    }

    fn change(&self, conduct: Conduct) {
        // A pair is whole whoever panicked beside it.
        let mut present = self.conduct.lock().unwrap_or_else(PoisonError::into_inner);
        *present = (conduct, Instant::now());
    }

    /// What becomes of the next request.
    fn next_fate(&self) -> Fate {
        let number = self.answers.fetch_add(1, Ordering::Relaxed);
        let (conduct, since) = *self.conduct.lock().unwrap_or_else(PoisonError::into_inner);
        let fate = Fate::of(self.arm, conduct, since.elapsed(), number);
        if fate == Fate::Error {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
        fate
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answer { after: Duration },
    Error,
    Silence,
}

impl Fate {
    fn of(arm: Arm, conduct: Conduct, lasted: Duration, number: u64) -> Self {
        let random = xxh3_64(&number.to_le_bytes());
        let failing = match conduct {
            Conduct::Sound | Conduct::Straggling => 0,
            Conduct::Failing(part) => part,
            // A part of 10 000 is far from the bounds of any integer for as long as anyone waits.
            Conduct::Degrading(part) => (part as f64 * lasted.as_secs_f64()) as u64,
            Conduct::Hanging => return Fate::Silence,
        };
        if (random >> 32) % WHOLE < failing {
            return Fate::Error;
        }
        Fate::Answer {
            after: latency(arm, conduct, random),
        }
    }
}

/// How long an answer takes: a few milliseconds, one in ten some tens more, and `new` a little
/// quicker, as everybody hopes.
fn latency(arm: Arm, conduct: Conduct, random: u64) -> Duration {
    let is_straggler = (random >> 20).is_multiple_of(10);
    let (quickest, spread) = match (arm, is_straggler) {
        (Arm::Legacy, false) => (3_000, 8_000),
        (Arm::New, false) => (2_000, 5_000),
        (Arm::Legacy, true) => (25_000, 20_000),
        (Arm::New, true) if conduct == Conduct::Straggling => (50_000, 40_000),
        (Arm::New, true) => (20_000, 15_000),
    };
    Duration::from_micros(quickest + random % spread)
}

async fn serve(listener: TcpListener, manner: Arc<Manner>) {
    // Dropped, and with it every connection, when this task is.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                // Without lingering a dropped connection is reset instead of politely closed.
                let _ = stream.set_zero_linger();
                let _ = stream.set_nodelay(true);
                let manner = Arc::clone(&manner);
                let service = service_fn(move |request| {
                    answer(manner.arm, manner.next_fate(), request)
                });
                connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(
    arm: Arm,
    fate: Fate,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = serde_json::json!({ "api": arm, "path": request.uri().path() });
    let mut response = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    let json = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    match fate {
        Fate::Answer { after } => tokio::time::sleep(after).await,
        Fate::Error => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
        // Ends with its connection.
        Fate::Silence => std::future::pending().await,
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::caller::Caller;

    #[tokio::test]
    async fn a_dead_api_resets_its_callers_and_comes_back_at_its_address() {
        let mut api = Api::start(Arm::New).unwrap();
        let mut caller = Caller::new(api.address());
        let answer = caller.get("/orders/7", None).await.unwrap();
        assert_eq!(
            &answer.body[..],
            b"{\"api\":\"new\",\"path\":\"/orders/7\"}\n"
        );

        api.die().await;
        assert!(caller.get("/", None).await.is_err());
        let refused = tokio::net::TcpStream::connect(api.address()).await;
        assert_eq!(
            refused.unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );

        api.revive().unwrap();
        assert!(caller.get("/", None).await.is_ok());
    }

    /// The answers of a conduct that has lasted for ten seconds.
    fn fates(arm: Arm, conduct: Conduct) -> Vec<Fate> {
        let lasted = Duration::from_secs(10);
        let fate = |number| Fate::of(arm, conduct, lasted, number);
        (0..10_000).map(fate).collect()
    }

    fn errors(conduct: Conduct) -> usize {
        let fates = fates(Arm::New, conduct);
        fates.iter().filter(|fate| **fate == Fate::Error).count()
    }

    fn quantile(arm: Arm, conduct: Conduct, part: f64) -> f64 {
        let mut times: Vec<Duration> = fates(arm, conduct)
            .into_iter()
            .filter_map(|fate| match fate {
                Fate::Answer { after } => Some(after),
                Fate::Error | Fate::Silence => None,
            })
            .collect();
        times.sort();
        times[(times.len() as f64 * part) as usize].as_secs_f64()
    }

    #[test]
    fn as_many_answers_fail_as_were_asked_for() {
        assert_eq!(errors(Conduct::Sound), 0);
        assert!((4_800..5_200).contains(&errors(Conduct::Failing(5_000))));
        assert!((150..250).contains(&errors(Conduct::Failing(200))));
        assert!((400..600).contains(&errors(Conduct::Degrading(50))));
    }

    #[test]
    fn stragglers_double_the_95th_percentile_and_leave_the_median() {
        let legacy = quantile(Arm::Legacy, Conduct::Sound, 0.95);
        let straggling = quantile(Arm::New, Conduct::Straggling, 0.95);
        assert!((1.9..2.1).contains(&(straggling / legacy)));
        let medians =
            [Conduct::Sound, Conduct::Straggling].map(|conduct| quantile(Arm::New, conduct, 0.5));
        assert!((medians[0] - medians[1]).abs() < f64::EPSILON);
        assert!(quantile(Arm::New, Conduct::Sound, 0.95) < legacy);
    }
}
