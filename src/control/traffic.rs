//! How much traffic a split has had lately.
//!
//! Whoever saves a plan wants to hear at once that its traffic is too small for it, not a day
//! later. A rate over a few seconds would say so of every quiet moment, so older seconds fade slowly,
//! and nothing is said before there was a minute of them.

use std::time::Duration;

/// Older requests have lost most of their weight.
const MEMORY_SECONDS: f64 = 600.0;
/// Less says nothing about a rate.
const ENOUGH_SECONDS: f64 = 60.0;

/// Requests over the time in which they came, older ones fading.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    requests: f64,
    seconds: f64,
}

impl Traffic {
    /// Takes in the requests of the last `span`.
    pub(super) fn observe(&mut self, requests: u64, span: Duration) {
        let seconds = span.as_secs_f64();
        let fade = (-seconds / MEMORY_SECONDS).exp();
        self.requests = self.requests * fade + requests as f64;
        self.seconds = self.seconds * fade + seconds;
    }

    /// Requests per second; none before enough was seen.
    pub(super) fn rate(self) -> Option<f64> {
        (self.seconds >= ENOUGH_SECONDS).then(|| self.requests / self.seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_told_after_a_minute_and_follows_what_comes() {
        let mut traffic = Traffic::default();
        let mut seconds = |count, requests| {
            for _ in 0..count {
                traffic.observe(requests, Duration::from_secs(1));
            }
            traffic.rate()
        };
        assert_eq!(seconds(59, 5), None);
        let steady = seconds(60, 5).expect("enough");
        assert!((steady - 5.0).abs() < 1e-9, "{steady}");
        let later = seconds(7_200, 1).expect("enough");
        assert!((later - 1.0).abs() < 0.01, "{later}");
    }
}
