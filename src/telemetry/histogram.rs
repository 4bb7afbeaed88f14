//! Durations in fixed buckets, the same in every worker, process and release.
//!
//! Buckets that adapt to the data cannot be added to those of another worker or subtracted from
//! an older reading, and then a window, a fleet and a quantile are all guesses. So the edges are
//! constants: 0.1 ms · 2^(i/32) for i in 0..=640, which is 2.2 % from one to the next, from 0.1 ms
//! to 105 s. A duration belongs to the first edge that it does not exceed; what exceeds the last
//! edge has a bucket of its own.
//!
//! Finding the bucket costs two table look-ups and one comparison: a duration's leading bit and
//! the six bits below it name a slot so narrow (at most 1.6 %) that no more than one edge lies
//! inside.

use std::time::Duration;

use super::counter::Counter;
use crate::policy::judge::LATENCY_BUCKETS;
use crate::policy::judge::window::Latencies;

/// How many edges there are.
pub const EDGES: usize = LATENCY_BUCKETS - 1;

/// One bucket below each edge, and one above the last.
pub const BUCKETS: usize = LATENCY_BUCKETS;

/// The edges in whole nanoseconds, rounded down, which loses nothing: a duration is a whole number
/// of nanoseconds, so it exceeds an edge exactly when it exceeds the edge rounded down.
static EDGE_NANOSECONDS: [u64; EDGES] = edges();

/// For each slot the first bucket that a duration in it may belong to.
static FIRST_BUCKET: [u16; SLOTS] = first_buckets();

/// Buckets that one word of a shard's marks stands for.
const MARKS: usize = u64::BITS as usize;

/// Bits of a duration, below its leading one, that choose the slot.
const SLOT_BITS: u32 = 6;
/// Leading bit of the shortest duration that has a slot: 2^16 ns is below the first edge.
const LOWEST_LEADING_BIT: u32 = 16;
/// Leading bit of the longest duration that has a slot: the last edge is below 2^37 ns.
const HIGHEST_LEADING_BIT: u32 = 36;
const SLOTS: usize = ((HIGHEST_LEADING_BIT - LOWEST_LEADING_BIT + 1) as usize) << SLOT_BITS;

/// An edge as a duration.
///
/// # Panics
/// If `index` is not below [`EDGES`].
pub fn edge(index: usize) -> Duration {
    Duration::from_nanos(EDGE_NANOSECONDS[index])
}

/// The bucket of `elapsed`, below [`BUCKETS`].
pub fn bucket(elapsed: Duration) -> usize {
    bucket_of_nanoseconds(nanoseconds(elapsed))
}

/// How many durations fell into each bucket, and their sum: a reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// None where there is no duration: most arms of many splits have none, and these are 5 KiB.
    counts: Option<Box<[u64; BUCKETS]>>,
    sum_nanoseconds: u64,
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, elapsed: Duration) {
        let nanoseconds = nanoseconds(elapsed);
        self.counts_mut()[bucket_of_nanoseconds(nanoseconds)] += 1;
        self.sum_nanoseconds = self.sum_nanoseconds.saturating_add(nanoseconds);
    }

    /// How many durations there are.
    pub fn count(&self) -> u64 {
        self.counts().iter().sum()
    }

    /// The sum of the durations, exact to the nanosecond.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_nanoseconds)
    }

    /// The durations that came after `earlier`, an older reading of the same counters. Few buckets
    /// have any, so most are passed over many at a time: this is asked ten times a second.
    pub fn since(&self, earlier: &Histogram) -> Latencies {
        let mut latencies = Latencies::default();
        let (now, before) = (self.counts().chunks(MARKS), earlier.counts().chunks(MARKS));
        for (chunk, (now, before)) in now.zip(before).enumerate() {
            if now == before {
                continue;
            }
            for (place, (now, before)) in now.iter().zip(before).enumerate() {
                latencies.record(chunk * MARKS + place, now.saturating_sub(*before));
            }
        }
        latencies
    }

    /// The durations in each bucket, in the order of the edges.
    pub fn counts(&self) -> &[u64; BUCKETS] {
        self.counts.as_deref().unwrap_or(&[0; BUCKETS])
    }

    /// The upper edge of the bucket that holds the `quantile` of the durations, given in
    /// `0.0..=1.0`; the last edge if it lies beyond; `None` without any duration.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let count = self.count();
        // The smallest rank that covers the quantile, and at least the first.
        let rank = ((quantile * count as f64).ceil() as u64).clamp(1, count.max(1));
        let mut below = 0;
        let index = self.counts().iter().position(|&bucket| {
            below += bucket;
            below >= rank
        })?;
        Some(edge(index.min(EDGES - 1)))
    }

    fn counts_mut(&mut self) -> &mut [u64; BUCKETS] {
        self.counts.get_or_insert_with(|| Box::new([0; BUCKETS]))
    }
}

/// One worker's part of a histogram.
#[derive(Debug)]
pub(super) struct HistogramShard {
    // Not boxed: the shard's cache lines belong to one worker, and a heap allocation of its own
    // could share its first or last line with a neighbour.
    counts: [Counter; BUCKETS],
    sum_nanoseconds: Counter,
    /// A bit for each bucket that was ever counted in, so that a reader can leave out the others,
    /// which are nearly all.
    marks: [Counter; BUCKETS.div_ceil(MARKS)],
}

impl HistogramShard {
    /// Counts one duration. Only the shard's own worker may call it.
    pub(super) fn record(&self, elapsed: Duration) {
        let nanoseconds = nanoseconds(elapsed);
        let bucket = bucket_of_nanoseconds(nanoseconds);
        self.marks[bucket / MARKS].mark(bucket % MARKS);
        self.counts[bucket].increment();
        self.sum_nanoseconds.add(nanoseconds);
    }

    /// Adds what this shard holds to `sum`.
    pub(super) fn add_to(&self, sum: &mut Histogram) {
        for (word, marks) in self.marks.iter().enumerate() {
            let mut marks = marks.value();
            while marks != 0 {
                let bucket = word * MARKS + marks.trailing_zeros() as usize;
                sum.counts_mut()[bucket] += self.counts[bucket].value();
                marks &= marks - 1;
            }
        }
        sum.sum_nanoseconds += self.sum_nanoseconds.value();
    }
}

impl Default for HistogramShard {
    fn default() -> Self {
        Self {
            counts: std::array::from_fn(|_| Counter::default()),
            sum_nanoseconds: Counter::default(),
            marks: std::array::from_fn(|_| Counter::default()),
        }
    }
}

/// The whole nanoseconds of a duration; 585 years is as good as for ever.
fn nanoseconds(elapsed: Duration) -> u64 {
    elapsed
        .as_secs()
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::from(elapsed.subsec_nanos()))
}

fn bucket_of_nanoseconds(nanoseconds: u64) -> usize {
    if nanoseconds < 1 << LOWEST_LEADING_BIT {
        return 0;
    }
    let leading_bit = nanoseconds.ilog2();
    if leading_bit > HIGHEST_LEADING_BIT {
        return BUCKETS - 1;
    }
    let below_leading = (nanoseconds >> (leading_bit - SLOT_BITS)) as usize - (1 << SLOT_BITS);
    let slot = ((leading_bit - LOWEST_LEADING_BIT) as usize) << SLOT_BITS | below_leading;
    let first = FIRST_BUCKET[slot] as usize;
    match EDGE_NANOSECONDS.get(first) {
        Some(&edge) => first + usize::from(nanoseconds > edge),
        None => first,
    }
}

const fn first_buckets() -> [u16; SLOTS] {
    let edges = edges();
    let mut first = [0; SLOTS];
    let (mut slot, mut bucket) = (0, 0);
    while slot < SLOTS {
        let octave = (slot >> SLOT_BITS) as u32 + LOWEST_LEADING_BIT;
        let step = (slot & ((1 << SLOT_BITS) - 1)) as u64;
        let start = ((1 << SLOT_BITS) + step) << (octave - SLOT_BITS);
        while bucket < EDGES && edges[bucket] < start {
            bucket += 1;
        }
        first[slot] = bucket as u16;
        slot += 1;
    }
    first
}

/// Computed with integers because a power of a float is no constant expression: each of the five
/// bits of an exponent in thirty-seconds stands for one of the repeated square roots of two.
const fn edges() -> [u64; EDGES] {
    const FIRST_EDGE_NANOSECONDS: u128 = 100_000;
    const PRECISION: u32 = 62;
    let mut edges = [0; EDGES];
    let mut index = 0;
    while index < EDGES {
        let mut factor: u128 = 1 << PRECISION;
        let mut root: u128 = 2 << PRECISION;
        let mut bit = 16;
        while bit > 0 {
            // 2^(16/32), then 2^(8/32), and so on.
            root = (root << PRECISION).isqrt();
            if index & bit != 0 {
                factor = (factor * root) >> PRECISION;
            }
            bit >>= 1;
        }
        let octave = index / 32;
        edges[index] = ((FIRST_EDGE_NANOSECONDS * (factor << octave)) >> PRECISION) as u64;
        index += 1;
    }
    edges
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn defined_edge(index: usize) -> f64 {
        100_000.0 * 2_f64.powf(index as f64 / 32.0)
    }

    #[test]
    fn edges_are_those_of_the_definition_rounded_down() {
        for (index, &edge) in EDGE_NANOSECONDS.iter().enumerate() {
            let defined = defined_edge(index);
            let fraction = defined - defined.floor();
            if index % 32 != 0 {
                // Far enough from a whole number that a float's last bits cannot decide.
                assert!((1e-4..1.0 - 1e-4).contains(&fraction), "edge {index}");
            }
            assert_eq!(edge, defined.floor() as u64, "edge {index}");
        }
    }

    #[test]
    fn each_edge_closes_its_bucket() {
        for index in 0..EDGES {
            let edge = edge(index);
            assert_eq!(bucket(edge), index);
            assert_eq!(bucket(edge + Duration::from_nanos(1)), index + 1);
        }
    }

    #[test]
    fn the_ends_are_open() {
        assert_eq!(bucket(Duration::ZERO), 0);
        assert_eq!(bucket(Duration::from_secs(105)), BUCKETS - 1);
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    proptest! {
        #[test]
        fn the_bucket_is_the_first_edge_not_exceeded(bits in 0_u32..40, noise in any::<u64>()) {
            // Spread evenly over the orders of magnitude, as durations are.
            let nanoseconds = (1 << bits) | (noise & ((1 << bits) - 1));
            let expected = EDGE_NANOSECONDS.partition_point(|&edge| edge < nanoseconds);
            prop_assert_eq!(bucket(Duration::from_nanos(nanoseconds)), expected);
        }

        #[test]
        fn a_quantile_is_the_edge_above_the_ranked_duration(
            mut durations in prop::collection::vec(0_u64..100_000_000_000, 1..200),
            hundredths in 0_u32..=100,
        ) {
            let mut histogram = Histogram::default();
            for &nanoseconds in &durations {
                histogram.record(Duration::from_nanos(nanoseconds));
            }
            durations.sort_unstable();
            let quantile = f64::from(hundredths) / 100.0;
            let rank = ((quantile * durations.len() as f64).ceil() as usize).max(1);
            let ranked = Duration::from_nanos(durations[rank - 1]);
            prop_assert_eq!(histogram.quantile(quantile), Some(edge(bucket(ranked))));
        }
    }

    #[test]
    fn a_difference_of_readings_has_what_came_in_between() {
        let shard = HistogramShard::default();
        let read = || {
            let mut reading = Histogram::default();
            shard.add_to(&mut reading);
            reading
        };
        let milliseconds = [0, 1, 7, 200, 200_000];
        for step in milliseconds {
            shard.record(Duration::from_millis(step));
        }
        let before = read();
        assert_eq!(before.count(), 5);
        assert_eq!(before.since(&before), Latencies::default());
        assert_eq!(before.since(&Histogram::default()).count(), 5);
        shard.record(Duration::from_millis(7));
        shard.record(Duration::from_secs(200));
        let mut expected = Latencies::default();
        expected.record(bucket(Duration::from_millis(7)), 1);
        expected.record(BUCKETS - 1, 1);
        assert_eq!(read().since(&before), expected);
    }

    #[test]
    fn nothing_recorded_has_no_quantile() {
        assert_eq!(Histogram::default().quantile(0.95), None);
    }
}
