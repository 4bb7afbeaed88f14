//! The servers behind, which go through one fault after the other.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use cutover::policy::arm::Arm;

use crate::harness::chance::Chance;
use crate::harness::upstream::{Place, Received, Reply, Script, Step, Upstream};

/// What a server does with the requests that it does not answer well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    Status(u16),
    Reset,
    Close,
    BreakInHead,
    Garbage,
    Hang,
    BreakInBody,
    BreakInChunk,
    StallInBody,
    TrickleBody,
    CloseKept,
    CloseInFace,
    /// Nobody listens.
    Gone,
}

impl Fault {
    /// Those of `new`. On legacy, which nobody waits for in vain, a hang would only cost time.
    const ALL: [Fault; 17] = [
        Fault::None,
        Fault::Status(500),
        Fault::Status(502),
        Fault::Status(503),
        Fault::Status(404),
        Fault::Reset,
        Fault::Close,
        Fault::BreakInHead,
        Fault::Garbage,
        Fault::Hang,
        Fault::BreakInBody,
        Fault::BreakInChunk,
        Fault::StallInBody,
        Fault::TrickleBody,
        Fault::CloseKept,
        Fault::CloseInFace,
        Fault::Gone,
    ];

    pub(super) fn any(chance: &mut Chance, arm: Arm) -> Self {
        loop {
            let fault = Self::ALL[chance.below(Self::ALL.len() as u64) as usize];
            if arm == Arm::New || !matches!(fault, Fault::Hang | Fault::StallInBody) {
                return fault;
            }
        }
    }

    /// Whether the answer's head may come without its end.
    fn may_break(self) -> bool {
        matches!(
            self,
            Fault::BreakInBody | Fault::BreakInChunk | Fault::StallInBody | Fault::TrickleBody
        )
    }

    fn script(self) -> Script {
        const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nbegun";
        const CHUNK: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n";
        let pause = Step::Pause(Duration::from_millis(5));
        match self {
            Fault::None | Fault::Gone => Script::status(200),
            Fault::Status(status) => Script::answer(Reply::new(status)),
            Fault::Reset => Script::reset(),
            Fault::Close => Script::close(),
            Fault::BreakInHead => Script::write("HTTP/1.1 200 OK\r\nConte").then(Step::Close),
            Fault::Garbage => Script::write("220 mail.example ESMTP\r\n").then(Step::Close),
            Fault::Hang => Script::hang(),
            Fault::BreakInBody => Script::write(HEAD).then(pause).then(Step::Reset),
            Fault::BreakInChunk => Script::write(CHUNK).then(pause).then(Step::Close),
            Fault::StallInBody => Script::write(HEAD).then(Step::AwaitDeparture),
            Fault::TrickleBody => {
                let trickle = [pause, Step::Write(Bytes::from("x"))];
                let trickle = trickle.into_iter().cycle().take(2 * 15);
                trickle.fold(Script::write(HEAD), Script::then)
            }
            Fault::CloseKept => Script::status(200).then(Step::Close),
            Fault::CloseInFace => Script::status(200).then(Step::CloseAtNextRequest),
        }
    }
}

/// What all servers together know of the requests.
#[derive(Default)]
pub(super) struct Notes {
    /// By target: how often a write was begun.
    pub(super) writes: HashMap<String, usize>,
    /// Targets whose answer may have broken off behind its head.
    pub(super) broken: HashSet<String>,
}

/// One server, and how it is at present.
struct Server {
    arm: Arm,
    place: Place,
    running: Option<Upstream>,
    mood: Arc<Mutex<Mood>>,
}

struct Mood {
    fault: Fault,
    chance: Chance,
}

/// Two servers of each arm.
pub(super) struct Storm {
    servers: Vec<Server>,
    notes: Arc<Mutex<Notes>>,
}

impl Storm {
    /// All well.
    pub(super) fn new(seed: u64) -> Self {
        let arms = [Arm::Legacy, Arm::Legacy, Arm::New, Arm::New];
        let servers = arms.into_iter().zip(1000..).map(|(arm, lane)| Server {
            arm,
            place: Place::new(),
            running: None,
            mood: Arc::new(Mutex::new(Mood {
                fault: Fault::None,
                chance: Chance::lane(seed, lane),
            })),
        });
        let mut storm = Self {
            servers: servers.collect(),
            notes: Arc::default(),
        };
        storm.calm(Arm::Legacy);
        storm.calm(Arm::New);
        storm
    }

    /// The endpoints of an arm, as the configuration lists them.
    pub(super) fn endpoints(&self, arm: Arm) -> [String; 2] {
        let servers = self.servers.iter().filter(|server| server.arm == arm);
        let addresses: Vec<String> = servers
            .map(|server| format!("'{}'", server.place.address()))
            .collect();
        addresses.try_into().expect("an arm has two servers")
    }

    /// One server of the arm gets another fault.
    pub(super) fn change(&mut self, chance: &mut Chance, arm: Arm) {
        let index = match arm {
            Arm::Legacy => chance.below(2),
            Arm::New => 2 + chance.below(2),
        };
        let fault = Fault::any(chance, arm);
        self.set(index as usize, fault);
    }

    /// The servers of the arm are well again.
    pub(super) fn calm(&mut self, arm: Arm) {
        for index in 0..self.servers.len() {
            if self.servers[index].arm == arm {
                self.set(index, Fault::None);
            }
        }
    }

    /// What the servers know.
    pub(super) fn notes(&self) -> MutexGuard<'_, Notes> {
        lock(&self.notes)
    }

    /// The same, for those who are elsewhere.
    pub(super) fn shared_notes(&self) -> Arc<Mutex<Notes>> {
        Arc::clone(&self.notes)
    }

    fn set(&mut self, index: usize, fault: Fault) {
        let server = &mut self.servers[index];
        lock(&server.mood).fault = fault;
        if fault == Fault::Gone {
            server.running = None;
        } else if server.running.is_none() {
            let (mood, notes) = (Arc::clone(&server.mood), Arc::clone(&self.notes));
            let name = server.arm.as_str();
            let director = move |request: &Received| direct(request, &mood, &notes);
            server.running = Some(server.place.start(name, director));
        }
    }
}

/// What is done with one request; four of five suffer from the fault.
fn direct(request: &Received, mood: &Mutex<Mood>, notes: &Mutex<Notes>) -> Script {
    let fault = {
        let mut mood = lock(mood);
        match mood.chance.below(5) {
            0 => Fault::None,
            _ => mood.fault,
        }
    };
    let mut notes = lock(notes);
    if request.method == "POST" {
        *notes.writes.entry(request.target.clone()).or_default() += 1;
    }
    if fault.may_break() {
        notes.broken.insert(request.target.clone());
    }
    fault.script()
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while holding this lock")
}
