//! One request through everything: from a client's socket through cutover to an upstream, and back.
//!
//! Client, cutover and upstream share one thread and talk over sockets of the loopback. So the code
//! that is measured is the one that serves, from `server::connection` to the pool, and no figure
//! depends on how soon another thread wakes up. Client and upstream neither parse nor allocate:
//! they read until the last bytes are those that they wait for. [`Stand::direct`] tells what they
//! cost by themselves.
//!
//! Nobody sweeps the worker, so its coarse clock stands still, no deadline passes, and each request
//! does exactly what the one before it did.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use cutover::clock::Clock;
use cutover::config;
use cutover::config::model::Opening;
use cutover::control::world::World;
use cutover::edge::{Entrance, Shared};
use cutover::policy::key::Salt;
use cutover::policy::share::Share;
use cutover::proxy::worker::Worker;
use cutover::server::acceptor::Accepted;
use cutover::server::connection;
use cutover::state::Saved;
use cutover::telemetry::WorkerId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{self, Runtime};
use tokio::task::{LocalSet, spawn_local};

/// The job of `loadtest/`: a sticky 10/90 split with its fallback armed, at the first stage of a
/// plan with four criteria of its own, and limits of every kind.
const JOB: &str = "
listeners: [{address: '127.0.0.1:0'}]
edge: {max_connections_per_address: 9000, min_rate: 512B, max_body: 2GiB}
backends:
  legacy-api: {endpoints: ['127.0.0.1:@PORT@']}
  new-api: {endpoints: ['127.0.0.1:@PORT@']}
splits:
  api:
    legacy: legacy-api
    new: new-api
    key: [{header: X-User-Id}]
    stages: [10%, 100%]
    rollout: {observe: 1d, approval: true}
    rollback:
      - error_rate > 2%
      - p95 > 5s
      - p99 > 10s
      - p95 worse than legacy by 50% for 30s
routes: [{split: api, name: api, max_requests: 9000}]
";

/// Bytes of an answer's body.
const ANSWER: usize = 1024;
/// Bytes of a posted body.
const POSTED: usize = 4096;
/// Room for the largest message.
const ROOM: usize = 16 * 1024;
/// Where a body ends: no other byte of a message is this one.
const END_OF_BODY: u8 = b'#';

/// What is asked for.
pub(crate) const TARGET: &str = "/api/orders/4711?expand=items";
/// What programs of today say with each request.
pub(crate) const FIELDS: [(&str, &str); 8] = [
    ("Host", "api.example.com"),
    (
        "User-Agent",
        "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    ),
    ("Accept", "application/json, text/plain, */*"),
    ("Accept-Language", "en-GB,en;q=0.7,de;q=0.3"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Referer", "https://shop.example.com/orders"),
    ("Origin", "https://shop.example.com"),
    (
        "Cookie",
        "session=0f8fad5bd9cb469fa16570867728950e; theme=dark",
    ),
];

/// The only worker.
pub(crate) const WORKER: WorkerId = WorkerId(0);

/// A worker that does the job before the upstream at this port.
pub(crate) fn worker(port: u16) -> Rc<Worker> {
    let text = JOB.replace("@PORT@", &port.to_string());
    let config = config::load_text(&text, Path::new("."), &|_| None).expect("it is valid");
    let clock = Clock::start();
    let (mut world, _) = World::new(clock, config, Saved::default()).expect("it can be built");
    let published = Arc::new(ArcSwap::from_pointee(world.snapshot()));
    Worker::new(WORKER, 1, clock, &published, Arc::default())
}

/// What a client says.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    text: Vec<u8>,
    /// What stands at its end and nowhere else.
    end: &'static [u8],
}

/// Asks for 1 KiB.
pub(crate) fn get() -> Question {
    Question {
        text: head("GET", "").into_bytes(),
        end: b"\r\n\r\n",
    }
}

/// Sends 4 KiB.
pub(crate) fn post() -> Question {
    let more = format!("Content-Type: application/json\r\nContent-Length: {POSTED}\r\n");
    let mut text = head("POST", &more).into_bytes();
    text.extend(body(POSTED));
    Question {
        text,
        end: &[END_OF_BODY],
    }
}

fn head(method: &str, more: &str) -> String {
    let fields = FIELDS.map(|(name, value)| format!("{name}: {value}\r\n"));
    format!(
        "{method} {TARGET} HTTP/1.1\r\n{}X-User-Id: {}\r\nConnection: keep-alive\r\n{more}\r\n",
        fields.concat(),
        user_of_new()
    )
}

/// Somebody whose requests go to `new`, where there is more to do: only there is anything rescued.
fn user_of_new() -> String {
    let share = Share::from_basis_points(1_000).expect("a share");
    let salt = Salt::new("api");
    let mut users = (0..).map(|number| format!("user-{number}"));
    let user = users.find(|user| share.contains(salt.hash(user.as_bytes()).bucket()));
    user.expect("one in ten is")
}

fn body(length: usize) -> impl Iterator<Item = u8> {
    std::iter::repeat_n(b'x', length - 1).chain([END_OF_BODY])
}

/// How the upstream's answers begin.
pub(crate) fn answer_head() -> String {
    format!(
        "HTTP/1.1 200 OK\r\n\
         Server: api/2.7\r\n\
         Date: Fri, 20 Nov 2026 12:00:00 GMT\r\n\
         Content-Type: application/json; charset=utf-8\r\n\
         Content-Length: {ANSWER}\r\n\
         Cache-Control: private, max-age=0, must-revalidate\r\n\
         ETag: \"5f3b6c1e9a2d4708\"\r\n\
         Vary: Accept-Encoding\r\n\
         Strict-Transport-Security: max-age=31536000; includeSubDomains\r\n\
         X-Content-Type-Options: nosniff\r\n\r\n"
    )
}

/// What the upstream always says.
fn answer() -> Vec<u8> {
    let mut text = answer_head().into_bytes();
    text.extend(body(ANSWER));
    text
}

/// A client with one connection, and all that answers it.
#[derive(Debug)]
pub(crate) struct Stand {
    client: TcpStream,
    question: Question,
    room: Box<[u8]>,
    /// Client connection, upstream connections and cutover between them.
    others: LocalSet,
    runtime: Runtime,
}

impl Stand {
    /// Everything: the client talks to cutover.
    pub(crate) fn proxied(question: Question) -> Self {
        Self::begin(question, |upstream, others| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
            let address = listener.local_addr().expect("bound");
            let client = std::net::TcpStream::connect(address).expect("it listens");
            let (stream, peer) = listener.accept().expect("somebody connects");
            stream.set_nonblocking(true).expect("an option");
            stream.set_nodelay(true).expect("an option");
            let accepted = Accepted {
                stream,
                peer,
                listener: 0,
                opening: Opening::Client,
            };
            let worker = worker(upstream.port());
            let entrance = Entrance::new(Rc::clone(&worker), Arc::new(Shared::default()));
            others.spawn_local(connection::serve(worker, entrance, accepted, None));
            client
        })
    }

    /// The client talks to the upstream.
    pub(crate) fn direct(question: Question) -> Self {
        Self::begin(question, |upstream, _| {
            std::net::TcpStream::connect(upstream).expect("it listens")
        })
    }

    fn begin(
        question: Question,
        connect: impl FnOnce(SocketAddr, &LocalSet) -> std::net::TcpStream,
    ) -> Self {
        let mut builder = runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().expect("a runtime");
        let within = runtime.enter();
        let others = LocalSet::new();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let upstream = listener.local_addr().expect("bound");
        others.spawn_local(serve_all(listener, question.end));
        let client = connect(upstream, &others);
        client.set_nonblocking(true).expect("an option");
        client.set_nodelay(true).expect("an option");
        let client = TcpStream::from_std(client).expect("not blocking");
        drop(within);
        Self {
            client,
            question,
            room: vec![0; ROOM].into(),
            others,
            runtime,
        }
    }

    /// Asks once, and waits for the answer.
    pub(crate) fn ask(&mut self) {
        let Self {
            client,
            question,
            room,
            ..
        } = self;
        let asked = async {
            client.write_all(&question.text).await.expect("it is read");
            assert!(
                read_until(client, &[END_OF_BODY], room).await,
                "it is answered"
            );
        };
        self.others.block_on(&self.runtime, asked);
        let is_good = self.room.starts_with(b"HTTP/1.1 200 ");
        assert!(is_good, "the answer is the upstream's");
    }
}

/// An upstream that answers all questions alike, which end with `end`.
async fn serve_all(listener: TcpListener, end: &'static [u8]) {
    listener.set_nonblocking(true).expect("an option");
    let listener = tokio::net::TcpListener::from_std(listener).expect("not blocking");
    while let Ok((mut stream, _)) = listener.accept().await {
        spawn_local(async move {
            let answer = answer();
            let mut room = vec![0; ROOM];
            while read_until(&mut stream, end, &mut room).await {
                stream.write_all(&answer).await.expect("it is read");
            }
        });
    }
}

/// Reads until what has come ends with `end`; not if the other side has closed before.
async fn read_until(stream: &mut TcpStream, end: &[u8], room: &mut [u8]) -> bool {
    let mut length = 0;
    while !room[..length].ends_with(end) {
        match stream.read(&mut room[length..]).await.expect("readable") {
            0 => return false,
            count => length += count,
        }
    }
    true
}
