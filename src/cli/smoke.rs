//! `cutover test`: one GET to every endpoint of both arms, before any user is sent there.
//!
//! It connects as the proxy does (same connector, same TLS settings, same time limits), so what
//! passes here is reachable from there. It follows no redirect and retries nothing: a smoke test
//! that tries twice hides what it was run to find.

use std::time::Instant;

use clap::Args;
use hyper::StatusCode;
use serde::Serialize;

use crate::config::model::{Backend, Config, FIRST_BYTE, Split};
use crate::policy::arm::Arm;
use crate::policy::class::Class;
use crate::upstream::connect::{UpstreamTls, connect};
use crate::upstream::endpoint::Endpoint;
use crate::upstream::probe::{self, Probe};

use super::exit::{Exit, Failure};
use super::file::{self, ConfigFile};
use super::output::{Align, Answer, Cell, Format, Ink, Output, Table, Tone, seconds};

/// `cutover test`
#[derive(Debug, Args)]
pub(super) struct Smoke {
    #[command(flatten)]
    file: ConfigFile,
    /// Path and query of the GET.
    #[arg(long, value_name = "PATH", default_value = "/", value_parser = path)]
    path: String,
    /// The `Host` to send; without it, the endpoint's own address.
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Try one split instead of all.
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    #[command(flatten)]
    output: Output,
}

impl Smoke {
    pub(super) fn run(self, ink: Ink) -> Result<Answer, Failure> {
        let config = file::load(&self.file.path)?;
        let splits: Vec<&Split> = match &self.split {
            Some(name) => vec![file::split(&config, name)?],
            None => config.splits.iter().collect(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(|error| {
                Failure::new(Exit::Failure, format!("cannot start a runtime: {error}"))
            })?;
        let trials = runtime.block_on(self.try_all(&config, &splits));
        let exit = if trials.iter().all(|trial| trial.passed) {
            Exit::Success
        } else {
            Exit::Failure
        };
        let answer = match self.output.format {
            Format::Json => Answer::json(&trials),
            Format::Table => Answer::success(render(&trials, ink)),
        };
        Ok(Answer { exit, ..answer })
    }

    async fn try_all(&self, config: &Config, splits: &[&Split]) -> Vec<Trial> {
        let mut trials = Vec::new();
        for split in splits {
            let mut of_split = Vec::new();
            for arm in Arm::ALL {
                let backend = &config.backends[usize::from(split.arms[arm].0)];
                for endpoint in &backend.endpoints {
                    let started = Instant::now();
                    let result = self.ask(backend, endpoint).await;
                    of_split.push(Trial {
                        split: split.name.clone(),
                        arm,
                        backend: backend.name.clone(),
                        endpoint: endpoint.clone(),
                        status: result.as_ref().ok().map(StatusCode::as_u16),
                        seconds: started.elapsed().as_secs_f64(),
                        problem: result.err(),
                        passed: true,
                    });
                }
            }
            judge(&mut of_split);
            trials.append(&mut of_split);
        }
        trials
    }

    async fn ask(&self, backend: &Backend, address: &str) -> Result<StatusCode, String> {
        let endpoint = Endpoint::new(address).map_err(|error| error.to_string())?;
        let protocol = backend.protocol;
        let tls = backend.tls.as_ref();
        let tls = tls.map(|tls| UpstreamTls::new(tls, protocol)).transpose();
        let tls = tls.map_err(|error| error.to_string())?;
        let limits = &backend.timeouts;
        let stream = tokio::time::timeout(limits.connect, connect(&endpoint, tls.as_ref()))
            .await
            .map_err(|_| format!("no connection within {:?}", limits.connect))?
            .map_err(|error| error.to_string())?;
        let probe = Probe {
            path: &self.path,
            host: self.host.as_deref().unwrap_or(address),
            user_agent: concat!("cutover-test/", env!("CARGO_PKG_VERSION")),
            authorization: None,
        };
        let first_byte = limits.first_byte.unwrap_or(FIRST_BYTE);
        let answer = tokio::time::timeout(first_byte, probe::get(stream, protocol, probe))
            .await
            .map_err(|_| format!("no answer within {first_byte:?}"))?
            .map_err(|error| error.to_string())?;
        Ok(answer.status)
    }
}

/// How one endpoint answered.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Trial {
    split: String,
    arm: Arm,
    backend: String,
    endpoint: String,
    /// Absent without an answer.
    status: Option<u16>,
    /// Until the answer's head, or until it was given up.
    seconds: f64,
    /// Why it did not pass; absent if it did.
    problem: Option<String>,
    passed: bool,
}

impl Trial {
    fn class(&self) -> Class {
        self.status.map_or(Class::Transport, Class::of_status)
    }
}

/// Decides which trials of one split passed. A 4xx may be what both APIs say to a stranger; where
/// legacy answers and `new` does not, users would notice.
fn judge(trials: &mut [Trial]) {
    let legacy_answers = trials
        .iter()
        .any(|trial| trial.arm == Arm::Legacy && trial.class() == Class::Success);
    for trial in trials {
        let class = trial.class();
        if class == Class::ServerError {
            trial.problem = Some("the server says that it failed".to_owned());
        } else if class == Class::ClientError && trial.arm == Arm::New && legacy_answers {
            trial.problem = Some("legacy has an answer to this request".to_owned());
        }
        trial.passed = trial.problem.is_none();
    }
}

fn render(trials: &[Trial], ink: Ink) -> String {
    if trials.is_empty() {
        return "The configuration has no splits, so there is nothing to try.\n".to_owned();
    }
    let mut table = Table::new([
        ("SPLIT", Align::Left),
        ("ARM", Align::Left),
        ("BACKEND", Align::Left),
        ("ENDPOINT", Align::Left),
        ("STATUS", Align::Right),
        ("TIME", Align::Right),
        ("RESULT", Align::Left),
    ]);
    for trial in trials {
        let status = trial
            .status
            .map_or_else(|| "-".to_owned(), |status| status.to_string());
        let result = match &trial.problem {
            None => Cell::toned(Tone::Good, "passed"),
            Some(problem) => Cell::toned(Tone::Bad, format!("FAILED: {problem}")),
        };
        table.row([
            trial.split.as_str().into(),
            trial.arm.as_str().into(),
            trial.backend.as_str().into(),
            trial.endpoint.as_str().into(),
            status.into(),
            seconds(trial.seconds).into(),
            result,
        ]);
    }
    table.render(ink)
}

fn path(text: &str) -> Result<String, String> {
    let is_origin_form = text.starts_with('/') && text.parse::<hyper::Uri>().is_ok();
    if is_origin_form {
        Ok(text.to_owned())
    } else {
        Err("a path starts with a slash and is escaped, such as `/api/health?deep=1`".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(arm: Arm, status: Option<u16>) -> Trial {
        Trial {
            split: "checkout".into(),
            arm,
            backend: arm.as_str().into(),
            endpoint: "127.0.0.1:1".into(),
            status,
            seconds: 0.001,
            problem: status.is_none().then(|| "cannot connect".to_owned()),
            passed: true,
        }
    }

    fn passed(legacy: Option<u16>, new: Option<u16>) -> (bool, bool) {
        let mut trials = [trial(Arm::Legacy, legacy), trial(Arm::New, new)];
        judge(&mut trials);
        (trials[0].passed, trials[1].passed)
    }

    #[test]
    fn an_arm_passes_that_answers_as_well_as_legacy() {
        assert_eq!(passed(Some(200), Some(204)), (true, true));
        assert_eq!(passed(Some(401), Some(401)), (true, true));
        assert_eq!(passed(Some(404), Some(200)), (true, true));
    }

    #[test]
    fn an_arm_fails_that_is_silent_or_broken_or_lacks_what_legacy_has() {
        assert_eq!(passed(Some(200), None), (true, false));
        assert_eq!(passed(None, Some(200)), (false, true));
        assert_eq!(passed(Some(200), Some(503)), (true, false));
        assert_eq!(passed(Some(200), Some(404)), (true, false));
    }
}
