//! What ends a long answer of `new` some time after its split has left `new`.
//!
//! A rollback moves no request in flight: most end by themselves within the second. But a stream
//! may last for hours, and its client would stay for hours on an arm that was found to be harmful.
//! So streams get a grace, counted from the rollback or emergency, and are then closed, visibly.

use std::rc::Rc;
use std::sync::Arc;

use crate::config::model::SplitId;

use super::worker::{View, Worker};

/// Ties a stream of `new` to what its split obeys now, whatever it obeyed when the stream began.
#[derive(Debug)]
pub struct Leash {
    worker: Rc<Worker>,
    view: Rc<View>,
    split: SplitId,
}

impl Leash {
    /// For an answer that began in `view`.
    pub fn new(worker: &Rc<Worker>, view: &Rc<View>, split: SplitId) -> Self {
        Self {
            worker: Rc::clone(worker),
            view: Rc::clone(view),
            split,
        }
    }

    /// Whether the split's streams have had their time.
    pub fn is_over(&self) -> bool {
        if !self.worker.ends_streams() {
            return false;
        }
        let newest = &self.worker.view().snapshot;
        let began = &self.view.snapshot;
        let split = if Arc::ptr_eq(&newest.routing, &began.routing) {
            self.split
        } else {
            // Another configuration may count its splits otherwise, or not know this one; then
            // nobody would ever end the stream but its two ends.
            let name = &began.routing.split(self.split).name;
            let mut splits = (0_u16..).zip(&newest.routing.splits);
            let Some((index, _)) = splits.find(|(_, plan)| plan.name == *name) else {
                return false;
            };
            SplitId(index)
        };
        let end = newest.streams_end(split);
        end.is_some_and(|end| end <= self.worker.deadlines.now())
    }
}
