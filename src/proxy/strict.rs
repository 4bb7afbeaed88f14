//! Refuses targets that two parties could read differently.
//!
//! A parser takes what a peer may be forgiven, and the next hop may forgive something else. Where a
//! request ends is decided while its head is read (`src/server/http1/head.rs`; HTTP/2 has frames for
//! that); what it asks for is looked at here, whatever the protocol.

use http::Method;

use crate::message::RequestHead;
use crate::message::name::CONTENT_LENGTH;

/// Whether the target is a path, or `*` where that is allowed (RFC 9112 §3.2).
pub fn is_plain_target(head: &RequestHead) -> bool {
    let is_web = |scheme: &str| matches!(scheme, "http" | "https");
    // Of an authority alone, which is for CONNECT, the path is empty.
    let path = head.uri.path();
    head.uri.scheme_str().is_none_or(is_web)
        && (path.starts_with('/') || (path == "*" && head.method == Method::OPTIONS))
}

/// Whether a length is a number, where there is one. Over HTTP/1 it is when it comes so far; the
/// library for HTTP/2 takes an empty one for 0.
pub fn is_plain_length(head: &RequestHead) -> bool {
    let mut lengths = head.fields.get_all(&CONTENT_LENGTH);
    lengths.all(|length| !length.is_empty() && length.iter().all(u8::is_ascii_digit))
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
    fn a_length_is_a_number() {
        let is_plain = |length: &str| {
            let request = Request::get("/").header("content-length", length);
            let request = request.body(()).expect("a request").into_parts().0;
            is_plain_length(&request.into())
        };
        assert!(is_plain("5") && is_plain("005"));
        for length in ["", "+5", "5, 5", "0x5", "five"] {
            assert!(!is_plain(length), "{length}");
        }
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
