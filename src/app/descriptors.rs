//! How many clients the process's file descriptors bear.
//!
//! Clients that may take the last descriptor leave none for those who could turn them away: the
//! admin port takes nobody in, `cutover deny` reaches nobody, and a supervisor that asks `/livez`
//! kills a process which only has many clients. So no more clients are let in than leave the rest
//! its own.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors for what comes and goes besides clients and upstreams: questions to the admin port,
/// files that are read anew, a log that is opened again, a handover.
const SPARE: u64 = 64;
/// Open files, where the system does not list them.
const OPEN_AS_A_RULE: u64 = 64;

/// Raises the process's limit as far as it may, and says how many client connections it bears beside
/// what is open now and one health check of each of `endpoints`.
pub(super) fn bearable_connections(endpoints: usize) -> usize {
    let open = fs::read_dir("/dev/fd").map_or(OPEN_AS_A_RULE, |open| open.count() as u64);
    bearable(raised_limit(), open, endpoints as u64)
}

/// The limit on descriptors, after it was raised. What is not allowed stays as it is: fewer
/// clients are no reason not to start.
fn raised_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let highest = Rlimit {
        current: limit.maximum,
        ..limit
    };
    let raised = setrlimit(Resource::Nofile, highest).map_or(limit, |()| highest);
    raised.current.unwrap_or(u64::MAX)
}

/// Half of what is left: each client may need a connection to an upstream.
fn bearable(limit: u64, open: u64, endpoints: u64) -> usize {
    let left = limit.saturating_sub(open);
    // Where there are few at all, not all of them are spared.
    let spare = SPARE.saturating_add(endpoints).min(left / 4);
    let clients = (left - spare) / 2;
    usize::try_from(clients).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_what_is_left_is_for_clients_and_somebody_is_always_let_in() {
        assert_eq!(bearable(65_536, 36, 100), 32_668);
        assert_eq!(bearable(1024, 36, 2), 461);
        assert_eq!(bearable(64, 32, 2), 12);
        for limit in 0..40 {
            assert!(bearable(limit, 36, 2) >= 1);
        }
        assert!(bearable(u64::MAX, 36, 2) > 1 << 40);
    }
}
