//! Writing the head of a request.
//!
//! Names are written in title case, as HTTP/1 programs have always seen them: the API being
//! replaced is exactly the kind that looks for `Content-Type` and not for `content-type`.

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// A request head being written.
#[derive(Debug)]
pub struct HeadWriter {
    out: BytesMut,
}

impl HeadWriter {
    /// Starts with the request line. `target` is written byte for byte, behind the path that an
    /// absolute target may leave out before its query.
    pub fn new(method: &Method, target: &str) -> Self {
        // Most heads fit; a larger one grows once or twice.
        let mut out = BytesMut::with_capacity(1024);
        out.put_slice(method.as_str().as_bytes());
        out.put_u8(b' ');
        if target.starts_with('?') {
            out.put_u8(b'/');
        }
        out.put_slice(target.as_bytes());
        out.put_slice(b" HTTP/1.1\r\n");
        Self { out }
    }

    /// Adds a field of the client's.
    pub fn field(&mut self, name: &HeaderName, value: &HeaderValue) {
        write_field(&mut self.out, name.as_str(), value.as_bytes());
    }

    /// Adds a field. `value` comes from a checked [`HeaderValue`] or is our own, so it holds no
    /// line break.
    pub fn raw(&mut self, name: &str, value: &[u8]) {
        write_field(&mut self.out, name, value);
    }

    /// Ends the head.
    pub fn finish(mut self) -> BytesMut {
        self.out.put_slice(b"\r\n");
        self.out
    }
}

/// Writes the fields behind a chunked body, and the empty line that ends it.
pub fn write_trailers(out: &mut BytesMut, trailers: Option<&HeaderMap>) {
    for (name, value) in trailers.into_iter().flatten() {
        write_field(out, name.as_str(), value.as_bytes());
    }
    out.put_slice(b"\r\n");
}

/// Writes a field. `value` comes from a checked [`HeaderValue`] or is our own, so it holds no line
/// break.
pub fn write_field(out: &mut BytesMut, name: &str, value: &[u8]) {
    write_name(out, name);
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

/// Writes a name with the first letter of each word in upper case.
fn write_name(out: &mut BytesMut, name: &str) {
    let start = out.len();
    out.put_slice(name.as_bytes());
    let mut starts_word = true;
    for byte in &mut out[start..] {
        if starts_word {
            byte.make_ascii_uppercase();
        }
        starts_word = *byte == b'-';
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_written_as_old_programs_expect_it() {
        let mut head = HeadWriter::new(&Method::GET, "/a//b?x=%2F");
        head.raw("x-request-id", b"7");
        head.field(&http::header::HOST, &HeaderValue::from_static("a.example"));
        assert_eq!(
            head.finish().as_ref(),
            b"GET /a//b?x=%2F HTTP/1.1\r\nX-Request-Id: 7\r\nHost: a.example\r\n\r\n"
        );
    }
}
