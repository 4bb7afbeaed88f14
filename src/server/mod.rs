//! Where clients connect.

pub mod tls;
