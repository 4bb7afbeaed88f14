//! May a failed attempt on `new` be replayed on legacy?
//!
//! The one mistake to avoid is doing a write twice. So the question is never "did it fail?" but
//! "can it have been executed?": a request of which no byte left this process cannot, a safe method
//! may be repeated by definition, and anything else is replayed only where the operator has said
//! that both arms share one data, key and session store.

use http::Method;

use super::class::Failure;

/// What is known of the request when its attempt fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailedAttempt {
    /// Why it failed.
    pub failure: Failure,
    /// Whether any byte of it may have reached the upstream.
    pub sent: bool,
    /// Whether the body can still be sent from its start.
    pub replayable: bool,
}

/// What the request and the configuration allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission {
    /// The split's and the route's fallback are on.
    pub enabled: bool,
    /// How a repetition of the request is judged.
    pub repetition: Repetition,
    /// Both arms work on one data, key and session store.
    pub shared_state: bool,
}

impl Permission {
    /// Whether a request that may have been executed may be executed again.
    pub const fn may_repeat(self) -> bool {
        match self.repetition {
            Repetition::Safe => true,
            Repetition::Idempotent => self.shared_state,
            Repetition::Unsafe => false,
        }
    }
}

/// Whether a request may be executed twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repetition {
    /// GET, HEAD, OPTIONS, TRACE: by definition of the method.
    Safe,
    /// PUT, DELETE, or an `Idempotency-Key`: only on the same store.
    Idempotent,
    /// Never.
    Unsafe,
}

impl Repetition {
    /// Classifies a method and the presence of an `Idempotency-Key` (RFC 9110 §9.2).
    pub fn of(method: &Method, has_idempotency_key: bool) -> Repetition {
        match *method {
            Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE => Repetition::Safe,
            Method::PUT | Method::DELETE => Repetition::Idempotent,
            _ if has_idempotency_key => Repetition::Idempotent,
            _ => Repetition::Unsafe,
        }
    }
}

/// The answer to "may this be replayed on legacy?".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes, and it costs nothing: the upstream never saw it.
    Free,
    /// Yes, if the budget has room.
    Budgeted,
    /// No.
    No(Refusal),
}

/// Why a failed attempt is not replayed; a label of the metric that counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Fallback is off here.
    Disabled,
    /// The method may have been executed and must not be twice.
    Method,
    /// More of the body was consumed than is kept.
    Body,
    /// Too many replays recently.
    Budget,
}

impl Refusal {
    /// Label values in the order of [`Refusal::index`].
    pub const LABELS: [&'static str; 4] = ["disabled", "method", "body", "budget"];

    /// Position in [`Refusal::LABELS`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Label value.
    pub const fn as_str(self) -> &'static str {
        Self::LABELS[self.index()]
    }
}

/// Decides whether a failed attempt on `new` may be replayed on legacy.
pub fn decide(attempt: FailedAttempt, permission: Permission) -> Verdict {
    if !permission.enabled {
        return Verdict::No(Refusal::Disabled);
    }
    if attempt.sent && !permission.may_repeat() {
        return Verdict::No(Refusal::Method);
    }
    if !attempt.replayable {
        return Verdict::No(Refusal::Body);
    }
    if attempt.sent {
        Verdict::Budgeted
    } else {
        Verdict::Free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permission(repetition: Repetition) -> Permission {
        Permission {
            enabled: true,
            repetition,
            shared_state: false,
        }
    }

    fn attempt(sent: bool) -> FailedAttempt {
        FailedAttempt {
            failure: Failure::Reset,
            sent,
            replayable: true,
        }
    }

    #[test]
    fn what_never_left_is_replayed_freely_whatever_the_method() {
        for repetition in [Repetition::Safe, Repetition::Idempotent, Repetition::Unsafe] {
            let verdict = decide(attempt(false), permission(repetition));
            assert_eq!(verdict, Verdict::Free, "{repetition:?}");
        }
    }

    #[test]
    fn a_write_that_may_have_been_executed_is_never_replayed_on_another_store() {
        for repetition in [Repetition::Idempotent, Repetition::Unsafe] {
            let verdict = decide(attempt(true), permission(repetition));
            assert_eq!(verdict, Verdict::No(Refusal::Method), "{repetition:?}");
        }
    }

    #[test]
    fn a_shared_store_allows_idempotent_writes_only() {
        let shared = |repetition| Permission {
            shared_state: true,
            ..permission(repetition)
        };
        assert_eq!(
            decide(attempt(true), shared(Repetition::Idempotent)),
            Verdict::Budgeted
        );
        assert_eq!(
            decide(attempt(true), shared(Repetition::Unsafe)),
            Verdict::No(Refusal::Method)
        );
    }

    #[test]
    fn a_body_that_is_gone_cannot_be_replayed() {
        let gone = FailedAttempt {
            replayable: false,
            ..attempt(true)
        };
        assert_eq!(
            decide(gone, permission(Repetition::Safe)),
            Verdict::No(Refusal::Body)
        );
    }

    #[test]
    fn an_idempotency_key_makes_a_post_idempotent_not_safe() {
        assert_eq!(Repetition::of(&Method::POST, true), Repetition::Idempotent);
        assert_eq!(Repetition::of(&Method::POST, false), Repetition::Unsafe);
        assert_eq!(Repetition::of(&Method::GET, false), Repetition::Safe);
    }
}
