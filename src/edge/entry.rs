//! What is written down about a request: a line of the access log, and `Server-Timing`.
//!
//! Both need facts from the beginning of a request at its end, when its head has long been given
//! away. So where either is wanted, an entry keeps them, travels with the answer's body and writes
//! its line when it is dropped: answered, refused, broken off or abandoned, each request has one.
//! Where neither is wanted, a request pays for one comparison.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode, Uri, Version};

use crate::config::model::LogFormat;
use crate::message::name::{HOST, REFERER, SERVER_TIMING, TRACEPARENT, USER_AGENT, X_REQUEST_ID};
use crate::message::{Fields, Response};
use crate::policy::time::Timestamp;
use crate::proxy::course::Course;
use crate::proxy::worker::View;
use crate::telemetry::access_log::line::{End, Line, Text};

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
    /// Those of the request's that a line names.
    fields: Fields,
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
        let head = &arrival.request.head;
        let mut fields = Fields::default();
        for name in [&HOST, &USER_AGENT, &REFERER, &TRACEPARENT, &X_REQUEST_ID] {
            if let Some(value) = head.fields.get(name) {
                fields.append(name, value);
            }
        }
        Some(Box::new(Self {
            local: Rc::clone(&arrival.local),
            view: Rc::clone(&arrival.view),
            course: Rc::default(),
            time: arrival.local.worker.clock.now(),
            started: Instant::now(),
            client: arrival.client(),
            method: head.method.clone(),
            target: head.uri.clone(),
            protocol: head.version,
            fields,
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
        self.status = Some(response.status);
        if self.method == Method::HEAD || response.status == StatusCode::NOT_MODIFIED {
            // Its body is not asked for.
            self.end = End::Complete;
        }
        if self.view.snapshot.routing.edge.server_timing {
            let milliseconds = |span: Duration| span.as_micros() as f64 / 1000.0;
            let upstream = milliseconds(self.course.upstream());
            let total = milliseconds(self.first_byte);
            let value = format!("upstream;dur={upstream:.3}, total;dur={total:.3}");
            // The upstream's own measurements stay.
            response.fields.append(&SERVER_TIMING, value.as_bytes());
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
        let authority = self.target.authority().map(|host| host.as_str().as_bytes());
        let field = |name| self.fields.get(name);
        Line {
            time: self.time,
            client: self.client,
            method: &self.method,
            target: &self.target,
            protocol: self.protocol,
            host: authority.or_else(|| field(&HOST)).map(Text::cut),
            status: match self.status {
                Some(status) => status.as_u16(),
                None => CLIENT_CLOSED_REQUEST,
            },
            bytes: self.bytes,
            end: self.end,
            first_byte: self.first_byte,
            duration: self.started.elapsed(),
            upstream: self.course.upstream(),
            request_id: field(&X_REQUEST_ID).map(Text::cut),
            trace_id: field(&TRACEPARENT).and_then(Text::trace_id),
            split: assigned.map(|(split, _)| routing.split(split).name.as_str()),
            arm: assigned.map(|(_, arm)| arm),
            fallback: self.course.fallback(),
            user_agent: field(&USER_AGENT).map(Text::cut),
            referer: field(&REFERER).map(Text::cut),
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
