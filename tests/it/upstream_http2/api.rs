//! A well-behaved HTTP/2 server with the test's answers.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Builder, SendResponse};
use http::{Request, Response};
use tokio::net::TcpListener;

use crate::harness::certificate::Certificate;

/// A well-behaved HTTP/2 server.
pub(super) struct Api {
    pub(super) address: SocketAddr,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    accepted: AtomicUsize,
    requests: AtomicUsize,
}

impl Api {
    /// Starts it; each request is answered by `answer`, in a task of its own.
    pub(super) async fn start<F>(
        answer: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Copy + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::start_with(&Builder::new(), answer).await
    }

    /// Starts it with these settings.
    pub(super) async fn start_with<F>(
        builder: &Builder,
        answer: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Copy + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let counts = Arc::<Counts>::default();
        let (builder, shared) = (builder.clone(), Arc::clone(&counts));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (builder, counts) = (builder.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    let Ok(mut connection) = builder.handshake(stream).await else {
                        return;
                    };
                    let mut is_counted = false;
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        if !std::mem::replace(&mut is_counted, true) {
                            counts.accepted.fetch_add(1, Ordering::Relaxed);
                        }
                        counts.requests.fetch_add(1, Ordering::Relaxed);
                        tokio::spawn(answer(request, respond));
                    }
                });
            }
        });
        Self { address, counts }
    }

    /// Starts a server that answers everything with the scheme that it was asked for, over
    /// TLS that chooses among `protocols`.
    pub(super) async fn start_tls(certificate: &Certificate, protocols: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let acceptor = certificate.acceptor_choosing(protocols);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let Ok(mut connection) = h2::server::handshake(stream).await else {
                        return;
                    };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        let scheme = request.uri().scheme_str().unwrap_or_default().to_owned();
                        say(respond, &scheme);
                    }
                });
            }
        });
        Self {
            address,
            counts: Arc::default(),
        }
    }

    /// How many connections have carried a request.
    pub(super) fn connections(&self) -> usize {
        self.counts.accepted.load(Ordering::Relaxed)
    }

    /// How many requests have come.
    pub(super) fn requests(&self) -> usize {
        self.counts.requests.load(Ordering::Relaxed)
    }
}

/// Answers 200 with this body.
pub(super) fn say(mut respond: SendResponse<Bytes>, body: &str) {
    // A proxy that has left does not matter.
    if let Ok(mut stream) = respond.send_response(Response::new(()), false) {
        let _ = stream.send_data(Bytes::copy_from_slice(body.as_bytes()), true);
    }
}

/// Answers 200 with `length` bytes, as fast as they are taken.
pub(super) async fn say_much(mut respond: SendResponse<Bytes>, length: usize) {
    let Ok(mut stream) = respond.send_response(Response::new(()), false) else {
        return;
    };
    let mut left = length;
    while left > 0 {
        stream.reserve_capacity(left.min(16 * 1024));
        let Some(Ok(capacity)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else {
            return;
        };
        let part = capacity.min(left);
        left -= part;
        if stream
            .send_data(vec![b'x'; part].into(), left == 0)
            .is_err()
        {
            return;
        }
    }
}
