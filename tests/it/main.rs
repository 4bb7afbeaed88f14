//! Tests over real sockets and real processes, in one binary.

mod architecture;
mod cli;
mod demo;
mod dockerfile;
mod project;
mod readme;
mod reference;
