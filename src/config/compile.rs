//! From what was written to what is meant.
//!
//! The shape is known to be sound here; what is left is meaning: names that must exist, files that
//! must be readable, values that must go together. After a problem a stand-in takes the place of
//! the value, so that the rest is judged as well; with any problem the result is thrown away.

mod addresses;
mod backend;
mod criteria;
mod file;
mod rollout;
mod route;
mod signal;
mod split;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use super::check::{Checked, Substituted, closest};
use super::model::{
    AccessLog, Admin, ClientCertificates, Config, Drain, Edge, Limit, Listener, LogDestination,
    LogFormat, Opening, Process, Role, ServerTls, Token, TraceContext, Via,
};
use super::notation::{Size, Written};
use super::problem::Problem;
use super::raw::{self, List};
use super::source::Source;
use super::tree::Position;
use crate::policy::rate::Rate;

/// Bytes of the admin API's tokens that nobody guesses: 128 bits, were they random.
const SHORTEST_SECRET: usize = 16;

/// Compiles what is sound; the configuration is absent or useless if there are problems.
pub(crate) fn compile(checked: Checked, source: &mut Source<'_>) -> (Option<Config>, Vec<Problem>) {
    let mut compiler = Compiler {
        positions: checked.positions,
        damaged: checked.damaged,
        substituted: checked.substituted,
        problems: checked.problems,
        warnings: Vec::new(),
        changing_keys: Vec::new(),
        source,
    };
    let config = checked.file.map(|file| compiler.file(file));
    let warnings = compiler.warnings;
    let config = config.map(|config| Config { warnings, ..config });
    (config, compiler.problems)
}

struct Compiler<'c, 's> {
    positions: HashMap<String, Position>,
    damaged: Vec<String>,
    substituted: HashMap<String, Substituted>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    /// The splits, by path, of which a login changes the key, and what is said of it.
    changing_keys: Vec<(String, String)>,
    source: &'c mut Source<'s>,
}

/// The names that a reference may use, in the file's order.
struct Names {
    /// `backend` or `split`.
    kind: &'static str,
    names: Vec<String>,
}

impl Compiler<'_, '_> {
    fn file(&mut self, mut file: raw::File) -> Config {
        let listeners = self.listeners(file.listeners);
        let process = Process {
            workers: file.workers.unwrap_or_else(cores),
            state_directory: self.source.resolve(&file.state.directory),
            admin: self.admin(file.admin, &listeners),
            drain: Drain {
                delay: file.drain.delay.0,
                deadline: file.drain.deadline.0,
            },
        };
        let access_log = file.access_log.map(|log| self.access_log(log));
        let max_body = file.edge.max_body.take();
        let denied = self.denied_in_file(file.edge.deny_file.take());
        let allowed = self.allowed_in_file(file.edge.allow_file.take());
        let mut edge = edge(file.edge);
        edge.deny.extend(denied);
        edge.allow.extend(allowed);
        self.judge_openings(&listeners, &edge);
        let backends = self.in_file_order("backends", file.backends.unwrap_or_default());
        let backend_names = self.names("backend", "backends", &backends);
        let backends = backends
            .into_iter()
            .map(|(name, backend)| self.backend(name, backend))
            .collect();
        let splits = self.in_file_order("splits", file.splits);
        let split_names = self.names("split", "splits", &splits);
        let splits: Vec<_> = splits
            .into_iter()
            .map(|(name, split)| self.split(name, split, &backend_names))
            .collect();
        self.tell_of_changing_keys();
        let max_body = max_body.map(|Written(size)| size.0);
        let routes = self.routes(file.routes, &backend_names, &split_names, max_body);
        self.warn_of_unused(&routes, &splits, &backend_names);
        Config {
            process,
            listeners,
            edge,
            access_log,
            backends,
            splits,
            routes,
            warnings: Vec::new(),
            files: Vec::new(),
        }
    }

    fn listeners(&mut self, listeners: Option<List<raw::Listener>>) -> Vec<Listener> {
        let mut compiled: Vec<Listener> = Vec::new();
        for (index, listener) in listeners.into_iter().flat_map(List::numbered) {
            let path = format!("listeners[{index}]");
            let address = listener
                .address
                .map_or(UNKNOWN_ADDRESS, |Written(address)| address);
            if address.port() != 0 && compiled.iter().any(|other| other.address == address) {
                let key = format!("{path}.address");
                let message = format!("another listener has the address {address}");
                self.problem(&key, message, "give each listener its own address or port");
            }
            let tls = listener.tls.map(|tls| self.server_tls(&path, tls));
            let opening = if listener.proxy_protocol {
                Opening::ProxyProtocol
            } else {
                Opening::Client
            };
            compiled.push(Listener {
                address,
                tls,
                opening,
            });
        }
        compiled
    }

    fn access_log(&self, log: raw::AccessLog) -> AccessLog {
        let destination = match log.path.unwrap_or_default().as_str() {
            "stdout" => LogDestination::Stdout,
            path => LogDestination::File(self.source.resolve(path)),
        };
        let format = match log.format {
            raw::LogFormat::Json => LogFormat::Json,
            raw::LogFormat::Combined => LogFormat::Combined,
        };
        let Written(Size(buffer)) = log.buffer;
        AccessLog {
            destination,
            format,
            buffer,
        }
    }

    fn judge_openings(&mut self, listeners: &[Listener], edge: &Edge) {
        for (index, listener) in listeners.iter().enumerate() {
            if listener.opening == Opening::ProxyProtocol && edge.trusted_proxies.is_empty() {
                self.problem(
                    &format!("listeners[{index}].proxy_protocol"),
                    "nobody may connect to this listener, since no proxy is trusted",
                    "name the balancer's addresses in edge.trusted_proxies",
                );
            }
        }
    }

    fn server_tls(&mut self, listener: &str, tls: raw::ServerTls) -> ServerTls {
        let path = format!("{listener}.tls");
        let mut pairs = vec![self.certificate_pair(&path, tls.certificate, tls.key)];
        for (index, pair) in tls.certificates.numbered() {
            let path = format!("{path}.certificates[{index}]");
            pairs.push(self.certificate_pair(&path, pair.certificate, pair.key));
        }
        let client_certificates = tls.client_certificates.map(|clients| {
            let key = format!("{path}.client_certificates.roots");
            let roots = clients.roots.and_then(|file| self.read_file(&key, &file));
            if let Some(roots) = &roots {
                self.certificates(&key, roots);
            }
            ClientCertificates {
                roots_pem: roots.unwrap_or_default(),
                required: clients.required,
            }
        });
        ServerTls {
            pairs,
            client_certificates,
        }
    }

    fn admin(&mut self, admin: raw::Admin, listeners: &[Listener]) -> Admin {
        let Written(address) = admin.address;
        if address.port() != 0 && listeners.iter().any(|other| other.address == address) {
            let message = format!("a listener has the address {address} too");
            self.problem("admin.address", message, "give the admin API its own port");
        }
        if !address.ip().to_canonical().is_loopback() && admin.tokens.is_empty() {
            self.problem(
                "admin.address",
                "anyone who reaches this address could operate: it is not loopback, and there is \
                 no token",
                "use 127.0.0.1, or add `tokens` with a name, a role and a token",
            );
        }
        let mut tokens: Vec<Token> = Vec::new();
        for (index, token) in admin.tokens.numbered() {
            let token = Token {
                name: token.name.unwrap_or_default(),
                role: match token.role {
                    Some(raw::Role::Operate) => Role::Operate,
                    Some(raw::Role::Read) | None => Role::Read,
                },
                secret: token.token.unwrap_or_default(),
            };
            if tokens.iter().any(|other| other.name == token.name) {
                let key = format!("admin.tokens[{index}].name");
                let message = format!("another token has the name `{}`", token.name);
                let remedy = "give each token its own name: the audit tells people apart by it";
                self.problem(&key, message, remedy);
            }
            if !token.secret.is_empty() && tokens.iter().any(|other| other.secret == token.secret) {
                let key = format!("admin.tokens[{index}].token");
                let remedy = "give each name its own token: the audit could not tell who acted";
                self.problem(&key, "another token has the same secret", remedy);
            }
            if (1..SHORTEST_SECRET).contains(&token.secret.len()) {
                let key = format!("admin.tokens[{index}].token");
                let message = format!("the token has fewer than {SHORTEST_SECRET} bytes");
                let remedy = "it can be guessed; make one with `openssl rand -hex 16`";
                self.warning(&key, message, remedy);
            }
            tokens.push(token);
        }
        Admin { address, tokens }
    }

    /// Entries of a mapping as the file has them; names are judged on the way.
    fn in_file_order<T>(&mut self, path: &str, entries: BTreeMap<String, T>) -> Vec<(String, T)> {
        let mut entries: Vec<_> = entries.into_iter().collect();
        entries.sort_by_key(|(name, _)| {
            let position = self.positions.get(&format!("{path}.{name}"));
            position.map(|position| (position.line, position.column))
        });
        entries
    }

    fn names<T>(&mut self, kind: &'static str, path: &str, entries: &[(String, T)]) -> Names {
        for (name, _) in entries {
            if !is_name(name) {
                self.problem(
                    &format!("{path}.{name}"),
                    format!("this is no name for a {kind}: it becomes a label and an argument"),
                    "use at most 63 letters, digits, `-`, `_` and `.`",
                );
            }
        }
        Names {
            kind,
            names: entries.iter().map(|(name, _)| name.clone()).collect(),
        }
    }

    /// The index of `name`; a problem at `key` if there is none.
    fn lookup(&mut self, key: &str, name: &str, names: &Names) -> Option<u16> {
        let index = names.names.iter().position(|known| known == name);
        if index.is_none() {
            let kind = names.kind;
            let list = names.names.join(", ");
            let remedy = match closest(name, names.names.iter().map(String::as_str)) {
                Some(meant) => format!("did you mean `{meant}`? There is: {list}"),
                None if names.names.is_empty() => format!("add it under `{kind}s`"),
                None => format!("there is: {list}"),
            };
            self.problem(key, format!("there is no {kind} `{name}`"), remedy);
        }
        // The tree has fewer nodes than this, see `tree::MAX_NODES`.
        index.map(|index| u16::try_from(index).unwrap_or(u16::MAX))
    }

    /// Notes a problem, unless what it is about was reported when the shape was checked.
    fn problem(&mut self, key: &str, message: impl Into<String>, remedy: impl Into<String>) {
        if let Some(problem) = self.note(key, message.into(), remedy.into()) {
            self.problems.push(problem);
        }
    }

    /// Notes what is allowed and yet worth a look.
    fn warning(&mut self, key: &str, message: impl Into<String>, remedy: impl Into<String>) {
        if let Some(warning) = self.note(key, message.into(), remedy.into()) {
            self.warnings.push(warning);
        }
    }

    fn note(&self, key: &str, message: String, remedy: String) -> Option<Problem> {
        let within = |path: &String| {
            key.strip_prefix(path.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        if self.damaged.iter().any(within) {
            return None;
        }
        // A message that repeats its key's value must not give away what came from outside.
        let message = match self.substituted.get(key) {
            Some(outside) => message.replace(&outside.value, &outside.written),
            None => message,
        };
        // A key that was not written has its place in the nearest mapping that was.
        let mut path = key;
        let position = loop {
            if let Some(position) = self.positions.get(path) {
                break Some(position);
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => break None,
            }
        };
        Some(Problem {
            line: position.map_or(1, |position| position.line),
            column: position.map_or(1, |position| position.column),
            key: key.to_owned(),
            message,
            remedy,
        })
    }
}

/// Whether this can be a label, and an argument of a command.
fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=63).contains(&name.len()) && name.bytes().all(fits)
}

/// Stands in for an address that was reported as missing or wrong.
const UNKNOWN_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn edge(edge: raw::Edge) -> Edge {
    let networks = |networks: List<Written<_>>| networks.sound().map(|Written(n)| n).collect();
    Edge {
        trusted_proxies: networks(edge.trusted_proxies),
        trace_context: match edge.trace_context {
            raw::TraceContext::Pass => TraceContext::Pass,
            raw::TraceContext::Trusted => TraceContext::Trusted,
            raw::TraceContext::Start => TraceContext::Start,
        },
        server_timing: edge.server_timing,
        deny: networks(edge.deny),
        allow: networks(edge.allow),
        max_connections: edge.max_connections,
        max_connections_per_address: edge.max_connections_per_address,
        max_requests_per_connection: edge.max_requests_per_connection,
        max_requests: edge.max_requests,
        rate_limit: edge.rate_limit.map(|limit| {
            let per_second = limit.requests_per_second.unwrap_or(1);
            Limit {
                rate: Rate::new(per_second, limit.burst.unwrap_or(per_second)),
                max_keys: limit.max_keys,
            }
        }),
        half_close_grace: edge.half_close_grace.0,
        header_timeout: edge.header_timeout.0.0,
        handshake_timeout: edge.handshake_timeout.0.0,
        max_head: edge.max_head.0.0,
        max_fields: edge.max_fields,
        max_target: edge.max_target.0.0,
        via: edge.via.and_then(|Written(name)| Via::new(&name.0)),
        min_rate: edge
            .min_rate
            .map(|Written(Size(bytes))| bytes as u64)
            .filter(|bytes| *bytes > 0),
    }
}
