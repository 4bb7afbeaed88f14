//! A server that believes nothing: it reads what the proxy sends with a parser of its own, which
//! takes one spelling of each thing and no other, and writes down what it has read.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

/// A server that believes nothing. Its threads end with the test's process.
pub(crate) struct Witness {
    address: SocketAddr,
    account: Arc<Mutex<Account>>,
}

#[derive(Default)]
struct Account {
    seen: Vec<Seen>,
    complaints: Vec<String>,
}

/// A request as it stood on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    /// Names as they were written, in their order.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
}

impl Seen {
    /// All values of this name, in their order.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        let fields = self.fields.iter();
        let named = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }
}

impl Witness {
    /// Begins to listen.
    pub(crate) fn start() -> Self {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports");
        let address = listener
            .local_addr()
            .expect("a bound listener has an address");
        let account = Arc::<Mutex<Account>>::default();
        std::thread::spawn({
            let account = Arc::clone(&account);
            move || {
                for stream in listener.incoming().flatten() {
                    let account = Arc::clone(&account);
                    std::thread::spawn(move || listen(stream, &account));
                }
            }
        });
        Self { address, account }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests read whole, in order of their ends.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        lock(&self.account).seen.clone()
    }

    /// Whatever was no request, or not written in the one right way.
    pub(crate) fn complaints(&self) -> Vec<String> {
        lock(&self.account).complaints.clone()
    }
}

fn lock(account: &Mutex<Account>) -> MutexGuard<'_, Account> {
    account
        .lock()
        .expect("nobody panics while holding this lock")
}

fn listen(mut stream: TcpStream, account: &Mutex<Account>) {
    let mut buffer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match read_request(&buffer) {
            Ok(Some((seen, length))) => {
                buffer.drain(..length);
                lock(account).seen.push(seen);
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                if stream.write_all(answer).is_err() {
                    return;
                }
            }
            Ok(None) => match stream.read(&mut piece) {
                // A request that breaks off is no request.
                Ok(0) | Err(_) => return,
                Ok(count) => buffer.extend_from_slice(&piece[..count]),
            },
            Err(problem) => {
                let problem = format!("{problem}: {}", buffer.escape_ascii());
                lock(account).complaints.push(problem);
                return;
            }
        }
    }
}

pub(crate) type Parsed<T> = Result<Option<T>, &'static str>;

/// The first request of `wire` and its length, once it is whole.
pub(crate) fn read_request(wire: &[u8]) -> Parsed<(Seen, usize)> {
    let Some(Lines { lines, length }) = read_lines(wire)? else {
        return Ok(None);
    };
    let (first, rest) = lines.split_first().ok_or("an empty head")?;
    let mut words = first.split(' ');
    let (Some(method), Some(target), Some("HTTP/1.1"), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err("no request line");
    };
    if !is_token(method) {
        return Err("no method");
    }
    if !target.starts_with('/') && (target != "*" || method != "OPTIONS") {
        return Err("no target");
    }
    let mut seen = Seen {
        method: method.to_owned(),
        target: target.to_owned(),
        fields: read_fields(rest)?,
        body: Vec::new(),
        trailers: Vec::new(),
    };
    if seen.values("host").len() != 1 {
        return Err("not one host");
    }
    let codings = seen.values("transfer-encoding");
    let lengths = seen.values("content-length");
    let length = match (&codings[..], &lengths[..]) {
        ([], []) => length,
        ([], [digits]) => {
            let body: usize = digits.parse().map_err(|_| "a length that is none")?;
            if body.to_string() != *digits {
                return Err("a length with decoration");
            }
            let Some(body) = wire.get(length..length + body) else {
                return Ok(None);
            };
            seen.body = body.to_vec();
            length + seen.body.len()
        }
        (["chunked"], []) => {
            let Some(chunks) = read_chunks(&wire[length..])? else {
                return Ok(None);
            };
            seen.body = chunks.body;
            seen.trailers = chunks.trailers;
            length + chunks.length
        }
        _ => return Err("framed twice"),
    };
    Ok(Some((seen, length)))
}

struct Chunks {
    body: Vec<u8>,
    trailers: Vec<(String, String)>,
    length: usize,
}

fn read_chunks(wire: &[u8]) -> Parsed<Chunks> {
    let mut body = Vec::new();
    let mut position = 0;
    loop {
        let Some(line) = read_line(&wire[position..])? else {
            return Ok(None);
        };
        let digits = std::str::from_utf8(line).map_err(|_| "no chunk size")?;
        let size = usize::from_str_radix(digits, 16).map_err(|_| "no chunk size")?;
        if format!("{size:x}") != digits {
            return Err("a chunk size with decoration");
        }
        position += line.len() + 2;
        if size == 0 {
            let Some(Lines { lines, length }) = read_lines(&wire[position..])? else {
                return Ok(None);
            };
            return Ok(Some(Chunks {
                body,
                trailers: read_fields(&lines)?,
                length: position + length,
            }));
        }
        let Some(data) = wire.get(position..position + size + 2) else {
            return Ok(None);
        };
        body.extend(
            data.strip_suffix(b"\r\n")
                .ok_or("a chunk without its end")?,
        );
        position += size + 2;
    }
}

struct Lines {
    lines: Vec<String>,
    /// All of them, the empty one at the end included.
    length: usize,
}

/// Lines up to the first empty one.
fn read_lines(wire: &[u8]) -> Parsed<Lines> {
    let mut lines = Vec::new();
    let mut position = 0;
    loop {
        let Some(line) = read_line(&wire[position..])? else {
            return Ok(None);
        };
        position += line.len() + 2;
        if line.is_empty() {
            return Ok(Some(Lines {
                lines,
                length: position,
            }));
        }
        if line
            .iter()
            .any(|byte| byte.is_ascii_control() && *byte != b'\t')
        {
            return Err("a control byte");
        }
        lines.push(String::from_utf8_lossy(line).into_owned());
    }
}

/// The first line without its end, which is two bytes, once it is whole.
fn read_line(wire: &[u8]) -> Parsed<&[u8]> {
    let Some(end) = wire.iter().position(|byte| *byte == b'\n') else {
        return Ok(None);
    };
    let line = wire[..end].strip_suffix(b"\r");
    line.map(Some).ok_or("a bare line feed")
}

fn read_fields(lines: &[String]) -> Result<Vec<(String, String)>, &'static str> {
    let read = |line: &String| {
        let (name, value) = line.split_once(": ").ok_or("no field")?;
        let is_trimmed = value.trim_matches([' ', '\t']) == value;
        if !is_token(name) || !is_trimmed {
            return Err("a field with decoration");
        }
        Ok((name.to_owned(), value.to_owned()))
    };
    lines.iter().map(read).collect()
}

fn is_token(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_part)
}

/// The statuses of the answers in `wire`, which must be whole and nothing else.
pub(crate) fn statuses(mut wire: &[u8]) -> Result<Vec<u16>, &'static str> {
    let mut statuses = Vec::new();
    while !wire.is_empty() {
        let Lines { lines, length } = read_lines(wire)?.ok_or("half a head")?;
        let (first, rest) = lines.split_first().ok_or("an empty head")?;
        let status = first.strip_prefix("HTTP/1.").ok_or("no answer")?;
        let status = status.get(2..5).ok_or("no status")?;
        statuses.push(status.parse().map_err(|_| "no status")?);
        let fields = read_fields(rest)?;
        let mut fields = fields.iter();
        let announced = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let (_, announced) = announced.ok_or("no length")?;
        let body: usize = announced.parse().map_err(|_| "no length")?;
        wire = wire.get(length + body..).ok_or("half a body")?;
    }
    Ok(statuses)
}
