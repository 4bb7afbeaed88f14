//! Names of fields, recognised once and compared as numbers.
//!
//! A proxy looks at every field of every message, and asks of most only whether it is one of a few.
//! Comparing spellings each time would cost more than all the rest, so a name is recognised when it
//! is read. What is not in the list is told apart by its spelling, in whatever case.

use std::borrow::Cow;

use bytes::BytesMut;
use http::HeaderName;

/// Recognised names: what each is called in code, by itself and where somebody looks for it or writes
/// it, and how the proxy spells it. In the order of their lengths, by which they are found.
macro_rules! names {
    ($($known:ident $(= $constant:ident)? $spelling:literal),* $(,)?) => {
        /// What a name was recognised as.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Known {
            $(#[doc = concat!("`", $spelling, "`")] $known,)*
            /// Any other `X-Forwarded-…`.
            Forwarding,
            /// `Cutover-…`, the proxy's own.
            Own,
            /// Reserved for the proxy, and spelled with an underscore.
            Disguised,
            /// Anything else.
            Other,
        }

        const RECOGNISED: [(Known, &str); [$($spelling),*].len()] =
            [$((Known::$known, $spelling)),*];

        $($(#[doc = concat!("`", $spelling, "`")]
        pub static $constant: Name = Name::recognised(Known::$known, $spelling);)?)*
    };
}

names! {
    Te = TE "TE",
    Via = VIA "Via",
    Date = DATE "Date",
    Host = HOST "Host",
    Cookie = COOKIE "Cookie",
    Expect "Expect",
    Referer = REFERER "Referer",
    Trailer "Trailer",
    Upgrade = UPGRADE "Upgrade",
    Forwarded "Forwarded",
    XRealIp "X-Real-IP",
    Connection = CONNECTION "Connection",
    KeepAlive "Keep-Alive",
    SetCookie = SET_COOKIE "Set-Cookie",
    Tracestate = TRACESTATE "Tracestate",
    UserAgent = USER_AGENT "User-Agent",
    GrpcStatus = GRPC_STATUS "Grpc-Status",
    RetryAfter = RETRY_AFTER "Retry-After",
    Traceparent = TRACEPARENT "Traceparent",
    ContentType = CONTENT_TYPE "Content-Type",
    XRequestId = X_REQUEST_ID "X-Request-Id",
    CacheControl = CACHE_CONTROL "Cache-Control",
    ServerTiming = SERVER_TIMING "Server-Timing",
    ContentLength = CONTENT_LENGTH "Content-Length",
    Http2Settings "HTTP2-Settings",
    IdempotencyKey = IDEMPOTENCY_KEY "Idempotency-Key",
    XForwardedFor = X_FORWARDED_FOR "X-Forwarded-For",
    ProxyConnection "Proxy-Connection",
    XForwardedHost = X_FORWARDED_HOST "X-Forwarded-Host",
    TransferEncoding = TRANSFER_ENCODING "Transfer-Encoding",
    XForwardedProto = X_FORWARDED_PROTO "X-Forwarded-Proto",
}

/// Names the arm that answered, where the split shows it.
pub static CUTOVER_ARM: Name = Name::recognised(Known::Own, "Cutover-Arm");
/// Says why legacy answered instead of `new`, where the split shows it.
pub static CUTOVER_FALLBACK: Name = Name::recognised(Known::Own, "Cutover-Fallback");
/// Carries a pin token: permission to use one arm of a split.
pub static CUTOVER_PIN: Name = Name::recognised(Known::Own, "Cutover-Pin");
/// Marks a request that legacy gets because `new` failed.
pub static CUTOVER_REPLAY: Name = Name::recognised(Known::Own, "Cutover-Replay");

/// Length of the longest name in the list.
const LONGEST: usize = RECOGNISED[RECOGNISED.len() - 1].1.len();

/// Where the names of each length begin in the list.
const OF_LENGTH: [u8; LONGEST + 2] = {
    let mut starts = [0; LONGEST + 2];
    let mut length = 0;
    let mut next = 0;
    while length < starts.len() {
        while next < RECOGNISED.len() && RECOGNISED[next].1.len() < length {
            next += 1;
        }
        starts[length] = next as u8;
        length += 1;
    }
    starts
};

impl Known {
    /// Recognises a name, in whatever case.
    pub fn of(name: &[u8]) -> Self {
        match Self::of_plain(name) {
            Known::Other if name.contains(&b'_') => Self::of_disguised(name),
            known => known,
        }
    }

    fn of_plain(name: &[u8]) -> Self {
        let length = name.len();
        if (1..=LONGEST).contains(&length) {
            let (start, end) = (OF_LENGTH[length], OF_LENGTH[length + 1]);
            for (known, spelling) in &RECOGNISED[usize::from(start)..usize::from(end)] {
                let spelling = spelling.as_bytes();
                // The first letter tells nearly all of one length apart.
                if (spelling[0] ^ name[0]) & 0xdf == 0 && spelling.eq_ignore_ascii_case(name) {
                    return *known;
                }
            }
        }
        match name.first() {
            Some(b'c' | b'C') if begins(name, b"cutover-") => Known::Own,
            Some(b'x' | b'X') if begins(name, b"x-forwarded-") => Known::Forwarding,
            _ => Known::Other,
        }
    }

    /// A server that hands fields to a program as variables (CGI, WSGI, PHP) makes `X_Real_IP` and
    /// `X-Real-IP` the same.
    #[cold]
    fn of_disguised(name: &[u8]) -> Self {
        let plain: Vec<u8> = name
            .iter()
            .map(|byte| if *byte == b'_' { b'-' } else { *byte })
            .collect();
        match Self::of_plain(&plain).is_reserved() {
            true => Known::Disguised,
            false => Known::Other,
        }
    }

    /// Whether a field says for whom, by whom or how a request was forwarded. Applications believe
    /// these without asking who wrote them, so only a trusted proxy's may cross.
    pub const fn is_claim(self) -> bool {
        matches!(
            self,
            Known::Forwarded
                | Known::XRealIp
                | Known::XForwardedFor
                | Known::XForwardedHost
                | Known::XForwardedProto
                | Known::Forwarding
        )
    }

    /// Whether a field frames a message, concerns a connection, routes a request, or is the proxy's
    /// to write.
    pub const fn is_reserved(self) -> bool {
        self.is_claim()
            || matches!(
                self,
                Known::Own
                    | Known::Disguised
                    | Known::Connection
                    | Known::ContentLength
                    | Known::Expect
                    | Known::Host
                    | Known::Http2Settings
                    | Known::KeepAlive
                    | Known::ProxyConnection
                    | Known::Te
                    | Known::Trailer
                    | Known::TransferEncoding
                    | Known::Upgrade
                    | Known::Via
                    | Known::XRequestId
            )
    }

    /// Whether fields of several names are recognised as this.
    pub(super) const fn is_shared(self) -> bool {
        matches!(
            self,
            Known::Forwarding | Known::Own | Known::Disguised | Known::Other
        )
    }

    /// As one bit among those of all others.
    pub(super) const fn bit(self) -> u64 {
        1 << self as u8
    }
}

fn begins(name: &[u8], with: &[u8]) -> bool {
    name.get(..with.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(with))
}

/// The name of a field that somebody looks for or writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    known: Known,
    spelling: Cow<'static, str>,
}

impl Name {
    const fn recognised(known: Known, spelling: &'static str) -> Self {
        Self {
            known,
            spelling: Cow::Borrowed(spelling),
        }
    }

    /// What it was recognised as.
    pub const fn known(&self) -> Known {
        self.known
    }

    /// As the proxy writes it.
    pub fn as_str(&self) -> &str {
        &self.spelling
    }
}

impl From<&HeaderName> for Name {
    fn from(name: &HeaderName) -> Self {
        Self {
            known: Known::of(name.as_str().as_bytes()),
            spelling: Cow::Owned(in_title_case(name.as_str())),
        }
    }
}

/// The first letter of each word in upper case: how names look that HTTP/2 has made small, to HTTP/1
/// programs that have always seen them so.
fn in_title_case(name: &str) -> String {
    let mut spelled = name.as_bytes().to_vec();
    make_title_case(&mut spelled);
    String::from_utf8(spelled).expect("changing the case of letters keeps a text a text")
}

/// Writes a name with the first letter of each word in upper case.
pub fn write_in_title_case(out: &mut BytesMut, name: &[u8]) {
    let start = out.len();
    out.extend_from_slice(name);
    make_title_case(&mut out[start..]);
}

/// Makes the first letter of each word a capital.
pub(super) fn make_title_case(name: &mut [u8]) {
    let mut starts_word = true;
    for byte in name {
        if starts_word {
            byte.make_ascii_uppercase();
        }
        starts_word = *byte == b'-';
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_stands_in_the_order_of_lengths_and_fits_the_bits() {
        assert!(RECOGNISED.is_sorted_by_key(|(_, spelling)| spelling.len()));
        assert!((Known::Other as u8) < 64);
    }

    #[test]
    fn each_name_is_recognised_in_whatever_case() {
        for (known, spelling) in RECOGNISED {
            for name in [
                spelling.to_owned(),
                spelling.to_uppercase(),
                spelling.to_lowercase(),
            ] {
                assert_eq!(Known::of(name.as_bytes()), known, "{name}");
            }
            let longer = format!("{spelling}a");
            assert_ne!(Known::of(longer.as_bytes()), known, "{longer}");
        }
    }

    #[test]
    fn names_that_begin_alike_belong_together() {
        for (name, known) in [
            ("X-Forwarded-Port", Known::Forwarding),
            ("x-forwarded-", Known::Forwarding),
            ("X-Forwarded", Known::Other),
            ("Cutover-Pin", Known::Own),
            ("cutover", Known::Other),
            ("", Known::Other),
        ] {
            assert_eq!(Known::of(name.as_bytes()), known, "{name}");
        }
    }

    #[test]
    fn a_reserved_name_is_known_behind_underscores() {
        for name in [
            "X_Real_IP",
            "x_forwarded-for",
            "CUTOVER_ARM",
            "Transfer_Encoding",
            "X_Request-Id",
        ] {
            assert_eq!(Known::of(name.as_bytes()), Known::Disguised, "{name}");
        }
        for name in ["x_user", "Set_Cookie", "_"] {
            assert_eq!(Known::of(name.as_bytes()), Known::Other, "{name}");
        }
    }

    #[test]
    fn a_configured_name_is_written_in_title_case() {
        let name = Name::from(&HeaderName::from_static("x-user-id"));
        assert_eq!(name.as_str(), "X-User-Id");
        assert_eq!(Name::from(&http::header::COOKIE).known(), Known::Cookie);
    }
}
