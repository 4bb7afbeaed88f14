//! What is counted, and how it is shown.
//!
//! Workers write into shards of their own ([`tally`]) and never wait for a reader; whoever wants
//! to know sums the shards. The verdict, the scrape and the status read these same counts, so they
//! cannot contradict each other.

pub mod access_log;
mod counter;
pub mod edge;
pub mod handover;
pub mod histogram;
pub mod log;
pub mod metrics;
pub mod streak;
pub mod tally;

pub use counter::WorkerId;

#[cfg(test)]
mod fixture {
    use crate::policy::key::{Cluster, Salt};

    /// A cluster by its number. Clusters are only made by hashing, so this looks for a key.
    pub(super) fn cluster(index: usize) -> Cluster {
        let salt = Salt::new("fixture");
        (0_u32..)
            .map(|key| salt.hash(&key.to_le_bytes()).cluster())
            .find(|cluster| cluster.index() == index)
            .expect("every cluster has keys")
    }
}
