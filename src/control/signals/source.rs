//! Asking a source once.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::answer::{self, Nonsense};
use crate::config::model::{HttpTarget, Poll, Protocol};
use crate::policy::signal::Reading;
use crate::upstream::connect::{ConnectFailure, InvalidTls, UpstreamTls, connect};
use crate::upstream::endpoint::{Endpoint, InvalidAddress};
use crate::upstream::probe::{self, Probe, ProbeFailure};

/// How much of an answer is read. One number needs a few hundred bytes, a health page with a list
/// of everything some thousands. The judge's thread takes it apart, so a long one would keep it.
const LONGEST_ANSWER: usize = 64 * 1024;

/// A source, and what was prepared to ask it.
#[derive(Debug)]
pub(super) struct Source {
    poll: Poll,
    /// Made with the first question that needs it, since it reads the system's roots.
    tls: Option<UpstreamTls>,
}

/// Why there is no value.
#[derive(Debug, thiserror::Error)]
enum AskFailure {
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error(transparent)]
    Address(#[from] InvalidAddress),
    #[error(transparent)]
    Tls(#[from] InvalidTls),
    #[error(transparent)]
    Connect(#[from] ConnectFailure),
    #[error(transparent)]
    Answer(#[from] ProbeFailure),
    #[error("the answer is longer than 64 KiB")]
    TooLong,
    #[error("the answer breaks off: {0}")]
    BreaksOff(String),
    #[error(transparent)]
    Nonsense(#[from] Nonsense),
    #[error("the token cannot stand in a header")]
    Token,
}

impl Source {
    pub(super) const fn new(poll: Poll) -> Self {
        Self { poll, tls: None }
    }

    /// Asks about both arms at the same time, each within the time limit.
    pub(super) async fn read(&mut self) -> Reading {
        let secure = [Some(&self.poll.new), self.poll.legacy.as_ref()];
        let is_secure = secure.into_iter().flatten().any(|target| target.is_secure);
        if is_secure
            && self.tls.is_none()
            && let Err(failure) = self.prepare_tls().await
        {
            let told = || Err(failure.to_string());
            return Reading {
                new: told(),
                legacy: self.poll.legacy.as_ref().map(|_| told()),
            };
        }
        let legacy = async {
            match &self.poll.legacy {
                Some(target) => Some(self.ask(target).await),
                None => None,
            }
        };
        let (new, legacy) = tokio::join!(self.ask(&self.poll.new), legacy);
        Reading { new, legacy }
    }

    async fn prepare_tls(&mut self) -> Result<(), AskFailure> {
        let settings = self.poll.tls.clone();
        // The system's roots are a file of some hundred kilobytes, and the judge must not wait.
        let prepared = spawn_blocking(move || UpstreamTls::new(&settings, Protocol::Http1)).await;
        // It has no reason to panic; if it does all the same, the next question tries again.
        let prepared = prepared.map_err(|error| AskFailure::BreaksOff(error.to_string()))?;
        self.tls = Some(prepared?);
        Ok(())
    }

    async fn ask(&self, target: &HttpTarget) -> Result<f64, String> {
        let asked = timeout(self.poll.timeout, self.exchange(target)).await;
        let asked = asked.unwrap_or(Err(AskFailure::Timeout(self.poll.timeout)));
        asked.map_err(|failure| failure.to_string())
    }

    async fn exchange(&self, target: &HttpTarget) -> Result<f64, AskFailure> {
        let (status, body) = self.fetch(target).await?;
        Ok(answer::number(&self.poll.answer, status, &body)?)
    }

    async fn fetch(&self, target: &HttpTarget) -> Result<(StatusCode, Bytes), AskFailure> {
        let endpoint = Endpoint::new(&target.endpoint)?;
        let tls = self.tls.as_ref().filter(|_| target.is_secure);
        let stream = connect(&endpoint, tls).await?;
        let authorization = self.authorization()?;
        let probe = Probe {
            path: &target.path,
            host: &target.host,
            user_agent: concat!("cutover-signal/", env!("CARGO_PKG_VERSION")),
            authorization: authorization.as_ref(),
        };
        let mut answer = probe::get(stream, Protocol::Http1, probe).await?;
        let body = Limited::new(&mut answer.body, LONGEST_ANSWER)
            .collect()
            .await;
        let body = body.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
            Some(_) => AskFailure::TooLong,
            None => AskFailure::BreaksOff(error.to_string()),
        })?;
        Ok((answer.status, body.to_bytes()))
    }

    fn authorization(&self) -> Result<Option<HeaderValue>, AskFailure> {
        let Some(secret) = &self.poll.bearer else {
            return Ok(None);
        };
        let mut text = b"Bearer ".to_vec();
        text.extend_from_slice(&secret.0);
        let mut value = HeaderValue::try_from(text).map_err(|_| AskFailure::Token)?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}
