//! The faults, and the servers that have them.

use std::time::Duration;

use bytes::Bytes;

use crate::harness::upstream::{Received, Refusing, Script, Silent, Step, Upstream};

/// What can be wrong with an upstream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    /// Its backend, and part of its splits' names.
    pub(super) name: &'static str,
    /// Whether the request reaches the server; where not, it cannot have been executed.
    pub(super) is_sent: bool,
    /// What the client sees where nobody rescues it.
    pub(super) expected: Expected,
    /// What an attempt is counted as; `None` where it has begun well, and it is too late for another.
    pub(super) reason: Option<&'static str>,
    /// What the request is booked as.
    pub(super) class: &'static str,
    /// The backend's, so that a test need not wait for the usual ones.
    pub(super) timeouts: &'static str,
}

/// What a client sees.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expected {
    Status(u16),
    Truncated,
}

const PATIENT: &str = "connect: 10s, first_byte: 20s";
const IMPATIENT: &str = "connect: 10s, first_byte: 300ms";
/// Time in which a head is surely handed on: until then what breaks off can be taken back, which is
/// another test's subject.
const LATER: Duration = Duration::from_secs(2);
const STRICT: &str = "connect: 10s, first_byte: 20s, body_idle: 300ms";

/// Nobody can be reached there.
const fn unreachable(name: &'static str, status: u16, reason: &'static str) -> Fault {
    Fault {
        is_sent: false,
        timeouts: "connect: 300ms",
        ..unanswered(name, status, reason)
    }
}

/// The request is taken, and no answer comes of it.
const fn unanswered(name: &'static str, status: u16, reason: &'static str) -> Fault {
    Fault {
        name,
        is_sent: true,
        expected: Expected::Status(status),
        reason: Some(reason),
        class: "transport",
        timeouts: PATIENT,
    }
}

/// No answer comes in time.
const fn late(name: &'static str) -> Fault {
    Fault {
        timeouts: IMPATIENT,
        ..unanswered(name, 504, "first_byte_timeout")
    }
}

/// The answer begins and does not go on.
const fn unfinished(name: &'static str) -> Fault {
    Fault {
        expected: Expected::Truncated,
        reason: None,
        timeouts: STRICT,
        ..unanswered(name, 0, "")
    }
}

/// The answer begins, and breaks off when it is too late to take it back.
const fn broken(name: &'static str) -> Fault {
    Fault {
        timeouts: PATIENT,
        ..unfinished(name)
    }
}

/// The answer is an error, or none at all.
const fn answered(
    name: &'static str,
    status: u16,
    reason: Option<&'static str>,
    class: &'static str,
) -> Fault {
    Fault {
        reason,
        class,
        ..unanswered(name, status, "")
    }
}

pub(super) const FAULTS: [Fault; 26] = [
    unreachable("refused", 502, "connect"),
    unreachable("silent", 504, "connect_timeout"),
    Fault {
        timeouts: PATIENT,
        ..unreachable("unnamed", 502, "connect")
    },
    unanswered("reset", 502, "reset"),
    unanswered("closed", 502, "reset"),
    unanswered("reset-unread", 502, "reset"),
    unanswered("closed-in-head", 502, "reset"),
    unanswered("reset-in-head", 502, "reset"),
    unanswered("garbage", 502, "invalid_response"),
    unanswered("endless-head", 502, "invalid_response"),
    unanswered("endless-line", 502, "invalid_response"),
    late("hanging"),
    late("hanging-in-head"),
    late("trickling-head"),
    broken("reset-after-head"),
    broken("closed-after-head"),
    broken("reset-in-body"),
    broken("closed-in-body"),
    broken("reset-in-chunk"),
    broken("closed-between-chunks"),
    broken("broken-chunk"),
    unfinished("hanging-after-head"),
    unfinished("hanging-in-body"),
    answered("overloaded", 503, Some("status"), "server_error"),
    answered(
        "overloaded-and-closing",
        503,
        Some("status"),
        "server_error",
    ),
    // Slow, but never silent for long.
    answered("trickling-body", 200, None, "success"),
];

const HEAD: &str = "HTTP/1.1 200 OK\r\nServed-By: faulty\r\nContent-Length: 20\r\n\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n";

/// What the server does with a request for the split of a fault.
fn fail(request: &Received) -> Script {
    let split = request.target.trim_start_matches('/');
    let (fault, _arm) = split.rsplit_once('-').expect("a split's name");
    let later = |begun: Script, end| begun.then(Step::Pause(LATER)).then(end);
    let begun = || Script::write(HEAD).then(Step::Write(Bytes::from("begun")));
    match fault {
        "reset" => Script::reset(),
        "closed" => Script::close(),
        "reset-unread" => Script::of([Step::Reset]),
        "closed-in-head" => Script::write("HTTP/1.1 200 OK\r\nContent-Le").then(Step::Close),
        "reset-in-head" => Script::write("HTTP/1.1 200 OK\r\nContent-Le").then(Step::Reset),
        "garbage" => Script::write("220 mail.example ESMTP\r\n"),
        "endless-head" => Script::write("HTTP/1.1 200 OK\r\n".to_owned() + &endless("A: b\r\n")),
        "endless-line" => Script::write("HTTP/1.1 200 OK\r\nA: ".to_owned() + &endless("x")),
        "hanging" => Script::hang(),
        "hanging-in-head" => {
            Script::write("HTTP/1.1 200 OK\r\nContent-Le").then(Step::AwaitDeparture)
        }
        "trickling-head" => trickle("HTTP/1.1 200 OK\r\n", "A: b\r\n", 10_000),
        "reset-after-head" => later(Script::write(HEAD), Step::Reset),
        "closed-after-head" => later(Script::write(HEAD), Step::Close),
        "reset-in-body" => later(begun(), Step::Reset),
        "closed-in-body" => later(begun(), Step::Close),
        "reset-in-chunk" => later(Script::write(CHUNKED.to_owned() + "20\r\nbe"), Step::Reset),
        "closed-between-chunks" => later(Script::write(CHUNKED), Step::Close),
        "broken-chunk" => later(Script::write(CHUNKED), Step::Write("no number\r\n".into())),
        "hanging-after-head" => Script::write(HEAD).then(Step::AwaitDeparture),
        "hanging-in-body" => begun().then(Step::AwaitDeparture),
        "overloaded" => Script::status(503),
        "overloaded-and-closing" => Script::status(503).then(Step::Close),
        "trickling-body" => trickle(HEAD, "x", 20),
        other => panic!("{other} does not reach this server"),
    }
}

/// More than any head may have.
fn endless(piece: &str) -> String {
    piece.repeat(1024 * 1024 / piece.len())
}

/// One piece after the other, each a little later.
fn trickle(beginning: &'static str, piece: &'static str, pieces: usize) -> Script {
    let pause = Step::Pause(Duration::from_millis(10));
    let steps = [pause, Step::Write(Bytes::from(piece))];
    let trickle = steps.into_iter().cycle().take(2 * pieces);
    trickle.fold(Script::write(beginning), Script::then)
}

/// All that stands behind the proxy.
pub(super) struct Servers {
    pub(super) well: Upstream,
    faulty: Upstream,
    refusing: Refusing,
    silent: Silent,
}

impl Servers {
    pub(super) fn start() -> Self {
        Self {
            well: Upstream::ok("well"),
            faulty: Upstream::start("faulty", fail),
            refusing: Refusing::new(),
            silent: Silent::new(),
        }
    }

    /// Where the fault is.
    pub(super) fn endpoint(&self, fault: Fault) -> String {
        match fault.name {
            "refused" => self.refusing.address().to_string(),
            "silent" => self.silent.address().to_string(),
            // No resolver may know it (RFC 6761).
            "unnamed" => "nobody.invalid:80".to_owned(),
            _ => self.faulty.address().to_string(),
        }
    }

    /// How many connections are open at the servers.
    pub(super) fn open_connections(&self) -> usize {
        self.well.open_connections() + self.faulty.open_connections()
    }
}
