//! Names of fields that the path of a request looks for or writes.
//!
//! Made beforehand: a name given as text is parsed anew for every request.

use http::HeaderName;

/// Names the arm that answered, where the split shows it.
pub(super) const CUTOVER_ARM: HeaderName = HeaderName::from_static("cutover-arm");
/// Says why legacy answered instead of `new`, where the split shows it.
pub(super) const CUTOVER_FALLBACK: HeaderName = HeaderName::from_static("cutover-fallback");
/// Marks a request that legacy gets because `new` failed.
pub(super) const CUTOVER_REPLAY: HeaderName = HeaderName::from_static("cutover-replay");
/// Says that a request may be repeated, whatever its method.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The addresses that a request has come through.
pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The host that the client has asked for.
pub(super) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The scheme that the client has asked by.
pub(super) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
