//! Who sends a request: session keys, claims of verified tokens, issued cookies, pins.
//!
//! What can be prepared is prepared when a configuration is loaded; for a request it is looking
//! and comparing. The decision itself is [`crate::policy::assign`].

mod cookie;
pub mod identify;
pub mod jwt;
pub mod pin;
