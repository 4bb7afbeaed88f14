//! What travels over the admin API besides [`Status`](crate::control::protocol::Status).
//!
//! The service reads and the CLI writes the very same types, so they cannot drift apart. Unknown
//! fields are refused: a misspelt `overide` would otherwise do something else than was asked.

use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::control::protocol::Refused;
use crate::policy::addresses;
use crate::policy::plan::Retreat;
use crate::policy::share::{Share, percentage};

/// Asks for a share, fixed by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetShare {
    /// Such as `25%`.
    #[serde(with = "percentage")]
    pub share: Share,
    /// Whether a share fixed in the file may be overridden.
    #[serde(default, rename = "override")]
    pub override_file: bool,
    /// Recorded with the decision.
    #[serde(default)]
    pub reason: String,
    /// The revision of the split that the author has seen; refused at any other.
    #[serde(default)]
    pub expected_revision: Option<u64>,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// Asks for a stage of the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoToStage {
    /// Counted from 1.
    pub stage: usize,
    /// Recorded with the decision.
    #[serde(default)]
    pub reason: String,
    /// The revision of the split that the author has seen; refused at any other.
    #[serde(default)]
    pub expected_revision: Option<u64>,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// Asks to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoOn {
    /// The stage to go on at, counted from 1; absent: the interrupted one.
    #[serde(default)]
    pub stage: Option<usize>,
    /// Recorded with the decision.
    #[serde(default)]
    pub reason: String,
    /// The revision of the split that the author has seen; refused at any other.
    #[serde(default)]
    pub expected_revision: Option<u64>,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// Tells the value of a signal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tell {
    /// About `new`.
    pub value: f64,
    /// About legacy.
    #[serde(default)]
    pub legacy: Option<f64>,
    /// The revision of the split that the author has seen; refused at any other.
    #[serde(default)]
    pub expected_revision: Option<u64>,
    /// Only say whether it would be taken.
    #[serde(default)]
    pub dry_run: bool,
}

/// Asks for a rollback.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollBack {
    /// Where to; absent: where the split's rules send every rollback.
    #[serde(default)]
    pub to: Option<Target>,
    /// Recorded with the decision.
    #[serde(default)]
    pub reason: String,
    /// The revision of the split that the author has seen; refused at any other.
    #[serde(default)]
    pub expected_revision: Option<u64>,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// Where a rollback goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Target {
    /// Everyone back to legacy.
    #[serde(rename = "0")]
    #[value(name = "0")]
    Zero,
    /// To the share of the stage before; from the first one, or for the second time in a row, to 0.
    #[serde(rename = "previous")]
    Previous,
}

impl From<Target> for Retreat {
    fn from(target: Target) -> Retreat {
        match target {
            Target::Zero => Retreat::Zero,
            Target::Previous => Retreat::PreviousStage,
        }
    }
}

/// Asks for the process to be replaced by what lies in its program's place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upgrade {
    /// Recorded in the log.
    #[serde(default)]
    pub reason: String,
}

/// What became of an upgrade.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgraded {
    /// What is now true.
    pub sentence: String,
    /// The successor's number among the machine's processes; absent where the system does not tell
    /// it, as between the process namespaces of two containers.
    pub process: Option<u32>,
}

/// Declares or clears an emergency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Emergency {
    /// One split; absent: all of them.
    #[serde(default)]
    pub split: Option<String>,
    /// Clear it instead.
    #[serde(default)]
    pub clear: bool,
    /// Recorded with the decision; obligatory when declaring.
    #[serde(default)]
    pub reason: String,
    /// The revision that the author has seen, of the split or over all; refused at any other.
    #[serde(default)]
    pub expected_revision: Option<u64>,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// How a network is written, wherever one is asked for.
pub const NETWORK_FORMS: &str = "write an address, such as `192.0.2.7` or `2001:db8::1`, or a \
                                 network, such as `192.0.2.0/24` or `2001:db8::/32`; names and \
                                 ranges are not taken";

/// Denies a network, or ends that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deny {
    /// An address or a network, such as `192.0.2.0/24`.
    pub network: String,
    /// For how long, such as `1h`; absent: until somebody ends it.
    #[serde(default, rename = "for", with = "span_or_absent")]
    pub span: Option<Duration>,
    /// End the denial of exactly this network instead.
    #[serde(default)]
    pub remove: bool,
    /// Recorded with the decision; obligatory when denying.
    #[serde(default)]
    pub reason: String,
    /// The revision over all splits that the author has seen; refused at any other.
    #[serde(default)]
    pub expected_revision: Option<u64>,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

impl Deny {
    /// The network that is meant.
    ///
    /// # Errors
    /// A sentence that says what to write.
    pub fn parsed(&self) -> Result<IpNet, String> {
        let network = addresses::network(&self.network);
        network.ok_or_else(|| {
            let written = &self.network;
            format!("`{written}` is no address and no network: {NETWORK_FORMS}")
        })
    }
}

/// The body of a change that needs nothing but, perhaps, a reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Because {
    /// Recorded with the decision.
    #[serde(default)]
    pub reason: String,
    /// The revision that the author has seen, of the split or over all; refused at any other.
    #[serde(default)]
    pub expected_revision: Option<u64>,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// Asks for a recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// For how long, such as `5m`.
    #[serde(rename = "for", with = "span")]
    pub span: Duration,
}

/// The body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// For programs.
    pub kind: ErrorKind,
    /// For people.
    pub message: String,
}

/// Why a request to the admin API failed; the first six and the last are those of [`Refused`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// No such split; the message names the valid ones.
    NoSuchSplit,
    /// No such signal; the message names the valid ones.
    NoSuchSignal,
    /// The present state forbids it; the message says what would allow it.
    Precondition,
    /// Something was decided since the revision that was expected; the message says what.
    RevisionMismatch,
    /// The configuration file is not valid; the message lists the problems.
    InvalidConfig,
    /// The state store failed; nothing was promised.
    StoreFailed,
    /// The request's path, query or body cannot be understood.
    BadRequest,
    /// No token, or none that is known.
    Unauthenticated,
    /// The token's role does not allow this.
    Forbidden,
    /// The request names the service by a host name although no token is configured.
    ForbiddenHost,
    /// There is nothing at this path.
    NotFound,
    /// The path exists, but not for this method.
    MethodNotAllowed,
    /// The body is longer than any valid one.
    BodyTooLarge,
    /// The body did not arrive in time.
    BodyTimeout,
    /// A change whose content type is not JSON.
    ContentType,
    /// The process is about to exit.
    Stopping,
    /// Another process is taking over, and neither decides at the moment: ask again.
    HandingOver,
}

impl From<&Refused> for ErrorKind {
    fn from(refused: &Refused) -> Self {
        match refused {
            Refused::NoSuchSplit(_) => ErrorKind::NoSuchSplit,
            Refused::NoSuchSignal(_) => ErrorKind::NoSuchSignal,
            Refused::Precondition(_) => ErrorKind::Precondition,
            Refused::RevisionMismatch(_) => ErrorKind::RevisionMismatch,
            Refused::InvalidConfig(_) => ErrorKind::InvalidConfig,
            Refused::StoreFailed(_) => ErrorKind::StoreFailed,
            Refused::HandingOver(_) => ErrorKind::HandingOver,
        }
    }
}

/// The longest reason that is recorded, in bytes.
pub const REASON_LIMIT: usize = 1000;

/// Whether `reason` can be recorded: it ends up in logs, tables and terminals, where a control
/// character could forge a line or move the cursor.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn check_reason(reason: &str) -> Result<(), String> {
    if reason.len() > REASON_LIMIT {
        return Err(format!(
            "the reason is longer than {REASON_LIMIT} bytes; say it shorter"
        ));
    }
    if reason.chars().any(char::is_control) {
        return Err(
            "the reason contains a control character; write it as one line of plain text"
                .to_owned(),
        );
    }
    Ok(())
}

/// A duration as people write it, `5m`.
mod span {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::policy::duration;

    pub(super) fn serialize<S: Serializer>(
        span: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&duration::print(*span))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        duration::parse(&text).map_err(D::Error::custom)
    }
}

/// As [`span`], where there may be none.
mod span_or_absent {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use crate::policy::duration;

    #[expect(
        clippy::ref_option,
        reason = "serde calls it with a reference to the field"
    )]
    pub(super) fn serialize<S: Serializer>(
        span: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        span.map(duration::print).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        let span = text.map(|text| duration::parse(&text)).transpose();
        span.map_err(D::Error::custom)
    }
}
