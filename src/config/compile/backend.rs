//! Backends: what a name of an upstream stands for.

use rustls::RootCertStore;
use rustls::pki_types::ServerName;

use super::Compiler;
use crate::config::model::{
    Backend, Balance, ClientTls, Ejection, HealthCheck, PoolLimits, Protocol, Timeouts,
};
use crate::config::notation::Written;
use crate::config::raw::{self, List};

impl Compiler<'_, '_> {
    pub(super) fn backend(&mut self, name: String, backend: raw::Backend) -> Backend {
        let path = format!("backends.{name}");
        let mut endpoints: Vec<String> = Vec::new();
        let written = backend.endpoints.into_iter().flat_map(List::numbered);
        for (index, Written(endpoint)) in written {
            if endpoints.contains(&endpoint.0) {
                let message = format!("the endpoint `{}` is listed twice", endpoint.0);
                let remedy = "list each once; it would get twice the traffic and half the limits";
                self.problem(&format!("{path}.endpoints[{index}]"), message, remedy);
            }
            endpoints.push(endpoint.0);
        }
        if backend.pool.max_idle > backend.pool.max_connections {
            self.warning(
                &format!("{path}.pool.max_idle"),
                "more idle connections are allowed than connections",
                "lower `max_idle` or raise `max_connections`",
            );
        }
        Backend {
            endpoints,
            balance: match backend.balance {
                raw::Balance::LeastPending => Balance::LeastPending,
                raw::Balance::RoundRobin => Balance::RoundRobin,
            },
            protocol: match backend.protocol {
                raw::Protocol::Http1 => Protocol::Http1,
                raw::Protocol::Http2 => Protocol::Http2,
            },
            tls: backend.tls.map(|tls| self.client_tls(&path, tls)),
            timeouts: timeouts(backend.timeouts),
            pool: pool(backend.pool),
            health_check: backend.health_check.and_then(health_check),
            ejection: backend.ejection.map(|ejection| Ejection {
                consecutive_failures: ejection.consecutive_failures,
                duration: ejection.duration.0.0,
            }),
            name,
        }
    }

    /// Of what is at the key `backend`, its `tls`.
    pub(super) fn client_tls(&mut self, backend: &str, tls: raw::ClientTls) -> ClientTls {
        let key = format!("{backend}.tls.roots");
        let roots_pem = tls.roots.and_then(|file| self.read_file(&key, &file));
        let certificates = roots_pem
            .as_deref()
            .and_then(|pem| self.certificates(&key, pem));
        if let Some(certificates) = certificates {
            let (added, _) = RootCertStore::empty().add_parsable_certificates(certificates);
            if added == 0 {
                let remedy = "give the certificates of the authorities that sign the upstream's";
                self.problem(
                    &key,
                    "no certificate in the file can serve as a root",
                    remedy,
                );
            }
        }
        if let Some(name) = &tls.server_name
            && ServerName::try_from(name.as_str()).is_err()
        {
            self.problem(
                &format!("{backend}.tls.server_name"),
                format!("`{name}` is no host name"),
                "write a name such as `api.internal`, without scheme and port",
            );
        }
        ClientTls {
            roots_pem,
            server_name: tls.server_name,
        }
    }
}

fn timeouts(timeouts: raw::Timeouts) -> Timeouts {
    Timeouts {
        connect: timeouts.connect.0.0,
        first_byte: timeouts.first_byte.map(|Written(limit)| limit.0),
        body_idle: timeouts.body_idle.0.0,
        upgrade_idle: timeouts.upgrade_idle.0.0,
        total: timeouts.total.map(|Written(limit)| limit.0),
    }
}

fn pool(pool: raw::Pool) -> PoolLimits {
    PoolLimits {
        max_connections: pool.max_connections,
        max_idle: pool.max_idle,
        idle_timeout: pool.idle_timeout.0.0,
        max_lifetime: pool.max_lifetime.0.0,
        warm: pool.warm,
    }
}

/// Absent where the path is, which has been reported.
fn health_check(check: raw::HealthCheck) -> Option<HealthCheck> {
    Some(HealthCheck {
        path: check.path?.0.0,
        interval: check.interval.0.0,
        timeout: check.timeout.0.0,
        healthy_after: check.healthy_after,
        unhealthy_after: check.unhealthy_after,
    })
}
