//! Writing the head of a request.
//!
//! Names are written in title case, as HTTP/1 programs have always seen them: the API being
//! replaced is exactly the kind that looks for `Content-Type` and not for `content-type`.

use bytes::{BufMut, BytesMut};
use http::{HeaderName, HeaderValue, Method};

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
        self.raw(name.as_str(), value.as_bytes());
    }

    /// Adds a field. `value` comes from a checked [`HeaderValue`] or is our own, so it holds no
    /// line break.
    pub fn raw(&mut self, name: &str, value: &[u8]) {
        let start = self.out.len();
        self.out.put_slice(name.as_bytes());
        title_case(&mut self.out[start..]);
        self.out.put_slice(b": ");
        self.out.put_slice(value);
        self.out.put_slice(b"\r\n");
    }

    /// Ends the head.
    pub fn finish(mut self) -> BytesMut {
        self.out.put_slice(b"\r\n");
        self.out
    }
}

/// Makes the first letter of each word upper case.
fn title_case(name: &mut [u8]) {
    let mut starts_word = true;
    for byte in name {
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
