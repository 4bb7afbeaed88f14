//! Decides whose W3C trace context reaches the upstream.
//!
//! A `traceparent` joins the spans of several programs into one trace. As a rule it belongs to the
//! ends of the line and crosses untouched. But a stranger who chooses it can tie their requests to
//! another's trace, or have every one of them recorded at our cost; so it may be left to trusted
//! proxies, as the request's id is. We record no spans, so we put none between the two ends either:
//! what crosses keeps its parent. <https://www.w3.org/TR/trace-context/>

use crate::config::model::TraceContext as Setting;
use crate::message::Fields;
use crate::message::name::{TRACEPARENT, TRACESTATE};
use crate::telemetry::edge::EdgeRefusal;

use super::request_id::LENGTH;
use super::{Arrival, Rule};

/// Length of a `traceparent` of version 00: `00-TRACE-PARENT-FLAGS`.
const LENGTH_OF_VERSION_00: usize = 55;

/// Decides whose W3C trace context reaches the upstream.
#[derive(Clone, Copy, Debug)]
pub struct TraceContext;

impl Rule for TraceContext {
    fn admit<B>(&self, arrival: &mut Arrival<B>) -> Result<(), EdgeRefusal> {
        let setting = arrival.view.snapshot.routing.edge.trace_context;
        if setting != Setting::Pass {
            let is_trusted = arrival.caller.is_peer_trusted();
            let fields = &mut arrival.request.head.fields;
            if !(is_trusted && is_well_formed(fields)) {
                fields.remove(&TRACEPARENT);
                fields.remove(&TRACESTATE);
                if setting == Setting::Start {
                    let mut ids = arrival.local.request_ids.borrow_mut();
                    fields.insert(&TRACEPARENT, &begun(&ids.draw(), &ids.draw()));
                }
            }
        }
        Ok(())
    }
}

/// The beginning of a trace, marked as sampled: who follows its parent's choice would record
/// nothing otherwise.
fn begun(trace: &[u8; LENGTH], span: &[u8; LENGTH]) -> [u8; LENGTH_OF_VERSION_00] {
    let mut value = [0; LENGTH_OF_VERSION_00];
    value[..3].copy_from_slice(b"00-");
    value[3..35].copy_from_slice(trace);
    value[35] = b'-';
    value[36..52].copy_from_slice(&span[..16]);
    value[52..].copy_from_slice(b"-01");
    value
}

/// Whether there is just one `traceparent` that says what it should.
fn is_well_formed(fields: &Fields) -> bool {
    let mut values = fields.get_all(&TRACEPARENT);
    match (values.next(), values.next()) {
        (Some(value), None) => is_traceparent(value),
        _ => false,
    }
}

/// §2.2 of the recommendation; of later versions, what they have in common with the first.
fn is_traceparent(value: &[u8]) -> bool {
    let (Some(first), rest) = (value.get(..LENGTH_OF_VERSION_00), value) else {
        return false;
    };
    let is_hexadecimal = |part: &[u8]| {
        let digits = part.iter();
        digits.fold(true, |all, digit| {
            all & matches!(digit, b'0'..=b'9' | b'a'..=b'f')
        })
    };
    let is_nothing = |part: &[u8]| part.iter().all(|digit| *digit == b'0');
    let (version, trace, parent, flags) =
        (&first[..2], &first[3..35], &first[36..52], &first[53..]);
    let is_of_known_length = if version == b"00" {
        rest.len() == LENGTH_OF_VERSION_00
    } else {
        rest.get(LENGTH_OF_VERSION_00)
            .is_none_or(|byte| *byte == b'-')
    };
    is_of_known_length
        && version != b"ff"
        && [version, trace, parent, flags]
            .into_iter()
            .all(is_hexadecimal)
        && [first[2], first[35], first[52]] == [b'-'; 3]
        && !is_nothing(trace)
        && !is_nothing(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";

    #[test]
    fn a_traceparent_is_told_from_what_looks_like_one() {
        let sound = [
            format!("00-{TRACE}-{PARENT}-01"),
            format!("00-{TRACE}-{PARENT}-00"),
            format!("cc-{TRACE}-{PARENT}-01-of-the-future"),
        ];
        for value in sound {
            assert!(is_traceparent(value.as_bytes()), "{value}");
        }
        let broken = [
            String::new(),
            format!("ff-{TRACE}-{PARENT}-01"),
            format!("00-{TRACE}-{PARENT}-01-more"),
            format!("cc-{TRACE}-{PARENT}-01more"),
            format!("00-{TRACE}-{PARENT}-0"),
            format!("00-{}-{PARENT}-01", TRACE.to_uppercase()),
            format!("00-{}-{PARENT}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00_{TRACE}_{PARENT}_01"),
        ];
        for value in broken {
            assert!(!is_traceparent(value.as_bytes()), "{value}");
        }
    }

    #[test]
    fn what_we_begin_is_well_formed() {
        let value = begun(&[b'a'; LENGTH], &[b'b'; LENGTH]);
        assert!(is_traceparent(&value));
    }

    #[test]
    fn two_are_none() {
        let mut fields = Fields::default();
        let value = format!("00-{TRACE}-{PARENT}-01");
        fields.append(&TRACEPARENT, value.as_bytes());
        assert!(is_well_formed(&fields));
        fields.append(&TRACEPARENT, value.as_bytes());
        assert!(!is_well_formed(&fields));
    }
}
