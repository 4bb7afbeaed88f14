//! Tests over real sockets and real processes, in one binary.

mod admin;
mod architecture;
mod by_hand;
mod cli;
mod demo;
mod dockerfile;
mod edge;
mod fallback;
mod forwarding;
mod harness;
mod keeping_alive;
mod outcomes;
mod patience;
mod project;
mod readme;
mod real_parts;
mod reference;
mod reload;
mod rescue;
mod rollback;
mod routing;
mod startup;
mod stickiness;
mod stopping;
mod streams;
mod upstreams;
