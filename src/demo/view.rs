//! The live part: the sessions as they see it, the arms as the proxy counts them.

use std::time::{Duration, Instant};

use crate::control::protocol::SplitStatus;
use crate::policy::arm::Arm;
use crate::policy::rollout::Phase;
use crate::terminal::{Align, Ink, Table, Tone, count, percent, seconds};

use super::census::Figures;
use super::screen::Live;

const BAR: usize = 30;

/// What is needed to say how fast something grows.
pub(super) struct Rate {
    since: Instant,
    gets: u64,
    per_second: f64,
}

impl Rate {
    /// Nothing has grown yet.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            gets: 0,
            per_second: 0.0,
        }
    }

    /// Takes in a reading; the rate is that over the last second or so.
    pub(super) fn read(&mut self, gets: u64, now: Instant) {
        let span = now - self.since;
        if span >= Duration::from_secs(1) {
            self.per_second = gets.saturating_sub(self.gets) as f64 / span.as_secs_f64();
            self.since = now;
            self.gets = gets;
        }
    }
}

/// The live part of this moment.
pub(super) fn live(status: &SplitStatus, figures: &Figures, rate: &Rate, ink: Ink) -> Live {
    Live {
        block: block(status, figures, rate, ink),
        line: line(status, figures),
    }
}

fn block(status: &SplitStatus, figures: &Figures, rate: &Rate, ink: Ink) -> String {
    let phase = match status.phase {
        _ if status.emergency => ink.paint(Tone::Bad, "emergency"),
        Phase::RolledBack => ink.paint(Tone::Bad, "rolled back"),
        Phase::Paused => ink.paint(Tone::Warning, "paused"),
        phase => ink.paint(Tone::Good, phase.as_str()),
    };
    let failed = format!("{} failed", count(figures.failed));
    let failed = ink.paint(tone(figures.failed), &failed);
    let strays = format!("{} changed arm", count(figures.strays));
    let strays = ink.paint(tone(figures.strays), &strays);
    let heading = |word: &str| ink.paint(Tone::Heading, &format!("{word:<9}"));
    let mut text = format!(
        "{}{} GETs, {:.0} a second, {failed}, {} rescued\n",
        heading("clients"),
        count(figures.gets),
        rate.per_second,
        count(figures.rescued),
    );
    text.push_str(&format!(
        "{}{} of {} last answered by new, {strays}\n",
        heading("sessions"),
        count(figures.on_new as u64),
        count(figures.seen as u64),
    ));
    text.push_str(&format!(
        "{}{} {phase}, breaker {}\n",
        heading("share"),
        bar(figures, status, ink),
        status.breaker.replace('_', " "),
    ));
    if let Some(stage) = &status.outlook.stage {
        let lacking = status.outlook.lacking.first();
        let lacking = lacking.map_or(String::new(), |lacking| format!(". {lacking}"));
        let (plan, number, of) = (heading("plan"), stage.number, stage.of);
        text.push_str(&format!("{plan}stage {number} of {of}{lacking}\n"));
    }
    text.push_str(&arms(status, ink));
    text
}

fn arms(status: &SplitStatus, ink: Ink) -> String {
    let mut table = Table::new([
        ("ARM", Align::Left),
        ("REQUESTS", Align::Right),
        ("ERRORS", Align::Right),
        ("P50", Align::Right),
        ("P95", Align::Right),
        ("P99", Align::Right),
    ]);
    for arm in Arm::ALL {
        let measured = &status.arms[arm];
        let time = |time: Option<f64>| time.map_or_else(|| "-".to_owned(), seconds);
        table.row([
            arm.as_str().into(),
            count(measured.requests).into(),
            error_rate(status, arm).into(),
            time(measured.p50_seconds).into(),
            time(measured.p95_seconds).into(),
            time(measured.p99_seconds).into(),
        ]);
    }
    table.render(ink)
}

fn line(status: &SplitStatus, figures: &Figures) -> String {
    let arm = |arm: Arm| {
        let measured = &status.arms[arm];
        let p95 = measured.p95_seconds.map_or_else(|| "-".to_owned(), seconds);
        format!("{arm} errors {} p95 {p95}", error_rate(status, arm))
    };
    format!(
        "    {} GETs, {} failed; {} of {} sessions on new, {} changed arm; share {}; {}; {}",
        count(figures.gets),
        count(figures.failed),
        count(figures.on_new as u64),
        count(figures.seen as u64),
        count(figures.strays),
        status.share,
        arm(Arm::Legacy),
        arm(Arm::New),
    )
}

/// Errors of an arm in percent, as the proxy booked them.
pub(super) fn error_rate(status: &SplitStatus, arm: Arm) -> String {
    let measured = &status.arms[arm];
    match measured.requests {
        0 => "-".to_owned(),
        requests => percent(measured.errors as f64 / requests as f64),
    }
}

/// The part of the sessions that `new` answers, beside the share that is in effect.
fn bar(figures: &Figures, status: &SplitStatus, ink: Ink) -> String {
    let full = if figures.seen == 0 {
        0
    } else {
        (figures.on_new * BAR).div_ceil(figures.seen)
    };
    let filled = ink.paint(Tone::Good, &"█".repeat(full));
    format!("{filled}{} {:>5}", "░".repeat(BAR - full), status.share)
}

const fn tone(count: u64) -> Tone {
    if count == 0 { Tone::Good } else { Tone::Bad }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::ArmStatus;
    use crate::policy::arm::PerArm;
    use crate::policy::rollout::{Outlook, StageProgress};

    fn status() -> SplitStatus {
        let arm = |requests, errors| ArmStatus {
            requests,
            errors,
            p95_seconds: Some(0.0121),
            ..ArmStatus::default()
        };
        SplitStatus {
            name: "api".into(),
            revision: 0,
            rest: None,
            phase: Phase::Progressing,
            share: "10%".into(),
            file_share: Some("10%".into()),
            override_share: None,
            emergency: false,
            rollout_id: "1".into(),
            backends: PerArm::default(),
            conditions: Vec::new(),
            outlook: Outlook::default(),
            signals: Vec::new(),
            arms: PerArm {
                legacy: arm(900, 0),
                new: arm(100, 12),
            },
            rescued: 0,
            diverted: 0,
            breaker: "half_open".into(),
            last_decision: None,
            recording: None,
        }
    }

    #[test]
    fn the_live_part_says_the_same_on_a_terminal_and_in_a_file() {
        let figures = Figures {
            gets: 1_000,
            seen: 50,
            on_new: 5,
            ..Figures::default()
        };
        let now = Instant::now();
        let mut rate = Rate::new(now);
        rate.read(1_000, now + Duration::from_secs(2));
        let live = live(&status(), &figures, &rate, Ink::Plain);
        let expected = "\
clients  1,000 GETs, 500 a second, 0 failed, 0 rescued
sessions 5 of 50 last answered by new, 0 changed arm
share    ███░░░░░░░░░░░░░░░░░░░░░░░░░░░   10% progressing, breaker half open
ARM     REQUESTS  ERRORS  P50      P95  P99
legacy       900      0%    -  12.1 ms    -
new          100   12.0%    -  12.1 ms    -
";
        assert_eq!(live.block, expected);
        assert_eq!(
            live.line,
            "    1,000 GETs, 0 failed; 5 of 50 sessions on new, 0 changed arm; share 10%; legacy \
             errors 0% p95 12.1 ms; new errors 12.0% p95 12.1 ms"
        );
    }

    #[test]
    fn a_plan_says_where_it_is_and_what_it_waits_for() {
        let mut status = status();
        status.outlook.stage = Some(StageProgress {
            number: 2,
            of: 6,
            ..StageProgress::default()
        });
        status.outlook.lacking = vec!["Somebody has to approve 30%.".into()];
        let rate = Rate::new(Instant::now());
        let live = live(&status, &Figures::default(), &rate, Ink::Plain);
        let expected = "\nplan     stage 2 of 6. Somebody has to approve 30%.\nARM ";
        assert!(live.block.contains(expected), "{}", live.block);
    }

    #[test]
    fn before_the_first_answer_nothing_is_invented() {
        let now = Instant::now();
        let mut status = status();
        status.arms = PerArm::default();
        let live = live(&status, &Figures::default(), &Rate::new(now), Ink::Plain);
        assert!(!live.block.contains("NaN") && !live.line.contains("NaN"));
    }
}
