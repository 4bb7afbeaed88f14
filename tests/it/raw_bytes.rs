//! What strangers write, read by everything that reads it: no bytes bring it down, and none make it
//! say what its plain rules do not.
//!
//! Each rule is a function of bytes in [`checks`]. Here they are fed at random, from seeds that reach
//! deep, with every run of the tests; the fuzz targets in `fuzz/` feed the same functions, guided by
//! coverage, for as long as somebody lets them.

mod checks;

use proptest::prelude::*;

/// One of the seeds, with some of its bytes changed, taken out or doubled: nearly right is what
/// finds mistakes.
fn nearly(seeds: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let edit = (any::<prop::sample::Index>(), 0..4_u8, any::<u8>());
    let edits = prop::collection::vec(edit, 0..6);
    (prop::sample::select(seeds), edits).prop_map(|(seed, edits)| {
        let mut bytes = seed.as_bytes().to_vec();
        for (place, kind, byte) in edits {
            if bytes.is_empty() {
                break;
            }
            let at = place.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, byte),
                _ => bytes.truncate(at),
            }
        }
        bytes
    })
}

const CONFIGURATIONS: &[&str] = &[
    include_str!("../../config/quickstart.yaml"),
    include_str!("../../config/six-stage.yaml"),
    "listeners: [{address: '127.0.0.1:0'}]\nbackends: {a: {endpoints: ['h:1']}}\nroutes: [{backend: a}]",
    "a: &x [1, *x]\nb: !!binary x\nc: |\n  ${A:-b}$${c}\n",
];

const HEADS: &[&str] = &[
    "GET /a//b?c=%2F HTTP/1.1\r\nHost: a.example\r\nConnection: close, X-Mine, Host\r\nX-Mine: 1\r\n\r\n",
    "POST http://b.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\nTE: trailers\r\nCutover-Replay: 1\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nForwarded: for=1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\nKeep-Alive: timeout=5\r\nProxy-Connection: close\r\n\r\n",
];

const FORWARDED: &[&str] = &[
    "198.51.100.7, 10.0.0.1, 10.0.0.2",
    "[2001:db8::1]:443, \"10.0.0.1\", unknown,, 10.0.0.1:80",
    "10.0.0.1\n203.0.113.9, 10.1.1.1",
];

const COOKIES: &[&str] = &[
    "session=alice; other=1",
    "a; session = \"bob\" ;session=carol",
    ";;=;session=;session=dave",
];

const TOKENS: &[&str] = &[
    "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.AAAA",
    "bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9.",
    "Basic YTpi",
];

const ANSWERS: &[&str] = &[
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: X-Gone\r\nX-Gone: 1\r\n\r\nhelloHTTP/1.1 200 OK\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nA: b\r\n\r\n",
    "HTTP/1.0 200 OK\r\n\r\nuntil the end",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
];

proptest! {
    #[test]
    fn no_text_brings_the_reading_of_a_configuration_down(text in nearly(CONFIGURATIONS)) {
        checks::configuration(&text);
    }

    #[test]
    fn what_reaches_an_upstream_is_one_head_in_the_proxys_words(head in nearly(HEADS)) {
        checks::head(&head);
    }

    #[test]
    fn a_clients_address_is_told_by_trusted_proxies_alone(lines in nearly(FORWARDED)) {
        checks::forwarded(&lines);
    }

    #[test]
    fn a_cookie_is_what_the_plainest_reader_finds(line in nearly(COOKIES)) {
        checks::cookie(&line);
    }

    #[test]
    fn no_token_without_our_signature_chooses_a_session(token in nearly(TOKENS)) {
        checks::token(&token);
    }

    #[test]
    fn an_answer_reads_alike_however_it_arrives(answer in nearly(ANSWERS)) {
        checks::answer(&answer);
    }
}
