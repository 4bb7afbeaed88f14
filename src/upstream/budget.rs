//! How many sent requests may be replayed.
//!
//! When `new` is drowning, every replay doubles somebody's work just when it hurts. So replays of
//! *sent* requests are paid from a balance that grows with recent traffic. Counting requests on
//! the path to find out would cost an atomic each; instead the control plane, which knows the
//! counts anyway, tops the balance up some ten times a second, and the path only ever takes.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::policy::share::Share;

/// How far back traffic counts.
const HORIZON: Duration = Duration::from_secs(10);
/// Refills closer together than this are booked as one, which bounds the memory of the horizon.
const RESOLUTION: Duration = Duration::from_millis(100);
/// The price of one replay. A share is in basis points of a request, hence ten thousand.
const REPLAY: u64 = 10_000;

/// The balance of one split.
#[derive(Debug)]
pub struct Budget {
    basis_points: u64,
    floor_per_second: u64,
    balance: AtomicU64,
    recent: Mutex<Recent>,
    /// Whether there was no traffic within the horizon.
    is_idle: AtomicBool,
}

/// Traffic of the last [`HORIZON`], oldest first.
#[derive(Debug, Default)]
struct Recent {
    spans: VecDeque<Span>,
    requests: u64,
    length: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    requests: u64,
    length: Duration,
}

impl Budget {
    /// A budget of `ratio` of the last ten seconds' requests plus `floor_per_second`; it starts
    /// with ten seconds' worth of the floor.
    pub fn new(ratio: Share, floor_per_second: u32) -> Budget {
        let budget = Budget {
            basis_points: u64::from(ratio.basis_points()),
            floor_per_second: u64::from(floor_per_second),
            balance: AtomicU64::new(0),
            recent: Mutex::default(),
            is_idle: AtomicBool::new(true),
        };
        budget
            .balance
            .store(budget.floor_over(HORIZON), Ordering::Relaxed);
        budget
    }

    /// Pays for one replay, if the balance allows it.
    pub fn try_take(&self) -> bool {
        self.balance
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |balance| {
                balance.checked_sub(REPLAY)
            })
            .is_ok()
    }

    /// Tops the balance up for `span`, in which the split had `requests`. Called by the control
    /// plane alone, about every 100 ms; never on the request path, for it takes a lock. Most splits
    /// of many are idle and their balances full, which costs two loads.
    pub fn refill(&self, requests: u64, span: Duration) {
        let is_idle = requests == 0 && self.is_idle.load(Ordering::Relaxed);
        if is_idle && self.balance.load(Ordering::Relaxed) == self.floor_over(HORIZON) {
            return;
        }
        let in_horizon = {
            // The numbers behind a poisoned lock are still numbers.
            let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            recent.add(requests, span);
            recent.requests
        };
        self.is_idle.store(in_horizon == 0, Ordering::Relaxed);
        let earned = self
            .share_of(requests)
            .saturating_add(self.floor_over(span));
        let most = self
            .share_of(in_horizon)
            .saturating_add(self.floor_over(HORIZON));
        let topped_up = |balance: u64| Some(balance.saturating_add(earned).min(most));
        // A closure that always returns a value makes `fetch_update` infallible.
        let _ = self
            .balance
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, topped_up);
    }

    fn share_of(&self, requests: u64) -> u64 {
        requests.saturating_mul(self.basis_points)
    }

    fn floor_over(&self, span: Duration) -> u64 {
        let milliseconds = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        self.floor_per_second
            .saturating_mul(milliseconds)
            .saturating_mul(REPLAY / 1000)
    }
}

impl Recent {
    fn add(&mut self, requests: u64, length: Duration) {
        // What is remembered of no requests makes no difference, and there are many idle splits.
        if requests == 0 && self.requests == 0 {
            return;
        }
        self.requests = self.requests.saturating_add(requests);
        self.length = self.length.saturating_add(length);
        match self.spans.back_mut() {
            Some(last) if last.length < RESOLUTION => {
                last.requests = last.requests.saturating_add(requests);
                last.length = last.length.saturating_add(length);
            }
            _ => self.spans.push_back(Span { requests, length }),
        }
        while let Some(oldest) = self.spans.front().copied() {
            if self.length.saturating_sub(oldest.length) < HORIZON {
                break;
            }
            self.spans.pop_front();
            self.requests = self.requests.saturating_sub(oldest.requests);
            self.length = self.length.saturating_sub(oldest.length);
        }
        if self.requests == 0 {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    fn budget(ratio: &str, floor: u32) -> Budget {
        Budget::new(ratio.parse().unwrap(), floor)
    }

    fn drain(budget: &Budget) -> usize {
        std::iter::from_fn(|| budget.try_take().then_some(())).count()
    }

    #[test]
    fn starts_with_ten_seconds_of_the_floor() {
        assert_eq!(drain(&budget("20%", 10)), 100);
        assert_eq!(drain(&budget("20%", 0)), 0);
    }

    #[test]
    fn earns_the_ratio_of_the_requests_and_the_floor() {
        let budget = budget("20%", 10);
        drain(&budget);
        budget.refill(50, TICK);
        assert_eq!(
            drain(&budget),
            11,
            "20 % of 50, and 10 per second for 0.1 s"
        );
    }

    #[test]
    fn fractions_of_a_replay_add_up() {
        let budget = budget("20%", 0);
        for _ in 0..4 {
            budget.refill(1, TICK);
            assert!(!budget.try_take());
        }
        budget.refill(1, TICK);
        assert!(budget.try_take());
        assert!(!budget.try_take());
    }

    #[test]
    fn holds_at_most_what_the_last_ten_seconds_earn() {
        let budget = budget("20%", 10);
        for _ in 0..1_000 {
            budget.refill(10, TICK);
        }
        assert_eq!(drain(&budget), 200 + 100, "20 % of 1000, and ten times 10");
    }

    #[test]
    fn traffic_older_than_ten_seconds_no_longer_counts() {
        let budget = budget("20%", 1);
        budget.refill(10_000, TICK);
        for _ in 0..100 {
            budget.refill(0, TICK);
        }
        assert_eq!(drain(&budget), 10, "only the floor is left");
    }

    #[test]
    fn a_budget_without_traffic_keeps_no_memory_and_still_earns_its_floor() {
        let budget = budget("20%", 10);
        budget.refill(1_000, TICK);
        for _ in 0..100 {
            budget.refill(0, TICK);
        }
        assert_eq!(budget.recent.lock().unwrap().spans.capacity(), 0);
        assert_eq!(drain(&budget), 100, "ten seconds of the floor");
        for _ in 0..5 {
            budget.refill(0, TICK);
        }
        assert_eq!(drain(&budget), 5);
    }

    #[test]
    fn memory_is_bounded_however_often_it_is_refilled() {
        let budget = budget("20%", 10);
        for _ in 0..100_000 {
            budget.refill(1, Duration::from_millis(1));
        }
        let recent = budget.recent.lock().unwrap();
        assert!(recent.spans.len() <= 102, "{}", recent.spans.len());
        assert!((10_000..10_200).contains(&recent.requests));
    }

    #[test]
    fn threads_together_take_no_more_than_there_is() {
        let budget = budget("0%", 1_000);
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| drain(&budget))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(taken, 10_000);
    }
}
