//! The cookie that gives a session key to clients that have none.
//!
//! The value must be unpredictable, else one client could take another's place in the assignment
//! and, worse, someone would come to use it for more than that.

use http::HeaderName;

use crate::config::model::IssuedCookie;

/// Issues one split's cookies.
#[derive(Debug)]
pub(super) struct CookieIssuer {
    /// The name and its `=`.
    before: Box<[u8]>,
    /// The attributes, on a plain connection.
    after_plain: Box<[u8]>,
    /// The attributes, on an encrypted one.
    after_secure: Box<[u8]>,
}

/// A fresh session key and the header that hands it out.
pub(super) struct Issued {
    /// 128 random bits in hexadecimal.
    pub(super) value: [u8; 32],
    /// The value of `Set-Cookie`.
    pub(super) header: Vec<u8>,
}

impl CookieIssuer {
    /// Prepares everything but the value; `None` if no `Set-Cookie` can carry what is configured.
    pub(super) fn new(cookie: &IssuedCookie) -> Option<Self> {
        // A cookie's name and a header's name are the same kind of token (RFC 6265 §4.1.1).
        HeaderName::from_bytes(cookie.name.as_bytes()).ok()?;
        let domain = cookie.domain.as_deref();
        let texts = [cookie.path.as_str(), &cookie.same_site].into_iter();
        let is_clean = |text: &str| {
            !text
                .bytes()
                .any(|byte| byte == b';' || byte.is_ascii_control())
        };
        if !texts.chain(domain).all(is_clean) {
            return None;
        }

        let mut after = format!("; Path={}", cookie.path);
        if let Some(domain) = domain {
            after.push_str(&format!("; Domain={domain}"));
        }
        if let Some(age) = cookie.max_age {
            after.push_str(&format!("; Max-Age={}", age.as_secs()));
        }
        after.push_str(&format!("; HttpOnly; SameSite={}", cookie.same_site));
        let secure = format!("{after}; Secure");
        // Browsers drop a `None` cookie that is not `Secure`; the client would then be given a new
        // session, and perhaps another arm, with every request.
        let plain = if cookie.same_site.eq_ignore_ascii_case("none") {
            secure.clone()
        } else {
            after
        };
        Some(Self {
            before: format!("{}=", cookie.name).into_bytes().into(),
            after_plain: plain.into_bytes().into(),
            after_secure: secure.into_bytes().into(),
        })
    }

    /// A fresh cookie; `None` if the system has no randomness to give.
    pub(super) fn issue(&self, secure: bool) -> Option<Issued> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).ok()?;
        let mut value = [0; 32];
        for (byte, digits) in random.iter().zip(value.chunks_exact_mut(2)) {
            digits[0] = HEX[usize::from(byte >> 4)];
            digits[1] = HEX[usize::from(byte & 15)];
        }
        let after = if secure {
            &self.after_secure
        } else {
            &self.after_plain
        };
        let header = [&*self.before, &value, after].concat();
        Some(Issued { value, header })
    }
}

const HEX: [u8; 16] = *b"0123456789abcdef";
