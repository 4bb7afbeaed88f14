//! The one place where a failure of the admin API becomes an HTTP answer.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::control::protocol::{ControlStopped, Refused};

use super::wire::{ErrorBody, ErrorDetail, ErrorKind};

/// A request that was not carried out. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct ApiError {
    kind: ErrorKind,
    message: String,
}

impl ApiError {
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadRequest, message)
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        Self::new(ErrorKind::from(&refused), refused.to_string())
    }
}

impl From<ControlStopped> for ApiError {
    fn from(stopped: ControlStopped) -> Self {
        Self::new(ErrorKind::Stopping, stopped.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = status_of(self.kind);
        let body = ErrorBody {
            error: ErrorDetail {
                kind: self.kind,
                message: self.message,
            },
        };
        let mut response = (status, Json(body)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"cutover\""),
            );
        }
        response
    }
}

const fn status_of(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::BadRequest => StatusCode::BAD_REQUEST,
        ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorKind::Forbidden | ErrorKind::ForbiddenHost => StatusCode::FORBIDDEN,
        ErrorKind::NoSuchSplit | ErrorKind::NoSuchSignal | ErrorKind::NotFound => {
            StatusCode::NOT_FOUND
        }
        ErrorKind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ErrorKind::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
        ErrorKind::Precondition | ErrorKind::RevisionMismatch => StatusCode::CONFLICT,
        ErrorKind::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorKind::InvalidConfig => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorKind::StoreFailed | ErrorKind::Stopping | ErrorKind::HandingOver => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}
