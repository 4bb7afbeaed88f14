//! Requests broken at random.
//!
//! Whatever a client writes, three things hold. The upstream reads well-framed requests and nothing
//! else. It reads exactly as many as the client gets answers for. And as far as the client itself
//! has kept to the rules, what arrives is what it has sent: the same requests, with the same
//! bodies, in the same order.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use tokio::runtime::Builder;

use crate::harness::client::Raw;
use crate::harness::proxy::Proxy;
use crate::harness::witness::{self, Seen, Witness, read_request};

use super::{NEXT, start};

/// Cases in a few seconds: those that leave something unfinished wait for the proxy's patience.
const CASES: u32 = 250;
/// What a client may wait for, in the proxy's configuration.
const PATIENCE: &str = "60ms";

const REQUESTS: [&str; 6] = [
    "GET /a?b=c HTTP/1.1\r\nHost: a.example\r\nAccept: */*\r\n\r\n",
    "POST /length HTTP/1.1\r\nHost: a.example\r\nContent-Length: 11\r\n\r\nhello world",
    "POST /none HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n",
    "POST /chunked HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n\
     5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
    "POST /trailers HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n\
     a\r\n0\r\n\r\nGET /\r\n0\r\nX-Sum: 1\r\n\r\n",
    "PUT /inner HTTP/1.1\r\nHost: a.example\r\nContent-Length: 37\r\n\r\n\
     GET /inner HTTP/1.1\r\nHost: a.example\r\n",
];

/// What is put into requests, or in the place of one of their bytes.
const PIECES: [&str; 32] = [
    "\r",
    "\n",
    "\r\n",
    "\r\n\r\n",
    "\0",
    " ",
    "\t",
    ":",
    ",",
    ";",
    "0",
    "1",
    "5",
    "f",
    "+",
    "-",
    "x",
    "\u{80}",
    "chunked",
    ", chunked",
    "0\r\n\r\n",
    "5\r\nhello\r\n",
    "HTTP/1.0",
    "Content-Length: 5\r\n",
    "content-length: 0\r\n",
    "Content-Length: 5, 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "Transfer-Encoding:\r\n ",
    "Host: b.example\r\n",
    "Connection: Content-Length, Transfer-Encoding, Host\r\n",
    "GET /inserted HTTP/1.1\r\nHost: a.example\r\n\r\n",
];

#[derive(Clone, Debug)]
enum Mutation {
    /// Puts a piece before a byte.
    Insert(Index, &'static str),
    /// Puts a piece at the beginning of a line, where it may be one of its own.
    InsertLine(Index, &'static str),
    /// Puts a piece in the place of a byte.
    Replace(Index, &'static str),
    /// Takes a few bytes away.
    Delete(Index, usize),
}

impl Mutation {
    fn apply(&self, wire: &mut Vec<u8>) {
        if wire.is_empty() {
            return;
        }
        let length = wire.len();
        match self {
            Self::Insert(at, piece) => {
                let at = at.index(length);
                wire.splice(at..at, super::bytes_of(piece));
            }
            Self::InsertLine(at, piece) => {
                let ends = wire.windows(2).enumerate();
                let starts = ends.filter(|(_, end)| end == b"\r\n").map(|(at, _)| at + 2);
                let starts: Vec<usize> = starts.collect();
                let at = starts.get(at.index(starts.len().max(1))).copied();
                let at = at.unwrap_or_default();
                wire.splice(at..at, super::bytes_of(piece));
            }
            Self::Replace(at, piece) => {
                let at = at.index(length);
                wire.splice(at..=at, super::bytes_of(piece));
            }
            Self::Delete(at, count) => {
                let at = at.index(length);
                wire.drain(at..(at + count).min(length));
            }
        }
    }
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let piece = || select(&PIECES[..]);
    prop_oneof![
        (any::<Index>(), piece()).prop_map(|(at, piece)| Mutation::Insert(at, piece)),
        (any::<Index>(), piece()).prop_map(|(at, piece)| Mutation::InsertLine(at, piece)),
        (any::<Index>(), piece()).prop_map(|(at, piece)| Mutation::Replace(at, piece)),
        (any::<Index>(), 1..4_usize).prop_map(|(at, count)| Mutation::Delete(at, count)),
    ]
}

fn wire() -> impl Strategy<Value = Vec<u8>> {
    let requests = prop::collection::vec(select(&REQUESTS[..]), 1..4);
    let mutations = prop::collection::vec(mutation(), 0..4);
    (requests, mutations).prop_map(|(requests, mutations)| {
        let mut wire = requests.concat().into_bytes();
        for mutation in mutations {
            mutation.apply(&mut wire);
        }
        wire
    })
}

/// The requests with which `wire` begins, as far as nobody could read them in another way or has a
/// reason to refuse them.
fn plain(mut wire: &[u8]) -> Vec<Seen> {
    let mut plain = Vec::new();
    while let Ok(Some((seen, length))) = read_request(wire) {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.';
        let is_target = |byte: u8| byte.is_ascii_alphanumeric() || b"/.-_~%?=&*".contains(&byte);
        let is_plain = seen.method.bytes().all(|byte| byte.is_ascii_uppercase())
            && seen.target.bytes().all(is_target)
            && seen.values("host")[0].bytes().all(is_name);
        if !is_plain {
            break;
        }
        // What its sender says about the connection may end it.
        let is_last = !seen.values("connection").is_empty() || !seen.trailers.is_empty();
        plain.push(seen);
        wire = &wire[length..];
        if is_last {
            break;
        }
    }
    plain
}

async fn check(proxy: &Proxy, witness: &Witness, case: &[u8]) -> Result<(), TestCaseError> {
    let before = witness.seen().len();
    let wire = [case, NEXT].concat();
    let mut client = Raw::connect(proxy.address()).await;
    client.write(&wire).await;
    let answers = client.read_to_end().await;
    prop_assert_eq!(witness.complaints(), [""; 0]);
    let statuses = witness::statuses(&answers).map_err(TestCaseError::fail)?;
    let seen = witness.seen().split_off(before);
    let answered = statuses.iter().filter(|status| **status == 200).count();
    prop_assert_eq!(seen.len(), answered, "{:?}: {:?}", statuses, seen);
    let refused = &statuses[statuses.len() - statuses.len().min(1)..];
    prop_assert!(answered + 1 >= statuses.len(), "{:?}", statuses);
    let is_refusal = |status: &u16| *status == 200 || (400..500).contains(status);
    prop_assert!(refused.iter().all(is_refusal), "{:?}", statuses);
    let sent = plain(&wire);
    prop_assert!(sent.len() <= seen.len(), "{:?} of {:?}", seen, sent);
    for (sent, seen) in sent.iter().zip(&seen) {
        let sent = (&sent.method, &sent.target, &sent.body);
        prop_assert_eq!((&seen.method, &seen.target, &seen.body), sent);
    }
    Ok(())
}

#[test]
fn whatever_a_client_writes_the_upstream_reads_what_was_answered_and_nothing_else() {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be built");
    let witness = Witness::start();
    let proxy = runtime.block_on(start(&witness, PATIENCE));
    let mut runner = TestRunner::new(Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    });
    let result = runner.run(&wire(), |case| {
        runtime.block_on(check(&proxy, &witness, &case))
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}
