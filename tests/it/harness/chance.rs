//! Chance that a seed repeats.

/// A stream of numbers that a seed repeats (SplitMix64).
#[derive(Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    /// One of several streams of the same seed.
    pub(crate) fn lane(seed: u64, lane: u64) -> Self {
        Self(seed ^ lane.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % bound
    }
}
