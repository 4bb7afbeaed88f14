//! The ages of the requests in flight on one worker.
//!
//! A request that hangs must count as slow when it reaches the threshold's age, not when it ends:
//! waiting for the end would make the first seconds of a slow `new` look fast. And a stream that
//! has been healthy for ten seconds is a success, long before it ends. So every worker looks
//! through its requests in flight and books what their age has decided.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use slab::Slab;

use crate::config::model::SplitId;
use crate::policy::arm::Arm;
use crate::policy::class::Class;
use crate::policy::key::Cluster;
use crate::telemetry::WorkerId;
use crate::telemetry::tally::{ArmTally, Measure, SplitTally};

use super::worker::View;

/// A stream this old, without an error, is booked with the class its head promised.
const HEALTHY_STREAM_AGE: Duration = Duration::from_secs(10);

/// Whose outcome a request is.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The view that the request was assigned in.
    pub view: Rc<View>,
    /// The worker that counts.
    pub worker: WorkerId,
    /// The split.
    pub split: SplitId,
    /// The arm that was assigned.
    pub arm: Arm,
    /// Absent where the request is no evidence: overridden or keyless.
    pub cluster: Option<Cluster>,
}

impl Subject {
    /// The counters of the split.
    pub fn split_tally(&self) -> &SplitTally {
        &self.view.snapshot.routing.split(self.split).tally
    }

    /// The counters of the assigned arm.
    pub fn arm_tally(&self) -> &ArmTally {
        self.split_tally().arm(self.worker, self.arm)
    }
}

/// One request in flight.
#[derive(Debug)]
struct Flight {
    subject: Subject,
    started: Instant,
    /// By [`Measure::index`]; bit i: latency threshold i is not decided yet.
    undecided: [u8; Measure::ALL.len()],
    /// The class that the head promised, once there is a head and nothing is booked.
    promised: Option<Class>,
    /// Whether the head promised no error.
    promised_well: bool,
    is_booked: bool,
}

/// The requests in flight on one worker.
#[derive(Debug, Default)]
pub struct Flights {
    entries: RefCell<Slab<Flight>>,
}

/// A place among the requests in flight.
#[derive(Clone, Copy, Debug)]
pub struct Slot(usize);

impl Flights {
    /// A request begins.
    pub fn add(&self, subject: Subject, started: Instant) -> Slot {
        let thresholds = subject.split_tally().thresholds();
        let undecided = Measure::ALL.map(|measure| (1_u8 << thresholds.on(measure).len()) - 1);
        Slot(self.entries.borrow_mut().insert(Flight {
            subject,
            started,
            undecided,
            promised: None,
            promised_well: false,
            is_booked: false,
        }))
    }

    /// The first byte has come at `age`, promising `class`: every threshold on it is decided, and so
    /// is an error.
    pub fn first_byte(&self, slot: Slot, age: Duration, class: Class) {
        let mut entries = self.entries.borrow_mut();
        let flight = &mut entries[slot.0];
        if class.is_error() {
            flight.fail(age, class);
            return;
        }
        flight.answer(Measure::FirstByte, age);
        flight.promised = Some(class);
        flight.promised_well = true;
    }

    /// The arm failed at `age` without an answer that counts.
    pub fn failed(&self, slot: Slot, age: Duration, class: Class) {
        let mut entries = self.entries.borrow_mut();
        entries[slot.0].fail(age, class);
    }

    /// The answer ended whole at `age`, with `class`.
    pub fn finished(&self, slot: Slot, age: Duration, class: Class) {
        let mut entries = self.entries.borrow_mut();
        let flight = &mut entries[slot.0];
        if !flight.promised_well {
            // The end of an error is no news: its head has decided everything.
            return;
        }
        if !class.is_error() {
            flight.answer(Measure::Total, age);
        } else {
            flight.give_up(Measure::Total, age);
            if flight.is_booked {
                // Booked a success by its age, and then its trailers said otherwise.
                let cluster = flight.subject.cluster;
                flight.subject.arm_tally().book(class, cluster);
            }
        }
        flight.book(class);
    }

    /// The proxy ended the answer, at `age`: the arm has kept what the head promised, and nobody
    /// knows how long it would have gone on.
    pub fn cut_short(&self, slot: Slot, age: Duration) {
        let mut entries = self.entries.borrow_mut();
        let flight = &mut entries[slot.0];
        flight.decide_reached(Measure::Total, age);
        if let Some(class) = flight.promised {
            flight.book(class);
        }
    }

    /// The answer broke off at `age`, after its head.
    pub fn truncated(&self, slot: Slot, age: Duration) {
        let mut entries = self.entries.borrow_mut();
        let flight = &mut entries[slot.0];
        if !flight.promised_well {
            // Booked as the error that its head was; it is not another one.
            return;
        }
        flight.give_up(Measure::Total, age);
        if flight.is_booked {
            let cluster = flight.subject.cluster;
            flight.subject.arm_tally().book_late_truncation(cluster);
        } else {
            flight.book(Class::Transport);
        }
    }

    /// The request turned out to be no request to this arm: nothing is booked.
    pub fn dismiss(&self, slot: Slot) {
        let mut entries = self.entries.borrow_mut();
        let flight = &mut entries[slot.0];
        flight.undecided = Default::default();
        flight.is_booked = true;
    }

    /// The request is over. What nobody booked was cancelled by the client: that decides no
    /// threshold, except those whose age it has reached since the last sweep.
    pub fn remove(&self, slot: Slot) {
        let mut flight = self.entries.borrow_mut().remove(slot.0);
        if flight.undecided != [0; Measure::ALL.len()] {
            let age = flight.started.elapsed();
            for measure in Measure::ALL {
                flight.decide_reached(measure, age);
            }
        }
        flight.book(Class::Cancelled);
    }

    /// Books what age alone has decided by `now`.
    pub fn sweep(&self, now: Instant) {
        for (_, flight) in self.entries.borrow_mut().iter_mut() {
            let age = now.saturating_duration_since(flight.started);
            for measure in Measure::ALL {
                flight.decide_reached(measure, age);
            }
            if age >= HEALTHY_STREAM_AGE
                && let Some(class) = flight.promised
            {
                flight.book(class);
            }
        }
    }
}

impl Flight {
    /// Books that what is measured came at `age`, and with it every threshold.
    fn answer(&mut self, measure: Measure, age: Duration) {
        self.decide_reached(measure, age);
        self.decide_rest(measure);
        self.record(measure, age);
    }

    /// Books a failure of the whole request.
    fn fail(&mut self, age: Duration, class: Class) {
        for measure in Measure::ALL {
            self.give_up(measure, age);
        }
        self.book(class);
    }

    /// Books that what is measured will never come. A failure younger than a threshold says nothing
    /// about that threshold, and nothing about quantiles: fast errors are not fast answers. But one
    /// that has reached a threshold's age was slow, whatever else it was.
    fn give_up(&mut self, measure: Measure, age: Duration) {
        self.decide_reached(measure, age);
        self.undecided[measure.index()] = 0;
        let thresholds = self.subject.split_tally().thresholds().on(measure);
        if thresholds.iter().any(|threshold| age >= *threshold) {
            self.record(measure, age);
        }
    }

    /// Books an exceedance of every undecided threshold that `age` has reached.
    fn decide_reached(&mut self, measure: Measure, age: Duration) {
        let undecided = &mut self.undecided[measure.index()];
        if *undecided == 0 {
            return;
        }
        let thresholds = self.subject.split_tally().thresholds().on(measure);
        for (index, threshold) in thresholds.iter().enumerate() {
            if *undecided & (1 << index) != 0 && age >= *threshold {
                let cluster = self.subject.cluster;
                let tally = self.subject.arm_tally();
                tally.latency(measure, index, true, cluster);
                *undecided &= !(1 << index);
            }
        }
    }

    /// Books every threshold that is left as kept.
    fn decide_rest(&mut self, measure: Measure) {
        let undecided = &mut self.undecided[measure.index()];
        while *undecided != 0 {
            let index = undecided.trailing_zeros() as usize;
            let cluster = self.subject.cluster;
            let tally = self.subject.arm_tally();
            tally.latency(measure, index, false, cluster);
            *undecided &= *undecided - 1;
        }
    }

    /// A quantile speaks of the same requests as the counts: of those that are evidence.
    fn record(&self, measure: Measure, age: Duration) {
        if self.subject.cluster.is_some() {
            let tally = self.subject.arm_tally();
            match measure {
                Measure::FirstByte => tally.first_byte(age),
                Measure::Total => tally.total(age),
            }
        }
    }

    fn book(&mut self, class: Class) {
        if !std::mem::replace(&mut self.is_booked, true) {
            self.subject.arm_tally().book(class, self.subject.cluster);
        }
        self.promised = None;
    }
}
