//! Connections that switch to another protocol: WebSocket, and whatever else a server agrees to.
//!
//! After the 101 there is no HTTP any more, only bytes in both directions, for hours. The outcome
//! of the request is the 101 itself, booked when it comes; what follows is no answer, and would
//! make every quiet chat look like a slow one. It still counts as a request in flight, for the
//! limits that protect the proxy and the upstream.
//!
//! The mistakes avoided here: a proxy that passes the 101 on and keeps the two connections apart
//! leaves both ends waiting; one that forgets what either end has said early, in the same packet as
//! its head, loses a message; and one that lets a client switch to HTTP/2 in clear, or to HTTP
//! behind TLS, never sees the requests that come then.
//!
//! A tunnel ends when one of its ends does, when nothing has moved for `upgrade_idle`, or when
//! `new` has lost its split and its grace is over. A drain leaves it alone until its deadline.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderValue, Version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::message::RequestHead;
use crate::message::name::{CONNECTION, UPGRADE};
use crate::telemetry::edge::{EdgeTally, TunnelEnd};
use crate::upstream::endpoint::PendingGuard;
use crate::upstream::http1::connection::Connection;
use crate::upstream::list::{has_member, members};

use super::attempt::Answer;
use super::leash::Leash;
use super::worker::Worker;

/// Bytes moved at once.
const PIECE: usize = 16 * 1024;
/// Once one end has ended, how long the other may be silent before it is taken to have said all.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The protocols that a client properly offers to switch to, without those in which HTTP goes on:
/// what is asked in them would pass every list, limit and route of the proxy.
pub fn offered(head: &RequestHead) -> Option<Box<HeaderValue>> {
    if head.version != Version::HTTP_11 || !head.fields.contains(&UPGRADE) {
        return None;
    }
    let mut options = head.fields.get_all(&CONNECTION);
    if !options.any(|line| has_member(line, b"upgrade")) {
        return None;
    }
    let mut kept = Vec::new();
    for line in head.fields.get_all(&UPGRADE) {
        for protocol in members(line).filter(|protocol| !continues_http(protocol)) {
            if !kept.is_empty() {
                kept.extend_from_slice(b", ");
            }
            kept.extend_from_slice(protocol);
        }
    }
    let offered = HeaderValue::from_maybe_shared(Bytes::from(kept)).ok();
    offered.filter(|kept| !kept.is_empty()).map(Box::new)
}

fn continues_http(protocol: &[u8]) -> bool {
    let name = protocol.split(|byte| *byte == b'/').next();
    let name = name.unwrap_or_default();
    [&b"h2c"[..], b"h2", b"http", b"https", b"tls"]
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known))
}

/// The upstream's side of a connection that has switched protocols.
#[derive(Debug)]
pub struct Tunnel {
    upstream: Connection,
    /// Counts as a request in flight until the tunnel ends.
    _pending: PendingGuard,
    /// Without any byte in either direction.
    idle: Duration,
    worker: Rc<Worker>,
    /// Of a tunnel to `new` that obeys the share.
    leash: Option<Leash>,
    counted: Counted,
}

impl Tunnel {
    /// What `answer`, a 101, leads to.
    pub fn new(answer: Answer, worker: &Rc<Worker>, leash: Option<Leash>) -> Self {
        Self {
            upstream: answer
                .exchange
                .into_connection()
                .expect("only HTTP/1 has a 101, and a connection of its own"),
            _pending: answer.pending,
            idle: answer.idle,
            worker: Rc::clone(worker),
            leash,
            counted: Counted::new(Arc::clone(&worker.edge)),
        }
    }

    /// Passes bytes between `client`, of which `ahead` has been read, and the upstream, until the
    /// tunnel ends.
    pub async fn run<S>(self, mut client: S, ahead: Bytes)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Self {
            mut upstream,
            idle,
            worker,
            leash,
            mut counted,
            ..
        } = self;
        // The request's own deadline may have a limit, which is about answers.
        let deadline = worker.deadlines.add();
        deadline.set(idle);
        let mut up = Way::new(BytesMut::from(ahead));
        let mut down = Way::new(std::mem::take(upstream.buffer_mut()));
        let mut first_end = None;
        let end = poll_fn(|cx| {
            if leash.as_ref().is_some_and(Leash::is_over) {
                return Poll::Ready(TunnelEnd::Rollback);
            }
            let stream = upstream.stream_mut();
            let upwards = up.poll(cx, &mut client, &mut *stream);
            let downwards = down.poll(cx, stream, &mut client);
            let ended = match (&upwards, &downwards) {
                (Poll::Ready(Err(Broken::Target)), _) | (_, Poll::Ready(Err(Broken::Source))) => {
                    Some(TunnelEnd::Upstream)
                }
                (Poll::Ready(_), _) | (_, Poll::Ready(Err(Broken::Target))) => {
                    Some(TunnelEnd::Client)
                }
                (_, Poll::Ready(Ok(()))) => Some(TunnelEnd::Upstream),
                (Poll::Pending, Poll::Pending) => None,
            };
            let has_failed = [&upwards, &downwards]
                .iter()
                .any(|way| matches!(way, Poll::Ready(Err(_))));
            let are_both_over = upwards.is_ready() && downwards.is_ready();
            let has_moved = up.has_moved() | down.has_moved();
            if let Some(end) = ended {
                let is_news = first_end.is_none();
                let end = *first_end.get_or_insert(end);
                if has_failed || are_both_over {
                    return Poll::Ready(end);
                }
                if is_news || has_moved {
                    // What waits for a slow reader has been said already.
                    let holds_words = up.holds_words() || down.holds_words();
                    deadline.set(match holds_words {
                        true => idle,
                        false => LAST_WORDS.min(idle),
                    });
                }
            } else if has_moved {
                deadline.set(idle);
            }
            let passed = deadline.poll_passed(cx);
            passed.map(|()| first_end.unwrap_or(TunnelEnd::Idle))
        })
        .await;
        counted.end = end;
    }
}

/// Which side of a direction has failed. How does not matter: the other side can only be told by an
/// end.
#[derive(Clone, Copy, Debug)]
enum Broken {
    Source,
    Target,
}

/// One direction of a tunnel. Memory is held only for what the other side does not take.
#[derive(Debug)]
struct Way {
    /// Read and not written yet.
    pending: BytesMut,
    /// Written and perhaps held back by TLS.
    is_flush_due: bool,
    /// The source has said everything.
    is_source_ended: bool,
    /// And the other side knows.
    is_over: bool,
    has_moved: bool,
}

impl Way {
    fn new(pending: BytesMut) -> Self {
        Self {
            pending,
            is_flush_due: false,
            is_source_ended: false,
            is_over: false,
            has_moved: false,
        }
    }

    /// Whether something was read that the other side has not taken yet.
    fn holds_words(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether anything was read or taken since the last time somebody asked.
    fn has_moved(&mut self) -> bool {
        std::mem::take(&mut self.has_moved)
    }

    /// Moves what there is; ready when the source has ended and the other side has been told.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut source: &mut (impl AsyncRead + Unpin),
        mut target: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<(), Broken>> {
        if self.is_over {
            return Poll::Ready(Ok(()));
        }
        loop {
            while !self.pending.is_empty() {
                let written = ready!(Pin::new(&mut target).poll_write(cx, &self.pending));
                let Ok(count @ 1..) = written else {
                    return Poll::Ready(Err(Broken::Target));
                };
                self.pending.advance(count);
                self.has_moved = true;
                self.is_flush_due = true;
            }
            self.pending = BytesMut::new();
            if self.is_source_ended {
                let shut = ready!(Pin::new(&mut target).poll_shutdown(cx));
                shut.map_err(|_| Broken::Target)?;
                self.is_over = true;
                return Poll::Ready(Ok(()));
            }
            let mut space = [const { MaybeUninit::uninit() }; PIECE];
            let mut piece = ReadBuf::uninit(&mut space);
            let read = Pin::new(&mut source).poll_read(cx, &mut piece);
            if read.map_err(|_| Broken::Source)?.is_pending() {
                if self.is_flush_due {
                    let flushed = Pin::new(&mut target).poll_flush(cx);
                    self.is_flush_due = flushed.map_err(|_| Broken::Target)?.is_pending();
                }
                return Poll::Pending;
            }
            let piece = piece.filled();
            self.is_source_ended = piece.is_empty();
            self.has_moved = true;
            // Usually the other side takes it at once, and nothing needs to be kept.
            let written = match piece {
                [] => 0,
                piece => match Pin::new(&mut target).poll_write(cx, piece) {
                    Poll::Ready(Ok(count)) => count,
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::Target)),
                    Poll::Pending => 0,
                },
            };
            self.is_flush_due |= written > 0;
            self.pending.extend_from_slice(&piece[written..]);
        }
    }
}

/// A tunnel counted as open until dropped: by default because its client left, even before it began.
#[derive(Debug)]
struct Counted {
    edge: Arc<EdgeTally>,
    end: TunnelEnd,
}

impl Counted {
    fn new(edge: Arc<EdgeTally>) -> Self {
        edge.tunnel_opened();
        Self {
            edge,
            end: TunnelEnd::Client,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.edge.tunnel_ended(self.end);
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn offer(connection: &[&str], upgrade: &[&str]) -> Option<String> {
        let mut request = Request::get("/");
        for line in connection {
            request = request.header("connection", *line);
        }
        for line in upgrade {
            request = request.header("upgrade", *line);
        }
        let request = request.body(()).expect("a request");
        let offered = offered(&request.into_parts().0.into())?;
        Some(offered.to_str().expect("text").to_owned())
    }

    #[test]
    fn an_upgrade_is_offered_by_both_fields_together() {
        let offered = Some("websocket".to_owned());
        assert_eq!(offer(&["Upgrade"], &["websocket"]), offered);
        assert_eq!(offer(&["keep-alive, Upgrade"], &["websocket"]), offered);
        assert_eq!(offer(&["keep-alive", "upgrade"], &["websocket"]), offered);
        assert_eq!(offer(&["keep-alive"], &["websocket"]), None);
        assert_eq!(offer(&[], &["websocket"]), None);
        assert_eq!(offer(&["Upgrade"], &[""]), None);
        let request = Request::get("/").header("connection", "Upgrade");
        let request = request.body(()).expect("a request").into_parts().0;
        assert_eq!(super::offered(&request.into()), None);
    }

    #[test]
    fn no_client_switches_to_another_http_behind_the_proxys_back() {
        let connection = ["Upgrade, HTTP2-Settings"];
        for protocol in ["h2c", "H2C", "h2", "HTTP/2.0", "TLS/1.2", "tls"] {
            assert_eq!(offer(&connection, &[protocol]), None, "{protocol}");
        }
        assert_eq!(
            offer(&connection, &["h2c, websocket", "chat/2"]),
            Some("websocket, chat/2".to_owned())
        );
    }
}
