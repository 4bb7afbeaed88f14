//! Where one request ends and the next begins: what a stranger writes, in whatever way it breaks
//! the rules, reaches the upstream as one well-framed request, or not at all.
//!
//! The judge is the [`Witness`], a server with a parser of its own that forgives nothing.

mod heads;
mod mutations;
mod requests;
mod responses;

use crate::harness::client::Raw;
use crate::harness::proxy::{Proxy, Site};

use crate::harness::witness::{self, Witness};

/// Sent behind each case: if the case has ended where both sides think it has, this is a request.
const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";

/// All traffic to the witness, with this much patience for what is not finished.
async fn start(witness: &Witness, patience: &str) -> Proxy {
    let address = witness.address();
    let configuration = format!(
        "edge: {{header_timeout: {patience}}}
backends:
  api: {{endpoints: ['{address}'], timeouts: {{body_idle: {patience}}}}}
routes: [{{backend: api}}]
"
    );
    Site::new().start(&configuration).await
}

/// What became of one case.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    /// The statuses that the client got, in order.
    statuses: Vec<u16>,
    /// The targets of the requests that the witness has seen whole, in order.
    targets: Vec<String>,
}

/// Writes a case and the request behind it, and waits until the proxy has closed the connection.
async fn send(proxy: &Proxy, witness: &Witness, case: &[u8]) -> Outcome {
    let before = witness.seen().len();
    let mut client = Raw::connect(proxy.address()).await;
    client.write([case, NEXT].concat()).await;
    let answers = client.read_to_end().await;
    let statuses = witness::statuses(&answers)
        .unwrap_or_else(|problem| panic!("{problem}: {}", answers.escape_ascii()));
    let seen = witness.seen();
    let targets = seen[before..].iter().map(|seen| seen.target.clone());
    let targets = targets.collect();
    assert_eq!(
        witness.complaints(),
        [""; 0],
        "after {}",
        case.escape_ascii()
    );
    Outcome { statuses, targets }
}

/// Whether each case, described by its first words, comes out as expected.
async fn expect(cases: &[(&str, &[u16], &[&str])]) {
    let witness = Witness::start();
    let proxy = start(&witness, "500ms").await;
    let mut wrong = Vec::new();
    for (case, statuses, targets) in cases {
        let expected = Outcome {
            statuses: statuses.to_vec(),
            targets: targets.iter().map(|target| (*target).to_owned()).collect(),
        };
        let case: Vec<u8> = bytes_of(case);
        let outcome = send(&proxy, &witness, &case).await;
        if outcome != expected {
            wrong.push(format!("{}: {outcome:?}", case.escape_ascii()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A case is written as Latin-1, so that it may hold any byte.
fn bytes_of(case: &str) -> Vec<u8> {
    let narrow = |character: char| u8::try_from(u32::from(character)).expect("it is Latin-1");
    case.chars().map(narrow).collect()
}
