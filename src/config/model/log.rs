//! The access log.

use std::path::PathBuf;

/// One line for each request that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// Where the lines go.
    pub destination: LogDestination,
    /// How a line looks.
    pub format: LogFormat,
    /// Bytes of lines that may wait to be written; more are dropped. Default 16 MiB.
    pub buffer: usize,
}

/// Where the lines of the access log go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogDestination {
    /// The process's standard output.
    Stdout,
    /// A file, which is appended to.
    File(PathBuf),
}

/// The file's path, or `stdout`.
impl std::fmt::Display for LogDestination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout => f.write_str("stdout"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// How a line of the access log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object.
    Json,
    /// The Combined Log Format of web servers.
    Combined,
}
