//! What becomes of heads: the client's for its upstream, and the upstream's on its way back.

use std::hint::black_box;

use bytes::BytesMut;
use cutover::message::Request;
use cutover::proxy::headers::{Forwarding, authority, write_request};
use cutover::proxy::peer::{Caller, Peer};
use cutover::upstream::http1::response::parse;
use cutover::upstream::http1::upload::Framing;
use http::Method;

use super::exchange::{FIELDS, TARGET, answer_head};

/// The head of a client's request, written for its upstream.
pub(super) fn rewrite() -> Box<dyn FnMut()> {
    let mut request = http::Request::get(TARGET);
    for (name, value) in FIELDS {
        request = request.header(name, value);
    }
    let head = Request::from(request.body(()).expect("a request")).head;
    let peer = Peer {
        address: "198.51.100.7:51234".parse().expect("an address"),
        secure: false,
    };
    let caller = Caller::new(peer, &[]);
    let mut out = BytesMut::new();
    Box::new(move || {
        let head = black_box(&head);
        out.clear();
        let written = write_request(
            std::mem::take(&mut out),
            head,
            Forwarding {
                caller: &caller,
                authority: authority(head).expect("it names one host"),
                framing: Framing::None,
                via: None,
                is_replay: false,
                upgrade: None,
            },
        );
        out = black_box(written);
    })
}

/// The head of an upstream's answer, read from the buffer that it came in.
pub(super) fn read_answer() -> Box<dyn FnMut()> {
    let text = answer_head();
    let mut buffer = BytesMut::new();
    Box::new(move || {
        buffer.extend_from_slice(black_box(text.as_bytes()));
        let head = parse(&mut buffer, &Method::GET, None).expect("it is valid");
        assert!(black_box(head).is_some(), "it is complete");
    })
}
