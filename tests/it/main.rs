//! Tests over real sockets and real processes, in one binary.

mod architecture;
mod cli;
mod dockerfile;
mod project;
mod readme;
mod reference;
