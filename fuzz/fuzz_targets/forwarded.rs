//! One rule of `tests/it/raw_bytes/checks.rs`, fed by a fuzzer.
#![no_main]

#[expect(dead_code, reason = "each target feeds one of the rules")]
#[path = "../../tests/it/raw_bytes/checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::forwarded(bytes));
