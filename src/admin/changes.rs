//! The endpoints that change something.
//!
//! Every body may name the revision that its author has seen and may ask for a rehearsal; what it
//! does not know is refused, because a misspelt `dry_runn` would be done.

use std::time::{Duration, Instant};

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, FromRequest, Path, Request, State};
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::control::command::{Author, Change, Command, Order, Outcome, Proviso};
use crate::control::protocol::{ControlStopped, Refused};
use crate::policy::share::Share;
use crate::policy::signal::Reading;

use super::AdminState;
use super::access::Actor;
use super::api::SplitName;
use super::error::ApiError;
use super::wire::{
    Because, Deny, Emergency, ErrorKind, GoOn, GoToStage, Record, RollBack, SetShare, Tell,
    Upgrade, Upgraded, check_reason,
};

/// No valid body comes near this.
const BODY_LIMIT: usize = 16 * 1024;

/// A client that sends a head and then nothing would otherwise hold its connection for ever.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// An order that protects waits so long for a successor that is about to serve. A program that
/// denies addresses one after the other would let no upgrade through if none of them waited.
const PATIENCE: Duration = Duration::from_millis(500);

/// For a handover to be taken back, which is a matter of milliseconds.
const TAKING_BACK: Duration = Duration::from_secs(5);

/// Between two looks who decides.
const LOOK: Duration = Duration::from_millis(20);

type Answer = Result<Json<Outcome>, ApiError>;

pub(super) async fn set_share(
    State(state): State<AdminState>,
    Extension(actor): Extension<Actor>,
    SplitName(split): SplitName,
    JsonBody(body): JsonBody<SetShare>,
) -> Answer {
    let command = Command::Change {
        split,
        change: Change::Set {
            share: body.share,
            override_file: body.override_file,
        },
    };
    let proviso = proviso(body.expected_revision, body.dry_run);
    carry_out(&state, command, actor, body.reason, proviso).await
}

pub(super) async fn stage(
    State(state): State<AdminState>,
    Extension(actor): Extension<Actor>,
    SplitName(split): SplitName,
    JsonBody(body): JsonBody<GoToStage>,
) -> Answer {
    let command = Command::Change {
        split,
        change: Change::Stage { number: body.stage },
    };
    let proviso = proviso(body.expected_revision, body.dry_run);
    carry_out(&state, command, actor, body.reason, proviso).await
}

pub(super) async fn promote(
    state: State<AdminState>,
    actor: Extension<Actor>,
    split: SplitName,
    body: JsonBody<Because>,
) -> Answer {
    change(state, actor, split, body, Change::Promote).await
}

pub(super) async fn pause(
    state: State<AdminState>,
    actor: Extension<Actor>,
    split: SplitName,
    body: JsonBody<Because>,
) -> Answer {
    change(state, actor, split, body, Change::Pause).await
}

pub(super) async fn approve(
    state: State<AdminState>,
    actor: Extension<Actor>,
    split: SplitName,
    body: JsonBody<Because>,
) -> Answer {
    change(state, actor, split, body, Change::Approve).await
}

pub(super) async fn resume(
    State(state): State<AdminState>,
    Extension(actor): Extension<Actor>,
    SplitName(split): SplitName,
    JsonBody(body): JsonBody<GoOn>,
) -> Answer {
    let command = Command::Change {
        split,
        change: Change::Resume { stage: body.stage },
    };
    let proviso = Proviso {
        expected_revision: body.expected_revision,
        dry_run: body.dry_run,
    };
    carry_out(&state, command, actor, body.reason, proviso).await
}

pub(super) async fn rollback(
    State(state): State<AdminState>,
    Extension(actor): Extension<Actor>,
    SplitName(split): SplitName,
    JsonBody(body): JsonBody<RollBack>,
) -> Answer {
    let command = Command::Change {
        split,
        change: Change::Rollback {
            to: body.to.map(Into::into),
        },
    };
    let proviso = proviso(body.expected_revision, body.dry_run);
    carry_out(&state, command, actor, body.reason, proviso).await
}

pub(super) async fn signal(
    State(state): State<AdminState>,
    Extension(actor): Extension<Actor>,
    names: Result<Path<(String, String)>, PathRejection>,
    JsonBody(body): JsonBody<Tell>,
) -> Answer {
    let Path((split, name)) =
        names.map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
    let command = Command::Signal {
        split,
        name,
        reading: Reading::of(body.value, body.legacy),
    };
    let proviso = proviso(body.expected_revision, body.dry_run);
    carry_out(&state, command, actor, String::new(), proviso).await
}

pub(super) async fn emergency(
    State(state): State<AdminState>,
    Extension(actor): Extension<Actor>,
    JsonBody(body): JsonBody<Emergency>,
) -> Answer {
    if !body.clear && body.reason.trim().is_empty() {
        return Err(ApiError::bad_request(
            "declaring an emergency needs a `reason`: whoever finds it declared will ask why",
        ));
    }
    let command = Command::Emergency {
        split: body.split,
        clear: body.clear,
    };
    let proviso = proviso(body.expected_revision, body.dry_run);
    carry_out(&state, command, actor, body.reason, proviso).await
}

pub(super) async fn deny(
    State(state): State<AdminState>,
    Extension(actor): Extension<Actor>,
    JsonBody(body): JsonBody<Deny>,
) -> Answer {
    let network = body.parsed().map_err(ApiError::bad_request)?;
    let command = if body.remove {
        if body.span.is_some() {
            return Err(ApiError::bad_request(
                "a denial ends now or after a while: leave `remove` or `for` out",
            ));
        }
        Command::EndDenial { network }
    } else {
        if body.span.is_some_and(|span| span.is_zero()) {
            return Err(ApiError::bad_request(
                "`for` is no time at all: write how long from now, such as `30m`, or leave it out",
            ));
        }
        if body.reason.trim().is_empty() {
            return Err(ApiError::bad_request(
                "denying needs a `reason`: whoever finds it denied will ask why",
            ));
        }
        Command::Deny {
            network,
            span: body.span,
        }
    };
    let proviso = proviso(body.expected_revision, body.dry_run);
    carry_out(&state, command, actor, body.reason, proviso).await
}

pub(super) async fn reload(
    State(state): State<AdminState>,
    Extension(actor): Extension<Actor>,
    JsonBody(body): JsonBody<Because>,
) -> Answer {
    let proviso = proviso(body.expected_revision, body.dry_run);
    carry_out(&state, Command::Reload, actor, body.reason, proviso).await
}

/// Answers when the successor serves, or when there is none.
pub(super) async fn upgrade(
    State(state): State<AdminState>,
    Extension(actor): Extension<Actor>,
    JsonBody(body): JsonBody<Upgrade>,
) -> Result<Json<Upgraded>, ApiError> {
    check_reason(&body.reason).map_err(ApiError::bad_request)?;
    let asked = state.upgrades.ask(actor.name, body.reason).await;
    let process =
        asked.map_err(|because| Refused::Precondition(format!("not upgraded: {because}")))?;
    let who = process.map_or_else(
        || "Another process".to_owned(),
        |process| format!("Process {process}"),
    );
    Ok(Json(Upgraded {
        sentence: format!("{who} serves now; this one leaves."),
        process,
    }))
}

pub(super) async fn record(
    State(state): State<AdminState>,
    Extension(actor): Extension<Actor>,
    SplitName(split): SplitName,
    JsonBody(body): JsonBody<Record>,
) -> Answer {
    let span = body.span;
    let command = Command::Record { split, span };
    let (reason, proviso) = (String::new(), Proviso::default());
    carry_out(&state, command, actor, reason, proviso).await
}

pub(super) async fn end_recording(
    State(state): State<AdminState>,
    Extension(actor): Extension<Actor>,
    SplitName(split): SplitName,
) -> Answer {
    let command = Command::EndRecording { split };
    let (reason, proviso) = (String::new(), Proviso::default());
    carry_out(&state, command, actor, reason, proviso).await
}

async fn change(
    State(state): State<AdminState>,
    Extension(actor): Extension<Actor>,
    SplitName(split): SplitName,
    JsonBody(body): JsonBody<Because>,
    change: Change,
) -> Answer {
    let proviso = proviso(body.expected_revision, body.dry_run);
    let command = Command::Change { split, change };
    carry_out(&state, command, actor, body.reason, proviso).await
}

async fn carry_out(
    state: &AdminState,
    command: Command,
    actor: Actor,
    reason: String,
    proviso: Proviso,
) -> Answer {
    check_reason(&reason).map_err(ApiError::bad_request)?;
    let order = Order {
        command,
        author: Author {
            actor: actor.name,
            reason,
        },
        proviso,
    };
    let answered = match state.control.command(order.clone()).await? {
        Err(Refused::HandingOver(_)) if protects(state, &order).await? => {
            insist(state, order).await?
        }
        answered => answered,
    };
    Ok(Json(answered?))
}

/// Carries out what cannot wait until another process has taken over: as soon as that is done or
/// has failed, else the handover is taken back for it.
async fn insist(
    state: &AdminState,
    order: Order,
) -> Result<Result<Outcome, Refused>, ControlStopped> {
    let begun = Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        let answered = state.control.command(order.clone()).await?;
        let is_handing_over = matches!(answered, Err(Refused::HandingOver(_)));
        let waited = begun.elapsed();
        // Where it is over, the successor is to be asked, over another connection.
        if !is_handing_over || state.upgrades.are_over() || waited > PATIENCE + TAKING_BACK {
            return Ok(answered);
        }
        if waited > PATIENCE {
            state.upgrades.take_back();
        }
    }
}

/// Whether an order takes something from `new`, or keeps somebody out.
async fn protects(state: &AdminState, order: &Order) -> Result<bool, ControlStopped> {
    let lowers = match &order.command {
        Command::Deny { .. } | Command::Emergency { clear: false, .. } => true,
        Command::Change { split, change } => match change {
            Change::Rollback { .. } => true,
            Change::Set { share, .. } => {
                let present = state.control.split(split).await?;
                let present = present.ok().and_then(|split| split.share.parse().ok());
                present.is_some_and(|present: Share| *share < present)
            }
            _ => false,
        },
        _ => false,
    };
    Ok(lowers && !order.proviso.dry_run)
}

const fn proviso(expected_revision: Option<u64>, dry_run: bool) -> Proviso {
    Proviso {
        expected_revision,
        dry_run,
    }
}

/// A bounded JSON body of a change.
///
/// The content type is demanded even of an empty body, because that is what keeps a web page from
/// forging the request: a browser sends `application/json` to another origin only after a
/// preflight, which nothing here answers.
pub(super) struct JsonBody<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(ApiError::new(
                ErrorKind::ContentType,
                "a change needs the header `content-type: application/json`",
            ));
        }
        let body = read(request.into_body()).await?;
        // Nothing at all means that every field is left out.
        let text: &[u8] = if body.is_empty() { b"{}" } else { &body };
        serde_json::from_slice(text)
            .map(JsonBody)
            .map_err(|error| ApiError::bad_request(format!("the body is not valid: {error}")))
    }
}

async fn read(body: Body) -> Result<Bytes, ApiError> {
    let read = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, BODY_LIMIT));
    match read.await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_length_limit(&error) => Err(ApiError::new(
            ErrorKind::BodyTooLarge,
            format!("the body is longer than {BODY_LIMIT} bytes"),
        )),
        Ok(Err(error)) => Err(ApiError::bad_request(format!(
            "the body could not be read: {error}"
        ))),
        Err(_elapsed) => Err(ApiError::new(
            ErrorKind::BodyTimeout,
            "the body did not arrive in time",
        )),
    }
}

fn is_length_limit(error: &axum::Error) -> bool {
    std::error::Error::source(error)
        .is_some_and(|source| source.is::<http_body_util::LengthLimitError>())
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}
