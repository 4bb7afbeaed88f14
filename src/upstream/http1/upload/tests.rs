use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use socket2::SockRef;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, server};

use super::*;

/// Both ends of a secured connection whose sockets hold little.
async fn secured() -> (Stream, server::TlsStream<TcpStream>) {
    const HELD: usize = 16 * 1024;
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(pair.signing_key.serialize_der()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(pair.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![pair.cert.der().clone()], key)
        .unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    SockRef::from(&listener).set_recv_buffer_size(HELD).unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap());
    let stream = stream.await.unwrap();
    SockRef::from(&stream).set_send_buffer_size(HELD).unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::new(client));
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let (stream, accepted) =
        tokio::try_join!(connector.connect(name, stream), acceptor.accept(accepted)).unwrap();
    (Stream::Tls(Box::new(stream)), accepted)
}

async fn poll_once(upload: &mut Upload, stream: &mut Stream) -> Poll<Result<(), UploadError>> {
    poll_fn(|cx| Poll::Ready(upload.poll(cx, stream))).await
}

/// What the socket does not take, TLS holds back: the tail of a request of the right length, and
/// the lengths are close enough to each other to have one of those among them.
#[tokio::test]
async fn an_upload_over_tls_is_not_finished_before_its_tail_has_left() {
    const STEP: usize = 16 * 1024;
    let (mut stream, mut server) = secured().await;
    for length in (1..=32).map(|count| count * STEP) {
        let mut upload = Upload::new(BytesMut::zeroed(length), RequestBody::empty());
        // The other side does not read yet.
        let _ = poll_once(&mut upload, &mut stream).await;
        let rest = poll_fn(|cx| {
            if upload.is_finished() {
                return Poll::Ready(Ok(()));
            }
            upload.poll(cx, &mut stream)
        });
        let mut received = vec![0; length];
        let both = async { tokio::join!(rest, server.read_exact(&mut received)) };
        let done = timeout(Duration::from_secs(10), both).await;
        let (sent, received) = done.unwrap_or_else(|_| panic!("{length} bytes arrive"));
        assert!(sent.is_ok() && received.is_ok(), "{length}");
    }
}

#[tokio::test]
async fn where_more_than_one_record_was_due_a_failed_write_over_tls_may_have_sent_one() {
    const RECORD: usize = 16 * 1024;
    for (length, is_sent) in [(RECORD, false), (RECORD + 1, true)] {
        let (mut stream, server) = secured().await;
        let socket = server.get_ref().0;
        SockRef::from(socket)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(server);
        if let Stream::Tls(stream) = &stream {
            stream.get_ref().0.readable().await.unwrap();
        }
        let mut upload = Upload::new(BytesMut::zeroed(length), RequestBody::empty());
        let polled = poll_once(&mut upload, &mut stream).await;
        assert!(
            matches!(polled, Poll::Ready(Err(UploadError::Upstream(_)))),
            "{polled:?}"
        );
        assert_eq!(upload.is_sent(), is_sent, "{length}");
    }
}
