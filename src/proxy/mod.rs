//! The data plane: what happens to one request.
//!
//! Reading order: [`forward`] is the straight line from a request to its answer; [`trial`] is the
//! bend in it, where `new` is tried and legacy may have to answer; [`attempt`] is one try at one
//! backend; [`body`] is the answer that reports its outcome once; [`worker`] is what a thread keeps
//! between requests.

pub mod attempt;
pub mod body;
mod chance;
pub mod connections;
pub mod course;
pub mod date;
pub mod flights;
pub mod forward;
pub mod headers;
mod inline;
pub mod issue;
pub mod leash;
pub mod peer;
pub mod respond;
mod streams;
pub mod strict;
pub mod trial;
pub mod tunnel;
pub mod warm;
pub mod worker;
