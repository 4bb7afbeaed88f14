//! The one view of the world that a request sees.
//!
//! A snapshot never changes. A new share or a new configuration is a new snapshot, published by
//! one pointer store, so a request can never meet the shares of one moment and the routes of
//! another. What outlives a snapshot (endpoints with their health and connections, tallies,
//! breakers) is found again by identity when the next one is built: see [`registry::Registry`].

pub mod limiter;
pub mod registry;
pub mod route_limits;

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::model::{BackendId, Edge, FallbackSettings, LogFormat, SplitId, Target};
use crate::identity::identify::Identifier;
use crate::policy::addresses::AddressRules;
use crate::policy::arm::PerArm;
use crate::policy::denials::Denials;
use crate::policy::rollout::Standing;
use crate::policy::route::Router;
use crate::policy::time::Elapsed;
use crate::telemetry::tally::{AttemptTally, SplitTally};
use crate::upstream::backend::Backend;
use crate::upstream::breaker::Breaker;
use crate::upstream::budget::Budget;

use self::route_limits::RouteLimits;

/// The snapshot in force, shared by all threads.
pub type Published = Arc<ArcSwap<Snapshot>>;

/// Everything that the data plane reads, at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts published snapshots since the start.
    pub generation: u64,
    /// What the configuration says.
    pub routing: Arc<Routing>,
    /// What each split obeys, indexed by [`SplitId`].
    pub standings: Box<[Standing]>,
    /// Which client addresses may come in: by the file's lists, and by what somebody has denied.
    pub access: Arc<AddressRules>,
    /// What of that somebody has denied; told to an old process that still serves.
    pub denials: Arc<Denials>,
    /// When streams of `new` are closed, where a split was rolled back; indexed by [`SplitId`].
    pub streams_end: Box<[Option<Elapsed>]>,
}

/// What the configuration says, with everything resolved that a request would have to look up.
#[derive(Debug)]
pub struct Routing {
    /// Finds the route of a request.
    pub router: Router,
    /// Indexed by what the router returns.
    pub routes: Vec<RoutePlan>,
    /// Indexed by [`SplitId`].
    pub splits: Vec<SplitPlan>,
    /// Indexed by [`BackendId`].
    pub backends: Vec<BackendPlan>,
    /// Limits and identity at the client's edge.
    pub edge: Edge,
    /// The file's lists of addresses, ready to be asked.
    pub access: AddressRules,
    /// How a line of the access log looks, if there is one.
    pub log_format: Option<LogFormat>,
}

/// Where a route leads.
#[derive(Debug)]
pub struct RoutePlan {
    /// A backend or a split.
    pub target: Target,
    /// Whether `new` may be rescued by legacy here.
    pub fallback: bool,
    /// Bytes that a request's body may have.
    pub max_body: u64,
    /// How many requests it admits, where it limits them.
    pub limits: Option<RouteLimits>,
}

/// One migration.
#[derive(Debug)]
pub struct SplitPlan {
    /// Label of its metrics.
    pub name: String,
    /// The backend of each arm.
    pub arms: PerArm<BackendId>,
    /// Finds the session key and assigns the arm.
    pub identifier: Identifier,
    /// What happens when `new` fails.
    pub fallback: FallbackSettings,
    /// Both arms work on one data, key and session store.
    pub shared_state: bool,
    /// Whether answers carry `Cutover-Arm` and `Cutover-Fallback`.
    pub response_headers: bool,
    /// Counts outcomes.
    pub tally: Arc<SplitTally>,
    /// Diverts `new`'s keys while it is failing.
    pub breaker: Option<Arc<Breaker>>,
    /// Limits replays of sent requests.
    pub budget: Arc<Budget>,
}

/// One backend.
#[derive(Debug)]
pub struct BackendPlan {
    /// Its endpoints and settings.
    pub backend: Arc<Backend>,
    /// Counts attempts.
    pub attempts: Arc<AttemptTally>,
}

impl Routing {
    /// The split with this id. Ids come from the same configuration as the routing.
    pub fn split(&self, id: SplitId) -> &SplitPlan {
        &self.splits[usize::from(id.0)]
    }

    /// The backend with this id.
    pub fn backend(&self, id: BackendId) -> &BackendPlan {
        &self.backends[usize::from(id.0)]
    }
}

impl Snapshot {
    /// When streams of `new` of this split are closed, if it was rolled back.
    pub fn streams_end(&self, id: SplitId) -> Option<Elapsed> {
        self.streams_end[usize::from(id.0)]
    }

    /// What the split with this id obeys.
    pub fn standing(&self, id: SplitId) -> Standing {
        self.standings[usize::from(id.0)]
    }
}
