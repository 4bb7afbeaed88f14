//! Turns away clients whose address may not come here: 403.
//!
//! The rules are [`AddressRules`](crate::policy::addresses::AddressRules), flattened whenever a list
//! changes: what the file allows and denies, and what somebody has denied since. They are asked for
//! each request, so a change meets the connections that are open already and closes none. Where
//! nothing is listed, the client's address is not even looked up.

use crate::telemetry::edge::EdgeRefusal;

use super::{Arrival, Rule};

/// Turns away clients whose address may not come here.
#[derive(Clone, Copy, Debug)]
pub struct Access;

impl Rule for Access {
    fn admit<B>(&self, arrival: &mut Arrival<B>) -> Result<(), EdgeRefusal> {
        let rules = &arrival.view.snapshot.access;
        if !rules.admit_everybody() && !rules.admits(arrival.client()) {
            return Err(EdgeRefusal::Denied);
        }
        Ok(())
    }
}
