//! The two arms: servers that answer at once, and one of which can die.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::Impossible;

/// How `new` dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Death {
    /// Its process is gone: connections break, new ones are refused.
    Refused,
    /// It answers every request with 500.
    Status500,
}

impl Death {
    pub(super) const ALL: [Death; 2] = [Death::Refused, Death::Status500];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Death::Refused => "refused",
            Death::Status500 => "500",
        }
    }
}

/// A server on a thread of its own, so that callers do not slow it. It is gone when dropped.
pub(super) struct Arm {
    address: SocketAddr,
    behaviour: Arc<Behaviour>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Behaviour {
    fails: AtomicBool,
    failures: AtomicU64,
}

impl Arm {
    pub(super) fn start() -> Result<Self, Impossible> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let behaviour = Arc::new(Behaviour::default());
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let served = Arc::clone(&behaviour);
        let thread = std::thread::spawn(move || {
            // The runtime ends with this closure, and every connection with the runtime.
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, served) => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self {
            address,
            behaviour,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it answers 500.
    pub(super) fn fail(&self) {
        self.behaviour.fails.store(true, Ordering::SeqCst);
    }

    /// How many requests it has answered with 500.
    pub(super) fn failures(&self) -> u64 {
        self.behaviour.failures.load(Ordering::SeqCst)
    }
}

impl Drop for Arm {
    fn drop(&mut self) {
        // The thread may have ended by itself.
        let _ = self.stop.take().map(|stop| stop.send(()));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: std::net::TcpListener, behaviour: Arc<Behaviour>) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    while let Ok((stream, _)) = listener.accept().await {
        let behaviour = Arc::clone(&behaviour);
        let service = service_fn(move |_| {
            let answer = behaviour.answer();
            async move { Ok::<_, Infallible>(answer) }
        });
        // Without it, some answers would wait 40 ms.
        let _ = stream.set_nodelay(true);
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

impl Behaviour {
    fn answer(&self) -> Response<Full<Bytes>> {
        let mut answer = Response::new(Full::from("an answer\n"));
        if self.fails.load(Ordering::SeqCst) {
            self.failures.fetch_add(1, Ordering::SeqCst);
            *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        }
        answer
    }
}
