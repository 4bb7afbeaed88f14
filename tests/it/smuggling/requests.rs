//! Requests whose end can be argued about.

use super::expect;

/// Refused, and whatever follows with it.
const REFUSED: (&[u16], &[&str]) = (&[400], &[]);
/// One request, and the next one is understood as such.
const PASSED: (&[u16], &[&str]) = (&[200, 200], &["/a", "/next"]);
/// One request, after which nobody listens to this client any more.
const LAST: (&[u16], &[&str]) = (&[200], &["/a"]);

/// A POST of `/a` with these lines in its head, and this behind it.
fn post(fields: &str, body: &str) -> String {
    format!("POST /a HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n\r\n{body}")
}

async fn each<C: AsRef<str>>(cases: &[C], outcome: (&[u16], &[&str])) {
    let (statuses, targets) = outcome;
    let cases: Vec<_> = cases
        .iter()
        .map(|case| (case.as_ref(), statuses, targets))
        .collect();
    expect(&cases).await;
}

#[tokio::test]
async fn a_coding_that_is_not_plainly_chunked_is_refused() {
    let chunks = "0\r\n\r\n";
    let lines = [
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\ntransfer-encoding: x",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunkedx",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: 'chunked'",
        "Transfer-Encoding:",
        "Transfer-Encoding: \u{b}chunked",
        "Transfer-Encoding: \u{c}chunked",
        "Transfer-Encoding: chunked\0",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        " Transfer-Encoding: chunked",
        "Transfer-Encoding\r\n : chunked",
        "Transfer-Encoding:\r\n chunked",
        "X: y\r\n Transfer-Encoding: chunked",
        "\rTransfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
        "Transfer-Encoding: cow\r\nContent-Length: 5",
        "Content-Length: 5\r\nTransfer-Encoding: identity",
    ];
    let cases = lines.map(|line| post(line, chunks));
    each(&cases, REFUSED).await;
    let old = "POST /a HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    each(&[old], REFUSED).await;
}

#[tokio::test]
async fn chunks_beside_a_length_are_the_last_that_is_heard_of_a_client() {
    // RFC 9112 §6.3 lets the chunks count; the length does not cross, and nothing behind them does.
    each(
        &[
            post(
                "Content-Length: 6\r\nTransfer-Encoding: chunked",
                "0\r\n\r\nG",
            ),
            post(
                "Transfer-Encoding: chunked\r\nContent-Length: 4",
                "1\r\nx\r\n0\r\n\r\n",
            ),
            post(
                "Transfer-Encoding: chunked\r\nContent-Length: 0",
                "0\r\n\r\n",
            ),
            post(
                "tRANSFER-eNCODING:CHUNKED \t\r\nContent-Length: 9",
                "0\r\n\r\n",
            ),
        ],
        LAST,
    )
    .await;
}

#[tokio::test]
async fn a_length_is_digits_and_one_number() {
    let refused = [
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 5, 5",
        "Content-Length: 5,6",
        "Content-Length: 0x5",
        "Content-Length: 5x",
        "Content-Length: 5 5",
        "Content-Length: 5.0",
        "Content-Length: \"5\"",
        "Content-Length:",
        "Content-Length: \u{b2}",
        "Content-Length: 99999999999999999999",
        "Content-Length: 18446744073709551616",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\nContent-Length: 5, 5",
        "Content-Length: 5\r\ncontent-length: 0",
        "Content-Length : 5",
        "Content-Length\0: 5",
        "Content\0-Length: 5",
        "Content-Length: 5\0",
        "Content-Length:\r\n 5",
    ];
    let refused = refused.map(|line| post(line, "hello"));
    each(&refused, REFUSED).await;
    let passed = [
        "Content-Length: 5",
        "Content-Length:5",
        "Content-Length: \t 5 \t",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 005",
        "CONTENT-LENGTH: 5\r\nConnection: Content-Length",
    ];
    each(&passed.map(|line| post(line, "hello")), PASSED).await;
    each(&[post("Content-Length: 000", "")], PASSED).await;
}

#[tokio::test]
async fn a_body_that_breaks_the_rules_of_chunks_is_refused() {
    let bodies = [
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-1\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "\r\n5\r\nhello\r\n0\r\n\r\n",
        "5 5\r\nhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5\r\r\nhello\r\n0\r\n\r\n",
        "g\r\nhello\r\n0\r\n\r\n",
        ";a\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nbad name: 1\r\n\r\n",
        "5\r\nhello\r\n0\r\nX : 1\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: 1\r\n 2\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: \0\r\n\r\n",
    ];
    let cases = bodies.map(|body| post("Transfer-Encoding: chunked", body));
    each(&cases, REFUSED).await;
}

#[tokio::test]
async fn chunks_with_what_may_be_forgiven_arrive_without_it() {
    let bodies = [
        "5\r\nhello\r\n0\r\n\r\n",
        "5;a=b;c=\"d\"\r\nhello\r\n0\r\n\r\n",
        "5 ; a\r\nhello\r\n0;b\r\n\r\n",
        "0000000005\r\nhello\r\n0000\r\n\r\n",
        "A\r\n0\r\n\r\nGET /\r\n0\r\n\r\n",
    ];
    let cases = bodies.map(|body| post("Transfer-Encoding: chunked", body));
    each(&cases, PASSED).await;
}

#[tokio::test]
async fn a_request_that_is_never_finished_reaches_nobody_as_a_whole() {
    let timeout: (&[u16], &[&str]) = (&[408], &[]);
    // The next request is taken for the body, which is what its sender asked for; it is short.
    each(
        &[
            post("Content-Length: 500", "hello"),
            post("Transfer-Encoding: chunked", "500\r\nhello"),
        ],
        timeout,
    )
    .await;
}

#[tokio::test]
async fn trailers_end_beyond_doubt_or_their_request_is_none() {
    let fields = "Transfer-Encoding: chunked";
    let doubtful = [
        "3\r\nabc\r\n0\r\n\n",
        "3\r\nabc\r\n0\r\nA: b\n\n",
        "3\r\nabc\r\n0\r\nA: b\r\n\n",
    ];
    each(&doubtful.map(|body| post(fields, body)), REFUSED).await;
    let bodies = [
        "2\r\nhe\r\n3\r\nllo\r\n0\r\nX-Sum: 1\r\n\r\n",
        "2\r\nhe\r\n3\r\nllo\r\n0\r\nContent-Length: 7\r\nHost: b\r\n\r\n",
    ];
    each(&bodies.map(|body| post(fields, body)), PASSED).await;
}
