//! What each request has decided, and what it leaves behind in the counts.

use std::hint::black_box;
use std::rc::Rc;
use std::time::Instant;

use cutover::config::model::{Matches, PathMatch, SplitId};
use cutover::policy::arm::Arm;
use cutover::policy::assign::{Circumstances, assign as assign_arm};
use cutover::policy::class::Class;
use cutover::policy::key::Salt;
use cutover::policy::route::Router;
use cutover::policy::share::Share;
use cutover::proxy::flights::Subject;
use http::Method;

use super::exchange::{WORKER, worker};

/// The port of an upstream that is never asked.
const NOBODY: u16 = 1;

/// From a session's key to its arm.
pub(super) fn assign() -> Box<dyn FnMut()> {
    let salt = Salt::new("checkout");
    let share = Share::from_basis_points(1_000).expect("a share");
    Box::new(move || {
        let key = black_box(b"0f8fad5b-d9cb-469f-a165-70867728950e");
        black_box(assign_arm(Circumstances {
            emergency: false,
            pinned: None,
            token: None,
            hash: Some(salt.hash(key)),
            share,
        }));
    })
}

/// The route of a tenant in the middle of so many, each with a host of its own.
pub(super) fn route(tenants: usize) -> Box<dyn FnMut()> {
    let host_of = |tenant: usize| format!("tenant-{tenant:05}.example.com");
    let routes: Vec<Matches> = (0..tenants)
        .map(|tenant| Matches {
            host: Some(host_of(tenant)),
            path: Some(PathMatch::Prefix("/api".to_owned())),
            ..Matches::default()
        })
        .collect();
    let router = Router::new(&routes);
    let host = host_of(tenants / 2);
    let fields = Default::default();
    Box::new(move || {
        let found = router.find(
            black_box(Some(&host)),
            black_box("/api/orders/4711"),
            &Method::GET,
            &fields,
        );
        assert!(black_box(found).is_some(), "the tenant has a route");
    })
}

/// A request's outcome, from its beginning to its end: two latencies, their limits, and its class.
pub(super) fn record() -> Box<dyn FnMut()> {
    let worker = worker(NOBODY);
    let view = worker.view();
    let cluster = Salt::new("api").hash(b"someone").cluster();
    Box::new(move || {
        let started = Instant::now();
        let subject = Subject {
            view: Rc::clone(&view),
            worker: WORKER,
            split: SplitId(0),
            arm: Arm::New,
            cluster: Some(black_box(cluster)),
        };
        let slot = worker.flights.add(subject, started);
        let flights = &worker.flights;
        flights.first_byte(slot, started.elapsed(), Class::Success);
        flights.finished(slot, started.elapsed(), Class::Success);
        flights.remove(slot);
    })
}
