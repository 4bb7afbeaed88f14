//! Request lines, hosts and fields that two parties could read differently.

use super::expect;

const REFUSED: (&[u16], &[&str]) = (&[400], &[]);

async fn refused(cases: &[String]) {
    let (statuses, targets) = REFUSED;
    let cases: Vec<_> = cases
        .iter()
        .map(|case| (case.as_str(), statuses, targets))
        .collect();
    expect(&cases).await;
}

/// A request with this first line.
fn line(line: &str) -> String {
    format!("{line}\r\nHost: a.example\r\n\r\n")
}

/// A GET of `/a` with these lines as the whole head.
fn head(lines: &str) -> String {
    format!("GET /a HTTP/1.1\r\n{lines}\r\n\r\n")
}

#[tokio::test]
async fn a_request_line_that_is_none_is_refused() {
    let lines = [
        "GET /a",
        "GET /a HTTP/0.9",
        "GET /a HTTP/1.2",
        "GET /a HTTP/2.0",
        "GET /a HTTP/1",
        "GET /a HTTP/1.1 ",
        "GET /a  HTTP/1.1",
        "GET  /a HTTP/1.1",
        "GET\t/a HTTP/1.1",
        "GET /a\tHTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET /a http/1.1",
        " GET /a HTTP/1.1",
        "G(T /a HTTP/1.1",
        "G\0T /a HTTP/1.1",
        "G\u{e9}T /a HTTP/1.1",
        "/a HTTP/1.1",
        "GET /a\0 HTTP/1.1",
        "GET /a\u{1} HTTP/1.1",
        "GET /a\u{7f} HTTP/1.1",
        "GET /a\r/b HTTP/1.1",
        "GET /\u{ff} HTTP/1.1",
        "GET * HTTP/1.1",
        "GET a HTTP/1.1",
        "GET a.example:80 HTTP/1.1",
        "GET ?a HTTP/1.1",
        "GET ftp://a.example/a HTTP/1.1",
        "GET http:///a HTTP/1.1",
        "GET http://user@a.example/a HTTP/1.1",
        "GET http://user:secret@a.example/a HTTP/1.1",
        "GET http://a.example,b.example/a HTTP/1.1",
        "HTTP/1.1 200 OK",
    ];
    refused(&lines.map(line)).await;
}

#[tokio::test]
async fn a_connect_is_refused_and_nothing_of_its_tunnel_is_a_request() {
    let cases = ["CONNECT b.example:443 HTTP/1.1", "CONNECT /a HTTP/1.1"].map(line);
    let refused: [(&str, &[u16], &[&str]); 2] =
        [0, 1].map(|case| (&*cases[case], &[405][..], &[][..]));
    expect(&refused).await;
}

#[tokio::test]
async fn a_request_names_one_host() {
    let lines = [
        "X: y",
        "Host: a\r\nHost: b",
        "Host: a\r\nhost: a",
        "Host: a, b",
        "Host: a b",
        "Host: a/b",
        "Host: a@b",
        "Host: a?b",
        "Host: a#b",
        "Host: a\\b",
        "Host: \u{e9}",
        "Host: <a>",
        "Host: a\"",
    ];
    refused(&lines.map(head)).await;
}

#[tokio::test]
async fn a_field_that_breaks_the_grammar_is_refused() {
    let lines = [
        "Host: a\r\nX : y",
        "Host: a\r\nX\t: y",
        "Host: a\r\n X: y",
        "Host: a\r\nX: y\r\n z",
        "Host: a\r\nX: y\r\n\tz",
        "Host : a",
        "Host: a\r\nX",
        "Host: a\r\n: y",
        "Host: a\r\nX(y): z",
        "Host: a\r\nX\u{e9}: z",
        "Host: a\r\nX: \0",
        "Host: a\r\nX: \u{1}",
        "Host: a\r\nX: \u{7f}",
        "Host: a\r\nX: y\rz: 1",
        "Host: a\rX: y",
        "Host: a\r\n\rX: y",
    ];
    refused(&lines.map(head)).await;
}

#[tokio::test]
async fn what_may_be_forgiven_arrives_in_the_one_right_spelling() {
    expect(&[
        // RFC 9112 §2.2 lets a lone line feed end a line, and empty lines precede a request.
        (
            "GET /a HTTP/1.1\nHost: a.example\n\n",
            &[200, 200],
            &["/a", "/next"],
        ),
        (
            "\r\n\r\nGET /b HTTP/1.1\r\nHost:a.example\r\nX:\ty \t\r\n\r\n",
            &[200, 200],
            &["/b", "/next"],
        ),
        (
            "GET http://b.example/c HTTP/1.1\r\nHost: a.example\r\n\r\n",
            &[200, 200],
            &["/c", "/next"],
        ),
        (
            "GET http://b.example?d HTTP/1.1\r\nHost: a.example\r\n\r\n",
            &[200, 200],
            &["/?d", "/next"],
        ),
        (
            "GET http://b.example HTTP/1.1\r\nHost: a.example\r\n\r\n",
            &[200, 200],
            &["/", "/next"],
        ),
        // A fragment is never sent; hyper drops it.
        (
            "GET /e#f HTTP/1.1\r\nHost: a.example\r\n\r\n",
            &[200, 200],
            &["/e", "/next"],
        ),
        (
            "OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n",
            &[200, 200],
            &["*", "/next"],
        ),
        (
            "get /g HTTP/1.1\r\nHost: a.example\r\n\r\n",
            &[200, 200],
            &["/g", "/next"],
        ),
        (
            "GET /h HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            &[200, 200],
            &["/h", "/next"],
        ),
        ("GET /i HTTP/1.0\r\n\r\n", &[200], &["/i"]),
    ])
    .await;
}
