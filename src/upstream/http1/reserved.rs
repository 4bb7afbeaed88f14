//! Names that may not stand behind a body.
//!
//! A receiver that merges trailers into the head would let a trailer overwrite what has been decided
//! by; and one that hands fields to a program as variables does so under another spelling, too.

use http::HeaderName;

use crate::message::Known;

/// Whether a field may stand behind a body (RFC 9110 §6.5.1): none that the receiver needs before
/// it, none that it authenticates or decides by.
pub fn may_trail(name: &HeaderName) -> bool {
    let name = name.as_str().replace('_', "-");
    !Known::of(name.as_bytes()).is_reserved()
        && !name.starts_with("content-")
        && !name.starts_with("if-")
        && !matches!(
            name.as_str(),
            "accept"
                | "age"
                | "authorization"
                | "cache-control"
                | "cookie"
                | "date"
                | "expires"
                | "location"
                | "max-forwards"
                | "pragma"
                | "proxy-authenticate"
                | "proxy-authorization"
                | "range"
                | "retry-after"
                | "set-cookie"
                | "vary"
                | "www-authenticate"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_decided_by_before_the_body_may_not_trail() {
        let may = |name: &'static str| may_trail(&HeaderName::from_static(name));
        for name in [
            "grpc-status",
            "x-checksum",
            "server-timing",
            "digest",
            "etag",
        ] {
            assert!(may(name), "{name}");
        }
        for name in [
            "content-length",
            "content_length",
            "transfer-encoding",
            "host",
            "authorization",
            "x-forwarded-for",
            "cookie",
            "cutover-replay",
        ] {
            assert!(!may(name), "{name}");
        }
    }
}
