//! The admin service: what an operator, a balancer and a scraper may ask over HTTP.
//!
//! It is a thin door in front of the control plane. Every answer comes from the single writer
//! through [`ControlHandle`], every change goes to it, and nothing here decides anything; so the
//! page, the CLI and a script with `curl` can never do what another cannot.
//!
//! The mistake to avoid is a door that stands open by accident. A page in an operator's browser
//! can send requests to a loopback port, which is why changes need a JSON content type (no web
//! page can send one elsewhere without asking first), and why, while no token is configured, only
//! requests that name the service by address are answered (see [`access`]). Access is checked
//! around the whole router, not per endpoint, so a new endpoint is closed until someone with the
//! right role knocks; only the two probes stand outside.
//!
//! A dead upstream, a failing store and a refused reload do not touch `/readyz`: it is 503 only
//! before the first snapshot and while draining, because taking the proxy out of its balancer
//! would harm more than any of those.

mod access;
mod api;
mod changes;
mod error;
mod history;
mod readiness;
#[cfg(test)]
mod tests;
pub mod wire;

use std::sync::Arc;

use axum::Router;
use axum::middleware;
use axum::routing::{get, post};

use crate::config::model::Token;
use crate::control::protocol::ControlHandle;
use crate::handover::upgrade::Upgrades;

pub use self::readiness::{Readiness, Stage};

/// All that the service reaches.
#[derive(Clone)]
pub struct AdminState {
    /// The single writer.
    pub control: ControlHandle,
    /// Who may do what. Empty: whoever reaches the (loopback) address may operate.
    pub tokens: Arc<[Token]>,
    /// What `/readyz` says.
    pub readiness: Readiness,
    /// Where upgrades are asked for.
    pub upgrades: Upgrades,
}

/// The admin API as a router; serve it on the admin listener, on the control runtime.
pub fn service(state: AdminState) -> Router {
    let probes = Router::new()
        .route("/livez", get(api::livez))
        .route("/readyz", get(api::readyz))
        .method_not_allowed_fallback(api::wrong_method);
    let guarded = Router::new()
        .route("/metrics", get(api::metrics))
        .route("/api/v1/status", get(api::status))
        .route("/api/v1/splits/{split}", get(api::split))
        .route("/api/v1/splits/{split}/share", post(changes::set_share))
        .route("/api/v1/splits/{split}/stage", post(changes::stage))
        .route("/api/v1/splits/{split}/promote", post(changes::promote))
        .route("/api/v1/splits/{split}/pause", post(changes::pause))
        .route("/api/v1/splits/{split}/approve", post(changes::approve))
        .route("/api/v1/splits/{split}/rollback", post(changes::rollback))
        .route("/api/v1/splits/{split}/resume", post(changes::resume))
        .route(
            "/api/v1/splits/{split}/signals/{name}",
            post(changes::signal),
        )
        .route(
            "/api/v1/splits/{split}/recording",
            get(api::recording)
                .post(changes::record)
                .delete(changes::end_recording),
        )
        .route("/api/v1/denied", get(api::denied).post(changes::deny))
        .route("/api/v1/emergency", post(changes::emergency))
        .route("/api/v1/reload", post(changes::reload))
        .route("/-/reload", post(changes::reload))
        .route("/api/v1/upgrade", post(changes::upgrade))
        .route("/api/v1/explain", get(api::explain))
        .route("/api/v1/history", get(history::history))
        .route("/api/v1/state", get(history::state))
        .fallback(api::unknown_path)
        .method_not_allowed_fallback(api::wrong_method)
        .layer(middleware::from_fn_with_state(state.clone(), access::guard));
    probes.merge(guarded).with_state(state)
}
