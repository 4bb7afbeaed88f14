//! Active health checks: a GET to each endpoint every few seconds, on the control runtime.
//!
//! Endpoints are presumed healthy at start, because a proxy that waits for its checks serves
//! nobody meanwhile; and one failed check is no verdict, because a single lost packet would take a
//! server out. On a reload the checks of endpoints that did not change go on where they were:
//! starting over would forget how far an endpoint was from its verdict at every edit of the file.
//!
//! An endpoint without checks is only connected to once, so that log and status say at start that
//! an upstream is not there; and again while nobody can connect to it, so that they say when it is
//! back, although a rollback may keep all requests away.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http_body_util::{BodyExt, Limited};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::config::model::{HealthCheck, Protocol};
use crate::upstream::backend::Backend;
use crate::upstream::connect::{ConnectFailure, UpstreamTls, connect};
use crate::upstream::endpoint::Endpoint;
use crate::upstream::http2::connection::{NotHttp2, greet};
use crate::upstream::probe::{self, Probe, ProbeFailure};

/// How much of an answer's body is read before hanging up. Hanging up on a body that is still
/// coming looks like a failing client in the upstream's log.
const POLITE_BODY: usize = 64 * 1024;
/// Between two looks at whether an endpoint without checks can be reached: as often as the checks
/// of others are by default.
const LOOK: Duration = Duration::from_secs(2);

/// The checks under way. Dropping it ends them all.
#[derive(Debug, Default)]
pub struct HealthChecks {
    /// By names of backend and endpoint.
    running: HashMap<(String, String), Running>,
}

#[derive(Debug)]
struct Running {
    subject: Subject,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What one task checks, and how.
#[derive(Clone, Debug)]
struct Subject {
    backend: String,
    endpoint: Arc<Endpoint>,
    tls: Option<UpstreamTls>,
    protocol: Protocol,
    connect_timeout: Duration,
    check: Option<HealthCheck>,
}

impl HealthChecks {
    /// Makes the checks under way those that `backends` ask for. Must be called on a runtime, the
    /// control plane's.
    pub fn reconcile(&mut self, backends: &[Arc<Backend>]) {
        let mut before = std::mem::take(&mut self.running);
        for backend in backends {
            for endpoint in &backend.endpoints {
                let key = (backend.name().to_owned(), endpoint.address().to_owned());
                let subject = Subject::new(backend, endpoint);
                let running = before
                    .remove(&key)
                    .filter(|running| running.subject.is_same(&subject))
                    .unwrap_or_else(|| Running {
                        subject: subject.clone(),
                        task: tokio::spawn(subject.watch()),
                    });
                self.running.insert(key, running);
            }
        }
    }
}

impl Subject {
    fn new(backend: &Backend, endpoint: &Arc<Endpoint>) -> Subject {
        Subject {
            backend: backend.name().to_owned(),
            endpoint: Arc::clone(endpoint),
            tls: backend.tls.clone(),
            protocol: backend.settings.protocol,
            connect_timeout: backend.settings.timeouts.connect,
            check: backend.settings.health_check.clone(),
        }
    }

    /// Whether the checks of `other` would be the same. TLS and protocol need not be compared:
    /// where they change, the endpoint is another.
    fn is_same(&self, other: &Subject) -> bool {
        Arc::ptr_eq(&self.endpoint, &other.endpoint)
            && self.connect_timeout == other.connect_timeout
            && self.check == other.check
    }

    async fn watch(self) {
        let Some(check) = &self.check else {
            // Checks that were dropped from the file must not leave their last word behind.
            self.endpoint.set_passes_checks(true);
            return self.watch_connecting().await;
        };
        let mut progress = Progress::new(self.endpoint.passes_checks());
        let mut first = true;
        let mut is_excused = false;
        loop {
            let result = self.ask(check).await;
            let own = result.as_ref().err().filter(|failure| failure.is_our_own());
            if let Some(reason) = own {
                // The endpoint was not asked, so it has neither passed nor failed. It may stay so
                // for ever, where this machine has no address to ask from.
                if !std::mem::replace(&mut is_excused, true) {
                    let (backend, endpoint) = (&self.backend, self.endpoint.address());
                    tracing::warn!(%backend, endpoint, %reason, "endpoint cannot be checked");
                }
                sleep(check.interval).await;
                continue;
            }
            is_excused = false;
            match &result {
                Ok(()) => self.endpoint.set_reachable(true),
                Err(CheckFailure::Connect(_)) => self.endpoint.set_reachable(false),
                Err(_) => {}
            }
            if let Err(failure) = &result
                && first
            {
                self.warn(failure);
            }
            first = false;
            if progress.turns(Passed(result.is_ok()), check) {
                self.endpoint.set_passes_checks(progress.healthy);
                self.announce(result);
            }
            sleep(check.interval).await;
        }
    }

    /// Without checks, whoever connects tells whether the endpoint can be reached. Looks at what
    /// they found and says when it changes; connects itself only at first, and while they cannot.
    async fn watch_connecting(&self) {
        if let Err(failure) = self.reach().await {
            self.warn(&failure);
        }
        let mut was_reachable = self.endpoint.is_reachable();
        loop {
            sleep(LOOK).await;
            let failure = match self.endpoint.is_reachable() {
                true => None,
                false => self.reach().await.err(),
            };
            if failure.is_none() == was_reachable {
                continue;
            }
            was_reachable = !was_reachable;
            let (backend, endpoint) = (&self.backend, self.endpoint.address());
            match failure {
                None => tracing::info!(%backend, endpoint, "endpoint reachable again"),
                Some(reason) => tracing::warn!(%backend, endpoint, %reason, "endpoint unreachable"),
            }
        }
    }

    /// Connects, and records whether that went well.
    async fn reach(&self) -> Result<(), CheckFailure> {
        let connecting = async {
            let stream = connect(&self.endpoint, self.tls.as_ref()).await?;
            match self.protocol {
                Protocol::Http1 => {}
                Protocol::Http2 => drop(greet(stream).await?),
            }
            Ok(())
        };
        let reached = match timeout(self.connect_timeout, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(CheckFailure::Timeout(self.connect_timeout)),
        };
        if !reached.as_ref().is_err_and(CheckFailure::is_our_own) {
            self.endpoint.set_reachable(reached.is_ok());
        }
        reached
    }

    /// One check: connects, asks, and judges the status.
    async fn ask(&self, check: &HealthCheck) -> Result<(), CheckFailure> {
        let mut status = None;
        let exchange = timeout(check.timeout, self.exchange(check, &mut status)).await;
        // The status decides, even if time ran out while the body was still coming.
        match (status, exchange) {
            (Some(status), _) if status.is_success() || status.is_redirection() => Ok(()),
            (Some(status), _) => Err(CheckFailure::Status(status)),
            (None, Ok(Err(failure))) => Err(failure),
            (None, _) => Err(CheckFailure::Timeout(check.timeout)),
        }
    }

    async fn exchange(
        &self,
        check: &HealthCheck,
        status: &mut Option<StatusCode>,
    ) -> Result<(), CheckFailure> {
        let stream = connect(&self.endpoint, self.tls.as_ref()).await?;
        let probe = Probe {
            path: &check.path,
            host: self.endpoint.address(),
            user_agent: "cutover health check",
            authorization: None,
        };
        let mut answer = probe::get(stream, self.protocol, probe).await?;
        *status = Some(answer.status);
        // Nothing depends on the body; a broken or endless one is not what is checked.
        let _ = Limited::new(&mut answer.body, POLITE_BODY).collect().await;
        Ok(())
    }

    fn warn(&self, failure: &CheckFailure) {
        tracing::warn!(
            backend = %self.backend,
            endpoint = self.endpoint.address(),
            reason = %failure,
            "upstream unreachable at start; serving anyway",
        );
    }

    fn announce(&self, result: Result<(), CheckFailure>) {
        let (backend, endpoint) = (&self.backend, self.endpoint.address());
        match result {
            Ok(()) => tracing::info!(%backend, endpoint, "endpoint healthy: its checks pass again"),
            Err(reason) => {
                tracing::info!(%backend, endpoint, %reason, "endpoint unhealthy: its checks fail");
            }
        }
    }
}

/// Why a check failed.
#[derive(Debug, thiserror::Error)]
enum CheckFailure {
    #[error(transparent)]
    Connect(#[from] ConnectFailure),
    #[error(transparent)]
    NotHttp2(#[from] NotHttp2),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error(transparent)]
    Answer(#[from] ProbeFailure),
    #[error("answered {0}")]
    Status(StatusCode),
}

impl CheckFailure {
    /// Whether this machine could not even ask.
    const fn is_our_own(&self) -> bool {
        matches!(self, CheckFailure::Connect(ConnectFailure::NoSocket(_)))
    }
}

/// What one check found.
#[derive(Clone, Copy, Debug)]
struct Passed(bool);

/// How far an endpoint is from the opposite verdict.
#[derive(Debug)]
struct Progress {
    healthy: bool,
    /// Checks in a row that speak against `healthy`.
    contrary: u32,
}

impl Progress {
    fn new(healthy: bool) -> Progress {
        Progress {
            healthy,
            contrary: 0,
        }
    }

    /// Counts one check; true if it turns the verdict.
    fn turns(&mut self, Passed(passed): Passed, check: &HealthCheck) -> bool {
        if passed == self.healthy {
            self.contrary = 0;
            return false;
        }
        self.contrary += 1;
        let needed = if self.healthy {
            check.unhealthy_after
        } else {
            check.healthy_after
        };
        if self.contrary < needed {
            return false;
        }
        *self = Progress::new(passed);
        true
    }
}

#[cfg(test)]
mod tests;
