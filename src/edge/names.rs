//! Names of fields that the edge looks for or writes.
//!
//! Made beforehand: a name given as text is parsed anew for every request.

use http::HeaderName;

/// Tells browsers and testers where the time went. <https://www.w3.org/TR/server-timing/>
pub(super) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// The trace and the span that a request belongs to.
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What vendors add to it.
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// The field that carries a request's id.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
