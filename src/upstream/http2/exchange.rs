//! One request and its answer on one stream of a connection.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode};

use crate::message::name::{self, CONTENT_LENGTH, CONTENT_TYPE};
use crate::message::{self, Field, Fields, Known};
use crate::policy::class::Failure;
use crate::upstream::http1::decode::Decoder;
use crate::upstream::http1::exchange::{BodyPart, ExchangeFailed, HeadOutcome, Truncated};
use crate::upstream::http1::reserved::may_trail;
use crate::upstream::http1::response::{MOST_INFORMATIONAL, ResponseHead};
use crate::upstream::http1::upload::{Framing, RequestBody};
use crate::upstream::names::GRPC_STATUS;

use super::connection::{Place, failure_of};
use super::upload::Upload;

/// A request under way on a stream.
#[derive(Debug)]
pub struct Exchange {
    place: Place,
    /// Until the stream is open: the upstream may allow fewer than there are.
    opening: Option<SendRequest<Bytes>>,
    upload: Upload,
    response: ResponseFuture,
    answer: Option<RecvStream>,
    /// The answer's first part, if it was looked at before it was wanted.
    ahead: Option<BodyPart>,
    /// Bytes of the answer that its length still promises, if it has one.
    remaining: Option<u64>,
    is_head: bool,
    /// Informational answers so far.
    informed: u32,
    /// Whether a gRPC status is still to come, without which the answer is not whole.
    owes_status: bool,
    /// The upstream says that it has not looked at this request.
    is_refused: bool,
}

impl Exchange {
    /// Sends `head`, and prepares to send `body`.
    ///
    /// # Errors
    /// Where the connection is closed already; nothing was sent.
    pub fn begin(
        mut place: Place,
        head: Request<()>,
        body: RequestBody,
    ) -> Result<Exchange, Box<ExchangeFailed>> {
        let mut sender = place.sender();
        let is_ended = body.framing() == Framing::None;
        let is_head = *head.method() == Method::HEAD;
        match sender.send_request(head, is_ended) {
            Ok((response, stream)) => Ok(Exchange {
                place,
                opening: Some(sender),
                upload: Upload::new(body, stream, is_ended),
                response,
                answer: None,
                ahead: None,
                remaining: None,
                is_head,
                informed: 0,
                owes_status: false,
                is_refused: false,
            }),
            Err(error) => {
                place.ended();
                Err(Box::new(ExchangeFailed {
                    failure: failure_of(&error),
                    sent: false,
                    stale: true,
                    body,
                }))
            }
        }
    }

    /// Bytes sent so far; grows while there is progress.
    pub const fn progress(&self) -> u64 {
        self.upload.written()
    }

    /// Whether all that is waited for is the upstream's.
    pub const fn is_sent_completely(&self) -> bool {
        self.opening.is_some() || self.upload.is_ended()
    }

    /// Whether nothing can move until the client delivers more of its body.
    pub const fn awaits_client(&self) -> bool {
        self.opening.is_none() && self.upload.awaits_client()
    }

    /// The request's body.
    pub const fn body_mut(&mut self) -> &mut RequestBody {
        self.upload.body_mut()
    }

    /// Sends the request and waits for the answer's head; what precedes it is given to `inform`.
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        mut inform: impl FnMut(&mut Context<'_>, &message::Response<()>),
    ) -> Poll<HeadOutcome> {
        if let Some(opening) = &mut self.opening
            && opening.poll_ready(cx).is_ready()
        {
            self.opening = None;
        }
        if self.opening.is_none()
            && let Poll::Ready(Err(broken_off)) = self.upload.poll(cx)
        {
            return Poll::Ready(broken_off.into());
        }
        while let Poll::Ready(Some(Ok(answer))) = self.response.poll_informational(cx) {
            let (parts, ()) = answer.into_parts();
            self.informed += 1;
            let is_switch = parts.status == StatusCode::SWITCHING_PROTOCOLS;
            if is_switch || self.informed > MOST_INFORMATIONAL {
                // HTTP/2 has no switch; whoever stands before us would take it for the end of HTTP.
                return Poll::Ready(HeadOutcome::Failed(Failure::InvalidResponse));
            }
            let mut fields = Fields::from(&parts.headers);
            fields.retain(is_passed_on);
            let answer = message::Response {
                status: parts.status,
                fields,
                body: (),
            };
            inform(cx, &answer);
        }
        let outcome = match ready!(Pin::new(&mut self.response).poll(cx)) {
            Ok(response) => self.take_head(response),
            Err(error) => {
                self.is_refused = is_refusal(&error);
                // A server may refuse one request and take the next.
                if self.is_refused && error.is_go_away() {
                    self.place.retire();
                }
                Err(failure_of(&error))
            }
        };
        Poll::Ready(outcome.map_or_else(HeadOutcome::Failed, HeadOutcome::Head))
    }

    /// Ends the exchange without an answer; what is under way is cancelled.
    pub fn fail(mut self, failure: Failure) -> ExchangeFailed {
        match failure {
            Failure::FirstByteTimeout => self.place.doubt(),
            // The stream is gone already.
            Failure::Reset => self.place.ended(),
            _ => {}
        }
        let has_broken = failure == Failure::Reset && self.place.has_rested();
        ExchangeFailed {
            failure,
            sent: self.opening.is_none() && !self.is_refused,
            stale: self.is_refused || has_broken,
            body: self.upload.into_body(),
        }
    }

    /// Reads the next part of the answer's body, and keeps sending the request meanwhile.
    ///
    /// # Errors
    /// [`Truncated`] when the answer broke off.
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyPart, Truncated>> {
        if let Some(part) = self.ahead.take() {
            return Poll::Ready(Ok(part));
        }
        // An upload that the upstream does not take no longer matters once there is an answer. One
        // that the client broke off has cancelled the stream.
        let _ = self.upload.poll(cx);
        if self.body_mut().has_broken_off() {
            return Poll::Ready(Err(Truncated));
        }
        let part = match ready!(self.poll_answer(cx)) {
            Ok(BodyPart::Data(data)) => {
                let length = data.len() as u64;
                self.remaining = self.remaining.map(|left| left.saturating_sub(length));
                return Poll::Ready(Ok(BodyPart::Data(data)));
            }
            Ok(part) => {
                self.finish();
                let has_status = match &part {
                    BodyPart::Trailers(trailers) => trailers.contains_key(&GRPC_STATUS),
                    BodyPart::Data(_) | BodyPart::End => false,
                };
                if self.owes_status && !has_status {
                    Err(Truncated)
                } else {
                    Ok(part)
                }
            }
            // Its stream is gone, so there is nothing to cancel.
            Err(error) => {
                self.place.ended();
                if self.is_whole(&error) && !self.owes_status {
                    Ok(BodyPart::End)
                } else {
                    Err(Truncated)
                }
            }
        };
        Poll::Ready(part)
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyPart, h2::Error>> {
        let Some(answer) = &mut self.answer else {
            return Poll::Ready(Ok(BodyPart::End));
        };
        while let Some(data) = ready!(answer.poll_data(cx)?) {
            if !data.is_empty() {
                // The client has room for it, so the upstream may send as much again.
                answer.flow_control().release_capacity(data.len())?;
                return Poll::Ready(Ok(BodyPart::Data(data)));
            }
        }
        let trailers = ready!(answer.poll_trailers(cx)?);
        Poll::Ready(Ok(trailers.map_or(BodyPart::End, |mut trailers| {
            remove(&mut trailers, |name| !may_trail(name));
            BodyPart::Trailers(trailers)
        })))
    }

    /// Whether the answer's body is sound as far as its first part shows; that is not waited for.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn look_ahead(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        match self.poll_body(cx) {
            Poll::Ready(Ok(part)) => self.ahead = Some(part),
            // Where the client broke off its own body, that is found again by whoever reads on.
            Poll::Ready(Err(Truncated)) if !self.body_mut().has_broken_off() => {
                return Err(Failure::Truncated);
            }
            Poll::Ready(Err(Truncated)) | Poll::Pending => {}
        }
        Ok(())
    }

    /// Nothing of the answer's body came in time.
    pub fn stalled(&self) {
        self.place.doubt();
    }

    /// Ends the exchange for the sake of another attempt.
    pub fn abandon(self) -> RequestBody {
        self.upload.into_body()
    }

    fn take_head(&mut self, response: Response<RecvStream>) -> Result<ResponseHead, Failure> {
        let (parts, answer) = response.into_parts();
        // Those that precede an answer were taken out before; none may be taken for one.
        if parts.status.is_informational() {
            return Err(Failure::InvalidResponse);
        }
        let mut fields = Fields::from(&parts.headers);
        // Those that concern an HTTP/1 connection were refused with the whole answer.
        fields.retain(is_passed_on);
        let is_bodiless = self.is_head
            || matches!(
                parts.status,
                StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
            );
        let length = fields.get_str(&CONTENT_LENGTH);
        let length = length.and_then(|length| length.parse::<u64>().ok());
        if let Some(length) = length {
            // Once, and in the one spelling that everybody reads alike.
            let mut digits = itoa::Buffer::new();
            let digits = digits.format(length).as_bytes();
            if !fields.get_all(&CONTENT_LENGTH).eq([digits]) {
                fields.insert(&CONTENT_LENGTH, digits);
            }
        }
        self.remaining = length.filter(|_| !is_bodiless);
        let is_ended = answer.is_end_stream();
        self.owes_status = parts.status == StatusCode::OK
            && is_grpc(&fields)
            && !fields.contains(&name::GRPC_STATUS);
        if is_ended && self.owes_status {
            return Err(Failure::InvalidResponse);
        }
        if is_ended && self.remaining.is_some_and(|length| length > 0) {
            return Err(Failure::InvalidResponse);
        }
        if is_ended {
            self.finish();
        }
        self.answer = Some(answer);
        Ok(ResponseHead {
            status: parts.status,
            fields,
            // The stream ends it, whatever the length says.
            body: if is_ended {
                Decoder::Ended
            } else {
                Decoder::UntilClose
            },
            persistent: false,
        })
    }

    /// The answer is complete. What is still being uploaded is cancelled with the stream.
    const fn finish(&mut self) {
        if self.upload.is_ended() {
            self.place.ended();
        }
    }

    /// Whether an answer is complete although its stream was reset with `error`: an upstream that
    /// has said all stops the rest of an upload so (RFC 9113 §8.1).
    fn is_whole(&self, error: &h2::Error) -> bool {
        error.is_remote()
            && error.is_reset()
            && error.reason() == Some(Reason::NO_ERROR)
            && !self.upload.is_ended()
            && self.remaining.is_none_or(|left| left == 0)
    }
}

/// Whether the upstream says that it has not looked at the request: it is going away and names
/// an earlier one as its last, or it refuses this one (RFC 9113 §8.7).
fn is_refusal(error: &h2::Error) -> bool {
    // A goodbye is an error only for the streams that it leaves out.
    error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM))
}

/// Whether an answer is gRPC's. That of gRPC-Web is not: its status is part of the body.
fn is_grpc(fields: &Fields) -> bool {
    let kind = fields.get(&CONTENT_TYPE);
    let rest = kind.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Whether a field is not the connection's, nor the proxy's to write.
const fn is_passed_on(field: Field<'_>) -> bool {
    !matches!(field.known, Known::Te | Known::Own)
}

/// Removes fields that an upstream must not set, of which there usually are none.
fn remove(fields: &mut HeaderMap, is_unwanted: impl Fn(&HeaderName) -> bool) {
    let unwanted = fields.keys().filter(|name| is_unwanted(name));
    let unwanted: Vec<HeaderName> = unwanted.cloned().collect();
    for name in unwanted {
        fields.remove(name);
    }
}
