//! The cutover program.

fn main() -> std::process::ExitCode {
    cutover::cli::main()
}
