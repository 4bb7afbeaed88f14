//! From a session key to a bucket and a cluster.
//!
//! The function is frozen: changing it moves every user. It is built from one public hash so that
//! anyone can reproduce an assignment with a stock library:
//! `seed = xxh3_64(salt, seed 0)`, `h = xxh3_64(key, seed)`, `bucket = (h × 10 000) >> 64`,
//! `cluster = h & 63`. The golden vectors below were computed with another implementation.

use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::share::Bucket;

/// A split's salt, reduced to the seed of its hash. Two splits with different salts assign
/// independently of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Salt {
    seed: u64,
}

impl Salt {
    /// The seed that belongs to `salt`.
    pub fn new(salt: &str) -> Self {
        Self {
            seed: xxh3_64_with_seed(salt.as_bytes(), 0),
        }
    }

    /// Hashes a session key, its bytes as received.
    pub fn hash(self, key: &[u8]) -> KeyHash {
        KeyHash(xxh3_64_with_seed(key, self.seed))
    }
}

/// The hash of one session key under one salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyHash(u64);

impl KeyHash {
    /// The slot of the key space that decides the arm.
    pub const fn bucket(self) -> Bucket {
        Bucket::from_hash(self.0)
    }

    /// The group used to judge whether failures come from one caller or from many.
    pub const fn cluster(self) -> Cluster {
        Cluster((self.0 & (Cluster::COUNT as u64 - 1)) as u8)
    }
}

/// One of 64 groups of sessions, taken from the low bits of the hash while the arm is taken from
/// the high ones: so a cluster holds sessions of both arms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Cluster(u8);

impl Cluster {
    /// How many clusters there are.
    pub const COUNT: usize = 64;

    /// The cluster's number, below [`Cluster::COUNT`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The same number as it stands in reports.
    pub const fn number(self) -> u8 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with the reference implementation (PyPI `xxhash` 4.1.0, which wraps the C library):
    ///
    /// ```python
    /// import xxhash
    /// def assign(salt, key):
    ///     seed = xxhash.xxh3_64_intdigest(salt.encode(), 0)
    ///     h = xxhash.xxh3_64_intdigest(key, seed)
    ///     return hex(h), (h * 10_000) >> 64, h & 63
    /// ```
    ///
    /// The lengths walk through every branch of the hash: 0, 1–3, 4–8, 9–16, 17–128, 129–240 and
    /// more.
    #[test]
    fn assigns_like_any_other_implementation_of_the_hash() {
        let k = |count| vec![b'k'; count];
        let vectors: &[(&str, &[u8], u64, u16, usize)] = &[
            ("checkout", b"", 0x49d7_3f2e_136a_37f8, 2884, 56),
            ("checkout", b"a", 0xac13_81e0_eb5b_f36e, 6721, 46),
            ("checkout", b"42", 0x6a05_4710_0afd_c5b7, 4141, 55),
            ("checkout", b"alice", 0xbee9_c282_22bf_bf27, 7457, 39),
            ("checkout", b"203.0.113.7", 0x49a4_ff94_fecd_4242, 2876, 2),
            (
                "checkout",
                b"2001:db8:0:1::",
                0x5dad_234c_273a_ddd2,
                3659,
                18,
            ),
            (
                "checkout",
                "Zürich".as_bytes(),
                0x171c_7ed2_12ff_392c,
                902,
                44,
            ),
            ("checkout", b"\xff\xfe", 0x696f_9489_7bc6_6568, 4118, 40),
            (
                "checkout",
                b"0123456789abcdef0123456789abcdef",
                0xbcba_6100_6dac_b4bb,
                7372,
                59,
            ),
            ("checkout", &k(129), 0x2a87_1d69_573f_bfee, 1661, 46),
            ("checkout", &k(241), 0xb33c_0c74_6478_416f, 7001, 47),
            ("checkout", &k(4096), 0x25e9_c2f8_60f6_b815, 1480, 21),
            ("search", b"alice", 0xc132_87ad_b3ed_e4f7, 7546, 55),
            ("search", b"42", 0x7585_5057_30b7_1bfd, 4590, 61),
            ("search", &k(4096), 0xb058_333a_7791_ae7f, 6888, 63),
            ("", b"", 0x412f_1275_e100_17f3, 2546, 51),
            ("", b"42", 0xded5_9838_2c88_8dc0, 8704, 0),
            ("", &k(241), 0x02f1_b5d5_250b_d1b7, 115, 55),
        ];
        for &(salt, key, hash, bucket, cluster) in vectors {
            let found = Salt::new(salt).hash(key);
            assert_eq!(found, KeyHash(hash), "{salt} {key:?}");
            assert_eq!(found.bucket().index(), bucket, "{salt} {key:?}");
            assert_eq!(found.cluster().index(), cluster, "{salt} {key:?}");
        }
    }
}
