//! Who may come in: by the file's lists, and by what was denied by hand.
//!
//! The two are laid out together whenever one of them changes, so that a request asks once.

use std::sync::Arc;

use crate::policy::denials::Denials;
use crate::policy::time::Timestamp;

use super::World;

impl World {
    /// What was denied by hand.
    pub const fn denials(&self) -> &Arc<Denials> {
        &self.denials
    }

    /// How many networks the store had denied beyond what may be; they are let in again.
    pub const fn denials_dropped(&self) -> u64 {
        self.denials_dropped
    }

    /// Replaces what was denied by hand.
    pub fn deny_only(&mut self, denials: Denials) {
        self.next_end_of_denial = denials.next_end();
        self.denials = Arc::new(denials);
        self.lay_out_access();
    }

    /// When the next of the denials ends by itself, by the clock on the wall.
    pub const fn next_end_of_denial(&self) -> Option<Timestamp> {
        self.next_end_of_denial
    }

    pub(super) fn lay_out_access(&mut self) {
        let by_hand = self.denials.rules();
        self.access = Arc::new(self.routing.access.and(&by_hand));
    }
}
