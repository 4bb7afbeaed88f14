//! The data plane as the control plane sees it.
//!
//! The two meet in the snapshot and the tally, and in these few calls. They are closures, because
//! the threads behind them stand to the right of this module in the order of layers.

use std::pin::Pin;
use std::sync::Arc;

use crate::config::model::{BackendId, Config};
use crate::telemetry::edge::{EdgeLoad, EdgeTally};
use crate::telemetry::handover::HandoverTally;

/// Resolves when the connections asked for are open, or will not come.
pub type Warmed = Pin<Box<dyn Future<Output = ()>>>;

/// Puts in force what was prepared.
pub type Commit = Box<dyn FnOnce()>;

/// Prepares certificates and the access log; refuses what cannot be used, with a reason.
pub type Prepare = Box<dyn Fn(&Config) -> Result<Commit, String>>;

/// What the control plane asks of the data plane.
pub struct DataPlane {
    /// Client connections open on each worker.
    pub connections: Box<dyn Fn() -> Vec<u64>>,
    /// Opens a backend's warm connections on every worker.
    pub warm: Box<dyn Fn(BackendId) -> Warmed>,
    /// Prepares certificates and the access log; refuses what cannot be used, with a reason.
    pub prepare: Prepare,
    /// Forgets what the edges of all workers need no longer remember.
    pub sweep_edge: Box<dyn Fn()>,
    /// What the edges of all workers hold.
    pub edge_load: Box<dyn Fn() -> EdgeLoad>,
    /// Counts what the edge refused.
    pub edge: Arc<EdgeTally>,
    /// Counts replacements of the process.
    pub handovers: Arc<HandoverTally>,
    /// Client connections that the process's file descriptors bear.
    pub bearable_connections: usize,
}

impl std::fmt::Debug for DataPlane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DataPlane(..)")
    }
}
