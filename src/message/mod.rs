//! Requests and answers on their way through the proxy.
//!
//! The types that everybody uses for messages keep fields in a map, which is made to be asked and
//! changed. A proxy mostly hands them on, so here they stay as they were received
//! ([`fields`]), and only what the proxy itself asks for is recognised ([`name`]). Where hyper takes
//! part, which is HTTP/2, messages are turned into its types and out of them.

pub mod fields;
pub mod name;

use http::{Method, StatusCode, Uri, Version};

pub use self::fields::{Field, Fields};
pub use self::name::{Known, Name};

/// The head of a request.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// What is to be done.
    pub method: Method,
    /// With what.
    pub uri: Uri,
    /// The protocol that it came over.
    pub version: Version,
    /// Its fields.
    pub fields: Fields,
}

/// A request.
#[derive(Debug)]
pub struct Request<B> {
    /// Its head.
    pub head: RequestHead,
    /// Its body.
    pub body: B,
}

/// An answer.
#[derive(Debug)]
pub struct Response<B> {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub fields: Fields,
    /// Its body.
    pub body: B,
}

impl From<http::request::Parts> for RequestHead {
    fn from(parts: http::request::Parts) -> Self {
        Self {
            method: parts.method,
            uri: parts.uri,
            version: parts.version,
            fields: Fields::from(&parts.headers),
        }
    }
}

impl<B> From<http::Request<B>> for Request<B> {
    fn from(request: http::Request<B>) -> Self {
        let (parts, body) = request.into_parts();
        Self {
            head: RequestHead::from(parts),
            body,
        }
    }
}

impl<B> Response<B> {
    /// An answer with nothing in its head but a status.
    pub fn new(status: StatusCode, body: B) -> Self {
        Self {
            status,
            fields: Fields::default(),
            body,
        }
    }

    /// The same answer with another body.
    pub fn map<C>(self, change: impl FnOnce(B) -> C) -> Response<C> {
        Response {
            status: self.status,
            fields: self.fields,
            body: change(self.body),
        }
    }
}

impl<B> From<Response<B>> for http::Response<B> {
    fn from(response: Response<B>) -> Self {
        let mut turned = http::Response::new(response.body);
        *turned.status_mut() = response.status;
        *turned.headers_mut() = response.fields.into_map();
        turned
    }
}
