//! The endpoints. Each one asks the control plane a question and passes the answer on.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, FromRequest, FromRequestParts, Path, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::{Json, http};
use bytes::Bytes;
use http_body::Frame;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::control::protocol::{Author, Command, SplitStatus, Status, no_such_split};
use crate::telemetry::metrics::CONTENT_TYPE;

use super::access::Caller;
use super::error::ApiError;
use super::wire::{Because, Done, Emergency, ErrorKind, Record, SetShare, check_reason};
use super::{AdminState, Stage};

/// No valid body comes near this.
const BODY_LIMIT: usize = 16 * 1024;

/// A client that sends a head and then nothing would otherwise hold its connection for ever.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

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
    let mut splits = state.control.status().await?.splits;
    match splits.iter().position(|split| split.name == name) {
        Some(position) => Ok(Json(splits.swap_remove(position))),
        None => {
            let names = splits.iter().map(|split| split.name.as_str());
            let message = no_such_split(&name, names);
            Err(ApiError::new(ErrorKind::NoSuchSplit, message))
        }
    }
}

pub(super) async fn set_share(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    SplitName(split): SplitName,
    JsonBody(body): JsonBody<SetShare>,
) -> Result<Json<Done>, ApiError> {
    let command = Command::Set {
        split,
        share: body.share,
        override_file: body.override_file,
    };
    carry_out(&state, command, caller, body.reason).await
}

pub(super) async fn rollback(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    SplitName(split): SplitName,
    JsonBody(body): JsonBody<Because>,
) -> Result<Json<Done>, ApiError> {
    carry_out(&state, Command::Rollback { split }, caller, body.reason).await
}

pub(super) async fn resume(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    SplitName(split): SplitName,
    JsonBody(body): JsonBody<Because>,
) -> Result<Json<Done>, ApiError> {
    carry_out(&state, Command::Resume { split }, caller, body.reason).await
}

pub(super) async fn emergency(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    JsonBody(body): JsonBody<Emergency>,
) -> Result<Json<Done>, ApiError> {
    if !body.clear && body.reason.trim().is_empty() {
        return Err(ApiError::bad_request(
            "declaring an emergency needs a `reason`: whoever finds it declared will ask why",
        ));
    }
    let command = Command::Emergency {
        split: body.split,
        clear: body.clear,
    };
    carry_out(&state, command, caller, body.reason).await
}

pub(super) async fn reload(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    JsonBody(body): JsonBody<Because>,
) -> Result<Json<Done>, ApiError> {
    carry_out(&state, Command::Reload, caller, body.reason).await
}

pub(super) async fn record(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    SplitName(split): SplitName,
    JsonBody(body): JsonBody<Record>,
) -> Result<Json<Done>, ApiError> {
    let span = body.span;
    carry_out(
        &state,
        Command::Record { split, span },
        caller,
        String::new(),
    )
    .await
}

pub(super) async fn end_recording(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    SplitName(split): SplitName,
) -> Result<Json<Done>, ApiError> {
    carry_out(
        &state,
        Command::EndRecording { split },
        caller,
        String::new(),
    )
    .await
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

async fn carry_out(
    state: &AdminState,
    command: Command,
    caller: Caller,
    reason: String,
) -> Result<Json<Done>, ApiError> {
    check_reason(&reason).map_err(ApiError::bad_request)?;
    let author = Author {
        actor: caller.actor,
        reason,
    };
    let sentence = state.control.command(command, author).await??;
    Ok(Json(Done { sentence }))
}

/// The name of a split in the path, percent-decoded.
pub(super) struct SplitName(String);

impl<S: Send + Sync> FromRequestParts<S> for SplitName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(name) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
        Ok(SplitName(name))
    }
}

/// A bounded JSON body of a change.
///
/// The content type is demanded even of an empty body, because that is what keeps a web page from
/// forging the request: a browser sends `application/json` to another origin only after a
/// preflight, which nothing here answers.
pub(super) struct JsonBody<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(ApiError::new(
                ErrorKind::ContentType,
                "a change needs the header `content-type: application/json`",
            ));
        }
        let body = read(request.into_body()).await?;
        // Nothing at all means that every field is left out.
        let text: &[u8] = if body.is_empty() { b"{}" } else { &body };
        serde_json::from_slice(text)
            .map(JsonBody)
            .map_err(|error| ApiError::bad_request(format!("the body is not valid: {error}")))
    }
}

async fn read(body: Body) -> Result<Bytes, ApiError> {
    let read = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, BODY_LIMIT));
    match read.await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_length_limit(&error) => Err(ApiError::new(
            ErrorKind::BodyTooLarge,
            format!("the body is longer than {BODY_LIMIT} bytes"),
        )),
        Ok(Err(error)) => Err(ApiError::bad_request(format!(
            "the body could not be read: {error}"
        ))),
        Err(_elapsed) => Err(ApiError::new(
            ErrorKind::BodyTimeout,
            "the body did not arrive in time",
        )),
    }
}

fn is_length_limit(error: &axum::Error) -> bool {
    std::error::Error::source(error)
        .is_some_and(|source| source.is::<http_body_util::LengthLimitError>())
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}
