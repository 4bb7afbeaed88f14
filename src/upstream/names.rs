//! Names of fields that upstreams are understood by.
//!
//! Made beforehand: a name given as text is parsed anew for every answer.

use http::HeaderName;

/// How a gRPC call has ended.
pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
