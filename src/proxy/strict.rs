//! Refuses what two parties could read differently.
//!
//! hyper takes what a peer may be forgiven, and the next hop may forgive something else: where the
//! two disagree about the end of a request, the rest of it becomes a request of its own, with
//! somebody else's name on it. What hyper has already made unambiguous (a repeated length, a
//! length next to chunks) is not looked at again; what it lets through is.

use http::request::Parts;
use http::{HeaderMap, Method, header};

/// Whether a request's target and framing can be read in one way only. `has_length` says that the
/// length of its body is known, if it has one.
pub fn is_unambiguous(parts: &Parts, has_length: bool) -> bool {
    // Only a body of unknown length can have a coding, so that only its request pays for a look.
    is_plain_target(parts) && (has_length || is_plainly_chunked(&parts.headers))
}

/// Whether the target is a path, or `*` where that is allowed (RFC 9112 §3.2).
fn is_plain_target(parts: &Parts) -> bool {
    let is_web = |scheme: &str| matches!(scheme, "http" | "https");
    // Of an authority alone, which is for CONNECT, the path is empty.
    let path = parts.uri.path();
    parts.uri.scheme_str().is_none_or(is_web)
        && (path.starts_with('/') || (path == "*" && parts.method == Method::OPTIONS))
}

/// Whether `chunked` is the only coding and is said once. hyper looks only at the last one, as if
/// the others did not change what the body means. HTTP/2 has no such field.
fn is_plainly_chunked(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (lines.next(), lines.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn is_taken(request: http::request::Builder) -> bool {
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        is_unambiguous(&parts, false)
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

    #[test]
    fn the_one_coding_is_chunked() {
        let coded = |lines: &[&str]| {
            let request = lines.iter().fold(Request::post("/"), |request, line| {
                request.header("transfer-encoding", *line)
            });
            is_taken(request)
        };
        assert!(coded(&["chunked"]) && coded(&["Chunked"]) && coded(&[]));
        for lines in [
            &["gzip, chunked"][..],
            &["identity", "chunked"],
            &["chunked", "chunked"],
            &["chunked, chunked"],
            &[",chunked"],
        ] {
            assert!(!coded(lines), "{lines:?}");
        }
    }
}
