//! Names that only the proxy, or only a head, may use.
//!
//! Two ways lead around a list of names that a stranger may not use. One is another spelling: a
//! server that hands fields to a program as variables (CGI, WSGI, PHP) makes `X_Real_IP` and
//! `X-Real-IP` the same. The other is another place: a receiver that merges trailers into the head
//! would let a trailer overwrite what has been decided by.

use std::borrow::Cow;

use http::HeaderName;

/// Whether a field says for whom, by whom or how a request was forwarded. Applications believe these
/// without asking who wrote them, so only a trusted proxy's may cross.
pub fn is_claim(name: &str) -> bool {
    name == "forwarded" || name == "x-real-ip" || name.starts_with("x-forwarded-")
}

/// Whether `name` is one of the reserved names, spelled with an underscore.
pub fn is_disguised(name: &str) -> bool {
    matches!(plain(name), Cow::Owned(plain) if is_reserved(&plain))
}

/// Whether a field may stand behind a body (RFC 9110 §6.5.1): none that the receiver needs before
/// it, none that it authenticates or decides by.
pub fn may_trail(name: &HeaderName) -> bool {
    let name = plain(name.as_str());
    !is_reserved(&name)
        && !name.starts_with("content-")
        && !name.starts_with("if-")
        && !matches!(
            &*name,
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

/// Whether a field frames a message, concerns a connection, routes a request, or is the proxy's to
/// write.
fn is_reserved(name: &str) -> bool {
    is_claim(name)
        || name.starts_with("cutover-")
        || matches!(
            name,
            "connection"
                | "content-length"
                | "expect"
                | "host"
                | "http2-settings"
                | "keep-alive"
                | "proxy-connection"
                | "te"
                | "trailer"
                | "transfer-encoding"
                | "upgrade"
                | "via"
                | "x-request-id"
        )
}

/// The name with hyphens where it has underscores.
fn plain(name: &str) -> Cow<'_, str> {
    if name.contains('_') {
        Cow::Owned(name.replace('_', "-"))
    } else {
        Cow::Borrowed(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_underscore_hides_no_reserved_name_and_condemns_no_other() {
        for name in [
            "x_real_ip",
            "x-forwarded_for",
            "content_length",
            "cutover_arm",
        ] {
            assert!(is_disguised(name), "{name}");
        }
        for name in ["x-real-ip", "x_mine", "content-type", "content_type"] {
            assert!(!is_disguised(name), "{name}");
        }
    }

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
