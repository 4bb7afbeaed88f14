//! How long an HTTP/1 client is waited for: between two requests, and within a head.
//!
//! hyper has a time limit for heads. It costs every request a timer of the runtime, does not tell a
//! client that rests from one that has said half of something, and says nothing to either. Whoever
//! rests is to be left without a word: an answer to no request would be taken for that to the next
//! one. Whoever is late with a head is told 408, for it may be at fault without knowing.
//!
//! So the time is kept here, on the worker's coarse deadlines. A head has its own from its first byte
//! (one that stands behind another request: from the end of that one's answer), and further bytes do
//! not renew it. The bytes themselves lie in hyper, which has to be asked for them at the end.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::policy::time::Timestamp;
use crate::upstream::deadline::{Deadline, Deadlines};

/// Time in which a client can take its 408 and stop writing. A connection that is closed before that
/// is reset, and the reset can overtake the answer.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes of the late head that are thrown away meanwhile.
const MOST_DISCARDED: usize = 64 * 1024;
const LATE: &str = "the request's head did not arrive in time\n";

/// What a client that is not being answered is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Awaited {
    /// Nothing yet: nobody has looked since the last answer.
    #[default]
    Nothing,
    /// The first byte of a head.
    Beginning,
    /// The rest of a head, from now on.
    RestFromNow,
    /// The rest of a head, for some time already.
    Rest,
    /// It was waited for long enough.
    NoMore,
}

impl Awaited {
    /// What is awaited when bytes have come.
    pub(super) const fn after_bytes(self) -> Self {
        match self {
            Self::Nothing | Self::Beginning => Self::RestFromNow,
            Self::RestFromNow | Self::Rest | Self::NoMore => self,
        }
    }
}

/// The patience with one client.
#[derive(Debug)]
pub(super) struct Patience {
    deadline: Deadline,
    span: Duration,
}

impl Patience {
    /// Each thing is awaited for `span`.
    pub(super) fn new(deadlines: &Rc<Deadlines>, span: Duration) -> Self {
        Self {
            deadline: deadlines.add(),
            span,
        }
    }

    /// Ready once the client, of whom nothing more has come, is late.
    pub(super) fn poll_over(&self, awaited: &Cell<Awaited>, cx: &mut Context<'_>) -> Poll<()> {
        let next = match awaited.get() {
            Awaited::NoMore => return Poll::Ready(()),
            Awaited::Nothing => Some(Awaited::Beginning),
            Awaited::RestFromNow => Some(Awaited::Rest),
            Awaited::Beginning | Awaited::Rest => None,
        };
        if let Some(next) = next {
            self.deadline.set(self.span);
            awaited.set(next);
        }
        ready!(self.deadline.poll_passed(cx));
        awaited.set(Awaited::NoMore);
        Poll::Ready(())
    }
}

/// Answers 408 on a stream on which nothing else is on its way, and closes it so that the client
/// can read that.
pub(super) async fn answer_late_head<S>(mut stream: S, now: Timestamp)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let answer = late_head(now);
    let said = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        let mut discarded = 0;
        let mut bytes = [0; 1024];
        while discarded < MOST_DISCARDED {
            match stream.read(&mut bytes).await? {
                0 => break,
                count => discarded += count,
            }
        }
        Ok::<_, io::Error>(())
    };
    // However it ends, there is nothing left to do.
    let _ = timeout(LINGER, said).await;
}

/// The whole answer, as hyper would write that of `respond`.
fn late_head(now: Timestamp) -> String {
    let date = jiff::Timestamp::from_millisecond(now.milliseconds())
        .and_then(|now| {
            jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&now)
        })
        .map(|date| format!("Date: {date}\r\n"))
        .unwrap_or_default();
    let length = LATE.len();
    format!(
        "HTTP/1.1 408 Request Timeout\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\
         Cache-Control: no-store\r\n\
         Connection: close\r\n\
         Content-Length: {length}\r\n\
         {date}\r\n\
         {LATE}"
    )
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use crate::clock::Clock;

    use super::*;

    const SHORT: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(3600);

    struct Client {
        deadlines: Rc<Deadlines>,
        patience: Patience,
        awaited: Cell<Awaited>,
    }

    impl Client {
        fn new(span: Duration) -> Self {
            let deadlines = Deadlines::new(Clock::start());
            Self {
                patience: Patience::new(&deadlines, span),
                deadlines,
                awaited: Cell::default(),
            }
        }

        fn is_late(&self) -> bool {
            let mut cx = Context::from_waker(Waker::noop());
            self.patience.poll_over(&self.awaited, &mut cx).is_ready()
        }

        fn says_something(&self) {
            self.awaited.set(self.awaited.get().after_bytes());
        }

        /// Lets more than a short patience pass.
        fn wait(&self) {
            let end = self.deadlines.now().plus(Duration::from_millis(60));
            while self.deadlines.now() < end {
                std::thread::yield_now();
                self.deadlines.sweep();
            }
        }
    }

    #[test]
    fn whoever_says_nothing_is_late_after_the_patience_and_not_before() {
        let client = Client::new(SHORT);
        assert!(!client.is_late());
        client.wait();
        assert!(client.is_late());
        assert!(client.is_late(), "and stays so");
        let client = Client::new(LONG);
        assert!(!client.is_late());
        client.wait();
        assert!(!client.is_late());
    }

    #[test]
    fn the_first_byte_of_a_head_renews_the_patience_and_no_other_does() {
        let client = Client::new(SHORT);
        assert!(!client.is_late());
        client.wait();
        client.says_something();
        assert!(!client.is_late());
        client.wait();
        client.says_something();
        assert!(client.is_late());
    }

    #[test]
    fn a_late_head_is_answered_as_others_are_refused() {
        let (head, body) = {
            let answer = late_head(Timestamp::from_milliseconds(784_111_777_000));
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head ends");
            (head.to_owned(), body.to_owned())
        };
        assert_eq!(body, LATE);
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
        assert!(head.ends_with("\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT"));
    }
}
