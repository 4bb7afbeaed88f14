//! How the CLI reaches the admin API: one request, one connection, and every way it can fail told
//! in a sentence.

use std::time::{Duration, Instant};

use clap::Args;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::admin::wire::{ErrorBody, ErrorKind};

use super::exit::{Exit, Failure};

/// Longer than any network an operator would wait for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The control plane answers within milliseconds; a change that must be on disk first waits for the
/// disk, and a failing disk is slow.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// For an upgrade under way: while neither process decides, an order is asked again.
const HANDOVER: Duration = Duration::from_secs(20);
/// Between two such questions.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// A backup holds up to ten thousand decisions, each with every criterion as it stood. A recording
/// ends at 64 MiB.
pub(super) const ANSWER_LIMIT: usize = 256 * 1024 * 1024;

/// Where the running instance is, and what allows us to ask it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct Connection {
    /// Where the admin API of the running instance is.
    #[arg(
        long,
        env = "CUTOVER_ADMIN",
        value_name = "URL",
        default_value = "http://127.0.0.1:9900"
    )]
    admin: AdminUrl,

    /// Bearer token; prefer the variable, since others can see a command line.
    #[arg(
        long,
        env = "CUTOVER_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    token: Option<String>,
}

impl Connection {
    /// Asks for the JSON at `path`.
    pub(super) fn get(&self, path: &str) -> Result<Value, Failure> {
        self.ask(Method::GET, path, String::new())
    }

    /// Asks for a change.
    pub(super) fn post(&self, path: &str, body: &impl Serialize) -> Result<Value, Failure> {
        let body = serde_json::to_string(body)
            .map_err(|error| Failure::new(Exit::Failure, error.to_string()))?;
        self.ask(Method::POST, path, body)
    }

    /// Asks for an end.
    pub(super) fn delete(&self, path: &str) -> Result<Value, Failure> {
        self.ask(Method::DELETE, path, String::new())
    }

    fn ask(&self, method: Method, path: &str, body: String) -> Result<Value, Failure> {
        let text = self.fetch(method, path, body)?;
        serde_json::from_slice(&text).map_err(|_| self.not_cutover(StatusCode::OK))
    }

    /// The text at `path`, as it comes.
    pub(super) fn text(&self, path: &str) -> Result<Bytes, Failure> {
        self.fetch(Method::GET, path, String::new())
    }

    fn fetch(&self, method: Method, path: &str, body: String) -> Result<Bytes, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(|error| {
                Failure::new(Exit::Failure, format!("cannot start a runtime: {error}"))
            })?;
        runtime.block_on(async {
            let begun = Instant::now();
            loop {
                let exchange = self.exchange(method.clone(), path, body.clone());
                let (status, text) = exchange.await?;
                if status.is_success() {
                    return Ok(text);
                }
                let answer: ErrorBody =
                    serde_json::from_slice(&text).map_err(|_| self.not_cutover(status))?;
                let kind = answer.error.kind;
                if kind == ErrorKind::HandingOver && begun.elapsed() < HANDOVER {
                    tokio::time::sleep(ASK_AGAIN).await;
                    continue;
                }
                let message = without_controls(&answer.error.message);
                return Err(Failure::new(exit_for(kind), message));
            }
        })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let request = self.request(method, path, body)?;
        let connect = TcpStream::connect((self.admin.host.as_str(), self.admin.port));
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, connect)
            .await
            .map_err(|_| self.unreachable("it did not accept the connection in time"))?
            .map_err(|error| self.unreachable(&error.to_string()))?;
        let answer = async {
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, ANSWER_LIMIT).collect().await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((head.status, body.to_bytes()))
        };
        tokio::time::timeout(ANSWER_TIMEOUT, answer)
            .await
            .map_err(|_| self.unreachable("it did not answer in time; see `cutover status`"))?
            .map_err(|error| self.unreachable(&format!("no whole answer came back: {error}")))
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.admin.prefix))
            .header(header::HOST, &self.admin.authority)
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)));
        let mut request = request.map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
        // A variable that is set but empty is how shells unset one for a single command.
        if let Some(token) = self.token.as_deref().filter(|token| !token.is_empty()) {
            let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| {
                Failure::new(
                    Exit::Usage,
                    "the token contains a character that no header may carry",
                )
            })?;
            value.set_sensitive(true);
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        Ok(request)
    }

    fn unreachable(&self, why: &str) -> Failure {
        let message = format!(
            "cannot reach the admin API at {}: {why}. Is `cutover serve` running there? Name \
             another address with --admin or CUTOVER_ADMIN",
            self.admin
        );
        Failure::new(Exit::Unreachable, message)
    }

    fn not_cutover(&self, status: StatusCode) -> Failure {
        let message = format!(
            "{} answered {status} with something that is not cutover's: is this the admin port, \
             and of this version?",
            self.admin
        );
        Failure::new(Exit::Failure, message)
    }
}

/// The exit code that belongs to an error of the admin API.
fn exit_for(kind: ErrorKind) -> Exit {
    match kind {
        ErrorKind::NoSuchSplit | ErrorKind::NoSuchSignal | ErrorKind::BadRequest => Exit::Usage,
        ErrorKind::InvalidConfig => Exit::Config,
        ErrorKind::Precondition => Exit::Refused,
        ErrorKind::RevisionMismatch => Exit::Stale,
        ErrorKind::StoreFailed
        | ErrorKind::Unauthenticated
        | ErrorKind::Forbidden
        | ErrorKind::ForbiddenHost
        | ErrorKind::NotFound
        | ErrorKind::MethodNotAllowed
        | ErrorKind::BodyTooLarge
        | ErrorKind::BodyTimeout
        | ErrorKind::ContentType
        | ErrorKind::Stopping
        | ErrorKind::HandingOver => Exit::Failure,
    }
}

/// Reads an answer for showing it to a person: text in it came from operators, upstreams and
/// files, and must not steer the terminal.
pub(super) fn for_people<T: DeserializeOwned>(mut answer: Value) -> Result<T, Failure> {
    disarm(&mut answer);
    serde_json::from_value(answer).map_err(|error| {
        let message = format!(
            "the answer cannot be understood ({error}): is the instance of another version? \
             `-o json` shows it as it came"
        );
        Failure::new(Exit::Failure, message)
    })
}

fn disarm(value: &mut Value) {
    match value {
        Value::String(text) => *text = without_controls(text),
        Value::Array(items) => items.iter_mut().for_each(disarm),
        Value::Object(fields) => fields.values_mut().for_each(disarm),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Replaces control characters, but for the ends of lines.
fn without_controls(text: &str) -> String {
    text.replace(
        |character: char| character.is_control() && character != '\n',
        "\u{fffd}",
    )
}

/// Escapes one segment of a path, or one value of a query.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// The address of an admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
struct AdminUrl {
    host: String,
    port: u16,
    /// What is sent as `Host`.
    authority: String,
    /// Where a gateway in front put the API; without a slash at its end.
    prefix: String,
}

impl std::str::FromStr for AdminUrl {
    type Err = InvalidAdminUrl;

    fn from_str(text: &str) -> Result<Self, InvalidAdminUrl> {
        // People paste `127.0.0.1:9900` from a log line.
        let uri: Uri = if text.contains("://") {
            text.parse()
        } else {
            format!("http://{text}").parse()
        }
        .map_err(|_| InvalidAdminUrl::NotAUrl)?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(InvalidAdminUrl::Https),
            _ => return Err(InvalidAdminUrl::NotAUrl),
        }
        let authority = uri.authority().ok_or(InvalidAdminUrl::NotAUrl)?;
        if uri.query().is_some() || authority.as_str().contains('@') {
            return Err(InvalidAdminUrl::NotAUrl);
        }
        let host = authority.host();
        let host = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(host);
        Ok(Self {
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(80),
            authority: authority.as_str().to_owned(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl std::fmt::Display for AdminUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}{}", self.authority, self.prefix)
    }
}

/// The text is no address of an admin API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum InvalidAdminUrl {
    #[error("not an address such as http://127.0.0.1:9900")]
    NotAUrl,
    #[error(
        "https is not supported yet: use http on loopback, or bring the port here with `ssh -L \
         9900:127.0.0.1:9900 HOST`"
    )]
    Https,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_address_is_a_plain_http_url_or_its_host_and_port() {
        for (text, host, port, prefix) in [
            ("http://127.0.0.1:9900", "127.0.0.1", 9900, ""),
            ("localhost:9900", "localhost", 9900, ""),
            ("http://[::1]:9901/", "::1", 9901, ""),
            ("http://gateway/cutover/", "gateway", 80, "/cutover"),
        ] {
            let url: AdminUrl = text.parse().expect(text);
            assert_eq!((url.host.as_str(), url.port), (host, port), "{text}");
            assert_eq!(url.prefix, prefix, "{text}");
        }
        let refused = |text: &str| text.parse::<AdminUrl>().unwrap_err();
        assert_eq!(refused("https://localhost:9900"), InvalidAdminUrl::Https);
        for text in [
            "",
            "ftp://localhost",
            "http://",
            "http://a:b@localhost",
            "http://h?x=1",
        ] {
            assert_eq!(refused(text), InvalidAdminUrl::NotAUrl, "{text}");
        }
    }

    #[test]
    fn every_byte_that_means_something_in_a_url_is_escaped() {
        assert_eq!(escape("check-out_1.~"), "check-out_1.~");
        assert_eq!(escape("a b/ü?&+%"), "a%20b%2F%C3%BC%3F%26%2B%25");
    }

    #[test]
    fn text_from_elsewhere_cannot_steer_the_terminal() {
        let value = serde_json::json!({"reason": ["\u{1b}[2Jgone\nnext"]});
        let shown: Value = for_people(value).unwrap();
        assert_eq!(
            shown,
            serde_json::json!({"reason": ["\u{fffd}[2Jgone\nnext"]})
        );
    }
}
