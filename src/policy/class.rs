//! What became of a request or an attempt, in the few words that metrics and verdicts know.

use serde::{Deserialize, Serialize};

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Answered, 1xx to 3xx, or a gRPC OK.
    Success,
    /// 4xx, or a gRPC status that blames the caller.
    ClientError,
    /// 5xx.
    ServerError,
    /// A gRPC status that blames the server.
    GrpcError,
    /// No whole answer: connect, timeout, reset, truncated, invalid.
    Transport,
    /// The client went away first; never blamed on an arm.
    Cancelled,
}

impl Class {
    /// Every class, in label order.
    pub const ALL: [Class; 6] = [
        Class::Success,
        Class::ClientError,
        Class::ServerError,
        Class::GrpcError,
        Class::Transport,
        Class::Cancelled,
    ];

    /// Label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Class::Success => "success",
            Class::ClientError => "client_error",
            Class::ServerError => "server_error",
            Class::GrpcError => "grpc_error",
            Class::Transport => "transport",
            Class::Cancelled => "cancelled",
        }
    }

    /// Position in [`Class::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The class of an HTTP status.
    pub const fn of_status(status: u16) -> Class {
        match status {
            500.. => Class::ServerError,
            400..=499 => Class::ClientError,
            _ => Class::Success,
        }
    }

    /// The class of a gRPC status code, whatever the HTTP status: UNKNOWN, DEADLINE_EXCEEDED,
    /// UNIMPLEMENTED, INTERNAL, UNAVAILABLE and DATA_LOSS blame the server.
    pub const fn of_grpc(code: u32) -> Class {
        match code {
            0 => Class::Success,
            2 | 4 | 12 | 13 | 14 | 15 => Class::GrpcError,
            _ => Class::ClientError,
        }
    }

    /// Whether the class is an error of the arm (the `e` of the analysis).
    pub const fn is_error(self) -> bool {
        matches!(
            self,
            Class::ServerError | Class::GrpcError | Class::Transport
        )
    }
}

/// Why an attempt on an endpoint failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// Refused, unreachable, name not found.
    Connect,
    /// No connection within the time allowed.
    ConnectTimeout,
    /// The TLS handshake failed.
    Tls,
    /// Nothing came back in time.
    FirstByteTimeout,
    /// The connection broke before the answer's head was complete.
    Reset,
    /// What came back is not HTTP.
    InvalidResponse,
    /// The answer's body broke off before any of the answer was handed on.
    Truncated,
    /// The answer's status is one that the split counts as a failure.
    Status(u16),
    /// The answer is a gRPC status, trailers only, that blames the server.
    Grpc(u32),
}

impl Failure {
    /// Label values in the order of [`Failure::index`].
    pub const LABELS: [&'static str; 9] = [
        "connect",
        "connect_timeout",
        "tls",
        "first_byte_timeout",
        "reset",
        "invalid_response",
        "truncated",
        "status",
        "grpc",
    ];

    /// Position in [`Failure::LABELS`].
    pub const fn index(self) -> usize {
        match self {
            Failure::Connect => 0,
            Failure::ConnectTimeout => 1,
            Failure::Tls => 2,
            Failure::FirstByteTimeout => 3,
            Failure::Reset => 4,
            Failure::InvalidResponse => 5,
            Failure::Truncated => 6,
            Failure::Status(_) => 7,
            Failure::Grpc(_) => 8,
        }
    }

    /// Label value.
    pub const fn as_str(self) -> &'static str {
        Self::LABELS[self.index()]
    }

    /// The class the request gets if nothing rescues its booking on this arm.
    pub const fn class(self) -> Class {
        match self {
            // A status that the split lists is a failure of the arm, whatever its number.
            Failure::Status(_) => Class::ServerError,
            Failure::Grpc(code) => Class::of_grpc(code),
            _ => Class::Transport,
        }
    }

    /// Whether the arm did not answer, or not to an end, as opposed to answering with an error. Only
    /// these open the breaker.
    pub const fn is_transport(self) -> bool {
        !matches!(self, Failure::Status(_) | Failure::Grpc(_))
    }
}

/// Why `new` was not even tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Diversion {
    /// The breaker is open.
    Breaker,
    /// Every endpoint is unhealthy or ejected.
    NoEndpoint,
    /// Every endpoint's connections are taken.
    PoolFull,
    /// The proxy's own machine has no file descriptor or port left for a connection.
    NoSocket,
}

impl Diversion {
    /// Label values in the order of [`Diversion::index`].
    pub const LABELS: [&'static str; 4] = ["breaker", "no_endpoint", "pool_full", "no_socket"];

    /// Position in [`Diversion::LABELS`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Label value.
    pub const fn as_str(self) -> &'static str {
        Self::LABELS[self.index()]
    }

    /// Whether it says anything about `new`. That the proxy has run out of sockets does not: it
    /// would take the share back from an arm that was never asked.
    pub const fn is_evidence(self) -> bool {
        !matches!(self, Diversion::NoSocket)
    }
}
