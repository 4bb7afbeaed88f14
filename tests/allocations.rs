//! How often a request allocates.
//!
//! An allocation costs little and is easily overlooked; a dozen of them cost as much as all that is
//! decided about a request. So they are counted, over the whole way of a request on a connection
//! that has served others before: from the client's socket to the upstream's and back.
//!
//! The count is the process's, hence this test is a program of its own. Client and upstream live in
//! the same thread, and the first thing that is shown is that they allocate nothing.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[path = "../benches/pieces/exchange.rs"]
mod exchange;

use self::exchange::Stand;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Allocations of one request that gets 1 KiB. Who brings the figure down lowers the limit with it;
/// who raises it says in the commit what a request gets for it.
const MOST_OF_A_GET: f64 = 5.5;
/// The same of one that posts 4 KiB, which are kept in case that legacy must answer.
const MOST_OF_A_POST: f64 = 8.5;

/// Requests before those that are counted: buffers have grown, and the pool has a connection.
const FIRST: u32 = 100;
/// Requests that are counted.
const COUNTED: u32 = 1_000;

#[test]
fn a_request_allocates_as_seldom_as_is_stated() {
    for (what, mut stand, most) in [
        (
            "neither client nor upstream",
            Stand::direct(exchange::get()),
            0.0,
        ),
        ("a GET", Stand::proxied(exchange::get()), MOST_OF_A_GET),
        ("a POST", Stand::proxied(exchange::post()), MOST_OF_A_POST),
    ] {
        for _ in 0..FIRST {
            stand.ask();
        }
        let region = Region::new(ALLOCATOR);
        for _ in 0..COUNTED {
            stand.ask();
        }
        let change = region.change();
        let each = |count: usize| count as f64 / f64::from(COUNTED);
        let allocations = each(change.allocations + change.reallocations);
        println!(
            "{what}: {allocations:.2} allocations of {:.0} bytes together",
            each(change.bytes_allocated)
        );
        assert!(
            allocations <= most,
            "{what} may allocate {most} times, not {allocations:.2} times"
        );
        let kept = change.allocations.abs_diff(change.deallocations);
        assert!(
            kept < 10,
            "{what} leaves something behind: {kept} of {COUNTED}"
        );
    }
}
