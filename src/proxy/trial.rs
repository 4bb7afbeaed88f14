//! A request whose session belongs to `new`: tried there, and rescued by legacy where that is
//! possible.
//!
//! Every way that the trial can go books one outcome of `new`, whoever answers the client in the
//! end: a rescue that hid its cause from the verdict would let a broken `new` advance.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::config::model::{FIRST_BYTE, SplitId};
use crate::message::Response;
use crate::message::name::{CUTOVER_FALLBACK, GRPC_STATUS, SET_COOKIE};
use crate::policy::arm::Arm;
use crate::policy::class::{Diversion, Failure};
use crate::policy::fallback::{self, FailedAttempt, Permission, Refusal, Verdict};
use crate::policy::key::Cluster;
use crate::snapshot::SplitPlan;
use crate::telemetry::WorkerId;
use crate::telemetry::tally::SplitTally;
use crate::upstream::breaker::{Admission, Breaker};
use crate::upstream::http1::upload::RequestBody;

use super::attempt::{Answer, Call, Try, Unanswered};
use super::body::{Record, ResponseBody, grpc_code};
use super::forward::{book, class_of, name_arm};
use super::leash::Leash;
use super::worker::Worker;

/// Time to the first byte on `new`, where the backend sets none and legacy could still answer.
const FIRST_BYTE_WITH_FALLBACK: Duration = Duration::from_secs(5);

/// A request whose session belongs to `new`.
#[derive(Clone, Copy)]
pub struct Trial<'call> {
    /// The request.
    pub call: &'call Call<'call>,
    /// The split whose `new` is tried.
    pub id: SplitId,
    /// Its plan.
    pub split: &'call SplitPlan,
    /// Whether legacy may stand in.
    pub permission: Permission,
    /// Absent where the request is no evidence.
    pub cluster: Option<Cluster>,
}

impl Trial<'_> {
    /// Tries `new`, and answers.
    ///
    /// Whatever goes wrong is handled in futures of their own, boxed where they are needed: as
    /// parts of this one they would triple what every request moves and keeps.
    pub async fn run(self, body: RequestBody, mut record: Record) -> Response<ResponseBody> {
        let probe = Probe::new(&self);
        if probe.admission == Admission::Open {
            return Box::pin(self.divert(Diversion::Breaker, body, record)).await;
        }
        match self.call.attempt(self.how(), body).await {
            Ok(answer) => {
                probe.success();
                match self.listed_failure(&answer) {
                    None => {
                        let class = class_of(&answer);
                        self.note_streak(class.is_error());
                        record.first_byte(class);
                        self.pass(answer, record)
                    }
                    Some(failure) => Box::pin(self.answered_badly(failure, answer, record)).await,
                }
            }
            Err(Unanswered::Failed {
                failure,
                sent,
                body,
            }) => {
                probe.failure();
                self.note_streak(true);
                record.failed(failure.class());
                let attempt = FailedAttempt {
                    failure,
                    sent,
                    replayable: body.is_replayable(),
                };
                if self.may_replay(attempt) {
                    return Box::pin(self.replay(failure, body)).await;
                }
                let unanswered = Unanswered::Failed {
                    failure,
                    sent,
                    body,
                };
                self.own_answer(&unanswered)
            }
            Err(Unanswered::Diverted { diversion, body }) if self.permission.enabled => {
                Box::pin(self.divert(diversion, body, record)).await
            }
            Err(unanswered) => {
                if let Unanswered::Diverted { diversion, .. } = unanswered {
                    // Nobody stands in here, but it was not tried either.
                    self.note_diversion(diversion);
                }
                book(&unanswered, record);
                self.own_answer(&unanswered)
            }
        }
    }

    /// How to try `new`: impatiently where legacy could still answer.
    fn how(&self) -> Try {
        let plan = self.call.view.snapshot.routing.backend(self.split.arms.new);
        let is_repeatable = self.permission.enabled && self.permission.may_repeat();
        let default = if is_repeatable {
            FIRST_BYTE_WITH_FALLBACK
        } else {
            FIRST_BYTE
        };
        Try {
            backend: self.split.arms.new,
            first_byte: plan.backend.settings.timeouts.first_byte.unwrap_or(default),
            is_replay: false,
            is_repeatable,
            is_last_resort: !self.permission.enabled,
        }
    }

    /// The failure that an answer amounts to, if the split counts it as one.
    fn listed_failure(&self, answer: &Answer) -> Option<Failure> {
        if let Some(code) = grpc_code(answer.head.fields.get(&GRPC_STATUS)) {
            let failure = Failure::Grpc(code);
            return failure.class().is_error().then_some(failure);
        }
        let status = answer.head.status.as_u16();
        let is_listed = status >= 400 && self.split.fallback.statuses.contains(&status);
        is_listed.then_some(Failure::Status(status))
    }

    /// `new` answered, but with an error that legacy may be able to spare the client.
    async fn answered_badly(
        self,
        failure: Failure,
        mut answer: Answer,
        mut record: Record,
    ) -> Response<ResponseBody> {
        self.note_streak(true);
        let attempt = FailedAttempt {
            failure,
            sent: true,
            replayable: answer.exchange.body_mut().is_replayable(),
        };
        if !self.may_replay(attempt) {
            record.first_byte(failure.class());
            return self.pass(answer, record);
        }
        record.failed(failure.class());
        let body = answer.discard(&self.call.deadline);
        self.replay(failure, body).await
    }

    fn may_replay(&self, attempt: FailedAttempt) -> bool {
        let refusal = match fallback::decide(attempt, self.permission) {
            Verdict::Free => return true,
            Verdict::Budgeted if self.split.budget.try_take() => return true,
            Verdict::Budgeted => Refusal::Budget,
            Verdict::No(refusal) => refusal,
        };
        self.split.tally.not_replayed(self.call.worker.id, refusal);
        false
    }

    /// Lets legacy answer after `new` failed. The failure is booked already.
    async fn replay(self, failure: Failure, mut body: RequestBody) -> Response<ResponseBody> {
        body.rewind();
        let how = Try {
            is_replay: true,
            ..self.call.try_without_fallback(self.split.arms.legacy)
        };
        let tally = &self.split.tally;
        let worker = self.call.worker.id;
        self.note_fallback(failure.as_str());
        let rescue = Rescue::begin(&self, failure);
        let mut response = match self.call.attempt(how, body).await {
            Ok(answer) => {
                let status = answer.head.status.as_u16();
                rescue.ended(status < 500);
                if !self.split.shared_state && matches!(status, 401 | 403 | 404) {
                    tally.fallback_mismatch(worker);
                }
                let mut response = self.call.pass(answer, None, None);
                if !self.split.shared_state {
                    // Legacy would set its own session over the one that `new` has made.
                    response.fields.remove(&SET_COOKIE);
                }
                response
            }
            Err(unanswered) => {
                // A client that left is nobody's failure; dropping the rescue books that.
                if !matches!(unanswered, Unanswered::Client(_)) {
                    rescue.ended(false);
                }
                self.call.give_up(&unanswered)
            }
        };
        if self.split.response_headers {
            name_arm(&mut response, Arm::Legacy);
            let reason = failure.as_str().as_bytes();
            response.fields.insert(&CUTOVER_FALLBACK, reason);
        }
        response
    }

    /// Lets legacy answer without trying `new`.
    async fn divert(
        self,
        diversion: Diversion,
        body: RequestBody,
        record: Record,
    ) -> Response<ResponseBody> {
        record.dismiss();
        self.note_diversion(diversion);
        self.note_fallback(diversion.as_str());
        let how = self.call.try_without_fallback(self.split.arms.legacy);
        let mut response = match self.call.attempt(how, body).await {
            Ok(answer) => self.call.pass(answer, None, None),
            Err(unanswered) => self.call.give_up(&unanswered),
        };
        if self.split.response_headers {
            name_arm(&mut response, Arm::Legacy);
            let reason = diversion.as_str().as_bytes();
            response.fields.insert(&CUTOVER_FALLBACK, reason);
        }
        response
    }

    fn pass(self, answer: Answer, record: Record) -> Response<ResponseBody> {
        // A pin holds after a rollback, so what it brought here may go on.
        let leash = self
            .cluster
            .map(|_| Leash::new(&self.call.worker, &self.call.view, self.id));
        let mut response = self.call.pass(answer, Some(record), leash);
        if self.split.response_headers {
            name_arm(&mut response, Arm::New);
        }
        response
    }

    fn own_answer(&self, unanswered: &Unanswered) -> Response<ResponseBody> {
        let mut response = self.call.give_up(unanswered);
        if self.split.response_headers {
            name_arm(&mut response, Arm::New);
        }
        response
    }

    fn note_fallback(&self, reason: &'static str) {
        if let Some(course) = &self.call.course {
            course.fall_back(reason);
        }
    }

    fn note_diversion(&self, diversion: Diversion) {
        let worker = self.call.worker.id;
        let is_evidence = diversion.is_evidence();
        let cluster = self.cluster.filter(|_| is_evidence);
        self.split.tally.diverted(worker, diversion, cluster);
        if is_evidence {
            self.note_streak(true);
        }
    }

    fn note_streak(&self, is_failure: bool) {
        let streak = self.split.tally.streak();
        match self.cluster {
            Some(cluster) if is_failure => streak.failure(cluster),
            Some(_) => streak.success(),
            // An overridden request says nothing about ordinary users.
            None => {}
        }
    }
}

/// A replay on legacy, booked exactly once: by default, that its client left before it ended.
struct Rescue<'call> {
    tally: &'call SplitTally,
    worker: WorkerId,
    failure: Failure,
    cluster: Option<Cluster>,
    is_booked: bool,
}

impl<'call> Rescue<'call> {
    fn begin(trial: &Trial<'call>, failure: Failure) -> Self {
        Self {
            tally: &trial.split.tally,
            worker: trial.call.worker.id,
            failure,
            cluster: trial.cluster,
            is_booked: false,
        }
    }

    fn ended(mut self, has_answered: bool) {
        self.is_booked = true;
        if has_answered {
            self.tally.rescued(self.worker, self.failure, self.cluster);
        } else {
            self.tally.rescue_failed(self.worker, self.failure);
        }
    }
}

impl Drop for Rescue<'_> {
    fn drop(&mut self) {
        if !self.is_booked {
            self.tally.rescue_cancelled(self.worker, self.failure);
        }
    }
}

/// A request's word to the breaker, given exactly once: by default, that it has none.
struct Probe {
    breaker: Option<Arc<Breaker>>,
    admission: Admission,
    cluster: Option<Cluster>,
    worker: Rc<Worker>,
}

impl Probe {
    fn new(trial: &Trial<'_>) -> Self {
        let worker = Rc::clone(&trial.call.worker);
        // Where legacy may not stand in, there is nothing to divert to.
        let breaker = trial.split.breaker.clone();
        let breaker = breaker.filter(|_| trial.permission.enabled);
        let now = worker.deadlines.now();
        Self {
            admission: breaker
                .as_ref()
                .map_or(Admission::Closed, |breaker| breaker.admit(now)),
            breaker,
            cluster: trial.cluster,
            worker,
        }
    }

    fn success(mut self) {
        if let Some(breaker) = self.breaker.take() {
            breaker.success(self.admission, self.cluster);
        }
    }

    fn failure(mut self) {
        if let Some(breaker) = self.breaker.take() {
            let now = self.worker.deadlines.now();
            breaker.failure(self.admission, self.cluster, now);
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if let Some(breaker) = self.breaker.take() {
            breaker.abandoned(self.admission);
        }
    }
}
