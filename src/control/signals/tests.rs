use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::*;

/// A server that answers each request with the bytes that the test has chosen last; with none, it
/// keeps silent.
struct Server {
    address: std::net::SocketAddr,
    answer: watch::Sender<Vec<u8>>,
    asked: Arc<AtomicUsize>,
    heads: watch::Receiver<String>,
}

impl Server {
    async fn start() -> Self {
        Self::serving(None).await
    }

    async fn secured(certified: &rcgen::CertifiedKey<rcgen::KeyPair>) -> Self {
        let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key.into())
            .expect("they belong together");
        Self::serving(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn serving(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (answer, answers) = watch::channel(Vec::new());
        let (head, heads) = watch::channel(String::new());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let (answers, head, tls) = (answers.clone(), head.clone(), tls.clone());
                tokio::spawn(async move {
                    // Who hangs up early gets nothing more, which is no concern of the server's.
                    let _ = match tls {
                        Some(tls) => serve(tls.accept(tcp).await?, answers, head).await,
                        None => serve(tcp, answers, head).await,
                    };
                    std::io::Result::Ok(())
                });
            }
        });
        Self {
            address,
            answer,
            asked,
            heads,
        }
    }

    fn says(&self, body: &str) {
        let length = body.len();
        self.sends(format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}"
        ));
    }

    fn sends(&self, answer: impl Into<Vec<u8>>) {
        self.answer.send_replace(answer.into());
    }
}

async fn serve(
    mut tcp: impl AsyncRead + AsyncWrite + Unpin,
    mut answers: watch::Receiver<Vec<u8>>,
    heads: watch::Sender<String>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tcp.read_u8().await?);
    }
    heads.send_replace(String::from_utf8_lossy(&head).into_owned());
    let answer = answers.wait_for(|answer| !answer.is_empty()).await;
    let answer = answer.map_err(std::io::Error::other)?.clone();
    tcp.write_all(&answer).await?;
    tcp.shutdown().await?;
    // Until the other end hangs up, or a reset would take the answer back.
    tcp.read_to_end(&mut head).await.map(drop)
}

fn splits(signals: &str) -> Vec<Split> {
    let text = format!(
        "listeners: [{{address: '127.0.0.1:0'}}]
backends: {{old: {{endpoints: ['127.0.0.1:1']}}, fresh: {{endpoints: ['127.0.0.1:2']}}}}
splits: {{api: {{legacy: old, new: fresh, signals: {{{signals}}}}}}}
routes: [{{split: api}}]
"
    );
    let directory = tempfile::tempdir().expect("writable");
    let file = directory.path().join("cutover.yaml");
    std::fs::write(&file, text).expect("writable");
    let config = crate::config::load(&file).unwrap_or_else(|problems| panic!("{problems}"));
    config.splits
}

fn document(address: impl std::fmt::Display, more: &str) -> String {
    format!("lag: {{http: 'http://{address}/health.json', pointer: /lag, interval: 1ms{more}}}")
}

/// The next reading whose value of `new` is as wanted.
async fn until(signals: &mut Signals, is_wanted: impl Fn(&Result<f64, String>) -> bool) -> Reading {
    let wanted = async {
        loop {
            let (split, signal, reading) = signals.next().await;
            assert_eq!((&*split, &*signal), ("api", "lag"));
            if is_wanted(&reading.new) {
                return reading;
            }
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(30), wanted).await;
    found.expect("such a reading comes")
}

async fn until_error(signals: &mut Signals, begins: &str) {
    until(signals, |new| {
        new.as_ref().is_err_and(|error| error.starts_with(begins))
    })
    .await;
}

#[tokio::test]
async fn a_value_is_asked_for_again_and_again() {
    let server = Server::start().await;
    server.says(r#"{"lag": 7.5}"#);
    let mut signals = Signals::default();
    signals.reconcile(&splits(&document(server.address, ", bearer: s3cret")));
    until(&mut signals, |new| *new == Ok(7.5)).await;
    let head = server.heads.borrow().to_ascii_lowercase();
    assert!(head.starts_with("get /health.json http/1.1\r\n"), "{head}");
    assert!(
        head.contains(&format!("host: {}\r\n", server.address)),
        "{head}"
    );
    assert!(head.contains("authorization: bearer s3cret\r\n"), "{head}");
    server.says(r#"{"lag": "8"}"#);
    until(&mut signals, |new| *new == Ok(8.0)).await;
}

#[tokio::test]
async fn whatever_is_wrong_with_a_source_is_said_and_never_fatal() {
    let server = Server::start().await;
    let mut signals = Signals::default();
    signals.reconcile(&splits(&document(server.address, ", timeout: 200ms")));
    until_error(&mut signals, "no answer within 200ms").await;
    server.says("<html>");
    until_error(&mut signals, "the answer is no JSON").await;
    server.says(r#"{"lag": "NaN"}"#);
    until_error(&mut signals, "NaN is no value").await;
    server.says(r#"{"lag": 1e999}"#);
    until_error(&mut signals, "the answer is no JSON: number out of range").await;
    server.says(&format!(
        r#"{{"lag": 1, "more": "{}"}}"#,
        "x".repeat(64 * 1024)
    ));
    until_error(&mut signals, "the answer is longer than 64 KiB").await;
    server.sends("SSH-2.0-OpenSSH_9.2\r\n");
    until_error(&mut signals, "no valid answer").await;
    server.sends("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{");
    until_error(&mut signals, "the answer breaks off").await;
    server.sends("HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n");
    until_error(
        &mut signals,
        "answered 302 Found; a redirect is not followed",
    )
    .await;
    server.sends("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n");
    until_error(&mut signals, "answered 503 Service Unavailable").await;
    server.says(r#"{"lag": 3}"#);
    until(&mut signals, |new| *new == Ok(3.0)).await;
}

#[tokio::test]
async fn one_arm_may_have_a_value_while_the_other_has_none() {
    let server = Server::start().await;
    server.says(r#"{"lag": 3}"#);
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        listener.local_addr().expect("it is bound")
    };
    let mut signals = Signals::default();
    let more = format!(", legacy_http: 'http://{closed}/'");
    signals.reconcile(&splits(&document(server.address, &more)));
    let reading = until(&mut signals, |new| *new == Ok(3.0)).await;
    let legacy = reading.legacy.expect("legacy is asked too");
    let error = legacy.expect_err("nobody listens there");
    assert!(error.starts_with("cannot connect: "), "{error}");
}

#[tokio::test]
async fn a_slow_source_is_not_asked_twice_at_once() {
    let server = Server::start().await;
    let mut signals = Signals::default();
    signals.reconcile(&splits(&document(server.address, ", timeout: 20s")));
    // By the time in which another source has answered ten times, the silent one was asked once.
    let other = Server::start().await;
    other.says(r#"{"lag": 1}"#);
    let mut others = Signals::default();
    others.reconcile(&splits(&document(other.address, "")));
    for _ in 0..10 {
        until(&mut others, |new| *new == Ok(1.0)).await;
    }
    assert_eq!(server.asked.load(Ordering::Relaxed), 1);
    server.says(r#"{"lag": 2}"#);
    until(&mut signals, |new| *new == Ok(2.0)).await;
}

#[tokio::test]
async fn a_reload_goes_on_with_what_it_keeps_and_forgets_what_it_drops() {
    let (first, second) = (Server::start().await, Server::start().await);
    let mut signals = Signals::default();
    let kept = splits(&document(first.address, ", timeout: 20s"));
    signals.reconcile(&kept);
    while first.asked.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    signals.reconcile(&kept);
    first.says(r#"{"lag": 1}"#);
    until(&mut signals, |new| *new == Ok(1.0)).await;
    assert_eq!(signals.begun, 1, "the same question is not asked anew");
    second.says(r#"{"lag": 2}"#);
    signals.reconcile(&splits(&document(second.address, "")));
    // Nothing of the first, which has certainly answered by now, comes through any more.
    let (_, _, reading) = signals.next().await;
    assert_eq!(reading, Reading::of(2.0, None));
    signals.reconcile(&[]);
    assert!(signals.running.is_empty());
}

#[tokio::test]
async fn a_source_over_tls_is_verified() {
    let names = vec!["127.0.0.1".to_owned()];
    let certified = rcgen::generate_simple_self_signed(names).expect("a certificate");
    let server = Server::secured(&certified).await;
    server.says(r#"{"lag": 1}"#);
    let directory = tempfile::tempdir().expect("writable");
    let roots = directory.path().join("roots.pem");
    std::fs::write(&roots, certified.cert.pem()).expect("writable");
    let asked = |more: &str| document(server.address, more).replace("http://", "https://");
    let mut signals = Signals::default();
    signals.reconcile(&splits(&asked("")));
    let reading = until(&mut signals, |_| true).await;
    let error = reading.new.expect_err("nobody vouches for it");
    // A machine without any roots trusts nobody either.
    let is_refused = error.starts_with("TLS handshake failed: ");
    assert!(
        is_refused || error.starts_with("there is no root"),
        "{error}"
    );
    let more = format!(", tls: {{roots: '{}'}}", roots.display());
    signals.reconcile(&splits(&asked(&more)));
    until(&mut signals, |new| *new == Ok(1.0)).await;
}
