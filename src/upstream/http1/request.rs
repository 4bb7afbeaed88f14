//! Writing the head of a request.
//!
//! Names are written as their sender has spelled them: the API being replaced is exactly the kind
//! that looks for `Content-Type` and not for `content-type`.

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, Method};

use crate::message::name::write_in_title_case;
use crate::message::{Field, Fields, Name};

/// A request head being written.
#[derive(Debug)]
pub struct HeadWriter {
    out: BytesMut,
}

impl HeadWriter {
    /// Starts with the request line, in `out`, which is empty. `target` is written byte for byte,
    /// behind the path that an absolute target may leave out before its query.
    pub fn new(mut out: BytesMut, method: &Method, target: &str) -> Self {
        debug_assert!(out.is_empty());
        // Most heads fit; a larger one grows once or twice.
        out.reserve(1024);
        out.put_slice(method.as_str().as_bytes());
        out.put_u8(b' ');
        if target.starts_with('?') {
            out.put_u8(b'/');
        }
        out.put_slice(target.as_bytes());
        out.put_slice(b" HTTP/1.1\r\n");
        Self { out }
    }

    /// Adds those of the client's fields that `is_kept` says.
    pub fn keep(&mut self, fields: &Fields, is_kept: impl FnMut(Field<'_>) -> bool) {
        fields.write(&mut self.out, is_kept);
    }

    /// Adds a field. `value` is a field's or our own, so it holds no line break.
    pub fn add(&mut self, name: &Name, value: &[u8]) {
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
        write_in_title_case(out, name.as_str().as_bytes());
        write_value(out, value.as_bytes());
    }
    out.put_slice(b"\r\n");
}

/// Writes a field. `value` is a field's or our own, so it holds no line break.
pub fn write_field(out: &mut BytesMut, name: &Name, value: &[u8]) {
    out.put_slice(name.as_str().as_bytes());
    write_value(out, value);
}

fn write_value(out: &mut BytesMut, value: &[u8]) {
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Known;
    use crate::message::name::HOST;

    #[test]
    fn what_is_kept_of_a_head_is_written_as_it_was_received() {
        let text = b"x-ONE:  1\nX-Request-Id: 7\r\nx-two: \r\n\r\n";
        let mut fields = Fields::of_text(text, 3);
        fields.add_received(Known::Other, (0, 5), (8, 1));
        fields.add_received(Known::XRequestId, (10, 12), (24, 1));
        fields.add_received(Known::Other, (27, 5), (34, 0));
        let mut head = HeadWriter::new(BytesMut::new(), &Method::GET, "/a//b?x=%2F");
        head.add(&HOST, b"a.example");
        head.keep(&fields, |field| field.known != Known::XRequestId);
        assert_eq!(
            head.finish().as_ref(),
            b"GET /a//b?x=%2F HTTP/1.1\r\nHost: a.example\r\nx-ONE: 1\r\nx-two: \r\n\r\n"
        );
    }
}
