//! What the demonstration claims, and what was seen of it.

use std::time::{Duration, Instant};

use crate::terminal::{Align, Cell, Ink, Table, Tone};

/// Every claim made so far.
pub(super) struct Checks {
    started: Instant,
    made: Vec<Check>,
}

struct Check {
    claim: String,
    seen: String,
    holds: bool,
    after: Duration,
}

impl Checks {
    /// None yet; times count from now.
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            made: Vec::new(),
        }
    }

    /// Records a claim with what was seen of it, and returns the line that says so.
    pub(super) fn add(&mut self, claim: &str, holds: bool, seen: String, ink: Ink) -> String {
        let line = format!("  {} {claim}: {seen}", mark(holds, ink));
        self.made.push(Check {
            claim: claim.to_owned(),
            seen,
            holds,
            after: self.started.elapsed(),
        });
        line
    }

    /// Whether everything claimed was seen to hold.
    pub(super) fn hold(&self) -> bool {
        self.made.iter().all(|check| check.holds)
    }

    /// How many were claimed, and how many of them were seen broken.
    pub(super) fn count(&self) -> (usize, usize) {
        let broken = self.made.iter().filter(|check| !check.holds).count();
        (self.made.len(), broken)
    }

    /// Since the first act.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// All of them as a table.
    pub(super) fn table(&self, ink: Ink) -> String {
        let mut table = Table::new([
            ("", Align::Left),
            ("CLAIM", Align::Left),
            ("SEEN", Align::Left),
            ("AT", Align::Right),
        ]);
        for check in &self.made {
            table.row([
                Cell::toned(tone(check.holds), sign(check.holds)),
                check.claim.as_str().into(),
                check.seen.as_str().into(),
                format!("{:.1} s", check.after.as_secs_f64()).into(),
            ]);
        }
        table.render(ink)
    }
}

fn mark(holds: bool, ink: Ink) -> String {
    ink.paint(tone(holds), sign(holds))
}

const fn sign(holds: bool) -> &'static str {
    if holds { "✓" } else { "✗" }
}

const fn tone(holds: bool) -> Tone {
    if holds { Tone::Good } else { Tone::Bad }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_broken_claim_breaks_the_whole() {
        let mut checks = Checks::new();
        let line = checks.add("no failed GET", true, "0 of 10".into(), Ink::Plain);
        assert_eq!(line, "  ✓ no failed GET: 0 of 10");
        assert!(checks.hold());
        checks.add("quick", false, "3 s".into(), Ink::Plain);
        checks.add("small", true, "1".into(), Ink::Plain);
        assert!(!checks.hold());
        assert_eq!(checks.count(), (3, 1));
        assert!(checks.table(Ink::Plain).contains("\n✗  quick"));
    }
}
