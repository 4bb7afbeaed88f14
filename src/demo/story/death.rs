//! The new API dies; later it heals, and a person says that it may be trusted again.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::policy::rollout::Phase;
use crate::terminal::{Tone, count};

use super::{Impossible, LOOK, LOOK_CLOSELY, NO_SHARE, Story};
use crate::demo::cannot;
use crate::demo::census::Era;
use crate::demo::harm::DEATH;
use crate::demo::operator::SPLIT;

/// The most that a dead API may be asked in vain.
const FAILED_ATTEMPTS: u64 = 40;
/// The longest that the share may stay above 0. A debug build beside other work shows what happens,
/// not how quickly.
const TIME_TO_ZERO: Duration = Duration::from_secs(if cfg!(debug_assertions) { 10 } else { 1 });
/// Answers to sessions of `new` after which "it stays so" is believed.
const CONVINCING: u64 = 100;

impl<W: Write> Story<'_, W> {
    pub(super) async fn the_new_api_dies(&mut self) -> Result<(), Impossible> {
        self.act(DEATH.title);
        let failed_before = self.failed_attempts().await?;
        let end = self.strike(&DEATH).await?;
        let first_rescue = self.figures().first_rescue;
        let since_failure = first_rescue.map_or(Duration::ZERO, |first| {
            (end.struck + end.took).saturating_duration_since(first)
        });
        self.check(
            &format!("the share is 0 within {} s", TIME_TO_ZERO.as_secs()),
            end.status.share == NO_SHARE && end.took <= TIME_TO_ZERO,
            format!(
                "{:.2} s after its death, {:.2} s after the first rescue",
                end.took.as_secs_f64(),
                since_failure.as_secs_f64()
            ),
        );
        self.check(
            "one sentence says why",
            end.decision.as_ref().is_some_and(|decision| {
                !decision.sentence.is_empty() && DEATH.explains(&decision.reason)
            }),
            end.decision.map_or_else(
                || "the engine recorded no rollback".to_owned(),
                |decision| decision.reason,
            ),
        );
        let before = self.figures();
        let (_, figures) = self
            .watch(LOOK, |_, figures| {
                figures.sent_to_legacy >= before.sent_to_legacy + CONVINCING
            })
            .await?;
        self.check(
            "its sessions are served by legacy",
            figures.sent_to_legacy >= before.sent_to_legacy + CONVINCING
                && figures.by_new == before.by_new,
            format!(
                "{} answers, and {} rescued before",
                count(figures.sent_to_legacy - before.sent_to_legacy),
                count(figures.rescued)
            ),
        );
        let failed = self.failed_attempts().await?.saturating_sub(failed_before);
        self.check(
            "at most 40 attempts failed on the dead API",
            failed <= FAILED_ATTEMPTS,
            count(failed),
        );
        self.check_no_get_failed("no GET failed while the new API died", &figures);
        Ok(())
    }

    pub(super) async fn it_heals_and_nobody_goes_back(&mut self) -> Result<(), Impossible> {
        self.act("The new API is back; cutover does not trust it by itself");
        self.new
            .revive()
            .map_err(|error| cannot("revive the new API", &error))?;
        let before = self.figures();
        let (status, figures) = self
            .watch(LOOK, |_, figures| {
                figures.sent_to_legacy >= before.sent_to_legacy + CONVINCING
            })
            .await?;
        self.check(
            "a rollback is latched until a person clears it",
            status.share == NO_SHARE
                && status.phase == Phase::RolledBack
                && figures.by_new == before.by_new,
            format!(
                "share {}, {} answers of new",
                status.share,
                figures.by_new - before.by_new
            ),
        );
        Ok(())
    }

    pub(super) async fn the_operator_resumes(&mut self) -> Result<(), Impossible> {
        self.act("The operator resumes");
        let words = ["resume", SPLIT, "--reason", "the new API is back"];
        let command = format!("  $ {}", self.operator.line(&words));
        self.screen.say(&self.ink.paint(Tone::Heading, &command));
        let before = self.figures();
        let resumed = Instant::now();
        let said = self.operator.run(&words).await?;
        for line in said.text.lines() {
            self.screen.say(&format!("    {line}"));
        }
        self.traffic.census().enter(Era::Steady);
        let (_, figures) = self
            .watch(LOOK_CLOSELY, |_, figures| figures.by_new > before.by_new)
            .await?;
        let first = resumed.elapsed();
        let came_back = figures.by_new > before.by_new;
        let (status, figures) = self
            .watch(LOOK, |_, figures| figures.on_new == figures.home_new)
            .await?;
        self.check(
            "after the resume the same sessions are back on new",
            said.success
                && came_back
                && status.share == "100%"
                && figures.on_new == figures.home_new,
            format!(
                "{} of {}, the first after {:.2} s",
                count(figures.on_new as u64),
                count(figures.home_new as u64),
                first.as_secs_f64()
            ),
        );
        Ok(())
    }
}
