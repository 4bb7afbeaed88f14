//! What became of a request, for whoever writes it down.
//!
//! The access log and `Server-Timing` want to know afterwards what only the path knew: split, arm,
//! rescue, and how long upstreams took. Each request that somebody wants to know of carries one
//! note, shared between the edge that asks and the path that fills it in; others carry none.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::config::model::SplitId;
use crate::policy::arm::Arm;

/// What became of a request.
#[derive(Debug, Default)]
pub struct Course {
    assigned: Cell<Option<(SplitId, Arm)>>,
    fallback: Cell<Option<&'static str>>,
    upstream: Cell<Duration>,
}

impl Course {
    /// The split that took the request, and the arm that its session belongs to.
    pub const fn assigned(&self) -> Option<(SplitId, Arm)> {
        self.assigned.get()
    }

    /// Why legacy answered in place of `new`, if it did.
    pub const fn fallback(&self) -> Option<&'static str> {
        self.fallback.get()
    }

    /// The time spent waiting for upstreams so far, up to the heads of their answers.
    pub const fn upstream(&self) -> Duration {
        self.upstream.get()
    }

    /// The session belongs to `arm`.
    pub fn assign(&self, split: SplitId, arm: Arm) {
        self.assigned.set(Some((split, arm)));
    }

    /// Legacy is asked in place of `new`.
    pub fn fall_back(&self, reason: &'static str) {
        self.fallback.set(Some(reason));
    }

    /// From now on an upstream is waited for, until what is returned is dropped.
    pub fn watch(self: &Rc<Self>) -> Watch {
        Watch {
            course: Rc::clone(self),
            begun: Instant::now(),
        }
    }
}

/// Adds its age to a course when it is dropped.
#[derive(Debug)]
pub struct Watch {
    course: Rc<Course>,
    begun: Instant,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let before = self.course.upstream.get();
        self.course.upstream.set(before + self.begun.elapsed());
    }
}
