//! How long until it is proven?
//!
//! "Inconclusive" is no answer at three in the morning; "about 90 more requests" is one. What is
//! lacking, in nats, divided by what a request lately brought. The last minutes count, not the
//! whole stage: what matters is whether it is getting anywhere now.

use serde::{Deserialize, Serialize};

/// Older observations have lost most of their weight.
const MEMORY_SECONDS: f64 = 300.0;

/// What the last minutes brought, older ones fading.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Pace {
    /// Nats per alternative.
    nats: Vec<f64>,
    requests: f64,
    seconds: f64,
}

/// What is still to come until something is proven, if the present pace goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Requests of `new`.
    pub requests: f64,
    /// The time that these take at the present rate.
    pub seconds: f64,
}

impl Pace {
    /// Takes in what `requests` over `seconds` brought to each alternative.
    pub(super) fn observe(
        &mut self,
        nats: impl ExactSizeIterator<Item = f64>,
        requests: u64,
        seconds: f64,
    ) {
        let seconds = seconds.max(0.0);
        let fade = (-seconds / MEMORY_SECONDS).exp();
        self.nats.resize(nats.len(), 0.0);
        for (sum, nats) in self.nats.iter_mut().zip(nats) {
            *sum = *sum * fade + nats;
        }
        self.requests = self.requests * fade + requests as f64;
        self.seconds = self.seconds * fade + seconds;
    }

    /// When the first alternative will have what it lacks. None if none is on its way there.
    pub(super) fn estimate(&self, lacking_nats: impl Iterator<Item = f64>) -> Option<Estimate> {
        if self.requests <= 0.0 {
            return None;
        }
        let seconds_per_request = self.seconds / self.requests;
        let rising = self.nats.iter().zip(lacking_nats);
        rising
            .filter(|(nats, _)| **nats > 0.0)
            .map(|(nats, lacking)| lacking.max(0.0) * self.requests / nats)
            .reduce(f64::min)
            .map(|requests| Estimate {
                requests,
                seconds: requests * seconds_per_request,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_takes_as_long_as_the_quickest_alternative_needs() {
        let mut pace = Pace::default();
        assert_eq!(pace.estimate([1.0].into_iter()), None, "no request yet");
        for _ in 0..1_000 {
            pace.observe([0.1, 0.05, -1.0].into_iter(), 10, 1.0);
        }
        let estimate = pace.estimate([3.0, 2.0, 0.1].into_iter()).expect("rising");
        assert!((estimate.requests - 300.0).abs() < 1e-6, "{estimate:?}");
        assert!((estimate.seconds - 30.0).abs() < 1e-6, "{estimate:?}");
    }

    #[test]
    fn only_the_last_minutes_count() {
        let mut pace = Pace::default();
        for _ in 0..3_600 {
            pace.observe([0.1].into_iter(), 10, 1.0);
        }
        for _ in 0..1_800 {
            pace.observe([-0.1].into_iter(), 10, 1.0);
        }
        assert_eq!(pace.estimate([3.0].into_iter()), None);
    }
}
