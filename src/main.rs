//! The cutover program.
fn main() {}
