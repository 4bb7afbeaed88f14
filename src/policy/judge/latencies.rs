//! Durations of a window in the fixed buckets, and where legacy's quantiles lie.
//!
//! "As slow as legacy's 95th percentile" has no meaning until one says legacy *when*. The quantile
//! must come from earlier windows than the one it is held against, or a window would choose its own
//! yardstick; and it must forget, or the night's latency would judge the day's. So [`Yardstick`]
//! keeps legacy's durations fading, and gives edges of buckets: nothing is interpolated, so every
//! replica finds the same edge.

use serde::{Deserialize, Serialize};

/// Buckets of the histogram: one below each of 641 edges, and one above the last.
pub const BUCKETS: usize = 642;

/// Edges between a duration and its double; edge `i` is 0.1 ms · 2^(i / 32).
const EDGES_PER_OCTAVE: f64 = 32.0;
/// The bucket above the last edge: nothing can be shown to be slower.
const ENDLESS: usize = BUCKETS - 1;
/// Old durations lose half their weight in this time.
const HALF_LIFE_SECONDS: f64 = 600.0;
/// Fewer requests of legacy than these have no quantile worth comparing with.
const LEAST_REQUESTS: f64 = 100.0;

/// How many durations fell into each bucket, the empty ones left out: a reading, or a window's
/// difference of two. It is additive, so a fleet's is the sum of its members'.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Latencies {
    /// Buckets with their counts, in rising order, none of them zero.
    counts: Vec<(u16, u64)>,
}

impl Latencies {
    /// From the count of each bucket, in their order.
    ///
    /// # Panics
    /// With more than [`BUCKETS`] buckets.
    pub fn from_buckets(buckets: impl IntoIterator<Item = u64>) -> Self {
        let mut counts = Vec::new();
        for (bucket, count) in buckets.into_iter().enumerate() {
            assert!(bucket < BUCKETS, "the buckets are the same everywhere");
            if count > 0 {
                counts.push((bucket as u16, count));
            }
        }
        Self { counts }
    }

    /// Counts `count` durations in `bucket`.
    ///
    /// # Panics
    /// If `bucket` is not below [`BUCKETS`].
    pub fn record(&mut self, bucket: usize, count: u64) {
        assert!(bucket < BUCKETS, "the buckets are the same everywhere");
        if count == 0 {
            return;
        }
        let bucket = bucket as u16;
        match self.counts.binary_search_by_key(&bucket, |entry| entry.0) {
            Ok(place) => self.counts[place].1 += count,
            Err(place) => self.counts.insert(place, (bucket, count)),
        }
    }

    /// Adds what was counted elsewhere or later.
    pub fn add(&mut self, more: &Latencies) {
        for (bucket, count) in &more.counts {
            self.record(usize::from(*bucket), *count);
        }
    }

    /// What was counted after `earlier`, an older reading of the same counters.
    #[must_use]
    pub fn since(&self, earlier: &Latencies) -> Latencies {
        let mut before = earlier.counts.iter().peekable();
        let counts = self.counts.iter().filter_map(|(bucket, count)| {
            while before.next_if(|entry| entry.0 < *bucket).is_some() {}
            let then = before
                .next_if(|entry| entry.0 == *bucket)
                .map_or(0, |entry| entry.1);
            Some((*bucket, count.saturating_sub(then))).filter(|entry| entry.1 > 0)
        });
        Latencies {
            counts: counts.collect(),
        }
    }

    /// How many durations there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|entry| entry.1).sum()
    }

    /// How many are longer than the upper edge of `bucket`.
    pub(super) fn beyond(&self, bucket: usize) -> u64 {
        let longer = self.counts.iter().rev();
        longer
            .take_while(|entry| usize::from(entry.0) > bucket)
            .map(|entry| entry.1)
            .sum()
    }
}

/// Beyond which bucket a request counts as slow, on either arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cut {
    pub(super) legacy: usize,
    pub(super) new: usize,
}

/// Legacy's durations, old ones fading.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Yardstick {
    /// Weight per bucket; empty until something was learnt.
    weights: Vec<f64>,
}

impl Yardstick {
    /// Takes in legacy's durations over `seconds`.
    pub(super) fn learn(&mut self, latencies: &Latencies, seconds: f64) {
        if self.weights.is_empty() {
            if latencies.counts.is_empty() {
                return;
            }
            self.weights = vec![0.0; BUCKETS];
        }
        let fade = (-seconds.max(0.0) / HALF_LIFE_SECONDS).exp2();
        for weight in &mut self.weights {
            *weight *= fade;
        }
        for (bucket, count) in &latencies.counts {
            if let Some(weight) = self.weights.get_mut(usize::from(*bucket)) {
                *weight += *count as f64;
            }
        }
    }

    /// For each of `tails`, the shares beyond the quantiles: what is slow on legacy, and what is
    /// slower than `ratio` times that on `new`. None while legacy has too few requests.
    pub(super) fn cuts(&self, tails: impl Iterator<Item = f64>, ratio: f64) -> Option<Vec<Cut>> {
        let all: f64 = self.weights.iter().sum();
        if all < LEAST_REQUESTS {
            return None;
        }
        // The smallest edge at or above `ratio` times another is a whole number of edges further.
        // The trifle keeps a ratio of exactly one edge from becoming two by rounding.
        let further = (EDGES_PER_OCTAVE * ratio.max(1.0).log2() - 1e-9).ceil() as usize;
        let cuts = tails.map(|tail| {
            let below = all * (1.0 - tail);
            let mut sum = 0.0;
            let quantile = self.weights.iter().position(|weight| {
                sum += weight;
                sum >= below && *weight > 0.0
            });
            let legacy = quantile.unwrap_or(ENDLESS);
            Cut {
                legacy,
                new: (legacy + further).min(ENDLESS),
            }
        });
        Some(cuts.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(yardstick: &Yardstick, tail: f64, ratio: f64) -> Option<Cut> {
        let cuts = yardstick.cuts([tail].into_iter(), ratio)?;
        cuts.first().copied()
    }

    /// A hundred requests in each of the buckets 100 to 199.
    fn even() -> Yardstick {
        let buckets = (0..BUCKETS).map(|b| u64::from((100..200).contains(&b)) * 100);
        let mut yardstick = Yardstick::default();
        yardstick.learn(&Latencies::from_buckets(buckets), 1.0);
        yardstick
    }

    #[test]
    fn a_quantile_is_an_edge_of_a_bucket_and_the_margin_whole_edges_further() {
        for (tail, legacy) in [(0.5, 149), (0.05, 194), (0.01, 198)] {
            // 2^(5/32) is the first edge above 1.10.
            let expected = Cut {
                legacy,
                new: legacy + 5,
            };
            assert_eq!(cut(&even(), tail, 1.10), Some(expected));
        }
        assert_eq!(cut(&even(), 0.5, 1.0).map(|cut| cut.new), Some(149));
        assert_eq!(cut(&even(), 0.5, 2.0).map(|cut| cut.new), Some(149 + 32));
        assert_eq!(cut(&even(), 0.5, 1e9).map(|cut| cut.new), Some(ENDLESS));
    }

    #[test]
    fn without_enough_requests_there_is_no_yardstick() {
        let mut yardstick = Yardstick::default();
        assert_eq!(cut(&yardstick, 0.5, 1.1), None);
        let mut latencies = Latencies::default();
        latencies.record(300, 99);
        yardstick.learn(&latencies, 0.1);
        assert_eq!(cut(&yardstick, 0.5, 1.1), None);
        yardstick.learn(&latencies, 0.1);
        assert_eq!(cut(&yardstick, 0.5, 1.1).map(|cut| cut.legacy), Some(300));
    }

    #[test]
    fn the_yardstick_forgets() {
        let mut yardstick = even();
        let mut slower = Latencies::default();
        slower.record(400, 5_000);
        yardstick.learn(&slower, HALF_LIFE_SECONDS);
        // Half of 10 000 old requests weigh as much as 5 000 new ones.
        assert_eq!(cut(&yardstick, 0.5, 1.0).map(|cut| cut.legacy), Some(199));
        assert_eq!(cut(&yardstick, 0.45, 1.0).map(|cut| cut.legacy), Some(400));
    }

    #[test]
    fn what_lies_beyond_an_edge_is_counted_from_the_next_bucket_on() {
        let latencies = Latencies::from_buckets([0, 3, 0, 4, 5]);
        assert_eq!(latencies.count(), 12);
        assert_eq!(latencies.beyond(0), 12);
        assert_eq!(latencies.beyond(1), 9);
        assert_eq!(latencies.beyond(3), 5);
        assert_eq!(latencies.beyond(ENDLESS), 0);
    }
}
