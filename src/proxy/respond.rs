//! Answers of the proxy's own: the one place where an error becomes a status.

use http::{StatusCode, Version};

use crate::message::Response;
use crate::message::name::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use crate::policy::class::{Diversion, Failure};
use crate::snapshot::route_limits::TurnedAway;
use crate::telemetry::edge::EdgeRefusal;

use super::attempt::{ClientFault, Unanswered};
use super::body::ResponseBody;

/// A short answer in plain text.
pub fn plain(status: StatusCode, text: &'static str) -> Response<ResponseBody> {
    let mut response = Response::new(status, ResponseBody::own(text.as_bytes()));
    let fields = &mut response.fields;
    fields.append(&CONTENT_TYPE, b"text/plain; charset=utf-8");
    // Nobody may keep an answer that says only how things stood for a moment.
    fields.append(&CACHE_CONTROL, b"no-store");
    if status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS {
        fields.append(&RETRY_AFTER, b"1");
    }
    response
}

/// Takes the body out of an answer to HEAD, and leaves its length. Over HTTP/1 whoever writes the head
/// does so; over HTTP/2 hyper sends whatever there is, and clients take that for a broken answer.
pub fn without_body(response: &mut Response<ResponseBody>) {
    if let Some(length) = response.body.leave_out() {
        let mut digits = itoa::Buffer::new();
        let length = digits.format(length).as_bytes();
        response.fields.insert(&CONTENT_LENGTH, length);
    }
}

/// Says that the connection ends with this answer, because not all of the request was read: what is
/// left of it would stand before the next one. A client that is not told sends that one into a
/// closed door. HTTP/2 has streams, so nothing ends but this one.
pub fn end_connection(response: &mut Response<ResponseBody>, version: Version) {
    if version < Version::HTTP_2 {
        response.fields.insert(&CONNECTION, b"close");
    }
}

/// What a request gets that the edge turns away.
pub fn refused(refusal: EdgeRefusal) -> Response<ResponseBody> {
    let (status, text) = match refusal {
        EdgeRefusal::NoRoute => (StatusCode::NOT_FOUND, "no route matches this request\n"),
        EdgeRefusal::InvalidHost => (
            StatusCode::BAD_REQUEST,
            "the request must name exactly one host\n",
        ),
        EdgeRefusal::Malformed => (
            StatusCode::BAD_REQUEST,
            "the request can be read in more than one way\n",
        ),
        EdgeRefusal::HeadTooLarge => (
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "the request has too many fields\n",
        ),
        EdgeRefusal::TargetTooLong => (
            StatusCode::URI_TOO_LONG,
            "the request's target is too long\n",
        ),
        EdgeRefusal::Denied => (StatusCode::FORBIDDEN, "this address may not come here\n"),
        EdgeRefusal::RateLimited => (
            StatusCode::TOO_MANY_REQUESTS,
            "too many requests from this address\n",
        ),
        EdgeRefusal::Overloaded => (
            StatusCode::SERVICE_UNAVAILABLE,
            "too many requests at once\n",
        ),
        EdgeRefusal::ClientTimeout => (
            StatusCode::REQUEST_TIMEOUT,
            "the request's body did not arrive in time\n",
        ),
        EdgeRefusal::Connect => (
            StatusCode::METHOD_NOT_ALLOWED,
            "this is no tunnelling proxy\n",
        ),
        EdgeRefusal::PoolFull => (
            StatusCode::SERVICE_UNAVAILABLE,
            "all connections to the upstream are in use\n",
        ),
        EdgeRefusal::NoSocket => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the proxy has no connection to spare\n",
        ),
        EdgeRefusal::RouteOverloaded => (
            StatusCode::SERVICE_UNAVAILABLE,
            "too many requests for this at once\n",
        ),
        EdgeRefusal::RouteRateLimited => (
            StatusCode::TOO_MANY_REQUESTS,
            "too many requests for this\n",
        ),
        EdgeRefusal::BodyTooLarge => (
            StatusCode::PAYLOAD_TOO_LARGE,
            "the request's body is too large\n",
        ),
    };
    plain(status, text)
}

/// What a client gets that has begun a request and does not go on.
pub fn late_head() -> Response<ResponseBody> {
    plain(
        StatusCode::REQUEST_TIMEOUT,
        "the request's head did not arrive in time\n",
    )
}

/// What a request gets that its route turns away.
pub fn turned_away(because: TurnedAway) -> (EdgeRefusal, Response<ResponseBody>) {
    match because {
        TurnedAway::Overloaded => {
            let refusal = EdgeRefusal::RouteOverloaded;
            (refusal, refused(refusal))
        }
        TurnedAway::RateLimited(wait) => {
            let refusal = EdgeRefusal::RouteRateLimited;
            let mut response = refused(refusal);
            // Rounded up: whoever comes as soon as he may must not be turned away again.
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            let mut digits = itoa::Buffer::new();
            let seconds = digits.format(seconds.max(1)).as_bytes();
            response.fields.insert(&RETRY_AFTER, seconds);
            (refusal, response)
        }
    }
}

/// What the client gets when no backend answered it.
pub fn unanswered(unanswered: &Unanswered) -> Response<ResponseBody> {
    match unanswered {
        Unanswered::Failed { failure, .. } => match failure {
            Failure::ConnectTimeout | Failure::FirstByteTimeout => plain(
                StatusCode::GATEWAY_TIMEOUT,
                "the upstream did not answer in time\n",
            ),
            _ => plain(StatusCode::BAD_GATEWAY, "the upstream could not answer\n"),
        },
        Unanswered::Diverted { diversion, .. } => match diversion {
            Diversion::PoolFull => refused(EdgeRefusal::PoolFull),
            Diversion::NoSocket => refused(EdgeRefusal::NoSocket),
            Diversion::NoEndpoint | Diversion::Breaker => plain(
                StatusCode::SERVICE_UNAVAILABLE,
                "no upstream is available\n",
            ),
        },
        Unanswered::Client(ClientFault::Stalled) => refused(EdgeRefusal::ClientTimeout),
        Unanswered::Client(ClientFault::Host) => refused(EdgeRefusal::InvalidHost),
        Unanswered::Client(ClientFault::TooLarge) => refused(EdgeRefusal::BodyTooLarge),
        // Nobody is left to read this.
        Unanswered::Client(ClientFault::Gone) => plain(
            StatusCode::BAD_REQUEST,
            "the request's body was not complete\n",
        ),
    }
}
