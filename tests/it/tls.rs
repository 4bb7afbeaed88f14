//! TLS towards clients: which certificate is shown to whom, how it is replaced, when it ends, and
//! who must show one.

use std::io;
use std::net::SocketAddr;

use rustls::pki_types::ServerName;
use rustls::{CertificateError, Error};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::harness::certificate::Certificate;
use crate::harness::client::Client;
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::Upstream;
use crate::harness::{eventually, in_time};

fn to(upstream: &Upstream) -> String {
    let address = upstream.address();
    format!("backends: {{api: {{endpoints: ['{address}']}}}}\nroutes: [{{backend: api}}]\n")
}

/// A handshake that asks for `name` and trusts `root`, with a certificate of the client's own if
/// one is given.
async fn shake(
    address: SocketAddr,
    name: &str,
    root: &Certificate,
    client: Option<&Certificate>,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await.expect("somebody listens");
    let name = ServerName::try_from(name.to_owned()).expect("tests use valid names");
    let connector = root.connector_as(client, &["http/1.1"]);
    in_time("a handshake", connector.connect(name, stream)).await
}

/// Whether the certificate shown to who asks for `name` is this one, be it for that name or not.
async fn shows(address: SocketAddr, name: &str, certificate: &Certificate) -> bool {
    let Err(error) = shake(address, name, certificate, None).await else {
        return true;
    };
    let error = error.get_ref().and_then(|cause| cause.downcast_ref());
    // Only a certificate whose root is known is looked at further.
    let Some(Error::InvalidCertificate(cause)) = error else {
        panic!("{error:?}");
    };
    matches!(
        cause,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
    )
}

/// The head of the answer to a request over this stream; empty if the server closes it.
async fn ask(mut stream: TlsStream<TcpStream>) -> io::Result<String> {
    let request = "GET / HTTP/1.1\r\nHost: api.example\r\nConnection: close\r\n\
                   X-Forwarded-Client-Cert: Subject=\"CN=root\"\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    in_time("an answer", stream.read_to_end(&mut answer)).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// A site with each certificate and key as `name.pem` and `name.key`.
fn site(pairs: &[(&str, &Certificate)]) -> Site {
    pairs.iter().fold(Site::new(), |site, (name, pair)| {
        site.file(&format!("{name}.pem"), &pair.certificate_pem)
            .file(&format!("{name}.key"), &pair.key_pem)
    })
}

fn pair(name: &str) -> String {
    format!("certificate: {name}.pem, key: {name}.key")
}

/// A listener with the pair `first` and these further settings.
fn listener(settings: &str) -> String {
    format!(
        "[{{address: 127.0.0.1:0, tls: {{{}, {settings}}}}}]",
        pair("first")
    )
}

#[tokio::test]
async fn a_client_is_shown_the_certificate_of_the_name_that_it_asks_for() {
    let upstream = Upstream::ok("api");
    let first = Certificate::of(&["first.example", "127.0.0.1"], |_| {});
    let wide = Certificate::of(&["*.api.example"], |_| {});
    let exact = Certificate::of(&["new.api.example"], |_| {});
    let site = site(&[("first", &first), ("wide", &wide), ("exact", &exact)]);
    let further = format!(
        "certificates: [{{{}}}, {{{}}}]",
        pair("wide"),
        pair("exact")
    );
    let proxy = site.start_on(&listener(&further), &to(&upstream)).await;
    for (name, shown) in [
        ("first.example", &first),
        ("old.api.example", &wide),
        ("OLD.API.example", &wide),
        ("new.api.example", &exact),
        ("very.old.api.example", &first),
        ("api.example", &first),
        ("unknown.example", &first),
        // Nobody asks for an address by name.
        ("127.0.0.1", &first),
    ] {
        for certificate in [&first, &wide, &exact] {
            let is_shown = shows(proxy.address(), name, certificate).await;
            assert_eq!(is_shown, std::ptr::eq(certificate, shown), "{name}");
        }
    }
    let stream = shake(proxy.address(), "old.api.example", &wide, None).await;
    let answer = ask(stream.expect("it is verified")).await;
    assert!(answer.expect("it is answered").starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn each_of_several_certificates_is_replaced_whole_or_not_at_all() {
    let upstream = Upstream::ok("api");
    let first = Certificate::new();
    let (old, new) = (
        Certificate::of(&["api.example"], |_| {}),
        Certificate::of(&["api.example"], |_| {}),
    );
    let site = site(&[("first", &first), ("further", &old)]);
    let further = format!("certificates: [{{{}}}]", pair("further"));
    let proxy = site.start_on(&listener(&further), &to(&upstream)).await;
    let address = proxy.address();
    let mut open = Client::tls(address, &first, &["h2"]).await;
    assert_eq!(open.get("/", "alice").await.status, 200);
    assert!(shows(address, "api.example", &old).await);

    proxy.rewrite("further.key", &new.key_pem);
    proxy
        .counts(0.0, "cutover_config_last_reload_successful", &[])
        .await;
    assert!(
        shows(address, "api.example", &old).await,
        "the old pair stays"
    );
    assert!(
        shows(address, "localhost", &first).await,
        "so does its neighbour"
    );
    proxy.rewrite("further.pem", &new.certificate_pem);
    eventually("the new pair is shown", async || {
        shows(address, "api.example", &new).await
    })
    .await;
    assert!(shows(address, "localhost", &first).await);
    assert_eq!(open.get("/", "alice").await.status, 200);
}

#[tokio::test]
async fn the_end_of_each_certificate_is_measured_and_warned_of() {
    let upstream = Upstream::ok("api");
    let ended = Certificate::of(&["ended.example"], |params| {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    let lasting = Certificate::of(&["api.example"], |params| {
        params.not_after = rcgen::date_time_ymd(2100, 1, 1);
    });
    let site = site(&[("first", &lasting), ("ended", &ended)]);
    let further = format!("certificates: [{{{}}}]", pair("ended"));
    let proxy = site.start_on(&listener(&further), &to(&upstream)).await;
    for (file, end) in [
        ("first.pem", 4_102_444_800.0),
        ("ended.pem", 1_577_836_800.0),
    ] {
        let labels = [("listener", "127.0.0.1:0"), ("file", file)];
        let name = "cutover_certificate_not_after_timestamp_seconds";
        proxy.counts(end, name, &labels).await;
    }
    let warning = "listeners[0].tls.certificates[0].certificate: ended.pem ended on 2020-01-01";
    proxy.says(1, warning).await;
    let checked = proxy.cutover(&["check", "--config", "cutover.yaml"]).await;
    assert_eq!(checked.status.code(), Some(0));
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(said.contains(warning), "{said}");
    assert!(!said.contains("first.pem"), "{said}");
}

/// Two clients that a root knows of, one whose certificate has ended, and one unknown.
struct Clients {
    known: Certificate,
    ended: Certificate,
    stranger: Certificate,
}

impl Clients {
    fn new() -> Self {
        Self {
            known: Certificate::of(&["client.example"], |_| {}),
            ended: Certificate::of(&["client.example"], |params| {
                params.not_after = rcgen::date_time_ymd(2020, 1, 1);
            }),
            stranger: Certificate::of(&["client.example"], |_| {}),
        }
    }

    /// Where only `known` and `ended` are known.
    async fn start(&self, upstream: &Upstream, first: &Certificate, required: bool) -> Proxy {
        let roots = format!(
            "{}{}",
            self.known.certificate_pem, self.ended.certificate_pem
        );
        let site = site(&[("first", first)]).file("clients.pem", roots);
        let settings = format!("client_certificates: {{roots: clients.pem, required: {required}}}");
        site.start_on(&listener(&settings), &to(upstream)).await
    }
}

#[tokio::test]
async fn who_must_show_a_certificate_gets_no_answer_without_a_good_one() {
    let (upstream, first, clients) = (Upstream::ok("api"), Certificate::new(), Clients::new());
    for required in [true, false] {
        let proxy = clients.start(&upstream, &first, required).await;
        for (who, client, is_let_in) in [
            ("a known client", Some(&clients.known), true),
            (
                "a client whose certificate has ended",
                Some(&clients.ended),
                false,
            ),
            ("a stranger", Some(&clients.stranger), false),
            ("nobody", None, !required),
        ] {
            // In TLS 1.3 a client is done before it is judged, and hears of it with the answer.
            let answer = match shake(proxy.address(), "localhost", &first, client).await {
                Ok(stream) => ask(stream).await.unwrap_or_default(),
                Err(_) => String::new(),
            };
            let was_let_in = answer.starts_with("HTTP/1.1 200 ");
            assert_eq!(
                was_let_in, is_let_in,
                "{who}, required: {required}: {answer}"
            );
        }
        let refused = if required { 3.0 } else { 2.0 };
        proxy.refused("tls_handshake", refused).await;
    }
    for received in upstream.received() {
        assert_eq!(received.field("x-forwarded-client-cert"), None);
    }
    assert_eq!(upstream.received().len(), 3);
}

#[tokio::test]
async fn whoever_is_no_longer_known_cannot_resume_what_was_agreed_before() {
    let (upstream, first, clients) = (Upstream::ok("api"), Certificate::new(), Clients::new());
    let proxy = clients.start(&upstream, &first, true).await;
    // The connector remembers its sessions.
    let connector = first.connector_as(Some(&clients.known), &["http/1.1"]);
    let again = async || {
        let stream = TcpStream::connect(proxy.address())
            .await
            .expect("somebody listens");
        let shaking = connector.connect(Certificate::name(), stream);
        match in_time("a handshake", shaking).await {
            Ok(stream) => ask(stream).await.unwrap_or_default(),
            Err(_) => String::new(),
        }
    };
    for _ in 0..2 {
        assert!(again().await.starts_with("HTTP/1.1 200 "));
    }
    proxy.rewrite("clients.pem", &clients.stranger.certificate_pem);
    eventually("the roots are replaced", async || again().await.is_empty()).await;
    let mut stranger = String::new();
    if let Ok(stream) = shake(
        proxy.address(),
        "localhost",
        &first,
        Some(&clients.stranger),
    )
    .await
    {
        stranger = ask(stream).await.unwrap_or_default();
    }
    assert!(stranger.starts_with("HTTP/1.1 200 "), "{stranger}");
    assert_eq!(again().await, "");
}
