//! Who may do what.
//!
//! Reading needs the role `read`, anything else `operate`; the method tells which, so an endpoint
//! added later is guarded without being listed here. One that tells more than a reader should know
//! demands `operate` itself ([`Actor::must_be`]). Where tokens are configured, the bearer of
//! one of them is the author of what it does.
//!
//! Where none is, the listener is loopback and every local program may operate. That must not
//! include a page in the operator's browser: by DNS rebinding, a foreign site can point its own
//! name at 127.0.0.1 and speak to us as if to itself. Such a request still carries the site's name
//! in `Host`, so without tokens only an IP literal or `localhost` is accepted there. The CLI
//! passes, since it sends what `--admin` names.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use crate::config::model::{Role, Token};

use super::AdminState;
use super::error::ApiError;
use super::wire::ErrorKind;

/// Who gives an order or asks a question, once let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Actor {
    /// The token's name, or `local` where none is configured.
    pub(super) name: String,
    role: Role,
}

impl Actor {
    /// # Errors
    /// The answer to whoever may not do what only this role may.
    pub(super) fn must_be(&self, needed: Role) -> Result<(), ApiError> {
        if self.role >= needed {
            return Ok(());
        }
        let message = format!(
            "the token `{}` has the role `read`; this needs `operate`",
            self.name
        );
        Err(ApiError::new(ErrorKind::Forbidden, message))
    }
}

/// Lets a request through if its bearer may make it, and tells the handler who that is.
pub(super) async fn guard(
    State(state): State<AdminState>,
    mut request: Request,
    next: Next,
) -> Response {
    let actor = match admit(
        &state.tokens,
        request.method(),
        request.uri(),
        request.headers(),
    ) {
        Ok(actor) => actor,
        Err(error) => return error.into_response(),
    };
    request.extensions_mut().insert(actor);
    let mut response = next.run(request).await;
    // A status kept by a cache on the way would be acted upon as if it were the present.
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn admit(
    tokens: &[Token],
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Actor, ApiError> {
    if tokens.is_empty() {
        return admit_by_host(uri, headers);
    }
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(bearer)
        .and_then(|secret| find(tokens, secret))
        .ok_or_else(|| {
            ApiError::new(
                ErrorKind::Unauthenticated,
                "this needs a token that the configuration knows: send `Authorization: Bearer \
                 TOKEN` (the CLI takes it from CUTOVER_TOKEN)",
            )
        })?;
    let needed = if matches!(*method, Method::GET | Method::HEAD) {
        Role::Read
    } else {
        Role::Operate
    };
    let actor = Actor {
        name: token.name.clone(),
        role: token.role,
    };
    actor.must_be(needed)?;
    Ok(actor)
}

/// The secret of a bearer token; the scheme's name is not case-sensitive (RFC 9110 §11.1).
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, secret) = value.as_bytes().split_at_checked("Bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then_some(secret.trim_ascii())
}

/// Compares with every token in constant time, so that how long it takes tells nothing about how
/// much of a secret was right, nor which of them it resembles.
fn find<'a>(tokens: &'a [Token], secret: &[u8]) -> Option<&'a Token> {
    let mut found = None;
    for token in tokens {
        let equal = bool::from(token.secret.as_bytes().ct_eq(secret));
        if equal && found.is_none() {
            found = Some(token);
        }
    }
    found
}

fn admit_by_host(uri: &Uri, headers: &HeaderMap) -> Result<Actor, ApiError> {
    // A request without any name cannot come from a browser.
    let foreign = headers
        .get_all(header::HOST)
        .iter()
        .map(HeaderValue::as_bytes)
        .chain(
            uri.authority()
                .map(|authority| authority.as_str().as_bytes()),
        )
        .find(|host| !names_this_machine(host));
    match foreign {
        None => Ok(Actor {
            name: "local".to_owned(),
            role: Role::Operate,
        }),
        Some(host) => {
            let message = format!(
                "requests for the host `{}` are refused while no token is configured; address \
                 the admin API as localhost or by IP address, or configure a token",
                host.escape_ascii()
            );
            Err(ApiError::new(ErrorKind::ForbiddenHost, message))
        }
    }
}

fn names_this_machine(host: &[u8]) -> bool {
    let Ok(authority) = Authority::try_from(host) else {
        return false;
    };
    let host = authority.host();
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_name_this_machine() {
        for host in [
            "127.0.0.1:9900",
            "[::1]:9900",
            "localhost",
            "LOCALHOST:80",
            "10.1.2.3",
        ] {
            assert!(names_this_machine(host.as_bytes()), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example:9900",
            "127.0.0.1.evil.example",
            "",
            "a b",
        ] {
            assert!(!names_this_machine(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn a_bearer_is_found_whatever_the_case_of_its_scheme_and_nothing_else_is() {
        let secret =
            |text: &'static str| bearer(&HeaderValue::from_static(text)).map(<[u8]>::to_vec);
        assert_eq!(secret("Bearer abc"), Some(b"abc".to_vec()));
        assert_eq!(secret("bearer  abc "), Some(b"abc".to_vec()));
        for text in ["Basic abc", "Bearer", "Bearerabc", "abc", ""] {
            assert_eq!(secret(text), None, "{text}");
        }
    }
}
