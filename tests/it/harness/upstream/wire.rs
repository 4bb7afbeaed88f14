//! Reading requests off a connection, byte for byte as they came.

use std::io;

use tokio::io::{AsyncReadExt, ReadHalf};

/// The reading half of a connection and what was read ahead.
#[derive(Debug)]
pub(super) struct Reader<S> {
    stream: ReadHalf<S>,
    buffer: Vec<u8>,
}

/// The head of a request.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) fields: Vec<(String, String)>,
}

/// What is left of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    Length(usize),
    Chunked,
    Nothing,
}

impl<S: tokio::io::AsyncRead> Reader<S> {
    pub(super) fn new(stream: ReadHalf<S>) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// The next request's head; `None` at the end of the connection, or if what comes is no HTTP.
    pub(super) async fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 4);
                return Ok(parse(&head));
            }
            if self
                .buffer
                .first()
                .is_some_and(|byte| !byte.is_ascii_uppercase())
            {
                return Ok(None);
            }
            if self.more().await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Moves what has come of the body to `body`, waiting until there is something.
    pub(super) async fn some(&mut self, rest: &mut Rest, body: &mut Vec<u8>) -> io::Result<()> {
        match rest {
            Rest::Nothing => Ok(()),
            Rest::Length(length) => {
                if self.buffer.is_empty() && self.more().await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let count = self.buffer.len().min(*length);
                body.extend(self.buffer.drain(..count));
                *length -= count;
                if *length == 0 {
                    *rest = Rest::Nothing;
                }
                Ok(())
            }
            Rest::Chunked => {
                let line = self.line().await?;
                let size = usize::from_str_radix(&line, 16).map_err(io::Error::other)?;
                if size == 0 {
                    // Trailers are read and forgotten.
                    while !self.line().await?.is_empty() {}
                    *rest = Rest::Nothing;
                    return Ok(());
                }
                while self.buffer.len() < size + 2 {
                    if self.more().await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                body.extend(self.buffer.drain(..size));
                self.buffer.drain(..2);
                Ok(())
            }
        }
    }

    /// Waits until a byte has come that nobody has taken yet; `false` if the connection ends.
    pub(super) async fn has_more(&mut self) -> io::Result<bool> {
        Ok(!self.buffer.is_empty() || self.more().await? > 0)
    }

    /// What was read ahead.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// Drops what was read ahead.
    pub(super) fn forget(&mut self) {
        self.buffer.clear();
    }

    /// The half that is read.
    pub(super) fn into_inner(self) -> ReadHalf<S> {
        self.stream
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 2);
                return Ok(line);
            }
            if self.more().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn more(&mut self) -> io::Result<usize> {
        self.stream.read_buf(&mut self.buffer).await
    }
}

impl Head {
    /// How the body is framed.
    pub(super) fn rest(&self) -> Rest {
        let value = |name: &str| {
            let mut fields = self.fields.iter();
            fields
                .find(|(field, _)| field.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.as_str())
        };
        if value("transfer-encoding").is_some() {
            return Rest::Chunked;
        }
        match value("content-length").and_then(|length| length.parse().ok()) {
            None | Some(0) => Rest::Nothing,
            Some(length) => Rest::Length(length),
        }
    }
}

fn parse(head: &str) -> Option<Head> {
    let mut lines = head.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let method = words.next()?.to_owned();
    let target = words.next()?.to_owned();
    let fields = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Some(Head {
        method,
        target,
        fields,
    })
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
