//! The demonstration is a test: each of its claims is checked against counts.

use std::process::Command;

#[test]
fn the_demonstration_sees_every_claim_hold() {
    let output = Command::new(env!("CARGO_BIN_EXE_cutover"))
        .args(["demo", "--once"])
        .env_remove("CUTOVER_ADMIN")
        .output()
        .expect("the binary was built for this test");
    let (told, complaint) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(output.status.code(), Some(0), "{told}\n{complaint}");
    assert!(told.contains("claims were seen to hold"), "{told}");
    for claim in [
        "the engine took it through each stage to completion",
        "one sentence says why",
        "50% errors: rolled back for the right reason",
        "hung: rolled back for the right reason",
        "p95 doubled: rolled back for the right reason",
        "2% errors, 0.1% on legacy: rolled back for the right reason",
        "slowly degrading: rolled back for the right reason",
    ] {
        assert!(
            told.contains(&format!("\u{2713} {claim}: ")),
            "{claim}: {told}"
        );
    }
    // Piped, it is plain text.
    assert!(!told.contains('\u{1b}'), "{told}");
}
