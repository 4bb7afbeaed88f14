//! The log: one line per event on standard error, as text for people or JSON for machines.
//!
//! What to log is said by the environment variable `CUTOVER_LOG`, `info` by default: transitions
//! of state, each with its evidence. Traffic is what metrics are for; `debug` and `trace` show
//! single connections and requests. A mistyped filter is an error and not, as is usual, a silent
//! log.

use std::env::VarError;
use std::io::IsTerminal as _;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, ParseError};
use tracing_subscriber::fmt::MakeWriter;

/// The environment variable that says what is logged, such as `debug` or `cutover::proxy=trace`.
pub const FILTER_VARIABLE: &str = "CUTOVER_LOG";

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Words, coloured on a terminal.
    #[default]
    Text,
    /// One JSON object per line, the event's fields on its top level.
    Json,
}

/// Why the log could not be started.
#[derive(Debug, thiserror::Error)]
pub enum NoLog {
    /// The filter is not one.
    #[error(
        "{FILTER_VARIABLE}=`{filter}` is no log filter ({source}); \
         write a level such as `debug`, or `info,cutover::proxy=trace`"
    )]
    Filter {
        /// What was written.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// The log was already started.
    #[error("the log was already started")]
    AlreadyStarted,
}

/// Starts the log of this process. To be called once, first thing.
///
/// # Errors
/// [`NoLog`] says what to do about it, in one sentence.
pub fn start(format: Format) -> Result<(), NoLog> {
    let filter = match std::env::var(FILTER_VARIABLE) {
        Ok(filter) => filter,
        Err(VarError::NotPresent) => String::new(),
        // Not unicode: let the filter's own error show what was understood.
        Err(VarError::NotUnicode(filter)) => filter.to_string_lossy().into_owned(),
    };
    // <https://no-color.org>
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let subscriber = subscriber(format, &filter, colour, std::io::stderr)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| NoLog::AlreadyStarted)
}

fn subscriber<W>(
    format: Format,
    filter: &str,
    colour: bool,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, NoLog>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let parsed = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse(filter)
        .map_err(|source| NoLog::Filter {
            filter: filter.to_owned(),
            source,
        })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_writer(writer)
        .with_ansi(colour)
        // Would be reported on standard error, which is what has just failed, and by panicking.
        .log_internal_errors(false);
    Ok(match format {
        Format::Text => Box::new(lines.finish()),
        Format::Json => Box::new(lines.json().flatten_event(true).finish()),
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Seek as _};
    use std::sync::Arc;

    use super::*;

    /// What is written when one event of each level happens under `filter`.
    fn logged(format: Format, filter: &str) -> String {
        let file = Arc::new(tempfile::tempfile().expect("a temporary file"));
        let subscriber =
            subscriber(format, filter, false, Arc::clone(&file)).expect("a valid filter");
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(split = "checkout", share = "0%", "rolled back");
            tracing::debug!("connection accepted");
        });
        let mut file: &File = &file;
        let mut text = String::new();
        file.rewind().expect("a file can be rewound");
        file.read_to_string(&mut text).expect("the log is text");
        text
    }

    #[test]
    fn transitions_are_logged_by_default_and_traffic_is_not() {
        let text = logged(Format::Text, "");
        assert!(text.contains("rolled back"), "{text}");
        assert!(!text.contains("connection accepted"), "{text}");
    }

    #[test]
    fn the_filter_may_ask_for_more() {
        assert!(logged(Format::Text, "debug").contains("connection accepted"));
    }

    #[test]
    fn json_has_one_object_per_line_with_the_fields_on_top() {
        let text = logged(Format::Json, "");
        let line: serde_json::Value = serde_json::from_str(&text).expect("one JSON object");
        assert_eq!(line["message"], "rolled back");
        assert_eq!(line["split"], "checkout");
        assert_eq!(line["level"], "INFO");
    }

    #[test]
    fn a_mistyped_filter_is_refused_with_its_remedy() {
        let refused = subscriber(Format::Text, "cutover=loud", false, std::io::stderr);
        let message = refused.err().expect("no such level").to_string();
        assert!(message.starts_with("CUTOVER_LOG=`cutover=loud` is no log filter"));
    }
}
