//! The endpoints that read the state store. Their answers come as they are: they can be long, and
//! are put into words where that keeps nobody.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use axum::http::header;
use axum::response::IntoResponse;
use serde::Deserialize;

use crate::config::model::Role;
use crate::control::history::HistoryQuery;

use super::AdminState;
use super::access::Actor;
use super::error::ApiError;

/// Which decisions are wanted, as a query says it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    split: Option<String>,
    since: Option<String>,
    limit: Option<usize>,
}

pub(super) async fn history(
    State(state): State<AdminState>,
    question: Result<Query<Question>, QueryRejection>,
) -> Result<impl IntoResponse, ApiError> {
    let Query(question) =
        question.map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
    let limit = question.limit.unwrap_or(HistoryQuery::DEFAULT_LIMIT);
    if !HistoryQuery::LIMITS.contains(&limit) {
        let (least, most) = HistoryQuery::LIMITS.into_inner();
        let message = format!("`limit` is {limit}; it may be from {least} to {most}");
        return Err(ApiError::bad_request(message));
    }
    let since = question.since.as_deref().map(str::parse).transpose();
    let query = HistoryQuery {
        split: question.split,
        since: since.map_err(|error| ApiError::bad_request(format!("`since`: {error}")))?,
        limit,
    };
    Ok(json(state.control.history(query).await??))
}

/// All that is saved: latches, shares, and every name and reason in the audit.
pub(super) async fn state(
    State(state): State<AdminState>,
    Extension(actor): Extension<Actor>,
) -> Result<impl IntoResponse, ApiError> {
    actor.must_be(Role::Operate)?;
    Ok(json(state.control.state().await??))
}

fn json(text: String) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], text)
}
