//! Servers whose answers could be read as more than one, or as somebody else's.

use crate::harness::client::{Answer, Client, Raw, get};
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::{Reply, Script, Step, Upstream};

/// An answer that nobody has asked for.
const STRAY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret";

async fn start(upstream: &Upstream) -> Proxy {
    let address = upstream.address();
    let configuration = format!(
        "backends:
  api: {{endpoints: ['{address}'], timeouts: {{first_byte: 500ms}}}}
routes: [{{backend: api}}]
"
    );
    Site::new().start(&configuration).await
}

/// A server that answers `/next` as it should, and everything else with the wire of its number.
fn server(wires: Vec<String>) -> Upstream {
    Upstream::start("api", move |request| {
        let number = request.target.trim_start_matches('/');
        match number.parse::<usize>() {
            Ok(number) => Script::write(wires[number].clone()),
            Err(_) => Script::answer(Reply::new(200).body("next")),
        }
    })
}

/// What a client gets for each wire. After each of them the same client, or a new one if its
/// connection has ended, gets what it asks for and nothing else.
async fn answers(method: &str, wires: &[String]) -> Vec<Answer> {
    let upstream = server(wires.to_vec());
    let proxy = start(&upstream).await;
    let mut client = Client::http1(proxy.address()).await;
    let mut answers = Vec::new();
    for (number, wire) in wires.iter().enumerate() {
        let mut request = get(&format!("/{number}"), "");
        *request.method_mut() = method.parse().expect("it is a method");
        let answer = client.send(request).await;
        if !answer.is_whole {
            client = Client::http1(proxy.address()).await;
        }
        let next = client.get("/next", "").await;
        assert_eq!((next.status, &next.body[..]), (200, &b"next"[..]), "{wire}");
        answers.push(answer);
    }
    // What is left behind an answer may be only the beginning of what comes.
    let received = upstream.received();
    let mut odd = received.iter().enumerate();
    while let Some((position, request)) = odd.find(|(_, request)| request.target != "/next") {
        let mut later = received[position + 1..].iter();
        let is_last = later.all(|later| later.connection != request.connection);
        assert!(is_last, "{request:?}");
    }
    answers
}

#[tokio::test]
async fn what_follows_an_answer_is_no_answer_to_the_next_request() {
    let wires = [
        format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok{STRAY}"),
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n{STRAY}"),
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\r\n".to_owned(),
    ];
    for answer in answers("GET", &wires).await {
        assert_eq!((answer.status, &answer.body[..]), (200, &b"ok"[..]));
    }
    let wires = [
        format!("HTTP/1.1 204 No Content\r\n\r\n{STRAY}"),
        format!("HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\nsecret{STRAY}"),
        format!("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{STRAY}"),
        format!("HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\nsecret{STRAY}"),
        format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n{STRAY}"),
    ];
    for answer in answers("GET", &wires).await {
        assert!(answer.body.is_empty() && answer.is_whole, "{answer:?}");
    }
    let wires = [
        format!("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret{STRAY}"),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nsecret\r\n0\r\n\r\n".to_owned(),
    ];
    for answer in answers("HEAD", &wires).await {
        assert_eq!((answer.status, answer.body.len()), (200, 0));
    }
}

#[tokio::test]
async fn an_answer_that_can_be_read_in_two_ways_is_none() {
    let heads = [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 5",
        "HTTP/1.1 200 OK\r\nContent-Length: +5",
        "HTTP/1.1 200 OK\r\nContent-Length: 0x5",
        "HTTP/1.1 200 OK\r\nContent-Length:",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "HTTP/1.1 200 OK\r\nContent-Length : 5",
        "HTTP/1.1 200 OK\r\n Content-Length: 5",
        "HTTP/1.1 200 OK\r\nX: y\r\n folded: z",
        "HTTP/1.1 200 OK\r\nX: a\rb",
        "HTTP/1.1 200 OK\r\nX: a\0b",
        "HTTP/1.1 200 OK\r\nX\0: a",
        "HTTP/1.1 200 OK\r\nno colon",
        "HTTP/1.1 200 OK\r\n: no name",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 099 Early",
        "HTTP/1.1  200 OK",
        "HTTP/1.2 200 OK",
        "HTTP/2 200 OK",
        "http/1.1 200 OK",
        "ICY 200 OK",
        "GET / HTTP/1.1",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c",
        "<html>not HTTP at all</html>",
        "\0\0\0\0",
    ];
    let wires = heads.map(|head| format!("{head}\r\n\r\nhello"));
    for (answer, wire) in answers("GET", &wires).await.iter().zip(&wires) {
        assert_eq!(answer.status, 502, "{wire}: {answer:?}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_never_looks_whole() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let broken = [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello".to_owned(),
        head.to_owned(),
        format!("{head}0\r\n"),
        format!("{head}0\r\nX-Sum: 1\r\n"),
        format!("{head}5\r\nhel"),
        format!("{head}+5\r\nhello\r\n0\r\n\r\n"),
        format!("{head}5\nhello\r\n0\r\n\r\n"),
        format!("{head}5\r\nhelloX0\r\n\r\n"),
        format!("{head}fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
        format!("{head}0\r\nno field\r\n\r\n"),
    ];
    let wires = broken.clone();
    let upstream = Upstream::start("api", move |request| {
        let number = request.target.trim_start_matches('/');
        let number: usize = number.parse().expect("every target is a number");
        Script::write(wires[number].clone()).then(Step::Close)
    });
    let proxy = start(&upstream).await;
    for (number, wire) in broken.iter().enumerate() {
        let target = format!("/{number}");
        let mut client = Raw::connect(proxy.address()).await;
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        client
            .write([request.as_bytes(), request.as_bytes()].concat())
            .await;
        let head = client.read_head().await;
        // The head may have waited for what breaks off right behind it; then there is nothing.
        let is_head = head.is_empty() || head.starts_with("HTTP/1.1 200 ");
        assert!(is_head, "{wire}: {head}");
        let body = String::from_utf8(client.read_to_end().await).expect("it is text");
        let is_whole = match head.contains("Content-Length: 10\r\n") {
            true => body.len() == 10,
            false => body.contains("0\r\n"),
        };
        assert!(!is_whole && !body.contains("HTTP"), "{wire}: {body}");
        let mut client = Client::http2(proxy.address()).await;
        if let Ok(response) = client.begin(get(&target, "")).await {
            let answer = Answer::read(response).await;
            assert!(
                answer.status == 200 && !answer.is_whole,
                "{wire}: {answer:?}"
            );
        }
    }
}

#[tokio::test]
async fn informational_answers_without_end_are_no_answer() {
    let flood = "HTTP/1.1 102 Processing\r\nX-Number: 1\r\n\r\n".repeat(10_000);
    let one = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let trickle = (0..100).flat_map(|_| {
        let pause = Step::Pause(std::time::Duration::from_millis(50));
        [Step::Write(one.into()), pause]
    });
    let trickle = Script::of(trickle);
    let upstream = Upstream::start("api", move |request| match request.target.as_str() {
        "/flood" => Script::write(flood.clone()),
        _ => trickle.clone(),
    });
    let proxy = start(&upstream).await;
    for (target, status) in [("/flood", 502), ("/trickle", 504)] {
        let answer = Client::http1(proxy.address()).await.get(target, "").await;
        assert_eq!(answer.status, status, "{target}");
    }
}
