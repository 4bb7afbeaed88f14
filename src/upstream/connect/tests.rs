use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::policy::time::Timestamp;
use crate::server::tls::server_config;

const LONG: Duration = Duration::from_secs(10);

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// A connection to a listener of our own, and its other end.
async fn connected() -> (Stream, TcpStream) {
    let (listener, port) = listen().await;
    let endpoint = Endpoint::new(&format!("127.0.0.1:{port}")).unwrap();
    let (stream, peer) = tokio::join!(connect(&endpoint, None), listener.accept());
    (stream.unwrap(), peer.unwrap().0)
}

/// Accepts TLS as `localhost`; the certificate is its own root.
fn acceptor() -> (TlsAcceptor, Vec<u8>) {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate_pem = pair.cert.pem().into_bytes();
    let config = server_config(&model::ServerTls {
        pairs: vec![model::CertificatePair {
            file: "certificate.pem".to_owned(),
            certificate_pem: certificate_pem.clone(),
            key_pem: pair.signing_key.serialize_pem().into_bytes(),
            names: Vec::new(),
            not_after: Timestamp::from_milliseconds(0),
        }],
        client_certificates: None,
    });
    (TlsAcceptor::from(config.unwrap()), certificate_pem)
}

/// A server that proves to be `localhost` and echoes; returns its port and root.
async fn echo_over_tls() -> (u16, Vec<u8>) {
    let (acceptor, certificate_pem) = acceptor();
    let (listener, port) = listen().await;
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(tls) = acceptor.accept(tcp).await else {
                continue;
            };
            let (mut reader, mut writer) = tokio::io::split(tls);
            // The client hangs up in the middle whenever its test is over.
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        }
    });
    (port, certificate_pem)
}

fn trusting(roots_pem: Vec<u8>, server_name: Option<&str>) -> UpstreamTls {
    let settings = model::ClientTls {
        roots_pem: Some(roots_pem),
        server_name: server_name.map(str::to_owned),
    };
    UpstreamTls::new(&settings, Protocol::Http1).unwrap()
}

async fn becomes_unquiet(stream: &mut Stream) {
    let unquiet = async {
        while stream.is_quiet() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, unquiet).await.unwrap();
}

async fn echoes(mut stream: Stream) {
    stream.write_all(b"hello").await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = [0; 5];
    timeout(LONG, stream.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&answer, b"hello");
}

#[tokio::test]
async fn a_closed_port_is_a_connect_failure() {
    let (listener, port) = listen().await;
    drop(listener);
    let endpoint = Endpoint::new(&format!("127.0.0.1:{port}")).unwrap();
    let failure = connect(&endpoint, None).await.unwrap_err();
    assert_eq!(failure.failure(), Some(Failure::Connect));
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_a_connect_failure() {
    let endpoint = Endpoint::new("cutover.invalid:80").unwrap();
    let failure = connect(&endpoint, None).await.unwrap_err();
    assert_eq!(failure.failure(), Some(Failure::Connect));
}

#[tokio::test]
async fn every_address_of_a_name_is_tried() {
    // `localhost` is often ::1 first, where nobody listens here.
    let (listener, port) = listen().await;
    let endpoint = Endpoint::new(&format!("localhost:{port}")).unwrap();
    let (stream, peer) = tokio::join!(connect(&endpoint, None), listener.accept());
    assert!(stream.is_ok() && peer.is_ok());
}

#[tokio::test]
async fn small_writes_are_not_held_back_and_silent_peers_are_asked() {
    let (stream, _peer) = connected().await;
    let Stream::Tcp(tcp) = &stream else {
        panic!("plain");
    };
    assert!(tcp.nodelay().unwrap());
    assert!(SockRef::from(tcp).keepalive().unwrap());
}

#[tokio::test]
async fn an_idle_connection_is_quiet_until_the_peer_closes_it() {
    let (mut stream, peer) = connected().await;
    assert!(stream.is_quiet());
    drop(peer);
    becomes_unquiet(&mut stream).await;
}

#[tokio::test]
async fn an_idle_connection_is_not_quiet_when_the_peer_speaks_unasked() {
    let (mut stream, mut peer) = connected().await;
    peer.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        .await
        .unwrap();
    becomes_unquiet(&mut stream).await;
}

#[tokio::test]
async fn a_connection_is_quiet_again_after_an_exchange() {
    let (mut stream, mut peer) = connected().await;
    peer.write_all(b"answer").await.unwrap();
    let mut answer = [0; 64];
    assert_eq!(stream.read(&mut answer).await.unwrap(), 6);
    assert!(stream.is_quiet());
}

#[tokio::test]
async fn a_trusted_certificate_with_the_right_name_is_accepted() {
    let (port, roots) = echo_over_tls().await;
    let by_host = Endpoint::new(&format!("localhost:{port}")).unwrap();
    let tls = trusting(roots.clone(), None);
    echoes(connect(&by_host, Some(&tls)).await.unwrap()).await;
    let by_address = Endpoint::new(&format!("127.0.0.1:{port}")).unwrap();
    let tls = trusting(roots, Some("localhost"));
    echoes(connect(&by_address, Some(&tls)).await.unwrap()).await;
}

#[tokio::test]
async fn a_certificate_for_another_name_is_a_tls_failure_that_says_so() {
    let (port, roots) = echo_over_tls().await;
    let endpoint = Endpoint::new(&format!("127.0.0.1:{port}")).unwrap();
    let tls = trusting(roots, Some("other.example"));
    let failure = connect(&endpoint, Some(&tls)).await.unwrap_err();
    assert_eq!(failure.failure(), Some(Failure::Tls));
    assert!(failure.to_string().contains("other.example"), "{failure}");
}

#[tokio::test]
async fn a_certificate_of_an_unknown_root_is_a_tls_failure() {
    let (port, _) = echo_over_tls().await;
    let (_, roots_of_another) = echo_over_tls().await;
    let endpoint = Endpoint::new(&format!("localhost:{port}")).unwrap();
    let tls = trusting(roots_of_another, None);
    let failure = connect(&endpoint, Some(&tls)).await.unwrap_err();
    assert_eq!(failure.failure(), Some(Failure::Tls));
}

#[tokio::test]
async fn a_plain_server_is_a_tls_failure() {
    let (listener, port) = listen().await;
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
    });
    let (_, roots) = echo_over_tls().await;
    let endpoint = Endpoint::new(&format!("localhost:{port}")).unwrap();
    let failure = connect(&endpoint, Some(&trusting(roots, None))).await;
    assert_eq!(failure.unwrap_err().failure(), Some(Failure::Tls));
}

#[tokio::test]
async fn session_tickets_do_not_make_a_warm_connection_look_dead() {
    let (acceptor, roots) = acceptor();
    let (listener, port) = listen().await;
    let endpoint = Endpoint::new(&format!("localhost:{port}")).unwrap();
    let tls = trusting(roots, None);
    let (stream, peer) = tokio::join!(connect(&endpoint, Some(&tls)), async {
        let (tcp, _) = listener.accept().await.unwrap();
        acceptor.accept(tcp).await.unwrap()
    });
    let mut stream = stream.unwrap();
    let Stream::Tls(inner) = &stream else {
        panic!("secured");
    };
    // The tickets follow the handshake, so once bytes have arrived they are what arrived.
    timeout(LONG, inner.get_ref().0.readable())
        .await
        .unwrap()
        .unwrap();
    assert!(stream.is_quiet());
    drop(peer);
    becomes_unquiet(&mut stream).await;
}

#[test]
fn roots_that_cannot_be_used_are_refused() {
    let with_roots = |pem: &str| {
        let settings = model::ClientTls {
            roots_pem: Some(pem.as_bytes().to_vec()),
            server_name: None,
        };
        UpstreamTls::new(&settings, Protocol::Http1)
    };
    assert!(matches!(
        with_roots("nothing here"),
        Err(InvalidTls::NoRoots)
    ));
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(
        with_roots(broken),
        Err(InvalidTls::UnreadableRoots(_))
    ));
}

#[tokio::test]
async fn an_address_where_nothing_happens_costs_a_moment_and_one_that_refuses_nothing() {
    let silent = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    silent.bind(&any.into()).unwrap();
    silent.listen(0).unwrap();
    let silent_address = silent.local_addr().unwrap().as_socket().unwrap();
    // Its queue of connections to accept is full before long, and nobody accepts one.
    let mut waiting = Vec::new();
    while let Ok(stream) = timeout(HEAD_START, TcpStream::connect(silent_address)).await {
        waiting.push(stream.unwrap());
    }
    let (alive, port) = listen().await;
    let alive_address = SocketAddr::from(([127, 0, 0, 1], port));
    let (closed, port) = listen().await;
    drop(closed);
    let refusing = SocketAddr::from(([127, 0, 0, 1], port));
    for addresses in [
        vec![silent_address, alive_address],
        vec![refusing, alive_address],
        vec![refusing, silent_address, alive_address],
        vec![alive_address, silent_address],
    ] {
        let connected = timeout(LONG, connect_any(&addresses)).await.unwrap();
        let peer = connected.unwrap().peer_addr().unwrap();
        assert_eq!(peer, alive_address, "{addresses:?}");
    }
    drop(alive);
    let refused = connect_any(&[refusing, alive_address]).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    assert!(connect_any(&[]).await.is_err());
}

#[test]
fn what_this_machine_lacks_is_no_failure_of_an_endpoint() {
    for code in OWN_EXHAUSTION {
        let failure = ConnectFailure::connect(io::Error::from_raw_os_error(code));
        assert_eq!(failure.failure(), None, "{failure}");
    }
    let refused = ConnectFailure::connect(io::ErrorKind::ConnectionRefused.into());
    assert_eq!(refused.failure(), Some(Failure::Connect));
    // While sockets can be had, a name that is not found is the name's fault.
    let unknown = ConnectFailure::look_up(io::Error::other("no such name"));
    assert_eq!(unknown.failure(), Some(Failure::Connect));
}

#[test]
fn an_address_that_we_cannot_ask_from_excuses_no_peer_that_refused() {
    let refused = || io::Error::from_raw_os_error(111);
    let own = || io::Error::from_raw_os_error(99);
    let is_own = |before, error| is_own_exhaustion(&telling(before, error));
    assert!(!is_own(Some(refused()), own()));
    assert!(!is_own(Some(own()), refused()));
    assert!(is_own(Some(own()), own()) && is_own(None, own()));
}
