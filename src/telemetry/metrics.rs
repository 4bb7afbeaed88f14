//! Everything that `/metrics` says: each name, its labels and its meaning.
//!
//! A scrape takes a [`Scene`], a picture of the process at one moment, and writes it out. Nothing
//! is registered on the request path, so no metric can cost a request anything.
//!
//! Two properties of the exporter shape this module. It keeps a series for ever once it has seen
//! it, so a split removed from the configuration would be reported until the next restart; and its
//! counters set to an absolute value never go down, so a tally that began anew would seem to stand
//! still. Both vanish by giving each scrape an exporter of its own: what is not in the scene is
//! not in the output. Its histograms are not used at all, since they keep each sample until
//! somebody collects it; ours are written from the tally's buckets, on a fixed coarse subset of
//! the same edges.
//!
//! `docs/metrics.md` lists the same names; a test compares the two.

mod exporter;
mod rollout;
mod route;
mod scene;

use self::exporter::{Exporter, write_histograms};
use self::rollout::rollout;
use self::route::route;
pub use self::scene::{
    BREAKER_STATES, BackendScene, CertificateScene, EndpointScene, ProcessScene, RouteScene, Scene,
    SplitScene,
};
use crate::policy::arm::Arm;
use crate::policy::class::{Class, Diversion, Failure};
use crate::policy::fallback::Refusal;
use crate::policy::time::Timestamp;
use crate::telemetry::edge::TunnelEnd;

/// The media type of [`Metrics::render`]; Prometheus 3 refuses an answer without one.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Writes scenes in Prometheus' text format.
#[derive(Debug)]
pub struct Metrics {
    started_at: Timestamp,
}

impl Metrics {
    /// To be made at the start of the process, `started_at`: the first exporter calibrates a
    /// clock, which may take up to 0.2 s and must not delay the verdicts of a running process.
    pub fn new(started_at: Timestamp) -> Metrics {
        drop(Exporter::new());
        Metrics { started_at }
    }

    /// The scene in Prometheus' text format, of type [`CONTENT_TYPE`].
    pub fn render(&self, scene: &Scene<'_>) -> String {
        let exporter = Exporter::new();
        self.process(&exporter, &scene.process);
        for split in &scene.splits {
            self::split(&exporter, split);
            fallbacks(&exporter, split);
            rollout(&exporter, split);
        }
        for backend in &scene.backends {
            self::backend(&exporter, backend);
        }
        for route in &scene.routes {
            self::route(&exporter, route);
        }
        let mut output = exporter.render();
        write_histograms(
            &mut output,
            &scene.splits,
            "cutover_request_first_byte_seconds",
            "Time from a request's head to the first byte of its answer, by assigned arm; a \
             failure counts with its age once it has reached a latency limit.",
            |figures| &figures.first_byte,
        );
        write_histograms(
            &mut output,
            &scene.splits,
            "cutover_request_duration_seconds",
            "Time from a request's head to the end of its answer, by assigned arm; a failure \
             counts with its age once it has reached a limit on the whole answer.",
            |figures| &figures.total,
        );
        output
    }

    fn process(&self, exporter: &Exporter, process: &ProcessScene<'_>) {
        let version = env!("CARGO_PKG_VERSION");
        exporter
            .gauge(
                "cutover_build_info",
                "Always 1; the label tells the version.",
            )
            .set(&[("version", version)], 1.0);
        exporter
            .gauge(
                "process_start_time_seconds",
                "When the process started, in seconds since the Unix epoch.",
            )
            .set(&[], seconds(self.started_at));
        exporter
            .gauge(
                "cutover_snapshot_generation",
                "How many snapshots of configuration and shares were published since the start.",
            )
            .set(&[], process.generation as f64);
        exporter
            .gauge(
                "cutover_config_last_reload_successful",
                "1 if the last reading of the configuration file was accepted, else 0.",
            )
            .set(&[], truth(process.last_reload_successful));
        exporter
            .gauge(
                "cutover_config_last_reload_timestamp_seconds",
                "When the configuration in force was loaded, in seconds since the Unix epoch.",
            )
            .set(&[], seconds(process.last_reload_at));
        exporter
            .gauge(
                "cutover_state_store_healthy",
                "1 while the state store accepts writes; 0 stops promotion.",
            )
            .set(&[], truth(process.store_healthy));
        exporter
            .counter(
                "cutover_audit_dropped_total",
                "Decisions that the audit does not hold any more, or will never hold.",
            )
            .set(&[], process.audit_dropped);
        tunnels(exporter, process);
        let connections = exporter.gauge(
            "cutover_client_connections",
            "Client connections open, by worker.",
        );
        for (worker, &open) in process.worker_connections.iter().enumerate() {
            connections.set(&[("worker", &worker.to_string())], open as f64);
        }
        exporter
            .gauge(
                "cutover_max_client_connections",
                "Client connections that may be open at once.",
            )
            .set(&[], process.max_client_connections as f64);
        exporter
            .counter(
                "cutover_client_connections_accepted_total",
                "Client connections accepted.",
            )
            .set(&[], process.connections_accepted);
        let ends = exporter.gauge(
            "cutover_certificate_not_after_timestamp_seconds",
            "When a listener's certificate ends, in seconds since the Unix epoch.",
        );
        for certificate in process.certificates {
            let listener = certificate.listener.to_string();
            ends.set(
                &[("listener", &listener), ("file", certificate.file)],
                seconds(certificate.not_after),
            );
        }
        exporter
            .counter(
                "cutover_failed_accepts_total",
                "Attempts to let in a waiting connection that the system refused, for want of file \
                 descriptors for example.",
            )
            .set(&[], process.failed_accepts);
        exporter
            .counter(
                "cutover_informational_answers_dropped_total",
                "Informational answers of upstreams, such as 103, that were not passed on.",
            )
            .set(&[], process.untold);
        let load = process.edge_load;
        exporter
            .gauge("cutover_requests_in_flight", "Requests being answered.")
            .set(&[], load.requests_in_flight as f64);
        exporter
            .gauge(
                "cutover_rate_limit_addresses",
                "Client addresses that the rate limit remembers.",
            )
            .set(&[], load.remembered_addresses as f64);
        exporter
            .counter(
                "cutover_rate_limit_common_allowance_total",
                "Requests whose address the rate limit could not remember, because too many others \
                 were.",
            )
            .set(&[], load.requests_on_common_allowance);
        let lines = exporter.counter(
            "cutover_access_log_lines_total",
            "Lines of the access log, by what became of them.",
        );
        lines.set(&[("result", "written")], load.log.written);
        lines.set(&[("result", "dropped")], load.log.dropped);
        exporter
            .gauge("cutover_denied_networks", "Networks denied by hand.")
            .set(&[], process.denied_networks as f64);
        exporter
            .counter(
                "cutover_denials_dropped_total",
                "Networks that the store held denied beyond the bound, and that are let in again.",
            )
            .set(&[], process.denials_dropped);
        let refused = exporter.counter(
            "cutover_refused_total",
            "Connections and requests that the proxy itself turned away, by reason.",
        );
        for &(reason, count) in process.refused {
            refused.set(&[("reason", reason)], count);
        }
        let handovers = exporter.counter(
            "cutover_handovers_total",
            "Replacements of the process that it has taken part in, by result.",
        );
        for &(result, count) in process.handovers {
            handovers.set(&[("result", result)], count);
        }
    }
}

fn tunnels(exporter: &Exporter, process: &ProcessScene<'_>) {
    exporter
        .gauge(
            "cutover_tunnels",
            "Connections that have switched protocols, such as WebSockets, and are open.",
        )
        .set(&[], process.tunnels as f64);
    let ended = exporter.counter(
        "cutover_tunnels_ended_total",
        "Connections that had switched protocols and have ended, by what ended them.",
    );
    for (reason, count) in TunnelEnd::LABELS.into_iter().zip(process.tunnels_ended) {
        ended.set(&[("reason", reason)], count);
    }
}

fn split(exporter: &Exporter, split: &SplitScene<'_>) {
    exporter
        .gauge(
            "cutover_split_share_ratio",
            "The part of keys sent to new, in effect, from 0 to 1.",
        )
        .set(&[("split", split.name)], split.share.ratio());
    exporter
        .gauge(
            "cutover_split_emergency",
            "1 while an emergency sends everything to legacy, else 0.",
        )
        .set(&[("split", split.name)], truth(split.emergency));
    exporter
        .gauge(
            "cutover_failure_streak",
            "Requests of new that failed or were diverted in a row, without a success between.",
        )
        .set(&[("split", split.name)], split.reading.streak.length as f64);
    if let Some(current) = split.breaker {
        let breaker = exporter.gauge(
            "cutover_breaker_state",
            "1 for the state that the breaker of new is in, 0 for the others.",
        );
        for state in BREAKER_STATES {
            let labels = [("split", split.name), ("state", state)];
            breaker.set(&labels, truth(state == current));
        }
    }
    let requests = exporter.counter(
        "cutover_requests_total",
        "Requests ended, by the arm they were assigned to and how they ended.",
    );
    for arm in Arm::ALL {
        let figures = &split.reading.figures[arm];
        for (evidence, classes) in [("true", &figures.classes), ("false", &figures.overridden)] {
            for class in Class::ALL {
                let labels = [
                    ("split", split.name),
                    ("arm", arm.as_str()),
                    ("class", class.as_str()),
                    ("evidence", evidence),
                ];
                requests.set(&labels, classes[class.index()]);
            }
        }
    }
    exporter
        .counter(
            "cutover_unverifiable_tokens_total",
            "Requests with a JWT or a pin token that could not be verified and counted as absent.",
        )
        .set(&[("split", split.name)], split.reading.unverifiable_tokens);
}

fn fallbacks(exporter: &Exporter, split: &SplitScene<'_>) {
    let reading = split.reading;
    let fallbacks = exporter.counter(
        "cutover_fallbacks_total",
        "Requests replayed on legacy after new failed, by the failure and by whether legacy \
         answered.",
    );
    for (result, counts) in [
        ("rescued", &reading.rescued),
        ("failed", &reading.rescue_failed),
        ("cancelled", &reading.rescue_cancelled),
    ] {
        for (reason, &count) in Failure::LABELS.into_iter().zip(counts) {
            let labels = [
                ("split", split.name),
                ("reason", reason),
                ("result", result),
            ];
            fallbacks.set(&labels, count);
        }
    }
    let refused = exporter.counter(
        "cutover_fallback_refused_total",
        "Requests that failed on new and were not replayed on legacy, by reason.",
    );
    for (reason, &count) in Refusal::LABELS.into_iter().zip(&reading.not_replayed) {
        refused.set(&[("split", split.name), ("reason", reason)], count);
    }
    exporter
        .counter(
            "cutover_fallback_mismatch_total",
            "Rescues that ended 401, 403 or 404: legacy may not know what new had created.",
        )
        .set(&[("split", split.name)], reading.fallback_mismatches);
    let diverted = exporter.counter(
        "cutover_diverted_total",
        "Requests assigned to new that went to legacy without an attempt, by reason.",
    );
    for (evidence, counts) in [
        ("true", &reading.diverted),
        ("false", &reading.diverted_overridden),
    ] {
        for (reason, &count) in Diversion::LABELS.into_iter().zip(counts) {
            let labels = [
                ("split", split.name),
                ("reason", reason),
                ("evidence", evidence),
            ];
            diverted.set(&labels, count);
        }
    }
}

fn backend(exporter: &Exporter, backend: &BackendScene<'_>) {
    let reading = backend.attempts;
    let attempts = exporter.counter(
        "cutover_attempts_total",
        "Tries of a request at an endpoint, by backend and result.",
    );
    attempts.set(
        &[("backend", backend.name), ("result", "success")],
        reading.succeeded,
    );
    for (result, &count) in Failure::LABELS.into_iter().zip(&reading.failed) {
        attempts.set(&[("backend", backend.name), ("result", result)], count);
    }
    exporter
        .counter(
            "cutover_attempt_retries_total",
            "Requests tried again within a backend, at another endpoint or on another connection.",
        )
        .set(&[("backend", backend.name)], reading.retried);
    exporter
        .counter(
            "cutover_upstream_connections_opened_total",
            "Connections opened to a backend.",
        )
        .set(&[("backend", backend.name)], reading.connections_opened);
    exporter
        .counter(
            "cutover_upstream_connections_reused_total",
            "Attempts made on a kept-alive connection.",
        )
        .set(&[("backend", backend.name)], reading.connections_reused);
    let healthy = exporter.gauge(
        "cutover_endpoint_healthy",
        "1 while the endpoint takes requests, 0 while it fails its checks or is ejected.",
    );
    let reachable = exporter.gauge(
        "cutover_endpoint_reachable",
        "1 unless the last attempt to connect to the endpoint failed.",
    );
    let pending = exporter.gauge(
        "cutover_endpoint_pending_requests",
        "Requests in flight at the endpoint.",
    );
    let connections = exporter.gauge(
        "cutover_endpoint_connections",
        "Connections open to the endpoint.",
    );
    for endpoint in &backend.endpoints {
        let labels = [("backend", backend.name), ("endpoint", endpoint.address)];
        healthy.set(&labels, truth(endpoint.healthy));
        reachable.set(&labels, truth(endpoint.reachable));
        pending.set(&labels, endpoint.pending as f64);
        connections.set(&labels, endpoint.connections as f64);
    }
}

fn truth(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

fn seconds(at: Timestamp) -> f64 {
    at.milliseconds() as f64 / 1000.0
}

/// Evidence may underflow to zero, whose logarithm no gauge can average.
fn logarithm(odds: f64) -> f64 {
    odds.max(f64::MIN_POSITIVE).log10()
}

#[cfg(test)]
mod tests;
