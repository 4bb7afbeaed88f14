//! A named set of endpoints that answer alike: who takes the next request, and who is left out.
//!
//! A backend belongs to one snapshot; its endpoints are handed on from the backend of the same
//! name before it, so that a reload keeps the connections, counts and health of those it does not
//! touch. Where the TLS settings or the protocol change the endpoints are new, because connections
//! made under the old settings must not be used again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::model;
use crate::config::model::Balance;
use crate::policy::time::Elapsed;
use crate::upstream::connect::{InvalidTls, UpstreamTls};
use crate::upstream::endpoint::{Endpoint, InvalidAddress};

/// The longest time out of rotation, in times the configured one.
const MOST_EJECTIONS_COUNTED: u32 = 10;

/// A named set of endpoints that answer alike.
#[derive(Debug)]
pub struct Backend {
    /// What the configuration says.
    pub settings: model::Backend,
    /// In the file's order; at least one.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// How connections are secured; absent for plain HTTP.
    pub tls: Option<UpstreamTls>,
    turn: AtomicUsize,
    /// Held while an endpoint is ejected, for two workers that each eject one of the last two
    /// would leave none. Never on the path of a request that succeeds.
    ejecting: Mutex<()>,
}

/// A backend's settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// An endpoint is not `host:port`.
    #[error("backend `{backend}`: {source}")]
    Address {
        /// The backend's name.
        backend: String,
        /// What is wrong.
        source: InvalidAddress,
    },
    /// The TLS settings are wrong.
    #[error("backend `{backend}`: {source}")]
    Tls {
        /// The backend's name.
        backend: String,
        /// What is wrong.
        source: InvalidTls,
    },
}

impl Backend {
    /// The backend that `settings` describe. It takes over what `previous`, the backend of the
    /// same name in the snapshot before, has in common with it.
    ///
    /// May read the system's root certificates, so it belongs on the control plane.
    ///
    /// # Errors
    /// [`BackendError`] where an address or the TLS settings cannot be used.
    pub fn new(
        settings: model::Backend,
        previous: Option<&Backend>,
    ) -> Result<Backend, BackendError> {
        let previous = previous.filter(|previous| {
            let before = &previous.settings;
            before.tls == settings.tls && before.protocol == settings.protocol
        });
        let endpoint = |address: &String| {
            let kept = previous.and_then(|previous| previous.endpoint(address).cloned());
            kept.map_or_else(|| Endpoint::new(address), Ok)
        };
        let endpoints: Result<Vec<_>, _> = settings.endpoints.iter().map(endpoint).collect();
        let endpoints = endpoints.map_err(|source| BackendError::Address {
            backend: settings.name.clone(),
            source,
        })?;
        let invalid_tls = |source| BackendError::Tls {
            backend: settings.name.clone(),
            source,
        };
        let tls = match (&settings.tls, previous) {
            (None, _) => None,
            (Some(_), Some(previous)) => previous.tls.clone(),
            (Some(tls), None) => {
                Some(UpstreamTls::new(tls, settings.protocol).map_err(invalid_tls)?)
            }
        };
        if let Some(tls) = &tls {
            for endpoint in &endpoints {
                tls.name_to_verify(endpoint).map_err(invalid_tls)?;
            }
        }
        Ok(Backend {
            settings,
            endpoints,
            tls,
            turn: AtomicUsize::new(0),
            ejecting: Mutex::new(()),
        })
    }

    /// The name in the file.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// The endpoint at `address`, if it is one of this backend's.
    pub fn endpoint(&self, address: &str) -> Option<&Arc<Endpoint>> {
        self.endpoints
            .iter()
            .find(|endpoint| endpoint.address() == address)
    }

    /// Index of the endpoint that takes the next request; never `exclude`, the one that has just
    /// failed it. None when no other is available.
    pub fn pick(&self, now: Elapsed, exclude: Option<usize>) -> Option<usize> {
        if let [only] = self.endpoints.as_slice() {
            return (exclude.is_none() && only.is_available(now)).then_some(0);
        }
        let candidates = || {
            self.endpoints
                .iter()
                .enumerate()
                .filter(|(index, endpoint)| Some(*index) != exclude && endpoint.is_available(now))
        };
        // In turn is the same choice with every endpoint equally busy.
        let load = |endpoint: &Endpoint| match self.settings.balance {
            Balance::LeastPending => endpoint.pending(),
            Balance::RoundRobin => 0,
        };
        let mut least = u64::MAX;
        let mut tied = 0;
        let mut first = None;
        for (index, endpoint) in candidates() {
            let load = load(endpoint);
            if load < least || first.is_none() {
                (least, tied, first) = (load, 1, Some(index));
            } else if load == least {
                tied += 1;
            }
        }
        if tied <= 1 {
            return first;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % tied;
        // Other workers move the counts between the two passes, so the tie may be gone.
        candidates()
            .filter(|(_, endpoint)| load(endpoint) == least)
            .nth(turn)
            .map_or(first, |(index, _)| Some(index))
    }

    /// Whether any endpoint may be tried at `now`.
    pub fn has_available(&self, now: Elapsed) -> bool {
        self.endpoints
            .iter()
            .any(|endpoint| endpoint.is_available(now))
    }

    /// Books how an attempt on the endpoint at `index` ended: a transport failure or a 5xx is no
    /// success. Ejects an endpoint that keeps failing, if ejection is on and others remain.
    pub fn report(&self, index: usize, succeeded: bool, now: Elapsed) {
        let (Some(ejection), Some(endpoint)) = (&self.settings.ejection, self.endpoints.get(index))
        else {
            return;
        };
        if succeeded {
            endpoint.succeeded(now);
        } else if endpoint.failed() >= ejection.consecutive_failures {
            self.eject(index, endpoint, ejection, now);
        }
    }

    fn eject(&self, index: usize, endpoint: &Endpoint, ejection: &model::Ejection, now: Elapsed) {
        let _one_at_a_time = self.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        let is_other = |(other, endpoint): (usize, &Arc<Endpoint>)| {
            other != index && endpoint.is_available(now)
        };
        // Stragglers fail after the ejection too; they must not prolong it.
        if !endpoint.is_available(now) || !self.endpoints.iter().enumerate().any(is_other) {
            return;
        }
        let times = (endpoint.ejections_in_a_row() + 1).min(MOST_EJECTIONS_COUNTED);
        let span = ejection.duration.saturating_mul(times);
        endpoint.eject(now.plus(span));
        tracing::info!(
            backend = self.name(),
            endpoint = endpoint.address(),
            failures = ejection.consecutive_failures,
            seconds = span.as_secs_f64(),
            "endpoint ejected: it kept failing",
        );
    }
}

#[cfg(test)]
mod tests;
