//! Refuses targets that two parties could read differently.
//!
//! A parser takes what a peer may be forgiven, and the next hop may forgive something else. Where a
//! request ends is decided while its head is read (`src/server/http1/head.rs`; HTTP/2 has frames for
//! that); what it asks for is looked at here, whatever the protocol.

use http::Method;

use crate::message::RequestHead;

/// Whether the target is a path, or `*` where that is allowed (RFC 9112 §3.2).
pub fn is_plain_target(head: &RequestHead) -> bool {
    let is_web = |scheme: &str| matches!(scheme, "http" | "https");
    // Of an authority alone, which is for CONNECT, the path is empty.
    let path = head.uri.path();
    head.uri.scheme_str().is_none_or(is_web)
        && (path.starts_with('/') || (path == "*" && head.method == Method::OPTIONS))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn is_taken(request: http::request::Builder) -> bool {
        let request = request.body(()).expect("a request").into_parts().0;
        is_plain_target(&request.into())
    }

    #[test]
    fn a_target_is_a_path_or_a_star_of_options() {
        for target in ["/", "/a//b?c", "//a", "http://a.example/b", "HTTPS://a?b"] {
            assert!(is_taken(Request::get(target)), "{target}");
        }
        for target in ["*", "a.example", "a.example:80", "ftp://a.example/b"] {
            assert!(!is_taken(Request::get(target)), "{target}");
        }
        assert!(is_taken(Request::options("*")));
    }
}
