//! What an operator can see and do: the admin API, the metrics, the command line.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::control::history::History;
use crate::control::protocol::SplitStatus;
use crate::policy::rollout::Decision;

use super::caller::Caller;
use super::{Impossible, cannot};

/// The name of the split in the demonstration's configuration.
pub(super) const SPLIT: &str = "api";
/// The name of the new API's backend there.
const NEW_BACKEND: &str = "new-api";

/// Where the command line looks unless it is told otherwise.
const DEFAULT_ADMIN: &str = "127.0.0.1:9900";

/// Somebody with access to the admin port.
pub(super) struct Operator {
    program: PathBuf,
    admin: SocketAddr,
    dashboard: Caller,
}

/// What a command printed.
pub(super) struct Said {
    /// Both streams.
    pub(super) text: String,
    /// Whether it exited with 0.
    pub(super) success: bool,
}

impl Operator {
    /// An operator of the instance whose admin API is at `admin`.
    pub(super) fn new(program: PathBuf, admin: SocketAddr) -> Self {
        Self {
            program,
            admin,
            dashboard: Caller::new(admin),
        }
    }

    /// The state of the split; or why nobody told.
    pub(super) async fn status(&mut self) -> Result<SplitStatus, String> {
        let body = self.read(&format!("/api/v1/splits/{SPLIT}")).await?;
        serde_json::from_str(&body).map_err(|error| error.to_string())
    }

    /// Attempts at the new API that failed since the proxy started, by its metrics.
    pub(super) async fn failed_attempts(&mut self) -> Result<u64, String> {
        let metrics = self.read("/metrics").await?;
        failed_attempts(&metrics).ok_or_else(|| "the metrics do not count attempts".to_owned())
    }

    /// What was decided about the split, the first decision first.
    pub(super) async fn history(&mut self) -> Result<Vec<Decision>, String> {
        let path = format!("/api/v1/history?split={SPLIT}&limit=100");
        let body = self.read(&path).await?;
        let history: History = serde_json::from_str(&body).map_err(|error| error.to_string())?;
        Ok(history.decisions.into_iter().rev().collect())
    }

    async fn read(&mut self, path: &str) -> Result<String, String> {
        let answer = self.dashboard.get(path, None).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if !answer.status.is_success() {
            return Err(format!("{path} answered {}", answer.status));
        }
        String::from_utf8(answer.body.into()).map_err(|error| error.to_string())
    }

    /// Runs this program with `words`, addressed to the instance.
    pub(super) async fn run(&self, words: &[&str]) -> Result<Said, Impossible> {
        let mut command = Command::new(&self.program);
        command
            .args(words)
            .arg("--admin")
            .arg(format!("http://{}", self.admin))
            .env_remove("CUTOVER_TOKEN");
        // Waited for elsewhere: the APIs and the sessions share this thread.
        let output = tokio::task::spawn_blocking(move || command.output()).await;
        let output = output
            .map_err(|error| cannot("wait for a command", &error))?
            .map_err(|error| cannot("run a command", &error))?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        Ok(Said {
            text,
            success: output.status.success(),
        })
    }

    /// The same as a line for a shell, the address left out where it is the default.
    pub(super) fn line(&self, words: &[&str]) -> String {
        let mut line = shown(&self.program);
        for word in words {
            if word.contains(' ') {
                line.push_str(&format!(" \"{word}\""));
            } else {
                line.push_str(&format!(" {word}"));
            }
        }
        let is_default = self.admin.to_string() == DEFAULT_ADMIN;
        if !is_default || std::env::var_os("CUTOVER_ADMIN").is_some() {
            line.push_str(&format!(" --admin http://{}", self.admin));
        }
        line
    }
}

/// The program as one would type it here.
fn shown(program: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    match program.strip_prefix(&here) {
        Ok(relative) if relative.components().count() > 1 => relative.display().to_string(),
        _ => program.display().to_string(),
    }
}

/// The sum over all results but `success`; none where there is no such series.
fn failed_attempts(metrics: &str) -> Option<u64> {
    let backend = format!("backend=\"{NEW_BACKEND}\"");
    metrics
        .lines()
        .filter(|line| line.starts_with("cutover_attempts_total{") && line.contains(&backend))
        .filter(|line| !line.contains("result=\"success\""))
        .map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .try_fold(None, |sum: Option<u64>, value| {
            Some(Some(sum.unwrap_or(0) + value?))
        })
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_that_failed_are_summed_over_their_results_and_one_backend() {
        let metrics = "\
# TYPE cutover_attempts_total counter
cutover_attempts_total{backend=\"new-api\",result=\"success\"} 900
cutover_attempts_total{backend=\"new-api\",result=\"connect\"} 5
cutover_attempts_total{backend=\"new-api\",result=\"reset\"} 3
cutover_attempts_total{backend=\"legacy-api\",result=\"reset\"} 70
cutover_attempt_retries_total{backend=\"new-api\"} 11
";
        assert_eq!(failed_attempts(metrics), Some(8));
        assert_eq!(failed_attempts("# nothing\n"), None);
    }

    #[test]
    fn a_command_can_be_pasted_into_a_shell() {
        let operator = |admin: &str| Operator::new("/opt/cutover".into(), admin.parse().unwrap());
        let words = ["resume", "api", "--reason", "fixed in 2.1"];
        assert_eq!(
            operator("127.0.0.1:4711").line(&words),
            "/opt/cutover resume api --reason \"fixed in 2.1\" --admin http://127.0.0.1:4711"
        );
    }
}
