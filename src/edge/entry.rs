//! What is written down about a request: a line of the access log, and `Server-Timing`.
//!
//! Both need facts from the beginning of a request at its end, when its head has long been given
//! away. So where either is wanted, an entry keeps them, travels with the answer's body and writes
//! its line when it is dropped: answered, refused, broken off or abandoned, each request has one.
//! Where neither is wanted, a request pays for one comparison.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, Response, StatusCode, Uri, Version, header};

use crate::config::model::LogFormat;
use crate::policy::time::Timestamp;
use crate::proxy::course::Course;
use crate::proxy::worker::View;
use crate::telemetry::access_log::line::{End, Line, Text};

use super::names::{SERVER_TIMING, TRACEPARENT};
use super::{Arrival, Local};

/// What web servers write for a client that left before it was answered.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// What is written down about a request.
#[derive(Debug)]
pub(super) struct Entry {
    local: Rc<Local>,
    view: Rc<View>,
    course: Rc<Course>,
    time: Timestamp,
    started: Instant,
    client: IpAddr,
    method: Method,
    target: Uri,
    protocol: Version,
    host: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    traceparent: Option<HeaderValue>,
    request_id: Option<HeaderValue>,
    status: Option<StatusCode>,
    first_byte: Duration,
    bytes: u64,
    end: End,
}

impl Entry {
    /// Begins an entry, if anything is to be written down.
    pub(super) fn begin<B>(arrival: &Arrival<B>) -> Option<Box<Self>> {
        let routing = &arrival.view.snapshot.routing;
        if routing.log_format.is_none() && !routing.edge.server_timing {
            return None;
        }
        let headers = arrival.request.headers();
        Some(Box::new(Self {
            local: Rc::clone(&arrival.local),
            view: Rc::clone(&arrival.view),
            course: Rc::default(),
            time: arrival.local.worker.clock.now(),
            started: Instant::now(),
            client: arrival.client(),
            method: arrival.request.method().clone(),
            target: arrival.request.uri().clone(),
            protocol: arrival.request.version(),
            host: headers.get(header::HOST).cloned(),
            user_agent: headers.get(header::USER_AGENT).cloned(),
            referer: headers.get(header::REFERER).cloned(),
            traceparent: headers.get(TRACEPARENT).cloned(),
            request_id: arrival.id.clone(),
            status: None,
            first_byte: Duration::ZERO,
            bytes: 0,
            end: End::ClientGone,
        }))
    }

    /// For the path to fill in.
    pub(super) fn course(&self) -> Rc<Course> {
        Rc::clone(&self.course)
    }

    /// The answer's head is there.
    pub(super) fn answered<B>(&mut self, response: &mut Response<B>) {
        self.first_byte = self.started.elapsed();
        self.status = Some(response.status());
        if self.method == Method::HEAD || response.status() == StatusCode::NOT_MODIFIED {
            // Its body is not asked for.
            self.end = End::Complete;
        }
        if self.view.snapshot.routing.edge.server_timing {
            let milliseconds = |span: Duration| span.as_micros() as f64 / 1000.0;
            let upstream = milliseconds(self.course.upstream());
            let total = milliseconds(self.first_byte);
            let value = format!("upstream;dur={upstream:.3}, total;dur={total:.3}");
            let value = HeaderValue::from_str(&value).expect("names and numbers are a value");
            // The upstream's own measurements stay.
            response.headers_mut().append(SERVER_TIMING, value);
        }
    }

    /// Bytes of the answer's body are handed on.
    pub(super) const fn sent(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// The answer's body ends.
    pub(super) const fn ended(&mut self, end: End) {
        self.end = end;
    }

    fn line(&self) -> Line<'_> {
        let routing = &self.view.snapshot.routing;
        let assigned = self.course.assigned();
        let authority = self.target.authority().map(|host| host.as_str());
        Line {
            time: self.time,
            client: self.client,
            method: &self.method,
            target: &self.target,
            protocol: self.protocol,
            host: match (authority, &self.host) {
                (Some(authority), _) => Some(Text::cut(authority.as_bytes())),
                (None, host) => host.as_ref().map(Text::of),
            },
            status: match self.status {
                Some(status) => status.as_u16(),
                None => CLIENT_CLOSED_REQUEST,
            },
            bytes: self.bytes,
            end: self.end,
            first_byte: self.first_byte,
            duration: self.started.elapsed(),
            upstream: self.course.upstream(),
            request_id: self.request_id.as_ref().map(Text::of),
            trace_id: self.traceparent.as_ref().and_then(Text::trace_id),
            split: assigned.map(|(split, _)| routing.split(split).name.as_str()),
            arm: assigned.map(|(_, arm)| arm),
            fallback: self.course.fallback(),
            user_agent: self.user_agent.as_ref().map(Text::of),
            referer: self.referer.as_ref().map(Text::of),
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let format: Option<LogFormat> = self.view.snapshot.routing.log_format;
        if let (Some(format), Some(scribe)) = (format, &self.local.scribe) {
            scribe.write(format, &self.line());
        }
    }
}
