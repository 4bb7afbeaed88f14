//! What a server does with one request, as a list of steps.
//!
//! A list says more misbehaviour than an enum of it could: every way to be slow, wrong or gone is
//! a few of the same steps in another order.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

/// What a server does with one request. When the list is done, the rest of the request is read and
/// the connection waits for the next one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script(pub(crate) Vec<Step>);

/// One thing that a server does.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Reads the rest of the request's body.
    ReadBody,
    /// Reads some more of the request's body, whatever comes next.
    ReadSome,
    /// Reads the rest of the body, then answers.
    Answer(Reply),
    /// Writes bytes as they are.
    Write(Bytes),
    /// Writes this many bytes of `x`, as fast as the other side takes them.
    Flood(usize),
    /// Does nothing for a while.
    Pause(Duration),
    /// Waits until the test opens the gate.
    Wait(Gate),
    /// Sends back whatever comes until the other side closes the connection, and records that.
    Echo,
    /// Waits until the other side closes the connection, and records it.
    AwaitDeparture,
    /// Waits for the first byte of the next request and closes the connection in its face.
    CloseAtNextRequest,
    /// Ends the connection in order.
    Close,
    /// Ends the connection with a reset.
    Reset,
}

impl Script {
    /// These steps, one after the other.
    pub(crate) fn of(steps: impl IntoIterator<Item = Step>) -> Self {
        Self(steps.into_iter().collect())
    }

    /// A well-behaved answer.
    pub(crate) fn answer(reply: Reply) -> Self {
        Self::of([Step::Answer(reply)])
    }

    /// A well-behaved answer with this status and its reason as the body.
    pub(crate) fn status(status: u16) -> Self {
        Self::answer(Reply::new(status))
    }

    /// Reads the whole request and never answers.
    pub(crate) fn hang() -> Self {
        Self::of([Step::ReadBody, Step::AwaitDeparture])
    }

    /// Reads the whole request and resets the connection.
    pub(crate) fn reset() -> Self {
        Self::of([Step::ReadBody, Step::Reset])
    }

    /// Reads the whole request and closes the connection without a word.
    pub(crate) fn close() -> Self {
        Self::of([Step::ReadBody, Step::Close])
    }

    /// Reads the whole request and writes `bytes`.
    pub(crate) fn write(bytes: impl Into<Bytes>) -> Self {
        Self::of([Step::ReadBody, Step::Write(bytes.into())])
    }

    /// The same, and then `step`.
    pub(crate) fn then(mut self, step: Step) -> Self {
        self.0.push(step);
        self
    }
}

/// A well-formed answer of known length.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    status: u16,
    fields: Vec<(String, String)>,
    body: Bytes,
}

impl Reply {
    /// An answer with this status, whose body says the status.
    pub(crate) fn new(status: u16) -> Self {
        Self {
            status,
            fields: Vec::new(),
            body: Bytes::from(format!("status {status}")),
        }
    }

    /// Adds a field.
    pub(crate) fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the body.
    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// The answer on the wire: what answers HEAD and what has no body by its status announce the
    /// length and stop there.
    pub(crate) fn render(&self, server: &str, method: &str) -> Bytes {
        let mut head = format!(
            "HTTP/1.1 {} Whatever\r\nServed-By: {server}\r\n",
            self.status
        );
        if self.status != 204 {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        for (name, value) in &self.fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let mut wire = head.into_bytes();
        if method != "HEAD" && !matches!(self.status, 204 | 304) {
            wire.extend_from_slice(&self.body);
        }
        wire.into()
    }
}

/// Something that a script waits for until the test lets it go on. Once open, it stays open.
#[derive(Clone, Debug)]
pub(crate) struct Gate(watch::Sender<bool>);

impl Gate {
    /// A closed gate.
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Lets everybody through.
    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }

    pub(super) async fn passed(&self) {
        // The sender is `self`, so the wait cannot fail.
        let _ = self.0.subscribe().wait_for(|is_open| *is_open).await;
    }
}
