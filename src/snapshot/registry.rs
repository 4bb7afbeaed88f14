//! What outlives a snapshot, found again by name when the next one is built.
//!
//! A reload that changes one backend must not cost the others their connections, health or counts,
//! and a reload that changes a share must not forget what was measured. So the parts with a memory
//! are kept here, and replaced only when what they were made from has changed. Touched on reload,
//! never by a request.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::model::{self, Config, KeyedLimit, Matches};
use crate::identity::identify::{Identifier, IdentifierError};
use crate::policy::addresses::AddressRules;
use crate::policy::arm::PerArm;
use crate::policy::route::Router;
use crate::telemetry::tally::{AttemptTally, SplitTally, Thresholds};
use crate::upstream::backend::{Backend, BackendError};
use crate::upstream::breaker::Breaker;
use crate::upstream::budget::Budget;

use super::limiter::Limiter;
use super::route_limits::{RouteLimits, RouteLoad};
use super::{BackendPlan, RoutePlan, Routing, SplitPlan};

/// What outlives a snapshot. A clone shares all of it, so that a change can be worked out on one.
#[derive(Clone, Debug)]
pub struct Registry {
    workers: usize,
    splits: HashMap<String, KeptSplit>,
    backends: HashMap<String, KeptBackend>,
    /// Those that limit something, which are few.
    routes: Vec<KeptRoute>,
}

/// What a route counts. It is found again by what the route matches, because routes need no name.
#[derive(Clone, Debug)]
struct KeptRoute {
    matches: Matches,
    rate_limit: Option<KeyedLimit>,
    limiter: Arc<Limiter>,
    load: Arc<RouteLoad>,
}

#[derive(Clone, Debug)]
struct KeptSplit {
    settings: model::Split,
    /// Names of the arms' backends.
    backends: PerArm<String>,
    tally: Arc<SplitTally>,
    breaker: Option<Arc<Breaker>>,
    budget: Arc<Budget>,
}

#[derive(Clone, Debug)]
struct KeptBackend {
    backend: Arc<Backend>,
    attempts: Arc<AttemptTally>,
}

/// A configuration cannot be put into effect.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A backend's addresses or TLS settings cannot be used.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A split's keys cannot be used.
    #[error("split `{split}`: {source}")]
    Split {
        /// The split's name.
        split: String,
        /// What is wrong.
        source: IdentifierError,
    },
}

impl Registry {
    /// Nothing yet; counters are made for this many workers.
    pub fn new(workers: usize) -> Self {
        Self {
            workers,
            splits: HashMap::new(),
            backends: HashMap::new(),
            routes: Vec::new(),
        }
    }

    /// Puts a configuration into the form that requests read, taking over whatever has not
    /// changed. What the configuration no longer names is forgotten.
    ///
    /// # Errors
    /// [`BuildError`] when a part cannot be used; nothing has changed then.
    pub fn build(&mut self, config: &Config) -> Result<Routing, BuildError> {
        let mut backends = HashMap::new();
        for settings in &config.backends {
            backends.insert(settings.name.clone(), self.backend(settings)?);
        }
        let mut splits = HashMap::new();
        let mut plans = Vec::with_capacity(config.splits.len());
        for settings in &config.splits {
            let kept = self.split(settings, config.names_of_arms(settings));
            plans.push(split_plan(settings, &kept)?);
            splits.insert(settings.name.clone(), kept);
        }
        let routes = config.routes.iter();
        let routes: Vec<_> = routes.map(|route| (route, self.route(route))).collect();
        let routing = Routing {
            router: Router::new(config.routes.iter().map(|route| &route.matches)),
            routes: routes
                .iter()
                .map(|(settings, kept)| route_plan(settings, kept))
                .collect(),
            splits: plans,
            backends: config
                .backends
                .iter()
                .map(|settings| {
                    let kept = &backends[&settings.name];
                    BackendPlan {
                        backend: Arc::clone(&kept.backend),
                        attempts: Arc::clone(&kept.attempts),
                    }
                })
                .collect(),
            edge: config.edge.clone(),
            access: AddressRules::new(&config.edge.allow, &config.edge.deny),
            log_format: config.access_log.as_ref().map(|log| log.format),
        };
        let limited = routes.into_iter().filter_map(|(_, kept)| kept);
        self.routes = limited.collect();
        self.backends = backends;
        self.splits = splits;
        Ok(routing)
    }

    fn backend(&self, settings: &model::Backend) -> Result<KeptBackend, BackendError> {
        let kept = self.backends.get(&settings.name);
        if let Some(kept) = kept.filter(|kept| kept.backend.settings == *settings) {
            return Ok(kept.clone());
        }
        let previous = kept.map(|kept| &*kept.backend);
        Ok(KeptBackend {
            backend: Arc::new(Backend::new(settings.clone(), previous)?),
            attempts: kept.map_or_else(
                || Arc::new(AttemptTally::new(self.workers)),
                |kept| Arc::clone(&kept.attempts),
            ),
        })
    }

    fn route(&self, settings: &model::Route) -> Option<KeptRoute> {
        if settings.max_requests.is_none() && settings.rate_limit.is_none() {
            return None;
        }
        let kept = self
            .routes
            .iter()
            .find(|kept| kept.matches == settings.matches);
        // What is left at another rate, or of another key, says nothing.
        let same_rate = kept.filter(|kept| kept.rate_limit == settings.rate_limit);
        Some(KeptRoute {
            matches: settings.matches.clone(),
            rate_limit: settings.rate_limit.clone(),
            limiter: same_rate
                .map(|kept| Arc::clone(&kept.limiter))
                .unwrap_or_default(),
            load: kept.map(|kept| Arc::clone(&kept.load)).unwrap_or_default(),
        })
    }

    fn split(&self, settings: &model::Split, backends: PerArm<String>) -> KeptSplit {
        let thresholds = Thresholds::of(settings.course.criteria(None));
        let kept = self.splits.get(&settings.name);
        // Counts about other thresholds or another arm's backend would be evidence about something
        // else.
        let tally = kept
            .filter(|kept| {
                *kept.tally.thresholds() == thresholds
                    && kept.settings.salt == settings.salt
                    && kept.backends == backends
            })
            .map_or_else(
                || Arc::new(SplitTally::new(self.workers, thresholds)),
                |kept| Arc::clone(&kept.tally),
            );
        let min_clusters = settings.course.criteria(None).min_bad_clusters;
        let fallback = &settings.fallback;
        let same_breaker = kept.filter(|kept| {
            kept.backends == backends
                && kept.settings.fallback.breaker == fallback.breaker
                && kept.settings.course.criteria(None).min_bad_clusters == min_clusters
        });
        let breaker = match same_breaker {
            Some(kept) => kept.breaker.clone(),
            None => fallback.breaker.clone().map(|settings_of_breaker| {
                Arc::new(Breaker::new(
                    &settings.name,
                    settings_of_breaker,
                    min_clusters,
                ))
            }),
        };
        let same_budget = kept.filter(|kept| {
            kept.settings.fallback.budget == fallback.budget
                && kept.settings.fallback.budget_floor == fallback.budget_floor
        });
        let budget = same_budget.map_or_else(
            || Arc::new(Budget::new(fallback.budget, fallback.budget_floor)),
            |kept| Arc::clone(&kept.budget),
        );
        KeptSplit {
            settings: settings.clone(),
            backends,
            tally,
            breaker,
            budget,
        }
    }
}

fn route_plan(settings: &model::Route, kept: &Option<KeptRoute>) -> RoutePlan {
    RoutePlan {
        target: settings.target,
        fallback: settings.fallback,
        max_body: settings.max_body.map_or(u64::MAX, |bytes| bytes as u64),
        limits: kept.as_ref().map(|kept| RouteLimits {
            name: settings.name.clone(),
            max_requests: settings.max_requests,
            rate: kept
                .rate_limit
                .clone()
                .map(|limit| (limit, Arc::clone(&kept.limiter))),
            load: Arc::clone(&kept.load),
        }),
    }
}

fn split_plan(settings: &model::Split, kept: &KeptSplit) -> Result<SplitPlan, BuildError> {
    let identifier = Identifier::new(settings).map_err(|source| BuildError::Split {
        split: settings.name.clone(),
        source,
    })?;
    Ok(SplitPlan {
        name: settings.name.clone(),
        arms: settings.arms,
        identifier,
        fallback: settings.fallback.clone(),
        shared_state: settings.shared_state,
        response_headers: settings.response_headers,
        tally: Arc::clone(&kept.tally),
        breaker: kept.breaker.clone(),
        budget: Arc::clone(&kept.budget),
    })
}
