//! The two APIs behind the proxy: small, and mortal.
//!
//! Their death must be a real one. An API that answers 500 is still there; here the listener is
//! gone and open connections are reset, as if the process had been killed. Its port stays claimed
//! meanwhile by a socket that does not listen: otherwise the system could give it to somebody else,
//! even to the proxy's own connection attempt, which would then talk to itself.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::{JoinHandle, JoinSet};
use xxhash_rust::xxh3::xxh3_64;

use crate::policy::arm::Arm;

/// Connections that wait for being accepted; the proxy opens far fewer.
const BACKLOG: u32 = 256;

/// One of the two APIs.
pub(super) struct Api {
    arm: Arm,
    address: SocketAddr,
    /// Holds the port while nobody listens.
    _claim: TcpSocket,
    server: Option<JoinHandle<()>>,
}

impl Api {
    /// Claims a port and serves it.
    pub(super) fn start(arm: Arm) -> io::Result<Self> {
        let claim = socket(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let mut api = Self {
            arm,
            address: claim.local_addr()?,
            _claim: claim,
            server: None,
        };
        api.revive()?;
        Ok(api)
    }

    /// Where it listens, unless it is dead.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Dies: nobody listens any more, and whoever is connected is reset.
    pub(super) async fn die(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            // Ends with the cancellation just asked for.
            let _ = server.await;
        }
    }

    /// Listens at the same address again.
    pub(super) fn revive(&mut self) -> io::Result<()> {
        let listener = socket(self.address)?.listen(BACKLOG)?;
        self.server = Some(tokio::spawn(serve(listener, self.arm)));
        Ok(())
    }
}

/// A socket bound to `address` that tolerates another of ours there.
fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn serve(listener: TcpListener, arm: Arm) {
    let served = Arc::new(AtomicU64::new(0));
    // Dropped, and with it every connection, when this task is.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                // Without lingering a dropped connection is reset instead of politely closed.
                let _ = stream.set_zero_linger();
                let _ = stream.set_nodelay(true);
                let served = Arc::clone(&served);
                let service = service_fn(move |request| {
                    answer(arm, served.fetch_add(1, Ordering::Relaxed), request)
                });
                connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(
    arm: Arm,
    number: u64,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    tokio::time::sleep(latency(arm, number)).await;
    let body = serde_json::json!({ "api": arm, "path": request.uri().path() });
    let mut response = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    let json = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    Ok(response)
}

/// How long the answer with this number takes: a few milliseconds, one in fifty somewhat longer,
/// and `new` a little quicker, as everybody hopes.
fn latency(arm: Arm, number: u64) -> Duration {
    let random = xxh3_64(&number.to_le_bytes());
    let (quickest, spread) = match arm {
        Arm::Legacy => (3_000, 8_000),
        Arm::New => (2_000, 5_000),
    };
    let straggling = if (random >> 32).is_multiple_of(50) {
        20_000
    } else {
        0
    };
    Duration::from_micros(quickest + random % spread + straggling)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::caller::Caller;

    #[tokio::test]
    async fn a_dead_api_resets_its_callers_and_comes_back_at_its_address() {
        let mut api = Api::start(Arm::New).unwrap();
        let mut caller = Caller::new(api.address());
        let answer = caller.get("/orders/7", None).await.unwrap();
        assert_eq!(
            &answer.body[..],
            b"{\"api\":\"new\",\"path\":\"/orders/7\"}\n"
        );

        api.die().await;
        assert!(caller.get("/", None).await.is_err());
        let refused = tokio::net::TcpStream::connect(api.address()).await;
        assert_eq!(
            refused.unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );

        api.revive().unwrap();
        assert!(caller.get("/", None).await.is_ok());
    }

    #[test]
    fn answers_take_milliseconds() {
        for number in 0..1_000 {
            for arm in Arm::ALL {
                let latency = latency(arm, number);
                assert!((2..32).contains(&latency.as_millis()), "{latency:?}");
            }
        }
    }
}
