//! How often something may happen: so many times a second, and a burst after a pause.
//!
//! A counter per second lets twice the rate through around the turn of a second, and a bucket of
//! tokens needs two numbers and their refilling. Here a single point in time is kept (GCRA, the
//! generic cell rate algorithm): when the allowance will be whole again if nothing happens. Each
//! time moves it on by the rate's interval, and it may lie ahead by at most the burst.

use std::time::Duration;

/// A rate and a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds that one time costs.
    interval: u64,
    /// Nanoseconds that the allowance may lie ahead.
    most_ahead: u64,
}

/// What is left of a burst: the point in time, in nanoseconds, when all of it is back. The default
/// is an allowance that was never used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance(u64);

impl Rate {
    /// So many times a second, and so many at once after a pause. Zero means one.
    pub fn new(per_second: u32, burst: u32) -> Self {
        Self::within(Duration::from_secs(1), per_second, burst)
    }

    /// So many times within each `span`, and so many at once after a pause. Zero means one.
    pub fn within(span: Duration, times: u32, burst: u32) -> Self {
        let interval = nanoseconds(span) / u64::from(times.max(1));
        Self {
            interval,
            most_ahead: interval.saturating_mul(u64::from(burst.max(1))),
        }
    }

    /// The allowance after one more time at `now`, which is the time since any fixed point, the same
    /// for all calls.
    ///
    /// # Errors
    /// How long to wait until there is one again; never longer than the rate's interval, unless the
    /// allowance was used at another rate.
    pub fn take(self, allowance: Allowance, now: Duration) -> Result<Allowance, Duration> {
        let now = nanoseconds(now);
        let whole_again = allowance.0.max(now).saturating_add(self.interval);
        let ahead = whole_again.saturating_sub(now);
        match ahead.checked_sub(self.most_ahead) {
            None | Some(0) => Ok(Allowance(whole_again)),
            Some(too_far) => Err(Duration::from_nanos(too_far)),
        }
    }
}

impl Allowance {
    /// Whether nothing of it is missing at `now`, so that it need not be remembered.
    pub fn is_whole(self, now: Duration) -> bool {
        self.0 <= nanoseconds(now)
    }

    /// For keeping it in an atomic.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// From an atomic.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `count` tries at `now` succeed.
    fn successes(rate: Rate, allowance: &mut Allowance, now: Duration, count: usize) -> usize {
        (0..count)
            .filter(|_| match rate.take(*allowance, now) {
                Ok(rest) => {
                    *allowance = rest;
                    true
                }
                Err(_) => false,
            })
            .count()
    }

    #[test]
    fn a_burst_is_admitted_at_once_and_then_the_rate() {
        let rate = Rate::new(10, 5);
        let mut allowance = Allowance::default();
        let mut now = Duration::from_secs(100);
        assert_eq!(successes(rate, &mut allowance, now, 50), 5);
        now += Duration::from_millis(99);
        assert_eq!(successes(rate, &mut allowance, now, 50), 0);
        now += Duration::from_millis(1);
        assert_eq!(successes(rate, &mut allowance, now, 50), 1);
        now += Duration::from_secs(3600);
        assert_eq!(successes(rate, &mut allowance, now, 50), 5, "no more");
    }

    #[test]
    fn in_the_long_run_the_rate_is_kept_exactly() {
        let rate = Rate::new(400, 1);
        let mut allowance = Allowance::default();
        let admitted: usize = (1..=10_000_u64)
            .map(|tick| successes(rate, &mut allowance, Duration::from_millis(tick), 3))
            .sum();
        // A try every millisecond meets an interval of 2.5 ms every third millisecond.
        assert_eq!(admitted, 10_000_usize.div_ceil(3));
        let mut allowance = Allowance::default();
        let admitted: usize = (1..=100_000_u64)
            .map(|tick| successes(rate, &mut allowance, Duration::from_micros(tick * 100), 3))
            .sum();
        assert_eq!(admitted, 4000);
    }

    #[test]
    fn a_refusal_costs_nothing_and_a_second_always_suffices() {
        let rate = Rate::new(1, 1);
        let mut allowance = Allowance::default();
        let now = Duration::from_secs(7);
        assert_eq!(successes(rate, &mut allowance, now, 1000), 1);
        let later = now + Duration::from_secs(1);
        assert_eq!(successes(rate, &mut allowance, later, 1000), 1);
    }

    #[test]
    fn the_wait_that_is_told_is_the_shortest_that_helps() {
        let rate = Rate::within(Duration::from_secs(60), 5, 3);
        let mut allowance = Allowance::default();
        let mut now = Duration::from_secs(100);
        assert_eq!(successes(rate, &mut allowance, now, 9), 3);
        for _ in 0..3 {
            let wait = rate.take(allowance, now).unwrap_err();
            assert_eq!(wait, Duration::from_secs(12));
            let early = now + wait - Duration::from_nanos(1);
            assert_eq!(rate.take(allowance, early), Err(Duration::from_nanos(1)));
            now += wait;
            assert_eq!(successes(rate, &mut allowance, now, 9), 1);
        }
    }

    #[test]
    fn an_allowance_is_whole_when_all_of_it_is_back() {
        let rate = Rate::new(2, 4);
        let mut allowance = Allowance::default();
        assert!(allowance.is_whole(Duration::ZERO));
        let now = Duration::from_secs(1);
        assert_eq!(successes(rate, &mut allowance, now, 4), 4);
        assert!(!allowance.is_whole(Duration::from_millis(2999)));
        assert!(allowance.is_whole(Duration::from_secs(3)));
    }
}
