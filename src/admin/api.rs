//! The endpoints that only tell. Each one asks the control plane a question and passes the answer on.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::{Json, http};
use bytes::Bytes;
use http_body::Frame;
use serde::Deserialize;

use crate::control::denied::Denied;
use crate::control::protocol::{SplitStatus, Status};
use crate::telemetry::metrics::CONTENT_TYPE;

use super::error::ApiError;
use super::wire::ErrorKind;
use super::{AdminState, Stage};

/// Answers as long as the process can answer at all.
pub(super) async fn livez() -> &'static str {
    "alive\n"
}

pub(super) async fn readyz(State(state): State<AdminState>) -> impl IntoResponse {
    let stage = state.readiness.stage();
    let status = match stage {
        Stage::Ready => StatusCode::OK,
        Stage::Starting | Stage::Draining => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, format!("{}\n", stage.as_str()))
}

pub(super) async fn metrics(
    State(state): State<AdminState>,
) -> Result<impl IntoResponse, ApiError> {
    let text = state.control.metrics().await?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text))
}

pub(super) async fn status(State(state): State<AdminState>) -> Result<Json<Status>, ApiError> {
    Ok(Json(state.control.status().await?))
}

pub(super) async fn split(
    State(state): State<AdminState>,
    SplitName(name): SplitName,
) -> Result<Json<SplitStatus>, ApiError> {
    Ok(Json(state.control.split(&name).await??))
}

pub(super) async fn denied(State(state): State<AdminState>) -> Result<Json<Denied>, ApiError> {
    Ok(Json(state.control.denied().await?))
}

pub(super) async fn recording(
    State(state): State<AdminState>,
    SplitName(split): SplitName,
) -> Result<impl IntoResponse, ApiError> {
    let export = state.control.recording(&split).await??;
    let body = Body::new(Pieces(export.pieces.into()));
    Ok(([(header::CONTENT_TYPE, "application/json")], body))
}

/// A body of text that lies ready. It is sent piece by piece, so that the judge, whose thread this
/// is, has its turn between any two.
struct Pieces(VecDeque<Bytes>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }
}

/// Which key of which split is to be explained.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    split: String,
    key: String,
}

pub(super) async fn explain(
    State(state): State<AdminState>,
    question: Result<Query<Question>, QueryRejection>,
) -> Result<impl IntoResponse, ApiError> {
    let Query(question) =
        question.map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
    if question.key.is_empty() {
        return Err(ApiError::bad_request(
            "an empty key counts as absent; give the key as the request carries it",
        ));
    }
    let answer = state.control.explain(&question.split, &question.key);
    Ok(Json(answer.await??))
}

pub(super) async fn unknown_path(uri: http::Uri) -> ApiError {
    let message = format!("there is nothing at {}", uri.path());
    ApiError::new(ErrorKind::NotFound, message)
}

pub(super) async fn wrong_method(method: http::Method, uri: http::Uri) -> ApiError {
    let message = format!(
        "{} does not take {method}; see the Allow header",
        uri.path()
    );
    ApiError::new(ErrorKind::MethodNotAllowed, message)
}

/// The name of a split in the path, percent-decoded.
pub(super) struct SplitName(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for SplitName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(name) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
        Ok(SplitName(name))
    }
}
